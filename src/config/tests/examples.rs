//! The files in `config/`.

use super::*;

fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(&path).unwrap())
    };
    files.filter(|path| path.extension().is_some_and(|end| end == "toml")).map(read).collect()
}

#[test]
fn every_file_in_config_is_a_correct_configuration() {
    let examples = examples();
    assert!(examples.len() >= 4, "the annotated file and three examples");
    for (name, text) in examples {
        let config = Config::parse(Some((&name, &text)), []).unwrap_or_else(|errors| panic!("{errors}"));
        config.routes().unwrap();
    }
}

#[test]
fn the_annotated_file_gives_every_key_with_its_default() {
    let (_, text) = examples().into_iter().find(|(name, _)| name == "linkspan.toml").unwrap();
    assert_eq!(parse(&text).unwrap(), parse("").unwrap(), "what it sets are the defaults");
    for (section, value) in [
        ("doors", Value::serialize(Doors::default()).unwrap()),
        ("limits", Value::serialize(Limits::default()).unwrap()),
        ("log", Value::serialize(Log::default()).unwrap()),
    ] {
        let lines = lines::Lines::parse("linkspan.toml", &text).unwrap();
        for key in leaves(&KeyPath::of([section]), &value) {
            assert!(lines.has(&key), "{key} is not in config/linkspan.toml");
        }
    }
}

fn leaves(key: &KeyPath, value: &Value) -> Vec<KeyPath> {
    match value {
        Value::Dict(_, table) => {
            table.iter().flat_map(|(name, value)| leaves(&key.key(name), value)).collect()
        }
        _ => vec![key.clone()],
    }
}

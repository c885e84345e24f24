//! Which ledger is meant.

use super::*;

#[test]
fn it_is_a_file_or_a_postgresql_and_the_environment_wins() {
    assert_eq!(parse("").unwrap().ledger, Ledger::File("linkspan-data/ledger.redb".into()));
    assert_eq!(parse("ledger = \"x/y.redb\"").unwrap().ledger, Ledger::File("x/y.redb".into()));
    let url = "postgres://linkspan:secret@db:5432/linkspan?sslmode=require";
    let shared = from_environment("ledger = \"x\"", &[("LINKSPAN_LEDGER", url)]).unwrap().ledger;
    let Ledger::Postgres(it) = &shared else { panic!("{shared:?}") };
    assert_eq!(it.expose(), url);
    for shown in [format!("{shared}"), format!("{shared:?}")] {
        assert!(shown.contains("db:5432") && !shown.contains("secret"), "{shown}");
    }
}

#[test]
fn what_is_neither_is_told_with_what_would_be() {
    let at = "linkspan.toml:2: ledger:";
    for (ledger, wrong) in [
        ("", "\"\" is no file"),
        (
            "postgre://h/d",
            "has the scheme `postgre`; expected the path of a file, or postgres://USER:PASSWORD@HOST/DATABASE; did you \
             mean `postgres`?",
        ),
        (
            "file:///x",
            "has the scheme `file`; expected the path of a file, or postgres://USER:PASSWORD@HOST/DATABASE",
        ),
        (
            "postgres://u:se/cret@h",
            "has `/`, `?`, `#` or `@` before its host; in a user and password write %2f, %3f, %23 and %40",
        ),
        ("postgres://u:secret@h:x", "has the port `x`; expected 1 to 65535"),
    ] {
        told(&format!("# x\nledger = \"{ledger}\"\n"), &[&format!("{at} {wrong}")]);
    }
    told("ledger = 7", &["linkspan.toml:1: ledger: expected a text in quotes, found a number"]);
}

#[test]
fn another_one_needs_a_restart() {
    let url = |password: &str| format!("ledger = \"postgres://u:{password}@h/d\"");
    let (one, other) = (parse(&url("a")).unwrap(), parse(&url("b")).unwrap());
    let refused = one.may_become(&other).unwrap_err().to_string();
    assert!(refused.starts_with("linkspan.toml:1: ledger: was changed"), "{refused}");
    assert!(one.may_become(&one.clone()).is_ok());
}

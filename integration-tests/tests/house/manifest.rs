//! Which crate of the workspace may depend on which.

use toml_edit::{DocumentMut, Item};

/// The packages below the root package, and what of the workspace each may depend on, tests included.
const MAY_DEPEND: [(&str, &[&str]); 5] = [
    ("contract", &[]),
    ("queues", &["linkspan-contract"]),
    ("embedded", &["linkspan-contract", "linkspan-queues"]),
    ("amqp", &["linkspan-contract", "linkspan-embedded", "linkspan-queues"]),
    ("mqtt", &["linkspan-contract", "linkspan-embedded", "linkspan-queues"]),
];

/// What tests and benches alone may depend on besides: the harness, which has the brokers, though the server is below it.
/// It is for adapters that have a broker behind them.
const MAY_TEST_WITH: [(&str, &str); 2] =
    [("amqp", "linkspan-integration-tests"), ("mqtt", "linkspan-integration-tests")];

/// Where the manifest of `adapters/<name>` breaks the directions.
pub fn violations(name: &str, manifest: &str) -> Vec<String> {
    let path = format!("adapters/{name}/Cargo.toml");
    let Some((_, allowed)) = MAY_DEPEND.iter().find(|(n, _)| *n == name) else {
        return vec![format!("{path}: the crate has no line in MAY_DEPEND of manifest.rs")];
    };
    let of_ours = |d: &String| d.starts_with("linkspan");
    // A crate's tests may turn on what it has for tests of others.
    let own = format!("linkspan-{name}");
    let shipped = of_kinds(manifest, &["dependencies", "build-dependencies"]);
    let wrong = dependencies(manifest).into_iter().filter(|d| {
        let in_tests = (MAY_TEST_WITH.contains(&(name, d.as_str())) || *d == own) && !shipped.contains(d);
        of_ours(d) && !allowed.contains(&d.as_str()) && !in_tests
    });
    wrong.map(|d| format!("{path}: {name} must not depend on {d}")).collect()
}

/// The names of all dependencies, for whatever use and target.
pub fn dependencies(manifest: &str) -> Vec<String> {
    of_kinds(manifest, &["dependencies", "dev-dependencies", "build-dependencies"])
}

fn of_kinds(manifest: &str, kinds: &[&str]) -> Vec<String> {
    let doc: DocumentMut = manifest.parse().unwrap_or_else(|e| panic!("Cargo.toml: {e}"));
    let mut tables: Vec<&Item> = vec![doc.as_item()];
    if let Some(targets) = doc.get("target").and_then(Item::as_table_like) {
        tables.extend(targets.iter().map(|(_, t)| t));
    }
    let lists = tables.iter().flat_map(|t| kinds.iter().filter_map(|k| t.get(k)?.as_table_like()));
    lists.flat_map(|l| l.iter().map(|(name, _)| name.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_depends_neither_on_the_server_nor_on_another_but_the_embedded_one() {
        assert_eq!(violations("embedded", "[dependencies]\nlinkspan.workspace = true").len(), 1);
        assert_eq!(
            violations("embedded", "[dev-dependencies]\nlinkspan-mqtt = { path = \"../mqtt\" }").len(),
            1
        );
        assert_eq!(violations("amqp", "[target.'cfg(unix)'.dependencies]\nlinkspan-mqtt = \"1\"").len(), 1);
        assert!(violations("embedded", "[dependencies]\nlinkspan-queues.workspace = true").is_empty());
        assert!(violations("amqp", "[dependencies]\nlinkspan-embedded.workspace = true").is_empty());
    }

    #[test]
    fn the_harness_is_for_tests_of_adapters_with_a_broker() {
        let on = |name: &str, kind: &str| {
            violations(name, &format!("[{kind}]\nlinkspan-integration-tests.workspace = true")).len()
        };
        assert_eq!((on("amqp", "dev-dependencies"), on("mqtt", "dev-dependencies")), (0, 0));
        assert_eq!((on("amqp", "dependencies"), on("embedded", "dev-dependencies")), (1, 1));
    }

    #[test]
    fn the_contract_and_the_queues_lie_below() {
        assert_eq!(violations("contract", "[dependencies]\nlinkspan-queues.workspace = true").len(), 1);
        assert_eq!(violations("queues", "[dependencies]\nlinkspan-embedded.workspace = true").len(), 1);
        assert!(violations("queues", "[dependencies]\nlinkspan-contract.workspace = true").is_empty());
    }

    #[test]
    fn tests_may_turn_on_features_of_their_own_crate() {
        assert!(violations("queues", "[dev-dependencies]\nlinkspan-queues.workspace = true").is_empty());
        assert_eq!(violations("queues", "[dependencies]\nlinkspan-queues.workspace = true").len(), 1);
    }

    #[test]
    fn a_new_adapter_is_a_decision() {
        assert_eq!(violations("kafka", "[dependencies]").len(), 1);
    }
}

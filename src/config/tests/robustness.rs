//! Whatever the file holds, it is read or refused.

use super::*;
use proptest::prelude::*;

/// Lines that meet in ways that nobody thought of.
fn line() -> impl Strategy<Value = String> {
    let key = "(listen|enabled|route|match|queue|kind|path|url|backend|vhost|users|password|doors\\.mqtt|x)";
    let value =
        "(1|true|\"\"|\"a/\\+/#\"|\"1 MiB\"|\"9s\"|\\[\\]|\\[1, \"a\"\\]|\\{ a = 1 \\}|1979-05-27|.{0,8})";
    let table = "\\[\\[?(route|doors|doors.mqtt|users.a|backends.b|vhosts.\"/\"|limits|log|.{0,8})\\]\\]?";
    prop_oneof![(key, value).prop_map(|(key, value)| format!("{key} = {value}")), table.prop_map(|line| line)]
}

proptest! {
    #[test]
    fn any_text_and_any_variable_is_read_or_refused_in_lines(
        lines in prop::collection::vec(line(), 0..12),
        name in "LINKSPAN_(DOORS|ROUTE|USERS|LOG|[A-Z_]{0,6})(__[A-Z_]{0,8}){0,3}",
        value in "(\\{a=1\\}|\\[1,2\\]|.{0,8})",
    ) {
        let text = lines.join("\n");
        if let Err(errors) = Config::parse(Some(("linkspan.toml", &text)), [(name.clone(), value)]) {
            for line in errors.to_string().lines() {
                let named = line.starts_with("linkspan.toml") || line.starts_with(&name) || line.starts_with("default");
                prop_assert!(named, "{}", line);
            }
        }
    }
}

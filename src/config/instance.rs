//! `instance`: what this Linkspan is called at brokers.

use std::sync::Arc;

use super::key::KeyPath;
use super::report::Report;

/// Client identifiers are the name and up to 21 bytes more. Brokers must take 23 bytes [MQTT-3.1.3-5]; most take many more.
const LONGEST: usize = 64;

/// What client identifiers of work queues begin with: `linkspan.<queue>`.
const TAKEN: &str = "linkspan";

/// The name, if one is given.
pub(super) fn check(name: Option<&str>, report: &mut Report<'_>) -> Option<Arc<str>> {
    let name = name?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let wrong = if name.is_empty() || name.len() > LONGEST {
        Some(format!("has {} characters; expected 1 to {LONGEST}", name.chars().count()))
    } else if let Some(c) = name.chars().find(|c| !plain(*c)) {
        Some(format!(
            "contains {c:?}; expected letters of ASCII, digits, `-`, `_` and `.`, as in a client identifier"
        ))
    } else if name == TAKEN || name.strip_prefix(TAKEN).is_some_and(|rest| rest.starts_with('.')) {
        Some(format!(
            "`{name}` would be mistaken for a work queue's session, `{TAKEN}.<queue>`; choose another name"
        ))
    } else {
        None
    };
    if let Some(text) = wrong {
        report.bad_value(&KeyPath::of(["instance"]), text);
    }
    Some(name.into())
}

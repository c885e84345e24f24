//! `[vhosts.NAME]`: namespaces, each with one home back end.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::key::KeyPath;
use super::report::Report;

/// A vhost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vhost {
    /// The home back end: holds what AMQP clients declare and what no route matches.
    pub backend: Arc<str>,
}

/// `[vhosts.NAME]` as written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct VhostTable {
    /// May be left out where only one back end exists.
    backend: Option<String>,
}

/// The vhost that exists when none is configured.
pub(super) const DEFAULT_NAME: &str = "/";

/// A vhost's name travels as a short string in connection.open (AMQP 0-9-1 §1.4.2.7).
const MAX_NAME: usize = 255;

/// The vhosts by name. `backends` are the names of all back ends, also of those that could not be built.
pub(super) fn check(
    vhosts: &BTreeMap<String, VhostTable>,
    backends: &[&str],
    report: &mut Report<'_>,
) -> BTreeMap<Arc<str>, Vhost> {
    let default = BTreeMap::from([(DEFAULT_NAME.to_owned(), VhostTable::default())]);
    let mut checked = BTreeMap::new();
    for (name, vhost) in if vhosts.is_empty() { &default } else { vhosts } {
        let key = KeyPath::of(["vhosts", name]);
        if name.is_empty() || name.len() > MAX_NAME {
            report.bad_value(&key, "a vhost's name has 1 to 255 bytes");
        }
        let home = match (vhost.backend.as_deref(), backends) {
            (Some(backend), _) => {
                if !backends.contains(&backend) {
                    report.unknown(&key.key("backend"), "back end", backend, backends.iter().copied());
                }
                backend
            }
            (None, [only]) => only,
            (None, _) => {
                report.missing(&key.key("backend"), format!("which of {} is the home?", backends.join(", ")));
                ""
            }
        };
        checked.insert(name.as_str().into(), Vhost { backend: home.into() });
    }
    checked
}

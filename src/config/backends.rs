//! `[backends.NAME]`: what holds the messages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::key::KeyPath;
use super::report::Report;
use super::{Problem, nearest};

/// A back end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Backend {
    /// The broker inside Linkspan.
    Embedded {
        /// Its directory; relative to where Linkspan was started.
        path: PathBuf,
    },
}

/// `[backends.NAME]` as written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct BackendTable {
    /// `embedded`, `amqp` or `mqtt`.
    kind: Option<String>,
    /// Of kind `embedded`; [`DEFAULT_PATH`] when not given.
    path: Option<PathBuf>,
    /// Of kinds `amqp` and `mqtt`.
    url: Option<String>,
}

/// The name of the back end that exists when none is configured.
pub(super) const DEFAULT_NAME: &str = "local";

/// Where that one lives.
const DEFAULT_PATH: &str = "linkspan-data";

const KINDS: [&str; 3] = ["embedded", "amqp", "mqtt"];

/// The back ends by name; with none configured, an embedded one.
pub(super) fn check(
    backends: &BTreeMap<String, BackendTable>,
    report: &mut Report<'_>,
) -> BTreeMap<Arc<str>, Backend> {
    if backends.is_empty() {
        return BTreeMap::from([(DEFAULT_NAME.into(), Backend::Embedded { path: DEFAULT_PATH.into() })]);
    }
    let mut built: BTreeMap<Arc<str>, Backend> = BTreeMap::new();
    for (name, table) in backends {
        let key = KeyPath::of(["backends", name]);
        if let Some(backend) = table.check(&key, report) {
            let Backend::Embedded { path } = &backend;
            let same = built.iter().find(|(_, other)| **other == backend);
            if let Some((other, _)) = same {
                let path = path.display();
                report
                    .bad_value(&key.key("path"), format!("\"{path}\" belongs to back end `{other}` already"));
            }
            built.insert(name.as_str().into(), backend);
        }
    }
    built
}

impl BackendTable {
    fn check(&self, key: &KeyPath, report: &mut Report<'_>) -> Option<Backend> {
        let Some(kind) = self.kind.as_deref() else {
            report.missing(&key.key("kind"), "`embedded`, `amqp` or `mqtt`");
            return None;
        };
        match kind {
            "embedded" => {
                if self.url.is_some() {
                    report.bad_value(&key.key("url"), "an embedded back end has no url; it has a `path`");
                }
                let path = self.path.clone().unwrap_or_else(|| DEFAULT_PATH.into());
                if path.as_os_str().is_empty() {
                    report.bad_value(&key.key("path"), "\"\" is no directory");
                }
                Some(Backend::Embedded { path })
            }
            "amqp" => self.check_remote(key, "amqp", ["amqp", "amqps"], report),
            "mqtt" => self.check_remote(key, "mqtt", ["mqtt", "mqtts"], report),
            other => {
                report.unknown(&key.key("kind"), "back end kind", other, KINDS);
                None
            }
        }
    }

    fn check_remote(
        &self,
        key: &KeyPath,
        kind: &str,
        schemes: [&str; 2],
        report: &mut Report<'_>,
    ) -> Option<Backend> {
        if self.path.is_some() {
            report.bad_value(
                &key.key("path"),
                format!("a back end of kind `{kind}` has no path; it has a `url`"),
            );
        }
        match self.url.as_deref() {
            None => report.missing(&key.key("url"), format!("such as \"{kind}://127.0.0.1\"")),
            Some(url) => {
                if let Err(text) = check_url(url, schemes) {
                    report.bad_value(&key.key("url"), text);
                }
            }
        }
        report.wrong(&key.key("kind"), Problem::KindNotBuilt(kind.into()));
        None
    }
}

/// Scheme, host and port. The url itself is not repeated: it may hold a password.
fn check_url(url: &str, schemes: [&str; 2]) -> Result<(), String> {
    let [plain, tls] = schemes;
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("is no url; expected {plain}://HOST or {tls}://HOST"));
    };
    if !schemes.contains(&scheme) {
        let meant = nearest::nearest(scheme, schemes).map(|near| format!("; did you mean `{near}`?"));
        let meant = meant.unwrap_or_default();
        return Err(format!("has the scheme `{scheme}`; expected `{plain}` or `{tls}`{meant}"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host, None),
    };
    if host.is_empty() {
        return Err(format!("names no host; expected {plain}://HOST or {tls}://HOST"));
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => {
            Err(format!("has the port `{port}`; expected 1 to 65535"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_need_a_scheme_of_the_kind_a_host_and_a_port_in_range() {
        let check = |url| check_url(url, ["amqp", "amqps"]);
        for url in ["amqp://h", "amqps://u:p@h:5671/%2f", "amqp://[::1]", "amqp://[::1]:5672/x?heartbeat=5"] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        assert_eq!(check("localhost:5672").unwrap_err(), "is no url; expected amqp://HOST or amqps://HOST");
        assert_eq!(
            check("ampq://h").unwrap_err(),
            "has the scheme `ampq`; expected `amqp` or `amqps`; did you mean `amqp`?"
        );
        assert_eq!(
            check("amqp://u:p@/x").unwrap_err(),
            "names no host; expected amqp://HOST or amqps://HOST"
        );
        assert_eq!(
            check("amqp://u:secret@h:99999").unwrap_err(),
            "has the port `99999`; expected 1 to 65535"
        );
    }
}

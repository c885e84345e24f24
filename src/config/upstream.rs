//! A broker that a back end stands for: where it is and how it is reached.

use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{duration, nearest, size};

/// How a broker is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Upstream {
    /// Account, hosts and what else the scheme knows.
    pub url: Url,
    /// Certificates to trust beside the machine's own.
    pub ca: Option<PathBuf>,
    /// The certificate that Linkspan shows, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Connections that all clients share.
    pub connections: NonZeroU16,
    /// From the first packet to a broker that lets Linkspan in.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// The directory of what is kept here for it, the spools of its routes and, for an MQTT broker, queues; relative to where
    /// Linkspan was started.
    pub path: PathBuf,
    /// Bytes of a file of the logs there.
    #[serde(with = "size")]
    pub segment_size: u64,
}

impl Upstream {
    /// A broker serves one client no faster over more than a few.
    pub(super) const CONNECTIONS: NonZeroU16 = NonZeroU16::MIN.saturating_add(1);
    /// Longer than any broker needs that is well.
    pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
}

/// The version of MQTT that a broker is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MqttVersion {
    /// 5.0, and 3.1.1 when the broker refuses that.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// 3.1.1 only.
    #[serde(rename = "3.1.1")]
    V311,
    /// 5.0 only.
    #[serde(rename = "5")]
    V5,
}

/// Where a broker is. It may hold a password, and is never shown whole.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Url(String);

impl Url {
    pub(super) fn new(url: &str) -> Self {
        Self(url.to_owned())
    }

    /// The whole text, with the password.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn scheme(&self) -> Option<&str> {
        self.0.split_once("://").map(|(scheme, _)| scheme)
    }

    /// Hosts, each with its port when it has one.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        // What stands before the last `@` is never shown, however it is written.
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let hosts = rest.split(['/', '?', '#']).next().unwrap_or_default();
        hosts.split(',')
    }

    /// Scheme, hosts and ports; `schemes` are the plain one and the one over TLS.
    pub(super) fn check(&self, schemes: [&str; 2]) -> Result<(), String> {
        let [plain, tls] = schemes;
        let Some(scheme) = self.scheme() else {
            return Err(format!("is no url; expected {plain}://HOST or {tls}://HOST"));
        };
        if !schemes.contains(&scheme) {
            let meant = nearest(scheme, schemes).map(|near| format!("; did you mean `{near}`?"));
            let meant = meant.unwrap_or_default();
            return Err(format!("has the scheme `{scheme}`; expected `{plain}` or `{tls}`{meant}"));
        }
        let account = self.0.rsplit_once('@').map_or("", |(account, _)| account);
        let account = account.split_once("://").map_or("", |(_, account)| account);
        if account.contains(['/', '?', '#', '@']) {
            return Err("has `/`, `?`, `#` or `@` before its host; in a user and password write %2f, %3f, %23 and %40".into());
        }
        for host in self.hosts() {
            let (host, port) = match host.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => (host, Some(port)),
                _ => (host, None),
            };
            if host.is_empty() {
                return Err(format!("names no host; expected {plain}://HOST or {tls}://HOST"));
            }
            if let Some(port) = port.filter(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return Err(format!("has the port `{port}`; expected 1 to 65535"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without account and parameters.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme().unwrap_or("?"))?;
        for (at, host) in self.hosts().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{host}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> Result<(), String> {
        Url(url.to_owned()).check(["amqp", "amqps"])
    }

    #[test]
    fn urls_need_a_scheme_of_the_kind_hosts_and_ports_in_range() {
        for url in [
            "amqp://h",
            "amqps://u:p@h:5671/%2f",
            "amqp://[::1]",
            "amqp://[::1]:5672/x?heartbeat=5",
            "amqp://u:p@one,two:5673/x",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        assert_eq!(check("localhost:5672").unwrap_err(), "is no url; expected amqp://HOST or amqps://HOST");
        assert_eq!(
            check("ampq://h").unwrap_err(),
            "has the scheme `ampq`; expected `amqp` or `amqps`; did you mean `amqp`?"
        );
        for url in ["amqp://u:p@/x", "amqp://one,,two"] {
            assert_eq!(check(url).unwrap_err(), "names no host; expected amqp://HOST or amqps://HOST");
        }
        assert_eq!(
            check("amqp://u:secret@h:99999").unwrap_err(),
            "has the port `99999`; expected 1 to 65535"
        );
    }

    #[test]
    fn a_url_is_shown_without_its_account() {
        let url = Url("amqp://u:secret@one:1,two/x?y".into());
        assert_eq!(format!("{url} {url:?}"), "amqp://one:1,two amqp://one:1,two");
        let url = Url("amqp://u:pa/ss@h".into());
        assert_eq!(url.to_string(), "amqp://h");
        assert!(check("amqp://u:pa/ss@h").unwrap_err().contains("%2f"));
    }
}

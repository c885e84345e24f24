//! A broker of whatever kind: where it is, and what can be done to it.

use std::net::SocketAddr;

use super::endpoint;
use super::place::Kind;
use super::upstream::{Probe, Upstream};

/// A broker that tests use, shared with others or their own.
#[derive(Debug)]
pub struct Broker {
    kind: &'static Kind,
    url: String,
    address: SocketAddr,
    secure: Option<SocketAddr>,
    own: Option<Upstream>,
}

impl Broker {
    /// The one that the environment names, if it does.
    pub(super) fn given(kind: &'static Kind, serves: Probe) -> Option<Self> {
        let url = std::env::var(kind.url_variable).ok()?;
        let address = endpoint(kind.url_variable, &url);
        assert!(serves(address), "{}: there is no {} at {address}", kind.url_variable, kind.name);
        Some(Self { kind, url, address, secure: None, own: None })
    }

    /// One that was started for a test; `secure` is where it serves over TLS.
    pub(super) fn started(
        kind: &'static Kind,
        url: String,
        address: SocketAddr,
        secure: Option<SocketAddr>,
        upstream: Upstream,
    ) -> Self {
        Self { kind, url, address, secure, own: Some(upstream) }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL for who goes another way, such as through a [`Cable`](crate::Cable).
    pub fn url_by(&self, way: SocketAddr) -> String {
        by_another_way(&self.url, way)
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves over TLS.
    pub fn secure(&self) -> SocketAddr {
        self.secure.unwrap_or_else(|| panic!("this {} has no TLS: use own_over_tls()", self.kind.name))
    }

    /// The variable that gives it to another process as its shared one.
    pub(super) fn variable(&self) -> (&'static str, String) {
        (self.kind.url_variable, self.url.clone())
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same ports with the same data, and waits
    /// until it serves.
    pub async fn start(&self) {
        self.upstream().start_again().await;
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    pub async fn stop(&self) {
        self.upstream().stop().await;
    }

    /// Kills it (SIGKILL).
    pub async fn kill(&self) {
        self.upstream().kill().await;
    }

    /// Freezes it (SIGSTOP): its connections stay open, nothing comes from them.
    pub async fn pause(&self) {
        self.upstream().pause().await;
    }

    /// Goes on after [`pause`](Self::pause).
    pub async fn resume(&self) {
        self.upstream().resume().await;
    }

    pub(super) fn upstream(&self) -> &Upstream {
        let name = self.kind.name;
        self.own.as_ref().unwrap_or_else(|| panic!("a {name} from the environment is shared: use own()"))
    }
}

fn by_another_way(url: &str, way: SocketAddr) -> String {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let host = url.rfind('@').map_or(after_scheme, |at| at + 1);
    let path = url[host..].find('/').map_or(url.len(), |at| host + at);
    format!("{}{way}{}", &url[..host], &url[path..])
}

#[cfg(test)]
mod tests {
    use super::by_another_way;

    #[test]
    fn another_way_changes_only_where_a_url_leads() {
        let way = "127.0.0.1:9".parse().unwrap();
        for (url, by) in [
            ("amqp://guest:guest@rabbit:5672/%2f", "amqp://guest:guest@127.0.0.1:9/%2f"),
            ("amqp://rabbit:5672", "amqp://127.0.0.1:9"),
            ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:9"),
        ] {
            assert_eq!(by_another_way(url, way), by);
        }
    }
}

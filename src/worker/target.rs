//! Where a worker pushes to, ready to be used.

use std::sync::Arc;

use axum::http::{HeaderValue, Uri, header, uri};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::config::Worker;

/// What this program calls itself.
const NAME: HeaderValue = HeaderValue::from_static(concat!("linkspan/", env!("CARGO_PKG_VERSION")));

/// A worker as configured, and what is made of that once.
pub struct Target {
    /// As configured, but for headers that every request has.
    pub worker: Worker,
    /// Host and port to connect to.
    pub(super) host: String,
    pub(super) port: u16,
    /// What stands in the request's first line.
    pub(super) path: Uri,
    /// TLS, and the name that the server has to prove.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Whom it trusts besides whom this machine does.
    authorities: Vec<CertificateDer<'static>>,
}

/// Why a worker cannot be as it is configured: the key that is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unusable {
    /// The key.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Target {
    /// What is made of a worker; `authorities` are the certificates in the file that it names.
    ///
    /// # Errors
    /// When one of them cannot be used, or the host is no name.
    pub fn new(worker: &Worker, authorities: Vec<CertificateDer<'static>>) -> Result<Self, Unusable> {
        let of_url = |why: &str| Unusable { key: "url", why: why.into() };
        let mut worker = worker.clone();
        let host = worker.url.host().ok_or_else(|| of_url("names no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let is_secure = worker.url.scheme() == Some(&uri::Scheme::HTTPS);
        let port = worker.url.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let path = worker.url.path_and_query().map_or("/", |path| path.as_str());
        // A query may follow the host at once.
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let path = path.parse().map_err(|_| of_url("has a path that cannot be asked for"))?;
        let tls = match is_secure {
            false => None,
            true => {
                let name = ServerName::try_from(host.clone());
                Some((trusting(&authorities)?, name.map_err(|_| of_url("has a host that is no name"))?))
            }
        };
        let authority = worker.url.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let authority = HeaderValue::try_from(authority).map_err(|_| of_url("has a host that is no name"))?;
        worker.headers.insert(header::HOST, authority);
        worker.headers.entry(header::USER_AGENT).or_insert(NAME);
        Ok(Self { worker, host, port, path, tls, authorities })
    }

    /// Whether the other pushes the same to the same place in the same way.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.worker == other.worker && self.authorities == other.authorities
    }
}

/// Trusts what this machine trusts, and `authorities`.
fn trusting(authorities: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, Unusable> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for authority in authorities {
        let added = roots.add(authority.clone());
        added.map_err(|error| Unusable {
            key: "ca",
            why: format!("has a certificate that is none: {error}"),
        })?;
    }
    let versions = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Unusable { key: "url", why: error.to_string() })?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    use super::*;

    fn target(url: &str, rest: &str) -> Result<Target, Unusable> {
        let toml = format!("[[worker]]\nqueue = \"jobs\"\nurl = \"{url}\"\n{rest}\n");
        let config = Config::parse(Some(("x.toml", &toml)), []).unwrap();
        Target::new(&config.workers[0], Vec::new())
    }

    #[test]
    fn a_url_says_where_to_connect_and_what_to_ask_for() {
        for (url, host, port, path, named) in [
            ("http://h", "h", 80, "/", "h"),
            ("https://h", "h", 443, "/", "h"),
            ("http://h:8080/a/b?key=1", "h", 8080, "/a/b?key=1", "h:8080"),
            ("https://h?key=1", "h", 443, "/?key=1", "h"),
            ("http://[::1]:8080/", "::1", 8080, "/", "[::1]:8080"),
        ] {
            let target = target(url, "").unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{url}");
            assert_eq!(target.path.to_string(), path, "{url}");
            assert_eq!(target.worker.headers.get("host").unwrap(), named, "{url}");
            assert_eq!(target.tls.is_some(), url.starts_with("https"), "{url}");
        }
    }

    #[test]
    fn who_says_nothing_is_told_what_this_program_is() {
        let plain = target("http://h", "").unwrap();
        assert!(plain.worker.headers.get("user-agent").unwrap().to_str().unwrap().starts_with("linkspan/"));
        let named = target("http://h", "headers = { User-Agent = \"mine\" }").unwrap();
        assert_eq!(named.worker.headers.get("user-agent").unwrap(), "mine");
    }

    #[test]
    fn a_worker_is_another_when_a_key_is_or_whom_it_trusts() {
        let one = target("https://h", "").unwrap();
        assert!(one.is_same(&target("https://h", "").unwrap()));
        assert!(!one.is_same(&target("https://h/", "concurrency = 2").unwrap()));
        let trusting =
            Target { authorities: vec![CertificateDer::from(vec![1])], ..target("https://h", "").unwrap() };
        assert!(!one.is_same(&trusting));
    }

    #[test]
    fn a_host_that_no_certificate_can_name_and_a_certificate_that_is_none_are_refused() {
        assert_eq!(target("https://a..b", "").err().unwrap().key, "url");
        let worker = target("https://h", "").unwrap().worker;
        let wrong = Target::new(&worker, vec![CertificateDer::from(vec![1, 2, 3])]);
        assert_eq!(wrong.err().unwrap().key, "ca");
    }
}

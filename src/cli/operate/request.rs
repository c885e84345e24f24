//! What is asked of a server, and where that is.

use std::fmt::{self, Write};
use std::net::SocketAddr;

use axum::http::{Method, Uri};

/// The HTTP door of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// Host and port, as they stand in a URL.
    pub authority: String,
    /// The host, to be looked up.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What stands before the path of each request, without a slash at its end.
    pub prefix: String,
}

impl Base {
    /// The door that listens there.
    pub fn at(address: SocketAddr) -> Self {
        let (host, port) = (address.ip().to_string(), address.port());
        Self { authority: address.to_string(), host, port, prefix: String::new() }
    }

    /// Reads a URL such as `http://broker:8080`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = whole.parse().map_err(|_| "expected a URL such as http://127.0.0.1:8080")?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("the HTTP door speaks plain HTTP; for TLS, go through a tunnel to its machine");
            }
            _ => return Err("expected a URL such as http://127.0.0.1:8080"),
        }
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("a user is given by --user, and no password on the command line");
        }
        if uri.query().is_some() {
            return Err("it has a query; expected a URL such as http://127.0.0.1:8080");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            authority: authority.as_str().to_owned(),
            host,
            port: authority.port_u16().unwrap_or(80),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// GET or POST.
    pub method: Method,
    /// Path and query.
    pub path: String,
    has_query: bool,
}

impl Request {
    /// Asks for a resource below `/v1`.
    pub fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    /// Asks for something to be done.
    pub fn post(segments: &[&str]) -> Self {
        Self::new(Method::POST, segments)
    }

    fn new(method: Method, segments: &[&str]) -> Self {
        let mut path = String::from("/v1");
        for segment in segments {
            path.push('/');
            encode(segment, &mut path);
        }
        Self { method, path, has_query: false }
    }

    /// Adds a part of the query, when there is one.
    pub fn with(mut self, name: &str, value: Option<String>) -> Self {
        if let Some(value) = value {
            self.path.push(if self.has_query { '&' } else { '?' });
            self.has_query = true;
            self.path.push_str(name);
            self.path.push('=');
            encode(&value, &mut self.path);
        }
        self
    }
}

/// Appends a text as it stands in a URL (RFC 3986 §2.1).
fn encode(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            to.push(char::from(byte));
        } else {
            let _ = write!(to, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_a_path_whatever_they_contain() {
        let request = Request::post(&["queues", "a/b ü", "replay"])
            .with("limit", None)
            .with("reason", Some("a&b".into()))
            .with("limit", Some("3".into()));
        assert_eq!(request.path, "/v1/queues/a%2Fb%20%C3%BC/replay?reason=a%26b&limit=3");
    }

    #[test]
    fn a_url_names_host_and_port_and_perhaps_a_prefix() {
        let base = |url| Base::parse(url).map(|base| (base.host.clone(), base.port, base.to_string()));
        let expected = |host: &str, port, url: &str| Ok((host.to_owned(), port, url.to_owned()));
        assert_eq!(base("http://broker"), expected("broker", 80, "http://broker"));
        assert_eq!(base("[::1]:8080"), expected("::1", 8080, "http://[::1]:8080"));
        assert_eq!(base("http://a:1/link/"), expected("a", 1, "http://a:1/link"));
        for wrong in ["ftp://a", "http://", "http://u:p@a", "http://a?b", "https://a"] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }
}

//! Where the broker is, who Linkspan is to it, and how much may be under way.

use std::fmt;
use std::time::Duration;

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use linkspan_embedded::OnDisk;

/// One node of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What is needed for TLS besides the machine's own roots.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// More certificate authorities, PEM.
    pub authorities: Option<String>,
    /// The client's certificate chain and its PKCS#8 key, both PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.is_some())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

/// How a broker is reached and used.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpOptions {
    /// Where is written down what addresses retain, which is the broker's no business; in memory alone when there is
    /// nothing here.
    pub on_disk: Option<OnDisk>,
    /// Its nodes: tried in turn.
    pub nodes: Vec<Node>,
    /// Over TLS, when there is something here (`amqps`).
    pub tls: Option<Tls>,
    /// The account there.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Who the client is, is what its certificate says (SASL EXTERNAL).
    pub external: bool,
    /// The broker's vhost.
    pub vhost: String,
    /// Whose the queues of sessions are there: another name for each Linkspan that uses this vhost of the broker, and the same
    /// after a restart. It is part of their names.
    pub owner: String,
    /// The topic exchange that is the address space.
    pub topic_exchange: String,
    /// Connections for publishing, and as many for consuming: a broker that holds publishers must not hold
    /// settlements.
    pub connections: usize,
    /// For name look-up, TCP, TLS and AMQP handshakes together.
    pub connect_timeout: Duration,
    /// Seconds after which a silent peer is asked for a sign of life; after two such times it counts as gone.
    pub heartbeat: u16,
    /// Bytes of the largest frame; a lapin connection holds two buffers of 32 of them.
    pub frame_max: u32,
    /// The shortest time between two attempts to connect; it doubles up to `retry_max`.
    pub retry_min: Duration,
    /// The longest.
    pub retry_max: Duration,
    /// Messages on their way to the broker on one channel.
    pub window: usize,
    /// Bytes of one lane's messages that the broker has not confirmed, above which it is congested.
    pub lane_bytes: u64,
    /// Bytes of all lanes that share a publishing channel, above which all of them are.
    pub shared_bytes: u64,
    /// Deliveries under way to a consumer that settles nothing.
    pub prefetch: u16,
    /// Bytes of the largest payload that the broker takes (RabbitMQ's `max_message_size`).
    pub body_limit: u64,
    /// How long the broker keeps this instance's own queue without it.
    pub instance_expires: Duration,
    /// How long it keeps the queue of a client's session, or of a shared subscription that one has, that nobody consumes:
    /// longer than any session is kept, for Linkspan removes them itself when it can. None: for ever, and so when it is
    /// longer than a broker takes.
    pub session_expires: Option<Duration>,
}

impl fmt::Debug for AmqpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpOptions")
            .field("nodes", &self.nodes)
            .field("tls", &self.tls)
            .field("user", &self.user)
            .field("vhost", &self.vhost)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// Why a `url` is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme.
    #[error("it begins with neither `amqp://` nor `amqps://`")]
    Scheme,
    /// No host between the slashes.
    #[error("it names no host; right would be `amqp://user:password@host:5672/%2f`")]
    NoHost,
    /// A port that is none.
    #[error("`{0}` is not a port; a port is a number from 1 to 65535")]
    Port(String),
    /// A `%` without two hexadecimal digits, or bytes that are no UTF-8.
    #[error("{0} is not percent-encoded UTF-8; write `%25` for `%`")]
    Encoding(&'static str),
    /// A slash inside the vhost.
    #[error("the vhost `{0}` holds a slash; inside a URL a slash is written `%2f`")]
    Vhost(String),
    /// A parameter that nobody knows.
    #[error(
        "the parameter `{0}` is unknown; known are `heartbeat`, `frame_max`, `connection_timeout` and `auth_mechanism`"
    )]
    Parameter(String),
    /// A parameter with a value that it cannot have.
    #[error("the parameter `{0}` cannot be `{1}`")]
    Value(String, String),
}

impl AmqpOptions {
    /// Reads `amqp://user:password@host:port,host:port/vhost?heartbeat=10`. Without a user it is `guest`, without a
    /// vhost `/`.
    ///
    /// # Errors
    /// When it is no such URL, and why.
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        let (secure, rest) = match (url.strip_prefix("amqp://"), url.strip_prefix("amqps://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(UrlError::Scheme),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (account, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = account.split_once(':').unwrap_or((account, ""));
        let port = if secure { 5671 } else { 5672 };
        let nodes = hosts.split(',').map(|host| node(host, port)).collect::<Result<Vec<_>, _>>()?;
        if path.contains('/') {
            return Err(UrlError::Vhost(path.into()));
        }
        let of_guest = |what, text: &str| {
            if account.is_empty() { Ok("guest".to_owned()) } else { decoded(what, text) }
        };
        let mut options = Self {
            nodes,
            tls: secure.then(Tls::default),
            user: of_guest("the user", user)?,
            password: of_guest("the password", password)?,
            external: false,
            vhost: if path.is_empty() { "/".into() } else { decoded("the vhost", path)? },
            ..Self::at(Vec::new())
        };
        for (name, value) in
            query.split('&').filter(|it| !it.is_empty()).map(|it| it.split_once('=').unwrap_or((it, "")))
        {
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), UrlError> {
        let wrong = || UrlError::Value(name.into(), value.into());
        match name {
            "heartbeat" => self.heartbeat = value.parse().map_err(|_| wrong())?,
            "frame_max" => {
                self.frame_max = value.parse().map_err(|_| wrong())?;
                if self.frame_max < 4096 {
                    return Err(wrong());
                }
            }
            "connection_timeout" => {
                self.connect_timeout = Duration::from_millis(value.parse().map_err(|_| wrong())?);
            }
            "auth_mechanism" => {
                self.external = match value.to_ascii_lowercase().as_str() {
                    "plain" => false,
                    "external" => true,
                    _ => return Err(wrong()),
                };
            }
            _ => return Err(UrlError::Parameter(name.into())),
        }
        Ok(())
    }

    /// The defaults, for the account `guest` of the vhost `/` of these nodes.
    pub fn at(nodes: Vec<Node>) -> Self {
        Self {
            on_disk: None,
            nodes,
            tls: None,
            user: "guest".into(),
            password: "guest".into(),
            external: false,
            vhost: "/".into(),
            owner: "linkspan".into(),
            topic_exchange: "amq.topic".into(),
            connections: 2,
            connect_timeout: Duration::from_secs(10),
            heartbeat: 10,
            frame_max: 65_536,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_millis(500),
            window: 2_000,
            lane_bytes: 4 << 20,
            shared_bytes: 64 << 20,
            prefetch: 500,
            body_limit: 128 << 20,
            instance_expires: Duration::from_secs(60),
            session_expires: Some(Duration::from_secs(8 * 24 * 60 * 60)),
        }
    }

    /// What lapin is told to reach the node at `place`, counted round and round.
    pub(crate) fn uri(&self, place: usize) -> Option<(Node, AMQPUri)> {
        let node = self.nodes.get(place.checked_rem(self.nodes.len())?)?.clone();
        let mechanism = if self.external { SASLMechanism::External } else { SASLMechanism::Plain };
        let uri = AMQPUri {
            scheme: if self.tls.is_some() { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: self.user.clone(), password: self.password.clone() },
                host: node.host.clone(),
                port: node.port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                frame_max: Some(self.frame_max),
                heartbeat: Some(self.heartbeat),
                auth_mechanism: Some(mechanism),
                ..AMQPQueryString::default()
            },
        };
        Some((node, uri))
    }

    /// Milliseconds of `session_expires`, where there is an end.
    pub(crate) fn longest_session(&self) -> Option<i64> {
        let millis = self.session_expires?.as_millis();
        u32::try_from(millis).ok().map(i64::from)
    }

    /// The arguments of a session's queue that say so.
    pub(crate) fn expiry_of_sessions(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        if let (Some(millis), Ok(name)) = (self.longest_session(), ShortString::try_new("x-expires")) {
            arguments.insert(name, AMQPValue::LongLongInt(millis));
        }
        arguments
    }

    pub(crate) fn tls(&self) -> OwnedTLSConfig {
        let tls = self.tls.clone().unwrap_or_default();
        OwnedTLSConfig {
            identity: tls.identity.map(|(pem, key)| OwnedIdentity::PKCS8 { pem, key }),
            cert_chain: tls.authorities,
        }
    }
}

fn node(text: &str, port: u16) -> Result<Node, UrlError> {
    let (host, given) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    let port = match given {
        Some(given) => {
            given.parse().ok().filter(|port| *port > 0).ok_or_else(|| UrlError::Port(given.into()))?
        }
        None => port,
    };
    Ok(Node { host: decoded("the host", host)?, port })
}

/// `what` is said in place of the text, which may be a password.
fn decoded(what: &'static str, text: &str) -> Result<String, UrlError> {
    let wrong = || UrlError::Encoding(what);
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_nodes_account_and_vhost() {
        let url = "amqps://a%40b:p%3Aw@one:1,two,[::1]:3/my%2fhost?heartbeat=5&connection_timeout=100";
        let options = AmqpOptions::from_url(url).unwrap();
        let nodes: Vec<String> = options.nodes.iter().map(Node::to_string).collect();
        assert_eq!(nodes, ["one:1", "two:5671", "[::1]:3"]);
        assert_eq!((&*options.user, &*options.password, &*options.vhost), ("a@b", "p:w", "my/host"));
        assert!(options.tls.is_some());
        assert_eq!((options.heartbeat, options.connect_timeout), (5, Duration::from_millis(100)));
        let (node, uri) = options.uri(4).unwrap();
        assert_eq!((node.host.as_str(), uri.authority.port), ("two", 5671), "nodes take turns");
        let plain = AmqpOptions::from_url("amqp://h").unwrap();
        assert_eq!((&*plain.user, &*plain.password, &*plain.vhost), ("guest", "guest", "/"));
        assert!(!format!("{options:?}").contains("p:w"), "a password is not printed");
    }

    #[test]
    fn a_wrong_url_says_what_is_wrong() {
        for (url, error) in [
            ("http://h", UrlError::Scheme),
            ("amqp://", UrlError::NoHost),
            ("amqp://u:p@:5/", UrlError::NoHost),
            ("amqp://h:0", UrlError::Port("0".into())),
            ("amqp://h:x/", UrlError::Port("x".into())),
            ("amqp://h/a/b", UrlError::Vhost("a/b".into())),
            ("amqp://h/%2", UrlError::Encoding("the vhost")),
            ("amqp://h/%ff", UrlError::Encoding("the vhost")),
            ("amqp://u:50%off@h", UrlError::Encoding("the password")),
            ("amqp://h?heartbeats=1", UrlError::Parameter("heartbeats".into())),
            ("amqp://h?heartbeat=x", UrlError::Value("heartbeat".into(), "x".into())),
            ("amqp://h?frame_max=9", UrlError::Value("frame_max".into(), "9".into())),
        ] {
            assert_eq!(AmqpOptions::from_url(url), Err(error), "{url}");
        }
    }
}

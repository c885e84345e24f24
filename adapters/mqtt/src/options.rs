//! What is said about a broker in the configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use linkspan_embedded::{EmbeddedOptions, OnDisk};
use url::Url;

/// How a broker is reached, and how much may wait for it.
#[derive(Clone, PartialEq, Eq)]
pub struct MqttOptions {
    /// `mqtt://` or `mqtts://`, perhaps user and password, host, perhaps a port.
    pub url: String,
    /// Which MQTT is spoken.
    pub version: VersionChoice,
    /// What the client identifiers of this instance's own sessions begin with. Two instances at one broker must not have
    /// the same. With one that stays the same over restarts, an MQTT 3.1.1 broker keeps no sessions of former lives.
    pub instance: String,
    /// Sessions that publish: at least 1. One more subscribes, and one works for each queue of a work route.
    pub publishers: usize,
    /// Messages of one session that the broker may have without having acknowledged them; it may allow fewer.
    pub window: u16,
    /// Messages that the broker may send a work queue's session before it has an acknowledgement.
    pub feed_window: u16,
    /// Bytes that wait for the broker in one session that publishers are held above.
    pub outbox_high: u64,
    /// Bytes beyond which nothing is taken for the broker.
    pub outbox_limit: u64,
    /// Bytes of the largest packet that is taken from the broker.
    pub max_packet_size: u32,
    /// Seconds between signs of life; at least 5.
    pub keep_alive: u16,
    /// Seconds that the broker keeps the subscribing session while the link is down.
    pub session_expiry: u32,
    /// Within which the broker has to answer a connection.
    pub connect_timeout: Duration,
    /// The first and the longest wait before the next attempt to connect.
    pub back_off: (Duration, Duration),
    /// For how long retained messages are waited for when a subscriber comes.
    pub retained_timeout: Duration,
    /// Certificates for `mqtts://`.
    pub tls: TlsOptions,
    /// Bounds of the queues and sessions on this side.
    pub queues: EmbeddedOptions,
    /// Where the queues on this side are kept; without it they are in memory.
    pub on_disk: Option<OnDisk>,
}

/// Which MQTT is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VersionChoice {
    /// MQTT 5, or 3.1.1 where the broker knows no better.
    #[default]
    Newest,
    /// MQTT 5 and nothing else.
    V5,
    /// MQTT 3.1.1.
    V311,
}

/// PEM files for TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// Who may sign the broker's certificate, beside the system's authorities.
    pub ca: Option<PathBuf>,
    /// The client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// An option that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The URL cannot be one of a broker.
    #[error("url '{url}': {why}")]
    Url {
        /// What was written, without a password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate or key cannot be used.
    #[error("{file}: {why}")]
    Tls {
        /// Which file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The directory of its queues cannot be used.
    #[error("{why}")]
    Disk {
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A number out of its range.
    #[error("{key} = {value}: {why}")]
    Range {
        /// Which option.
        key: &'static str,
        /// What was written.
        value: u64,
        /// What is allowed.
        why: &'static str,
    },
}

impl MqttOptions {
    /// The defaults for a broker at `url`, for the instance of that name.
    pub fn new(url: &str, instance: &str) -> Self {
        Self {
            url: url.into(),
            version: VersionChoice::Newest,
            instance: instance.into(),
            publishers: 2,
            window: 1000,
            feed_window: 100,
            outbox_high: 8 << 20,
            outbox_limit: 64 << 20,
            max_packet_size: 16 << 20,
            keep_alive: 30,
            session_expiry: 3600,
            connect_timeout: Duration::from_secs(5),
            back_off: (Duration::from_millis(100), Duration::from_secs(1)),
            retained_timeout: Duration::from_secs(5),
            tls: TlsOptions::default(),
            queues: EmbeddedOptions::default(),
            on_disk: None,
        }
    }

    /// Where the broker is.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(crate) fn place(&self) -> Result<Place, OptionsError> {
        let wrong = |why: String| OptionsError::Url { url: without_password(&self.url), why };
        let url = Url::parse(&self.url).map_err(|error| wrong(error.to_string()))?;
        let (tls, port) = match url.scheme() {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            other => {
                return Err(wrong(format!(
                    "'{other}://' is no scheme of an MQTT broker; write mqtt:// or mqtts://"
                )));
            }
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("there is no host; write mqtt://HOST:PORT".into()))?;
        if tls && host.starts_with('[') {
            return Err(wrong("a certificate is checked against a name: write the host's name".into()));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("nothing may follow the port".into()));
        }
        let user = decoded(url.username()).ok_or_else(|| wrong("the user is not UTF-8".into()))?;
        let password = decoded(url.password().unwrap_or_default());
        let password = password.ok_or_else(|| wrong("the password is not UTF-8".into()))?;
        let credentials = (!user.is_empty() || !password.is_empty()).then_some((user, password));
        Ok(Place { host: host.into(), port: url.port().unwrap_or(port), tls, credentials })
    }

    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        for (key, value, least, why) in [
            ("publishers", self.publishers as u64, 1, "at least 1"),
            ("window", self.window.into(), 1, "at least 1"),
            ("feed-window", self.feed_window.into(), 1, "at least 1"),
            ("keep-alive", self.keep_alive.into(), 5, "at least 5 seconds"),
            ("connect-timeout", self.connect_timeout.as_millis() as u64, 1, "at least 1 millisecond"),
        ] {
            if value < least {
                return Err(OptionsError::Range { key, value, why });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for MqttOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttOptions")
            .field("url", &without_password(&self.url))
            .field("version", &self.version)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// Where a broker is, and who comes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) credentials: Option<(String, String)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Undoes `%41`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |digit: Option<u8>| char::from(digit?).to_digit(16);
        match byte {
            b'%' => bytes.push(u8::try_from(hex(rest.next())? * 16 + hex(rest.next())?).ok()?),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// A URL as it may stand in a log.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    match rest.rsplit_once('@') {
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}")
        }
        None => url.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place, String> {
        MqttOptions::new(url, "here").place().map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_says_where_the_broker_is_and_who_comes() {
        let at = place("mqtt://broker.example").unwrap();
        assert_eq!(
            (at.host.as_str(), at.port, at.tls, at.credentials),
            ("broker.example", 1883, false, None)
        );
        let at = place("mqtts://link:p%40ss%3A@h:1884/").unwrap();
        assert_eq!((at.host.as_str(), at.port, at.tls), ("h", 1884, true));
        assert_eq!(at.credentials, Some(("link".into(), "p@ss:".into())));
    }

    #[test]
    fn a_wrong_url_is_told_with_what_is_right_and_without_its_password() {
        for (url, told) in [
            (
                "amqp://u:secret@h",
                "url 'amqp://u:***@h': 'amqp://' is no scheme of an MQTT broker; write mqtt:// or mqtts://",
            ),
            ("mqtt://", "url 'mqtt://': there is no host; write mqtt://HOST:PORT"),
            ("mqtt://h/path", "url 'mqtt://h/path': nothing may follow the port"),
            ("mqtt://h:x", "url 'mqtt://h:x': invalid port number"),
            (
                "mqtts://[::1]",
                "url 'mqtts://[::1]': a certificate is checked against a name: write the host's name",
            ),
            ("localhost", "url 'localhost': relative URL without a base"),
        ] {
            assert_eq!(place(url).err().as_deref(), Some(told));
        }
        let options = MqttOptions::new("mqtt://u:secret@h", "here");
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn numbers_out_of_their_range_are_told() {
        let options = MqttOptions { keep_alive: 4, ..MqttOptions::new("mqtt://h", "here") };
        assert_eq!(options.check().unwrap_err().to_string(), "keep-alive = 4: at least 5 seconds");
    }
}

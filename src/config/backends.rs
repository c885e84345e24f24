//! `[backends.NAME]`: what holds the messages.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use super::key::KeyPath;
use super::report::Report;
use super::size;
use super::upstream::{MqttVersion, Upstream, Url};

/// A back end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Backend {
    /// The broker inside Linkspan.
    Embedded {
        /// Its directory; relative to where Linkspan was started.
        path: PathBuf,
        /// When what is acknowledged is made safe.
        sync: Sync,
        /// Bytes of a file of its log.
        #[serde(with = "size")]
        segment_size: u64,
    },
    /// RabbitMQ and other brokers that speak AMQP 0-9-1.
    Amqp(Upstream),
    /// Mosquitto and other MQTT brokers.
    Mqtt {
        /// Where it is.
        #[serde(flatten)]
        upstream: Upstream,
        /// Which version it is spoken to in.
        version: MqttVersion,
    },
}

/// When what an embedded back end writes is made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// One `fdatasync` for all who wait while the one before is under way.
    #[default]
    Group,
    /// One for each.
    Always,
    /// None: acknowledged messages survive the end of Linkspan, but not that of the machine.
    Never,
}

impl Backend {
    /// The name of its kind in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "embedded",
            Self::Amqp(_) => "amqp",
            Self::Mqtt { .. } => "mqtt",
        }
    }

    /// What it keeps here lies in this directory.
    pub fn directory(&self) -> &Path {
        match self {
            Self::Embedded { path, .. } => path,
            Self::Amqp(upstream) | Self::Mqtt { upstream, .. } => &upstream.path,
        }
    }
}

/// `[backends.NAME]` as written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct BackendTable {
    /// `embedded`, `amqp` or `mqtt`.
    kind: Option<String>,
    /// Of kind `embedded`: [`DEFAULT_PATH`] when not given; else where spools and queues are kept here.
    path: Option<PathBuf>,
    /// Of kind `embedded`; [`Sync::Group`] when not given.
    sync: Option<Sync>,
    /// Of what is kept here; [`SEGMENT_SIZE`] when not given.
    #[serde(with = "size::optional")]
    segment_size: Option<u64>,
    /// Of kinds `amqp` and `mqtt`.
    url: Option<Url>,
    /// Of kinds `amqp` and `mqtt`: certificates to trust beside the machine's own, PEM.
    ca: Option<PathBuf>,
    /// Of kinds `amqp` and `mqtt`: the certificate that Linkspan shows, PEM.
    certificate: Option<PathBuf>,
    /// Of kinds `amqp` and `mqtt`: the certificate's key, PEM.
    key: Option<PathBuf>,
    /// Of kinds `amqp` and `mqtt`; [`Upstream::CONNECTIONS`] when not given.
    connections: Option<NonZeroU16>,
    /// Of kinds `amqp` and `mqtt`; [`Upstream::CONNECT_TIMEOUT`] when not given.
    #[serde(with = "duration::optional")]
    connect_timeout: Option<Duration>,
    /// Of kind `mqtt`.
    version: Option<MqttVersion>,
}

/// Bytes of a file of a log, where nothing else is said.
pub const SEGMENT_SIZE: u64 = 64 << 20;

/// Below, files come and go all the time; above, none is ever empty.
const SEGMENT_SIZES: RangeInclusive<u64> = 1 << 20..=1 << 30;

/// The name of the back end that exists when none is configured.
pub(super) const DEFAULT_NAME: &str = "local";

/// Where that one lives.
const DEFAULT_PATH: &str = "linkspan-data";

/// Where is what Linkspan keeps for brokers, each in a folder of its name.
const DEFAULT_BROKERS: &str = "linkspan-data/brokers";

/// The folder for what is kept here for a broker: its name, as far as that makes a file name.
fn folder(name: &str) -> PathBuf {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut folder = String::new();
    for byte in name.bytes() {
        if plain(byte) {
            folder.push(char::from(byte));
        } else {
            folder.push_str(&format!("%{byte:02x}"));
        }
    }
    Path::new(DEFAULT_BROKERS).join(folder)
}

const KINDS: [&str; 3] = ["embedded", "amqp", "mqtt"];

/// The back ends by name; with none configured, an embedded one.
pub(super) fn check(
    backends: &BTreeMap<String, BackendTable>,
    report: &mut Report<'_>,
) -> BTreeMap<Arc<str>, Backend> {
    if backends.is_empty() {
        return BTreeMap::from([(
            DEFAULT_NAME.into(),
            Backend::Embedded {
                path: DEFAULT_PATH.into(),
                sync: Sync::default(),
                segment_size: SEGMENT_SIZE,
            },
        )]);
    }
    let mut built: BTreeMap<Arc<str>, Backend> = BTreeMap::new();
    for (name, table) in backends {
        let key = KeyPath::of(["backends", name]);
        if let Some(backend) = table.check(name, &key, report) {
            let path = backend.directory();
            if let Some((other, _)) = built.iter().find(|(_, other)| other.directory() == path) {
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
    fn check(&self, name: &str, key: &KeyPath, report: &mut Report<'_>) -> Option<Backend> {
        let Some(kind) = self.kind.as_deref() else {
            report.missing(&key.key("kind"), "`embedded`, `amqp` or `mqtt`");
            return None;
        };
        match kind {
            "embedded" => self.check_embedded(key, report),
            "amqp" => {
                if self.version.is_some() {
                    report.bad_value(&key.key("version"), "only a back end of kind `mqtt` has a version");
                }
                self.check_upstream(name, key, kind, ["amqp", "amqps"], report).map(Backend::Amqp)
            }
            "mqtt" => {
                let upstream = self.check_upstream(name, key, kind, ["mqtt", "mqtts"], report)?;
                if upstream.url.hosts().count() > 1 {
                    report.bad_value(&key.key("url"), "names several hosts; an MQTT broker has one");
                }
                Some(Backend::Mqtt { upstream, version: self.version.unwrap_or_default() })
            }
            other => {
                report.unknown(&key.key("kind"), "back end kind", other, KINDS);
                None
            }
        }
    }

    fn check_embedded(&self, key: &KeyPath, report: &mut Report<'_>) -> Option<Backend> {
        let of_upstreams = [
            ("url", self.url.is_some()),
            ("ca", self.ca.is_some()),
            ("certificate", self.certificate.is_some()),
            ("key", self.key.is_some()),
            ("connections", self.connections.is_some()),
            ("connect-timeout", self.connect_timeout.is_some()),
            ("version", self.version.is_some()),
        ];
        for (name, _) in of_upstreams.into_iter().filter(|(_, given)| *given) {
            let text = format!("an embedded back end has no {name}; it has a `path`");
            report.bad_value(&key.key(name), text);
        }
        let path = self.path.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        if path.as_os_str().is_empty() {
            report.bad_value(&key.key("path"), "\"\" is no directory");
        }
        let segment_size = self.check_segment_size(key, report);
        Some(Backend::Embedded { path, sync: self.sync.unwrap_or_default(), segment_size })
    }

    fn check_segment_size(&self, key: &KeyPath, report: &mut Report<'_>) -> u64 {
        let bytes = self.segment_size.unwrap_or(SEGMENT_SIZE);
        if !SEGMENT_SIZES.contains(&bytes) {
            let [least, most] = [SEGMENT_SIZES.start(), SEGMENT_SIZES.end()].map(|bytes| size::show(*bytes));
            let text = format!("{} is not between \"{least}\" and \"{most}\"", size::show(bytes));
            report.bad_value(&key.key("segment-size"), text);
        }
        bytes
    }

    fn check_upstream(
        &self,
        name: &str,
        key: &KeyPath,
        kind: &str,
        schemes: [&str; 2],
        report: &mut Report<'_>,
    ) -> Option<Upstream> {
        if self.sync.is_some() {
            let text = "only a back end of kind `embedded` has a sync";
            report.bad_value(&key.key("sync"), text);
        }
        let Some(url) = &self.url else {
            report.missing(&key.key("url"), format!("such as \"{kind}://127.0.0.1\""));
            return None;
        };
        if let Err(text) = url.check(schemes) {
            report.bad_value(&key.key("url"), text);
        }
        let secure = url.scheme() == schemes.last().copied();
        for (name, file) in [("ca", &self.ca), ("certificate", &self.certificate), ("key", &self.key)] {
            if file.is_some() && !secure {
                let [_, tls] = schemes;
                let text = format!("is for TLS; write the url with the scheme `{tls}`, or remove this key");
                report.bad_value(&key.key(name), text);
            }
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => report.missing(&key.key("key"), "the file with the key of `certificate`"),
            (None, Some(_)) => report.missing(&key.key("certificate"), "the file that `key` belongs to"),
            _ => {}
        }
        if self.connect_timeout.is_some_and(|timeout| timeout.is_zero()) {
            report.bad_value(
                &key.key("connect-timeout"),
                "0s leaves no time to connect; expected \"1s\" or more",
            );
        }
        let path = self.path.clone().unwrap_or_else(|| folder(name));
        if path.as_os_str().is_empty() {
            report.bad_value(&key.key("path"), "\"\" is no directory");
        }
        Some(Upstream {
            url: url.clone(),
            ca: self.ca.clone(),
            identity: self.certificate.clone().zip(self.key.clone()),
            connections: self.connections.unwrap_or(Upstream::CONNECTIONS),
            connect_timeout: self.connect_timeout.unwrap_or(Upstream::CONNECT_TIMEOUT),
            path,
            segment_size: self.check_segment_size(key, report),
        })
    }
}

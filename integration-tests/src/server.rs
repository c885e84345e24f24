//! Linkspan inside the test's process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use linkspan::broker::Broker;
use linkspan::config::{Backend, Config, Ledger};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::dialect::Dialect;
use crate::process::Folder;

/// A running Linkspan with ports of its own, and a folder for what it keeps.
pub struct Server {
    broker: Broker,
    folder: PathBuf,
    /// Gone with the server, unless it is the test's.
    _own: Option<Folder>,
}

/// Ports that the system chooses.
const ANY_PORT: [(&str, &str); 3] = [
    ("LINKSPAN_DOORS__MQTT__LISTEN", "127.0.0.1:0"),
    ("LINKSPAN_DOORS__AMQP__LISTEN", "127.0.0.1:0"),
    ("LINKSPAN_DOORS__HTTP__LISTEN", "127.0.0.1:0"),
];

/// Reads `toml` as a configuration file, but for ports that the system chooses and paths, which are relative to `folder`:
/// the directory of the test's process is not the server's.
fn config(toml: &str, folder: &Path) -> Config {
    let environment = ANY_PORT.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut config = match Config::parse(Some(("test.toml", toml)), environment) {
        Ok(config) => config,
        Err(errors) => panic!("the test's configuration is wrong:\n{errors}"),
    };
    for backend in config.backends.values_mut() {
        let path = match backend {
            Backend::Embedded { path, .. } => path,
            Backend::Amqp(upstream) | Backend::Mqtt { upstream, .. } => &mut upstream.path,
        };
        *path = folder.join(&path);
    }
    if let Ledger::File(file) = &mut config.ledger {
        *file = folder.join(&file);
    }
    config
}

impl Server {
    /// Starts Linkspan with `toml` as its configuration file, in a folder of its own.
    pub async fn start(toml: &str) -> Self {
        let folder = Folder::new();
        let server = Self::start_in(&folder, toml).await;
        Self { _own: Some(folder), ..server }
    }

    /// Starts Linkspan in a folder of the test's, where it finds what another one has left there.
    pub async fn start_in(folder: &Folder, toml: &str) -> Self {
        let figures = PrometheusBuilder::new().build_recorder().handle();
        let broker = Broker::start(&config(toml, folder.path()), figures).await.expect("Linkspan starts");
        Self { broker, folder: folder.path().to_owned(), _own: None }
    }

    /// Reads `toml` as another configuration file of this server.
    pub fn config(&self, toml: &str) -> Config {
        config(toml, &self.folder)
    }

    /// Where a door listens.
    fn address(&self, door: &str) -> SocketAddr {
        let (_, address) = self.broker.doors().find(|(name, _)| *name == door).expect("the door is open");
        address
    }

    /// Where the MQTT door listens.
    pub fn mqtt(&self) -> SocketAddr {
        self.address("mqtt")
    }

    /// Where the AMQP door listens.
    pub fn amqp(&self) -> SocketAddr {
        self.address("amqp")
    }

    /// Where the HTTP door listens.
    pub fn http(&self) -> SocketAddr {
        self.address("http")
    }

    /// The door for `dialect`.
    pub fn door(&self, dialect: Dialect) -> SocketAddr {
        match dialect {
            Dialect::Mqtt3 | Dialect::Mqtt5 => self.mqtt(),
            Dialect::Amqp => self.amqp(),
            Dialect::Http => self.http(),
        }
    }

    /// The broker itself, to reload it.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Drains and stops.
    pub async fn stop(self) {
        self.broker.stop().await;
    }
}

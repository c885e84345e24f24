//! Linkspan inside the test's process.

use std::net::SocketAddr;

use linkspan::broker::Broker;
use linkspan::config::Config;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::dialect::Dialect;

/// A running Linkspan with ports of its own.
pub struct Server {
    broker: Broker,
}

/// Ports that the system chooses.
const ANY_PORT: [(&str, &str); 3] = [
    ("LINKSPAN_DOORS__MQTT__LISTEN", "127.0.0.1:0"),
    ("LINKSPAN_DOORS__AMQP__LISTEN", "127.0.0.1:0"),
    ("LINKSPAN_DOORS__HTTP__LISTEN", "127.0.0.1:0"),
];

/// Reads `toml` as a configuration file, but for ports that the system chooses.
pub fn config(toml: &str) -> Config {
    let environment = ANY_PORT.map(|(name, value)| (name.to_owned(), value.to_owned()));
    match Config::parse(Some(("test.toml", toml)), environment) {
        Ok(config) => config,
        Err(errors) => panic!("the test's configuration is wrong:\n{errors}"),
    }
}

impl Server {
    /// Starts Linkspan with `toml` as its configuration file.
    pub async fn start(toml: &str) -> Self {
        let figures = PrometheusBuilder::new().build_recorder().handle();
        let broker = Broker::start(&config(toml), figures).await.expect("Linkspan starts");
        Self { broker }
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

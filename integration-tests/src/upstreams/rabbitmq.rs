//! RabbitMQ.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::broker::Broker;
use super::place::Kind;
use super::port::Port;
use super::upstream::{Probe, Upstream, listens};
use super::{endpoint, mosquitto};
use crate::certificates::Certificates;

const KIND: Kind = Kind {
    name: "RabbitMQ",
    stand_in: "linkspan-stand-in/rabbitmq",
    official: "rabbitmq:4",
    user: "rabbitmq",
    url_variable: "LINKSPAN_TEST_RABBITMQ",
    image_variable: "LINKSPAN_TEST_RABBITMQ_IMAGE",
    program: "rabbitmq-server",
    package: "rabbitmq-server",
};

/// Where its MQTT plugin listens when its URL is given.
const MQTT_VARIABLE: &str = "LINKSPAN_TEST_RABBITMQ_MQTT";

/// Past Debian's wrapper of the programs, which writes to the system's folders.
const PATH: &str =
    "case $(command -v rabbitmq-server) in /usr/sbin/*) PATH=/usr/lib/rabbitmq/bin:$PATH ;; esac";

/// With a port mapper of its own, which would otherwise outlive it.
const RUN: &str = "
export RABBITMQ_MNESIA_BASE=$HOME/mnesia RABBITMQ_LOG_BASE=$HOME/log RABBITMQ_LOGS=- \
  RABBITMQ_CONFIG_FILE=$HOME/rabbitmq RABBITMQ_GENERATED_CONFIG_DIR=$HOME/generated \
  RABBITMQ_ENABLED_PLUGINS_FILE=$HOME/enabled_plugins RABBITMQ_CONF_ENV_FILE=/dev/null
epmd &
exec rabbitmq-server
";

/// A RabbitMQ that serves AMQP 0-9-1, and MQTT by its plugin. User and password are `guest`.
#[derive(Debug)]
pub struct RabbitMq {
    broker: Broker,
    mqtt: Option<SocketAddr>,
}

impl Deref for RabbitMq {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.broker
    }
}

impl RabbitMq {
    /// The one that tests share, which they leave as it is.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        SHARED.get_or_init(Self::given_or_own).await
    }

    /// The one that the environment names, or else a fresh one.
    pub async fn given_or_own() -> Self {
        let Some(broker) = Broker::given(&KIND, serves) else { return Self::own().await };
        let mqtt = std::env::var(MQTT_VARIABLE).ok().map(|url| endpoint(MQTT_VARIABLE, &url));
        Self { broker, mqtt }
    }

    /// A fresh one that is the caller's alone.
    pub async fn own() -> Self {
        Self::own_with("", &[]).await
    }

    /// A fresh one with further lines in its `rabbitmq.conf`, and with files beside it, which these may name.
    pub async fn own_with(configuration: &str, files: &[(&str, &str)]) -> Self {
        Self::started(configuration, files, None).await
    }

    /// A fresh one that serves AMQP over TLS, too ([`secure`](Broker::secure)), and there only who shows a certificate.
    pub async fn own_over_tls(certificates: &Certificates) -> Self {
        let port = Port::reserve();
        let configuration = format!(
            "listeners.ssl.1 = {}\n\
             ssl_options.cacertfile = ca.pem\n\
             ssl_options.certfile = broker.pem\n\
             ssl_options.keyfile = broker.key\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true",
            port.address()
        );
        let files = certificates.of_broker();
        Self::started(
            &configuration,
            &files.each_ref().map(|(name, text)| (*name, text.as_str())),
            Some(port),
        )
        .await
    }

    async fn started(configuration: &str, files: &[(&str, &str)], secure: Option<Port>) -> Self {
        let ports = [(); 4].map(|()| Port::reserve());
        let [amqp, mqtt, epmd, distribution] = &ports;
        let (address, mqtt) = (amqp.address(), mqtt.address());
        let variables = vec![
            ("RABBITMQ_NODENAME", format!("linkspan-{}@localhost", amqp.number())),
            ("RABBITMQ_DIST_PORT", distribution.number().to_string()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".to_owned()),
            ("ERL_EPMD_PORT", epmd.number().to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ];
        let settings = format!(
            "listeners.tcp.1 = {address}\n\
             mqtt.listeners.tcp.1 = {mqtt}\n\
             disk_free_limit.absolute = 10MB\n\
             {configuration}"
        );
        let mut all = vec![("enabled_plugins", "[rabbitmq_mqtt]."), ("rabbitmq.conf", &settings)];
        all.extend(files);
        let files = all.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        let mut serving = vec![(address, serves as Probe), (mqtt, mosquitto::serves as Probe)];
        let tls = secure.as_ref().map(Port::address);
        serving.extend(tls.map(|tls| (tls, listens as Probe)));
        let ports = ports.into_iter().chain(secure);
        let upstream =
            Upstream::start(&KIND, variables, files, format!("{PATH}\n{RUN}"), serving, ports).await;
        let url = format!("amqp://guest:guest@{address}/%2f");
        Self { broker: Broker::started(&KIND, url, address, tls, upstream), mqtt: Some(mqtt) }
    }

    /// Where its MQTT plugin serves.
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt.unwrap_or_else(|| panic!("{} is set and {MQTT_VARIABLE} is not", KIND.url_variable))
    }

    /// The variables that give it to another process as its shared one.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mqtt = self.mqtt.map(|mqtt| (MQTT_VARIABLE, format!("mqtt://{mqtt}")));
        [self.variable()].into_iter().chain(mqtt).collect()
    }

    /// Runs `rabbitmqctl` with these arguments, as a shell reads them: `add_vhost other`.
    pub async fn ctl(&self, arguments: &str) {
        self.upstream().run(format!("{PATH}; rabbitmqctl {arguments}")).await;
    }
}

/// Whether somebody answers a protocol header with connection.start.
fn serves(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut start = [0; 11];
        stream.read_exact(&mut start)?;
        std::io::Result::Ok(start[0] == 1 && start[7..] == [0, 10, 0, 10])
    };
    ask().unwrap_or(false)
}

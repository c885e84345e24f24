//! RabbitMQ.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::place::Kind;
use super::port::Port;
use super::upstream::Upstream;
use super::{endpoint, mosquitto};

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
    url: String,
    address: SocketAddr,
    mqtt: Option<SocketAddr>,
    own: Option<Upstream>,
}

impl RabbitMq {
    /// The one that tests share, which they leave as it is.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        SHARED.get_or_init(Self::given_or_own).await
    }

    /// The one that the environment names, or else a fresh one.
    pub async fn given_or_own() -> Self {
        let Ok(url) = std::env::var(KIND.url_variable) else { return Self::own().await };
        let address = endpoint(KIND.url_variable, &url);
        assert!(serves(address), "{}: nobody serves AMQP at {address}", KIND.url_variable);
        let mqtt = std::env::var(MQTT_VARIABLE).ok().map(|url| endpoint(MQTT_VARIABLE, &url));
        Self { url, address, mqtt, own: None }
    }

    /// A fresh one that is the caller's alone.
    pub async fn own() -> Self {
        Self::own_with("", &[]).await
    }

    /// A fresh one with further lines in its `rabbitmq.conf`, and with files beside it, which these may name.
    pub async fn own_with(configuration: &str, files: &[(&str, &str)]) -> Self {
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
        let serving = vec![(address, serves as _), (mqtt, mosquitto::serves as _)];
        let upstream =
            Upstream::start(&KIND, variables, files, format!("{PATH}\n{RUN}"), serving, ports).await;
        Self {
            url: format!("amqp://guest:guest@{address}/%2f"),
            address,
            mqtt: Some(mqtt),
            own: Some(upstream),
        }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL for who goes another way, such as through a [`Cable`](crate::Cable).
    pub fn url_by(&self, way: SocketAddr) -> String {
        let after_scheme = self.url.find("://").map_or(0, |at| at + 3);
        let host = self.url.rfind('@').map_or(after_scheme, |at| at + 1);
        let path = self.url[host..].find('/').map_or(self.url.len(), |at| host + at);
        format!("{}{way}{}", &self.url[..host], &self.url[path..])
    }

    /// Where it serves AMQP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its MQTT plugin serves.
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt.unwrap_or_else(|| panic!("{} is set and {MQTT_VARIABLE} is not", KIND.url_variable))
    }

    /// The variables that give it to another process as its shared one.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mqtt = self.mqtt.map(|mqtt| (MQTT_VARIABLE, format!("mqtt://{mqtt}")));
        [(KIND.url_variable, self.url.clone())].into_iter().chain(mqtt).collect()
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same ports with the same data, and
    /// waits until it serves.
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

    /// Runs `rabbitmqctl` with these arguments, as a shell reads them: `add_vhost other`.
    pub async fn ctl(&self, arguments: &str) {
        self.upstream().run(format!("{PATH}; rabbitmqctl {arguments}")).await;
    }

    fn upstream(&self) -> &Upstream {
        self.own.as_ref().expect("a RabbitMQ from the environment is shared: use RabbitMq::own()")
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

#[cfg(test)]
mod tests {
    use super::RabbitMq;

    #[test]
    fn another_way_changes_only_where_a_url_leads() {
        let way = "127.0.0.1:9".parse().unwrap();
        for (url, by) in [
            ("amqp://guest:guest@rabbit:5672/%2f", "amqp://guest:guest@127.0.0.1:9/%2f"),
            ("amqp://rabbit:5672", "amqp://127.0.0.1:9"),
        ] {
            let rabbitmq = RabbitMq { url: url.to_owned(), address: way, mqtt: None, own: None };
            assert_eq!(rabbitmq.url_by(way), by);
        }
    }
}

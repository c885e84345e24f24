//! Mosquitto.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::broker::Broker;
use super::place::Kind;
use super::port::Port;
use super::upstream::{Probe, Upstream, listens};
use crate::certificates::Certificates;

const KIND: Kind = Kind {
    name: "Mosquitto",
    stand_in: "linkspan-stand-in/mosquitto",
    official: "eclipse-mosquitto:2",
    user: "mosquitto",
    url_variable: "LINKSPAN_TEST_MOSQUITTO",
    image_variable: "LINKSPAN_TEST_MOSQUITTO_IMAGE",
    program: "mosquitto",
    package: "mosquitto",
};

const RUN: &str = "exec mosquitto -c mosquitto.conf";

/// A Mosquitto that keeps its state: what it has is on disk after a second. Nobody needs a password.
#[derive(Debug)]
pub struct Mosquitto(Broker);

impl Deref for Mosquitto {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.0
    }
}

impl Mosquitto {
    /// The one that tests share, which they leave as it is.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Mosquitto> = OnceCell::const_new();
        SHARED.get_or_init(Self::given_or_own).await
    }

    /// The one that the environment names, or else a fresh one.
    pub async fn given_or_own() -> Self {
        match Broker::given(&KIND, serves) {
            Some(given) => Self(given),
            None => Self::own().await,
        }
    }

    /// A fresh one that is the caller's alone.
    pub async fn own() -> Self {
        Self::own_with("", &[]).await
    }

    /// A fresh one with further lines in its `mosquitto.conf`, which win against those that all have, and with files beside
    /// it, which these may name.
    pub async fn own_with(configuration: &str, files: &[(&str, &str)]) -> Self {
        Self::started(configuration, files, None).await
    }

    /// A fresh one that serves over TLS, too ([`secure`](Broker::secure)), and there only who shows a certificate.
    pub async fn own_over_tls(certificates: &Certificates) -> Self {
        let port = Port::reserve();
        let configuration = format!(
            "listener {} 127.0.0.1\ncafile ca.pem\ncertfile broker.pem\nkeyfile broker.key\nrequire_certificate true",
            port.number()
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
        let port = Port::reserve();
        let address = port.address();
        let settings = format!(
            "listener {} {}\n\
             allow_anonymous true\n\
             persistence true\n\
             persistence_location ./\n\
             autosave_interval 1\n\
             max_queued_messages 1000000\n\
             log_dest stderr\n\
             user root\n\
             {configuration}",
            address.port(),
            address.ip()
        );
        let all = [("mosquitto.conf", settings.as_str())].into_iter().chain(files.iter().copied());
        let files = all.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        let mut serving = vec![(address, serves as Probe)];
        let tls = secure.as_ref().map(Port::address);
        serving.extend(tls.map(|tls| (tls, listens as Probe)));
        let ports = [port].into_iter().chain(secure);
        let upstream = Upstream::start(&KIND, vec![], files, RUN.to_owned(), serving, ports).await;
        Self(Broker::started(&KIND, format!("mqtt://{address}"), address, tls, upstream))
    }

    /// The variables that give it to another process as its shared one.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![self.variable()]
    }
}

/// The return code of a broker that is not ready (3.1.1, table 3.1).
const SERVER_UNAVAILABLE: u8 = 3;

/// Whether somebody answers CONNECT with a CONNACK, whether or not it lets strangers in.
pub(super) fn serves(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // 3.1.1, clean session, client identifier `probe`
        stream.write_all(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05probe")?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack)?;
        stream.write_all(b"\xe0\x00")?;
        std::io::Result::Ok(connack[..2] == [0x20, 2] && connack[3] != SERVER_UNAVAILABLE)
    };
    ask().unwrap_or(false)
}

//! A client that writes and reads bytes, and a door for it to speak to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{Clock, Ledger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::broker::Broker;
use crate::alarms::Alarms;
use crate::doors::listener::Listener;
use crate::doors::mqtt::{Limits, MqttDoor};
use crate::doors::{Stop, Stopper, serve};
use crate::identity::Users;
use crate::protocol::mqtt::{Framing, Packet, Sender, Version};

/// Longer than anything should take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A door in front of a [`Broker`].
pub(super) struct House {
    pub broker: Broker,
    pub ledger: Option<Arc<dyn Ledger>>,
    pub stopper: Stopper,
    pub alarms: Arc<Alarms>,
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl House {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        let no_users: [(&Arc<str>, &crate::identity::Account); 0] = [];
        Self::of(limits, Users::new(no_users))
    }

    pub(super) fn of(limits: Limits, users: Users) -> Self {
        let broker = Broker::new();
        let alarms = Arc::new(Alarms::default());
        let door = MqttDoor::new(
            broker.backend(),
            broker.retained(),
            Arc::new(users),
            Arc::clone(&alarms),
            "/".into(),
            limits,
        );
        Self::open(broker, alarms, Arc::new(door), None, Stop::new())
    }

    /// A door with a ledger, which takes up what is there.
    pub(super) async fn recorded(broker: Broker, ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>) -> Self {
        let users = Arc::new(Users::new([] as [(&Arc<str>, &crate::identity::Account); 0]));
        let alarms = Arc::new(Alarms::default());
        let door = MqttDoor::new(
            broker.backend(),
            broker.retained(),
            users,
            Arc::clone(&alarms),
            "/".into(),
            Limits::default(),
        );
        let door = Arc::new(door.with_ledger(Arc::clone(&ledger), "own".into(), clock));
        let stop = Stop::new();
        door.take_up_sessions(&stop.1).await;
        Self::open(broker, alarms, door, Some(ledger), stop)
    }

    fn open(
        broker: Broker,
        alarms: Arc<Alarms>,
        door: Arc<MqttDoor>,
        ledger: Option<Arc<dyn Ledger>>,
        (stopper, stop): (Stopper, Stop),
    ) -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().unwrap();
        let serving = tokio::spawn(serve(listener, door, 1000, stop));
        Self { broker, ledger, stopper, alarms, address, serving }
    }

    pub(super) async fn client(&self) -> Wire {
        Wire { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    /// A connected client of MQTT 3.1.1.
    pub(super) async fn v311(&self, name: &str) -> Wire {
        let mut client = self.client().await;
        client.send(&connect(4, name)).await;
        client.expect(&[0x20, 2, 0, 0]).await;
        client
    }

    /// A connected client of MQTT 5.
    pub(super) async fn v5(&self, name: &str) -> Wire {
        let mut client = self.client().await;
        client.send(&connect(5, name)).await;
        let connack = client.packet().await;
        assert_eq!((connack[0], connack[3]), (0x20, 0), "the client was refused: {connack:02x?}");
        client
    }

    /// Stops the door and returns when its last connection has ended.
    pub(super) async fn stopped(self) {
        self.stopper.stop();
        timeout(PATIENCE, self.serving).await.expect("a connection did not end").unwrap();
    }
}

/// A client's end of a socket.
pub(super) struct Wire {
    pub stream: TcpStream,
}

impl Wire {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Exactly these bytes come next.
    pub(super) async fn expect(&mut self, bytes: &[u8]) {
        let mut received = vec![0; bytes.len()];
        let mut count = 0;
        let reading = async {
            while count < received.len() {
                match self.stream.read(&mut received[count..]).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => count += n,
                }
            }
        };
        let in_time = timeout(PATIENCE, reading).await.is_ok();
        received.truncate(count);
        let shown = |bytes: &[u8]| format!("{:02x?}", &bytes[..bytes.len().min(80)]);
        assert!(
            received == bytes,
            "expected {}, got {} (in time: {in_time})",
            shown(bytes),
            shown(&received)
        );
    }

    /// The next packet's bytes.
    pub(super) async fn packet(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            match Framing::read(&bytes, Framing::MAXIMUM_PACKET_SIZE).unwrap() {
                Framing::Complete(_) => return bytes,
                Framing::Incomplete { needed } => {
                    let missing = needed.unwrap_or(bytes.len() + 1) - bytes.len();
                    let start = bytes.len();
                    bytes.resize(start + missing, 0);
                    let reading = self.stream.read_exact(&mut bytes[start..]);
                    timeout(PATIENCE, reading).await.expect("no packet came").expect("the connection ended");
                }
            }
        }
    }

    /// The next packet, decoded by `look`.
    pub(super) async fn decoded<R>(&mut self, version: Version, look: impl FnOnce(&Packet<'_>) -> R) -> R {
        let bytes = self.packet().await;
        let Framing::Complete(frame) = Framing::read(&bytes, u32::MAX).unwrap() else {
            panic!("half a packet")
        };
        look(&Packet::decode(&frame, version, Sender::Server).unwrap())
    }

    /// The door closes the connection without another byte.
    pub(super) async fn closed(&mut self) {
        let mut byte = [0; 64];
        let read = timeout(PATIENCE, self.stream.read(&mut byte)).await.expect("the connection stays open");
        assert!(matches!(read, Ok(0) | Err(_)), "more bytes came: {:02x?}", &byte[..read.unwrap()]);
    }

    /// What was sent before is dealt with, and nothing else comes back for it.
    pub(super) async fn ping(&mut self) {
        self.send(&[0xC0, 0]).await;
        self.expect(&[0xD0, 0]).await;
    }

    /// A DISCONNECT with this reason, then the end.
    pub(super) async fn disconnected(&mut self, reason: u8) {
        let packet = self.packet().await;
        assert_eq!((packet[0], packet[2]), (0xE0, reason), "{packet:02x?}");
        self.closed().await;
    }
}

/// Waits until `done`; what it waits for happens in another task.
pub(super) async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// A CONNECT with clean start and without keep-alive (§3.1).
pub(super) fn connect(level: u8, name: &str) -> Vec<u8> {
    connect_with(level, 0b10, 0, &[], &[name.as_bytes()])
}

/// A CONNECT: flags, keep-alive, properties (5.0 only) and the fields of the payload.
pub(super) fn connect_with(level: u8, flags: u8, keep_alive: u16, list: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags];
    body.extend(keep_alive.to_be_bytes());
    if level == 5 {
        body.push(u8::try_from(list.len()).unwrap());
        body.extend(list);
    }
    for field in fields {
        body.extend(binary(field));
    }
    packet(0x10, &body)
}

/// Binary data or a string with its length (§1.5.4).
pub(super) fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// A fixed header and what follows (§2.1).
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = u8::try_from(rest % 128).unwrap();
        rest /= 128;
        out.push(byte | if rest > 0 { 128 } else { 0 });
        if rest == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

/// A PUBLISH of 3.1.1; of QoS 0 without an identifier (3.1.1 §3.3).
pub(super) fn publish(first: u8, topic: &str, id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = binary(topic.as_bytes());
    body.extend(id.iter().flat_map(|id| id.to_be_bytes()));
    body.extend(payload);
    packet(first, &body)
}

/// A PUBLISH of 5.0 with an encoded list of properties (§3.3).
pub(super) fn publish5(first: u8, topic: &str, id: Option<u16>, list: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = binary(topic.as_bytes());
    body.extend(id.iter().flat_map(|id| id.to_be_bytes()));
    body.push(u8::try_from(list.len()).unwrap());
    body.extend(list);
    body.extend(payload);
    packet(first, &body)
}

/// A SUBSCRIBE of 3.1.1, packet identifier 1 (3.1.1 §3.8).
pub(super) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(binary(filter.as_bytes()));
    body.push(qos);
    packet(0x82, &body)
}

/// A SUBSCRIBE of 5.0, packet identifier 1, with an encoded list of properties (§3.8).
pub(super) fn subscribe5(filter: &str, options: u8, list: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1, u8::try_from(list.len()).unwrap()];
    body.extend(list);
    body.extend(binary(filter.as_bytes()));
    body.push(options);
    packet(0x82, &body)
}

impl Wire {
    /// Subscribes by 3.1.1 and is granted `qos`.
    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) {
        self.send(&subscribe(filter, qos)).await;
        self.expect(&[0x90, 3, 0, 1, qos]).await;
    }

    /// Subscribes by 5.0 and is granted what the options ask for.
    pub(super) async fn subscribe5(&mut self, filter: &str, options: u8, list: &[u8]) {
        self.send(&subscribe5(filter, options, list)).await;
        self.expect(&[0x90, 4, 0, 1, 0, options & 3]).await;
    }
}

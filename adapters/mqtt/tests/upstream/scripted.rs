//! A broker that does what a test wants, for what a real one cannot be made to do: raw bytes of the standard.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Listens; each connection is one for the script.
pub struct Scripted {
    listener: TcpListener,
}

/// A packet: first byte, and what follows the length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

/// A client's connection.
pub struct Line(TcpStream);

impl Scripted {
    pub async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a port is free") }
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.listener.local_addr().expect("it has an address"))
    }

    /// The next connection and its CONNECT.
    pub async fn accept(&self) -> (Line, Packet) {
        let within = tokio::time::timeout(Duration::from_secs(10), self.listener.accept()).await;
        let (stream, _) = within.expect("somebody was to connect").expect("a connection is taken");
        let mut line = Line(stream);
        let connect = line.read().await.expect("a CONNECT was due");
        assert_eq!(connect.first, 0x10, "the first packet is CONNECT");
        (line, connect)
    }
}

impl Packet {
    /// The client identifier of a CONNECT of MQTT 5 or 3.1.1.
    pub fn identifier(&self) -> String {
        let at = if self.version() == 5 { 11 + usize::from(self.body[10]) } else { 10 };
        let len = usize::from(self.body[at]) * 256 + usize::from(self.body[at + 1]);
        String::from_utf8_lossy(&self.body[at + 2..at + 2 + len]).into_owned()
    }

    pub fn version(&self) -> u8 {
        self.body[6]
    }

    pub fn is_clean(&self) -> bool {
        self.body[7] & 2 != 0
    }

    /// Whether these bytes, a property for one, are in it.
    pub fn has(&self, bytes: &[u8]) -> bool {
        self.body.windows(bytes.len()).any(|found| found == bytes)
    }

    /// Topic, packet identifier and rest of a PUBLISH of QoS 1.
    pub fn published(&self) -> (String, u16, Vec<u8>) {
        let len = usize::from(self.body[0]) * 256 + usize::from(self.body[1]);
        let topic = String::from_utf8_lossy(&self.body[2..2 + len]).into_owned();
        let id = u16::from_be_bytes([self.body[2 + len], self.body[3 + len]]);
        (topic, id, self.body[4 + len..].to_vec())
    }

    /// The packet identifier of a SUBSCRIBE, UNSUBSCRIBE or PUBACK.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }
}

impl Line {
    /// The next packet; none when the connection is over.
    pub async fn read(&mut self) -> Option<Packet> {
        let first = self.0.read_u8().await.ok()?;
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            let byte = self.0.read_u8().await.ok()?;
            len |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).await.ok()?;
        Some(Packet { first, body })
    }

    /// The next packet of that type (the upper four bits); PINGREQs are answered.
    pub async fn expect(&mut self, kind: u8) -> Packet {
        let wait = async {
            loop {
                let packet = self.read().await.expect("the connection was to live on");
                match packet.first >> 4 {
                    12 => self.write(&[0xD0, 0]).await,
                    found => {
                        assert_eq!(found, kind, "another packet was due: {packet:?}");
                        return packet;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("a packet was due")
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        // Who is gone takes nothing.
        let _ = self.0.write_all(bytes).await;
    }

    /// CONNACK of MQTT 3.1.1.
    pub async fn welcome_older(&mut self, resumed: bool) {
        self.write(&[0x20, 2, u8::from(resumed), 0]).await;
    }

    /// CONNACK of MQTT 5 with these properties.
    pub async fn welcome(&mut self, resumed: bool, properties: &[u8]) {
        let len = u8::try_from(properties.len()).expect("few properties");
        let mut bytes = vec![0x20, 3 + len, u8::from(resumed), 0, len];
        bytes.extend_from_slice(properties);
        self.write(&bytes).await;
    }
}

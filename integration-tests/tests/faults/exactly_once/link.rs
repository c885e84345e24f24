//! The connection of a client that writes MQTT by hand, and may be cut off at any moment.

use std::io;
use std::net::SocketAddr;

use linkspan_integration_tests::mqtt_wire::{Packet, V5, connect, packet, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One of 3.1.1 or 5.0, in a session that is kept.
#[derive(Debug)]
pub struct Link {
    stream: BufReader<TcpStream>,
    pub version: u8,
}

impl Link {
    /// Connects, and says whether there was a session.
    pub async fn connect(door: SocketAddr, version: u8, name: &str) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        let mut link = Self { stream: BufReader::new(stream), version };
        // Session expiry interval: an hour. In 3.1.1 a session without clean start has no end.
        let properties: &[u8] = if version == V5 { &[5, 0x11, 0, 0, 0x0e, 0x10] } else { &[] };
        link.send(&connect(version, 0, 0, &[properties, &text(name)].concat())).await?;
        let (first, body) = link.next().await?;
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK, and success: {body:?}");
        Ok((link, body[0] == 1))
    }

    /// Sends a packet.
    pub async fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(packet).await
    }

    /// Sends an acknowledgement of that kind.
    pub async fn acknowledge(&mut self, first: u8, id: u16) -> io::Result<()> {
        self.send(&packet(first, &id.to_be_bytes())).await
    }

    /// Subscribes at QoS 2.
    pub async fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        self.subscribe_at(filter, 2).await
    }

    /// Subscribes, perhaps once more.
    pub async fn subscribe_at(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        let properties: &[u8] = if self.version == V5 { &[0] } else { &[] };
        self.send(&packet(0x82, &[&[0, 1], properties, &text(filter)[..], &[qos]].concat())).await?;
        let (first, body) = self.next().await?;
        assert_eq!((first, body.last()), (0x90, Some(&qos)), "SUBACK: {body:?}");
        Ok(())
    }

    /// The next packet.
    pub async fn next(&mut self) -> io::Result<Packet> {
        let first = self.stream.read_u8().await?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((first, body))
    }

    /// Topic, packet identifier and payload of a PUBLISH at QoS 2 without properties.
    pub fn publish_in(&self, body: &[u8]) -> (String, u16, String) {
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, rest) = body[2..].split_at(length);
        let id = u16::from_be_bytes([rest[0], rest[1]]);
        let payload = if self.version == V5 { &rest[3..] } else { &rest[2..] };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        (text(topic), id, text(payload))
    }
}

//! MQTT packets written by hand.

use std::net::SocketAddr;

use crate::wire::Wire;

/// Protocol level of MQTT 3.1.1.
pub const V3: u8 = 4;

/// Protocol level of MQTT 5.
pub const V5: u8 = 5;

/// A packet: its first byte, and what follows the remaining length.
pub type Packet = (u8, Vec<u8>);

/// A connection that has its CONNACK.
#[derive(Debug)]
pub struct MqttWire {
    /// The socket.
    pub wire: Wire,
}

/// A packet's bytes.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 127;
        bytes.push((length % 128) as u8 | if more { 0x80 } else { 0 });
        length /= 128;
        if !more {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// A string or binary data with its length.
pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let length = u16::try_from(text.len()).expect("at most 65,535 bytes");
    [&length.to_be_bytes()[..], text].concat()
}

/// A CONNECT with clean start; `rest` is what follows the keep-alive.
pub fn connect(level: u8, flags: u8, keep_alive: u16, rest: &[u8]) -> Vec<u8> {
    let head = [&text("MQTT")[..], &[level, flags], &keep_alive.to_be_bytes()].concat();
    packet(0x10, &[&head[..], rest].concat())
}

/// A PUBLISH; `rest` is what follows the topic.
pub fn publish(flags: u8, topic: &str, rest: &[u8]) -> Vec<u8> {
    packet(0x30 | flags, &[&text(topic)[..], rest].concat())
}

impl MqttWire {
    /// Connects with a clean start and without keep-alive.
    pub async fn connect(door: SocketAddr, level: u8, identifier: &str) -> Self {
        Self::connect_as(door, level, identifier, 0).await
    }

    /// Connects with a keep-alive in seconds.
    pub async fn connect_as(door: SocketAddr, level: u8, identifier: &str, keep_alive: u16) -> Self {
        let mut rest = if level == V5 { vec![0] } else { Vec::new() };
        rest.extend(text(identifier));
        let mut client = Self { wire: Wire::to(door).await };
        client.wire.send(&connect(level, 2, keep_alive, &rest)).await;
        let (first, body) = client.next().await;
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK, and success: {body:?}");
        client
    }

    /// Connects a client of MQTT 5 that takes `receive_maximum` unacknowledged messages.
    pub async fn connect_narrow(door: SocketAddr, identifier: &str, receive_maximum: u8) -> Self {
        let rest = [&[3, 0x21, 0, receive_maximum][..], &text(identifier)].concat();
        let mut client = Self { wire: Wire::to(door).await };
        client.wire.send(&connect(V5, 2, 0, &rest)).await;
        let (first, body) = client.next().await;
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK, and success: {body:?}");
        client
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.wire.send(bytes).await;
    }

    /// The next packet.
    pub async fn next(&mut self) -> Packet {
        let first = self.wire.read(1).await[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.wire.read(1).await[0];
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
        (first, self.wire.read(length).await)
    }

    /// Subscribes to one filter at QoS 1 and returns the code of the SUBACK; `level` is that of the connection.
    pub async fn subscribe(&mut self, level: u8, filter: &str) -> u8 {
        let mut body = vec![0, 1];
        if level == V5 {
            body.push(0);
        }
        body.extend(text(filter));
        body.push(1);
        self.send(&packet(0x82, &body)).await;
        let (first, body) = self.next().await;
        assert_eq!(first, 0x90, "SUBACK: {body:?}");
        *body.last().expect("a code")
    }

    /// A PINGREQ is answered next: whatever was sent before has had its effect, and nothing else came back.
    pub async fn ping(&mut self) {
        self.send(&packet(0xc0, &[])).await;
        assert_eq!(self.next().await, (0xd0, vec![]), "PINGRESP");
    }
}

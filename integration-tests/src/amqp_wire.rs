//! AMQP 0-9-1 frames written by hand.

use std::net::SocketAddr;

use crate::wire::Wire;

/// The protocol header.
pub const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// `connection.close` and `channel.close`: class and method.
const CLOSES: [(u16, u16); 2] = [(10, 50), (20, 40)];

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// 1 method, 2 header, 3 body, 8 heartbeat.
    pub kind: u8,
    /// The channel.
    pub channel: u16,
    /// What is inside.
    pub payload: Vec<u8>,
}

/// An open connection.
#[derive(Debug)]
pub struct AmqpWire {
    /// The socket.
    pub wire: Wire,
}

/// A frame's bytes.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload");
    [&[kind][..], &channel.to_be_bytes(), &length.to_be_bytes(), payload, &[0xce]].concat()
}

/// A method frame's bytes.
pub fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat())
}

/// A short string.
pub fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("at most 255 bytes")][..], text.as_bytes()].concat()
}

/// A long string, or a table that is encoded already.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short enough").to_be_bytes()[..], bytes].concat()
}

/// A content header of class `basic` without properties.
pub fn content_header(channel: u16, size: u64) -> Vec<u8> {
    frame(2, channel, &[&[0, 60, 0, 0][..], &size.to_be_bytes(), &[0, 0]].concat())
}

/// `connection.start-ok` for PLAIN, by a client that wants to be told when it is refused.
pub fn start_ok(mechanism: &str, response: &[u8]) -> Vec<u8> {
    let capability = [&short("authentication_failure_close")[..], b"t\x01"].concat();
    let capabilities = [&short("capabilities")[..], b"F", &long(&capability)].concat();
    let arguments = [long(&capabilities), short(mechanism), long(response), short("en_US")].concat();
    method(0, 10, 11, &arguments)
}

impl AmqpWire {
    /// The protocol header is sent and `connection.start` has come.
    pub async fn greeted(door: SocketAddr) -> Self {
        let mut client = Self { wire: Wire::to(door).await };
        client.send(HEADER).await;
        client.expect(10, 10).await;
        client
    }

    /// Logs in and opens `vhost`; the answer to `connection.open` is still to come. Tunes to frames of 128 KiB.
    pub async fn entering(door: SocketAddr, user: &str, password: &str, vhost: &str) -> Self {
        Self::entering_as(door, user, password, vhost, 0).await
    }

    async fn entering_as(door: SocketAddr, user: &str, password: &str, vhost: &str, heartbeat: u8) -> Self {
        let mut client = Self::greeted(door).await;
        client.send(&start_ok("PLAIN", format!("\0{user}\0{password}").as_bytes())).await;
        let tune = client.expect(10, 30).await;
        client.send(&method(0, 10, 31, &[&tune[..6], &[0, heartbeat]].concat())).await;
        client.send(&method(0, 10, 40, &[&short(vhost)[..], &[0, 0]].concat())).await;
        client
    }

    /// A connection as guest with channel 1 open.
    pub async fn open(door: SocketAddr) -> Self {
        Self::beating(door, 0).await
    }

    /// The same with a heartbeat in seconds, of which it sends none itself.
    pub async fn beating(door: SocketAddr, heartbeat: u8) -> Self {
        let mut client = Self::entering_as(door, "guest", "guest", "/", heartbeat).await;
        client.expect(10, 41).await;
        client.send(&method(1, 20, 10, &[0])).await;
        client.expect(20, 11).await;
        client
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.wire.send(bytes).await;
    }

    /// The next frame that is no heartbeat.
    pub async fn next(&mut self) -> Frame {
        loop {
            let head = self.wire.read(7).await;
            let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            let mut payload = self.wire.read(length + 1).await;
            assert_eq!(payload.pop(), Some(0xce), "the end of a frame");
            if head[0] != 8 {
                return Frame { kind: head[0], channel: u16::from_be_bytes([head[1], head[2]]), payload };
            }
        }
    }

    /// The arguments of the next frame, which has to be this method.
    pub async fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        let frame = self.next().await;
        assert_eq!((frame.kind, identifier(&frame)), (1, (class, method)), "{frame:?}");
        frame.payload[4..].to_vec()
    }

    /// The next frame closes a channel, or the connection (0): which one, the code and the text. It is answered.
    pub async fn closed(&mut self) -> (u16, u16, String) {
        let frame = self.next().await;
        let (class, close) = identifier(&frame);
        assert!(frame.kind == 1 && CLOSES.contains(&(class, close)), "a close: {frame:?}");
        let code = u16::from_be_bytes([frame.payload[4], frame.payload[5]]);
        let length = usize::from(frame.payload[6]);
        let text = String::from_utf8(frame.payload[7..7 + length].to_vec()).expect("UTF-8");
        self.send(&method(frame.channel, class, close + 1, &[])).await;
        (frame.channel, code, text)
    }
}

fn identifier(frame: &Frame) -> (u16, u16) {
    let number = |at: usize| u16::from_be_bytes([frame.payload[at], frame.payload[at + 1]]);
    (number(0), number(2))
}

//! The door over the embedded back end, spoken to in raw frames.

mod alarms;
mod channels;
mod consuming;
mod handshake;
mod publishing;
mod remote;
mod slow_lane;
mod topology;
mod transactions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{Backend, SystemClock};
use linkspan_embedded::{Embedded, EmbeddedOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{AmqpDoor, AmqpLimits};
use crate::alarms::Alarms;
use crate::doors::listener::Listener;
use crate::doors::{Stop, Stopper, serve};
use crate::identity::Users;
use crate::protocol::amqp::{
    Content, ContentHeader, FrameKind, Limits, Method, ReplyCode, ShortBytes, ShortString, Table,
    basic::{self, Basic},
    channel, confirm, connection,
    frame::{self, Decoded},
    header::PROTOCOL_HEADER,
    properties::NONE,
    queue,
};

/// Nothing that a test waits for takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A door that listens.
struct House {
    address: SocketAddr,
    stopper: Option<Stopper>,
}

impl Drop for House {
    /// The door stays open for clients that the test still holds.
    fn drop(&mut self) {
        std::mem::forget(self.stopper.take());
    }
}

fn embedded() -> Arc<dyn Backend> {
    Embedded::open("local", EmbeddedOptions::default(), Arc::new(SystemClock))
}

/// A door over an embedded back end.
fn house() -> House {
    house_with(embedded(), AmqpLimits::default())
}

fn house_with(backend: Arc<dyn Backend>, limits: AmqpLimits) -> House {
    house_under(Arc::default(), backend, limits)
}

fn house_under(alarms: Arc<Alarms>, backend: Arc<dyn Backend>, limits: AmqpLimits) -> House {
    let users = Arc::new(Users::new(std::iter::empty()));
    let door = Arc::new(AmqpDoor::new(backend, users, alarms, limits));
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address().unwrap();
    let (stopper, stop) = Stop::new();
    tokio::spawn(serve(listener, door, 100, stop));
    House { address, stopper: Some(stopper) }
}

impl House {
    async fn raw(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, received: Vec::new(), frame_max: 131_072 }
    }

    /// A client that has opened `/`.
    async fn client(&self) -> Client {
        self.client_with(131_072, 0, &CAPABILITIES).await
    }

    async fn client_with(&self, frame_max: u32, heartbeat: u16, capabilities: &[&str]) -> Client {
        let mut client = self.raw().await;
        client.log_in(b"\0guest\0guest", capabilities).await;
        client.skip("Tune").await;
        client.frame_max = frame_max;
        client.send(0, connection::TuneOk { channel_max: 2047, frame_max, heartbeat }).await;
        client.send(0, connection::Open { virtual_host: short("/") }).await;
        client.expect(0, connection::OpenOk {}).await;
        client
    }

    /// A client with channel 1 open.
    async fn channel(&self) -> Client {
        let mut client = self.client().await;
        client.open(1).await;
        client
    }
}

const CAPABILITIES: [&str; 3] =
    ["consumer_cancel_notify", "connection.blocked", "authentication_failure_close"];

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    frame_max: u32,
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    kind: FrameKind,
    channel: u16,
    payload: Vec<u8>,
}

impl Got {
    fn method(&self) -> Method<'_> {
        assert_eq!(self.kind, FrameKind::Method, "{self:?}");
        Method::decode(&self.payload).unwrap()
    }

    fn shown(&self) -> String {
        match self.kind {
            FrameKind::Method => format!("{} on {}: {:?}", self.method().id(), self.channel, self.method()),
            _ => format!("{self:?}"),
        }
    }
}

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Message {
    method: String,
    channel: u16,
    consumer_tag: String,
    tag: u64,
    redelivered: bool,
    exchange: String,
    key: Vec<u8>,
    left: u32,
    properties: Vec<u8>,
    body: Vec<u8>,
    frames: usize,
}

fn short(text: &str) -> ShortString<'_> {
    ShortString::new(text).unwrap()
}

fn bytes(text: &[u8]) -> ShortBytes<'_> {
    ShortBytes::new(text).unwrap()
}

impl Client {
    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn send<'a>(&mut self, channel: u16, method: impl Into<Method<'a>>) {
        let mut out = Vec::new();
        method.into().encode(channel, &mut out);
        self.write(&out).await;
    }

    async fn log_in(&mut self, response: &[u8], capabilities: &[&str]) {
        self.write(&PROTOCOL_HEADER).await;
        self.skip("Start").await;
        self.start_ok("PLAIN", response, capabilities).await;
    }

    async fn start_ok(&mut self, mechanism: &str, response: &[u8], capabilities: &[&str]) {
        let mut capable = crate::protocol::amqp::TableBuf::new();
        for name in capabilities {
            capable.put(name, true).unwrap();
        }
        let mut properties = crate::protocol::amqp::TableBuf::new();
        properties.put("capabilities", capable.as_table()).unwrap();
        let start_ok = connection::StartOk {
            client_properties: properties.as_table(),
            mechanism: short(mechanism),
            response,
            locale: short("en_US"),
        };
        self.send(0, start_ok).await;
    }

    async fn open(&mut self, channel: u16) {
        self.send(channel, channel::Open {}).await;
        self.expect(channel, channel::OpenOk {}).await;
    }

    /// The next frame; heartbeats count. `None` when the server has closed its side.
    async fn next(&mut self) -> Option<Got> {
        let limits = Limits { frame_max: 0, body_max: u64::MAX };
        loop {
            if let Decoded::Frame(frame) = frame::decode(&self.received, 0, &limits).unwrap() {
                assert!(
                    frame.kind != FrameKind::Body || frame.wire.len <= self.frame_max,
                    "a frame of {} bytes",
                    frame.wire.len
                );
                let got = Got { kind: frame.kind, channel: frame.channel, payload: frame.payload.to_vec() };
                self.received.drain(..frame.wire.end());
                return Some(got);
            }
            let read = self.stream.read_buf(&mut self.received);
            let read = tokio::time::timeout(PATIENCE, read).await.expect("the server says nothing");
            if matches!(read, Ok(0) | Err(_)) {
                return None;
            }
        }
    }

    /// The next frame that is no heartbeat.
    async fn frame(&mut self) -> Got {
        loop {
            let got = self.next().await.expect("the server closed the connection");
            if got.kind != FrameKind::Heartbeat {
                return got;
            }
        }
    }

    /// Takes a method whose debug form begins with `name`.
    async fn skip(&mut self, name: &str) -> Got {
        let got = self.frame().await;
        let shown = format!("{:?}", got.method());
        assert!(shown.contains(&format!("({name}")), "{name} was expected, {} came", got.shown());
        got
    }

    /// Takes exactly this method.
    async fn expect<'a>(&mut self, channel: u16, method: impl Into<Method<'a>>) {
        let got = self.frame().await;
        let method = method.into();
        assert!(
            got.kind == FrameKind::Method && got.channel == channel && got.method() == method,
            "{method:?} on {channel} was expected, {} came",
            got.shown()
        );
    }

    /// Takes `channel.close` and answers it; its text.
    async fn channel_error(&mut self, channel: u16, code: ReplyCode) -> String {
        let got = self.frame().await;
        let Method::Channel(channel::Channel::Close(close)) = got.method() else { panic!("{}", got.shown()) };
        assert_eq!((got.channel, close.reply_code), (channel, code.code()), "{}", close.reply_text);
        let text = close.reply_text.as_str().to_owned();
        self.send(channel, channel::CloseOk {}).await;
        text
    }

    /// Takes `connection.close`, answers it and sees the socket closed; its text.
    async fn connection_error(&mut self, code: ReplyCode) -> String {
        let got = self.frame().await;
        let Method::Connection(connection::Connection::Close(close)) = got.method() else {
            panic!("{}", got.shown())
        };
        assert_eq!((got.channel, close.reply_code), (0, code.code()), "{}", close.reply_text);
        let text = close.reply_text.as_str().to_owned();
        let mut out = Vec::new();
        connection::CloseOk {}.encode(0, &mut out);
        let _ = self.stream.write_all(&out).await;
        self.is_over().await;
        text
    }

    /// The server closes its side without another word.
    async fn is_over(&mut self) {
        while let Some(got) = self.next().await {
            assert_eq!(got.kind, FrameKind::Heartbeat, "{}", got.shown());
        }
    }

    /// Nothing more came; a round trip on channel 0 or `channel` proves it.
    async fn quiet(&mut self, channel: u16) {
        self.send(channel, basic::Qos { prefetch_size: 0, prefetch_count: 0, global: true }).await;
        self.expect(channel, basic::QosOk {}).await;
    }

    /// Declares a queue that anybody may use.
    async fn queue(&mut self, name: &str) {
        self.send(1, declare(name)).await;
        self.skip("DeclareOk").await;
    }

    async fn publish(&mut self, channel: u16, exchange: &str, key: &[u8], body: &[u8]) {
        let message = published(channel, exchange, key, false, &NONE, body, self.frame_max);
        self.write(&message).await;
    }

    /// Takes a message of any kind.
    async fn message(&mut self) -> Message {
        let got = self.frame().await;
        let text = |bytes: ShortBytes<'_>| String::from_utf8(bytes.to_vec()).unwrap();
        let mut message = match got.method() {
            Method::Basic(Basic::Deliver(deliver)) => Message {
                method: "deliver".into(),
                consumer_tag: text(deliver.consumer_tag),
                tag: deliver.delivery_tag,
                redelivered: deliver.redelivered,
                exchange: text(deliver.exchange),
                key: deliver.routing_key.to_vec(),
                ..Message::default()
            },
            Method::Basic(Basic::GetOk(get_ok)) => Message {
                method: "get-ok".into(),
                tag: get_ok.delivery_tag,
                redelivered: get_ok.redelivered,
                exchange: text(get_ok.exchange),
                key: get_ok.routing_key.to_vec(),
                left: get_ok.message_count,
                ..Message::default()
            },
            Method::Basic(Basic::Return(returned)) => Message {
                method: format!("return {} {}", returned.reply_code, returned.reply_text),
                exchange: text(returned.exchange),
                key: returned.routing_key.to_vec(),
                ..Message::default()
            },
            _ => panic!("a message was expected, {} came", got.shown()),
        };
        message.channel = got.channel;
        let header = self.frame().await;
        assert_eq!((header.kind, header.channel), (FrameKind::Header, got.channel));
        let content = ContentHeader::decode(&header.payload, basic::Publish::ID).unwrap();
        message.properties = content.properties.to_vec();
        while (message.body.len() as u64) < content.body_size {
            let part = self.frame().await;
            assert_eq!((part.kind, part.channel), (FrameKind::Body, got.channel));
            message.body.extend_from_slice(&part.payload);
            message.frames += 1;
        }
        message
    }

    /// Takes `count` deliveries; their bodies as texts.
    async fn bodies(&mut self, count: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        for _ in 0..count {
            bodies.push(String::from_utf8(self.message().await.body).unwrap());
        }
        bodies
    }

    /// Consumes a queue on channel 1 under the tag `c`.
    async fn consume(&mut self, queue: &str, no_ack: bool) {
        self.send(1, consume(queue, "c", no_ack)).await;
        self.expect(1, basic::ConsumeOk { consumer_tag: short("c") }).await;
    }

    async fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        self.send(1, basic::Ack { delivery_tag, multiple }).await;
    }

    async fn select_confirms(&mut self) {
        self.send(1, confirm::Select { no_wait: false }).await;
        self.expect(1, confirm::SelectOk {}).await;
    }

    /// How many messages of a queue are ready.
    async fn ready(&mut self, queue: &str) -> u32 {
        self.send(1, queue::Declare { passive: true, ..declare(queue) }).await;
        let got = self.skip("DeclareOk").await;
        match got.method() {
            Method::Queue(queue::Queue::DeclareOk(ok)) => ok.message_count,
            _ => panic!("{}", got.shown()),
        }
    }
}

fn declare(name: &str) -> queue::Declare<'_> {
    queue::Declare {
        queue: short(name),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}

fn consume<'a>(queue: &'a str, tag: &'a str, no_ack: bool) -> basic::Consume<'a> {
    basic::Consume {
        queue: short(queue),
        consumer_tag: short(tag),
        no_local: false,
        no_ack,
        exclusive: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}

/// The frames of a published message.
fn published(
    channel: u16,
    exchange: &str,
    key: &[u8],
    mandatory: bool,
    properties: &[u8],
    body: &[u8],
    frame_max: u32,
) -> Vec<u8> {
    let mut out = Vec::new();
    let (exchange, routing_key) = (bytes(exchange.as_bytes()), bytes(key));
    basic::Publish { exchange, routing_key, mandatory, immediate: false }.encode(channel, &mut out);
    Content { properties, body }.encode(channel, frame_max, &mut out);
    out
}

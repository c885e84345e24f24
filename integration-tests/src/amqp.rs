//! An AMQP client by a third party, `lapin`, with the few calls that most tests make in short.

use std::net::SocketAddr;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ErrorKind, ExchangeKind};

use crate::patience::soon;
use crate::publisher::connect_amqp;

/// A connection with one channel.
pub struct Amqp {
    /// The connection.
    pub connection: Connection,
    /// The channel.
    pub channel: Channel,
}

impl Amqp {
    /// Connects as guest.
    pub async fn connect(door: SocketAddr) -> Self {
        let connection = connect_amqp(door).await;
        let channel = connection.create_channel().await.expect("a channel");
        Self { connection, channel }
    }

    /// The same with publisher confirms.
    pub async fn confirming(door: SocketAddr) -> Self {
        let this = Self::connect(door).await;
        this.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm.select-ok");
        this
    }

    /// Another channel, in place of the first.
    pub async fn reopen(&mut self) {
        self.channel = self.connection.create_channel().await.expect("a channel");
    }

    /// Declares a queue without arguments.
    pub async fn queue(&self, name: &str) {
        let options = QueueDeclareOptions::default();
        self.channel.queue_declare(name.into(), options, FieldTable::default()).await.expect("declare-ok");
    }

    /// Declares a queue that the server names and that goes with the connection.
    pub async fn own_queue(&self) -> String {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare("".into(), options, FieldTable::default()).await;
        queue.expect("declare-ok").name().as_str().to_owned()
    }

    /// Declares an exchange.
    pub async fn exchange(&self, name: &str, kind: ExchangeKind) {
        let options = ExchangeDeclareOptions::default();
        let declared = self.channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await;
        declared.expect("declare-ok");
    }

    /// Binds a queue.
    pub async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        self.bind_by(queue, exchange, key, FieldTable::default()).await;
    }

    /// Binds a queue with arguments.
    pub async fn bind_by(&self, queue: &str, exchange: &str, key: &str, arguments: FieldTable) {
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments);
        bound.await.expect("bind-ok");
    }

    /// A queue that the server names, bound so.
    pub async fn bound(&self, exchange: &str, key: &str) -> String {
        let queue = self.own_queue().await;
        self.bind(&queue, exchange, key).await;
        queue
    }

    /// Publishes; returns the confirm where the channel has these.
    pub async fn publish(&self, exchange: &str, key: &str, payload: &str) -> Confirmation {
        self.publish_as(exchange, key, payload, BasicProperties::default()).await
    }

    /// Publishes with properties.
    pub async fn publish_as(
        &self,
        exchange: &str,
        key: &str,
        payload: &str,
        properties: BasicProperties,
    ) -> Confirmation {
        let options = BasicPublishOptions::default();
        let channel = &self.channel;
        let publish =
            channel.basic_publish(exchange.into(), key.into(), options, payload.as_bytes(), properties);
        soon("a confirm", publish.await.expect("published")).await.expect("a confirm")
    }

    /// The next message of a queue, settled on delivery.
    pub async fn get(&self, queue: &str) -> Option<String> {
        let options = BasicGetOptions { no_ack: true };
        let message = self.channel.basic_get(queue.into(), options).await.expect("get-ok or get-empty");
        message.map(|message| text(&message.delivery.data))
    }

    /// All messages of a queue, settled on delivery.
    pub async fn drain(&self, queue: &str) -> Vec<String> {
        let mut messages = Vec::new();
        while let Some(message) = self.get(queue).await {
            messages.push(message);
        }
        messages
    }

    /// How many messages of a queue are ready, and how many consumers it has.
    pub async fn counts(&self, queue: &str) -> (u32, u32) {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        let queue = declared.expect("the queue exists");
        (queue.message_count(), queue.consumer_count())
    }
}

/// A payload as text.
pub fn text(payload: &[u8]) -> String {
    String::from_utf8(payload.to_vec()).expect("text")
}

/// The code and text with which the server closed the channel or connection.
pub fn refusal(error: &lapin::Error) -> (u16, String) {
    match error.kind() {
        ErrorKind::ProtocolError(error) => (error.get_id(), error.get_message().to_string()),
        other => panic!("the server did not refuse: {other:?}"),
    }
}

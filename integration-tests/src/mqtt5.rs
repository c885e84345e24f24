//! An MQTT 5 client by a third party, `rumqttc`, with all its properties in reach.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Packet, PubAckReason, Publish, PublishProperties, SubscribeProperties,
    SubscribeReasonCode, UnsubAckReason,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::patience::{soon, within};

/// What may wait for the test to look at it, in packets.
const WAITING: usize = 10_000;

/// A connected client. It acknowledges at once what it is given.
pub struct Mqtt5 {
    client: AsyncClient,
    incoming: mpsc::Receiver<Result<Packet, ConnectionError>>,
    publishes: VecDeque<Publish>,
    driver: JoinHandle<()>,
    /// What the server said when it let the client in.
    pub welcome: ConnAck,
}

impl Mqtt5 {
    /// Options that others are derived from.
    pub fn options(door: SocketAddr, name: &str) -> MqttOptions {
        let mut options = MqttOptions::new(name, door.ip().to_string(), door.port());
        options.set_keep_alive(Duration::from_secs(60)).set_outgoing_inflight_upper_limit(100);
        options
    }

    /// Connects with a clean start.
    pub async fn connect(door: SocketAddr, name: &str) -> Self {
        Self::connect_with(Self::options(door, name)).await.expect("let in")
    }

    /// Connects.
    ///
    /// # Errors
    /// Why it was not let in.
    pub async fn connect_with(options: MqttOptions) -> Result<Self, ConnectionError> {
        let (client, mut events) = AsyncClient::new(options, 100);
        let welcome = soon("a CONNACK", async {
            loop {
                if let Event::Incoming(Packet::ConnAck(welcome)) = events.poll().await? {
                    return Ok::<_, ConnectionError>(welcome);
                }
            }
        })
        .await?;
        let (sender, incoming) = mpsc::channel(WAITING);
        let driver = tokio::spawn(async move {
            loop {
                let (packet, last) = match events.poll().await {
                    Ok(Event::Incoming(packet)) => (Ok(packet), false),
                    Ok(Event::Outgoing(_)) => continue,
                    Err(error) => (Err(error), true),
                };
                if sender.send(packet).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Self { client, incoming, publishes: VecDeque::new(), driver, welcome })
    }

    /// The first packet of which `wanted` makes something; messages that come before it are kept.
    async fn await_packet<T>(&mut self, what: &str, wanted: impl Fn(&Packet) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let packet = self.incoming.recv().await.expect("the client lives");
                let packet = packet.unwrap_or_else(|error| panic!("{what}: the connection ended: {error}"));
                if let Some(found) = wanted(&packet) {
                    return found;
                }
                if let Packet::Publish(publish) = packet {
                    self.publishes.push_back(publish);
                }
            }
        })
        .await
    }

    /// Subscribes to one filter at QoS 1.
    pub async fn subscribe(&mut self, filter: &str) -> SubscribeReasonCode {
        self.subscribe_as(Filter::new(filter, QoS::AtLeastOnce)).await
    }

    /// Subscribes with options.
    pub async fn subscribe_as(&mut self, filter: Filter) -> SubscribeReasonCode {
        self.client.subscribe_many([filter]).await.expect("the client lives");
        self.await_packet("a SUBACK", |packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes[0]),
            _ => None,
        })
        .await
    }

    /// Subscribes to one filter at QoS 1 with a subscription identifier.
    pub async fn subscribe_identified(&mut self, filter: &str, identifier: usize) -> SubscribeReasonCode {
        let properties = SubscribeProperties { id: Some(identifier), user_properties: Vec::new() };
        let filter = Filter::new(filter, QoS::AtLeastOnce);
        self.client.subscribe_many_with_properties([filter], properties).await.expect("the client lives");
        self.await_packet("a SUBACK", |packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes[0]),
            _ => None,
        })
        .await
    }

    /// Unsubscribes and returns what the UNSUBACK says.
    pub async fn unsubscribe(&mut self, filter: &str) -> UnsubAckReason {
        self.client.unsubscribe(filter).await.expect("the client lives");
        self.await_packet("an UNSUBACK", |packet| match packet {
            Packet::UnsubAck(ack) => Some(ack.reasons[0]),
            _ => None,
        })
        .await
    }

    /// Publishes at QoS 1 and returns what the PUBACK says.
    pub async fn publish(&mut self, topic: &str, payload: &str) -> PubAckReason {
        self.publish_as(topic, payload, false, PublishProperties::default()).await
    }

    /// Publishes at QoS 1, retained.
    pub async fn retain(&mut self, topic: &str, payload: &str) -> PubAckReason {
        self.publish_as(topic, payload, true, PublishProperties::default()).await
    }

    /// Publishes at QoS 1 with properties.
    pub async fn publish_as(
        &mut self,
        topic: &str,
        payload: &str,
        retain: bool,
        properties: PublishProperties,
    ) -> PubAckReason {
        let payload = payload.to_owned();
        let client = &self.client;
        client
            .publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties)
            .await
            .expect("the client lives");
        self.await_packet("a PUBACK", |packet| match packet {
            Packet::PubAck(ack) => Some(ack.reason),
            _ => None,
        })
        .await
    }

    /// Publishes at QoS 0.
    pub async fn tell(&self, topic: &str, payload: &str) {
        let payload = payload.to_owned();
        self.client.publish(topic, QoS::AtMostOnce, false, payload).await.expect("the client lives");
    }

    /// Publishes at QoS 2 and returns when the PUBCOMP has come.
    pub async fn publish_once(&mut self, topic: &str, payload: &str) {
        let payload = payload.to_owned();
        self.client.publish(topic, QoS::ExactlyOnce, false, payload).await.expect("the client lives");
        self.await_packet("a PUBCOMP", |packet| matches!(packet, Packet::PubComp(_)).then_some(())).await;
    }

    /// The next message.
    pub async fn next(&mut self) -> Publish {
        if let Some(publish) = self.publishes.pop_front() {
            return publish;
        }
        self.await_packet("a message", |packet| match packet {
            Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        })
        .await
    }

    /// The payload of the next message.
    pub async fn next_text(&mut self) -> String {
        payload(&self.next().await)
    }

    /// The message that comes within `limit`, for what must not come.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Publish> {
        within(limit, self.next()).await
    }

    /// Says DISCONNECT.
    pub async fn leave(self) {
        self.client.disconnect().await.expect("the client lives");
        let mut this = self;
        soon("the connection ends", async { while let Some(Ok(_)) = this.incoming.recv().await {} }).await;
    }

    /// How the server ends the connection.
    pub async fn end(mut self) -> ConnectionError {
        soon("the connection ends", async {
            loop {
                if let Err(error) = self.incoming.recv().await.expect("the client lives") {
                    return error;
                }
            }
        })
        .await
    }
}

impl Drop for Mqtt5 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A message's payload as text.
pub fn payload(publish: &Publish) -> String {
    String::from_utf8(publish.payload.to_vec()).expect("text")
}

/// A message's topic.
pub fn topic(publish: &Publish) -> String {
    String::from_utf8(publish.topic.to_vec()).expect("text")
}

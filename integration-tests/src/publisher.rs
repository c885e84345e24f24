//! Publishing in any dialect, each message acknowledged.

use std::net::SocketAddr;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::dialect::Dialect;
use crate::http;
use crate::outgoing::Outgoing;
use crate::patience::soon;

/// Messages that may be unacknowledged at a time.
const WINDOW: u16 = 100;

/// A publisher.
pub struct Publisher {
    way: Way,
}

enum Way {
    Mqtt3 { client: rumqttc::AsyncClient, acknowledged: mpsc::Receiver<()>, driver: JoinHandle<()> },
    Mqtt5 { client: v5::AsyncClient, acknowledged: mpsc::Receiver<()>, driver: JoinHandle<()> },
    Amqp { _connection: Connection, channel: Box<Channel> },
    Http(http::Client),
}

impl Publisher {
    /// Connects to `door`.
    pub async fn connect(dialect: Dialect, door: SocketAddr, name: &str) -> Self {
        let (told, acknowledged) = mpsc::channel(usize::from(WINDOW));
        let way = match dialect {
            Dialect::Mqtt3 => {
                let mut options = rumqttc::MqttOptions::new(name, door.ip().to_string(), door.port());
                options.set_keep_alive(Duration::from_secs(60)).set_inflight(WINDOW);
                let (client, mut events) = rumqttc::AsyncClient::new(options, usize::from(WINDOW));
                let driver = tokio::spawn(async move {
                    loop {
                        match events.poll().await {
                            Ok(rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))) => {
                                if told.send(()).await.is_err() {
                                    return;
                                }
                            }
                            Ok(_) => {}
                            Err(_) => return,
                        }
                    }
                });
                Way::Mqtt3 { client, acknowledged, driver }
            }
            Dialect::Mqtt5 => {
                let mut options = v5::MqttOptions::new(name, door.ip().to_string(), door.port());
                options.set_keep_alive(Duration::from_secs(60)).set_outgoing_inflight_upper_limit(WINDOW);
                let (client, mut events) = v5::AsyncClient::new(options, usize::from(WINDOW));
                let driver = tokio::spawn(async move {
                    loop {
                        match events.poll().await {
                            Ok(v5::Event::Incoming(v5::mqttbytes::v5::Packet::PubAck(ack))) => {
                                use v5::mqttbytes::v5::PubAckReason as Reason;
                                let fine =
                                    matches!(ack.reason, Reason::Success | Reason::NoMatchingSubscribers);
                                assert!(fine, "PUBACK says {:?}", ack.reason);
                                if told.send(()).await.is_err() {
                                    return;
                                }
                            }
                            Ok(_) => {}
                            Err(_) => return,
                        }
                    }
                });
                Way::Mqtt5 { client, acknowledged, driver }
            }
            Dialect::Amqp => {
                let connection = connect_amqp(door).await;
                let channel = connection.create_channel().await.expect("a channel");
                channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
                Way::Amqp { _connection: connection, channel: Box::new(channel) }
            }
            Dialect::Http => Way::Http(http::Client::to(door)),
        };
        Self { way }
    }

    /// Publishes to the address (an MQTT topic) in order and returns when all are acknowledged.
    pub async fn publish<T: Into<Outgoing>>(&mut self, address: &str, messages: impl IntoIterator<Item = T>) {
        let each = messages.into_iter().map(|message| (address.to_owned(), message.into()));
        self.publish_each(each).await;
    }

    /// The same, each to an address of its own.
    pub async fn publish_each(&mut self, messages: impl IntoIterator<Item = (String, Outgoing)>) {
        soon("every publish is acknowledged", self.publish_all(messages.into_iter())).await;
    }

    async fn publish_all(&mut self, messages: impl Iterator<Item = (String, Outgoing)>) {
        match &mut self.way {
            Way::Mqtt3 { client, acknowledged, .. } => {
                let mut sent = 0;
                for (address, message) in messages {
                    assert!(message.is_plain(), "MQTT 3.1.1 has no place for it: {message:?}");
                    let qos = rumqttc::QoS::AtLeastOnce;
                    client.publish(address, qos, false, message.payload).await.expect("published");
                    sent += 1;
                    if sent > WINDOW {
                        acknowledged.recv().await.expect("a PUBACK");
                        sent -= 1;
                    }
                }
                for _ in 0..sent {
                    acknowledged.recv().await.expect("a PUBACK");
                }
            }
            Way::Mqtt5 { client, acknowledged, .. } => {
                let mut sent = 0;
                for (address, message) in messages {
                    let qos = v5::mqttbytes::QoS::AtLeastOnce;
                    let properties = user_properties(&message);
                    let published =
                        client.publish_with_properties(address, qos, false, message.payload, properties);
                    published.await.expect("published");
                    sent += 1;
                    if sent > WINDOW {
                        acknowledged.recv().await.expect("a PUBACK");
                        sent -= 1;
                    }
                }
                for _ in 0..sent {
                    acknowledged.recv().await.expect("a PUBACK");
                }
            }
            Way::Amqp { channel, .. } => {
                let mut confirms = Vec::new();
                for (address, message) in messages {
                    let publish = channel.basic_publish(
                        "amq.topic".into(),
                        address.replace('/', ".").into(),
                        BasicPublishOptions::default(),
                        &message.payload,
                        basic_properties(&message),
                    );
                    confirms.push(publish.await.expect("published"));
                }
                for confirm in confirms {
                    let confirmed = confirm.await.expect("a confirm");
                    assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
                }
            }
            Way::Http(client) => {
                for (address, message) in messages {
                    let path = format!("/v1/messages/{address}");
                    let answer = client.post(&path, headers(&message), message.payload).await;
                    assert_eq!(answer.status, 204, "POST {path}: {answer:?}");
                }
            }
        }
    }
}

/// A message's properties in MQTT 5.
fn user_properties(message: &Outgoing) -> PublishProperties {
    let mut user_properties = message.properties.clone();
    let id = message.message_id.iter().map(|id| ("amqp-message-id".to_owned(), id.clone()));
    user_properties.extend(id);
    user_properties.extend(message.priority.map(|level| ("amqp-priority".to_owned(), level.to_string())));
    PublishProperties { user_properties, ..PublishProperties::default() }
}

/// The same in AMQP.
fn basic_properties(message: &Outgoing) -> BasicProperties {
    let mut properties = BasicProperties::default().with_delivery_mode(2);
    if let Some(id) = &message.message_id {
        properties = properties.with_message_id(id.as_str().into());
    }
    if let Some(level) = message.priority {
        properties = properties.with_priority(level);
    }
    let mut headers = FieldTable::default();
    for (name, value) in &message.properties {
        headers.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
    }
    properties.with_headers(headers)
}

/// The same in HTTP.
fn headers(message: &Outgoing) -> Vec<(String, String)> {
    let properties = message.properties.iter();
    let mut headers: Vec<_> =
        properties.map(|(name, value)| (format!("Linkspan-Property-{name}"), value.clone())).collect();
    headers.extend(message.message_id.iter().map(|id| ("Linkspan-Message-Id".to_owned(), id.clone())));
    headers.extend(message.priority.map(|level| ("Linkspan-Priority".to_owned(), level.to_string())));
    headers
}

impl Drop for Publisher {
    fn drop(&mut self) {
        match &self.way {
            Way::Mqtt3 { driver, .. } | Way::Mqtt5 { driver, .. } => driver.abort(),
            Way::Amqp { .. } | Way::Http(_) => {}
        }
    }
}

/// A `lapin` connection to `door` as guest.
pub async fn connect_amqp(door: SocketAddr) -> Connection {
    let uri = format!("amqp://guest:guest@{door}/%2f");
    let connecting = Connection::connect(&uri, ConnectionProperties::default());
    soon("lapin connects", connecting).await.expect("lapin connects")
}

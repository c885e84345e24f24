//! Publishing in any dialect, each message acknowledged.

use std::net::SocketAddr;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use rumqttc::v5;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::dialect::Dialect;
use crate::patience::soon;

/// Messages that may be unacknowledged at a time.
const WINDOW: u16 = 100;

/// A publisher of one address.
pub struct Publisher {
    way: Way,
}

enum Way {
    Mqtt3 { client: rumqttc::AsyncClient, acknowledged: mpsc::Receiver<()>, driver: JoinHandle<()> },
    Mqtt5 { client: v5::AsyncClient, acknowledged: mpsc::Receiver<()>, driver: JoinHandle<()> },
    Amqp { _connection: Connection, channel: Box<Channel> },
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
        };
        Self { way }
    }

    /// Publishes `payloads` to the address (an MQTT topic) in order and returns when all are acknowledged.
    pub async fn publish(&mut self, address: &str, payloads: impl IntoIterator<Item = Vec<u8>>) {
        soon("every publish is acknowledged", self.publish_all(address, payloads.into_iter())).await;
    }

    async fn publish_all(&mut self, address: &str, payloads: impl Iterator<Item = Vec<u8>>) {
        match &mut self.way {
            Way::Mqtt3 { client, acknowledged, .. } => {
                let mut sent = 0;
                for payload in payloads {
                    let qos = rumqttc::QoS::AtLeastOnce;
                    client.publish(address, qos, false, payload).await.expect("published");
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
                for payload in payloads {
                    let qos = v5::mqttbytes::QoS::AtLeastOnce;
                    client.publish(address, qos, false, payload).await.expect("published");
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
                let key = address.replace('/', ".");
                let mut confirms = Vec::new();
                for payload in payloads {
                    let options = BasicPublishOptions::default();
                    let persistent = BasicProperties::default().with_delivery_mode(2);
                    let publish = channel.basic_publish(
                        "amq.topic".into(),
                        key.as_str().into(),
                        options,
                        &payload,
                        persistent,
                    );
                    confirms.push(publish.await.expect("published"));
                }
                for confirm in confirms {
                    let confirmed = confirm.await.expect("a confirm");
                    assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
                }
            }
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        match &self.way {
            Way::Mqtt3 { driver, .. } | Way::Mqtt5 { driver, .. } => driver.abort(),
            Way::Amqp { .. } => {}
        }
    }
}

/// A `lapin` connection to `door` as guest.
pub async fn connect_amqp(door: SocketAddr) -> Connection {
    let uri = format!("amqp://guest:guest@{door}/%2f");
    let connecting = Connection::connect(&uri, ConnectionProperties::default());
    soon("lapin connects", connecting).await.expect("lapin connects")
}

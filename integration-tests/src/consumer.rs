//! Consuming in any dialect, settled when the test says so.

use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::Connection;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use rumqttc::v5;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cable::Cable;
use crate::dialect::Dialect;
use crate::patience::soon;
use crate::publisher::connect_amqp;

/// How a consumer takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking<'a> {
    /// A copy of everything published to an address (an MQTT topic filter without wildcards in the middle).
    Watch(&'a str),
    /// A share of a work queue: the queue's name, and its route's match.
    Work {
        /// The queue.
        queue: &'a str,
        /// The match.
        address: &'a str,
    },
}

/// Deliveries that an AMQP worker has in hand at most.
const PREFETCH: u16 = 10;

/// Messages that a consumer of these tests has in hand at most.
const IN_HAND: usize = 10_000;

/// One consumer behind a cable of its own.
pub struct Consumer {
    cable: Cable,
    received: mpsc::Receiver<Received>,
    driver: JoinHandle<()>,
    _connection: Option<Connection>,
}

/// A message that was delivered, not yet settled.
pub struct Received {
    /// Its payload.
    pub payload: Vec<u8>,
    settle: Ack,
}

enum Ack {
    Mqtt3(rumqttc::AsyncClient, rumqttc::Publish),
    Mqtt5(v5::AsyncClient, v5::mqttbytes::v5::Publish),
    Amqp(Box<Delivery>),
}

impl Received {
    /// Accepts it: PUBACK or basic.ack.
    pub async fn settle(self) {
        match self.settle {
            Ack::Mqtt3(client, publish) => client.ack(&publish).await.expect("the client lives"),
            Ack::Mqtt5(client, publish) => client.ack(&publish).await.expect("the client lives"),
            Ack::Amqp(delivery) => {
                delivery.ack(BasicAckOptions::default()).await.expect("the channel lives");
            }
        }
    }
}

impl Consumer {
    /// Connects to `door` and returns when the server has confirmed that it consumes.
    pub async fn connect(dialect: Dialect, door: SocketAddr, name: &str, taking: Taking<'_>) -> Self {
        let cable = Cable::to(door).await;
        let at = cable.address();
        let (sender, received) = mpsc::channel(IN_HAND);
        let (driver, connection) = match dialect {
            Dialect::Mqtt3 => (mqtt3(at, name, taking, sender).await, None),
            Dialect::Mqtt5 => (mqtt5(at, name, taking, sender).await, None),
            Dialect::Amqp => {
                let (driver, connection) = amqp(at, taking, sender).await;
                (driver, Some(connection))
            }
        };
        Self { cable, received, driver, _connection: connection }
    }

    /// The next message.
    pub async fn next(&mut self) -> Received {
        let next = soon("a message is delivered", self.received.recv()).await;
        next.expect("the consumer's connection lives")
    }

    /// The next message, when one comes in time.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Received> {
        tokio::time::timeout(limit, self.received.recv()).await.ok().flatten()
    }

    /// The connection is cut, with what is in its hands.
    pub async fn kill(self) {
        self.cable.cut().await;
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn mqtt3(
    at: SocketAddr,
    name: &str,
    taking: Taking<'_>,
    sender: mpsc::Sender<Received>,
) -> JoinHandle<()> {
    use rumqttc::{Event, Packet};
    let mut options = rumqttc::MqttOptions::new(name, at.ip().to_string(), at.port());
    options.set_keep_alive(Duration::from_secs(60)).set_manual_acks(true);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 100);
    let filter = match taking {
        Taking::Watch(filter) => filter,
        Taking::Work { address, .. } => address,
    };
    client.subscribe(filter, rumqttc::QoS::AtLeastOnce).await.expect("the client lives");
    soon("the subscription is granted", async {
        loop {
            if let Event::Incoming(Packet::SubAck(ack)) = events.poll().await.expect("the connection lives") {
                let granted = rumqttc::SubscribeReasonCode::Success(rumqttc::QoS::AtLeastOnce);
                assert_eq!(ack.return_codes, [granted], "SUBACK of {filter}");
                return;
            }
        }
    })
    .await;
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if let Event::Incoming(Packet::Publish(publish)) = event {
                let payload = publish.payload.to_vec();
                let received = Received { payload, settle: Ack::Mqtt3(client.clone(), publish) };
                if sender.try_send(received).is_err() {
                    return;
                }
            }
        }
    })
}

async fn mqtt5(
    at: SocketAddr,
    name: &str,
    taking: Taking<'_>,
    sender: mpsc::Sender<Received>,
) -> JoinHandle<()> {
    use v5::Event;
    use v5::mqttbytes::QoS;
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    let mut options = v5::MqttOptions::new(name, at.ip().to_string(), at.port());
    options.set_keep_alive(Duration::from_secs(60)).set_manual_acks(true);
    options.set_outgoing_inflight_upper_limit(100);
    let (client, mut events) = v5::AsyncClient::new(options, 100);
    let filter = match taking {
        Taking::Watch(filter) => filter.to_owned(),
        Taking::Work { queue, address } => format!("$share/{queue}/{address}"),
    };
    client.subscribe(&filter, QoS::AtLeastOnce).await.expect("the client lives");
    soon("the subscription is granted", async {
        loop {
            if let Event::Incoming(Packet::SubAck(ack)) = events.poll().await.expect("the connection lives") {
                let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
                assert_eq!(ack.return_codes, [granted], "SUBACK of {filter}");
                return;
            }
        }
    })
    .await;
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if let Event::Incoming(Packet::Publish(publish)) = event {
                let payload = publish.payload.to_vec();
                let received = Received { payload, settle: Ack::Mqtt5(client.clone(), publish) };
                if sender.try_send(received).is_err() {
                    return;
                }
            }
        }
    })
}

async fn amqp(
    at: SocketAddr,
    taking: Taking<'_>,
    sender: mpsc::Sender<Received>,
) -> (JoinHandle<()>, Connection) {
    let connection = connect_amqp(at).await;
    let channel = connection.create_channel().await.expect("a channel");
    let queue = match taking {
        Taking::Work { queue, .. } => queue.to_owned(),
        Taking::Watch(filter) => {
            let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
            let queue =
                channel.queue_declare("".into(), options, FieldTable::default()).await.expect("a queue");
            let name = queue.name().as_str().to_owned();
            let key = filter.replace('/', ".").replace('+', "*");
            let bind = channel.queue_bind(
                name.as_str().into(),
                "amq.topic".into(),
                key.as_str().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bind.await.expect("a binding");
            name
        }
    };
    if matches!(taking, Taking::Work { .. }) {
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a prefetch");
    }
    let consume = channel.basic_consume(
        queue.as_str().into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut consumer = consume.await.expect("consume-ok");
    let driver = tokio::spawn(async move {
        let _open = channel;
        while let Some(Ok(delivery)) = consumer.next().await {
            let received = Received { payload: delivery.data.clone(), settle: Ack::Amqp(Box::new(delivery)) };
            if sender.try_send(received).is_err() {
                return;
            }
        }
    });
    (driver, connection)
}

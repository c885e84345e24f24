//! A message that was delivered, not yet settled.

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use rumqttc::v5;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::http::Client;

/// A message that was delivered, not yet settled.
pub struct Received {
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its properties as text, as far as its protocol has any; `linkspan-fence` among them.
    pub properties: Vec<(String, String)>,
    pub(super) hand: Hand,
}

/// By which way it is settled.
pub(super) enum Hand {
    Mqtt3(rumqttc::AsyncClient, rumqttc::Publish),
    Mqtt5 {
        client: v5::AsyncClient,
        refusals: mpsc::Sender<v5::mqttbytes::v5::PubAck>,
        publish: v5::mqttbytes::v5::Publish,
    },
    Amqp(Box<Delivery>),
    Lease {
        client: Client,
        path: String,
        /// Its place among what the consumer has in hand.
        _place: OwnedSemaphorePermit,
    },
    /// It was only to be seen.
    Copy,
}

/// What HTTP answers to a word that counts, and to one that comes too late.
const DONE: u16 = 204;
const GONE: u16 = 410;

impl Received {
    /// The payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("text")
    }

    /// The payload as a number.
    pub fn number(&self) -> u32 {
        self.text().parse().unwrap_or_else(|_| panic!("`{}` is no number", self.text()))
    }

    /// A property.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Accepts it: PUBACK, basic.ack, DELETE of the lease.
    pub async fn settle(self) {
        self.accept(DONE).await;
    }

    /// The same, when it is somebody else's by now: where the protocol has an answer, it says so, and else nothing is
    /// said.
    pub async fn settle_too_late(self) {
        self.accept(GONE).await;
    }

    async fn accept(self, answer: u16) {
        match self.hand {
            Hand::Mqtt3(client, publish) => client.ack(&publish).await.expect("the client lives"),
            Hand::Mqtt5 { client, publish, .. } => client.ack(&publish).await.expect("the client lives"),
            Hand::Amqp(delivery) => {
                delivery.ack(BasicAckOptions::default()).await.expect("the channel lives");
            }
            Hand::Lease { client, path, .. } => {
                let answered = client.delete(&path).await;
                assert_eq!(answered.status, answer, "DELETE of a lease: {answered:?}");
            }
            Hand::Copy => {}
        }
    }

    /// Says that nobody can work it: a PUBACK of an error, basic.nack without requeue, `reject` of the lease.
    pub async fn reject(self) {
        self.refuse(false).await;
    }

    /// Says that somebody else may try: a PUBACK of an error, basic.nack with requeue, `release` of the lease.
    pub async fn release(self) {
        self.refuse(true).await;
    }

    async fn refuse(self, requeue: bool) {
        match self.hand {
            Hand::Mqtt3(..) => panic!("MQTT 3.1.1 has no word for it"),
            Hand::Mqtt5 { refusals, publish, .. } => {
                let mut ack = v5::mqttbytes::v5::PubAck::new(publish.pkid, None);
                ack.reason = v5::mqttbytes::v5::PubAckReason::UnspecifiedError;
                refusals.try_send(ack).expect("the client lives, and sends what it says");
            }
            Hand::Amqp(delivery) => {
                let options = BasicNackOptions { requeue, ..BasicNackOptions::default() };
                delivery.nack(options).await.expect("the channel lives");
            }
            Hand::Lease { client, path, .. } => {
                let path = format!("{path}/{}", if requeue { "release" } else { "reject" });
                let answered = client.post(&path, Vec::new(), Vec::new()).await;
                assert_eq!(answered.status, DONE, "POST {path}: {answered:?}");
            }
            Hand::Copy => panic!("a copy is nobody's to refuse"),
        }
    }
}

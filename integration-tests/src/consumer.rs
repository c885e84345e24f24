//! Consuming in any dialect, settled when the test says so.

mod amqp;
mod http;
mod mqtt3;
mod mqtt5;
mod received;

use std::net::SocketAddr;
use std::time::Duration;

use lapin::Connection;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cable::Cable;
use crate::dialect::Dialect;
use crate::patience::soon;

pub use received::Received;

/// How a consumer takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking<'a> {
    /// A copy of everything published to an address (an MQTT topic filter without wildcards in the middle).
    Watch(&'a str),
    /// A share of a work queue: the queue's name, and its route's match. MQTT 3.1.1 subscribes to the match, MQTT 5 to
    /// the match shared, the others consume the queue by its name.
    Work {
        /// The queue.
        queue: &'a str,
        /// The match.
        address: &'a str,
    },
    /// A share of a work queue, by its name in every protocol.
    Queue(&'a str),
}

/// What a consumer asks for besides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asking {
    /// Deliveries that it has in hand at most. MQTT 3.1.1 has no word for that.
    pub in_hand: Option<u16>,
    /// How long its leases last, over HTTP.
    pub lease: Option<Duration>,
    /// It is the user `guest`, over HTTP, where else it has no name.
    pub guest: bool,
}

/// Why a consumer was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The number that its protocol has for that.
    pub code: u16,
    /// What else was said.
    pub text: String,
}

/// Deliveries that a worker has in hand at most, where its protocol lets it say that.
const PREFETCH: u16 = 10;

/// Messages that a consumer of these tests has in hand at most.
const IN_HAND: usize = 20_000;

/// One consumer behind a cable of its own.
pub struct Consumer {
    cable: Cable,
    received: mpsc::Receiver<Received>,
    driver: JoinHandle<()>,
    _connection: Option<Connection>,
}

impl Consumer {
    /// Connects to `door` and returns when the server has confirmed that it consumes.
    pub async fn connect(dialect: Dialect, door: SocketAddr, name: &str, taking: Taking<'_>) -> Self {
        let consuming = Self::ask(dialect, door, name, taking, Asking::default()).await;
        consuming.unwrap_or_else(|why| panic!("{dialect} consumer {name} of {taking:?}: {why:?}"))
    }

    /// The same with further wishes.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn ask(
        dialect: Dialect,
        door: SocketAddr,
        name: &str,
        taking: Taking<'_>,
        asking: Asking,
    ) -> Result<Self, Refusal> {
        let cable = Cable::to(door).await;
        let at = cable.address();
        let (sender, received) = mpsc::channel(IN_HAND);
        let (driver, connection) = match dialect {
            Dialect::Mqtt3 => (mqtt3::consume(at, name, taking, sender).await?, None),
            Dialect::Mqtt5 => (mqtt5::consume(at, name, taking, asking, sender).await?, None),
            Dialect::Amqp => {
                let (driver, connection) = amqp::consume(at, taking, asking, sender).await?;
                (driver, Some(connection))
            }
            Dialect::Http => (http::consume(at, taking, asking, sender).await?, None),
        };
        Ok(Self { cable, received, driver, _connection: connection })
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

//! What happens when the link is cut, the broker is full, or a message is poison.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests stop where a test cannot go on"
)]

mod alarms;
mod desks;
mod losses;
#[path = "../notes/mod.rs"]
mod notes;
mod poison;
mod reaching;
mod repeats;
mod telling;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linkspan_amqp::{AmqpBackend, AmqpOptions, Node};
use linkspan_contract::conformance::Fixture;
use linkspan_contract::{Backend, Clock, Health, Ledger, SystemClock};
use linkspan_integration_tests::{Cable, RabbitMq};

use crate::notes::Notes;

/// A back end behind a link of its own.
struct Linked {
    cable: Cable,
    backend: Arc<AmqpBackend>,
    ledger: Arc<Notes>,
}

impl Linked {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut AmqpOptions)) -> Self {
        Self::to(RabbitMq::shared().await, change).await
    }

    async fn to(broker: &RabbitMq, change: impl FnOnce(&mut AmqpOptions)) -> Self {
        Self::at(broker, Arc::new(SystemClock), change).await
    }

    async fn at(broker: &RabbitMq, clock: Arc<dyn Clock>, change: impl FnOnce(&mut AmqpOptions)) -> Self {
        let mut options = AmqpOptions::from_url(broker.url()).expect("the broker's URL is one");
        let cable = Cable::to(broker.address()).await;
        options.nodes = vec![Node { host: "127.0.0.1".into(), port: cable.address().port() }];
        change(&mut options);
        let ledger = Arc::new(Notes::default());
        let noting: Arc<dyn Ledger> = Arc::clone(&ledger) as _;
        let backend = AmqpBackend::open("rabbit", options, clock, noting).expect("a back end opens");
        let linked = Self { cable, backend, ledger };
        linked.up().await;
        linked
    }

    /// Waits until the broker is reached.
    async fn up(&self) {
        for _ in 0..1500 {
            if self.backend.health().await == Health::Up {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the broker was not reached: {:?}", self.backend.health().await);
    }

    /// Waits until the loss is noticed, and then until it is over.
    async fn back(&self) {
        for _ in 0..500 {
            if self.backend.health().await != Health::Up {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.up().await;
    }
}

#[async_trait]
impl Fixture for Linked {
    async fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn is_remote(&self) -> bool {
        true
    }
}

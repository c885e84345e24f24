//! The back end does what every back end has to, over a real broker.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests stop where a test cannot go on"
)]

mod notes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linkspan_amqp::{AmqpBackend, AmqpOptions};
use linkspan_contract::conformance::Fixture;
use linkspan_contract::{Backend, Health, SystemClock};
use linkspan_integration_tests::RabbitMq;

struct RealBroker;

#[async_trait]
impl Fixture for RealBroker {
    async fn backend(&self) -> Arc<dyn Backend> {
        let options = AmqpOptions::from_url(RabbitMq::shared().await.url()).expect("the broker's URL is one");
        let ledger = Arc::new(notes::Notes::default());
        let backend =
            AmqpBackend::open("rabbit", options, Arc::new(SystemClock), ledger).expect("a back end opens");
        for _ in 0..1000 {
            if backend.health().await == Health::Up {
                return backend;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the broker does not let the back end in: {:?}", backend.health().await)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn is_remote(&self) -> bool {
        true
    }
}

linkspan_contract::conformance!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    RealBroker
);

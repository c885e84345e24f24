//! Others who use the server meanwhile, and must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use linkspan_integration_tests::{Consumer, Dialect, Publisher, Server, Taking};
use tokio::task::JoinHandle;

/// One client that publishes over MQTT and one that consumes over AMQP, each message after the other, until they are
/// asked how it went.
pub struct Bystander {
    enough: Arc<AtomicBool>,
    working: JoinHandle<u32>,
}

impl Bystander {
    /// Starts them.
    pub async fn of(server: &Server) -> Self {
        let filter = "bystander/counts";
        let mut consumer =
            Consumer::connect(Dialect::Amqp, server.amqp(), "bystander", Taking::Watch(filter)).await;
        let mut publisher = Publisher::connect(Dialect::Mqtt5, server.mqtt(), "bystander-publisher").await;
        let enough = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&enough);
        let working = tokio::spawn(async move {
            let mut count: u32 = 0;
            while !asked.load(Ordering::Relaxed) {
                let payload = count.to_string().into_bytes();
                publisher.publish(filter, [payload.clone()]).await;
                let received = consumer.next().await;
                assert_eq!(received.payload, payload, "the bystander's messages, in order");
                received.settle().await;
                count += 1;
            }
            count
        });
        Self { enough, working }
    }

    /// Ends them; fails when they noticed anything.
    pub async fn noticed_nothing(self) {
        assert!(!self.working.is_finished(), "the bystander's connections went on to the end");
        self.enough.store(true, Ordering::Relaxed);
        let count = self.working.await.expect("the bystander noticed");
        assert!(count > 0, "the bystander was served meanwhile");
    }
}

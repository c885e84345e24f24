//! Where a cell is played: its server, its place and its clients.

use std::sync::Arc;
use std::time::Duration;

use linkspan_integration_tests::http::Client;
use linkspan_integration_tests::{Asking, Consumer, Publisher, Refusal, Server, Taking, soon};

use super::cell::{Cell, Place};

/// How long a message that must not come is waited for.
pub const LULL: Duration = Duration::from_millis(200);

/// A cell on its server.
pub struct Stage {
    server: Arc<Server>,
    pub cell: Cell,
    pub place: Place,
}

impl Stage {
    pub fn new(server: &Arc<Server>, cell: Cell, place: Place) -> Self {
        Self { server: Arc::clone(server), cell, place }
    }

    /// A name that no other cell's client has.
    fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.place.queue)
    }

    /// A publisher of the cell's protocol.
    pub async fn publisher(&self, role: &str) -> Publisher {
        let from = self.cell.from;
        Publisher::connect(from, self.server.door(from), &self.name(role)).await
    }

    /// A consumer of the cell's protocol.
    pub async fn consumer(&self, role: &str, taking: Taking<'_>, asking: Asking) -> Consumer {
        let consuming = self.ask(role, taking, asking).await;
        consuming.unwrap_or_else(|why| panic!("the consumer {role} of {taking:?} is refused: {why:?}"))
    }

    /// The same, which may be refused.
    pub async fn ask(&self, role: &str, taking: Taking<'_>, asking: Asking) -> Result<Consumer, Refusal> {
        let to = self.cell.to;
        Consumer::ask(to, self.server.door(to), &self.name(role), taking, asking).await
    }

    /// A worker of the queue.
    pub async fn worker(&self, role: &str, asking: Asking) -> Consumer {
        self.consumer(role, self.work(), asking).await
    }

    /// The queue, as a worker takes it whose route has the cell's address and no other.
    pub fn work(&self) -> Taking<'_> {
        Taking::Work { queue: &self.place.queue, address: &self.place.address }
    }

    /// Returns when so many messages are ready in the queue: a broker's are there a moment after they were acknowledged.
    pub async fn ready(&self, messages: usize) {
        let client = Client::to(self.server.http());
        let path = format!("/v1/queues/{}", self.place.queue);
        soon("all messages wait in the queue", async {
            loop {
                let answer = client.ask("GET", &path, Vec::new(), Vec::new()).await.expect("an answer");
                let queue: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
                if queue["ready"].as_u64() == u64::try_from(messages).ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

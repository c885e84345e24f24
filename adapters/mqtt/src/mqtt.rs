//! The back end itself.

use std::sync::Arc;

use async_trait::async_trait;
use linkspan_contract::{
    Backend, BackendError, Capabilities, Client, Clock, Connection, DeliverySink, Health, Leases, Support,
};
use linkspan_embedded::{Embedded, QueueDepth};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::connection::MqttConnection;
use crate::exchanges;
use crate::house::{Bindings, Dial, House};
use crate::options::{MqttOptions, OptionsError};
use crate::passage::connection::PassageConnection;
use crate::upstream::coordinator;
use crate::upstream::session::{Marks, Session};

/// An MQTT broker as a back end.
pub struct MqttBackend {
    house: Arc<House>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

const HERE: Support = Support::Emulated("in a queue of Linkspan's own, which the broker feeds");

/// What every back end of this kind can do.
pub static CAPABILITIES: Capabilities = Capabilities {
    publish_subscribe: Support::Native,
    competing_consumers: HERE,
    exclusive_consumer: HERE,
    priority_queue: HERE,
    expiry: HERE,
    dead_letter: HERE,
    ack_timeout: HERE,
    max_deliveries: HERE,
    retry: HERE,
    deduplicate: HERE,
    ordering_key: HERE,
    delay: HERE,
    max_length: HERE,
    weighted_order: HERE,
    queue_per_level: HERE,
    shares_queues: false,
    exchanges: Support::Absent(exchanges::WHY),
    transactions: Support::Absent(
        "what is published to an MQTT broker cannot be one step with anything else",
    ),
    durable: Support::Emulated("queues lie with Linkspan, on its disk; the rest is the broker's word"),
    retained: Support::Native,
    holds_publishers: Support::Absent(
        "the broker stands between publishers and subscribers: reading from it is held, not publishing to it",
    ),
    sessions: Support::Native,
};

impl MqttBackend {
    /// Opens a back end of that name, and begins to connect: it does not wait for the broker. `leases` says which of
    /// several instances feeds a work queue. It has to be called inside a tokio runtime.
    ///
    /// # Errors
    /// Which option is wrong.
    pub fn open(
        name: &str,
        options: MqttOptions,
        clock: Arc<dyn Clock>,
        leases: Arc<dyn Leases>,
    ) -> Result<Arc<Self>, OptionsError> {
        let dial = Dial::of(&options)?;
        let name: Arc<str> = name.into();
        let marks =
            Marks { high: options.outbox_high, limit: options.outbox_limit, window: options.window.into() };
        let session = || Session::new(Arc::clone(&name), None, marks);
        let publishers = (0..options.publishers).map(|_| session()).collect();
        let subscriber = session();
        let watch = Arc::new(Bindings(Arc::clone(&subscriber)));
        let inner = match &options.on_disk {
            Some(on_disk) => {
                Embedded::durable_within(&name, options.queues, Arc::clone(&clock), on_disk, watch)
                    .map_err(|error| OptionsError::Disk { why: error.to_string() })?
            }
            None => Embedded::within(&name, options.queues, Arc::clone(&clock), watch),
        };
        let house = Arc::new(House::new(name, options, dial, clock, leases, inner, publishers, subscriber));
        let tasks = Mutex::new(coordinator::start(&house));
        Ok(Arc::new(Self { house, tasks }))
    }

    /// All queues on this side as they are now, shared subscriptions included.
    pub fn queues(&self) -> Vec<QueueDepth> {
        self.house.inner.queues()
    }
}

#[async_trait]
impl Backend for MqttBackend {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        if let Some(terms) = client.session.as_ref().filter(|terms| terms.at_broker) {
            return Ok(Box::new(PassageConnection::open(&self.house, client, terms, sink).await?));
        }
        let inner = self.house.inner.connect(client, sink).await?;
        Ok(Box::new(MqttConnection::new(Arc::clone(&self.house), client, inner)))
    }

    async fn health(&self) -> Health {
        self.house.status.health()
    }

    async fn close(&self) {
        self.house.close();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        coordinator::stop(&self.house, tasks).await;
        self.house.inner.close().await;
    }
}

impl Drop for MqttBackend {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        for feed in self.house.feeds.all() {
            feed.abort();
        }
    }
}

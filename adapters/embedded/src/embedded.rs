//! The back end itself.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{
    Backend, BackendError, Capabilities, Client, Clock, Connection, DeliverySink, Health, Support,
};
use parking_lot::RwLock;

use crate::connection::EmbeddedConnection;
use crate::house::House;
use crate::options::EmbeddedOptions;
use crate::vhost::Vhost;

/// An in-process broker; several vhosts may live in it, each with its own exchanges, queues and addresses.
pub struct Embedded {
    house: Arc<House>,
    vhosts: RwLock<HashMap<Arc<str>, Arc<Vhost>, RandomState>>,
    watch: Option<Arc<dyn BindingWatch>>,
}

/// Is told which addresses the queues of any vhost are bound to, one word for each binding that comes or goes, for
/// whatever reason. It is called under a lock: it notes what it is told and calls nobody.
pub trait BindingWatch: Send + Sync {
    /// A queue was bound to the address space by this pattern, in AMQP's spelling.
    fn bound(&self, key: &[u8]);

    /// Such a binding is gone.
    fn unbound(&self, key: &[u8]);
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("house", &self.house).finish_non_exhaustive()
    }
}

/// What is known of a queue, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    /// Its namespace.
    pub vhost: Arc<str>,
    /// Its name; for a shared subscription `$share/<group>/<filter>`.
    pub name: Arc<str>,
    /// Messages that wait, delayed ones included.
    pub ready: u64,
    /// Messages given out and not settled.
    pub unsettled: u64,
    /// Bytes that wait.
    pub bytes: u64,
    /// Consumers.
    pub consumers: u64,
}

/// What every back end of this kind can do.
pub static CAPABILITIES: Capabilities = Capabilities {
    publish_subscribe: Support::Native,
    competing_consumers: Support::Native,
    exclusive_consumer: Support::Native,
    priority_queue: Support::Native,
    expiry: Support::Native,
    dead_letter: Support::Native,
    ack_timeout: Support::Native,
    exchanges: Support::Native,
    transactions: Support::Native,
    durable: Support::Absent("messages are kept in memory: they are lost when Linkspan stops"),
    retained: Support::Emulated("Linkspan keeps them, in memory"),
    holds_publishers: Support::Native,
    sessions: Support::Absent("a session ends with its connection"),
};

impl Embedded {
    /// Opens a back end of that name, which holds nothing yet. `clock` tells the time for expiry and deadlines.
    pub fn open(name: &str, options: EmbeddedOptions, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::over(House::new(name, options, clock, None), None)
    }

    /// The same inside another back end, which brings messages from elsewhere and wants to know which.
    pub fn within(
        name: &str,
        options: EmbeddedOptions,
        clock: Arc<dyn Clock>,
        watch: Arc<dyn BindingWatch>,
    ) -> Arc<Self> {
        Self::over(House::new(name, options, clock, None), Some(watch))
    }

    fn over(house: House, watch: Option<Arc<dyn BindingWatch>>) -> Arc<Self> {
        Arc::new(Self { house: Arc::new(house), vhosts: RwLock::default(), watch })
    }

    /// All queues as they are now, shared subscriptions included.
    pub fn queues(&self) -> Vec<QueueDepth> {
        let vhosts: Vec<Arc<Vhost>> = self.vhosts.read().values().cloned().collect();
        let mut depths = Vec::new();
        for vhost in vhosts {
            let queues: Vec<_> = {
                let topology = vhost.look();
                topology.queues().chain(topology.groups()).cloned().collect()
            };
            depths.extend(queues.into_iter().map(|queue| {
                let (ready, unsettled, bytes, consumers) = queue.depth();
                QueueDepth {
                    vhost: Arc::clone(&vhost.name),
                    name: Arc::clone(&queue.name),
                    ready,
                    unsettled,
                    bytes,
                    consumers: consumers as u64,
                }
            }));
        }
        depths
    }

    fn vhost(&self, name: &Arc<str>) -> Arc<Vhost> {
        if let Some(vhost) = self.vhosts.read().get(name) {
            return Arc::clone(vhost);
        }
        let mut vhosts = self.vhosts.write();
        let made = || Arc::new(Vhost::new(Arc::clone(name), Arc::clone(&self.house), self.watch.clone()));
        Arc::clone(vhosts.entry(Arc::clone(name)).or_insert_with(made))
    }
}

#[async_trait]
impl Backend for Embedded {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        if self.house.is_closed() {
            let name = self.house.name.to_string();
            return Err(BackendError::Away { name, why: "it is being closed".into() });
        }
        Ok(Box::new(EmbeddedConnection::new(self.vhost(&client.vhost), client, sink)))
    }

    async fn health(&self) -> Health {
        if self.house.is_closed() { Health::Away("it is being closed".into()) } else { Health::Up }
    }

    async fn close(&self) {
        self.house.close();
    }
}

//! The back end itself.

use std::sync::Arc;

use async_trait::async_trait;
use linkspan_contract::{
    Backend, BackendError, Capabilities, Client, Clock, Connection, DeliverySink, Health, Ledger, Support,
    backend,
};
use linkspan_embedded::{Embedded, EmbeddedOptions};

use crate::clerk::Owners;
use crate::connection::AmqpConnection;
use crate::coordinator;
use crate::fleet::Fleet;
use crate::group::Groups;
use crate::options::AmqpOptions;
use crate::publisher::coordinator as publishing;
use crate::random;
use crate::reporter::Reporter;
use crate::retained::Retained;
use crate::upstream::{Link, Upstream};
use crate::watch::coordinator as watching;
use crate::work_queue::{Memory, WorkQueues};

/// A broker that speaks AMQP 0-9-1.
pub struct AmqpBackend {
    fleet: Arc<Fleet>,
}

/// Why a back end cannot be opened, whatever the broker says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is nowhere to connect to.
    #[error("the back end names no node of its broker")]
    NoNode,
    /// There is no way to use it.
    #[error("the back end is to use no connection; at least one is needed")]
    NoConnection,
    /// Its tasks need a Tokio runtime.
    #[error("the back end was opened outside of a Tokio runtime")]
    NoRuntime,
    /// Its directory is another process', or cannot be read or written.
    #[error("{0}")]
    Disk(String),
}

/// What every back end of this kind can do.
pub static CAPABILITIES: Capabilities = Capabilities {
    publish_subscribe: Support::Native,
    competing_consumers: Support::Native,
    exclusive_consumer: Support::Emulated(
        "the queue is the broker's; who has it, who stands by and the fence are Linkspan's, by a lease in the ledger",
    ),
    priority_queue: Support::Native,
    expiry: Support::Native,
    dead_letter: Support::Native,
    ack_timeout: Support::Emulated(
        "Linkspan's timer gives the message back; the broker's own would close the connection",
    ),
    max_deliveries: Support::Emulated(
        "quorum queues count by themselves; of a classic queue's messages Linkspan counts what it gives out",
    ),
    retry: Support::Emulated("a message waits at Linkspan, and stays the broker's meanwhile"),
    deduplicate: Support::Emulated(
        "Linkspan's ledger remembers what the queue has taken by Linkspan; what is published at the broker itself is not looked at",
    ),
    ordering_key: Support::Emulated(
        "one Linkspan at a time has the queue, as its single active consumer, and hands its messages out by their keys",
    ),
    delay: Support::Emulated(
        "queues of the broker's hold messages back, one for each time; from there they go on without a confirm",
    ),
    max_length: Support::Native,
    weighted_order: Support::Emulated(
        "each level has a queue at the broker, and Linkspan takes from all of them by their shares",
    ),
    queue_per_level: Support::Emulated(
        "each level has a queue at the broker, and Linkspan takes from all of them, from the highest first",
    ),
    shares_queues: true,
    exchanges: Support::Native,
    transactions: Support::Native,
    durable: Support::Native,
    retained: Support::Emulated("Linkspan keeps them, and writes them down"),
    holds_publishers: Support::Absent(
        "the broker stands between publishers and subscribers: reading from it is held, not publishing to it",
    ),
    sessions: Support::Absent("a session ends with its connection"),
};

impl AmqpBackend {
    /// Opens a back end of that name. It does not wait for the broker: until that is there, clients are told that it is
    /// away. `clock` tells the time for expiry and deadlines; `ledger` is where it is written down what queues have taken.
    ///
    /// # Errors
    /// When it can never work.
    pub fn open(
        name: &str,
        options: AmqpOptions,
        clock: Arc<dyn Clock>,
        ledger: Arc<dyn Ledger>,
    ) -> Result<Arc<Self>, OpenError> {
        if options.nodes.is_empty() {
            return Err(OpenError::NoNode);
        }
        if options.connections == 0 {
            return Err(OpenError::NoConnection);
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(OpenError::NoRuntime);
        }
        let retained =
            options.on_disk.as_ref().map(|on_disk| Retained::of(name, on_disk, &clock)).transpose()?;
        let (name, options): (Arc<str>, _) = (name.into(), Arc::new(options));
        let instance: Arc<str> = random::name().into();
        let upstream = |role: &str, place: usize| {
            Upstream::new(Arc::clone(&name), format!("linkspan {instance} {role} {place}"))
        };
        let consuming: Vec<_> = (0..options.connections).map(|place| upstream("consuming", place)).collect();
        let publishing: Vec<_> = (0..options.connections)
            .map(|place| {
                let upstream = upstream("publishing", place);
                let plan = publishing::Plan {
                    upstream: Arc::clone(&upstream),
                    declaring: consuming.clone(),
                    options: Arc::clone(&options),
                    clock: Arc::clone(&clock),
                    only: None,
                };
                let publisher = publishing::start(plan, options.shared_bytes);
                (upstream, publisher)
            })
            .collect();
        for (consuming, (publishing, _)) in consuming.iter().zip(&publishing) {
            consuming.publish_by(publishing);
        }
        let inner = Embedded::open(&name, EmbeddedOptions::default(), Arc::clone(&clock));
        let vhost: Arc<str> = options.vhost.as_str().into();
        let watch = watching::start(watching::Plan {
            upstream: consuming.first().cloned().ok_or(OpenError::NoConnection)?,
            options: Arc::clone(&options),
            clock: Arc::clone(&clock),
            inner: Arc::clone(&inner),
            instance: Arc::clone(&instance),
            vhost: Arc::clone(&vhost),
        });
        let memory = Memory {
            ledger,
            clock: Arc::clone(&clock),
            broker: (Arc::clone(&name), options.vhost.clone()),
            instance: if options.owner.is_empty() {
                Arc::clone(&instance)
            } else {
                options.owner.as_str().into()
            },
        };
        let fleet = Fleet {
            name: Arc::clone(&name),
            instance,
            options,
            clock,
            publishing,
            consuming,
            owners: Arc::new(Owners::default()),
            groups: Arc::new(Groups::default()),
            work_queues: Arc::new(WorkQueues::with_memory(Some(memory))),
            inner,
            vhost,
            watch,
            retained,
        };
        let reporter = Arc::new(Reporter::new(name, fleet.upstreams().count()));
        let first = usize::try_from(random::number() % 1024).unwrap_or(0);
        for upstream in fleet.upstreams() {
            let (options, reporter) = (Arc::clone(&fleet.options), Arc::clone(&reporter));
            coordinator::keep(Arc::clone(upstream), options, reporter, first);
        }
        Ok(Arc::new(Self { fleet: Arc::new(fleet) }))
    }

    /// How many connections to the broker there are when it is there, whatever the number of clients.
    pub fn connections(&self) -> usize {
        self.fleet.upstreams().count()
    }
}

#[async_trait]
impl Backend for AmqpBackend {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        match self.fleet.pick() {
            Some((consuming, publishing, publisher)) => {
                let fleet = Arc::clone(&self.fleet);
                let connection = AmqpConnection::new(fleet, consuming, publishing, publisher, client, sink)
                    .map_err(|why| BackendError::Denied {
                    name: self.fleet.name.to_string(),
                    why: why.to_string(),
                })?;
                Ok(Box::new(connection))
            }
            None => Err(BackendError::Away { name: self.fleet.name.to_string(), why: self.why_away() }),
        }
    }

    async fn retained(&self, vhost: &str) -> Vec<backend::Retained> {
        match &self.fleet.retained {
            Some(retained) => retained.found(vhost).await,
            None => Vec::new(),
        }
    }

    async fn health(&self) -> Health {
        match self.fleet.upstreams().all(|upstream| !upstream.is_down()) {
            true => Health::Up,
            false => Health::Away(self.why_away()),
        }
    }

    async fn close(&self) {
        for (upstream, publisher) in &self.fleet.publishing {
            if !upstream.is_down() {
                coordinator::at_most(self.fleet.options.connect_timeout, publisher.gauge.emptied()).await;
            }
        }
        self.fleet.watch.close().await;
        self.fleet.inner.close().await;
        if let Some(retained) = &self.fleet.retained {
            retained.close().await;
        }
        for upstream in self.fleet.upstreams() {
            upstream.close();
        }
        for upstream in self.fleet.upstreams() {
            let closed = async { while upstream.after(u64::MAX).await.is_some() {} };
            coordinator::at_most(self.fleet.options.connect_timeout, closed).await;
        }
    }
}

impl AmqpBackend {
    fn why_away(&self) -> String {
        self.fleet
            .upstreams()
            .find_map(|upstream| match upstream.link() {
                Link::Down(why) => Some(why.to_string()),
                Link::Closed => Some("it is being closed".into()),
                Link::Up(live) if !live.is_connected() => Some("the connection was lost".into()),
                Link::Up(_) => None,
            })
            .unwrap_or_else(|| "the connection was lost".into())
    }
}

impl Drop for AmqpBackend {
    fn drop(&mut self) {
        for upstream in self.fleet.upstreams() {
            upstream.close();
        }
    }
}

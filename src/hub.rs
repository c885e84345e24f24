//! The one place that every message passes: finds the route, applies the pattern, hands to the back end.
//!
//! The hub is itself a [`Backend`], made of the real ones: a door need not know which it speaks to. A message is not
//! looked at here: a lane plans each destination once and, as long as all of them lie on one back end, passes whole
//! batches on untouched. Deliveries go from the back ends straight into the client's sink.

mod connection;
mod lane;
mod part;
mod plan;
mod publishing;
mod subscribing;
mod subscription;
#[cfg(test)]
mod tests;
mod ways;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use linkspan_contract::{
    Backend, BackendError, Capabilities, Client, Clock, Connection, Delivered, DeliverySink, Ended, Health,
    Lane, LaneEvent, LaneEvents, Receipt, ReceiptSink, Refused, SubscriptionKey, Support,
};
use linkspan_contract::{Batch, Pick, QueueSpec};
use parking_lot::Mutex;

use crate::retained::Retained;
pub use crate::routes::Filter;
use crate::routes::{Route, Routes};
use connection::HubConnection;

/// Routes over back ends.
pub struct Hub {
    backends: HashMap<Arc<str>, Arc<dyn Backend>>,
    routes: ArcSwap<Routes>,
    /// Grows when the routes change: plans made before are stale.
    epoch: AtomicU64,
    retained: HashMap<Arc<str>, Arc<Retained>>,
    ears: Mutex<Vec<Weak<dyn LaneEvents>>>,
    me: Weak<Hub>,
}

/// Routes that cannot be put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutesError {
    /// A route or vhost names a back end that is not there.
    #[error("back end `{0}` is not configured; back ends cannot be added without a restart")]
    UnknownBackend(Arc<str>),
    /// A vhost is new.
    #[error("vhost `{0}` is new; vhosts cannot be added without a restart")]
    NewVhost(Arc<str>),
    /// A queue would lose its route although it holds messages.
    #[error(
        "queue `{queue}` of the route `{filter}` still holds {}, and the new routes have no place for them: the old \
         routes stay in force; drain the queue, then reload again",
        held(*.messages, *.unsettled)
    )]
    NotEmpty {
        /// The queue.
        queue: Arc<str>,
        /// The match of the route that owned it.
        filter: String,
        /// How many messages are ready.
        messages: u64,
        /// How many are in the hands of consumers, where the back end knows.
        unsettled: Option<u64>,
    },
    /// A queue could not be declared.
    #[error("queue `{queue}` cannot be made on back end `{backend}`: {why}")]
    Queue {
        /// The queue.
        queue: Arc<str>,
        /// The back end.
        backend: Arc<str>,
        /// What it said.
        why: Refused,
    },
    /// A back end could not be reached.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl Hub {
    /// A hub over `backends` with `routes` in force: their queues exist when it returns. Each vhost keeps at most
    /// `retained_limit` retained messages.
    ///
    /// # Errors
    /// When a back end is unknown, or refuses a queue.
    pub async fn open(
        backends: HashMap<Arc<str>, Arc<dyn Backend>>,
        routes: Routes,
        retained_limit: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, RoutesError> {
        let retained = routes
            .iter()
            .map(|table| {
                let retained = Retained::new(retained_limit, Arc::clone(&clock));
                (Arc::clone(table.vhost()), Arc::new(retained))
            })
            .collect();
        let hub = Arc::new_cyclic(|me| Self {
            backends,
            routes: ArcSwap::from_pointee(Routes::default()),
            epoch: AtomicU64::new(0),
            retained,
            ears: Mutex::default(),
            me: Weak::clone(me),
        });
        hub.reroute(routes).await?;
        Ok(hub)
    }

    /// Puts `routes` in force without dropping a connection: new queues are made first, queues that lost their route
    /// are deleted when they hold nothing, and subscriptions are resolved again.
    ///
    /// # Errors
    /// When they cannot be: the old routes stay in force.
    pub async fn reroute(&self, routes: Routes) -> Result<(), RoutesError> {
        let old = self.routes.load_full();
        for table in routes.iter() {
            if !self.retained.contains_key(table.vhost()) {
                return Err(RoutesError::NewVhost(Arc::clone(table.vhost())));
            }
            let named = std::iter::once(table.home()).chain(table.iter().map(|route| &route.backend));
            if let Some(unknown) = named.into_iter().find(|backend| !self.backends.contains_key(*backend)) {
                return Err(RoutesError::UnknownBackend(Arc::clone(unknown)));
            }
        }
        let lost = self.lost_queues(&old, &routes).await?;
        for (route, queue) in work_queues(&routes) {
            let spec = QueueSpec {
                name: queue,
                passive: false,
                durable: true,
                exclusive: false,
                auto_delete: false,
                arguments: &[],
            };
            let mut lane = self.own_lane(route).await?;
            lane.declare_queue(&spec).await.map_err(|why| RoutesError::Queue {
                queue: Arc::clone(queue),
                backend: Arc::clone(&route.backend),
                why,
            })?;
        }
        self.routes.store(Arc::new(routes));
        self.epoch.fetch_add(1, Ordering::Release);
        // The routes are in force: from here on nothing may go wrong for them.
        for (route, queue) in lost {
            let deleted = match self.own_lane(&route).await {
                Ok(mut lane) => lane.delete_queue(&queue, false, true).await.map_err(|why| why.to_string()),
                Err(why) => Err(why.to_string()),
            };
            if let Err(why) = deleted {
                tracing::warn!(%queue, why, "a queue that lost its route stays");
            }
        }
        let ears: Vec<Arc<dyn LaneEvents>> = {
            let mut ears = self.ears.lock();
            ears.retain(|ear| ear.strong_count() > 0);
            ears.iter().filter_map(Weak::upgrade).collect()
        };
        ears.iter().for_each(|ear| ear.event(LaneEvent::Changed));
        Ok(())
    }

    /// The queues that `old` has and `new` has not; an error when one of them holds messages.
    async fn lost_queues(
        &self,
        old: &Routes,
        new: &Routes,
    ) -> Result<Vec<(Arc<Route>, Arc<str>)>, RoutesError> {
        let mut lost = Vec::new();
        for (route, queue) in work_queues(old) {
            let heir = new.vhost(&route.vhost).and_then(|table| table.owner(queue));
            if heir.is_some_and(|heir| heir.backend == route.backend) {
                continue;
            }
            let spec = QueueSpec {
                name: queue,
                passive: true,
                durable: true,
                exclusive: false,
                auto_delete: false,
                arguments: &[],
            };
            match self.own_lane(route).await?.declare_queue(&spec).await {
                Ok(counts) if counts.messages > 0 || counts.unsettled.unwrap_or(0) > 0 => {
                    return Err(RoutesError::NotEmpty {
                        queue: Arc::clone(queue),
                        filter: route.filter.as_str().into(),
                        messages: counts.messages,
                        unsettled: counts.unsettled,
                    });
                }
                Ok(_) => lost.push((Arc::clone(route), Arc::clone(queue))),
                Err(_) => {}
            }
        }
        Ok(lost)
    }

    /// A lane of the hub's own on the back end of `route`.
    async fn own_lane(&self, route: &Route) -> Result<Box<dyn Lane>, RoutesError> {
        let backend = self.backend(&route.backend)?;
        let client = Client {
            number: 0,
            identifier: "linkspan".into(),
            user: "linkspan".into(),
            vhost: Arc::clone(&route.vhost),
            keep_session: 0,
        };
        let mut connection = backend.connect(&client, Arc::new(Nobody)).await?;
        Ok(connection.lane(Arc::new(Nobody), Arc::new(Nobody)).await?)
    }

    fn backend(&self, name: &str) -> Result<&Arc<dyn Backend>, BackendError> {
        self.backends
            .get(name)
            .ok_or_else(|| BackendError::Denied { name: name.into(), why: "it is not configured".into() })
    }

    /// The routes in force.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// The retained messages of a vhost.
    pub fn retained(&self, vhost: &str) -> Option<Arc<Retained>> {
        self.retained.get(vhost).cloned()
    }

    /// Each back end's name and state.
    pub async fn healths(&self) -> Vec<(Arc<str>, Health)> {
        let mut healths = Vec::with_capacity(self.backends.len());
        for (name, backend) in &self.backends {
            healths.push((Arc::clone(name), backend.health().await));
        }
        healths.sort_by(|one, other| one.0.cmp(&other.0));
        healths
    }

    /// Forgets retained messages that have expired: they must not take the place of new ones.
    pub fn sweep(&self) {
        self.retained.values().for_each(|retained| retained.sweep());
    }

    /// Sets the figures that are counted only when somebody looks.
    pub fn publish_gauges(&self) {
        for (vhost, retained) in &self.retained {
            metrics::gauge!("linkspan_retained_messages", "vhost" => vhost.to_string())
                .set(retained.len() as f64);
        }
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn listen(&self, ear: &Arc<dyn LaneEvents>) {
        let mut ears = self.ears.lock();
        if ears.len() == ears.capacity() {
            ears.retain(|ear| ear.strong_count() > 0);
            // As many may come and go before all are looked at again as there are now.
            let live = ears.len();
            ears.shrink_to(live.saturating_mul(2));
            ears.reserve(live.saturating_add(1));
        }
        ears.push(Arc::downgrade(ear));
    }
}

fn held(messages: u64, unsettled: Option<u64>) -> String {
    match unsettled {
        Some(unsettled) => format!("{messages} messages that wait and {unsettled} that are not acknowledged"),
        None => format!("{messages} messages that wait"),
    }
}

fn work_queues(routes: &Routes) -> impl Iterator<Item = (&Arc<Route>, &Arc<str>)> {
    routes
        .iter()
        .flat_map(|table| table.iter())
        .flat_map(|route| route.queues.iter().map(move |queue| (route, queue)))
}

/// What a lane can do is asked per back end: through the hub everything is native.
static CAPABILITIES: Capabilities = Capabilities {
    publish_subscribe: Support::Native,
    competing_consumers: Support::Native,
    exclusive_consumer: Support::Native,
    priority_queue: Support::Native,
    expiry: Support::Native,
    dead_letter: Support::Native,
    ack_timeout: Support::Native,
    exchanges: Support::Native,
    transactions: Support::Native,
    durable: Support::Native,
};

#[async_trait]
impl Backend for Hub {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        let home = match self.routes.load().vhost(&client.vhost) {
            Some(table) => Arc::clone(table.home()),
            None => return Err(BackendError::UnknownVhost(client.vhost.to_string())),
        };
        let me = self.me.upgrade().ok_or_else(|| BackendError::Away {
            name: home.to_string(),
            why: "the server is going down".into(),
        })?;
        let connection = HubConnection::new(me, client.clone(), sink);
        connection.reach(&home).await?;
        Ok(Box::new(connection))
    }

    async fn health(&self) -> Health {
        for (name, health) in self.healths().await {
            if let Health::Away(why) = health {
                return Health::Away(format!("{name}: {why}"));
            }
        }
        Health::Up
    }

    async fn close(&self) {
        for backend in self.backends.values() {
            backend.close().await;
        }
    }
}

/// The client behind the hub's own lanes: it is never given anything.
struct Nobody;

impl DeliverySink for Nobody {
    fn deliver(&self, _: &Batch<'_>, _: &[Pick]) -> Delivered {
        Delivered::Closed
    }

    fn flush(&self) {}

    fn poll_drained(&self, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        std::task::Poll::Ready(())
    }

    fn ended(&self, _: SubscriptionKey, _: Ended) {}
}

impl ReceiptSink for Nobody {
    fn receipts(&self, _: &[Receipt]) {}
}

impl LaneEvents for Nobody {
    fn event(&self, _: LaneEvent) {}
}

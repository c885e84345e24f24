//! The one place that every message passes: finds the route, applies the pattern, hands to the back end.
//!
//! The hub is itself a [`Backend`], made of the real ones: a door need not know which it speaks to. A message is not
//! looked at here: a lane plans each destination once and, as long as all of them lie on one back end, passes whole
//! batches on untouched. Deliveries go from the back ends straight into the client's sink.

mod alone;
mod carried;
mod carriers;
mod connection;
mod copies;
mod dead_letter_box;
mod dead_letters;
mod era;
mod estate;
mod exclusive;
mod fencing;
mod inventory;
mod lane;
mod memory;
mod own_lane;
mod part;
mod paused;
mod plan;
mod publishing;
mod queue_error;
mod recall;
mod replay;
mod reroute;
mod routes_error;
mod settling;
mod spool;
mod spooling;
mod spools;
mod subscribing;
mod subscription;
mod tenancy;
#[cfg(test)]
pub(crate) mod tests;
mod ways;
mod work_queue;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use linkspan_contract::{
    Backend, BackendError, Capabilities, Client, Clock, Connection, DeliverySink, Destination, Health,
    LaneEvents, SessionTerms, Support, Syntax, Testament,
};
use parking_lot::Mutex;

pub use self::dead_letter_box::{DeadLetter, Letters, Meant};
pub use self::inventory::{HolderState, QueueState, RouteState, RoutesState};
pub use self::memory::Memory;
pub use self::own_lane::OwnLane;
pub use self::queue_error::QueueError;
pub use self::replay::Replayed;
pub use self::routes_error::RoutesError;
pub use self::spool::{Depth, SpoolStore, SpoolStores};
pub use self::tenancy::FENCE;
use crate::retained::Retained;
use crate::routes::Routes;
pub use crate::routes::{Filter, Route};
use carriers::Carriers;
use connection::HubConnection;
use era::Eras;
use estate::Draining;
use exclusive::Exclusives;
use exclusive::coordinator::Names;
use paused::Paused;
use plan::Wanted;
use spools::Spools;
use work_queue::Unmade;

/// Routes over back ends.
pub struct Hub {
    backends: HashMap<Arc<str>, Arc<dyn Backend>>,
    routes: ArcSwap<Routes>,
    /// Grows when the routes change: plans made before are stale.
    epoch: AtomicU64,
    retained: HashMap<Arc<str>, Arc<Retained>>,
    ears: Mutex<Vec<Weak<dyn LaneEvents>>>,
    /// Which routes lanes have resolved their subscriptions by.
    eras: Eras,
    carriers: Carriers,
    spools: Spools,
    /// Queues of routes whose back end was away.
    unmade: Mutex<Vec<Unmade>>,
    /// Queues that lost their route while they held messages, and their heirs.
    draining: Mutex<Vec<Draining>>,
    /// Queues that one consumer has, and who stands by.
    exclusives: Arc<Exclusives>,
    /// Queues that give nothing out for now.
    paused: Paused,
    /// What is known beyond the end of this process.
    memory: Memory,
    /// Held by who makes and unmakes queues of routes.
    making: tokio::sync::Mutex<()>,
    me: Weak<Hub>,
}

impl Hub {
    /// A hub over `backends` with `routes` in force: their queues exist when it returns. Each vhost keeps at most
    /// `retained_limit` retained messages. What `memory` has of an earlier life goes on; a ledger that is away is asked
    /// again by [`mend`](Self::mend). `spools` keeps what waits for back ends that are away.
    ///
    /// # Errors
    /// When a back end is unknown, or refuses a queue.
    pub async fn open(
        backends: HashMap<Arc<str>, Arc<dyn Backend>>,
        routes: Routes,
        retained_limit: usize,
        clock: Arc<dyn Clock>,
        memory: Memory,
        spools: Arc<dyn SpoolStores>,
    ) -> Result<Arc<Self>, RoutesError> {
        let mut retained = HashMap::new();
        for table in routes.iter() {
            let of_vhost = Retained::new(retained_limit, Arc::clone(&clock));
            for backend in backends.values() {
                of_vhost.restore(backend.retained(table.vhost()).await);
            }
            retained.insert(Arc::clone(table.vhost()), Arc::new(of_vhost));
        }
        let hub = Arc::new_cyclic(|me| Self {
            backends,
            routes: ArcSwap::from_pointee(Routes::default()),
            epoch: AtomicU64::new(0),
            retained,
            ears: Mutex::default(),
            eras: Eras::default(),
            carriers: Carriers::default(),
            spools: Spools::new(spools),
            unmade: Mutex::default(),
            draining: Mutex::default(),
            exclusives: Arc::default(),
            paused: Paused::default(),
            memory,
            making: tokio::sync::Mutex::default(),
            me: Weak::clone(me),
        });
        hub.recall().await;
        hub.reroute(routes).await?;
        hub.carry_dead_letters_left().await;
        Ok(hub)
    }

    /// Whether a back end keeps retained messages itself.
    fn retains(&self, backend: &str) -> bool {
        self.backend(backend).is_ok_and(|it| it.capabilities().retained == Support::Native)
    }

    /// The session that a client gets at its home back end, if any. A will whose address lies elsewhere is not for it.
    fn session_at(&self, home: &str, client: &Client) -> Option<Arc<SessionTerms>> {
        let terms = client.session.as_ref().filter(|terms| terms.at_broker)?;
        if self.backend(home).ok()?.capabilities().sessions != Support::Native {
            return None;
        }
        let routes = self.routes.load();
        let lies_there = |will: &Testament| {
            let topic = will.message.address().topic().into_owned();
            let to = Destination::Address { path: &topic, syntax: Syntax::Topic, more: &[], queues: &[] };
            let course = routes.vhost(&client.vhost).map(|table| Wanted::from(&to).course(table));
            matches!(course, Some(Ok(course)) if *course.backend == *home)
        };
        if terms.will.as_ref().is_none_or(lies_there) {
            return Some(Arc::clone(terms));
        }
        Some(Arc::new(SessionTerms { will: None, ..SessionTerms::clone(terms) }))
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

    /// How the ledger was when it was looked at last.
    pub fn ledger_health(&self) -> Health {
        self.memory.health()
    }

    /// Forgets retained messages that have expired: they must not take the place of new ones.
    pub fn sweep(&self) {
        self.retained.values().for_each(|retained| retained.sweep());
        self.backends.values().for_each(|backend| backend.sweep());
    }

    /// Sets the figures that are counted only when somebody looks.
    pub fn publish_gauges(&self) {
        for (vhost, retained) in &self.retained {
            metrics::gauge!("linkspan_retained_messages", "vhost" => vhost.to_string())
                .set(retained.len() as f64);
        }
        metrics::gauge!("linkspan_ledger_writes_due").set(self.memory.due() as f64);
        self.publish_spool_gauges();
    }

    /// What the ledger calls a queue that one consumer at a time has. Where each instance has a queue of its own, each has
    /// a lease of its own; as only one of them is fed what comes to a broker, its holders follow those of the others.
    fn names_of(&self, place: &exclusive::Place) -> Names {
        let quoted = |name: &str| name.replace('%', "%25").replace('/', "%2F");
        let is_shared = self.backend(&place.backend).is_ok_and(|it| it.capabilities().shares_queues);
        let whose = if is_shared { "" } else { self.memory.owner() };
        let (backend, vhost, queue) = (quoted(&place.backend), quoted(&place.vhost), quoted(&place.queue));
        let lease = format!("exclusive/{whose}/{backend}/{vhost}/{queue}");
        Names { lease, last: (!is_shared).then(|| format!("exclusive/{backend}/{vhost}/{queue}")) }
    }

    /// Lets a client in; one that `carries` what was taken before is asked for no fence.
    async fn let_in(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
        carries: bool,
    ) -> Result<Box<dyn Connection>, BackendError> {
        let home = match self.routes.load().vhost(&client.vhost) {
            Some(table) => Arc::clone(table.home()),
            None => return Err(BackendError::UnknownVhost(client.vhost.to_string())),
        };
        let me = self.me.upgrade().ok_or_else(|| BackendError::Away {
            name: home.to_string(),
            why: "the server is going down".into(),
        })?;
        if let Health::Away(why) = self.backend(&home)?.health().await {
            return Err(BackendError::Away { name: home.to_string(), why });
        }
        let at_home = self.session_at(&home, client);
        let here = match &at_home {
            // What it has elsewhere ends with the connection.
            Some(_) => None,
            None => client.session.as_ref().map(kept_here),
        };
        // Most end with their connection: of these nothing is held on to.
        let session = here.clone().filter(|terms| terms.keep > 0);
        let connection = HubConnection::new(me, Client { session, ..client.clone() }, sink, carries);
        connection.enter(&home, &Client { session: at_home.or(here), ..client.clone() }).await?;
        Ok(Box::new(connection))
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

/// What a lane can do is asked per back end: through the hub everything is native.
static CAPABILITIES: Capabilities = Capabilities {
    publish_subscribe: Support::Native,
    competing_consumers: Support::Native,
    exclusive_consumer: Support::Native,
    priority_queue: Support::Native,
    expiry: Support::Native,
    dead_letter: Support::Native,
    ack_timeout: Support::Native,
    max_deliveries: Support::Native,
    retry: Support::Native,
    deduplicate: Support::Native,
    ordering_key: Support::Native,
    delay: Support::Native,
    max_length: Support::Native,
    weighted_order: Support::Native,
    queue_per_level: Support::Native,
    shares_queues: false,
    exchanges: Support::Native,
    transactions: Support::Native,
    durable: Support::Native,
    retained: Support::Emulated("Linkspan keeps them"),
    holds_publishers: Support::Native,
    sessions: Support::Native,
};

/// The same session where a door keeps it, and its will.
fn kept_here(terms: &Arc<SessionTerms>) -> Arc<SessionTerms> {
    // One that a door goes on with comes without `at_broker`: else there is none, whatever a back end has left of one.
    let fresh = terms.fresh || terms.at_broker;
    Arc::new(SessionTerms { at_broker: false, fresh, will: None, ..SessionTerms::clone(terms) })
}

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
        self.let_in(client, sink, false).await
    }

    async fn recall_sessions(
        &self,
        vhost: &str,
        owner: &str,
        goes_on: &(dyn for<'a> Fn(&'a str) -> bool + Send + Sync),
    ) {
        for backend in self.backends.values() {
            backend.recall_sessions(vhost, owner, goes_on).await;
        }
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
        self.carriers.end(|_| true);
        exclusive::coordinator::close(&self.exclusives).await;
        self.write_down().await;
        for backend in self.backends.values() {
            backend.close().await;
        }
        self.spools.close().await;
    }
}

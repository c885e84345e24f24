//! Putting routes in force: the queues that they own, and what becomes of those that lost their route.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use linkspan_contract::address::{Syntax, respelled};
use linkspan_contract::{
    Backend, BackendError, Client, Connection, Health, Lane, LaneEvent, LaneEvents, QueueCounts, QueueSpec,
    Refused, Value,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::carriers::Errand;
use super::routes_error::RoutesError;
use super::{Hub, Nobody};
use crate::mover::{Mover, Station, To, Until};
use crate::routes::{Pattern, Relation, Route, Routes};

/// How long a reload waits for what a moved queue held, so that it comes before what is new, and for a back end that a
/// route cannot do without.
const FIRST: Duration = Duration::from_secs(10);

/// How long a start or a reload waits for a back end that is being reached.
const GRACE: Duration = Duration::from_secs(1);

/// How often it is looked whether it is there.
const LOOK: Duration = Duration::from_millis(10);

/// A queue of a route.
#[derive(Debug, Clone)]
pub struct Owned {
    route: Arc<Route>,
    queue: Arc<str>,
}

/// A queue that could not be made yet.
#[derive(Debug, Clone)]
pub struct Unmade {
    owned: Owned,
    /// What is in the way was not said since.
    told: bool,
}

/// A lane of the hub's own, and the scope that it lives in.
struct OwnLane {
    lane: Box<dyn Lane>,
    _connection: Box<dyn Connection>,
}

impl Hub {
    /// Puts `routes` in force without dropping a connection: new queues are made first, queues that lost their route
    /// are deleted when they hold nothing or, where their heir says `drain`, emptied into it, and subscriptions are
    /// resolved again. Queues of back ends that are away are made when these are back.
    ///
    /// # Errors
    /// When they cannot be: the old routes stay in force.
    pub async fn reroute(&self, routes: Routes) -> Result<(), RoutesError> {
        let _making = self.making.lock().await;
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
        self.wait_for_back_ends(&routes).await?;
        // What is being emptied since an earlier reload has its place by the new routes, or is at home again.
        self.carriers.end(|errand| matches!(errand, Errand::Drain { .. }));
        let (lost, moved) = match self.lost_queues(&old, &routes).await {
            Ok(queues) => queues,
            Err(error) => {
                self.go_on_draining();
                return Err(error);
            }
        };
        let mut later = Vec::new();
        for owned in work_queues(&routes) {
            match self.make_queue(&routes, &owned).await {
                Ok(()) => {}
                Err(error) if error.is_away() => {
                    let Owned { route, queue } = &owned;
                    tracing::warn!(%queue, backend = %route.backend, "the queue is made when its back end is back");
                    later.push(Unmade { owned, told: true });
                }
                Err(error) => {
                    self.go_on_draining();
                    return Err(error);
                }
            }
        }
        let first = async {
            for (from, heir) in &moved {
                self.end_feed(from).await;
                self.drain(from, heir, Until::Empty)?.run().await;
            }
            Ok::<(), RoutesError>(())
        };
        match timeout(FIRST, first).await {
            Ok(drained) => drained?,
            Err(_) => {
                tracing::info!("queues that move are still being emptied; what is new goes to their heirs")
            }
        }
        *self.unmade.lock() = later;
        *self.draining.lock() = moved;
        self.routes.store(Arc::new(routes));
        self.epoch.fetch_add(1, Ordering::Release);
        // The routes are in force: from here on nothing may go wrong for them.
        let ears: Vec<Arc<dyn LaneEvents>> = {
            let mut ears = self.ears.lock();
            ears.retain(|ear| ear.strong_count() > 0);
            ears.iter().filter_map(Weak::upgrade).collect()
        };
        ears.iter().for_each(|ear| ear.event(LaneEvent::Changed));
        self.go_on_draining();
        self.carry_dead_letters();
        self.follow_bindings();
        for owned in &lost {
            self.end_feed(owned).await;
            if let Err(why) = self.retire(owned).await {
                tracing::warn!(queue = %owned.queue, %why, "a queue that lost its route stays");
            }
        }
        Ok(())
    }

    /// Deletes an empty queue that lost its route. Who consumes from it is given a moment to go where the routes lead now.
    async fn retire(&self, owned: &Owned) -> Result<(), RoutesError> {
        let until = Instant::now() + GRACE;
        loop {
            let waits = Instant::now() < until;
            let mut own = self.own_lane(&owned.route).await?;
            match own.lane.delete_queue(&owned.queue, waits, true).await {
                Ok(_) => return Ok(()),
                Err(Refused::InUse { .. } | Refused::Upstream { code: 406, .. }) if waits => {
                    sleep(LOOK).await
                }
                Err(why) => {
                    let (route, queue) = (Arc::clone(&owned.route), Arc::clone(&owned.queue));
                    return Err(RoutesError::Undeleted { route, queue, why: Box::new(why) });
                }
            }
        }
    }

    /// Empties the queues that were moved, each into its heir.
    fn go_on_draining(&self) {
        for (from, heir) in self.draining.lock().iter() {
            let errand = Errand::Drain {
                vhost: Arc::clone(&from.route.vhost),
                backend: Arc::clone(&from.route.backend),
                queue: Arc::clone(&from.queue),
            };
            if let Ok(mover) = self.drain(from, heir, Until::Drained) {
                self.carriers.start(errand, mover);
            }
        }
    }

    /// Makes the queues that could not be made because their back end was away, and forgets what is over. What is in the
    /// way of one is returned once, and it is tried again.
    pub async fn mend(&self) -> Vec<RoutesError> {
        let mut wrong = Vec::new();
        self.forget_queues().await;
        let _making = self.making.lock().await;
        let unmade = self.unmade.lock().clone();
        let routes = self.routes.load_full();
        for Unmade { owned, told } in unmade {
            let made = self.make_queue(&routes, &owned).await;
            let is_it = |other: &Unmade| other.owned.queue == owned.queue && other.owned.route == owned.route;
            match made {
                Ok(()) => {
                    let (queue, backend) = (&owned.queue, &owned.route.backend);
                    tracing::info!(%queue, %backend, "the queue is made");
                    self.unmade.lock().retain(|other| !is_it(other));
                    self.carry_dead_letters();
                }
                Err(error) if !error.is_away() && told => {
                    self.unmade.lock().iter_mut().filter(|other| is_it(other)).for_each(|it| it.told = false);
                    wrong.push(error);
                }
                Err(_) => {}
            }
        }
        wrong
    }

    /// Whether a queue of a route has still to be made: nothing may be published to it.
    pub(super) fn is_unmade(&self, vhost: &str, queue: &str) -> bool {
        let is_it = |unmade: &Unmade| *unmade.owned.queue == *queue && *unmade.owned.route.vhost == *vhost;
        self.unmade.lock().iter().any(is_it)
    }

    /// Gives back ends a moment to be reached, all of them the same one; those that routes cannot do without have to be.
    async fn wait_for_back_ends(&self, routes: &Routes) -> Result<(), RoutesError> {
        let (soon, late) = (Instant::now() + GRACE, Instant::now() + FIRST);
        for name in routes.iter().map(|table| table.home()) {
            self.await_health(name, soon).await?;
        }
        for route in routes.iter().flat_map(|table| table.iter()) {
            let until = if route.required { late } else { soon };
            if let Health::Away(why) = self.await_health(&route.backend, until).await?
                && route.required
            {
                return Err(RoutesError::Required { route: Arc::clone(route), why });
            }
        }
        Ok(())
    }

    async fn await_health(&self, backend: &str, until: Instant) -> Result<Health, RoutesError> {
        let backend = self.backend(backend)?;
        let up = async {
            while backend.health().await != Health::Up {
                sleep(LOOK).await;
            }
        };
        Ok(match timeout_at(until, up).await {
            Ok(()) => Health::Up,
            Err(_) => backend.health().await,
        })
    }

    async fn make_queue(&self, routes: &Routes, owned: &Owned) -> Result<(), RoutesError> {
        let hangs =
            || BackendError::Away { name: owned.route.backend.to_string(), why: "it does not answer".into() };
        timeout(FIRST, self.make_queue_at_last(routes, owned)).await.unwrap_or_else(|_| Err(hangs().into()))
    }

    async fn make_queue_at_last(&self, routes: &Routes, owned: &Owned) -> Result<(), RoutesError> {
        let Owned { route, queue } = owned;
        let failed = |why| RoutesError::Queue {
            route: Arc::clone(route),
            queue: Arc::clone(queue),
            why: Box::new(why),
        };
        if let Health::Away(why) = self.backend(&route.backend)?.health().await {
            return Err(BackendError::Away { name: route.backend.to_string(), why }.into());
        }
        let mut own = self.own_lane(route).await?;
        let kind = route.queue_type.map(|kind| ("x-queue-type", Value::Text(kind.name().into())));
        let dead = dead_letters(routes, route);
        let dead_queue = dead_letter_queue(queue);
        let mut arguments: Vec<(&str, Value<'_>)> = kind.clone().into_iter().collect();
        match &dead {
            None => {}
            Some(DeadLetters::Native { key }) => {
                arguments.push(("x-dead-letter-exchange", Value::Text("amq.topic".into())));
                arguments.push(("x-dead-letter-routing-key", Value::Text(key.as_str().into())));
            }
            Some(DeadLetters::Carried) => {
                let spec =
                    QueueSpec { durable: true, arguments: &arguments.clone(), ..QueueSpec::new(&dead_queue) };
                own.lane.declare_queue(&spec).await.map_err(failed)?;
                arguments.push(("x-dead-letter-exchange", Value::Text("".into())));
                arguments.push(("x-dead-letter-routing-key", Value::Text(dead_queue.as_str().into())));
            }
        }
        let spec = QueueSpec { durable: true, arguments: &arguments, ..QueueSpec::new(queue) };
        match own.lane.declare_queue(&spec).await {
            Ok(_) => {}
            Err(why @ (Refused::Inequivalent { .. } | Refused::Upstream { code: 406, .. })) => {
                let (route, queue) = (Arc::clone(route), Arc::clone(queue));
                return Err(RoutesError::Otherwise { route, queue, why: Box::new(why) });
            }
            Err(why) => return Err(failed(why)),
        }
        let except: Vec<&str> =
            routes.vhost(&route.vhost).map_or_else(Vec::new, |table| table.beside(route).collect());
        own.lane.feed(queue, &[route.filter.as_str()], &except).await.map_err(failed)
    }

    /// Has nothing more led to a queue that has lost its route.
    async fn end_feed(&self, owned: &Owned) {
        let ended = match self.own_lane(&owned.route).await {
            Ok(mut own) => own.lane.feed(&owned.queue, &[], &[]).await.map_err(|why| why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        if let Err(why) = ended {
            tracing::warn!(queue = %owned.queue, backend = %owned.route.backend, why, "a queue that lost its route is still fed");
        }
    }

    /// The queues that `old` has and `new` has not: those to be deleted, and those to be emptied into an heir; an error
    /// when one holds messages and has none.
    async fn lost_queues(
        &self,
        old: &Routes,
        new: &Routes,
    ) -> Result<(Vec<Owned>, Vec<(Owned, Owned)>), RoutesError> {
        let (mut lost, mut moved) = (Vec::new(), Vec::new());
        let draining: Vec<Owned> = self.draining.lock().iter().map(|(from, _)| from.clone()).collect();
        for owned in work_queues(old).into_iter().chain(draining) {
            let Owned { route, queue } = &owned;
            let heir = new.vhost(&route.vhost).and_then(|table| table.owner(queue));
            if heir.is_some_and(|heir| heir.backend == route.backend) {
                continue;
            }
            let Some(counts) = self.counts(&owned).await? else { continue };
            if counts.messages == 0 && counts.unsettled == Some(0) {
                lost.push(owned);
            } else if let Some(heir) = heir_of(new, &owned) {
                moved.push((owned, heir));
            } else if counts.messages == 0 && counts.unsettled.is_none() {
                let backend = &route.backend;
                tracing::warn!(%queue, %backend, "a queue that lost its route stays: its broker does not tell whether workers have messages of it in hand");
            } else {
                return Err(RoutesError::NotEmpty {
                    route: Arc::clone(route),
                    queue: Arc::clone(queue),
                    messages: counts.messages,
                    unsettled: counts.unsettled,
                });
            }
        }
        Ok((lost, moved))
    }

    /// What a queue holds; none when it does not exist.
    async fn counts(&self, owned: &Owned) -> Result<Option<QueueCounts>, RoutesError> {
        let spec = QueueSpec { passive: true, durable: true, ..QueueSpec::new(&owned.queue) };
        let uncounted = |why: String| RoutesError::Uncounted {
            route: Arc::clone(&owned.route),
            queue: Arc::clone(&owned.queue),
            why,
        };
        let mut own = self.own_lane(&owned.route).await.map_err(|error| uncounted(error.to_string()))?;
        let counts = timeout(FIRST, own.lane.declare_queue(&spec)).await;
        match counts.unwrap_or_else(|_| Err(Refused::Away(owned.route.backend.to_string()))) {
            Ok(counts) => Ok(Some(counts)),
            Err(Refused::NotFound { .. } | Refused::Upstream { code: 404, .. }) => Ok(None),
            Err(why) => Err(uncounted(why.to_string())),
        }
    }

    fn station(&self, owned: &Owned, queue: Arc<str>) -> Result<Station, BackendError> {
        let backend = Arc::clone(self.backend(&owned.route.backend)?);
        Ok(Station { backend, vhost: Arc::clone(&owned.route.vhost), queue })
    }

    /// What empties a queue into its heir.
    fn drain(&self, from: &Owned, heir: &Owned, until: Until) -> Result<Mover, BackendError> {
        Ok(Mover {
            name: format!("drain {} of {}", from.queue, from.route.backend).into(),
            from: self.station(from, Arc::clone(&from.queue))?,
            bound_by: None,
            unbound: Vec::new(),
            to: To::Queue(self.station(heir, Arc::clone(&heir.queue))?),
            until,
        })
    }

    /// Has dead letters of the routes in force carried to their addresses, where their back end cannot. Those that are
    /// left of routes that are gone still come to theirs.
    fn carry_dead_letters(&self) {
        let Some(hub) = self.me.upgrade() else { return };
        let routes = self.routes.load_full();
        for owned in work_queues(&routes) {
            let carried = matches!(dead_letters(&routes, &owned.route), Some(DeadLetters::Carried));
            let (true, Some(topic)) = (carried, &owned.route.dead_letter) else { continue };
            let Ok(from) = self.station(&owned, dead_letter_queue(&owned.queue).into()) else { continue };
            let Owned { route, queue } = &owned;
            let errand = Errand::DeadLetters {
                vhost: Arc::clone(&route.vhost),
                backend: Arc::clone(&route.backend),
                queue: Arc::clone(queue),
            };
            let mover = Mover {
                name: format!("dead letters of {queue} on {} to {topic}", route.backend).into(),
                from,
                bound_by: None,
                unbound: Vec::new(),
                to: To::Address { hub: Arc::clone(&hub) as Arc<dyn Backend>, topic: topic.as_ref().into() },
                until: Until::Ever,
            };
            self.carriers.start(errand, mover);
        }
    }

    /// True when the home of a vhost knows no such queue.
    pub(super) async fn is_gone(&self, vhost: &Arc<str>, queue: &str) -> bool {
        let routes = self.routes();
        let Some(home) = routes.vhost(vhost).map(|table| table.home()) else { return true };
        let spec = QueueSpec { passive: true, ..QueueSpec::new(queue) };
        match self.lane_on(home, vhost).await {
            Ok(mut own) => matches!(
                own.lane.declare_queue(&spec).await,
                Err(Refused::NotFound { .. } | Refused::Upstream { code: 404, .. })
            ),
            Err(_) => false,
        }
    }

    /// A lane of the hub's own on the back end of `route`.
    async fn own_lane(&self, route: &Route) -> Result<OwnLane, RoutesError> {
        self.lane_on(&route.backend, &route.vhost).await
    }

    async fn lane_on(&self, backend: &str, vhost: &Arc<str>) -> Result<OwnLane, RoutesError> {
        let backend = self.backend(backend)?;
        let client = Client {
            number: 0,
            identifier: "linkspan".into(),
            user: "linkspan".into(),
            vhost: Arc::clone(vhost),
            keep_session: 0,
        };
        let mut connection = backend.connect(&client, Arc::new(Nobody)).await?;
        let lane = connection.lane(Arc::new(Nobody), Arc::new(Nobody)).await?;
        Ok(OwnLane { lane, _connection: connection })
    }
}

fn work_queues(routes: &Routes) -> Vec<Owned> {
    let of_route = |route: &Arc<Route>| {
        let owned = |queue: &Arc<str>| Owned { route: Arc::clone(route), queue: Arc::clone(queue) };
        route.queues.iter().map(owned).collect::<Vec<_>>()
    };
    routes.iter().flat_map(|table| table.iter()).flat_map(of_route).collect()
}

/// The queue that takes over what a queue without a route holds: one of the same name on another back end, or the only
/// one of a route for the same addresses.
fn heir_of(new: &Routes, lost: &Owned) -> Option<Owned> {
    let table = new.vhost(&lost.route.vhost)?;
    let by_name = table.owner(&lost.queue).map(|route| (route, &lost.queue));
    let by_match = || {
        let route =
            table.iter().find(|it| it.filter.relation(lost.route.filter.as_str()) == Relation::Equal)?;
        match route.queues.as_slice() {
            [only] => Some((route, only)),
            _ => None,
        }
    };
    let (route, queue) = by_name.or_else(by_match).filter(|(route, _)| route.drain)?;
    Some(Owned { route: Arc::clone(route), queue: Arc::clone(queue) })
}

/// How dead letters of a route come to their address.
#[derive(Debug, PartialEq, Eq)]
enum DeadLetters {
    /// By the broker itself.
    Native { key: String },
    /// Through a queue of their own, and the hub.
    Carried,
}

fn dead_letters(routes: &Routes, route: &Route) -> Option<DeadLetters> {
    let address = route.dead_letter.as_deref()?;
    let table = routes.vhost(&route.vhost)?;
    let (backend, plain) = match table.find(address.as_bytes()) {
        Some(to) => (&to.backend, to.pattern == Pattern::PublishSubscribe),
        None => (table.home(), true),
    };
    let key = respelled(address.as_bytes(), Syntax::Topic, Syntax::Key);
    Some(match String::from_utf8(key.into_owned()) {
        Ok(key) if plain && *backend == route.backend => DeadLetters::Native { key },
        _ => DeadLetters::Carried,
    })
}

fn dead_letter_queue(queue: &str) -> String {
    format!("linkspan.dead.{queue}")
}

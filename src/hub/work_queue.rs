//! The queues of routes, and how they are made.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{BackendError, Health, QueueCounts, QueueSpec, Refused, Value};
use tokio::time::timeout;

use super::Hub;
use super::dead_letters::{DeadLetters, dead_letter_queue};
use super::own_lane::OwnLane;
use super::routes_error::{RoutesError, held};
use crate::routes::{Route, Routes};

/// How long a back end may take to make a queue.
const PATIENCE: Duration = Duration::from_secs(10);

/// A queue of a route.
#[derive(Debug, Clone)]
pub struct Owned {
    /// The route.
    pub route: Arc<Route>,
    /// The queue.
    pub queue: Arc<str>,
}

/// A queue that could not be made yet.
#[derive(Debug, Clone)]
pub struct Unmade {
    /// The queue.
    pub owned: Owned,
    /// What is in the way was not said since.
    pub told: bool,
}

/// All of them.
pub fn work_queues(routes: &Routes) -> Vec<Owned> {
    let of_route = |route: &Arc<Route>| {
        let owned = |queue: &Arc<str>| Owned { route: Arc::clone(route), queue: Arc::clone(queue) };
        route.queues.iter().map(owned).collect::<Vec<_>>()
    };
    routes.iter().flat_map(|table| table.iter()).flat_map(of_route).collect()
}

impl Hub {
    /// Makes the queues that could not be made because their back end was away, and forgets what is over. What is in the
    /// way of one is returned once, and it is tried again.
    pub async fn mend(&self) -> Vec<RoutesError> {
        let mut wrong = Vec::new();
        if self.recall().await {
            // The routes that are in force follow what is known only now.
            wrong.extend(self.reroute(Routes::clone(&self.routes())).await.err());
            self.carry_dead_letters_left().await;
        }
        self.forget_queues().await;
        self.write_down().await;
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

    /// Makes a queue, fed and with its dead letters led away.
    ///
    /// # Errors
    /// When it is there otherwise, or its back end is away or says no.
    pub(super) async fn make_queue(&self, routes: &Routes, owned: &Owned) -> Result<(), RoutesError> {
        let hangs =
            || BackendError::Away { name: owned.route.backend.to_string(), why: "it does not answer".into() };
        timeout(PATIENCE, self.make_queue_at_last(routes, owned))
            .await
            .unwrap_or_else(|_| Err(hangs().into()))
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
        let mut own = self.lane_on(&route.backend, &route.vhost).await?;
        let kind = route.queue_type.map(|kind| ("x-queue-type", Value::Text(kind.name().into())));
        let dead = self.way_of_dead_letters(routes, route);
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
        if let Some(priorities) = &route.terms.priorities {
            arguments.push(("x-max-priority", Value::U8(priorities.highest)));
        }
        let terms = Some(&route.terms);
        let spec = QueueSpec { durable: true, arguments: &arguments, terms, ..QueueSpec::new(queue) };
        match own.lane.declare_queue(&spec).await {
            Ok(_) => {}
            Err(why @ (Refused::Inequivalent { .. } | Refused::Upstream { code: 406, .. })) => {
                drop(own);
                own = self.make_anew(owned, &spec, why).await?;
            }
            Err(why) => return Err(failed(why)),
        }
        let except: Vec<&str> =
            routes.vhost(&route.vhost).map_or_else(Vec::new, |table| table.beside(route).collect());
        own.lane.feed(queue, &[route.filter.as_str()], &except).await.map_err(failed)
    }

    /// A queue is there, otherwise than its route wants it now: when the route, or one before it, had it and it is empty,
    /// it is made anew, unless its back end cannot tell what its consumers have in hand. Yields the lane on which it was.
    async fn make_anew(
        &self,
        owned: &Owned,
        spec: &QueueSpec<'_>,
        why: Refused,
    ) -> Result<OwnLane, RoutesError> {
        let Owned { route, queue } = owned;
        let otherwise = |held| RoutesError::Otherwise {
            route: Arc::clone(route),
            queue: Arc::clone(queue),
            why: Box::new(why.clone()),
            held,
        };
        let failed = |why| RoutesError::Queue {
            route: Arc::clone(route),
            queue: Arc::clone(queue),
            why: Box::new(why),
        };
        if !self.has_had(owned) {
            return Err(otherwise(None));
        }
        // What was refused may have cost the lane.
        let mut own = self.lane_on(&route.backend, &route.vhost).await?;
        let passive = QueueSpec { passive: true, ..QueueSpec::new(queue) };
        let counts = match own.lane.declare_queue(&passive).await {
            Ok(counts) => counts,
            // Some of what it is made of is there still.
            Err(why) if why.is_missing() => QueueCounts::new(&**queue, 0, 0),
            Err(why) => return Err(failed(why)),
        };
        let is_known = counts.unsettled.is_some();
        if !is_known || own.lane.delete_queue(queue, true, true).await.is_err() {
            return Err(otherwise(Some(held(counts.messages, counts.unsettled))));
        }
        own.lane.declare_queue(spec).await.map_err(failed)?;
        tracing::info!(%queue, backend = %route.backend, was = %why, "an empty queue is made anew as its route wants it now");
        Ok(own)
    }
}

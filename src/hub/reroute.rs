//! Putting routes in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use linkspan_contract::Health;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Hub;
use super::carriers::Errand;
use super::routes_error::RoutesError;
use super::work_queue::{Owned, Unmade, work_queues};
use crate::routes::Routes;

/// How long a reload waits for what a moved queue held, so that it comes before what is new, and for a back end that a
/// route cannot do without.
const FIRST: Duration = Duration::from_secs(10);

/// How long a start or a reload waits for a back end that is being reached.
const GRACE: Duration = Duration::from_secs(1);

/// How long it waits for clients' subscriptions to follow: those that do not meanwhile wait for a back end themselves.
const FOLLOWED: Duration = Duration::from_secs(2);

/// How often it is looked whether it is there.
const LOOK: Duration = Duration::from_millis(10);

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
        let mut estate = match self.estate(&old, &routes).await {
            Ok(estate) => estate,
            Err(error) => {
                self.go_on_draining();
                return Err(error);
            }
        };
        let (mut later, mut made) = (Vec::new(), Vec::new());
        for owned in work_queues(&routes) {
            match self.make_queue(&routes, &owned).await {
                Ok(()) => made.push(owned),
                Err(error) if error.is_away() => {
                    let Owned { route, queue } = &owned;
                    tracing::warn!(%queue, backend = %route.backend, "the queue is made when its back end is back");
                    later.push(Unmade { owned, told: true });
                }
                Err(error) => {
                    // What went wrong half way may have made some of it.
                    made.push(owned);
                    self.make_again(&old, &made).await;
                    self.go_on_draining();
                    return Err(error);
                }
            }
        }
        if let Err(error) = self.make_spools(&routes).await {
            self.make_again(&old, &made).await;
            self.go_on_draining();
            return Err(error);
        }
        if timeout(FIRST, self.carry_first(&estate.moved)).await.is_err() {
            tracing::info!("queues that move are still being emptied; what is new goes to their heirs");
        }
        *self.unmade.lock() = later;
        *self.draining.lock() = std::mem::take(&mut estate.moved);
        self.routes.store(Arc::new(routes));
        self.epoch.fetch_add(1, Ordering::Release);
        let before = self.eras.begin();
        // The routes are in force: from here on nothing may go wrong for them.
        self.tell_lanes();
        self.go_on_draining();
        self.carry_dead_letters();
        self.follow_bindings();
        self.remember_queues();
        // What waits in the spool of a route that is gone, and what is published once this has returned, finds those who
        // subscribe where they are now.
        if !before.ends(FOLLOWED).await {
            tracing::info!("some clients' subscriptions do not follow the new routes yet");
        }
        self.follow_spools().await;
        self.wind_up(&estate).await;
        self.write_down().await;
        Ok(())
    }

    /// The routes in force stay: what their back ends know of queues that were made for others is to be theirs again.
    async fn make_again(&self, old: &Routes, made: &[Owned]) {
        for owned in work_queues(old) {
            let is_changed = |made: &Owned| {
                let (is, was) = (&made.route, &owned.route);
                made.queue == owned.queue && is.vhost == was.vhost && is.backend == was.backend && is != was
            };
            if made.iter().any(is_changed)
                && let Err(error) = self.make_queue(old, &owned).await
            {
                tracing::warn!(%error, "a queue stays as the routes wanted it that are not in force");
            }
        }
    }

    /// Gives back ends a moment to be reached, all of them the same one; those that routes cannot do without have to be.
    async fn wait_for_back_ends(&self, routes: &Routes) -> Result<(), RoutesError> {
        let (soon, late) = (Instant::now() + GRACE, Instant::now() + FIRST);
        // What a route that says `drain` has left may be on any of them.
        let drains = routes.iter().any(|table| table.iter().any(|route| route.drain));
        let others = self.backends.keys().filter(|_| drains);
        let remembered: Vec<_> = self.remembered().into_iter().map(|left| left.backend).collect();
        for name in routes.iter().map(|table| table.home()).chain(others).chain(&remembered) {
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
}

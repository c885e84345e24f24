//! The hub's spools: which routes have one, and what becomes of those that lost theirs.

pub(super) mod coordinator;

use std::collections::HashMap;
use std::sync::Arc;

use linkspan_contract::{Health, QueueSpec};
use parking_lot::{Mutex, RwLock};
use tokio::task::AbortHandle;

use super::Hub;
use super::carried::Carried;
use super::carriers::Errand;
use super::own_lane::OwnLane;
use super::routes_error::RoutesError;
use super::spool::{Depth, Spool, SpoolStore, SpoolStores, filter_of};
use crate::mover::{Mover, Sluice, Station, To, Until};
use crate::routes::{Route, Routes};

/// The spools of all routes, and what keeps them.
pub struct Spools {
    stores: Arc<dyn SpoolStores>,
    /// Those that were opened.
    open: Mutex<HashMap<Arc<str>, Arc<dyn SpoolStore>>>,
    all: RwLock<Vec<Arc<Spool>>>,
    /// Looks at them.
    coordinator: Mutex<Option<AbortHandle>>,
}

impl Spools {
    /// None yet; `stores` will keep them.
    pub fn new(stores: Arc<dyn SpoolStores>) -> Self {
        Self { stores, open: Mutex::default(), all: RwLock::default(), coordinator: Mutex::default() }
    }

    /// That of a route, if it has one, or had one that is not empty yet.
    pub fn of(&self, route: &Route) -> Option<Arc<Spool>> {
        self.all.read().iter().find(|spool| spool.is_of(route)).cloned()
    }

    fn all(&self) -> Vec<Arc<Spool>> {
        self.all.read().clone()
    }

    fn store(&self, backend: &Arc<str>) -> Result<Arc<dyn SpoolStore>, String> {
        let mut open = self.open.lock();
        if let Some(store) = open.get(backend) {
            return Ok(Arc::clone(store));
        }
        let store = self.stores.open(backend)?;
        open.insert(Arc::clone(backend), Arc::clone(&store));
        Ok(store)
    }

    /// Nothing is put into any of them from now on, and what was is safe when this returns.
    pub async fn close(&self) {
        if let Some(coordinator) = self.coordinator.lock().take() {
            coordinator.abort();
        }
        let stores: Vec<_> = self.open.lock().values().cloned().collect();
        for store in stores {
            store.backend().close().await;
        }
    }
}

impl Hub {
    /// The spool of a route, if it has one, or had one that is not empty yet.
    pub(super) fn spool_of(&self, route: &Route) -> Option<Arc<Spool>> {
        self.spools.of(route)
    }

    /// Makes the spools that `routes` want, and finds those that an earlier life of this server left to one of them.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(super) async fn make_spools(&self, routes: &Routes) -> Result<(), RoutesError> {
        let known: Vec<_> = routes.iter().flat_map(|table| table.iter()).cloned().collect();
        for route in known.iter().filter(|route| route.spool.is_some()) {
            let failed = |why| RoutesError::Spool { route: Arc::clone(route), why };
            if self.spools.of(route).is_some() {
                continue;
            }
            let spool = Spool::new(route, self.spools.store(&route.backend).map_err(failed)?);
            // What empties its queue since an earlier reload would delete it.
            self.carriers.end(|errand| *errand == errand_of(&spool));
            make_queue(&spool).await.map_err(failed)?;
            spool.set_limit(route);
            self.spools.all.write().push(Arc::new(spool));
        }
        for backend in self.spools.stores.left() {
            if let Err(why) = self.spools.store(&backend) {
                tracing::error!(%backend, why, "what waits in the spools of this back end cannot be read");
            }
        }
        for route in known.iter().filter(|route| route.spool.is_none()) {
            let store = self.spools.open.lock().get(&route.backend).cloned();
            let Some(spool) = store.map(|store| Spool::new(route, store)) else { continue };
            if spool.depth().messages > 0 && self.spools.of(route).is_none() {
                self.spools.all.write().push(Arc::new(spool));
            }
        }
        Ok(())
    }

    /// Has everything that waits in spools carried on as the routes in force say: to the back end of its route, also when
    /// that has no spool any more, or else to where its address lies now.
    pub(super) async fn follow_spools(&self) {
        let routes = self.routes();
        for spool in self.spools.all() {
            let table = routes.vhost(&spool.vhost);
            match table.and_then(|table| table.iter().find(|route| spool.is_of(route))) {
                Some(route) => {
                    spool.set_limit(route);
                    self.carry_spool(&spool, route);
                }
                None => {
                    self.spools.all.write().retain(|other| !Arc::ptr_eq(other, &spool));
                    spool.end();
                }
            }
        }
        let stores: Vec<_> = self
            .spools
            .open
            .lock()
            .iter()
            .map(|(name, store)| (Arc::clone(name), Arc::clone(store)))
            .collect();
        let all = self.spools.all();
        for (backend, store) in stores {
            for (vhost, queue) in store.queues() {
                let is_it = |spool: &&Arc<Spool>| {
                    spool.vhost == vhost && spool.queue == queue && spool.backend == backend
                };
                if !all.iter().any(|spool| is_it(&spool)) {
                    self.carry_rest(&backend, &store, vhost, queue);
                }
            }
        }
        self.look_at_spools().await;
        self.watch_spools();
    }

    /// Carries what waits to the back end of its route.
    fn carry_spool(&self, spool: &Arc<Spool>, route: &Route) {
        let Ok(backend) = self.backend(&spool.backend) else { return };
        let mover = Mover {
            name: format!("spool of {} for {}", spool.filter, spool.backend).into(),
            from: Station {
                backend: spool.store.backend(),
                vhost: Arc::clone(&spool.vhost),
                queue: Arc::clone(&spool.queue),
            },
            bound_by: None,
            unbound: Arc::default(),
            to: To::Addresses {
                backend: Arc::clone(backend),
                queues: route.queues.clone(),
                sluice: Some(Arc::clone(spool) as Arc<dyn Sluice>),
            },
            until: Until::Ever,
        };
        self.carriers.start(errand_of(spool), mover);
    }

    /// Carries what waits for a route that is gone to where its addresses lie now; then the queue is deleted.
    fn carry_rest(&self, of: &Arc<str>, store: &Arc<dyn SpoolStore>, vhost: Arc<str>, queue: Arc<str>) {
        let (Some(hub), Some(filter)) = (self.me.upgrade(), filter_of(&queue)) else { return };
        if self.routes().vhost(&vhost).is_none() {
            tracing::warn!(%vhost, filter, backend = %of, "a spool stays as it is: its vhost is gone");
            return;
        }
        let Depth { messages, .. } = store.depth(&vhost, &queue);
        if messages > 0 {
            tracing::info!(%vhost, filter, backend = %of, messages, "what waits in a spool whose route is gone goes where its addresses lie now");
        }
        let mover = Mover {
            name: format!("rest of the spool of {filter} for {of}").into(),
            from: Station { backend: store.backend(), vhost: Arc::clone(&vhost), queue: Arc::clone(&queue) },
            bound_by: None,
            unbound: Arc::default(),
            to: To::Addresses { backend: Arc::new(Carried(hub)), queues: Vec::new(), sluice: None },
            until: Until::Rest,
        };
        self.carriers.start(Errand::Spool { vhost, backend: Arc::clone(of), queue }, mover);
    }

    /// Looks how all spools stand.
    pub(super) async fn look_at_spools(&self) {
        let mut health: HashMap<Arc<str>, bool> = HashMap::new();
        let routes = self.routes();
        for spool in self.spools.all() {
            let is_up = match health.get(&spool.backend) {
                Some(is_up) => *is_up,
                None => {
                    let is_up = match self.backend(&spool.backend) {
                        Ok(backend) => backend.health().await == Health::Up,
                        Err(_) => false,
                    };
                    health.insert(Arc::clone(&spool.backend), is_up);
                    is_up
                }
            };
            let route = routes.vhost(&spool.vhost).and_then(|it| it.iter().find(|route| spool.is_of(route)));
            let mut queues = route.iter().flat_map(|route| &route.queues);
            let are_made = !queues.any(|queue| self.is_unmade(&spool.vhost, queue));
            spool.look(is_up && are_made);
            if spool.is_over() {
                self.spools.all.write().retain(|other| !Arc::ptr_eq(other, &spool));
                let (vhost, queue) = (Arc::clone(&spool.vhost), Arc::clone(&spool.queue));
                self.carry_rest(&spool.backend, &spool.store, vhost, queue);
            }
        }
    }

    /// Sets the figures of all spools.
    pub(super) fn publish_spool_gauges(&self) {
        for spool in self.spools.all() {
            let Depth { messages, bytes } = spool.depth();
            let labels = [
                ("vhost", spool.vhost.to_string()),
                ("backend", spool.backend.to_string()),
                ("route", spool.filter.to_string()),
            ];
            metrics::gauge!("linkspan_spool_messages", &labels).set(messages as f64);
            metrics::gauge!("linkspan_spool_bytes", &labels).set(bytes as f64);
        }
    }
}

fn errand_of(spool: &Spool) -> Errand {
    Errand::Spool {
        vhost: Arc::clone(&spool.vhost),
        backend: Arc::clone(&spool.backend),
        queue: Arc::clone(&spool.queue),
    }
}

async fn make_queue(spool: &Spool) -> Result<(), String> {
    let mut own =
        OwnLane::open(&*spool.store.backend(), &spool.vhost).await.map_err(|error| error.to_string())?;
    let spec = QueueSpec { durable: true, ..QueueSpec::new(&spool.queue) };
    own.lane.declare_queue(&spec).await.map(drop).map_err(|refused| refused.to_string())
}

//! What keeps the spools of routes: an embedded back end beside each back end that has such routes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use linkspan_contract::{Backend, Clock};
use linkspan_embedded::{Budget, Embedded, EmbeddedOptions, OnDisk, SyncMode};

use crate::config::{self, Config};
use crate::doors;
use crate::hub::{Depth, SpoolStore, SpoolStores};

/// Opens them when they are needed.
pub struct Stores {
    /// Where each back end has its own, and the bytes of a file there.
    places: HashMap<Arc<str>, (PathBuf, u64)>,
    clock: Arc<dyn Clock>,
    /// What their queues may have in memory.
    budget: Arc<Budget>,
}

impl Stores {
    /// Those of a configuration; `budget` is for the queues of all.
    pub fn of(config: &Config, clock: Arc<dyn Clock>, budget: &Arc<Budget>) -> Self {
        let place = |(name, backend): (&Arc<str>, &config::Backend)| match backend {
            config::Backend::Embedded { .. } => None,
            config::Backend::Amqp(upstream) | config::Backend::Mqtt { upstream, .. } => {
                Some((Arc::clone(name), (upstream.path.join("spool"), upstream.segment_size)))
            }
        };
        let places = config.backends.iter().filter_map(place).collect();
        Self { places, clock, budget: Arc::clone(budget) }
    }
}

impl SpoolStores for Stores {
    fn open(&self, backend: &str) -> Result<Arc<dyn SpoolStore>, String> {
        let Some((directory, segment_size)) = self.places.get(backend) else {
            return Err(format!("back end `{backend}` has no place for spools"));
        };
        let on_disk = OnDisk {
            directory: directory.clone(),
            sync: SyncMode::Group,
            segment_size: *segment_size,
            forms: doors::forms(),
            budget: Arc::clone(&self.budget),
        };
        // How much waits is the route's word, and who waits for it is the hub's.
        let options = EmbeddedOptions { queue_high: u64::MAX, ..EmbeddedOptions::default() };
        let name = format!("spool of {backend}");
        let embedded = Embedded::durable(&name, options, Arc::clone(&self.clock), &on_disk);
        Ok(Arc::new(Store(embedded.map_err(|error| error.to_string())?)))
    }

    fn left(&self) -> Vec<Arc<str>> {
        let there = self.places.iter().filter(|(_, (directory, _))| directory.is_dir());
        there.map(|(name, _)| Arc::clone(name)).collect()
    }
}

struct Store(Arc<Embedded>);

impl SpoolStore for Store {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.0) as _
    }

    fn depth(&self, vhost: &str, queue: &str) -> Depth {
        let depth = self.0.depth(vhost, queue);
        depth.map_or_else(Depth::default, |it| Depth {
            messages: it.ready.saturating_add(it.unsettled),
            bytes: it.bytes,
        })
    }

    fn queues(&self) -> Vec<(Arc<str>, Arc<str>)> {
        self.0.queues().into_iter().map(|it| (it.vhost, it.name)).collect()
    }
}

//! How what no worker can work comes to its address: by the broker itself, or through a queue and the hub.

use std::sync::Arc;

use linkspan_contract::Backend;
use linkspan_contract::address::{Syntax, respelled};

use super::Hub;
use super::carriers::Errand;
use super::work_queue::{Owned, work_queues};
use crate::mover::{Mover, Station, To, Until};
use crate::routes::{Pattern, Route, Routes};

/// How dead letters of a route come to their address.
#[derive(Debug, PartialEq, Eq)]
pub enum DeadLetters {
    /// By the broker itself.
    Native {
        /// The key by which they leave the queue.
        key: String,
    },
    /// Through a queue of their own, and the hub.
    Carried,
}

/// How those of `route` do; none when it has no address for them.
pub fn dead_letters(routes: &Routes, route: &Route) -> Option<DeadLetters> {
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

/// The queue that takes those of a queue which are carried.
pub fn dead_letter_queue(queue: &str) -> String {
    format!("linkspan.dead.{queue}")
}

impl Hub {
    /// Has dead letters of the routes in force carried to their addresses, where their back end cannot. Those that are
    /// left of routes that are gone still come to theirs.
    pub(super) fn carry_dead_letters(&self) {
        let Some(hub) = self.me.upgrade() else { return };
        let routes = self.routes.load_full();
        for owned in work_queues(&routes) {
            let carried = matches!(dead_letters(&routes, &owned.route), Some(DeadLetters::Carried));
            let (true, Some(topic)) = (carried, &owned.route.dead_letter) else { continue };
            let Owned { route, queue } = &owned;
            let Ok(backend) = self.backend(&route.backend) else { continue };
            let from = Station {
                backend: Arc::clone(backend),
                vhost: Arc::clone(&route.vhost),
                queue: dead_letter_queue(queue).into(),
            };
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
}

//! How what no worker can work comes to its address: by the broker itself, or through a queue and the hub.

use std::sync::Arc;

use linkspan_contract::Backend;
use linkspan_contract::address::{Syntax, respelled};

use super::Hub;
use super::carriers::Errand;
use super::estate::Left;
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
        let routes = self.routes.load_full();
        for owned in work_queues(&routes) {
            if matches!(dead_letters(&routes, &owned.route), Some(DeadLetters::Carried)) {
                self.carry_from(&dead_letters_of(&owned, &owned.route.backend), &owned, Until::Ever);
            }
        }
    }

    /// Has those carried that queues of routes left on other back ends in an earlier life of this server.
    pub(super) async fn carry_dead_letters_left(&self) {
        let routes = self.routes.load_full();
        for owned in work_queues(&routes).iter().filter(|owned| owned.route.dead_letter.is_some()) {
            for backend in self.backends.keys().filter(|backend| **backend != owned.route.backend) {
                let from = dead_letters_of(owned, backend);
                if self.may_hold(&from).await {
                    self.carry_from(&from, owned, Until::Empty);
                }
            }
        }
    }

    fn carry_from(&self, from: &Left, owned: &Owned, until: Until) {
        let (Some(hub), Some(topic)) = (self.me.upgrade(), &owned.route.dead_letter) else { return };
        let Left { vhost, backend: name, queue, .. } = from;
        let Ok(backend) = self.backend(name) else { return };
        let errand = Errand::DeadLetters {
            vhost: Arc::clone(vhost),
            backend: Arc::clone(name),
            queue: Arc::clone(&owned.queue),
        };
        let mover = Mover {
            name: format!("dead letters of {} on {name} to {topic}", owned.queue).into(),
            from: Station {
                backend: Arc::clone(backend),
                vhost: Arc::clone(vhost),
                queue: Arc::clone(queue),
            },
            bound_by: None,
            unbound: Arc::default(),
            to: To::Address { hub: hub as Arc<dyn Backend>, topic: topic.as_ref().into() },
            until,
        };
        self.carriers.start(errand, mover);
    }
}

/// The queue of dead letters of `owned` on a back end.
fn dead_letters_of(owned: &Owned, backend: &Arc<str>) -> Left {
    let queue = dead_letter_queue(&owned.queue).into();
    Left { backend: Arc::clone(backend), queue, ..Left::from(owned) }
}

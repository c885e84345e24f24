//! How what no worker can work comes to its address: by the broker itself, or through a queue and the hub.

use std::sync::Arc;

use linkspan_contract::Support;
use linkspan_contract::address::{Syntax, respelled};
use serde::{Deserialize, Serialize};

use super::Hub;
use super::carried::Carried;
use super::carriers::Errand;
use super::estate::Left;
use super::memory::Record;
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

/// What the ledger has of dead letters that are carried.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    vhost: Box<str>,
    backend: Box<str>,
    /// The queue that they come from.
    queue: Box<str>,
    /// The address that they are for, as a topic.
    address: Box<str>,
}

impl Record for Remembered {
    const KIND: &'static str = "dead-letters";

    fn identity(&self) -> [&str; 3] {
        [&self.vhost, &self.backend, &self.queue]
    }
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
            if let (Some(DeadLetters::Carried), Some(address)) =
                (self.way_of_dead_letters(&routes, &owned.route), &owned.route.dead_letter)
            {
                let Owned { route, queue } = &owned;
                self.memory.remember(&Remembered {
                    vhost: (*route.vhost).into(),
                    backend: (*route.backend).into(),
                    queue: (**queue).into(),
                    address: address.as_ref().into(),
                });
                self.carry_from(&route.vhost, &route.backend, queue, address, Until::Ever);
            }
        }
    }

    /// How those of a route come to their address; none when it has none.
    pub(super) fn way_of_dead_letters(&self, routes: &Routes, route: &Route) -> Option<DeadLetters> {
        let address = route.dead_letter.as_deref()?;
        let table = routes.vhost(&route.vhost)?;
        let (backend, plain) = match table.find(address.as_bytes()) {
            Some(to) => (&to.backend, to.pattern == Pattern::PublishSubscribe),
            None => (table.home(), true),
        };
        // What a queue of ours keeps for a broker does not reach those who subscribe there by itself.
        let itself = self.backend(&route.backend).ok()?.capabilities().dead_letter == Support::Native;
        let key = respelled(address.as_bytes(), Syntax::Topic, Syntax::Key);
        Some(match String::from_utf8(key.into_owned()) {
            Ok(key) if plain && itself && *backend == route.backend => DeadLetters::Native { key },
            _ => DeadLetters::Carried,
        })
    }

    /// Has those carried that queues of routes left in an earlier life of this server: on other back ends, and those of
    /// routes that are gone.
    pub(super) async fn carry_dead_letters_left(&self) {
        let routes = self.routes.load_full();
        for owned in work_queues(&routes) {
            let Owned { route, queue } = &owned;
            let Some(address) = &route.dead_letter else { continue };
            for backend in self.backends.keys().filter(|backend| **backend != route.backend) {
                let from = dead_letters_of(&route.vhost, backend, queue);
                if self.may_hold(&from).await {
                    self.carry_from(&route.vhost, backend, queue, address, Until::Empty);
                }
            }
        }
        for record in self.memory.all::<Remembered>() {
            let (vhost, backend, queue) =
                (&record.vhost.into(), &record.backend.into(), &record.queue.into());
            if !self.carriers.has(&errand(vhost, backend, queue)) {
                self.carry_from(vhost, backend, queue, &record.address, Until::Empty);
            }
        }
    }

    /// All dead letters of a queue are carried that a route had.
    pub(super) fn are_carried(&self, vhost: &Arc<str>, backend: &Arc<str>, queue: &Arc<str>) {
        let (vhost, backend, queue) = ((**vhost).into(), (**backend).into(), (**queue).into());
        self.memory.forget(&Remembered { vhost, backend, queue, address: "".into() });
    }

    fn carry_from(&self, vhost: &Arc<str>, name: &Arc<str>, queue: &Arc<str>, address: &str, until: Until) {
        let (Some(hub), Ok(backend)) = (self.me.upgrade(), self.backend(name)) else { return };
        let mover = Mover {
            name: format!("dead letters of {queue} on {name} to {address}").into(),
            from: Station {
                backend: Arc::clone(backend),
                vhost: Arc::clone(vhost),
                queue: dead_letter_queue(queue).into(),
            },
            bound_by: None,
            unbound: Arc::default(),
            to: To::Address { hub: Arc::new(Carried(hub)), topic: address.into() },
            until,
        };
        self.carriers.start(errand(vhost, name, queue), mover);
    }
}

fn errand(vhost: &Arc<str>, backend: &Arc<str>, queue: &Arc<str>) -> Errand {
    Errand::DeadLetters { vhost: Arc::clone(vhost), backend: Arc::clone(backend), queue: Arc::clone(queue) }
}

/// The queue of dead letters of a queue on a back end.
fn dead_letters_of(vhost: &Arc<str>, backend: &Arc<str>, queue: &Arc<str>) -> Left {
    let dead = dead_letter_queue(queue).into();
    Left { vhost: Arc::clone(vhost), backend: Arc::clone(backend), queue: dead, filter: "".into() }
}

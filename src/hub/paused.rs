//! Queues that give nothing out for now, because somebody said so.
//!
//! A subscription to one comes to nothing until the queue goes on: lanes resolve theirs again, as when routes change. What
//! is published to it waits there. It is remembered, so that a restart leaves it paused.

pub mod coordinator;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use linkspan_contract::{LaneEvent, LaneEvents};
use serde::{Deserialize, Serialize};

use super::Hub;
use super::memory::Record;

/// By vhost.
type Names = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// The queues that are paused.
#[derive(Default)]
pub struct Paused(ArcSwap<Names>);

/// What the ledger has of one.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    vhost: Box<str>,
    queue: Box<str>,
}

impl Record for Remembered {
    const KIND: &'static str = "paused";

    fn identity(&self) -> [&str; 3] {
        [&self.vhost, &self.queue, ""]
    }
}

impl Paused {
    /// Whether a queue is.
    pub fn has(&self, vhost: &str, queue: &str) -> bool {
        let names = self.0.load();
        !names.is_empty() && names.get(vhost).is_some_and(|queues| queues.contains(queue))
    }

    /// Whether it was something else before.
    fn set(&self, vhost: &Arc<str>, queue: &str, is_paused: bool) -> bool {
        let before = self.0.rcu(|names| {
            let mut names = Names::clone(names);
            let queues = names.entry(Arc::clone(vhost)).or_default();
            if is_paused {
                queues.insert(queue.into());
            } else {
                queues.remove(queue);
            }
            names.retain(|_, queues| !queues.is_empty());
            names
        });
        before.get(vhost).is_some_and(|queues| queues.contains(queue)) != is_paused
    }
}

impl Hub {
    /// Whether a queue gives nothing out for now. Only those of routes are paused: what a client has made may end with its
    /// last consumer.
    pub(super) fn is_paused(&self, vhost: &str, queue: &str) -> bool {
        self.paused.has(vhost, queue)
            && self.routes().vhost(vhost).is_some_and(|table| table.owner(queue).is_some())
    }

    /// From now on a queue is paused, or goes on; whether that is new.
    fn set_paused(&self, vhost: &Arc<str>, queue: &str, is_paused: bool) -> bool {
        let is_new = self.paused.set(vhost, queue, is_paused);
        let record = Remembered { vhost: (**vhost).into(), queue: queue.into() };
        if is_paused {
            self.memory.remember(&record);
        } else {
            self.memory.forget(&record);
        }
        if is_new {
            self.tell_lanes();
        }
        is_new
    }

    /// Goes on as an earlier life left it.
    pub(super) fn recall_paused(&self) {
        for Remembered { vhost, queue } in self.memory.all() {
            self.paused.set(&vhost.into(), &queue, true);
        }
    }

    /// Has all lanes resolve their subscriptions again.
    pub(super) fn tell_lanes(&self) {
        let ears: Vec<Arc<dyn LaneEvents>> = {
            let mut ears = self.ears.lock();
            ears.retain(|ear| ear.strong_count() > 0);
            ears.iter().filter_map(std::sync::Weak::upgrade).collect()
        };
        ears.iter().for_each(|ear| ear.event(LaneEvent::Changed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_paused_in_its_vhost_until_it_goes_on() {
        let paused = Paused::default();
        let here: Arc<str> = "/".into();
        assert!(paused.set(&here, "jobs", true));
        assert!(!paused.set(&here, "jobs", true), "it was already");
        assert!(paused.has("/", "jobs") && !paused.has("/", "other") && !paused.has("lab", "jobs"));
        assert!(paused.set(&here, "jobs", false));
        assert!(!paused.set(&here, "jobs", false));
        assert!(paused.0.load().is_empty());
    }
}

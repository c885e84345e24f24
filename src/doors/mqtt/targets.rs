//! A lane's numbers for the topics that a client publishes to.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::address::Syntax;
use linkspan_contract::{Destination, Lane, TargetId};

/// Topics of the younger generation: at most twice as many are known at once.
const GENERATION: usize = 4096;

/// A bounded cache: topics that were not used while [`GENERATION`] others were come to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Targets {
    young: HashMap<Box<[u8]>, TargetId, RandomState>,
    old: HashMap<Box<[u8]>, TargetId, RandomState>,
    forgotten: Vec<TargetId>,
}

impl Targets {
    /// The lane's number for `topic`.
    #[inline]
    pub(super) fn find(&mut self, topic: &[u8], lane: &mut dyn Lane) -> TargetId {
        match self.young.get(topic) {
            Some(target) => *target,
            None => self.find_elsewhere(topic, lane),
        }
    }

    #[cold]
    fn find_elsewhere(&mut self, topic: &[u8], lane: &mut dyn Lane) -> TargetId {
        if self.young.len() >= GENERATION {
            let old = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.forgotten.extend(old.into_values());
        }
        let target = self.old.remove(topic).unwrap_or_else(|| {
            let to = Destination::Address { path: topic, syntax: Syntax::Topic, more: &[], queues: &[] };
            lane.target(&to)
        });
        self.young.insert(topic.into(), target);
        target
    }

    /// Tells the lane which numbers are not used any more. Only when no batch that may hold one is still to be published.
    #[inline]
    pub(super) fn forget(&mut self, lane: &mut dyn Lane) {
        if !self.forgotten.is_empty() {
            lane.forget(&self.forgotten);
            self.forgotten = Vec::new();
        }
    }
}

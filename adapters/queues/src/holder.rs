//! Who consumes, and who has unsettled deliveries though it does not any more.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use linkspan_contract::{Credit, Millis, Settle};
use slab::Slab;
use smallvec::SmallVec;

use crate::consumer::{ConsumerId, LaneId};
use crate::unsettled::Unsettled;

/// Somebody under whose number deliveries are settled.
#[derive(Debug)]
pub(crate) struct Holder<B> {
    pub(crate) id: ConsumerId,
    pub(crate) lane: LaneId,
    pub(crate) unsettled: Unsettled<B>,
    pub(crate) ack_timeout: Option<Millis>,
    /// It fetches: its tags count on until its lane goes.
    pub(crate) fetches: bool,
    /// Several workers stand behind it.
    pub(crate) several: bool,
    /// What it wants as long as it consumes.
    pub(crate) wants: Option<Wants>,
}

/// A consumer's wishes, and where it stands.
#[derive(Debug)]
pub(crate) struct Wants {
    pub(crate) priority: i32,
    pub(crate) settle: Settle,
    pub(crate) credit: Option<Arc<Credit>>,
    /// Who came before whom.
    pub(crate) arrival: u64,
    pub(crate) paused: bool,
    /// It is in the rotation.
    pub(crate) listed: bool,
    pub(crate) tags_by_position: bool,
    /// What comes next is too far behind what it has not settled.
    pub(crate) stalled: bool,
}

impl<B> Holder<B> {
    /// What it is given from now on is due after another time.
    pub(crate) fn set_ack_timeout(&mut self, ack_timeout: Option<Millis>) {
        if self.ack_timeout != ack_timeout {
            self.ack_timeout = ack_timeout;
            self.unsettled.keep_deadlines();
        }
    }

    /// The deadline of what it is given now.
    #[inline]
    pub(crate) fn due(&self, now: Millis) -> Millis {
        self.ack_timeout.map_or(crate::offer::NEVER, |timeout| now.saturating_add(timeout))
    }
}

/// All holders of a queue, by their places.
#[derive(Debug)]
pub(crate) struct Holders<B> {
    slab: Slab<Holder<B>>,
    by_id: HashMap<ConsumerId, usize, FixedState>,
    by_lane: HashMap<LaneId, SmallVec<[usize; 1]>, FixedState>,
}

impl<B> Holders<B> {
    pub(crate) fn new() -> Self {
        Self { slab: Slab::new(), by_id: HashMap::default(), by_lane: HashMap::default() }
    }

    #[inline]
    pub(crate) fn find(&self, id: ConsumerId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&Holder<B>> {
        self.slab.get(at)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Holder<B>> {
        self.slab.get_mut(at)
    }

    /// The holder `id`, made when there is none.
    pub(crate) fn hold(&mut self, id: ConsumerId, lane: LaneId, ack_timeout: Option<Millis>) -> usize {
        if let Some(at) = self.find(id) {
            return at;
        }
        let unsettled = Unsettled::new();
        let (fetches, several, wants) = (false, false, None);
        let at = self.slab.insert(Holder { id, lane, unsettled, ack_timeout, fetches, several, wants });
        self.by_id.insert(id, at);
        self.by_lane.entry(lane).or_default().push(at);
        at
    }

    /// Forgets a holder that neither consumes nor fetches nor holds.
    pub(crate) fn tidy(&mut self, at: usize) {
        let idle =
            |holder: &Holder<B>| holder.wants.is_none() && !holder.fetches && holder.unsettled.len() == 0;
        if self.slab.get(at).is_some_and(idle) {
            self.remove(at);
        }
    }

    /// Forgets all such holders.
    pub(crate) fn tidy_all(&mut self) {
        let places: Vec<usize> = self.slab.iter().map(|(at, _)| at).collect();
        places.into_iter().for_each(|at| self.tidy(at));
    }

    pub(crate) fn remove(&mut self, at: usize) {
        let Some(holder) = self.slab.try_remove(at) else { return };
        self.by_id.remove(&holder.id);
        if let Some(places) = self.by_lane.get_mut(&holder.lane) {
            places.retain(|place| *place != at);
            if places.is_empty() {
                self.by_lane.remove(&holder.lane);
            }
        }
    }

    pub(crate) fn knows(&self, lane: LaneId) -> bool {
        self.by_lane.contains_key(&lane)
    }

    /// The places of a lane's holders.
    pub(crate) fn of_lane(&self, lane: LaneId) -> SmallVec<[usize; 1]> {
        self.by_lane.get(&lane).cloned().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Holder<B>)> {
        self.slab.iter()
    }

    pub(crate) fn each(&mut self, mut each: impl FnMut(usize, &mut Holder<B>)) {
        self.slab.iter_mut().for_each(|(at, holder)| each(at, holder));
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Holder<B>> {
        self.slab.iter_mut().map(|(_, holder)| holder)
    }
}

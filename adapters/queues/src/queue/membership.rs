//! Consumers come, pause and go.

use std::cmp::Reverse;

use linkspan_contract::{DeliveryTag, Millis};

use super::Queue;
use super::settle::Wait;
use crate::consumer::{Consumer, ConsumerId, ExclusiveUse, LaneId, Removed};
use crate::effect::Effect;
use crate::holder::Wants;
use crate::journal::Journal;

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// Lets a consumer in. It is paused until [`Queue::set_paused`] says otherwise. One that is there under the same
    /// number makes way and leaves it what it has unsettled.
    ///
    /// # Errors
    /// When another is there and one of the two is exclusive.
    pub fn add_consumer(&mut self, consumer: Consumer) -> Result<(), ExclusiveUse> {
        let Consumer { id, lane, priority, exclusive, several, settle, credit, .. } = consumer;
        let Consumer { ack_timeout, tags_by_position, .. } = consumer;
        let there = self.holders.find(id).and_then(|at| self.holders.get(at));
        let others = self.consumers - usize::from(there.is_some_and(|holder| holder.wants.is_some()));
        if exclusive && others > 0 || self.exclusive.is_some_and(|holder| holder != id) {
            return Err(ExclusiveUse);
        }
        let ack_timeout = ack_timeout.or(self.limits.ack_timeout);
        let at = self.holders.hold(id, lane, ack_timeout);
        self.dismiss(at);
        self.arrivals += 1;
        let arrival = self.arrivals;
        if let Some(holder) = self.holders.get_mut(at) {
            holder.set_ack_timeout(ack_timeout);
            holder.several = several;
            let (paused, listed, stalled) = (true, false, false);
            holder.wants =
                Some(Wants { priority, settle, credit, arrival, paused, listed, tags_by_position, stalled });
            self.consumers += 1;
            self.idle = None;
            self.exclusive = exclusive.then_some(id);
        }
        self.hand_over();
        Ok(())
    }

    /// The tag of the next delivery that a consumer settles; 1 when there is no such consumer.
    pub fn next_tag(&self, consumer: ConsumerId) -> DeliveryTag {
        let holder = self.holders.find(consumer).and_then(|at| self.holders.get(at));
        holder.map_or(1, |holder| holder.unsettled.next())
    }

    /// A consumer's tags go on at `first`: it takes another one's place, whose deliveries are not all settled.
    pub fn skip_tags(&mut self, consumer: ConsumerId, first: DeliveryTag) {
        if let Some(holder) = self.holders.find(consumer).and_then(|at| self.holders.get_mut(at)) {
            holder.unsettled.skip(first);
        }
    }

    /// Pauses a consumer, whose sink is above its mark, or lets it go on; that resumes it, too.
    pub fn set_paused(&mut self, consumer: ConsumerId, paused: bool) {
        let Some(at) = self.holders.find(consumer) else { return };
        let Some(wants) = self.holders.get_mut(at).and_then(|holder| holder.wants.as_mut()) else { return };
        wants.paused = paused;
        if !paused {
            self.list(at);
        } else if std::mem::take(&mut wants.listed) {
            self.rotation.remove(wants.priority, at);
        }
    }

    /// A consumer that ran dry may have credit again.
    pub fn resume(&mut self, consumer: ConsumerId) {
        if let Some(at) = self.holders.find(consumer) {
            self.list(at);
        }
    }

    /// Lets a consumer go. What it has not settled stays unsettled under its number until its lane goes.
    pub fn remove_consumer(&mut self, now: Millis, consumer: ConsumerId) -> Removed {
        let removed = self.holders.find(consumer).is_some_and(|at| {
            let removed = self.dismiss(at);
            self.holders.tidy(at);
            removed
        });
        self.after_removal(now, u32::from(removed))
    }

    /// A lane is gone, and with it its consumers: all that it has not settled comes back.
    pub fn release_lane(&mut self, now: Millis, lane: LaneId) -> Removed {
        let mut removed = 0;
        for at in self.holders.of_lane(lane) {
            removed += u32::from(self.dismiss(at));
            self.take_all(at);
            self.holders.remove(at);
        }
        self.come_back(now, Wait::No);
        self.after_removal(now, removed)
    }

    /// All that a lane has not settled comes back (AMQP's `basic.recover` with requeue); its consumers stay. The credit
    /// for it is the door's to grant.
    pub fn recover(&mut self, now: Millis, lane: LaneId) {
        for at in self.holders.of_lane(lane) {
            self.take_all(at);
            self.holders.tidy(at);
        }
        self.come_back(now, Wait::No);
    }

    fn take_all(&mut self, at: usize) {
        if let Some(holder) = self.holders.get_mut(at) {
            let taken = holder.unsettled.take_all(|message| self.coming_back.push(message));
            self.unsettled = self.unsettled.saturating_sub(taken as u64);
        }
    }

    fn after_removal(&mut self, now: Millis, removed: u32) -> Removed {
        if removed > 0 {
            self.rotation.tidy();
            self.hand_over();
            self.touch(now);
        }
        Removed { removed, was_last: removed > 0 && self.consumers == 0 }
    }

    /// Lets the holder `at` consume no more. True when it did.
    fn dismiss(&mut self, at: usize) -> bool {
        let Some(wants) = self.holders.get_mut(at).and_then(|holder| holder.wants.take()) else {
            return false;
        };
        if wants.listed {
            self.rotation.remove(wants.priority, at);
        }
        if self.active == Some(at) {
            self.active = None;
        }
        self.consumers = self.consumers.saturating_sub(1);
        self.exclusive = None;
        true
    }

    /// Makes the first by priority, then arrival, the single active consumer when there is none.
    fn hand_over(&mut self) {
        if !self.limits.single_active || self.active.is_some() {
            return;
        }
        let standing_by = self.holders.iter().filter_map(|(at, holder)| {
            holder.wants.as_ref().map(|wants| ((wants.priority, Reverse(wants.arrival)), at, holder.id))
        });
        let next = standing_by.max_by_key(|(rank, ..)| *rank).map(|(_, at, id)| (at, id));
        self.active = next.map(|(at, _)| at);
        self.effects.push(Effect::Active(next.map(|(_, id)| id)));
        if let Some(at) = self.active {
            self.list(at);
        }
    }

    /// Lets the consumer `at` into the rotation, unless it is there or must not be.
    pub(super) fn list(&mut self, at: usize) {
        if self.limits.single_active && self.active != Some(at) {
            return;
        }
        if let Some(wants) = self.holders.get_mut(at).and_then(|holder| holder.wants.as_mut())
            && !wants.paused
            && !std::mem::replace(&mut wants.listed, true)
        {
            self.rotation.enter(wants.priority, at);
            self.unstick(at);
        }
    }
}

//! Giving out.

use linkspan_contract::{Millis, Settle};

use super::Queue;
use crate::assignment::{Assignment, Direct};
use crate::consumer::{ConsumerId, LaneId};
use crate::effect::DeadReason;
use crate::journal::{Gone, Journal, Run};
use crate::offer::Queued;

/// Credit that was taken for a consumer in advance.
#[derive(Clone, Copy)]
struct Lot {
    at: usize,
    left: u32,
}

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// Gives `count` messages that are about to be published straight to consumers, in turns, without their entering
    /// the queue: when nothing is ready, and none of those whose turn it is would have to settle anything. `durable`
    /// says whether any of the messages is. Answers `count` when it did, and the messages are the caller's to deliver;
    /// otherwise 0, and nothing happened. Each consumer that gets some is told once.
    ///
    /// What a sink then refuses as closed was never in the queue: push it.
    #[inline]
    pub fn direct(&mut self, count: u32, durable: bool, out: &mut Vec<Direct>) -> u32 {
        if count == 0 || self.held || self.keys.is_some() || !self.is_empty() {
            return 0;
        }
        let Some(equals) = self.rotation.equals() else { return 0 };
        let id = |at: &usize| self.holders.get(*at).map(|holder| holder.id);
        let takes = |at: &usize| {
            self.holders.get(*at).and_then(|holder| holder.wants.as_ref()).is_some_and(|wants| {
                match wants.settle {
                    Settle::OnDelivery => true,
                    Settle::AsPublished => !durable,
                    Settle::ByConsumer => false,
                }
            })
        };
        if !equals.iter().all(takes) {
            return 0;
        }
        let turns = u32::try_from(equals.len()).unwrap_or(u32::MAX);
        let shares = equals.iter().filter_map(id).zip(0..count);
        out.extend(shares.map(|(consumer, first)| Direct { consumer, first, turns }));
        self.rotation.turn(count as usize);
        count
    }

    /// Gives what is ready to who can take it, message by message; then lets go what is beyond the limits.
    pub fn dispatch(&mut self, now: Millis, out: &mut Vec<Assignment<B>>) {
        self.dispatch_some(now, usize::MAX, out);
    }

    /// The same until `out` holds `most`: then the caller hands these over before it asks for more, so that a sink that
    /// is above its mark can pause its consumer.
    pub fn dispatch_some(&mut self, now: Millis, most: usize, out: &mut Vec<Assignment<B>>) {
        self.give_out(now, most, out);
        if out.len() < most {
            self.drop_head();
        }
        self.note_head();
    }

    pub(super) fn give_out(&mut self, now: Millis, most: usize, out: &mut Vec<Assignment<B>>) {
        if self.careful {
            return self.give_out_carefully(now, most, out);
        }
        let (mut given, mut gone) = (Run::default(), Run::default());
        let mut lot = Lot { at: 0, left: 0 };
        while out.len() < most
            && !self.held
            && self.has_head()
            && let Some(head) = self.ready.first()
        {
            let (durable, position) = (head.durable, head.position);
            if head.is_expired(now) {
                self.drop_expired(now);
                continue;
            }
            let Some(at) = self.rotation.first() else { break };
            let alone = self.rotation.is_alone();
            let Some(holder) = self.holders.get_mut(at) else { break };
            let Some(wants) = holder.wants.as_mut() else { break };
            let settled = match wants.settle {
                Settle::OnDelivery => true,
                Settle::AsPublished => !durable,
                Settle::ByConsumer => false,
            };
            if wants.tags_by_position && holder.unsettled.is_far_behind(position) {
                (wants.listed, wants.stalled) = (false, true);
                self.rotation.leave();
                continue;
            }
            if let Some(credit) = wants.credit.as_ref().filter(|_| !settled) {
                if lot.left == 0 {
                    // Never in advance of somebody else's turn, and never without using at least one: who shares the
                    // window and saw it dry meanwhile is woken by that one's settlement.
                    let rest = self.ready.len().min((most - out.len()) as u64);
                    let rest = u32::try_from(rest).unwrap_or(u32::MAX);
                    lot = Lot { at, left: credit.take(if alone { rest } else { 1 }) };
                }
                if lot.left == 0 {
                    wants.listed = false;
                    self.rotation.leave();
                    continue;
                }
                lot.left -= 1;
            }
            let by_position = wants.tags_by_position;
            let Some(message) = self.ready.pop() else { break };
            let tag = if settled {
                0
            } else {
                self.unsettled += 1;
                let due = holder.due(now);
                self.wake = self.wake.min(due);
                if by_position {
                    holder.unsettled.add_at(message.position.saturating_add(1), message.clone(), due)
                } else {
                    holder.unsettled.add(message.clone(), due)
                }
            };
            if J::RECORDS && message.logged {
                let run = if settled { &mut gone } else { &mut given };
                match run.join(message.priority, message.position) {
                    Some((priority, range)) if settled => self.journal.gone(priority, range, Gone::Accepted),
                    Some((priority, range)) => self.journal.given(priority, range),
                    None => {}
                }
            }
            out.push(Assignment { consumer: holder.id, tag, settled, age: message.age(now), message });
            if !alone {
                self.rotation.turn(1);
            }
        }
        if lot.left > 0
            && let Some(wants) = self.holders.get(lot.at).and_then(|holder| holder.wants.as_ref())
            && let Some(credit) = &wants.credit
        {
            credit.give_back(lot.left);
        }
        if let Some((priority, range)) = given.end() {
            self.journal.given(priority, range);
        }
        if let Some((priority, range)) = gone.end() {
            self.journal.gone(priority, range, Gone::Accepted);
        }
    }

    /// Takes the next message for somebody who asks (AMQP's `basic.get`): unsettled under `key` on `lane` unless
    /// `settled`. One key serves all fetches of a lane and counts its tags on until the lane goes.
    pub fn fetch(
        &mut self,
        now: Millis,
        key: ConsumerId,
        lane: LaneId,
        settled: bool,
    ) -> Option<Assignment<B>> {
        self.touch(now);
        self.drop_expired(now);
        let message = match (self.has_head() && !self.held, self.careful) {
            (false, _) => None,
            (true, false) => self.ready.pop(),
            (true, true) => self.pop_for(now, self.holders.find(key)),
        };
        self.note_head();
        let message = message?;
        let mut tag = 0;
        if J::RECORDS && message.logged {
            let positions = message.position..message.position.saturating_add(1);
            match settled {
                true => self.journal.gone(message.priority, positions, Gone::Accepted),
                false => self.journal.given(message.priority, positions),
            }
        }
        if !settled {
            let at = self.holders.hold(key, lane, self.limits.ack_timeout);
            self.gave(message.key, at);
            let holder = self.holders.get_mut(at)?;
            holder.fetches = true;
            holder.set_ack_timeout(self.limits.ack_timeout);
            let due = holder.due(now);
            tag = holder.unsettled.add(message.clone(), due);
            self.unsettled += 1;
            self.wake = self.wake.min(due);
        }
        Some(Assignment { consumer: key, tag, settled, age: message.age(now), message })
    }

    /// Gives a consumer all that it has not settled, nor said that it has, once more, with the same tags and in order, and begins their
    /// deadlines anew (an MQTT session that is resumed). No credit is taken for them. What was given out as often as it may
    /// be is dead instead; the credit for it is the door's to grant.
    pub fn redeliver(&mut self, now: Millis, consumer: ConsumerId, out: &mut Vec<Assignment<B>>) {
        self.bury_given_often(consumer);
        let Some(holder) = self.holders.find(consumer).and_then(|at| self.holders.get_mut(at)) else {
            return;
        };
        let due = holder.due(now);
        let mut run = Run::default();
        holder.unsettled.repeat(due, |tag, message| {
            if J::RECORDS
                && message.logged
                && let Some((priority, range)) = run.join(message.priority, message.position)
            {
                self.journal.given(priority, range);
            }
            let age = message.age(now);
            out.push(Assignment { consumer, tag, settled: false, age, message: message.clone() });
        });
        if let Some((priority, range)) = run.end() {
            self.journal.given(priority, range);
        }
        self.wake = self.wake.min(due);
    }

    /// Those that a consumer has not settled and cannot be given once more are dead.
    fn bury_given_often(&mut self, consumer: ConsumerId) {
        let Some(limit) = self.limits.delivery_limit else { return };
        let Some(holder) = self.holders.find(consumer).and_then(|at| self.holders.get_mut(at)) else {
            return;
        };
        let mut dead = Vec::new();
        let is_last = |message: &Queued<B>| !message.received && message.attempts >= limit;
        let count = holder.unsettled.take_if(is_last, |message| dead.push(message));
        self.unsettled = self.unsettled.saturating_sub(count.into());
        for mut message in dead {
            message.attempts = message.attempts.saturating_add(1);
            let key = message.key;
            self.took_back(key);
            self.bury(message, DeadReason::DeliveryLimit);
            self.unpark(key);
        }
    }

    /// Lets go the messages at the head whose time is over.
    pub(super) fn drop_expired(&mut self, now: Millis) {
        while self.has_head() && self.ready.first().is_some_and(|head| head.is_expired(now)) {
            let Some(message) = self.ready.pop() else { break };
            let key = message.key;
            self.bury(message, DeadReason::Expired);
            self.unpark(key);
        }
    }

    /// The head may be another one now.
    #[inline]
    pub(super) fn note_head(&mut self) {
        if let Some(head) = self.ready.first() {
            self.wake = self.wake.min(head.deadline);
        }
    }
}

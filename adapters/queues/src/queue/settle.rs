//! Settling, and coming back.

use linkspan_contract::{DeliveryTag, Millis, Settlement};

use super::Queue;
use crate::assignment::Assignment;
use crate::consumer::ConsumerId;
use crate::effect::DeadReason;
use crate::journal::{Gone, Journal, Run};
use crate::offer::Queued;
use crate::ready::ROOM_KEPT;

/// How long what comes back waits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    /// Not at all: its consumer has gone.
    No,
    /// As long as the queue says.
    Retry,
    /// So many milliseconds.
    For(Millis),
}

/// How many of a run were there to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Unsettled until now.
    pub known: u32,
    /// Never given out, settled already, or too late: ignored.
    pub unknown: u32,
}

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// Carries out what a consumer, or who fetched under that number, says about `count` deliveries from `first` on.
    pub fn settle(
        &mut self,
        now: Millis,
        consumer: ConsumerId,
        first: DeliveryTag,
        count: u32,
        outcome: &Settlement,
    ) -> Tally {
        let Some(at) = self.holders.find(consumer) else { return Tally { known: 0, unknown: count } };
        let Some(holder) = self.holders.get_mut(at) else { return Tally { known: 0, unknown: count } };
        if let Settlement::Extend(by) = outcome {
            let due = now.saturating_add(*by);
            let known = if holder.ack_timeout.is_some() {
                self.wake = self.wake.min(due);
                holder.unsettled.extend(first, count, due)
            } else {
                holder.unsettled.count(first, count)
            };
            return Tally { known, unknown: count.saturating_sub(known) };
        }
        if *outcome == Settlement::Receive {
            let known = holder.unsettled.receive(first, count, |message| {
                if J::RECORDS && message.logged {
                    self.journal.received(message);
                }
            });
            return Tally { known, unknown: count.saturating_sub(known) };
        }
        let known = if *outcome == Settlement::Accept {
            let mut run = Run::default();
            let freed = &mut self.freed;
            let known = holder.unsettled.take(first, count, |message| {
                if message.key != 0 {
                    freed.push(message.key);
                }
                if J::RECORDS
                    && message.logged
                    && let Some((priority, range)) = run.join(message.priority, message.position)
                {
                    self.journal.gone(priority, range, Gone::Accepted);
                }
            });
            if let Some((priority, range)) = run.end() {
                self.journal.gone(priority, range, Gone::Accepted);
            }
            known
        } else {
            holder.unsettled.take(first, count, |message| self.coming_back.push(message))
        };
        self.unsettled = self.unsettled.saturating_sub(known.into());
        let stalled = holder.wants.as_mut().is_some_and(|wants| std::mem::take(&mut wants.stalled));
        if holder.unsettled.len() == 0 {
            self.holders.tidy(at);
        }
        if stalled {
            // To be looked at again, and perhaps found to be where it was.
            self.list(at);
        }
        self.free_keys();
        match outcome {
            Settlement::Reject(why) => {
                let mut rejected = std::mem::take(&mut self.coming_back);
                for message in rejected.drain(..) {
                    self.took_back(message.key);
                    self.unpark(message.key);
                    self.bury(message, DeadReason::Rejected(why.clone()));
                }
                self.keep_room(rejected);
            }
            Settlement::Undo => self.undo(),
            Settlement::Release { delay: 0 } => self.come_back(now, Wait::Retry),
            Settlement::Release { delay } => self.come_back(now, Wait::For(*delay)),
            Settlement::Accept | Settlement::Receive | Settlement::Extend(_) => {}
        }
        Tally { known, unknown: count.saturating_sub(known) }
    }

    /// Puts each message in `coming_back` to its place, as if it had not been given out.
    fn undo(&mut self) {
        let mut back = std::mem::take(&mut self.coming_back);
        back.sort_unstable_by_key(|message| message.position);
        // The last first: then each goes to the front of its line.
        while let Some(message) = back.pop() {
            let key = message.key;
            self.took_back(key);
            self.note_return(&message, 0);
            self.make_ready(message);
            self.unpark(key);
        }
        self.keep_room(back);
    }

    /// Takes back an assignment that nobody was told of, because the sink was closed: it is as if it had not been given
    /// out. The consumer is to be removed then; others who share its window, and ran dry, to be resumed.
    pub fn take_back(&mut self, assignment: Assignment<B>) {
        let Assignment { consumer, tag, settled, message, .. } = assignment;
        if settled {
            // It stands before everything that is not in memory.
            self.admit(message, false);
            return;
        }
        if let Some(message) = self.take_one(consumer, tag) {
            let key = message.key;
            self.note_return(&message, 0);
            self.make_ready(message);
            self.unpark(key);
        }
    }

    /// A delivery that is not to be settled by its consumer, whose window has room for another one.
    fn take_one(&mut self, consumer: ConsumerId, tag: DeliveryTag) -> Option<Queued<B>> {
        let at = self.holders.find(consumer)?;
        let holder = self.holders.get_mut(at)?;
        let mut own = None;
        holder.unsettled.take(tag, 1, |message| own = Some(message));
        if let Some(credit) = holder.wants.as_ref().and_then(|wants| wants.credit.as_ref())
            && own.is_some()
        {
            credit.give_back(1);
        }
        self.holders.tidy(at);
        self.unsettled = self.unsettled.saturating_sub(u64::from(own.is_some()));
        if let Some(message) = &own {
            self.took_back(message.key);
        }
        own
    }

    /// An assignment that nobody is to have any more counts as accepted, and takes none of the consumer's window.
    pub fn waive(&mut self, assignment: Assignment<B>) {
        let Assignment { consumer, tag, settled, .. } = assignment;
        if settled {
            return;
        }
        let Some(message) = self.take_one(consumer, tag) else { return };
        self.unpark(message.key);
        if J::RECORDS && message.logged {
            let positions = message.position..message.position.saturating_add(1);
            self.journal.gone(message.priority, positions, Gone::Accepted);
        }
    }

    /// Counts an attempt of each message in `coming_back` and puts it to its place, when it has waited, or buries it.
    pub(super) fn come_back(&mut self, now: Millis, wait: Wait) {
        if self.coming_back.is_empty() {
            return;
        }
        let mut back = std::mem::take(&mut self.coming_back);
        back.sort_unstable_by_key(|message| message.position);
        for message in &mut back {
            message.attempts = message.attempts.saturating_add(1);
        }
        if self.keys.is_some() {
            back.iter().for_each(|message| self.took_back(message.key));
        }
        if let Some(limit) = self.limits.delivery_limit {
            for message in back.extract_if(.., |message| message.attempts > limit) {
                let key = message.key;
                self.bury(message, DeadReason::DeliveryLimit);
                self.unpark(key);
            }
        }
        // The last first: then each goes to the front of its line.
        while let Some(message) = back.pop() {
            let wait = match wait {
                Wait::No => 0,
                Wait::Retry => self.limits.retry.map_or(0, |retry| retry.after(message.attempts)),
                Wait::For(millis) => millis,
            };
            let not_before = now.saturating_add(wait);
            self.note_return(&message, not_before);
            let key = message.key;
            self.stand_by(now, message, not_before);
            // Of a higher level there may be one that need not wait for it.
            self.unpark(key);
        }
        self.keep_room(back);
    }

    /// Buries what is here and has come back too often: the limit is another one than when it came back.
    pub(super) fn bury_overdone(&mut self) {
        let Some(limit) = self.limits.delivery_limit else { return };
        let is_overdone = |message: &Queued<B>| message.attempts > limit;
        // They are looked at again in their turn.
        self.unpark_all();
        for message in self.ready.take_out(is_overdone) {
            self.bury(message, DeadReason::DeliveryLimit);
        }
        for message in self.delayed.take_out(is_overdone) {
            self.has_waited(&message);
            self.bury(message, DeadReason::DeliveryLimit);
        }
    }

    /// Whether it was given out for the last time when the process that did so ended.
    pub(super) fn is_overdone(&self, message: &Queued<B>) -> bool {
        self.limits.delivery_limit.is_some_and(|limit| message.attempts > limit)
    }

    fn note_return(&mut self, message: &Queued<B>, not_before: Millis) {
        if J::RECORDS && message.logged {
            self.journal.returned(message, not_before);
        }
    }

    fn keep_room(&mut self, mut room: Vec<Queued<B>>) {
        room.shrink_to(ROOM_KEPT);
        self.coming_back = room;
    }
}

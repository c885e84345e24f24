//! A queue whose lock is held: it changes in one step with others.

use std::sync::Arc;

use linkspan_contract::{DeliveryTag, Millis, Refused, Settlement};
use linkspan_queues::log::{Commit, Lsn};
use linkspan_queues::{Assignment, ConsumerId, Journal, Pushed};
use parking_lot::MutexGuard;

use super::{Queue, Said, State, dropped};
use crate::archive::Archive;
use crate::brake::Brakes;
use crate::outlet::Touched;
use crate::parcel::{Counts, Parcel};
use crate::repeats::Repeats;
use crate::scratch::Scratch;

/// What is done to it is seen by nobody before it is let go. Who locks several takes them by their addresses, and
/// sessions behind them.
pub(crate) struct Locked<'q> {
    queue: &'q Arc<Queue>,
    state: MutexGuard<'q, State>,
    /// Given out by the engine, and not yet to the sinks.
    assignments: Vec<Assignment<Parcel>>,
}

impl Queue {
    pub(crate) fn lock(self: &Arc<Self>) -> Locked<'_> {
        Locked { queue: self, state: self.state.lock(), assignments: Vec::new() }
    }
}

impl<'q> Locked<'q> {
    /// Refuses messages that cannot be written down, and those that the queue would refuse, also when what is ready goes to those who can take it. A shared
    /// subscription refuses nothing.
    pub(crate) fn check_room(
        &mut self,
        messages: u64,
        (bytes, bodies): (u64, u64),
        durable: bool,
        now: Millis,
    ) -> Result<(), Refused> {
        // What waits for the disk from before goes first: some of it may be settled now.
        let writes = self.state.write(self.queue) || !self.state.engine.journal().is_stuck();
        if !writes || messages > 0 && !self.state.engine.journal().takes(durable, false) {
            return Err(self.state.unwritable());
        }
        let bytes = if self.state.counts == Counts::Body { bodies } else { bytes };
        let State { engine, is_group, is_inbox, .. } = &mut *self.state;
        if *is_group || *is_inbox || engine.has_room(messages, bytes) {
            return Ok(());
        }
        engine.dispatch(now, &mut self.assignments);
        if engine.has_room(messages, bytes) {
            return Ok(());
        }
        let name = &self.queue.name;
        Err(Refused::Full(format!("queue '{name}' has no room for all that the transaction publishes to it")))
    }

    /// From now on it takes what it is given, though the disk may refuse it meanwhile, and gives nothing out when what it is
    /// given has to be safe first.
    pub(crate) fn begin(&mut self, has_to_be_safe: bool) {
        let engine = &mut self.state.engine;
        engine.journal_mut().make_certain(true);
        if has_to_be_safe {
            engine.hold(true);
        }
    }

    /// It was given everything, and nothing is given out before everything up to `lsn` is safe.
    pub(crate) fn end(&mut self, lsn: Option<(Lsn, &Archive)>) {
        self.state.engine.journal_mut().make_certain(false);
        if let Some((lsn, archive)) = lsn
            && archive.release_when_safe(lsn, self.queue)
        {
            self.state.held = lsn;
        }
        let held = self.state.held > 0;
        self.state.engine.hold(held);
    }

    /// Something is to be written.
    pub(crate) fn has_gathered(&mut self) -> bool {
        self.gathered().is_some_and(|gathered| !gathered.is_empty())
    }

    /// What is to be written.
    pub(crate) fn gathered(&mut self) -> Option<&mut Commit> {
        self.state.engine.journal_mut().gathered()
    }

    /// The log did not take what it and others had gathered, which waits under that place: so does what comes behind it.
    pub(crate) fn wait_behind(&mut self, place: Lsn) {
        let journal = self.state.engine.journal_mut();
        journal.wait_behind(place);
        journal.ask_again(self.queue);
    }

    /// True when it has taken it.
    pub(crate) fn push(&mut self, message: Parcel, now: Millis) -> bool {
        if self.state.ended {
            dropped("queue-deleted", 1);
            return false;
        }
        let via = message.via;
        let offer = self.state.offer(message);
        let pushed = self.state.engine.push(now, offer, &mut self.assignments);
        match pushed {
            Pushed::Queued => {}
            Pushed::Refused if self.state.is_inbox => {
                dropped("session-full", 1);
                self.state.overrun(Parcel::number(via));
            }
            Pushed::Refused => dropped(if self.state.is_group { "group-full" } else { "queue-full" }, 1),
            // That was asked before all began.
            Pushed::Unwritable => dropped("unwritable", 1),
        }
        pushed == Pushed::Queued
    }

    /// It has taken a message that it had not seen, or not.
    pub(crate) fn keep_seen(&mut self, repeats: &Repeats, id: u128, taken: bool, durable: bool, now: Millis) {
        self.state.keep_seen(repeats, id, taken, durable, now);
    }

    /// Tells how many of these deliveries were there.
    pub(crate) fn settle(
        &mut self,
        consumer: ConsumerId,
        first: DeliveryTag,
        count: u32,
        outcome: &Settlement,
        now: Millis,
    ) -> u32 {
        self.queue.gate.progress(now);
        self.state.engine.settle(now, consumer, first, count, outcome).known
    }

    /// Gives out what can be given, and notes who holds the publisher.
    pub(crate) fn hand_out(&mut self, client: u64, now: Millis, touched: &mut Touched, brakes: &mut Brakes) {
        Scratch::with(|scratch| {
            scratch.assignments.append(&mut self.assignments);
            self.state.hand_out(now, scratch, touched);
        });
        if self.state.congested > 0 && !self.state.engine.is_empty() {
            self.state.brake(brakes);
        }
        if let Some(until) = self.queue.held(&self.state, client, now) {
            brakes.queue(self.queue, until);
        }
    }

    /// Lets go of it; yields what the engine has to say.
    pub(crate) fn release(mut self, now: Millis) -> (&'q Arc<Queue>, Said) {
        let said = self.queue.note(&mut self.state, now);
        (self.queue, said)
    }
}

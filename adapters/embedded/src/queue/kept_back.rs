//! What a session's queue gives out, and its client must not see before that is safe.
//!
//! A client that has seen a message of QoS 2 takes another one under the same packet identifier for that one. So neither the
//! message nor that it was given out may be forgotten: else its place, of which the identifier is made, would be another's.
//! Both are of one commit where the message goes straight through.

use std::collections::VecDeque;
use std::sync::Arc;

use linkspan_contract::Flags;
use linkspan_queues::Assignment;
use linkspan_queues::log::Lsn;

use super::{Queue, State};
use crate::outlet::Touched;
use crate::parcel::Parcel;
use crate::scratch::Scratch;

/// When so many messages are kept back no more are given out before some of them are safe,
const MOST: usize = 256;

/// or so many bytes.
const MOST_BYTES: u64 = 256 << 10;

/// Assignments that wait for the log, in their order.
#[derive(Debug, Default)]
pub(super) struct KeptBack {
    /// Where what is written of each lot ends in the log; none before it is written.
    lots: VecDeque<(Option<Lsn>, Vec<Assignment<Parcel>>)>,
    /// What the log has been asked to tell of.
    awaited: Lsn,
    messages: usize,
    bytes: u64,
}

impl KeptBack {
    /// Whether there is something.
    pub(super) fn is_empty(&self) -> bool {
        self.lots.is_empty()
    }

    /// Whether no more is to come before some of it has gone.
    pub(super) fn is_full(&self) -> bool {
        self.messages >= MOST || self.bytes >= MOST_BYTES
    }

    fn push(&mut self, lot: Vec<Assignment<Parcel>>) {
        self.messages += lot.len();
        self.bytes += size(&lot);
        self.lots.push_back((None, lot));
    }

    fn pop(&mut self) -> Option<Vec<Assignment<Parcel>>> {
        let (_, lot) = self.lots.pop_front()?;
        self.messages -= lot.len();
        self.bytes -= size(&lot);
        Some(lot)
    }

    /// Forgets all, but for what the log has been asked for; yields it.
    fn take(&mut self) -> VecDeque<(Option<Lsn>, Vec<Assignment<Parcel>>)> {
        (self.messages, self.bytes) = (0, 0);
        std::mem::take(&mut self.lots)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.take();
    }

    /// The log has told what it was asked for.
    pub(super) fn told(&mut self) {
        self.awaited = 0;
    }
}

/// Bytes that messages have in memory.
fn size(lot: &[Assignment<Parcel>]) -> u64 {
    lot.iter().map(|assignment| assignment.message.size).sum()
}

impl State {
    /// Keeps back what is to be given out now; false when there is no need to.
    pub(super) fn keep_back(&mut self, scratch: &mut Scratch) -> bool {
        if !self.is_inbox {
            return false;
        }
        let found_below = self.engine.journal_mut().desk().map_or(0, |desk| desk.found_below);
        let is_once = |assignment: &Assignment<Parcel>| {
            let message = &assignment.message;
            // That it was given out the log has said itself.
            let is_known = message.received || message.attempts > 0 && message.position < found_below;
            let Parcel { batch, at, .. } = &message.body;
            let flags = batch.messages().get(*at as usize).map(|message| message.flags);
            !is_known && flags.is_some_and(|flags| flags.has(Flags::EXACTLY_ONCE))
        };
        let waits = !self.kept_back.is_empty() || scratch.assignments.iter().any(is_once);
        if waits {
            self.kept_back.push(std::mem::take(&mut scratch.assignments));
        }
        waits
    }

    /// Gives out what is safe by now, as long as the sink takes it.
    pub(super) fn give_kept_back(&mut self, scratch: &mut Scratch, touched: &mut Touched) {
        while self.congested == 0
            && let Some((Some(lsn), _)) = self.kept_back.lots.front()
        {
            let safe = self.engine.journal_mut().desk().is_none_or(|desk| desk.archive.is_safe(*lsn));
            if !safe {
                return;
            }
            let Some(mut lot) = self.kept_back.pop() else { return };
            if let Some(consumer) = lot.first().map(|first| first.consumer)
                && self.give(consumer, &mut lot, scratch, touched)
            {
                // Nobody is there; what is behind it comes back before it, and is given behind it.
                return self.take_kept_back();
            }
        }
    }

    /// What is kept back was not given out.
    pub(super) fn take_kept_back(&mut self) {
        for (_, lot) in self.kept_back.take().into_iter().rev() {
            lot.into_iter().rev().for_each(|assignment| self.engine.take_back(assignment));
        }
    }

    /// What was kept back is written, or was before: has the log tell when it is safe.
    #[inline]
    pub(super) fn await_kept_back(&mut self, queue: &Arc<Queue>) {
        if !self.kept_back.is_empty() {
            self.await_lots(queue);
        }
    }

    fn await_lots(&mut self, queue: &Arc<Queue>) {
        let is_congested = self.congested > 0;
        let Some(desk) = self.engine.journal_mut().desk() else { return };
        let archive = Arc::clone(&desk.archive);
        let written = archive.written();
        for (lsn, _) in self.kept_back.lots.iter_mut().rev().take_while(|(lsn, _)| lsn.is_none()) {
            *lsn = Some(written);
        }
        let Some(&(Some(first), _)) = self.kept_back.lots.front() else { return };
        // Its lane says when the sink takes more.
        if !is_congested && self.kept_back.awaited != first {
            self.kept_back.awaited = first;
            if !archive.release_when_safe(first, queue) {
                self.kept_back.told();
                queue.look_soon();
            }
        }
    }
}

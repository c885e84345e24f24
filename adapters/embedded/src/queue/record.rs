//! What a queue tells the log.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use linkspan_contract::Millis;
use linkspan_queues::log::{Commit, Lsn, QueueState, Window};
use linkspan_queues::{Diary, Gone, Journal, Position, Queue as Engine, Queued, remembered};

use super::Queue;
use crate::archive::{Archive, LEVELS, NotTaken};
use crate::parcel::Parcel;
use crate::written::Written;

/// The journal of a queue; that of a back end in memory records nothing.
#[derive(Debug, Default)]
pub(crate) struct Record {
    desk: Option<Box<Desk>>,
}

/// Where a queue's journal is written.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) archive: Arc<Archive>,
    pub(crate) diary: Diary<Written>,
    /// The queue outlives the process.
    durable: bool,
    /// Messages that stood before it when the queue was found in the log are there only if they are durable.
    pub(crate) found_below: Position,
}

impl Desk {
    /// Subscriptions of a session's queue that have ended while messages of theirs were in it.
    pub(crate) fn ended(&self) -> BTreeSet<u32> {
        let numbers = self.archive.keys(self.diary.number());
        numbers.iter().filter_map(|key| Some(u32::from_le_bytes(*key.first_chunk()?))).collect()
    }

    /// One more.
    pub(crate) fn note_ended(&mut self, number: u32) {
        // Shorter than what a record may have.
        let _ = self.diary.commit.put(self.diary.number(), &number.to_le_bytes(), &[]);
    }
}

impl Desk {
    /// One that was noted has not ended.
    pub(crate) fn note_begun(&mut self, number: u32) {
        let _ = self.diary.commit.delete(self.diary.number(), &number.to_le_bytes());
    }
}

impl Record {
    /// For the queue that the register knows by this number; without one it ends with the process.
    pub(crate) fn new(archive: &Arc<Archive>, number: Option<u64>) -> Self {
        let first = number.map(|number| number.saturating_mul(LEVELS));
        let number_of_log = first.unwrap_or_else(|| archive.passing_number());
        let diary = Diary::new(number_of_log, Written::new(archive));
        let archive = Arc::clone(archive);
        Self { desk: Some(Box::new(Desk { archive, diary, durable: number.is_some(), found_below: 0 })) }
    }

    pub(crate) fn desk(&mut self) -> Option<&mut Desk> {
        self.desk.as_deref_mut()
    }

    /// Hands to the log what has gathered, and tells where it ends, when there was something. The queue's lock is held.
    ///
    /// # Errors
    /// When the log does not take it: it stays, unless the log was closed.
    #[inline]
    pub(crate) fn write(&mut self) -> Result<Option<Lsn>, NotTaken> {
        let Some(desk) = self.desk.as_mut().filter(|desk| !desk.diary.commit.is_empty()) else {
            return Ok(None);
        };
        if let Some(why) = desk.diary.refused.take() {
            tracing::error!(%why, "a message could not be written down");
        }
        desk.archive.write(&mut desk.diary.commit).map(Some)
    }

    /// True when something has gathered that the log did not take.
    pub(crate) fn is_stuck(&self) -> bool {
        self.desk.as_ref().is_some_and(|desk| !desk.diary.commit.is_empty())
    }

    /// Has the log ask again when it takes writes.
    pub(crate) fn ask_again(&self, queue: &Arc<Queue>) {
        if let Some(desk) = &self.desk {
            desk.archive.ask_again(queue);
        }
    }

    /// What has gathered, to be written together with others'.
    pub(crate) fn gathered(&mut self) -> Option<&mut Commit> {
        self.desk.as_mut().map(|desk| &mut desk.diary.commit)
    }

    /// Whose death is to be written behind what becomes of them.
    pub(crate) fn dead(&mut self) -> Commit {
        self.desk.as_mut().map(|desk| std::mem::take(&mut desk.diary.dead)).unwrap_or_default()
    }
}

/// Counts in a new queue what the log has of it; [`State::fill`](super::State) brings it in.
pub(super) fn remember(engine: &mut Engine<Parcel, Record>) {
    let levels = engine.limits().max_priority;
    let is_bounded = engine.limits().max_length.is_some() || engine.limits().max_bytes.is_some();
    let Some(desk) = engine.journal_mut().desk() else { return };
    let (archive, number) = (Arc::clone(&desk.archive), desk.diary.number());
    let mut next = 0;
    for priority in 0..=levels {
        let Some(found) = archive.found(number.saturating_add(priority.into())) else { continue };
        next = next.max(found.next);
        let (len, bytes) = if is_bounded {
            counted(&archive, &found)
        } else {
            (found.len, found.bytes.saturating_sub(found.len.saturating_mul(Written::BESIDE)))
        };
        engine.leave_outside(priority, 0, len, bytes, found.next);
    }
    if let Some(desk) = engine.journal_mut().desk() {
        desk.found_below = next;
    }
}

/// What a queue of the log has that outlives a process, and what that counts: to the message and byte, for what is beyond a
/// limit is let go. What does not is taken out.
fn counted(archive: &Archive, found: &QueueState) -> (u64, u64) {
    let (mut len, mut bytes, mut from) = (0, 0_u64, 0);
    let (mut window, mut passing) = (Window::new(), Commit::new());
    loop {
        archive.read(found.queue, from, 4096, 1 << 20, &mut window);
        let Some(last) = window.messages().map(|read| read.sequence).last() else { break };
        for (message, _) in window.messages().filter_map(|read| remembered(&read)) {
            if message.durable {
                len += 1;
                bytes = bytes.saturating_add(message.size);
            } else {
                passing.gone(found.queue, message.position..message.position.saturating_add(1));
            }
        }
        from = last.saturating_add(1);
    }
    archive.write_behind(&mut passing);
    (len, bytes)
}

impl Journal<Parcel> for Record {
    #[inline]
    fn takes(&self, durable: bool, paged: bool) -> bool {
        let Some(desk) = &self.desk else { return true };
        !(paged || durable && desk.durable) || !desk.archive.is_failed()
    }

    #[inline]
    fn queued(&mut self, message: &Queued<Parcel>, paged: bool) -> bool {
        let Some(desk) = &mut self.desk else { return false };
        (paged || message.durable && desk.durable) && desk.diary.queued(message, true)
    }

    fn given(&mut self, priority: u8, positions: Range<Position>) {
        if let Some(desk) = &mut self.desk {
            Journal::<Parcel>::given(&mut desk.diary, priority, positions);
        }
    }

    fn returned(&mut self, message: &Queued<Parcel>, not_before: Millis) {
        if let Some(desk) = &mut self.desk {
            desk.diary.returned(message, not_before);
        }
    }

    fn gone(&mut self, priority: u8, positions: Range<Position>, how: Gone) {
        if let Some(desk) = &mut self.desk {
            Journal::<Parcel>::gone(&mut desk.diary, priority, positions, how);
        }
    }
}

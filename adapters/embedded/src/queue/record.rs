//! What a queue tells the log.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use linkspan_contract::Millis;
use linkspan_queues::log::{Commit, Lsn, Window};
use linkspan_queues::{Diary, Gone, Journal, Position, Queue as Engine, Queued, remembered};

use super::Queue;
use crate::archive::{Archive, LEVELS, NotTaken, SEEN};
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
    /// The place of what the log has refused last, for it had no room, and 0 when it has everything: what comes waits behind it.
    stuck: Lsn,
    /// It is certain that all that comes is written, sooner or later: asked before.
    certain: bool,
    /// Messages that stood before it when the queue was found in the log are there only if they are durable.
    pub(crate) found_below: Position,
}

impl Desk {
    /// From now on the queue outlives the process; true when it did before.
    pub(crate) const fn keep(&mut self) -> bool {
        std::mem::replace(&mut self.durable, true)
    }

    /// Sessions that share a shared subscription's queue.
    pub(crate) fn members(&self) -> BTreeSet<Arc<str>> {
        let keys = self.archive.keys(self.diary.number());
        keys.iter().filter_map(|key| Some(std::str::from_utf8(key).ok()?.into())).collect()
    }

    /// One more.
    pub(crate) fn note_member(&mut self, member: &str) {
        // Shorter than what a record may have, as all identifiers are.
        let _ = self.diary.commit.put(self.diary.number(), member.as_bytes(), &[]);
    }

    /// One less.
    pub(crate) fn forget_member(&mut self, member: &str) {
        let _ = self.diary.commit.delete(self.diary.number(), member.as_bytes());
    }

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
    /// As [`Record::write`].
    fn write(&mut self) -> Result<Option<Lsn>, (NotTaken, Option<Lsn>)> {
        let Self { archive, diary, stuck, .. } = self;
        if let Some(why) = diary.refused.take() {
            tracing::error!(%why, "a message could not be written down");
        }
        if *stuck > 0 && archive.has_taken(*stuck) {
            *stuck = 0;
        }
        if *stuck == 0 {
            match archive.write(&mut diary.commit) {
                Ok(lsn) => return Ok(Some(lsn)),
                Err(NotTaken) if diary.commit.is_empty() => return Err((NotTaken, None)),
                Err(NotTaken) => {}
            }
        }
        // What has gone makes room: said at once, and once more behind what waits, for some of that may be among it.
        let mut frees = diary.commit.frees();
        if !diary.commit.is_empty() {
            *stuck = archive.put_off(&mut diary.commit);
        }
        let written = if frees.is_empty() { None } else { archive.write(&mut frees).ok() };
        Err((NotTaken, written))
    }

    /// One that was noted has not ended.
    pub(crate) fn note_begun(&mut self, number: u32) {
        let _ = self.diary.commit.delete(self.diary.number(), &number.to_le_bytes());
    }
}

impl Record {
    /// For the queue that has this number, in the register when it is `durable`; without one it ends with the process.
    pub(crate) fn new(archive: &Arc<Archive>, number: Option<u64>, durable: bool) -> Self {
        let first = number.map(|number| number.saturating_mul(LEVELS));
        let number_of_log = first.unwrap_or_else(|| archive.passing_number());
        let diary = Diary::new(number_of_log, Written::new(archive));
        let archive = Arc::clone(archive);
        Self {
            desk: Some(Box::new(Desk {
                archive,
                diary,
                durable: durable && number.is_some(),
                stuck: 0,
                certain: false,
                found_below: 0,
            })),
        }
    }

    /// True when the queue outlives the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.desk.as_ref().is_some_and(|desk| desk.durable)
    }

    /// True when bodies in its log are known to be damaged.
    #[inline]
    pub(crate) fn has_lost(&self) -> bool {
        self.desk.as_ref().is_some_and(|desk| desk.archive.has_lost())
    }

    pub(crate) fn desk(&mut self) -> Option<&mut Desk> {
        self.desk.as_deref_mut()
    }

    /// Hands to the log what has gathered, and tells where it ends, when there was something. The queue's lock is held.
    ///
    /// # Errors
    /// When the log does not take all of it, with where that ends which it took: what makes room. The rest stays, unless
    /// the log was closed.
    #[inline]
    pub(crate) fn write(&mut self) -> Result<Option<Lsn>, (NotTaken, Option<Lsn>)> {
        match self.desk.as_mut().filter(|desk| !desk.diary.commit.is_empty() || desk.stuck > 0) {
            Some(desk) => desk.write(),
            None => Ok(None),
        }
    }

    /// The place of what the log did not take, which waits for it; 0 when there is nothing.
    pub(crate) fn stuck(&self) -> Lsn {
        self.desk.as_ref().map_or(0, |desk| desk.stuck)
    }

    /// True when the log did not take something, which waits for it.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck() > 0
    }

    /// Whether what comes is to be taken though it may have to wait for the disk: one commit with others', for all of which
    /// there was room.
    pub(crate) fn make_certain(&mut self, certain: bool) {
        if let Some(desk) = &mut self.desk {
            desk.certain = certain;
        }
    }

    /// The log did not take a commit with others, which has that place among what waits.
    pub(crate) fn wait_behind(&mut self, place: Lsn) {
        if let Some(desk) = &mut self.desk {
            desk.stuck = place;
        }
    }

    /// Has the queue write again when the log takes writes.
    pub(crate) fn ask_again(&self, queue: &Arc<Queue>) {
        if let Some(desk) = &self.desk
            && !desk.archive.ask_again(queue)
        {
            queue.look_in_a_moment();
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
pub(super) fn remember(engine: &mut Engine<Parcel, Record>, now: Millis) {
    let levels = engine.limits().max_priority;
    let is_bounded = engine.limits().max_length.is_some() || engine.limits().max_bytes.is_some();
    let Some(desk) = engine.journal_mut().desk() else { return };
    let (archive, number) = (Arc::clone(&desk.archive), desk.diary.number());
    // Its route says what becomes of what it has seen.
    archive.found(number | SEEN);
    let mut next = 0;
    for priority in 0..=levels {
        let Some(found) = archive.found(number.saturating_add(priority.into())) else { continue };
        next = next.max(found.next);
        let bytes = found.bytes.saturating_sub(found.len.saturating_mul(Written::BESIDE));
        let size = bytes.checked_div(found.len).unwrap_or(0);
        let mut waiting = 0;
        for (positions, until) in archive.held_back(found.queue, now) {
            for position in positions {
                engine.leave_waiting(priority, position, size, until);
                waiting += 1;
            }
        }
        let (len, bytes) = if is_bounded {
            counted(&archive, found.queue, 0, found.next, engine)
        } else {
            (found.len.saturating_sub(waiting), bytes.saturating_sub(size.saturating_mul(waiting)))
        };
        engine.leave_outside(priority, 0, len, bytes, found.next);
    }
    if let Some(desk) = engine.journal_mut().desk() {
        desk.found_below = next;
    }
}

/// Counts better what a queue has in the log alone, now that it has a limit.
pub(super) fn recount(engine: &mut Engine<Parcel, Record>) {
    for priority in 0..=engine.limits().max_priority {
        let Some(from) = engine.outside(priority) else { continue };
        let Some(desk) = engine.journal_mut().desk() else { return };
        let number = desk.diary.number().saturating_add(priority.into());
        let (archive, found_below) = (Arc::clone(&desk.archive), desk.found_below);
        if from < found_below {
            let (len, bytes) = counted(&archive, number, from, found_below, engine);
            engine.recount(priority, len, bytes);
        }
    }
}

/// What a queue of the log has from a position on, and what that counts: to the message and byte, for what is beyond a
/// limit is let go. What stood before `found_below` and does not outlive a process is taken out.
fn counted(
    archive: &Archive,
    number: u64,
    from: Position,
    found_below: Position,
    engine: &Engine<Parcel, Record>,
) -> (u64, u64) {
    let (mut len, mut bytes, mut from) = (0, 0_u64, from);
    let (mut window, mut passing) = (Window::new(), Commit::new());
    loop {
        archive.read(number, from, 4096, 1 << 20, &mut window);
        let Some(last) = window.messages().map(|read| read.sequence).last() else { break };
        for (message, not_before) in window.messages().filter_map(|read| remembered(&read)) {
            // What is held back does not count.
            let is_held_back = engine.awaits(&message, not_before);
            if !message.durable && message.position < found_below {
                if !is_held_back {
                    passing.gone(number, message.position..message.position.saturating_add(1));
                }
            } else if !is_held_back {
                len += 1;
                bytes = bytes.saturating_add(message.size);
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
        let Some(desk) = self.desk.as_ref().filter(|desk| !desk.certain) else { return true };
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

    fn received(&mut self, message: &Queued<Parcel>) {
        if let Some(desk) = &mut self.desk {
            desk.diary.received(message);
        }
    }

    fn gone(&mut self, priority: u8, positions: Range<Position>, how: Gone) {
        if let Some(desk) = &mut self.desk {
            Journal::<Parcel>::gone(&mut desk.diary, priority, positions, how);
        }
    }
}

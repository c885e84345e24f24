//! Messages that are published again: what a queue knows of those that were published to it, by what its route says makes
//! them the same. What is durable of that lies in the log as messages of a queue of its own, beside the levels of the queue
//! that it belongs to, and is written in one commit with the message itself: 16 bytes that identify the message, and when
//! it came, 8 bytes, little-endian.

use std::sync::Arc;

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use linkspan_contract::{Attribute, Batch, Deduplicate, Flags, Message, Millis};
use linkspan_queues::Seen;
use linkspan_queues::log::{Commit, Window};
use parking_lot::{Condvar, Mutex};

use crate::archive::{Archive, SEEN};

/// What one queue has seen.
#[derive(Debug)]
pub(crate) struct Repeats {
    by: Attribute,
    /// Its number in the log.
    number: u64,
    /// Who publishes to it.
    alone: Arc<Alone>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: Seen,
    /// Where the next one stands in the log.
    next: u64,
}

/// A message that a queue has not seen, and has still to take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fresh {
    /// The queue's number.
    pub(crate) of: u64,
    /// The message's place in its batch.
    pub(crate) place: u32,
    pub(crate) id: u128,
}

/// Identifiers that are read at once.
const MESSAGES: usize = 8192;
const BYTES: u64 = 1 << 20;

impl Repeats {
    /// Of the queue whose lowest level has this number in the log, if there is one, with what that has of it.
    pub(crate) fn open(how: &Deduplicate, queue: u64, archive: Option<&Archive>, now: Millis) -> Self {
        let mut state = State { seen: Seen::new(how.window), next: 0 };
        let number = queue | SEEN;
        if let Some(archive) = archive {
            let mut window = Window::new();
            loop {
                archive.read(number, state.next, MESSAGES, BYTES, &mut window);
                let before = state.next;
                for read in window.messages() {
                    state.next = read.sequence.saturating_add(1);
                    if let Some((id, seen)) = read.payload.split_first_chunk::<16>()
                        && let Some(seen) = seen.first_chunk::<8>()
                    {
                        let (id, seen) = (u128::from_le_bytes(*id), u64::from_le_bytes(*seen));
                        state.seen.restore(id, seen, read.sequence, now);
                    }
                }
                if state.next == before {
                    break;
                }
            }
            state.next = state.next.max(archive.next_of(number));
        }
        Self { by: how.by.clone(), number, alone: Arc::default(), state: Mutex::new(state) }
    }

    /// Which queue's it is.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// True when it does what is asked.
    pub(crate) fn is(&self, how: &Deduplicate) -> bool {
        self.by == how.by && self.state.lock().seen.window() == how.window
    }

    /// What identifies a message, when it says it.
    pub(crate) fn id(&self, batch: &Batch<'_>, message: &Message) -> Option<u128> {
        let bytes = self.by.of(batch, message)?;
        // Nobody can make two that are the same.
        let digest: [u8; 16] = Blake2b::<U16>::digest(bytes).into();
        Some(u128::from_le_bytes(digest))
    }

    /// True when the queue has not seen it; it has from now on.
    pub(crate) fn enter(&self, id: u128, now: Millis) -> bool {
        self.state.lock().seen.enter(id, now)
    }

    /// Nobody has asked the queue to take it.
    pub(crate) fn withdraw(&self, id: u128) {
        self.state.lock().seen.withdraw(id);
    }

    /// The queue has not taken it: lets go of what is over.
    pub(crate) fn refuse(&self, id: u128, now: Millis, commit: Option<&mut Commit>) {
        let mut state = self.state.lock();
        state.seen.withdraw(id);
        if let (Some(over), Some(commit)) = (state.seen.let_go(now), commit) {
            commit.gone(self.number, over);
        }
    }

    /// The queue has taken it: adds that to what is written of the message, where it is to outlive the process, and lets
    /// go of what is over.
    pub(crate) fn keep(&self, id: u128, durable: bool, now: Millis, commit: Option<&mut Commit>) {
        let mut state = self.state.lock();
        let State { seen, next } = &mut *state;
        let over = seen.let_go(now);
        let Some(commit) = commit else { return };
        if durable {
            let mut payload = [0; 24];
            let (place, when) = payload.split_at_mut(16);
            place.copy_from_slice(&id.to_le_bytes());
            when.copy_from_slice(&now.to_le_bytes());
            // Shorter than what a record may have.
            let _ = commit.message(self.number, *next, &payload);
            seen.recorded(*next);
            *next = next.saturating_add(1);
        }
        if let Some(over) = over {
            commit.gone(self.number, over);
        }
    }
}

/// Who publishes to a queue what may have been published to it before comes alone: when something is found to be known, it is written down
/// as far as it is going to be.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    taken: Mutex<bool>,
    free: Condvar,
}

/// As long as it lives, nobody else is.
struct Turn(Arc<Alone>);

/// The turns of one who publishes to several such queues.
#[derive(Default)]
pub(crate) struct Turns(#[expect(dead_code, reason = "they are held, and end with it")] Vec<Turn>);

impl Turns {
    /// Waits until nobody else publishes to any of these queues. All take their turns in the same order, so that no two wait
    /// for each other; nobody who waits here holds any lock, nor another turn.
    pub(crate) fn take(mut queues: Vec<Arc<Repeats>>) -> Self {
        queues.sort_unstable_by_key(|repeats| (repeats.number, Arc::as_ptr(repeats).addr()));
        queues.dedup_by(|one, next| Arc::ptr_eq(one, next));
        Self(queues.iter().map(|repeats| repeats.alone.take()).collect())
    }
}

impl Alone {
    /// Waits until nobody is.
    fn take(self: &Arc<Self>) -> Turn {
        let mut taken = self.taken.lock();
        while *taken {
            self.free.wait(&mut taken);
        }
        *taken = true;
        Turn(Arc::clone(self))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.taken.lock() = false;
        self.0.free.notify_one();
    }
}

/// True when a message was a dead letter: who publishes it once more does so on purpose.
pub(crate) fn has_died(batch: &Batch<'_>, message: &Message) -> bool {
    message.flags.has(Flags::HEADERS)
        && batch.properties(message).is_ok_and(|properties| properties.header("x-death").is_some())
}

/// Counts what was published again.
pub(crate) fn count(repeated: u32) {
    if repeated > 0 {
        metrics::counter!("linkspan_messages_deduplicated_total").increment(repeated.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_queue(number: u64) -> Arc<Repeats> {
        let how = Deduplicate { by: Attribute::MessageId, window: 1000 };
        Arc::new(Repeats::open(&how, number, None, 0))
    }

    #[test]
    fn who_publishes_to_one_queue_does_not_wait_for_who_publishes_to_another() {
        let (one, other) = (of_queue(1), of_queue(2));
        let held = Turns::take(vec![Arc::clone(&one)]);
        drop(Turns::take(vec![Arc::clone(&other)]));
        let (told, hears) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            let _turns = Turns::take(vec![other, one]);
            told.send(()).unwrap();
        });
        assert!(hears.try_recv().is_err(), "one of the two is taken");
        drop(held);
        hears.recv().unwrap();
        waits.join().unwrap();
    }

    #[test]
    fn who_publishes_to_the_same_queues_in_another_order_is_waited_for_by_nobody_for_ever() {
        let queues: Vec<_> = (0..4).map(of_queue).collect();
        let threads: Vec<_> = (0..4)
            .map(|by| {
                let mut queues = queues.clone();
                std::thread::spawn(move || {
                    for round in 0..500 {
                        queues.rotate_left(by);
                        queues.swap(0, round % 4);
                        drop(Turns::take([&queues[..3], &queues[..1]].concat()));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn what_is_over_goes_also_while_everything_is_refused() {
        let how = Deduplicate { by: Attribute::MessageId, window: 1000 };
        let repeats = Repeats::open(&how, 1, None, 0);
        assert!(repeats.enter(7, 0));
        repeats.keep(7, true, 0, None);
        assert!(repeats.enter(8, 2000));
        repeats.refuse(8, 2000, None);
        assert!(repeats.state.lock().seen.is_empty());
    }
}

//! A queue's journal, gathered for the durable log.

use std::ops::Range;

use linkspan_contract::Millis;

use crate::journal::{Gone, Journal};
use crate::log::{Commit, LogError, Mark, Read};
use crate::offer::{Position, Queued};

/// Bytes that stand before the body in a message's record: since, deadline and size, 8 bytes each; attempts, 4; priority,
/// 1; 1 when it is not durable and only was too much for the memory; two zeros.
const HEAD: usize = 32;

/// Room for the next message that is kept.
const SCRATCH: usize = 64 << 10;

/// How the bodies of a queue are written.
pub trait Encode<B> {
    /// Appends what is to be kept of `body`. When the rest of it lies in the log as a body of its own: that one's number
    /// and length.
    fn encode(&self, body: &B, out: &mut Vec<u8>) -> Option<(u64, u64)>;
}

/// Writes what a queue tells into a [`Commit`]; each of its priorities is a queue of the log. The queue's owner hands that
/// to the log before it lets go of the queue's lock, so that the order of the log is that of the queue. What is not durable
/// is left out as long as the memory has room for it.
#[derive(Debug)]
pub struct Diary<E> {
    queue: u64,
    encode: E,
    scratch: Vec<u8>,
    /// What is to be committed; what else belongs into the same commit may be added.
    pub commit: Commit,
    /// Whose death is to be told behind what became of them.
    pub dead: Commit,
    /// Why a message could not be written.
    pub refused: Option<LogError>,
}

impl<E> Diary<E> {
    /// The journal of the queue whose lowest priority has this number in the log, the others the next ones.
    pub fn new(queue: u64, encode: E) -> Self {
        let (commit, dead) = (Commit::new(), Commit::new());
        Self { queue, encode, scratch: Vec::new(), commit, dead, refused: None }
    }

    /// The number of its lowest priority.
    pub const fn number(&self) -> u64 {
        self.queue
    }

    const fn level(&self, priority: u8) -> u64 {
        self.queue.saturating_add(priority as u64)
    }
}

impl<B, E: Encode<B>> Journal<B> for Diary<E> {
    fn queued(&mut self, message: &Queued<B>, paged: bool) -> bool {
        if !message.durable && !paged {
            return false;
        }
        self.scratch.clear();
        for word in [message.since, message.deadline, message.size] {
            self.scratch.extend_from_slice(&word.to_le_bytes());
        }
        self.scratch.extend_from_slice(&message.attempts.to_le_bytes());
        self.scratch.extend_from_slice(&[message.priority, u8::from(!message.durable), 0, 0]);
        let queue = self.level(message.priority);
        let written = match self.encode.encode(&message.body, &mut self.scratch) {
            None => self.commit.message(queue, message.position, &self.scratch),
            Some(body) => self.commit.stored(queue, message.position, body, &self.scratch),
        };
        let kept = written.is_ok();
        self.refused = written.err().or(self.refused.take());
        self.scratch.shrink_to(SCRATCH);
        kept
    }

    fn given(&mut self, priority: u8, positions: Range<Position>) {
        self.commit.given(self.level(priority), positions);
    }

    fn returned(&mut self, message: &Queued<B>, not_before: Millis) {
        let position = message.position;
        let received = message.received;
        let mark = Mark { attempts: Some(message.attempts), given: 0, not_before, received };
        self.commit.mark(self.level(message.priority), position..position.saturating_add(1), mark);
    }

    fn received(&mut self, message: &Queued<B>) {
        let position = message.position;
        // It is out for another time than it counts.
        let attempts = Some(message.attempts.saturating_add(1));
        let mark = Mark { attempts, given: 0, not_before: 0, received: true };
        self.commit.mark(self.level(message.priority), position..position.saturating_add(1), mark);
    }

    fn gone(&mut self, priority: u8, positions: Range<Position>, how: Gone) {
        let queue = self.level(priority);
        let commit = if how == Gone::Dead { &mut self.dead } else { &mut self.commit };
        commit.gone(queue, positions);
    }
}

/// A message as [`Queue::restore`](crate::Queue::restore) takes it, with the bytes that [`Encode::encode`] wrote in place
/// of its body, and from when on it is ready; none when no diary wrote it.
pub fn remembered<'w>(read: &Read<'w>) -> Option<(Queued<&'w [u8]>, Millis)> {
    let (head, body) = read.payload.split_first_chunk::<HEAD>()?;
    let (words, _) = head.as_chunks::<8>();
    let [since, deadline, size, rest] = words else { return None };
    let [a, b, c, d, priority, transient, ..] = *rest;
    let attempts = read.mark.attempts.unwrap_or(u32::from_le_bytes([a, b, c, d]));
    let message = Queued {
        body,
        position: read.sequence,
        size: u64::from_le_bytes(*size),
        since: u64::from_le_bytes(*since),
        deadline: u64::from_le_bytes(*deadline),
        attempts: attempts.saturating_add(read.mark.given),
        key: 0,
        priority,
        durable: transient == 0,
        logged: true,
        apart: read.body.is_some(),
        received: read.mark.received,
    };
    Some((message, read.mark.not_before))
}

//! A queue's journal, gathered for the durable log.

use std::ops::Range;

use linkspan_contract::Millis;

use crate::journal::{Gone, Journal};
use crate::log::{Commit, LogError, Mark, Read};
use crate::offer::{Position, Queued};

/// Bytes that stand before the body in a message's record: since, deadline and size, 8 bytes each; attempts, 4; priority
/// and three zeros.
const HEAD: usize = 32;

/// How the bodies of a queue are written.
pub trait Encode<B> {
    /// Appends what is to be kept of `body`. When the rest of it lies in the log as a body of its own: that one's number
    /// and length.
    fn encode(&self, body: &B, out: &mut Vec<u8>) -> Option<(u64, u64)>;
}

/// Writes what a queue tells into a [`Commit`]. The queue's owner hands that to the log before it lets go of the queue's
/// lock, so that the order of the log is that of the queue. What is not durable is left out.
#[derive(Debug)]
pub struct Diary<E> {
    queue: u64,
    encode: E,
    scratch: Vec<u8>,
    /// What is to be committed; what else belongs into the same commit may be added.
    pub commit: Commit,
    /// Why a message could not be written.
    pub refused: Option<LogError>,
}

impl<E> Diary<E> {
    /// The journal of the queue that has this number in the log.
    pub fn new(queue: u64, encode: E) -> Self {
        Self { queue, encode, scratch: Vec::new(), commit: Commit::new(), refused: None }
    }
}

impl<B, E: Encode<B>> Journal<B> for Diary<E> {
    fn queued(&mut self, message: &Queued<B>) {
        if !message.durable {
            return;
        }
        self.scratch.clear();
        for word in [message.since, message.deadline, message.size] {
            self.scratch.extend_from_slice(&word.to_le_bytes());
        }
        self.scratch.extend_from_slice(&message.attempts.to_le_bytes());
        self.scratch.extend_from_slice(&[message.priority, 0, 0, 0]);
        let written = match self.encode.encode(&message.body, &mut self.scratch) {
            None => self.commit.message(self.queue, message.position, &self.scratch),
            Some(body) => self.commit.stored(self.queue, message.position, body, &self.scratch),
        };
        self.refused = written.err().or(self.refused.take());
    }

    fn given(&mut self, positions: Range<Position>) {
        self.commit.given(self.queue, positions);
    }

    fn returned(&mut self, message: &Queued<B>, not_before: Millis) {
        if message.durable {
            let position = message.position;
            let mark = Mark { attempts: Some(message.attempts), given: 0, not_before };
            self.commit.mark(self.queue, position..position.saturating_add(1), mark);
        }
    }

    fn gone(&mut self, positions: Range<Position>, _how: Gone) {
        self.commit.gone(self.queue, positions);
    }
}

/// A message as [`Queue::restore`](crate::Queue::restore) takes it, with the bytes that [`Encode::encode`] wrote in place
/// of its body, and from when on it is ready; none when no diary wrote it.
pub fn remembered<'w>(read: &Read<'w>) -> Option<(Queued<&'w [u8]>, Millis)> {
    let (head, body) = read.payload.split_first_chunk::<HEAD>()?;
    let (words, _) = head.as_chunks::<8>();
    let [since, deadline, size, rest] = words else { return None };
    let [a, b, c, d, priority, ..] = *rest;
    let attempts = read.mark.attempts.unwrap_or(u32::from_le_bytes([a, b, c, d]));
    let message = Queued {
        body,
        position: read.sequence,
        size: u64::from_le_bytes(*size),
        since: u64::from_le_bytes(*since),
        deadline: u64::from_le_bytes(*deadline),
        attempts: attempts.saturating_add(read.mark.given),
        priority,
        durable: true,
    };
    Some((message, read.mark.not_before))
}

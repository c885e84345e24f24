//! Copies what has to be kept of a lent batch, once, in pieces.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use linkspan_contract::{Batch, Message, OwnedBatch, Span};
use smallvec::SmallVec;

/// The copies made of one batch so far. Several queues that take the same messages share them.
pub(crate) struct Keeper<'a> {
    batch: &'a Batch<'a>,
    kept: Vec<Copy>,
}

struct Copy {
    ranges: Box<[Range<u32>]>,
    pieces: Rc<[Piece]>,
}

/// A part of what was kept. Pieces are small: one message that stays holds its piece, not a whole read.
pub(crate) struct Piece {
    /// Where its messages were in the batch, one behind the other.
    pub(crate) ranges: SmallVec<[Range<u32>; 1]>,
    pub(crate) owned: Arc<OwnedBatch>,
}

/// A piece has no more messages than this.
const MESSAGES: u32 = 128;

/// And ends behind the message that reaches so many bytes.
const BYTES: u32 = 16 * 1024;

/// More copies than these are not remembered: who shares, shares with a neighbour.
const REMEMBERED: usize = 4;

impl<'a> Keeper<'a> {
    pub(crate) fn new(batch: &'a Batch<'a>) -> Self {
        Self { batch, kept: Vec::new() }
    }

    pub(crate) fn batch(&self) -> &'a Batch<'a> {
        self.batch
    }

    /// The messages of these ranges, which ascend, in batches of their own that hold no other bytes.
    pub(crate) fn keep(&mut self, ranges: &[Range<u32>]) -> Rc<[Piece]> {
        if let Some(copy) = self.kept.iter().find(|copy| *copy.ranges == *ranges) {
            return Rc::clone(&copy.pieces);
        }
        let pieces: Rc<[Piece]> = pieces(self.batch, ranges).into();
        if self.kept.len() >= REMEMBERED {
            self.kept.remove(0);
        }
        self.kept.push(Copy { ranges: ranges.into(), pieces: Rc::clone(&pieces) });
        pieces
    }
}

fn pieces(batch: &Batch<'_>, ranges: &[Range<u32>]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut piece: SmallVec<[Range<u32>; 1]> = SmallVec::new();
    let (mut messages, mut bytes) = (0, 0_u32);
    for range in ranges {
        let mut start = range.start;
        for at in range.clone() {
            messages += 1;
            bytes = bytes.saturating_add(batch.message(at).map_or(0, |message| message.wire.len));
            if messages == MESSAGES || bytes >= BYTES {
                piece.push(start..at + 1);
                pieces.push(Piece::new(batch, std::mem::take(&mut piece)));
                (start, messages, bytes) = (at + 1, 0, 0);
            }
        }
        if start < range.end {
            piece.push(start..range.end);
        }
    }
    if !piece.is_empty() {
        pieces.push(Piece::new(batch, piece));
    }
    pieces
}

impl Piece {
    fn new(batch: &Batch<'_>, ranges: SmallVec<[Range<u32>; 1]>) -> Self {
        let owned = match &*ranges {
            [range] => batch.keep(range.clone()),
            ranges => gathered(batch, ranges),
        };
        Self { ranges, owned }
    }
}

fn gathered(batch: &Batch<'_>, ranges: &[Range<u32>]) -> Arc<OwnedBatch> {
    let chosen = || {
        ranges.iter().flat_map(|range| {
            batch.messages.get(range.start as usize..range.end as usize).unwrap_or_default()
        })
    };
    let mut bytes = Vec::with_capacity(chosen().map(|message| message.wire.len as usize).sum());
    let messages = chosen()
        .map(|message| {
            let at = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(message.wire.of(batch.bytes));
            let from = message.wire.start;
            let moved = |span: Span| {
                let span = span.rebased(from);
                Span::new(span.start.saturating_add(at), span.len)
            };
            Message {
                wire: moved(message.wire),
                address: moved(message.address),
                properties: moved(message.properties),
                payload: moved(message.payload),
                ..*message
            }
        })
        .collect();
    OwnedBatch::new(bytes.into(), messages, batch.body.cloned(), batch.form)
}

#[cfg(test)]
mod tests {
    use linkspan_contract::neutral::NEUTRAL;

    use super::*;

    fn message(at: u32) -> Message {
        Message {
            wire: Span::new(at, 4),
            address: Span::new(at, 2),
            payload: Span::new(at + 3, 1),
            ..Message::default()
        }
    }

    #[test]
    fn messages_that_lie_apart_are_kept_together_without_what_lies_between() {
        let bytes = b"\0a-0\0b-1\0c-2\0d-3";
        let messages: Vec<Message> = (0..4).map(|at| message(at * 4)).collect();
        let batch = Batch::new(bytes, &messages, &NEUTRAL);
        let mut keeper = Keeper::new(&batch);
        let pieces = keeper.keep(&[0..1, 2..4]);
        let [Piece { owned, .. }] = &*pieces else { panic!("they are few") };
        assert_eq!(owned.batch().bytes, b"\0a-0\0c-2\0d-3");
        let read = |at| {
            let kept = owned.kept(at).unwrap();
            (kept.address().path.to_vec(), kept.payload().unwrap().to_vec())
        };
        assert_eq!([read(0), read(1), read(2)], [b"a0", b"c2", b"d3"].map(|it| (vec![it[0]], vec![it[1]])));
        assert!(Rc::ptr_eq(&pieces, &keeper.keep(&[0..1, 2..4])), "the second queue shares the copy");
    }

    #[test]
    fn many_messages_are_kept_in_pieces_that_tell_where_they_were() {
        let bytes = vec![0; 4000];
        let messages: Vec<Message> = (0..1000).map(|at| message(at * 4)).collect();
        let batch = Batch::new(&bytes, &messages, &NEUTRAL);
        let pieces = Keeper::new(&batch).keep(&[0..100, 200..600]);
        let places: Vec<u32> =
            pieces.iter().flat_map(|piece| piece.ranges.iter().cloned().flatten()).collect();
        assert_eq!(places, (0..100).chain(200..600).collect::<Vec<_>>());
        for piece in &*pieces {
            let there = piece.ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
            assert_eq!(piece.owned.messages().len(), there);
            assert!(there <= MESSAGES as usize);
        }
    }
}

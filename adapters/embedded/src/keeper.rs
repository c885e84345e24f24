//! Copies what has to be kept of a lent batch, once.

use std::ops::Range;
use std::sync::Arc;

use linkspan_contract::{Batch, OwnedBatch};

/// The copies made of one batch so far. Several queues that take the same messages share one.
pub(crate) struct Keeper<'a> {
    batch: &'a Batch<'a>,
    kept: Vec<Copy>,
}

struct Copy {
    ranges: Box<[Range<u32>]>,
    owned: Arc<OwnedBatch>,
}

/// More copies than these are not remembered: who shares, shares with a neighbour.
const REMEMBERED: usize = 4;

impl<'a> Keeper<'a> {
    pub(crate) fn new(batch: &'a Batch<'a>) -> Self {
        Self { batch, kept: Vec::new() }
    }

    pub(crate) fn batch(&self) -> &'a Batch<'a> {
        self.batch
    }

    /// The messages of these ranges, which ascend, one behind the other in a batch of their own that holds no other
    /// bytes.
    pub(crate) fn keep(&mut self, ranges: &[Range<u32>]) -> Arc<OwnedBatch> {
        if let Some(copy) = self.kept.iter().find(|copy| *copy.ranges == *ranges) {
            return Arc::clone(&copy.owned);
        }
        let owned = match ranges {
            [range] => self.batch.keep(range.clone()),
            ranges => gathered(self.batch, ranges),
        };
        if self.kept.len() >= REMEMBERED {
            self.kept.remove(0);
        }
        self.kept.push(Copy { ranges: ranges.into(), owned: Arc::clone(&owned) });
        owned
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
            let moved = |span: linkspan_contract::Span| {
                let span = span.rebased(from);
                linkspan_contract::Span::new(span.start.saturating_add(at), span.len)
            };
            linkspan_contract::Message {
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
    use linkspan_contract::{Message, Span};

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
        let owned = keeper.keep(&[0..1, 2..4]);
        assert_eq!(owned.batch().bytes, b"\0a-0\0c-2\0d-3");
        let read = |at| {
            let kept = owned.kept(at).unwrap();
            (kept.address().path.to_vec(), kept.payload().unwrap().to_vec())
        };
        assert_eq!([read(0), read(1), read(2)], [b"a0", b"c2", b"d3"].map(|it| (vec![it[0]], vec![it[1]])));
        assert!(Arc::ptr_eq(&owned, &keeper.keep(&[0..1, 2..4])), "the second queue shares the copy");
    }
}

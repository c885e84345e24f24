//! Where the live messages of a queue lie.

use std::collections::BTreeMap;
use std::ops::Range;

use smallvec::SmallVec;

use crate::log::block::{Block, Place, SPAN};
use crate::log::marks::Marks;

/// The index of one queue: about 9 bytes a message that is live.
#[derive(Default)]
pub(crate) struct Index {
    blocks: BTreeMap<u64, Block>,
    /// Live messages.
    pub(crate) len: u64,
    /// Bytes of their payloads.
    pub(crate) bytes: u64,
    /// Above every sequence that was ever told of.
    pub(crate) next: u64,
    /// The segment that knows already that this queue has a message in it.
    pub(crate) touched: Option<u64>,
    /// What is noted of its messages.
    pub(crate) marks: Marks,
    /// The bodies of messages that have one apart, and their lengths.
    pub(crate) bodies: BTreeMap<u64, (u64, u64)>,
}

const fn block_of(sequence: u64) -> u64 {
    sequence / SPAN
}

#[expect(clippy::cast_possible_truncation, reason = "its last 8 bits are what is asked for")]
const fn bit_of(sequence: u64) -> u8 {
    sequence as u8
}

impl Index {
    /// Puts a message in; yields where it lay before when it was live.
    pub(crate) fn insert(&mut self, sequence: u64, place: Place) -> Option<Place> {
        self.next = self.next.max(sequence.saturating_add(1));
        let before = self.blocks.entry(block_of(sequence)).or_default().insert(bit_of(sequence), place);
        self.bytes = self.bytes.saturating_add(place.length.into());
        match before {
            Some(before) => self.bytes = self.bytes.saturating_sub(before.length.into()),
            None => self.len = self.len.saturating_add(1),
        }
        before
    }

    /// Where a live message lies.
    pub(crate) fn get(&self, sequence: u64) -> Option<Place> {
        self.blocks.get(&block_of(sequence))?.get(bit_of(sequence))
    }

    /// Takes the live messages at these sequences out and tells of each.
    pub(crate) fn remove(&mut self, sequences: &Range<u64>, mut each: impl FnMut(u64, Place)) {
        let Some(last) = sequences.end.checked_sub(1).filter(|last| *last >= sequences.start) else { return };
        if last != u64::MAX - 1 {
            self.next = self.next.max(sequences.end);
        }
        let mut emptied = SmallVec::<[u64; 4]>::new();
        for (key, block) in self.blocks.range_mut(block_of(sequences.start)..=block_of(last)) {
            let low = key.saturating_mul(SPAN);
            let mut sequence = low.max(sequences.start);
            while sequence <= last && block_of(sequence) == *key {
                let Some(bit) = block.next(bit_of(sequence)) else { break };
                sequence = low.saturating_add(u64::from(bit));
                if sequence > last {
                    break;
                }
                if let Some(place) = block.remove(bit) {
                    self.len = self.len.saturating_sub(1);
                    self.bytes = self.bytes.saturating_sub(place.length.into());
                    each(sequence, place);
                }
                sequence = sequence.saturating_add(1);
            }
            if block.is_empty() {
                emptied.push(*key);
            }
        }
        emptied.into_iter().for_each(|key| drop(self.blocks.remove(&key)));
    }

    /// The live messages from `sequence` on.
    pub(crate) fn from(&self, sequence: u64) -> impl Iterator<Item = (u64, Place)> {
        let mut blocks = self.blocks.range(block_of(sequence)..);
        let mut block = blocks.next();
        let mut at = Some(sequence);
        std::iter::from_fn(move || {
            loop {
                let (key, slots) = block?;
                let low = key.saturating_mul(SPAN);
                let from = at.filter(|at| block_of(*at) <= *key).map(|at| at.max(low));
                if let Some(bit) = from.and_then(|from| slots.next(bit_of(from))) {
                    let sequence = low.saturating_add(u64::from(bit));
                    at = sequence.checked_add(1).filter(|next| block_of(*next) == *key);
                    return slots.get(bit).map(|place| (sequence, place));
                }
                block = blocks.next();
                at = block.map(|(key, _)| key.saturating_mul(SPAN));
            }
        })
    }

    /// The sequences of `range` that are not live, as few ranges as they make.
    pub(crate) fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut from = range.start;
        for (sequence, _) in self.from(range.start).take_while(|(sequence, _)| *sequence < range.end) {
            if from < sequence {
                gaps.push(from..sequence);
            }
            from = sequence.saturating_add(1);
        }
        if from < range.end {
            gaps.push(from..range.end);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn place(lsn: u64) -> Place {
        Place { lsn, length: 10 }
    }

    fn filled(sequences: impl IntoIterator<Item = u64>) -> Index {
        let mut index = Index::default();
        for sequence in sequences {
            index.insert(sequence, place(sequence * 48));
        }
        index
    }

    fn sequences(index: &Index, from: u64) -> Vec<u64> {
        index.from(from).map(|(sequence, _)| sequence).collect()
    }

    #[test]
    fn messages_come_in_the_order_of_their_sequences() {
        let index = filled([900, 3, 255, 256, 70_000, 4]);
        assert_eq!(sequences(&index, 0), [3, 4, 255, 256, 900, 70_000]);
        assert_eq!(sequences(&index, 255), [255, 256, 900, 70_000]);
        assert_eq!(sequences(&index, 257), [900, 70_000]);
        assert_eq!(sequences(&index, 70_001), Vec::<u64>::new());
        assert_eq!((index.len, index.bytes, index.next), (6, 60, 70_001));
    }

    #[test]
    fn a_range_that_goes_takes_what_it_covers_and_nothing_else() {
        let mut index = filled(0..2000);
        let mut gone = vec![];
        index.remove(&(100..1500), |sequence, _| gone.push(sequence));
        assert_eq!(gone, (100..1500).collect::<Vec<_>>());
        assert_eq!(sequences(&index, 0), (0..100).chain(1500..2000).collect::<Vec<_>>());
        assert_eq!(index.blocks.len(), 4, "blocks without a live message are let go");
        index.remove(&(0..u64::MAX), |_, _| {});
        assert_eq!((index.len, index.bytes, index.blocks.len()), (0, 0, 0));
        assert_eq!(index.next, 2000, "whatever goes with the queue is not its next sequence");
    }

    #[test]
    fn gaps_are_what_is_not_live() {
        let index = filled([3, 4, 300]);
        assert_eq!(index.gaps(&(0..u64::MAX)), [0..3, 5..300, 301..u64::MAX]);
        assert_eq!(index.gaps(&(3..5)), []);
        assert_eq!(index.gaps(&(4..6)), vec![5..6]);
    }

    #[test]
    fn a_message_costs_less_than_ten_bytes() {
        let index = filled(0..100_000);
        assert_eq!(size_of::<Block>(), 104);
        // Slots of 8 bytes, and blocks in a tree that is half full at worst.
        assert_eq!(index.blocks.len(), 391);
        assert!(8.0 + 2.0 * (104.0 + 8.0) / (SPAN as f64) < 10.0);
    }
}

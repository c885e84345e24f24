//! Where up to 256 messages of a queue lie: 8 bytes a message.

use crate::log::Lsn;

/// Sequences of one block.
pub(crate) const SPAN: u64 = 256;

/// Where a record lies and how long its payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lsn: Lsn,
    pub(crate) length: u32,
}

/// The messages of a queue whose sequences differ in their last 8 bits only.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// What the offsets of `near` count from.
    base: Lsn,
    /// Which sequences have a slot.
    present: Bits,
    /// Which of them are live.
    live: Bits,
    slots: Slots,
}

/// In the order of their sequences.
#[derive(Debug)]
enum Slots {
    /// Offset from the block's base in units of 8 bytes, and length.
    Near(Vec<(u32, u32)>),
    /// LSN and length: when messages of the block lie further apart than 32 GiB of log.
    Far(Vec<(Lsn, u32)>),
}

impl Default for Slots {
    fn default() -> Self {
        Self::Near(Vec::new())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bits([u64; 4]);

impl Bits {
    fn get(self, bit: u8) -> bool {
        self.0.get(usize::from(bit >> 6)).is_some_and(|word| word >> (bit & 63) & 1 == 1)
    }

    fn set(&mut self, bit: u8, on: bool) {
        if let Some(word) = self.0.get_mut(usize::from(bit >> 6)) {
            let mask = 1 << (bit & 63);
            *word = if on { *word | mask } else { *word & !mask };
        }
    }

    /// How many are set below `bit`.
    fn rank(self, bit: u8) -> usize {
        let words = usize::from(bit >> 6);
        let below = self.0.iter().take(words).map(|word| word.count_ones()).sum::<u32>();
        let part = self.0.get(words).map_or(0, |word| (word & !(u64::MAX << (bit & 63))).count_ones());
        (below + part) as usize
    }

    /// The first that is set at `from` or above.
    fn next(self, from: u8) -> Option<u8> {
        let first = usize::from(from >> 6);
        for (at, word) in self.0.iter().enumerate().skip(first) {
            let word = if at == first { word & (u64::MAX << (from & 63)) } else { *word };
            if word != 0 {
                return u8::try_from(at as u32 * 64 + word.trailing_zeros()).ok();
            }
        }
        None
    }

    fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }
}

impl Block {
    /// Puts a message in; yields where it lay before when it was live.
    pub(crate) fn insert(&mut self, bit: u8, place: Place) -> Option<Place> {
        let before = self.get(bit);
        if self.present.0 == [0; 4] {
            self.base = place.lsn;
        }
        if self.near(place.lsn).is_none() {
            self.widen();
        }
        let near = self.near(place.lsn);
        let rank = self.present.rank(bit);
        let there = self.present.get(bit);
        match &mut self.slots {
            Slots::Near(slots) => store(slots, rank, there, (near.unwrap_or(0), place.length)),
            Slots::Far(slots) => store(slots, rank, there, (place.lsn, place.length)),
        }
        self.present.set(bit, true);
        self.live.set(bit, true);
        before
    }

    /// Where a live message lies.
    pub(crate) fn get(&self, bit: u8) -> Option<Place> {
        if !self.live.get(bit) {
            return None;
        }
        let rank = self.present.rank(bit);
        match &self.slots {
            Slots::Near(slots) => {
                let (offset, length) = *slots.get(rank)?;
                Some(Place { lsn: self.base.saturating_add(u64::from(offset) * 8), length })
            }
            Slots::Far(slots) => {
                let (lsn, length) = *slots.get(rank)?;
                Some(Place { lsn, length })
            }
        }
    }

    /// Takes a message out.
    pub(crate) fn remove(&mut self, bit: u8) -> Option<Place> {
        let place = self.get(bit)?;
        self.live.set(bit, false);
        Some(place)
    }

    /// The first live message at `from` or above.
    pub(crate) fn next(&self, from: u8) -> Option<u8> {
        self.live.next(from)
    }

    /// True when no message is live.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    fn near(&self, lsn: Lsn) -> Option<u32> {
        u32::try_from(lsn.checked_sub(self.base)? / 8).ok()
    }

    fn widen(&mut self) {
        if let Slots::Near(slots) = &self.slots {
            let base = self.base;
            let far =
                slots.iter().map(|(offset, length)| (base.saturating_add(u64::from(*offset) * 8), *length));
            self.slots = Slots::Far(far.collect());
        }
    }
}

fn store<T>(slots: &mut Vec<T>, rank: usize, there: bool, slot: T) {
    match slots.get_mut(rank) {
        Some(place) if there => *place = slot,
        Some(_) => slots.insert(rank, slot),
        None => slots.push(slot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn place(lsn: Lsn) -> Place {
        Place { lsn, length: 16 }
    }

    #[test]
    fn messages_are_found_whatever_the_order_they_came_in() {
        let mut block = Block::default();
        for bit in [7_u8, 255, 0, 64, 63, 8] {
            assert_eq!(block.insert(bit, place(8 * u64::from(bit) + 8000)), None);
        }
        for bit in [7_u8, 255, 0, 64, 63, 8] {
            assert_eq!(block.get(bit), Some(place(8 * u64::from(bit) + 8000)), "{bit}");
        }
        assert_eq!(block.get(9), None);
        let mut seen = vec![];
        let mut from = 0;
        while let Some(bit) = block.next(from) {
            seen.push(bit);
            let Some(next) = bit.checked_add(1) else { break };
            from = next;
        }
        assert_eq!(seen, [0, 7, 8, 63, 64, 255]);
    }

    #[test]
    fn what_is_gone_is_gone_until_it_comes_back() {
        let mut block = Block::default();
        block.insert(3, place(800));
        assert_eq!(block.insert(3, place(1600)), Some(place(800)));
        assert_eq!(block.remove(3), Some(place(1600)));
        assert_eq!(block.remove(3), None);
        assert!(block.is_empty());
        assert_eq!(block.insert(3, place(2400)), None);
        assert_eq!(block.get(3), Some(place(2400)));
    }

    #[test]
    fn messages_further_apart_than_offsets_reach_are_found() {
        let mut block = Block::default();
        block.insert(1, place(8));
        block.insert(2, place(8 + (1 << 40)));
        block.insert(3, place(0));
        assert_eq!(block.get(1), Some(place(8)));
        assert_eq!(block.get(2), Some(place(8 + (1 << 40))));
        assert_eq!(block.get(3), Some(place(0)));
    }
}

//! Messages that only the journal keeps: behind all of their level that are in memory.

use crate::offer::Position;
use crate::ready::Occupied;

/// How many there are of each level, and where they begin.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// Made when there is something.
    levels: Vec<Level>,
    occupied: Occupied,
    len: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Level {
    /// No message of the level that is outside stands before it.
    from: Position,
    len: u64,
    bytes: u64,
}

impl Outside {
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    #[inline]
    pub(crate) fn level_len(&self, level: u8) -> u64 {
        self.levels.get(usize::from(level)).map_or(0, |level| level.len)
    }

    /// Which levels have something here.
    pub(crate) const fn occupied(&self) -> &Occupied {
        &self.occupied
    }

    /// The last message of its level.
    pub(crate) fn add(&mut self, level: u8, position: Position, size: u64) {
        self.add_many(level, position, 1, size);
    }

    /// The first message of its level.
    pub(crate) fn add_first(&mut self, level: u8, position: Position, size: u64) {
        self.add_many(level, position, 1, size);
        if let Some(level) = self.levels.get_mut(usize::from(level)) {
            level.from = position;
        }
    }

    /// So many, from a position on, behind all others of their level.
    pub(crate) fn add_many(&mut self, level: u8, from: Position, len: u64, bytes: u64) {
        let at = usize::from(level);
        if self.levels.len() <= at {
            self.levels.resize(at + 1, Level::default());
        }
        let Some(level) = self.levels.get_mut(at) else { return };
        if level.len == 0 {
            level.from = from;
        }
        level.len = level.len.saturating_add(len);
        level.bytes = level.bytes.saturating_add(bytes);
        self.len = self.len.saturating_add(len);
        self.bytes = self.bytes.saturating_add(bytes);
        self.occupied.set(at, level.len > 0);
    }

    /// A level has so much, from where it begins on.
    pub(crate) fn recount(&mut self, level: u8, len: u64, bytes: u64) {
        let from = self.from(level);
        self.clear(level);
        if len > 0 {
            self.add_many(level, from, len, bytes);
        }
    }

    /// One that stands among those of the level, and was not counted, counts from now on.
    pub(crate) fn count(&mut self, level: u8, size: u64) {
        if let Some(level) = self.levels.get_mut(usize::from(level)) {
            level.len = level.len.saturating_add(1);
            level.bytes = level.bytes.saturating_add(size);
            self.len = self.len.saturating_add(1);
            self.bytes = self.bytes.saturating_add(size);
        }
    }

    /// The first message of its level does not count, and is not looked at any more.
    pub(crate) fn pass(&mut self, level: u8, position: Position) {
        if let Some(level) = self.levels.get_mut(usize::from(level)) {
            level.from = level.from.max(position.saturating_add(1));
        }
    }

    /// True when a position is among those of the level.
    pub(crate) fn spans(&self, level: u8, position: Position) -> bool {
        self.levels.get(usize::from(level)).is_some_and(|level| level.len > 0 && position >= level.from)
    }

    /// Where the level begins.
    pub(crate) fn from(&self, level: u8) -> Position {
        self.levels.get(usize::from(level)).map_or(0, |level| level.from)
    }

    /// The first message of its level is here no more.
    pub(crate) fn take(&mut self, level: u8, position: Position, size: u64) {
        let at = usize::from(level);
        let Some(level) = self.levels.get_mut(at) else { return };
        if level.len == 0 {
            return;
        }
        level.from = position.saturating_add(1);
        // What a log counts before it has read the messages is not to the byte.
        let size = if level.len == 1 { level.bytes } else { size.min(level.bytes) };
        level.len -= 1;
        level.bytes -= size;
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
        self.occupied.set(at, level.len > 0);
    }

    /// Nothing of a level is here any more; how many were.
    pub(crate) fn clear(&mut self, level: u8) -> u64 {
        let at = usize::from(level);
        let Some(level) = self.levels.get_mut(at) else { return 0 };
        let Level { len, bytes, .. } = std::mem::take(level);
        self.len = self.len.saturating_sub(len);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.occupied.set(at, false);
        len
    }
}

//! What can be given out, in order.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use smallvec::SmallVec;

use crate::offer::{Position, Queued};

/// An empty list keeps this much room, what it had beyond goes back.
pub(crate) const ROOM_KEPT: usize = 1024;

/// Ready messages by (level descending, position).
#[derive(Debug)]
pub(crate) struct Ready<B> {
    levels: SmallVec<[Level<B>; 1]>,
    occupied: Occupied,
    len: u64,
    bytes: u64,
    held: u64,
}

/// One priority's messages.
#[derive(Debug)]
struct Level<B> {
    /// Ascending positions: what came, and what came back to either end.
    line: VecDeque<Queued<B>>,
    /// What came back between those.
    between: BinaryHeap<Between<B>>,
    /// Above every position that was taken from here, or passed it by: what may come back stands below.
    passed: Position,
}

#[derive(Debug)]
struct Between<B>(Queued<B>);

/// Which levels hold something.
#[derive(Debug, Default)]
pub(crate) struct Occupied([u64; 4]);

impl Occupied {
    pub(crate) fn set(&mut self, level: usize, yes: bool) {
        if let Some(word) = self.0.get_mut(level / 64) {
            let bit = 1 << (level % 64);
            *word = if yes { *word | bit } else { *word & !bit };
        }
    }

    pub(crate) fn has(&self, level: usize) -> bool {
        self.0.get(level / 64).is_some_and(|word| word & (1 << (level % 64)) != 0)
    }

    #[inline]
    pub(crate) fn highest(&self) -> Option<usize> {
        let (at, word) = self.0.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some(at * 64 + word.ilog2() as usize)
    }

    /// The highest level that is set here and not in `other`.
    pub(crate) fn highest_beside(&self, other: &Self) -> Option<usize> {
        let (Self(one), Self(other)) = (self, other);
        let words = one.iter().zip(other).map(|(one, other)| one & !other);
        let (at, word) = words.enumerate().rfind(|(_, word)| *word != 0)?;
        Some(at * 64 + word.ilog2() as usize)
    }
}

impl<B> Ready<B> {
    /// Levels `0..=max_priority`.
    pub(crate) fn new(max_priority: u8) -> Self {
        let level = |_| Level { line: VecDeque::new(), between: BinaryHeap::new(), passed: 0 };
        let levels = (0..=max_priority).map(level);
        Self { levels: levels.collect(), occupied: Occupied::default(), len: 0, bytes: 0, held: 0 }
    }

    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory.
    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of one priority.
    pub(crate) fn level_len(&self, priority: u8) -> usize {
        self.levels.get(usize::from(priority)).map_or(0, |level| level.line.len() + level.between.len())
    }

    /// The place in the order decides where it goes. True when it is the first of its level now.
    #[inline(always)]
    pub(crate) fn put(&mut self, message: Queued<B>) -> bool {
        let (at, size, position) = (usize::from(message.priority), message.size, message.position);
        let held = message.held();
        let Some(level) = self.levels.get_mut(at) else { return false };
        level.put(message);
        self.occupied.set(at, true);
        self.len += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.held = self.held.saturating_add(held);
        level.first().is_some_and(|first| first.position == position)
    }

    /// What is given out next.
    #[inline]
    pub(crate) fn first(&self) -> Option<&Queued<B>> {
        self.first_of(self.occupied.highest()?)
    }

    /// Takes it.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Queued<B>> {
        self.pop_of(self.occupied.highest()?)
    }

    /// The first of the level `at`.
    #[inline]
    pub(crate) fn first_of(&self, at: usize) -> Option<&Queued<B>> {
        self.levels.get(at)?.first()
    }

    /// Takes it.
    #[inline]
    pub(crate) fn pop_of(&mut self, at: usize) -> Option<Queued<B>> {
        let level = self.levels.get_mut(at)?;
        let message = level.pop()?;
        if level.first().is_none() {
            self.occupied.set(at, false);
            level.shrink();
        }
        self.took(&message);
        Some(message)
    }

    /// Takes the last of the level when it stands at `position`: what was pushed a moment ago, if nobody has it yet.
    pub(crate) fn pop_last(&mut self, priority: u8, position: u64) -> Option<Queued<B>> {
        let at = usize::from(priority);
        let level = self.levels.get_mut(at)?;
        let message = level.line.pop_back_if(|last| last.position == position)?;
        if level.first().is_none() {
            self.occupied.set(at, false);
        }
        self.took(&message);
        Some(message)
    }

    /// A message of a level is in memory without having been here.
    pub(crate) fn pass_by(&mut self, priority: u8, position: Position) {
        if let Some(level) = self.levels.get_mut(usize::from(priority)) {
            level.passed = level.passed.max(position.saturating_add(1));
        }
    }

    /// The last of the level `at`, when it is not the only one and nothing of the level that is in memory, here or
    /// elsewhere, stands behind it.
    pub(crate) fn tail_of(&mut self, at: usize) -> Option<&mut Queued<B>> {
        let level = self.levels.get_mut(at)?;
        level.straighten();
        let passed = level.passed;
        let is_alone = level.line.len() < 2;
        level.line.back_mut().filter(|last| !is_alone && last.position >= passed)
    }

    /// Takes it.
    pub(crate) fn pop_tail_of(&mut self, at: usize) -> Option<Queued<B>> {
        let level = self.levels.get_mut(at)?;
        let message = level.line.pop_back()?;
        level.shrink();
        self.took(&message);
        Some(message)
    }

    /// Takes out those that are `wanted`, in the order of their levels and positions.
    pub(crate) fn take_out(&mut self, wanted: impl Fn(&Queued<B>) -> bool) -> Vec<Queued<B>> {
        let mut out = Vec::new();
        for (at, level) in self.levels.iter_mut().enumerate().rev() {
            level.straighten();
            if level.line.iter().any(&wanted) {
                let all = std::mem::take(&mut level.line).into_iter();
                let (taken, left): (VecDeque<_>, _) = all.partition(&wanted);
                level.line = left;
                self.occupied.set(at, !level.line.is_empty());
                out.extend(taken);
            }
        }
        out.iter().for_each(|message| self.took(message));
        out
    }

    /// All of them, in no order.
    pub(crate) fn each(&mut self, mut each: impl FnMut(&mut Queued<B>)) {
        for level in &mut self.levels {
            level.straighten();
            level.line.iter_mut().for_each(&mut each);
        }
    }

    /// The highest level that holds something.
    #[inline]
    pub(crate) fn highest(&self) -> Option<usize> {
        self.occupied.highest()
    }

    /// Which levels hold something.
    pub(crate) const fn occupied(&self) -> &Occupied {
        &self.occupied
    }

    /// How many levels there are.
    pub(crate) fn levels(&self) -> usize {
        self.levels.len()
    }

    fn took(&mut self, message: &Queued<B>) {
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.size);
        self.held = self.held.saturating_sub(message.held());
    }
}

impl<B> Level<B> {
    #[inline(always)]
    fn put(&mut self, message: Queued<B>) {
        let position = message.position;
        if self.line.back().is_none_or(|last| last.position < position) {
            self.line.push_back(message);
        } else if self.line.front().is_some_and(|first| position < first.position) {
            self.line.push_front(message);
        } else {
            self.between.push(Between(message));
        }
    }

    #[inline]
    fn first(&self) -> Option<&Queued<B>> {
        match (self.line.front(), self.between.peek()) {
            (Some(line), Some(Between(between))) if between.position < line.position => Some(between),
            (None, between) => between.map(|Between(message)| message),
            (line, _) => line,
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Queued<B>> {
        let message = match (self.line.front(), self.between.peek()) {
            (Some(line), Some(Between(between))) if between.position > line.position => self.line.pop_front(),
            (_, Some(_)) => self.between.pop().map(|Between(message)| message),
            (_, None) => self.line.pop_front(),
        }?;
        self.passed = self.passed.max(message.position.saturating_add(1));
        Some(message)
    }

    /// Puts all into the line.
    fn straighten(&mut self) {
        if self.between.is_empty() {
            return;
        }
        self.line.extend(self.between.drain().map(|Between(message)| message));
        self.line.make_contiguous().sort_unstable_by_key(|message| message.position);
    }

    /// Gives room back that is not needed by far.
    fn shrink(&mut self) {
        if self.line.capacity() > ROOM_KEPT && self.line.len() < self.line.capacity() / 4 {
            self.line.shrink_to(ROOM_KEPT.max(self.line.len() * 2));
        }
        if self.between.capacity() > ROOM_KEPT {
            self.between.shrink_to(ROOM_KEPT);
        }
    }
}

impl<B> Ord for Between<B> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.position.cmp(&self.0.position)
    }
}

impl<B> PartialOrd for Between<B> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<B> PartialEq for Between<B> {
    fn eq(&self, other: &Self) -> bool {
        self.0.position == other.0.position
    }
}

impl<B> Eq for Between<B> {}

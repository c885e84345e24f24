//! What was published within a window of time, by identifiers: so that it is known when it comes again.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;
use linkspan_contract::Millis;

use self::shelf::Shelf;

mod shelf;

/// Identifiers that were seen, each for a window from the first time on. They must be such that nobody can make two that
/// are the same. About 40 bytes each. What is over is not
/// looked for: its place is free for another one.
#[derive(Debug)]
pub struct Seen {
    window: Millis,
    /// Milliseconds of a tick.
    unit: Millis,
    shelves: Box<[Shelf]>,
    /// Those of before a time in which nothing came: all in them is over, and they go one by one.
    retired: Vec<Shelf>,
    hasher: RandomState,
    len: usize,
    /// When the last one was seen.
    latest: Millis,
    /// Up to when shelves were swept, each in its turn, and whose turn it is, perhaps for a part of it.
    swept: (Millis, usize),
    buckets: VecDeque<Bucket>,
}

/// Identifiers that came one behind the other.
#[derive(Debug)]
struct Bucket {
    count: usize,
    first: Millis,
    last: Millis,
    /// Where a journal has them.
    records: Range<u64>,
}

/// A bucket has no more than so many,
const BUCKET: usize = 4096;

/// and is no older than this part of the window.
const PART: u64 = 64;

/// So many shelves there are, each of which grows by itself: with all of them at once, who enters one more would wait for it.
const SHELVES: usize = 256;

/// So many lines of them are swept for one that is entered, and perhaps one shelf is shrunk.
const PIECE: usize = 1024;

/// A shelf that was not swept for so many windows is, before anything is looked for in it: what has been over for long is
/// not told from what is yet to come.
const UNSWEPT: u64 = 2;

impl Seen {
    /// Nothing was seen.
    pub fn new(window: Millis) -> Self {
        Self {
            window,
            // So that the past is told from the future, and a window from several before it.
            unit: (window >> 28).saturating_add(1),
            shelves: shelves(),
            retired: Vec::new(),
            hasher: RandomState::default(),
            len: 0,
            latest: 0,
            swept: (0, 0),
            buckets: VecDeque::new(),
        }
    }

    /// Milliseconds for which they are known.
    pub const fn window(&self) -> Millis {
        self.window
    }

    /// How many there are, some of which may be over.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when it was not seen within the window; it is from now on.
    pub fn enter(&mut self, id: u128, now: Millis) -> bool {
        if self.latest.saturating_add(self.window) <= now && self.len > 0 {
            self.retire();
        }
        let (time, hash) = (self.time(now), self.hasher.hash_one(id));
        let hasher = &self.hasher;
        let Some(shelf) = self.shelves.get_mut(place(hash)) else { return true };
        let unswept = now.saturating_sub(shelf.swept);
        if unswept > self.window.saturating_mul(UNSWEPT) {
            // Whatever was entered was entered before that, and more than a window ago by now.
            let is_all_over = unswept > self.window.saturating_mul(UNSWEPT + 1);
            let over = if is_all_over {
                shelf.clear()
            } else {
                shelf.sweep_all(time, |id| hasher.hash_one(whole(id)))
            };
            self.len = self.len.saturating_sub(over);
            shelf.swept = now;
        }
        let is_new = match shelf.enter(parts(id), hash, time, |id| hasher.hash_one(whole(id))) {
            None => false,
            Some(more) => {
                self.len = self.len.saturating_add_signed(more);
                true
            }
        };
        if is_new {
            self.line_up(now);
        }
        is_new
    }

    /// One that was entered does not count: what it stands for was not taken.
    pub fn withdraw(&mut self, id: u128) {
        let hash = self.hasher.hash_one(id);
        if self.shelves.get_mut(place(hash)).is_none_or(|shelf| !shelf.remove(parts(id), hash)) {
            return;
        }
        self.len = self.len.saturating_sub(1);
        // It came with the last ones: when all of them are withdrawn, nothing of them stays.
        if let Some(last) = self.buckets.back_mut() {
            last.count = last.count.saturating_sub(1);
            if last.count == 0 && last.records.is_empty() {
                self.buckets.pop_back();
            }
        }
    }

    /// What was entered last is in a journal at this place, which is behind those of all others.
    pub fn recorded(&mut self, record: u64) {
        if let Some(last) = self.buckets.back_mut() {
            if last.records.is_empty() {
                last.records.start = record;
            }
            last.records.end = record.saturating_add(1);
        }
    }

    /// Lets some of those go that are over, if there are any: to be called for each that is entered, whether it is taken or
    /// withdrawn. Yields what a journal need not keep any more.
    pub fn let_go(&mut self, now: Millis) -> Option<Range<u64>> {
        self.retired.pop();
        let first = self.buckets.front()?;
        if first.last.saturating_add(self.window) > now {
            return None;
        }
        if self.latest.saturating_add(self.window) <= now {
            self.retire();
            return self.forget_records();
        }
        self.sweep(now);
        let first = self.buckets.pop_front()?;
        (!first.records.is_empty()).then_some(first.records)
    }

    /// Nothing that is there is known any more.
    fn retire(&mut self) {
        let before = std::mem::replace(&mut self.shelves, shelves());
        self.retired.extend(before.into_iter().filter(|shelf| !shelf.is_empty()));
        self.len = 0;
    }

    fn forget_records(&mut self) -> Option<Range<u64>> {
        let mut records = std::mem::take(&mut self.buckets).into_iter().map(|bucket| bucket.records);
        let mut all = records.find(|records| !records.is_empty())?;
        for more in records.filter(|records| !records.is_empty()) {
            all.end = more.end;
        }
        Some(all)
    }

    /// One that a journal has, from an earlier life; they come in the order in which they were seen.
    pub fn restore(&mut self, id: u128, seen: Millis, record: u64, now: Millis) {
        if seen.saturating_add(self.window) > now {
            self.enter(id, seen);
        } else if self.buckets.is_empty() {
            // It goes with the first bucket.
            self.line_up(seen);
        }
        self.recorded(record);
    }

    fn line_up(&mut self, now: Millis) {
        self.latest = self.latest.max(now);
        let part = self.window / PART;
        let is_full = |last: &Bucket| last.count >= BUCKET || now.saturating_sub(last.first) > part;
        if self.buckets.back().is_none_or(is_full) {
            self.buckets.push_back(Bucket { count: 0, first: now, last: now, records: 0..0 });
        }
        if let Some(last) = self.buckets.back_mut() {
            last.count += 1;
            last.last = last.last.max(now);
        }
    }

    /// Clears what is over from a piece of the shelves whose turn it is: once in a window each has one.
    fn sweep(&mut self, now: Millis) {
        let time = self.time(now);
        let each = (self.window / SHELVES as u64).max(1);
        let (since, next) = &mut self.swept;
        *since = (*since).max(now.saturating_sub(self.window));
        let (hasher, mut left) = (&self.hasher, PIECE);
        while left > 0 && now.saturating_sub(*since) >= each {
            let Some(shelf) = self.shelves.get_mut(*next) else { return };
            let swept = shelf.sweep(left, time, |id| hasher.hash_one(whole(id)));
            self.len = self.len.saturating_sub(swept.over);
            left = left.saturating_sub(swept.lines);
            if swept.is_done {
                shelf.swept = shelf.swept.max(now);
                *since = since.saturating_add(each);
                *next = (*next + 1) % SHELVES;
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "ticks begin anew at the end of their range")]
    const fn time(&self, now: Millis) -> shelf::Time {
        let tick = (now / self.unit).wrapping_add(1) as u32;
        shelf::Time { tick: if tick == 0 { 1 } else { tick }, window: self.window.div_ceil(self.unit) as u32 }
    }
}

fn shelves() -> Box<[Shelf]> {
    (0..SHELVES).map(|_| Shelf::default()).collect()
}

/// Which shelf is meant.
const fn place(hash: u64) -> usize {
    (hash >> 56) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "each is a part")]
const fn parts(id: u128) -> [u32; 4] {
    [id as u32, (id >> 32) as u32, (id >> 64) as u32, (id >> 96) as u32]
}

fn whole(id: [u32; 4]) -> u128 {
    let [a, b, c, d] = id.map(u128::from);
    a | b << 32 | c << 64 | d << 96
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_for_the_window_from_the_first_time_on() {
        let mut seen = Seen::new(1000);
        assert!(seen.enter(7, 5));
        assert!(!seen.enter(7, 6));
        assert!(!seen.enter(7, 1004));
        assert!(seen.enter(8, 1004));
        assert!(seen.enter(7, 1005), "the window is over");
        assert!(!seen.enter(7, 1500));
        assert!(!seen.enter(8, 2003));
    }

    #[test]
    fn what_was_not_taken_is_new_when_it_comes_again() {
        let mut seen = Seen::new(1000);
        assert!(seen.enter(7, 5));
        seen.withdraw(7);
        assert!(seen.is_empty());
        assert!(seen.enter(7, 6));
        assert!(!seen.enter(7, 7));
    }

    #[test]
    fn what_was_not_taken_leaves_nothing() {
        let mut seen = Seen::new(1000);
        seen.enter(7, 5);
        seen.recorded(70);
        for first in (100..50_000).step_by(100) {
            let read = first..first + 100;
            assert!(read.clone().all(|id| seen.enter(id, 6)));
            read.for_each(|id| seen.withdraw(id));
        }
        let left: Vec<usize> = seen.buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!((seen.len(), left), (1, vec![1]));
        assert!(!seen.enter(7, 7));
        assert_eq!(seen.let_go(1006), Some(70..71));
    }

    #[test]
    fn what_is_over_goes_and_so_do_its_records() {
        let mut seen = Seen::new(1000);
        let mut gone = Vec::new();
        for id in 0..40_000_u64 {
            assert!(seen.enter(id.into(), id / 10));
            seen.recorded(id);
            gone.extend(seen.let_go(id / 10));
        }
        assert!(seen.len() < 20_000, "{}", seen.len());
        assert!(gone.len() > 100, "{}", gone.len());
        assert!(gone.is_sorted_by(|one, next| one.end <= next.start), "{gone:?}");
        let last = gone.last().unwrap().end;
        assert!((20_000..=30_000).contains(&last), "those of the window are kept: {last}");
        assert!(!seen.enter(30_000, 3999), "it is of the window");
        let rest = seen.let_go(10_000).unwrap();
        assert_eq!((rest.end, seen.len()), (40_000, 0), "nothing has come for a window");
    }

    #[test]
    fn what_is_seen_anew_outlives_the_bucket_it_was_in_first() {
        let mut seen = Seen::new(1000);
        seen.enter(7, 0);
        assert!(seen.enter(7, 1000));
        for id in 100..200 {
            seen.enter(id, 1001);
            seen.let_go(1001);
        }
        assert!(!seen.enter(7, 1999));
    }

    #[test]
    fn what_is_restored_is_known_for_what_remains() {
        let mut seen = Seen::new(1000);
        seen.restore(1, 0, 10, 1500);
        seen.restore(2, 800, 11, 1500);
        assert!(seen.enter(1, 1500));
        assert!(!seen.enter(2, 1500));
        assert!(seen.enter(2, 1800));
        let mut gone = Vec::new();
        for id in 100..200 {
            seen.enter(id, 2900);
            gone.extend(seen.let_go(2900));
        }
        assert_eq!(gone.first().map(|range| range.start), Some(10));
    }

    #[test]
    fn a_window_of_years_is_told_in_longer_ticks() {
        let years: Millis = 10 * 365 * 86_400_000;
        let mut seen = Seen::new(years);
        assert!(seen.enter(7, 1));
        assert!(!seen.enter(7, years / 2));
        assert!(seen.enter(7, years + 2 * seen.unit));
    }

    #[test]
    fn who_enters_by_an_earlier_clock_finds_what_others_have_entered() {
        let mut seen = Seen::new(1000);
        assert!(seen.enter(7, 5_000));
        assert!(!seen.enter(7, 4_998));
    }

    #[test]
    fn each_is_known_as_long_as_the_window_whatever_else_comes() {
        let mut seen = Seen::new(1000);
        let mut dice = 1_u64;
        let mut entered = std::collections::HashMap::new();
        for now in 0..60_000_u64 {
            // More at some times than at others, so that shelves grow and shrink.
            let many = if now % 5_000 < 1_500 { 20 } else { 1 };
            for _ in 0..many {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let id = dice >> 47;
                let is_new = entered.get(&id).is_none_or(|since| now - since >= 1000);
                assert_eq!(seen.enter(id.into(), now), is_new, "{id} at {now}");
                if is_new && dice >> 33 & 7 == 0 {
                    seen.withdraw(id.into());
                    entered.remove(&id);
                } else if is_new {
                    entered.insert(id, now);
                }
                seen.let_go(now);
            }
        }
        let known = entered.values().filter(|since| 60_000 - **since < 1000).count();
        assert!((known..=3 * known).contains(&seen.len()), "{} for {known}", seen.len());
    }

    #[test]
    fn what_is_over_goes_in_small_pieces_after_a_time_in_which_little_came() {
        let mut seen = Seen::new(1000);
        assert!((0..300_000_u64).all(|id| seen.enter(id.into(), id / 10_000)));
        assert!(seen.enter(1_000_000, 900));
        let mut last = 0;
        for id in 1_000_001..1_000_500_u64 {
            let before = seen.len();
            assert!(seen.enter(id.into(), 1_500));
            last = id;
            seen.let_go(1_500);
            let gone = before.saturating_sub(seen.len());
            // Those of the lines that were looked at, and what a shelf has that is shrunk.
            assert!(gone <= 3 * PIECE + 3_000, "{gone} at once");
        }
        for id in last + 1..last + 300_000 {
            assert!(seen.enter(id.into(), 1_600 + id % 300));
            seen.let_go(1_600 + id % 300);
        }
        assert!(!seen.enter(last.into(), 1_800) && !seen.enter(1_000_000, 1_800));
        assert!(seen.enter(7, 1_800), "it is over");
    }

    #[test]
    fn what_is_over_goes_shelf_by_shelf_after_a_time_in_which_nothing_came() {
        let mut seen = Seen::new(1000);
        for id in 0..10_000_u64 {
            assert!(seen.enter(id.into(), 1));
            seen.recorded(id);
        }
        assert!(seen.enter(1, 1_001));
        assert_eq!((seen.len(), seen.retired.len()), (1, SHELVES));
        seen.recorded(10_000);
        let mut gone = Vec::new();
        for id in 2..=SHELVES {
            gone.extend(seen.let_go(1_001));
            assert_eq!(seen.retired.len(), SHELVES + 1 - id);
            assert!(seen.enter(id as u128, 1_001), "{id}");
        }
        assert_eq!(gone.last().map(|records| records.end), Some(10_000));
        assert!(!seen.enter(1, 2_000), "what came since is known");
    }

    #[test]
    fn what_the_sweep_has_passed_is_known_when_all_else_of_its_shelf_is_over() {
        let mut seen = Seen::new(1000);
        let mut shelf = Shelf::default();
        let hash_of = |id: [u32; 4]| seen.hasher.hash_one(whole(id)) >> 8;
        for id in 0..9_000 {
            shelf.enter(parts(id), hash_of(parts(id)), seen.time(5), hash_of).unwrap();
        }
        assert!(!shelf.sweep(PIECE, seen.time(1_500), hash_of).is_done);
        for id in 10_000..10_010 {
            shelf.enter(parts(id), hash_of(parts(id)), seen.time(1_500), hash_of).unwrap();
        }
        while !shelf.sweep(PIECE, seen.time(1_501), hash_of).is_done {}
        let known = |id| shelf.enter(parts(id), hash_of(parts(id)), seen.time(1_502), hash_of).is_none();
        assert!((10_000..10_010).all(known));
        assert!(seen.enter(1, 1));
    }

    #[test]
    fn what_was_seen_before_most_of_the_range_of_ticks_is_new() {
        let range = u64::from(u32::MAX) + 1;
        let mut seen = Seen::new(1000);
        assert!(seen.enter(1, 5));
        assert!(seen.enter(1, 5 + range / 2 + 100), "nothing has come since");
        let day = 86_400_000;
        let mut seen = Seen::new(day);
        for id in 0..1_000_000_u64 {
            seen.enter(id.into(), 5);
        }
        for id in 1..28 {
            assert!(seen.enter(1 << 64 | id, id as u64 * day * 9 / 10));
            seen.let_go(id as u64 * day * 9 / 10);
        }
        for id in 0..2_000 {
            assert!(seen.enter(id, 5 + range / 2 + 100), "{id}: little has come since");
        }
    }

    #[test]
    fn what_was_seen_long_ago_is_not_taken_for_new_when_ticks_begin_anew() {
        let mut seen = Seen::new(1000);
        let range = u64::from(u32::MAX) + 1;
        for (id, now) in [(1_u64, 5), (2, range / 2), (3, range - 3), (4, range - 1), (5, range + 2)] {
            assert!(seen.enter(id.into(), now));
            assert!(!seen.enter(id.into(), now + 999));
            assert!(seen.enter(100 + u128::from(id), now + 2_500));
            seen.let_go(now + 2_500);
        }
        assert!(seen.enter(1, range + 6));
        assert!(!seen.enter(5, range + 900));
    }
}

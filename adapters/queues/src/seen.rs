//! What was published within a window of time, by identifiers: so that it is known when it comes again.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use linkspan_contract::Millis;

/// Identifiers that were seen, each for a window from the first time on. They must be such that nobody can make two that
/// are the same. About 40 bytes each; they go bucket by bucket, in the order in which they came.
#[derive(Debug)]
pub struct Seen {
    window: Millis,
    /// Milliseconds of a tick.
    unit: Millis,
    known: HashTable<Known>,
    hasher: RandomState,
    buckets: VecDeque<Bucket>,
}

/// As small as it can be: there may be millions.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: [u32; 4],
    /// When it was seen, in ticks that begin anew at the end of their range.
    tick: u32,
}

/// Identifiers that came one behind the other.
#[derive(Debug)]
struct Bucket {
    ids: Vec<[u32; 4]>,
    first: Millis,
    last: Millis,
    /// Where a journal has them.
    records: Range<u64>,
}

/// A bucket has no more than so many,
const BUCKET: usize = 4096;

/// and is no older than this part of the window.
const PART: u64 = 64;

/// So many are let go for each that comes.
const PACE: usize = 4;

impl Seen {
    /// Nothing was seen.
    pub fn new(window: Millis) -> Self {
        Self {
            window,
            // Half of their range tells the future from the past.
            unit: (window >> 31).saturating_add(1),
            known: HashTable::new(),
            hasher: RandomState::default(),
            buckets: VecDeque::new(),
        }
    }

    /// Milliseconds for which they are known.
    pub const fn window(&self) -> Millis {
        self.window
    }

    /// How many there are, some of which may be over.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// True when it was not seen within the window; it is from now on.
    pub fn enter(&mut self, id: u128, now: Millis) -> bool {
        let id = parts(id);
        let known = Known { id, tick: self.tick(now) };
        let hasher = &self.hasher;
        let is_new =
            match self.known.entry(hash(hasher, &id), |known| known.id == id, |it| hash(hasher, &it.id)) {
                Entry::Occupied(mut place) => {
                    let is_over = is_over(place.get().tick, known.tick, self.window, self.unit);
                    if is_over {
                        *place.get_mut() = known;
                    }
                    is_over
                }
                Entry::Vacant(place) => {
                    place.insert(known);
                    true
                }
            };
        if is_new {
            self.line_up(id, now);
        }
        is_new
    }

    /// One that was entered does not count: what it stands for was not taken.
    pub fn withdraw(&mut self, id: u128) {
        self.remove(&parts(id), |_| true);
        // It came with the last ones: when all of them are withdrawn, nothing of them stays.
        while let Some(last) = self.buckets.back_mut() {
            let is_known =
                |id: &[u32; 4]| self.known.find(hash(&self.hasher, id), |known| known.id == *id).is_some();
            while last.ids.pop_if(|id| !is_known(id)).is_some() {}
            if !(last.ids.is_empty() && last.records.is_empty()) {
                break;
            }
            self.buckets.pop_back();
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

    /// Lets some of those go that are over, if there are any: to be called for each that is entered,
    /// whether it is taken or withdrawn. Yields what a journal
    /// need not keep any more.
    pub fn let_go(&mut self, now: Millis) -> Option<Range<u64>> {
        if self.buckets.back().is_some_and(|last| last.last.saturating_add(self.window) <= now) {
            return self.clear();
        }
        let first = self.buckets.front_mut()?;
        if first.last.saturating_add(self.window) > now {
            return None;
        }
        for _ in 0..PACE {
            let Some(id) = self.buckets.front_mut().and_then(|first| first.ids.pop()) else { break };
            let (now, window, unit) = (self.tick(now), self.window, self.unit);
            self.remove(&id, |known| is_over(known.tick, now, window, unit));
        }
        if self.buckets.front().is_some_and(|first| !first.ids.is_empty()) {
            return None;
        }
        let first = self.buckets.pop_front()?;
        let (room, len, hasher) = (self.known.capacity(), self.known.len(), &self.hasher);
        if room > 8 * BUCKET && len < room / 8 {
            self.known.shrink_to(len * 2, |known| hash(hasher, &known.id));
        }
        (!first.records.is_empty()).then_some(first.records)
    }

    /// Forgets all, and yields what a journal need not keep any more.
    pub fn clear(&mut self) -> Option<Range<u64>> {
        self.known = HashTable::new();
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
            self.line_up(parts(id), seen);
        }
        self.recorded(record);
    }

    fn line_up(&mut self, id: [u32; 4], now: Millis) {
        let part = self.window / PART;
        let is_full = |last: &Bucket| last.ids.len() >= BUCKET || now.saturating_sub(last.first) > part;
        if self.buckets.back().is_none_or(is_full) {
            self.buckets.push_back(Bucket { ids: Vec::new(), first: now, last: now, records: 0..0 });
        }
        if let Some(last) = self.buckets.back_mut() {
            last.ids.push(id);
            last.last = last.last.max(now);
        }
    }

    fn remove(&mut self, id: &[u32; 4], when: impl FnOnce(&Known) -> bool) {
        let hash = hash(&self.hasher, id);
        if let Ok(place) = self.known.find_entry(hash, |known| known.id == *id)
            && when(place.get())
        {
            place.remove();
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "they begin anew at the end of their range")]
    const fn tick(&self, now: Millis) -> u32 {
        (now / self.unit) as u32
    }
}

/// Whether what was seen at a tick is not known any more.
fn is_over(seen: u32, now: u32, window: Millis, unit: Millis) -> bool {
    u64::from(now.wrapping_sub(seen)) >= window.div_ceil(unit)
}

#[expect(clippy::cast_possible_truncation, reason = "each is a part")]
const fn parts(id: u128) -> [u32; 4] {
    [id as u32, (id >> 32) as u32, (id >> 64) as u32, (id >> 96) as u32]
}

fn hash(hasher: &RandomState, id: &[u32; 4]) -> u64 {
    let [a, b, c, d] = id.map(u128::from);
    hasher.hash_one(a | b << 32 | c << 64 | d << 96)
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
        let left: Vec<usize> = seen.buckets.iter().map(|bucket| bucket.ids.len()).collect();
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
}

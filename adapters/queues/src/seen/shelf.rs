//! Some of the identifiers, in lines as wide as those of the processor's cache: to know one costs the reading of one.

use linkspan_contract::Millis;
use smallvec::SmallVec;

/// A table of identifiers and of when they were seen. Who looks for one begins at its own line.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    lines: Vec<Line>,
    /// Where the sweep goes on that has begun.
    at: usize,
    /// How many that has left; not less than are there.
    left: usize,
    /// When the last one has come to its end.
    pub(super) swept: Millis,
}

/// What a piece of a sweep has come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swept {
    /// So many lines were looked at.
    pub(super) lines: usize,
    /// So many that were over are gone.
    pub(super) over: usize,
    /// The whole shelf has been looked at.
    pub(super) is_done: bool,
}

/// A place where nothing is, or what is over, is free.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    ids: [[u32; 4]; PLACES],
    /// When each was seen; 0: nothing is there.
    ticks: [u32; PLACES],
    /// When the last one was seen that found no room here, and is further on; 0: none has.
    passed: u32,
}

/// Now, in ticks that begin anew at the end of their range, and never are 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    pub(super) tick: u32,
    /// Ticks for which an identifier is known.
    pub(super) window: u32,
}

const PLACES: usize = 3;

/// No identifier is further from its own line.
const REACH: usize = 32;

const EMPTY: Line = Line { ids: [[0; 4]; PLACES], ticks: [0; PLACES], passed: 0 };

impl Time {
    /// Whether what was seen at a tick is known. What is yet to come is: those who enter have no common clock.
    const fn knows(self, tick: u32) -> bool {
        let age = self.tick.wrapping_sub(tick);
        tick != 0 && (age < self.window || age > u32::MAX / 2)
    }
}

impl Shelf {
    /// Puts an identifier down when it is not known; yields by how many there are more now, and nothing when it is.
    #[inline]
    pub(super) fn enter(
        &mut self,
        id: [u32; 4],
        hash: u64,
        now: Time,
        hash_of: impl Fn([u32; 4]) -> u64,
    ) -> Option<isize> {
        if self.knows(id, hash, now) {
            return None;
        }
        let mut more = 0;
        loop {
            if let Some(was_empty) = put(&mut self.lines, id, hash, now.tick, now) {
                // The sweep may be past its place.
                self.left += usize::from(self.at > 0);
                return Some(more + isize::from(was_empty));
            }
            let lines = self.lines.len() + self.lines.len() / 4 + 1;
            more -= self.rebuild(lines, now, &hash_of).cast_signed();
        }
    }

    #[inline]
    fn knows(&self, id: [u32; 4], hash: u64, now: Time) -> bool {
        for line in places(self.lines.len(), hash).map_while(|at| self.lines.get(at)) {
            if line.ids.iter().zip(&line.ticks).any(|(known, tick)| *known == id && now.knows(*tick)) {
                return true;
            }
            if !now.knows(line.passed) {
                break;
            }
        }
        false
    }

    /// True when it was there; it is no more.
    pub(super) fn remove(&mut self, id: [u32; 4], hash: u64) -> bool {
        for at in places(self.lines.len(), hash) {
            let Some(line) = self.lines.get_mut(at) else { break };
            // One that is over stands behind one that is known: that took the first place that was free.
            if let Some((_, tick)) =
                line.ids.iter().zip(&mut line.ticks).find(|(known, tick)| **known == id && **tick != 0)
            {
                *tick = 0;
                return true;
            }
        }
        false
    }

    /// Clears what is over from so many lines, where the sweep before has stopped; at its end a shelf that has become too large
    /// for what is left shrinks.
    pub(super) fn sweep(&mut self, most: usize, now: Time, hash_of: impl Fn([u32; 4]) -> u64) -> Swept {
        let (mut lines, mut over) = (0, 0);
        for line in self.lines.iter_mut().skip(self.at).take(most) {
            lines += 1;
            for tick in &mut line.ticks {
                if now.knows(*tick) {
                    self.left += 1;
                } else {
                    over += usize::from(*tick != 0);
                    *tick = 0;
                }
            }
            if !now.knows(line.passed) {
                line.passed = 0;
            }
        }
        self.at += lines;
        if self.at < self.lines.len() {
            return Swept { lines, over, is_done: false };
        }
        let left = std::mem::take(&mut self.left);
        self.at = 0;
        if left == 0 {
            self.lines = Vec::new();
        } else if self.lines.len() > 2 * left {
            over += self.rebuild(left, now, &hash_of);
        }
        Swept { lines, over, is_done: true }
    }

    /// The same at once, from its beginning; says how many are gone.
    pub(super) fn sweep_all(&mut self, now: Time, hash_of: impl Fn([u32; 4]) -> u64) -> usize {
        (self.at, self.left) = (0, 0);
        self.sweep(usize::MAX, now, hash_of).over
    }

    /// All is over; says how many are gone.
    pub(super) fn clear(&mut self) -> usize {
        (self.at, self.left) = (0, 0);
        let lines = std::mem::take(&mut self.lines);
        lines.iter().flat_map(|line| &line.ticks).filter(|tick| **tick != 0).count()
    }

    /// True when nothing is there, nor was lately.
    pub(super) const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Puts what is known into so many lines, or more if need be; says how many that are over are gone.
    #[cold]
    fn rebuild(&mut self, mut lines: usize, now: Time, hash_of: &impl Fn([u32; 4]) -> u64) -> usize {
        'larger: loop {
            let (mut fresh, mut over) = (vec![EMPTY; lines], 0);
            for line in &self.lines {
                for (id, tick) in line.ids.iter().zip(&line.ticks).filter(|(_, tick)| **tick != 0) {
                    if !now.knows(*tick) {
                        over += 1;
                    } else if put(&mut fresh, *id, hash_of(*id), *tick, now).is_none() {
                        lines += lines / 4 + 1;
                        continue 'larger;
                    }
                }
            }
            self.lines = fresh;
            (self.at, self.left) = (0, 0);
            return over;
        }
    }
}

/// Puts an identifier down that was seen at `tick` where there is room; says whether nothing was there before.
#[inline]
fn put(lines: &mut [Line], id: [u32; 4], hash: u64, tick: u32, now: Time) -> Option<bool> {
    let mut passed: SmallVec<[usize; REACH]> = SmallVec::new();
    for at in places(lines.len(), hash) {
        let Line { ids, ticks, .. } = lines.get_mut(at)?;
        let Some((place, was)) = ids.iter_mut().zip(ticks).find(|(_, tick)| !now.knows(**tick)) else {
            passed.push(at);
            continue;
        };
        let was_empty = *was == 0;
        (*place, *was) = (id, tick);
        for line in passed {
            let Some(Line { passed, .. }) = lines.get_mut(line) else { continue };
            if *passed == 0 || tick.wrapping_sub(*passed) <= u32::MAX / 2 {
                *passed = tick;
            }
        }
        return Some(was_empty);
    }
    None
}

/// The lines in which what has that hash may be, its own first.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "it is below a length")]
fn places(lines: usize, hash: u64) -> impl Iterator<Item = usize> {
    let own = ((u128::from(hash << 8) * lines as u128) >> 64) as usize;
    (own..own + REACH.min(lines)).map(move |at| if at < lines { at } else { at - lines })
}

//! What is noted of messages beside their content: how often they were given out, and from when on they are ready.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::log::Lsn;
use crate::log::record::number;
use crate::log::segments::Segments;

/// What is noted of a message. As a record: first sequence and count, 8 bytes each; given, one when attempts count and two
/// when it was received, attempts, zero, 4 bytes each; not before, 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Its attempts, when they are others than its payload says.
    pub attempts: Option<u32>,
    /// How often it was given out since.
    pub given: u32,
    /// From when on it is ready; none before it was given out again.
    pub not_before: u64,
    /// Its consumer has it.
    pub received: bool,
}

impl Mark {
    pub(crate) const SIZE: usize = 40;
    /// The same, as a record says it.
    pub(crate) const LENGTH: u32 = 40;

    pub(crate) fn encode(self, sequences: &Range<u64>, place: &mut [u8; Self::SIZE]) {
        let count = sequences.end.saturating_sub(sequences.start);
        let words = [
            sequences.start,
            count,
            u64::from(self.given) | u64::from(self.attempts.is_some()) << 32 | u64::from(self.received) << 33,
            u64::from(self.attempts.unwrap_or(0)),
            self.not_before,
        ];
        let (places, _) = place.as_chunks_mut::<8>();
        places.iter_mut().zip(words).for_each(|(place, word)| *place = word.to_le_bytes());
    }

    /// The sequences and the mark that a record says; none when it is no such record.
    pub(crate) fn decode(payload: &[u8]) -> Option<(Range<u64>, Self)> {
        let (words, _) = payload.first_chunk::<{ Self::SIZE }>()?.as_chunks::<8>();
        let word = |at: usize| words.get(at).map_or(0, |word| number(word));
        let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
        let attempts = (word(2) >> 32 & 1 != 0).then(|| low(word(3)));
        let received = word(2) >> 33 & 1 != 0;
        let mark = Self { attempts, given: low(word(2)), not_before: word(4), received };
        Some((word(0)..word(0).saturating_add(word(1)), mark))
    }
}

/// The marks of one queue, in runs of messages that have the same.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    runs: BTreeMap<u64, Run>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    end: u64,
    mark: Mark,
    /// The record that says it.
    at: Lsn,
}

impl Marks {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// What is noted of one message.
    pub(crate) fn get(&self, sequence: u64) -> Mark {
        let run = self.runs.range(..=sequence).next_back().map(|(_, run)| run);
        run.filter(|run| sequence < run.end).map_or(Mark::default(), |run| run.mark)
    }

    /// Forgets what is noted of these.
    pub(crate) fn clear(&mut self, sequences: &Range<u64>, segments: &mut Segments) {
        self.cut(sequences.start, segments);
        self.cut(sequences.end, segments);
        while let Some((first, run)) = self.runs.range(sequences.clone()).next() {
            let first = *first;
            segments.release_mark(run.at);
            self.runs.remove(&first);
        }
    }

    /// Notes this of these, instead of what was.
    pub(crate) fn set(&mut self, sequences: Range<u64>, mark: Mark, at: Lsn, segments: &mut Segments) {
        self.clear(&sequences, segments);
        self.insert(sequences, mark, at, segments);
    }

    /// These were given out once more; true when one of them had a mark already, so that this record alone does not say
    /// it all.
    pub(crate) fn given(&mut self, sequences: &Range<u64>, at: Lsn, segments: &mut Segments) -> bool {
        let touching =
            self.runs.range(..sequences.end).next_back().is_some_and(|(_, run)| run.end > sequences.start);
        let fresh = Mark { given: 1, ..Mark::default() };
        if !touching {
            self.insert(sequences.clone(), fresh, at, segments);
            return false;
        }
        let before = self.within(sequences);
        let mut from = sequences.start;
        for (range, mark) in before {
            if from < range.start {
                self.insert(from..range.start, fresh, at, segments);
            }
            from = range.end;
            let mark = Mark { given: mark.given.saturating_add(1), not_before: 0, ..mark };
            self.set(range, mark, at, segments);
        }
        if from < sequences.end {
            self.insert(from..sequences.end, fresh, at, segments);
        }
        true
    }

    /// What is noted of these.
    pub(crate) fn within(&self, sequences: &Range<u64>) -> Vec<(Range<u64>, Mark)> {
        self.overlapping(sequences).map(|(range, run)| (range, run.mark)).collect()
    }

    /// What is noted of these by the record at `at`.
    pub(crate) fn said_by(&self, sequences: &Range<u64>, at: Lsn) -> Vec<(Range<u64>, Mark)> {
        self.overlapping(sequences)
            .filter(|(_, run)| run.at == at)
            .map(|(range, run)| (range, run.mark))
            .collect()
    }

    /// The records that are needed, once for each run.
    pub(crate) fn records(&self) -> impl Iterator<Item = Lsn> {
        self.runs.values().map(|run| run.at)
    }

    fn overlapping(&self, sequences: &Range<u64>) -> impl Iterator<Item = (Range<u64>, Run)> {
        let (start, end) = (sequences.start, sequences.end);
        let before = self.runs.range(..start).next_back();
        let all = before.into_iter().chain(self.runs.range(start..end.max(start)));
        all.filter(move |(_, run)| run.end > start)
            .map(move |(first, run)| ((*first).max(start)..run.end.min(end), *run))
    }

    fn insert(&mut self, sequences: Range<u64>, mark: Mark, at: Lsn, segments: &mut Segments) {
        if sequences.is_empty() {
            return;
        }
        self.runs.insert(sequences.start, Run { end: sequences.end, mark, at });
        segments.hold_mark(at);
    }

    /// Parts the run that goes over `at`.
    fn cut(&mut self, at: u64, segments: &mut Segments) {
        let Some((_, run)) = self.runs.range_mut(..at).next_back() else { return };
        if run.end <= at {
            return;
        }
        let rest = *run;
        run.end = at;
        self.insert(at..rest.end, rest.mark, rest.at, segments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Segments {
        let mut segments = Segments::new(1);
        segments.begin(0);
        segments
    }

    fn held(segments: &Segments) -> u64 {
        segments.last().map_or(0, |segment| segment.marks)
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for mark in [
            Mark::default(),
            Mark { attempts: Some(7), given: 2, not_before: u64::MAX, received: false },
            Mark { attempts: Some(0), given: u32::MAX, not_before: 0, received: true },
            Mark { attempts: None, given: 1, not_before: 0, received: true },
        ] {
            let mut bytes = [0; Mark::SIZE];
            mark.encode(&(5..9), &mut bytes);
            assert_eq!(Mark::decode(&bytes), Some((5..9, mark)));
        }
    }

    #[test]
    fn giving_out_counts_for_each_message_apart() {
        let (mut marks, mut segments) = (Marks::default(), segments());
        assert!(!marks.given(&(10..20), 8, &mut segments));
        assert!(marks.given(&(15..25), 16, &mut segments));
        let counts: Vec<u32> = (8..27).map(|sequence| marks.get(sequence).given).collect();
        assert_eq!(counts, [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 0, 0]);
        assert_eq!(held(&segments), 3);
        assert_eq!(marks.said_by(&(0..100), 8).len(), 1);
        marks.clear(&(0..u64::MAX), &mut segments);
        assert!(marks.is_empty());
        assert_eq!(held(&segments), 0);
    }

    #[test]
    fn a_hole_in_a_run_leaves_its_two_sides() {
        let (mut marks, mut segments) = (Marks::default(), segments());
        let mark = Mark { attempts: Some(3), not_before: 99, ..Mark::default() };
        marks.set(0..10, mark, 8, &mut segments);
        marks.clear(&(4..6), &mut segments);
        assert_eq!(marks.within(&(0..10)), [(0..4, mark), (6..10, mark)]);
        assert_eq!(held(&segments), 2);
        assert_eq!(marks.within(&(2..8)), [(2..4, mark), (6..8, mark)]);
    }

    #[test]
    fn given_out_again_is_ready_no_later() {
        let (mut marks, mut segments) = (Marks::default(), segments());
        marks.set(0..2, Mark { attempts: Some(3), not_before: 99, ..Mark::default() }, 8, &mut segments);
        marks.given(&(0..1), 16, &mut segments);
        assert_eq!(marks.get(0), Mark { attempts: Some(3), given: 1, ..Mark::default() });
        assert_eq!(marks.get(1).not_before, 99);
    }
}

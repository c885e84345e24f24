//! Making room: files in which little is live are emptied, empty ones written again or removed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::log::catalog::Catalog;
use crate::log::inspect::names;
use crate::log::record::{Header, Kind, ranges, size_of_record};
use crate::log::scan::{Found, Scan};
use crate::log::segment::{Name, Segment};
use crate::log::store::{Store, StoreFile};
use crate::log::writer::{Turn, Writer};
use crate::log::{Commit, Log, LogError, Lsn, Mark, Options, Recovery, SyncMode, Usage};

/// Bytes of a file that are looked through before others have their turn.
const STEP: u64 = 1 << 20;

/// Bytes of the smallest segment.
const SMALLEST: u64 = 64 << 10;
/// So many files are never too many.
const FEW: u64 = 16;

/// Segments that were emptied in a row without making room, and what was dead then.
#[derive(Default)]
pub(crate) struct Fruitless {
    count: usize,
    dead: u64,
}

/// A segment that is being emptied.
pub(crate) struct Compaction {
    name: Name,
    /// Bytes of its records.
    size: u64,
    /// Bytes of those that were written again.
    moved: u64,
    /// None when nothing in it has to be read.
    scan: Option<Scan>,
    /// What it says is gone, of queues that older segments have messages of.
    gone: BTreeMap<u64, Vec<Range<u64>>>,
    /// Where the last of what was copied ends, and of what made it that little is live.
    until: Lsn,
    /// All is copied; when this is safe, the file is not needed any more.
    copied: Option<Lsn>,
}

impl Writer {
    /// Does a piece of what makes room.
    pub(crate) fn make_room(&mut self) -> Turn {
        let Some(mut compaction) = self.compaction.take().or_else(|| self.choose()) else {
            return Turn::Idle;
        };
        let name = compaction.name;
        match self.go_on(&mut compaction) {
            Ok(true) => Turn::Worked,
            Ok(false) => {
                self.compaction = Some(compaction);
                Turn::Worked
            }
            Err(error) => {
                self.stuck.push(name.id);
                self.shared.watch.trouble(&error);
                Turn::Worked
            }
        }
    }

    /// Which segment is to be emptied next.
    fn choose(&mut self) -> Option<Compaction> {
        let shared = Arc::clone(&self.shared);
        let state = shared.lock();
        let all = state.catalog.segments.all();
        let (older, _) = all.split_last().map(|(last, rest)| (rest, last))?;
        let sealed_before = |at: usize| at.checked_sub(1).is_none_or(|b| all.get(b).is_none_or(|s| s.sealed));
        let followed_by_nothing =
            |at: usize| all.get(at + 1).is_some_and(|next| next.live == 0 && next.marks == 0);
        let (mut least, mut smallest): (Option<&Segment>, Option<&Segment>) = (None, None);
        let (mut oldest, mut idle): (Option<&Segment>, Option<&Segment>) = (None, None);
        let (mut size, mut live) = (0_u64, 0_u64);
        for (at, segment) in older.iter().enumerate() {
            (size, live) = (size.saturating_add(segment.size()), live.saturating_add(needed(segment)));
            let ready = segment.end <= state.synced
                && segment.file.is_some()
                && !self.is_current(segment.name.id)
                && !self.stuck.contains(&segment.name.id)
                && sealed_before(at);
            if !ready {
                continue;
            }
            let swept = self.sweep.is_some_and(|until| segment.name.base < until && self.is_loose(segment));
            let free = is_idle(segment) && (segment.gone == 0 || at == 0);
            if free || (!segment.sealed && followed_by_nothing(at)) || swept {
                return Some(Compaction::of(segment, at > 0, state.committed));
            }
            oldest = oldest.or(Some(segment));
            idle = idle.or(Some(segment).filter(|segment| is_idle(segment)));
            if smallest.is_none_or(|other| segment.size() < other.size()) {
                smallest = Some(segment);
            }
            if least.is_none_or(|other| share(segment) < share(other)) {
                least = Some(segment);
            }
        }
        let slack = self.shared.options.slack;
        let wasteful = size > live.saturating_mul(2).saturating_add(slack);
        // Each start of a server begins a file; without end they would be too many to have open.
        let full = size.checked_div(self.shared.options.segment_size).unwrap_or(0);
        let many = older.len() as u64 > full.saturating_mul(2).saturating_add(FEW);
        let chosen = idle.or(least.filter(|_| wasteful)).or(smallest.filter(|_| many));
        // Copying needs room.
        let chosen = chosen.filter(|_| state.failed.is_none())?;
        let dead = size.saturating_sub(live);
        if self.fruitless.count > older.len() {
            // Nothing comes of it before much more is dead.
            if dead < self.fruitless.dead.saturating_add(self.shared.options.segment_size) {
                return None;
            }
            self.fruitless.count = 0;
        }
        self.fruitless.dead = dead;
        // What has to be said again as long as older segments are there goes with those.
        let chosen = oldest.filter(|_| self.fruitless.count > 0).unwrap_or(chosen);
        let others_before = older.first().is_some_and(|first| first.name != chosen.name);
        Some(Compaction::of(chosen, others_before, state.committed))
    }

    /// True when the segment takes clearly more room than what is live in it would elsewhere.
    fn is_loose(&self, segment: &Segment) -> bool {
        share(segment) < 980 || segment.size() < self.shared.options.segment_size / 2
    }

    /// True when it is done.
    fn go_on(&mut self, compaction: &mut Compaction) -> Result<bool, LogError> {
        if let Some(copied) = compaction.copied {
            if self.shared.options.sync == SyncMode::Never {
                self.sync()?;
            }
            if self.shared.lock().durable < copied {
                // Its writing is what comes next.
                return Ok(false);
            }
            self.let_go(compaction.name)?;
            let gained = compaction.moved < compaction.size - compaction.size / 8;
            self.fruitless.count = if gained { 0 } else { self.fruitless.count.saturating_add(1) };
            return Ok(true);
        }
        let mut commit = Commit::new();
        let mut found = Vec::new();
        let done = compaction.look(&mut found)?;
        let mut state = self.shared.lock();
        for (lsn, header, payload) in &found {
            compaction.copy(&state.catalog, *lsn, header, payload, &mut commit);
        }
        if done {
            compaction.say_again(&mut state.catalog, &mut commit);
        }
        self.shared.figures.moved(commit.size());
        compaction.moved = compaction.moved.saturating_add(commit.size());
        if !commit.is_empty() {
            compaction.until = state.append(&mut commit, self.shared.options.segment_size);
        }
        if done {
            compaction.copied = Some(compaction.until);
            // Its file may be written again only when nobody has it open.
            compaction.scan = None;
        }
        Ok(false)
    }

    /// Makes away with a segment that is needed no more.
    fn let_go(&mut self, name: Name) -> Result<(), LogError> {
        let file = {
            let mut state = self.shared.lock();
            let Some(segment) = state.catalog.segments.by_id_mut(name.id) else { return Ok(()) };
            if !is_idle(segment) {
                // What could not be read could not be copied.
                self.stuck.push(name.id);
                return Ok(());
            }
            segment.file.take()
        };
        let store = Arc::clone(&self.shared.store);
        let failed = |error| LogError::io("cannot make away with", name.file(), error);
        // Nobody may be reading what is written anew.
        let again = file.filter(|file| self.takes(file));
        match again {
            Some(file) => {
                store.rename(&name.file(), &name.free()).and_then(|()| store.sync()).map_err(failed)?;
                self.spares.push((name.free(), file));
            }
            None => store.remove(&name.file()).and_then(|()| store.sync()).map_err(failed)?,
        }
        self.shared.lock().catalog.segments.remove(name.id);
        self.shared.figures.emptied();
        Ok(())
    }

    /// True when the file is worth to be kept for another segment.
    fn takes(&self, file: &Arc<dyn StoreFile>) -> bool {
        let usual = self.shared.options.segment_size.saturating_mul(2);
        self.spares.len() < self.shared.options.spare_files.max(1)
            && Arc::strong_count(file) == 1
            && file.len().is_ok_and(|len| len >= self.shared.options.segment_size && len <= usual)
    }
}

const fn is_idle(segment: &Segment) -> bool {
    segment.live == 0 && segment.marks == 0
}

/// Bytes that what counts in a segment takes elsewhere.
const fn needed(segment: &Segment) -> u64 {
    segment.live.saturating_add(segment.marks.saturating_mul(size_of_record(Mark::LENGTH)))
}

/// How much of a segment is needed, in thousandths.
fn share(segment: &Segment) -> u64 {
    needed(segment).saturating_mul(1000).checked_div(segment.size()).unwrap_or(0)
}

impl Compaction {
    fn of(segment: &Segment, others_before: bool, until: Lsn) -> Self {
        let empty = is_idle(segment) && (segment.gone == 0 || !others_before);
        let file = segment.file.as_ref().filter(|_| !empty);
        let scan = file.map(|file| Scan::new(Arc::clone(file), segment.name, segment.end));
        let size = segment.size();
        Self { name: segment.name, size, moved: 0, scan, gone: BTreeMap::new(), until, copied: None }
    }

    /// Reads a piece; true when it was the last one.
    fn look(&mut self, found: &mut Vec<(Lsn, Header, Vec<u8>)>) -> Result<bool, LogError> {
        let Some(scan) = &mut self.scan else { return Ok(true) };
        let end = scan.at().saturating_add(STEP);
        while scan.at() < end {
            let next = scan.next().map_err(|error| LogError::io("cannot read", self.name.file(), error))?;
            match next {
                None => return Ok(true),
                Some(Found::Record(lsn, header)) if header.kind != Kind::Group => {
                    found.push((lsn, header, scan.payload().to_vec()));
                }
                Some(_) => {}
            }
        }
        Ok(false)
    }

    /// Copies a record if something of it counts still.
    fn copy(&mut self, catalog: &Catalog, lsn: Lsn, header: &Header, payload: &[u8], commit: &mut Commit) {
        let queue = header.queue;
        let index = catalog.queues.get(&queue);
        let live = match header.kind {
            Kind::Message | Kind::Stored => catalog.message_at(queue, header.sequence),
            Kind::Put => {
                let key = usize::try_from(header.sequence).ok().and_then(|length| payload.get(..length));
                catalog.keys.get(queue, key.unwrap_or_default())
            }
            Kind::Chunk => catalog.bodies.at(queue, header.sequence).map(|(_, place)| place),
            Kind::Gone => {
                if catalog.segments.any_of_queue(queue, self.name.base) {
                    let gone = self.gone.entry(queue).or_default();
                    gone.extend(ranges(payload).map(|(first, count)| first..first.saturating_add(count)));
                }
                None
            }
            Kind::Given | Kind::Mark => {
                let said: Vec<Range<u64>> = if header.kind == Kind::Given {
                    ranges(payload).map(|(first, count)| first..first.saturating_add(count)).collect()
                } else {
                    Mark::decode(payload).map(|(range, _)| range).into_iter().collect()
                };
                for (range, mark) in said
                    .iter()
                    .flat_map(|range| index.map(|index| index.marks.said_by(range, lsn)).unwrap_or_default())
                {
                    commit.mark(queue, range, mark);
                }
                None
            }
            Kind::Group | Kind::Seal | Kind::Delete => None,
        };
        if live.is_some_and(|place| place.lsn == lsn) {
            commit.again(header, payload);
            if matches!(header.kind, Kind::Message | Kind::Stored) {
                // A message that comes has none.
                let own = header.sequence..header.sequence.saturating_add(1);
                for (range, mark) in index.map(|index| index.marks.within(&own)).unwrap_or_default() {
                    commit.mark(queue, range, mark);
                }
            }
        }
    }

    /// Says again that things are gone of which older segments have records.
    fn say_again(&mut self, catalog: &mut Catalog, commit: &mut Commit) {
        for (queue, mut gone) in std::mem::take(&mut self.gone) {
            gone.sort_unstable_by_key(|range| range.start);
            let mut merged: Vec<Range<u64>> = Vec::new();
            for range in gone {
                match merged.last_mut() {
                    Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                    _ => merged.push(range),
                }
            }
            for range in merged {
                match catalog.queues.get(&queue) {
                    Some(index) => index.gaps(&range).into_iter().for_each(|gap| commit.gone(queue, gap)),
                    None => commit.gone(queue, range),
                }
            }
        }
        let Some(end) = catalog.segments.by_id(self.name.id).map(|segment| segment.end) else { return };
        let deletions = catalog.keys.deletions(self.name.base, end, &catalog.segments);
        for (owner, key) in deletions {
            // As short as it was.
            let _ = commit.delete(owner, &key);
        }
    }
}

/// What [`compact`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// What was found when the log was opened.
    pub recovery: Recovery,
    /// What it took before.
    pub before: Usage,
    /// What it takes now.
    pub after: Usage,
}

/// Brings a log that nobody has open down to what is live in it. Tells `progress` how many bytes of how many are done.
///
/// # Errors
/// When the log cannot be opened, or the disk refuses: then nothing is lost, and the log is as large as before or less.
pub fn compact(store: Arc<dyn Store>, progress: &mut dyn FnMut(u64, u64)) -> Result<Compacted, LogError> {
    let room = |name: &Name| store.open(&name.file()).and_then(|file| file.len()).unwrap_or(0);
    // A file of the usual size would take more room than a small log.
    let segment_size = names(&*store)?.iter().map(room).sum::<u64>();
    let segment_size = segment_size.clamp(SMALLEST, Options::default().segment_size);
    let options = Options { slack: 0, spare_files: 0, segment_size, ..Options::default() };
    let (log, mut writer, recovery) = Log::without_thread(Arc::clone(&store), options, Arc::new(()))?;
    let before = log.usage();
    let until = writer.shared.lock().end;
    writer.sweep = Some(until);
    let left = |writer: &Writer| -> u64 {
        let state = writer.shared.lock();
        let old = state.catalog.segments.all().iter().filter(|segment| segment.name.base < until);
        old.filter(|segment| writer.is_loose(segment)).map(Segment::size).sum()
    };
    let all = left(&writer);
    loop {
        match writer.turn() {
            Turn::Worked => progress(all.saturating_sub(left(&writer)), all),
            Turn::Idle => break,
            Turn::Failed => {
                let why = log.failed().unwrap_or_else(|| "the disk refused it".into());
                return Err(LogError::Failed { why });
            }
        }
    }
    writer.finish()?;
    for (name, _) in writer.spares.drain(..) {
        store.remove(&name).map_err(|error| LogError::io("cannot remove", name, error))?;
    }
    store.sync().map_err(|error| LogError::io("cannot sync", "the log's directory", error))?;
    Ok(Compacted { recovery, before, after: log.usage() })
}

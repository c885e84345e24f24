//! Making room: files in which little is live are emptied, empty ones written again or removed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::log::catalog::Catalog;
use crate::log::record::{Header, Kind, ranges};
use crate::log::scan::{Found, Scan};
use crate::log::segment::{Name, Segment};
use crate::log::store::StoreFile;
use crate::log::writer::{Turn, Writer};
use crate::log::{Commit, LogError, Lsn, Mark, SyncMode};

/// Bytes of a file that are looked through before others have their turn.
const STEP: u64 = 1 << 20;

/// A segment that is being emptied.
pub(crate) struct Compaction {
    name: Name,
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
    fn choose(&self) -> Option<Compaction> {
        let state = self.shared.lock();
        if state.failed.is_some() {
            return None;
        }
        let all = state.catalog.segments.all();
        let (older, _) = all.split_last().map(|(last, rest)| (rest, last))?;
        let sealed_before = |at: usize| at.checked_sub(1).is_none_or(|b| all.get(b).is_none_or(|s| s.sealed));
        let followed_by_nothing =
            |at: usize| all.get(at + 1).is_some_and(|next| next.live == 0 && next.marks == 0);
        let mut least: Option<&Segment> = None;
        let (mut size, mut live) = (0_u64, 0_u64);
        for (at, segment) in older.iter().enumerate() {
            (size, live) = (size.saturating_add(segment.size()), live.saturating_add(segment.live));
            let ready = segment.end <= state.synced
                && segment.file.is_some()
                && !self.is_current(segment.name.id)
                && !self.stuck.contains(&segment.name.id)
                && sealed_before(at);
            if !ready {
                continue;
            }
            if is_idle(segment) || (!segment.sealed && followed_by_nothing(at)) {
                return Some(Compaction::of(segment, at > 0, state.committed));
            }
            if least.is_none_or(|other| share(segment) < share(other)) {
                least = Some(segment);
            }
        }
        let slack = self.shared.options.slack;
        let wasteful = size > live.saturating_mul(2).saturating_add(slack);
        least.filter(|_| wasteful).map(|segment| Compaction::of(segment, true, state.committed))
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
        Ok(())
    }

    /// True when the file is worth to be kept for another segment.
    fn takes(&self, file: &Arc<dyn StoreFile>) -> bool {
        let usual = self.shared.options.segment_size.saturating_mul(2);
        self.spares.len() < self.shared.options.spare_files
            && Arc::strong_count(file) == 1
            && file.len().is_ok_and(|len| len >= self.shared.options.segment_size && len <= usual)
    }
}

const fn is_idle(segment: &Segment) -> bool {
    segment.live == 0 && segment.marks == 0
}

/// How much of a segment is live, in thousandths.
fn share(segment: &Segment) -> u64 {
    segment.live.saturating_mul(1000).checked_div(segment.size()).unwrap_or(0)
}

impl Compaction {
    fn of(segment: &Segment, others_before: bool, until: Lsn) -> Self {
        let empty = is_idle(segment) && (segment.gone == 0 || !others_before);
        let file = segment.file.as_ref().filter(|_| !empty);
        let scan = file.map(|file| Scan::new(Arc::clone(file), segment.name, segment.end));
        Self { name: segment.name, scan, gone: BTreeMap::new(), until, copied: None }
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

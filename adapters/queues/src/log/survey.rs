//! What a log comes to, seen from outside, whoever has it; nothing is changed.

use std::fmt;
use std::sync::Arc;

use crate::log::block::Place;
use crate::log::catalog::Catalog;
use crate::log::inspect::{Step, names, walk};
use crate::log::record::{HEADER, Header, Kind};
use crate::log::recovery::{Damage, lost};
use crate::log::segment::{Name, Segment};
use crate::log::segments::Segments;
use crate::log::store::{Store, read_full};
use crate::log::{LogError, Lsn};

/// So much is read of the oldest message of a queue.
const GLIMPSE: usize = 4 << 10;

/// A log as [`survey`] found it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// Each file, in the order of the stream.
    pub segments: Vec<Surveyed>,
    /// Each queue that has messages, by its number.
    pub queues: Vec<SurveyedQueue>,
    /// Each owner that has values, by its number.
    pub owners: Vec<Owned>,
    /// Bodies that lie apart from their messages.
    pub bodies: u64,
    /// Bytes of them.
    pub body_bytes: u64,
    /// What is damaged.
    pub damage: Vec<Harm>,
    /// Messages that have lost a part of their body: queue and sequence. They are not counted.
    pub lost: Vec<(u64, u64)>,
    /// What was written last and is not complete, so that it does not count; beside a running server, what is being
    /// written.
    pub torn: Option<Damage>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// Its name.
    pub file: String,
    /// Its id.
    pub id: u64,
    /// LSN of its first record.
    pub base: Lsn,
    /// Bytes of its records.
    pub bytes: u64,
    /// Bytes of those that are live.
    pub live: u64,
    /// How many there are.
    pub records: u64,
    /// It is full, or was left behind.
    pub ended: bool,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedQueue {
    /// Its number.
    pub queue: u64,
    /// Live messages.
    pub messages: u64,
    /// Bytes of their payloads, bodies that lie apart not counted.
    pub bytes: u64,
    /// The message with the lowest sequence.
    pub oldest: Option<Oldest>,
}

/// The message of a queue with the lowest sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    /// Its sequence.
    pub sequence: u64,
    /// The first bytes of what its owner wrote.
    pub payload: Vec<u8>,
}

/// An owner of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// Its number.
    pub owner: u64,
    /// Keys that have a value.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// Damage, and what it takes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Harm {
    /// Where it is.
    pub damage: Damage,
    /// What it takes with it.
    pub takes: Takes,
}

/// What a damage takes with it. Displays as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: what lay there counted no more, or is said elsewhere, too.
    Nothing,
    /// What lay there cannot be known.
    Unknown,
    /// A message.
    Message {
        /// Of this queue.
        queue: u64,
        /// Under this sequence.
        sequence: u64,
    },
    /// A part of a body, and with it the messages that have it.
    Body {
        /// Queue and sequence of each.
        messages: Vec<(u64, u64)>,
    },
    /// A value.
    Value {
        /// Of this owner.
        owner: u64,
    },
    /// The deletion of a value, which may be back.
    Deletion {
        /// Of this owner.
        owner: u64,
    },
    /// That messages are gone, which may be back.
    Gone {
        /// Of this queue.
        queue: u64,
    },
    /// How often messages were given out, and their delays.
    Marks {
        /// Of this queue.
        queue: u64,
    },
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("takes nothing with it"),
            Self::Unknown => f.write_str("takes what lay there with it; what that was cannot be known"),
            Self::Message { queue, sequence } => write!(f, "takes message {sequence} of queue {queue}"),
            Self::Body { messages } => {
                f.write_str("takes a part of the body of ")?;
                for (at, (queue, sequence)) in messages.iter().enumerate() {
                    let and = if at == 0 { "" } else { ", " };
                    write!(f, "{and}message {sequence} of queue {queue}")?;
                }
                Ok(())
            }
            Self::Value { owner } => write!(f, "takes a value of owner {owner}; an older one may be back"),
            Self::Deletion { owner } => write!(f, "a deleted value of owner {owner} may be back"),
            Self::Gone { queue } => write!(f, "messages of queue {queue} that were settled may be back"),
            Self::Marks { queue } => {
                write!(f, "messages of queue {queue} may have lost their delivery count or delay")
            }
        }
    }
}

/// What is found on the way.
#[derive(Default)]
struct Finds {
    catalog: Catalog,
    /// Records and whether it is ended, of each segment.
    segments: Vec<(Name, u64, bool)>,
    damage: Vec<(Damage, Lsn, Option<Header>)>,
}

/// Reads every record of the log in `store` and says what they come to. Tells `progress` how many bytes of how many were
/// read. Beside a running server it is the state of one instant.
///
/// # Errors
/// When a file is of another version, or the system refuses.
pub fn survey(store: &dyn Store, progress: &mut dyn FnMut(u64, u64)) -> Result<Survey, LogError> {
    let all = total(store)?;
    let mut finds = Finds::default();
    finds.catalog.learning = true;
    finds.catalog.segments = Segments::new(0);
    let (mut done, mut told) = (0_u64, 0_u64);
    let walked = walk(store, &mut |step| {
        if let Step::Record { header, .. } = &step {
            done = done.saturating_add(header.size());
            if done.saturating_sub(told) > 1 << 20 {
                told = done;
                progress(done.min(all), all);
            }
        }
        finds.take(step);
    })?;
    progress(all, all);
    if let Some(remaining) = walked.remaining {
        finds.keep(&remaining);
    }
    Ok(finds.come_to(walked.torn))
}

/// Bytes that there are to be read, at most.
fn total(store: &dyn Store) -> Result<u64, LogError> {
    let names = names(store)?;
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return Ok(0) };
    // It may have gone meanwhile, and is only for the progress.
    let length = store.open(&last.file()).and_then(|file| file.len()).unwrap_or(0);
    Ok(last.base.saturating_sub(first.base).saturating_add(length))
}

impl Finds {
    fn take(&mut self, step: Step<'_>) {
        let catalog = &mut self.catalog;
        match step {
            Step::Begins { name, file } => {
                catalog.segments.push(Segment { file: Some(Arc::clone(file)), ..Segment::new(name) });
                self.segments.push((name, 0, false));
            }
            Step::Record { lsn, header, payload, .. } => {
                catalog.apply(header, payload, lsn, &mut Vec::new());
                if let Some((_, records, _)) = self.segments.last_mut() {
                    *records += 1;
                }
                if let Some(segment) = catalog.segments.last_mut() {
                    segment.end = lsn.saturating_add(header.size());
                }
            }
            Step::Damaged { damage, from, header } => {
                // As if it were whole, to find out whether it would count.
                let pretend = header.filter(|header| matches!(header.kind, Kind::Message | Kind::Chunk));
                let pretend = pretend.or(header.and_then(|header| match header.kind {
                    Kind::Stored => Some(Header { kind: Kind::Message, ..header }),
                    _ => None,
                }));
                if let Some(header) = pretend {
                    catalog.apply(&header, &[], from, &mut Vec::new());
                }
                self.damage.push((damage, from, header));
            }
            Step::Ends { end, ended } => {
                if let Some(segment) = catalog.segments.last_mut() {
                    segment.end = segment.end.max(end);
                }
                if let Some(last) = self.segments.last_mut() {
                    last.2 = ended;
                }
            }
            Step::Vanished => {}
        }
    }

    /// Lets go what lies in files that are none of these.
    fn keep(&mut self, remaining: &[Name]) {
        let segments = &self.catalog.segments;
        let is_there = |lsn| segments.at(lsn).is_some_and(|segment| remaining.contains(&segment.name));
        let mut away: Vec<(u64, u64)> = Vec::new();
        for (queue, index) in &self.catalog.queues {
            away.extend(index.from(0).filter(|(_, at)| !is_there(at.lsn)).map(|(at, _)| (*queue, at)));
        }
        let mut values: Vec<(u64, Box<[u8]>)> = Vec::new();
        for owner in self.catalog.keys.owners() {
            let keys = self.catalog.keys.of(owner).filter(|(_, place)| !is_there(place.lsn));
            values.extend(keys.map(|(key, _)| (owner, key.into())));
        }
        for (queue, sequence) in away {
            self.catalog.gone(queue, &(sequence..sequence.saturating_add(1)));
        }
        for (owner, key) in values {
            self.catalog.keys.delete(owner, &key, 0, &mut self.catalog.segments);
        }
        self.segments.retain(|(name, ..)| remaining.contains(name));
    }

    fn come_to(mut self, torn: Option<Damage>) -> Survey {
        let mut survey = Survey { torn, ..Survey::default() };
        survey.damage = std::mem::take(&mut self.damage)
            .into_iter()
            .map(|(damage, from, header)| {
                let takes = self.taken(&damage, from, header);
                Harm { damage, takes }
            })
            .collect();
        let catalog = &mut self.catalog;
        for Harm { takes, .. } in &survey.damage {
            match takes {
                Takes::Message { queue, sequence } => {
                    catalog.gone(*queue, &(*sequence..sequence.saturating_add(1)));
                }
                Takes::Body { messages } => survey.lost.extend(messages),
                _ => {}
            }
        }
        survey.lost.extend(lost(catalog));
        survey.lost.sort_unstable();
        survey.lost.dedup();
        for (queue, sequence) in &survey.lost {
            catalog.gone(*queue, &(*sequence..sequence.saturating_add(1)));
        }
        catalog.bodies.sweep(&mut catalog.segments);
        (survey.bodies, survey.body_bytes) = catalog.bodies.totals();
        survey.segments = self.segments.iter().map(|segment| surveyed(&self.catalog, *segment)).collect();
        survey.queues = queues(&self.catalog);
        survey.owners = owners(&self.catalog);
        survey
    }

    fn taken(&self, damage: &Damage, from: Lsn, header: Option<Header>) -> Takes {
        let catalog = &self.catalog;
        let is_here = |place: Place| place.lsn == from;
        match header.map(|header| (header.kind, header.queue, header.sequence)) {
            // The file's own header: its name says as much.
            None if damage.offset == 0 => Takes::Nothing,
            None => Takes::Unknown,
            Some((Kind::Group | Kind::Seal, ..)) => Takes::Nothing,
            Some((Kind::Message | Kind::Stored, queue, sequence)) => {
                match catalog.message_at(queue, sequence).is_some_and(is_here) {
                    true => Takes::Message { queue, sequence },
                    false => Takes::Nothing,
                }
            }
            Some((Kind::Chunk, body, offset)) => {
                let mut messages = Vec::new();
                if catalog.bodies.at(body, offset).is_some_and(|(_, place)| is_here(place)) {
                    for (queue, index) in &catalog.queues {
                        let have = index.bodies.iter().filter(|(_, (id, _))| *id == body);
                        messages.extend(have.map(|(sequence, _)| (*queue, *sequence)));
                    }
                }
                messages.sort_unstable();
                if messages.is_empty() { Takes::Nothing } else { Takes::Body { messages } }
            }
            Some((Kind::Put, owner, _)) => Takes::Value { owner },
            Some((Kind::Delete, owner, _)) => Takes::Deletion { owner },
            Some((Kind::Gone, queue, _)) => Takes::Gone { queue },
            Some((Kind::Given | Kind::Mark, queue, _)) => Takes::Marks { queue },
        }
    }
}

fn surveyed(catalog: &Catalog, (name, records, ended): (Name, u64, bool)) -> Surveyed {
    let segment = catalog.segments.by_id(name.id);
    let (bytes, live) = segment.map_or((0, 0), |segment| (segment.size(), segment.live));
    Surveyed { file: name.file(), id: name.id, base: name.base, bytes, live, records, ended }
}

fn queues(catalog: &Catalog) -> Vec<SurveyedQueue> {
    let mut queues: Vec<SurveyedQueue> = catalog
        .queues
        .iter()
        .filter(|(_, index)| index.len > 0)
        .map(|(queue, index)| {
            let first = index.from(0).next();
            let oldest = first.and_then(|(sequence, place)| {
                let payload = glimpse(catalog, place, index.bodies.contains_key(&sequence))?;
                Some(Oldest { sequence, payload })
            });
            SurveyedQueue { queue: *queue, messages: index.len, bytes: index.bytes, oldest }
        })
        .collect();
    queues.sort_unstable_by_key(|queue| queue.queue);
    queues
}

/// The first bytes of a message's payload; none when they cannot be read any more.
fn glimpse(catalog: &Catalog, place: Place, has_body: bool) -> Option<Vec<u8>> {
    let segment = catalog.segments.at(place.lsn)?;
    let (file, skip) = (segment.file.as_ref()?, if has_body { 16 } else { 0 });
    let length = (place.length as usize).saturating_sub(skip).min(GLIMPSE);
    let mut payload = vec![0; length];
    let offset = segment.offset(place.lsn).saturating_add((HEADER + skip) as u64);
    let read = read_full(&**file, &mut payload, offset).ok()?;
    payload.truncate(read);
    Some(payload)
}

fn owners(catalog: &Catalog) -> Vec<Owned> {
    let each = catalog.keys.owners().map(|owner| {
        let (mut keys, mut bytes) = (0, 0);
        for (_, place) in catalog.keys.of(owner) {
            (keys, bytes) = (keys + 1, bytes + u64::from(place.length));
        }
        Owned { owner, keys, bytes }
    });
    let mut owners: Vec<Owned> = each.collect();
    owners.sort_unstable_by_key(|owned| owned.owner);
    owners
}

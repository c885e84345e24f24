//! What a log should come to: a plain model of it.

use std::collections::BTreeMap;
use std::ops::Range;

use linkspan_queues::log::{Commit, Log, Mark, Window};

/// Live messages, values and bodies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plain {
    /// By queue and sequence: payload, body with its length, mark.
    pub(crate) messages: BTreeMap<(u64, u64), Message>,
    /// Marks of what is no message yet, too.
    marks: BTreeMap<(u64, u64), Mark>,
    pub(crate) values: BTreeMap<(u64, Vec<u8>), Vec<u8>>,
}

/// What can be seen: messages by queue and sequence, values by owner and key.
pub(crate) type Seen = (BTreeMap<(u64, u64), Message>, BTreeMap<(u64, Vec<u8>), Vec<u8>>);

/// A live message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) payload: Vec<u8>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) mark: Mark,
}

/// One thing that a commit says.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    Message {
        queue: u64,
        sequence: u64,
        payload: Vec<u8>,
    },
    Stored {
        queue: u64,
        sequence: u64,
        parts: Vec<Vec<u8>>,
        payload: Vec<u8>,
    },
    /// A message that has the body of one that was there before the commit, if that has one.
    Shares {
        queue: u64,
        sequence: u64,
        of: (u64, u64),
        payload: Vec<u8>,
    },
    Gone {
        queue: u64,
        sequences: Range<u64>,
    },
    Given {
        queue: u64,
        sequences: Range<u64>,
    },
    Mark {
        queue: u64,
        sequences: Range<u64>,
        mark: Mark,
    },
    Put {
        owner: u64,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        owner: u64,
        key: Vec<u8>,
    },
}

impl Says {
    /// Puts it into a commit; yields the body that its owner has to let go of afterwards.
    pub(crate) fn say(&self, log: &Log, commit: &mut Commit) -> Option<u64> {
        match self {
            Self::Message { queue, sequence, payload } => commit.message(*queue, *sequence, payload).unwrap(),
            Self::Stored { queue, sequence, parts, payload } => {
                let body = log.body();
                let mut offset = 0;
                for part in parts {
                    commit.chunk(body, offset, part).unwrap();
                    offset += part.len() as u64;
                }
                commit.stored(*queue, *sequence, (body, offset), payload).unwrap();
                return Some(body);
            }
            Self::Shares { queue, sequence, of, payload } => {
                let mut window = Window::new();
                log.read(of.0, of.1, 1, 1, &mut window);
                let body = window.messages().find(|read| read.sequence == of.1).and_then(|read| read.body)?;
                log.hold_body(body.0);
                commit.stored(*queue, *sequence, body, payload).unwrap();
                return Some(body.0);
            }
            Self::Gone { queue, sequences } => commit.gone(*queue, sequences.clone()),
            Self::Given { queue, sequences } => commit.given(*queue, sequences.clone()),
            Self::Mark { queue, sequences, mark } => commit.mark(*queue, sequences.clone(), *mark),
            Self::Put { owner, key, value } => commit.put(*owner, key, value).unwrap(),
            Self::Delete { owner, key } => commit.delete(*owner, key).unwrap(),
        }
        None
    }
}

impl Plain {
    /// `before` is what there was before the commit.
    pub(crate) fn apply(&mut self, says: &Says, before: &Self) {
        match says {
            Says::Message { queue, sequence, payload } => self.message((*queue, *sequence), payload, None),
            Says::Stored { queue, sequence, parts, payload } => {
                self.message((*queue, *sequence), payload, Some(parts.concat()));
            }
            Says::Shares { queue, sequence, of, payload } => {
                if let Some(body) = before.messages.get(of).and_then(|message| message.body.clone()) {
                    self.message((*queue, *sequence), payload, Some(body));
                }
            }
            Says::Gone { queue, sequences } => {
                let gone = |(q, s): &(u64, u64)| q == queue && sequences.contains(s);
                self.messages.retain(|at, _| !gone(at));
                self.marks.retain(|at, _| !gone(at));
            }
            Says::Given { queue, sequences } => {
                for sequence in sequences.clone() {
                    let mark = self.marks.entry((*queue, sequence)).or_default();
                    mark.given += 1;
                    mark.not_before = 0;
                }
                self.note(*queue, sequences);
            }
            Says::Mark { queue, sequences, mark } => {
                self.marks.extend(sequences.clone().map(|sequence| ((*queue, sequence), *mark)));
                self.note(*queue, sequences);
            }
            Says::Put { owner, key, value } => {
                self.values.insert((*owner, key.clone()), value.clone());
            }
            Says::Delete { owner, key } => drop(self.values.remove(&(*owner, key.clone()))),
        }
    }

    fn message(&mut self, at: (u64, u64), payload: &[u8], body: Option<Vec<u8>>) {
        self.marks.remove(&at);
        self.messages.insert(at, Message { payload: payload.into(), body, mark: Mark::default() });
    }

    fn note(&mut self, queue: u64, sequences: &Range<u64>) {
        for (at, message) in self.messages.range_mut((queue, sequences.start)..(queue, sequences.end)) {
            message.mark = self.marks.get(at).copied().unwrap_or_default();
        }
    }

    /// What can be seen of it.
    pub(crate) fn seen(&self) -> Seen {
        (self.messages.clone(), self.values.clone())
    }
}

/// What can be seen of a log.
pub(crate) fn seen(log: &Log) -> Seen {
    let (mut messages, mut values) = (BTreeMap::new(), BTreeMap::new());
    let mut window = Window::new();
    for state in log.queues() {
        let (mut from, mut bytes) = (0, 0);
        let before = messages.len() as u64;
        loop {
            log.read(state.queue, from, 7, 2000, &mut window);
            assert!(window.damaged.is_empty(), "everything can be read: {:?}", window.damaged);
            if window.messages().len() == 0 {
                break;
            }
            for read in window.messages() {
                let body = read.body.map(|(body, length)| body_of(log, body, length));
                let (payload, mark) = (read.payload.to_vec(), read.mark);
                let apart = body.as_ref().map_or(0, |body| 16 + body.len() as u64);
                bytes += payload.len() as u64 + apart;
                messages.insert((state.queue, read.sequence), Message { payload, body, mark });
                from = read.sequence + 1;
            }
        }
        assert_eq!(messages.len() as u64 - before, state.len, "the count of queue {}", state.queue);
        assert_eq!(bytes, state.bytes, "the bytes of queue {}", state.queue);
    }
    for owner in log.owners() {
        for key in log.keys(owner) {
            let value = log.get(owner, &key).unwrap().unwrap();
            values.insert((owner, key.into_vec()), value);
        }
    }
    (messages, values)
}

fn body_of(log: &Log, body: u64, length: u64) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let part = log.read_body(body, all.len() as u64).unwrap();
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    assert_eq!(all.len() as u64, length, "a body is whole");
    all
}

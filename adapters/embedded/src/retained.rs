//! What an address retains, in the log: the hub keeps it in memory, and finds it here after a restart.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::backend::Retained;
use linkspan_contract::{Batch, Flags, Millis};
use linkspan_queues::Encode;
use linkspan_queues::log::Commit;

use crate::archive::Archive;
use crate::parcel::Parcel;
use crate::written::{self, Written};

/// Who owns the values in the log: no queue of the topology has this number. As a queue it has a message without content for
/// each body of the log that a value names, under the body's number, and so holds that.
pub const OWNER: u64 = 1 << 61;

/// Bytes before the message: since when, 8; its priority, 1; 1 when number and length of a body of the log, 8 bytes each,
/// stand before the message, 1; six zeros.
const HEAD: usize = 16;

/// The bodies of the log that values name, by their keys.
pub(crate) type Bodies = HashMap<Vec<u8>, Named, RandomState>;

/// A body that a value names, and from when on the value counts no more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    number: u64,
    end: Millis,
}

/// What is to be written, and which bodies will be named then.
#[derive(Default)]
pub(crate) struct Note {
    pub(crate) commit: Commit,
    named: Vec<(Vec<u8>, Option<Named>)>,
}

impl Note {
    /// It was written.
    pub(crate) fn enter(self, bodies: &mut Bodies) {
        for (key, body) in self.named {
            match body {
                Some(body) => bodies.insert(key, body),
                None => bodies.remove(&key),
            };
        }
    }

    /// The body that a key names as things stand here.
    fn named(&self, key: &[u8], bodies: &Bodies) -> Option<u64> {
        let here = self.named.iter().rev().find(|(named, _)| named == key);
        here.map_or_else(|| bodies.get(key).copied(), |(_, body)| *body).map(|named| named.number)
    }
}

/// What a vhost and a topic are filed under.
fn key_of(vhost: &str, topic: &[u8]) -> Vec<u8> {
    [vhost.as_bytes(), b"\0", topic].concat()
}

/// Adds to a commit that the message at `at` is the retained one of its address now, or that there is none any more when
/// it has no payload (MQTT 5 §3.3.1.3 [MQTT-3.3.1-6]).
pub(crate) fn note(
    batch: &Batch<'_>,
    at: u32,
    vhost: &str,
    now: Millis,
    archive: &Arc<Archive>,
    bodies: &Bodies,
    note: &mut Note,
) {
    let Some(message) = batch.message(at) else { return };
    let key = key_of(vhost, &batch.address(message).topic());
    let before = note.named(&key, bodies);
    let mut place = None;
    let noted = if batch.payload_len(message) == 0 {
        note.commit.delete(OWNER, &key)
    } else {
        let Some(kept) = batch.keep(at..at.saturating_add(1)).kept(0) else { return };
        let mut written = Vec::new();
        place = Written::new(archive).encode(&Parcel::from(kept), &mut written);
        let mut value = now.to_le_bytes().to_vec();
        value.extend_from_slice(&[message.priority, u8::from(place.is_some()), 0, 0, 0, 0, 0, 0]);
        if let Some((number, length)) = place {
            value.extend_from_slice(&number.to_le_bytes());
            value.extend_from_slice(&length.to_le_bytes());
            // Short enough.
            let _ = note.commit.stored(OWNER, number, (number, length), &[]);
        }
        value.append(&mut written);
        note.commit.put(OWNER, &key, &value)
    };
    if let Err(why) = noted {
        tracing::warn!(%why, "a retained message is not written down: it is gone after a restart");
        return;
    }
    let number = place.map(|(number, _)| number);
    if let Some(before) = before.filter(|before| Some(*before) != number) {
        note.commit.gone(OWNER, before..before.saturating_add(1));
    }
    if before != number {
        let expires = message.flags.has(Flags::EXPIRES);
        let end = if expires { now.saturating_add(message.expiry) } else { Millis::MAX };
        note.named.push((key, number.map(|number| Named { number, end })));
    }
}

/// What the addresses of a vhost retained when the log was opened. What has expired since is forgotten.
pub(crate) fn found(archive: &Arc<Archive>, vhost: &str, now: Millis) -> Vec<Retained> {
    let prefix = key_of(vhost, b"");
    let mut over = Commit::new();
    let mut bodies = archive.retained_bodies();
    let mut found = Vec::new();
    for key in archive.keys(OWNER).into_iter().filter(|key| key.starts_with(&prefix)) {
        let value = archive.value(OWNER, &key);
        let place = value.as_ref().ok().and_then(Option::as_deref).and_then(place);
        match value.map(|value| value.and_then(|value| read(&value, now, archive))) {
            Ok(Some(retained)) => {
                let head = retained.message.message();
                let left = head.expiry.saturating_sub(retained.age);
                let end = if head.flags.has(Flags::EXPIRES) { now.saturating_add(left) } else { Millis::MAX };
                bodies.extend(place.map(|(number, _)| (key.into_vec(), Named { number, end })));
                found.push(retained);
            }
            Ok(None) => {
                // Short enough to have been put.
                let _ = over.delete(OWNER, &key);
                if let Some((number, _)) = place {
                    over.gone(OWNER, number..number.saturating_add(1));
                }
            }
            Err(why) => tracing::error!(%why, "a retained message cannot be read"),
        }
    }
    archive.write_behind(&mut over);
    found
}

/// Takes out what has expired and has a body in the log: that is not to stay there until somebody retains something else.
pub(crate) fn sweep(archive: &Archive, now: Millis) {
    let mut over = Commit::new();
    let mut bodies = archive.retained_bodies();
    bodies.retain(|key, Named { number, end }| {
        if *end <= now {
            // Short enough to have been put.
            let _ = over.delete(OWNER, key);
            over.gone(OWNER, *number..number.saturating_add(1));
        }
        *end > now
    });
    archive.write_behind(&mut over);
}

/// Number and length of the body that a value names.
fn place(value: &[u8]) -> Option<(u64, u64)> {
    let (head, rest) = value.split_first_chunk::<HEAD>()?;
    let (place, _) = rest.as_chunks::<8>();
    let (1, [number, length, ..]) = (*head.get(9)?, place) else { return None };
    Some((u64::from_le_bytes(*number), u64::from_le_bytes(*length)))
}

fn read(value: &[u8], now: Millis, archive: &Arc<Archive>) -> Option<Retained> {
    let (head, message) = value.split_first_chunk::<HEAD>()?;
    let (since, rest) = head.split_first_chunk::<8>()?;
    let age = now.saturating_sub(u64::from_le_bytes(*since));
    let place = place(value);
    let message = message.get(if place.is_some() { 16 } else { 0 }..)?;
    let message = written::read_one(message, *rest.first()?, place, archive)?;
    let head = message.message();
    (!head.flags.has(Flags::EXPIRES) || head.expiry > age).then_some(Retained { message, age })
}

#[cfg(test)]
mod tests {
    use linkspan_contract::neutral::{Draft, NEUTRAL};
    use linkspan_contract::{Body, Message, Properties};
    use linkspan_queues::log::Options;

    use super::*;
    use crate::body::LogWriter;

    #[test]
    fn what_has_expired_leaves_no_body_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _) =
            Archive::open(folder.path(), Options::default(), &[&NEUTRAL], &Arc::default()).unwrap();
        let retain = |topic: &str, expiry: Option<u64>| {
            let flags = Flags::RETAIN | Flags::EXPIRES.when(expiry.is_some());
            let head = Message { flags, expiry: expiry.unwrap_or(0), ..Message::default() };
            let payload = LogWriter::put(&archive, &[7; 2000]).unwrap();
            assert!(matches!(payload, Body::Stored(_)));
            let (properties, topic) = (&Properties::default(), topic.as_bytes());
            let built = Draft { exchange: None, topic, properties, payload, head }.build();
            let mut noted = Note::default();
            let mut bodies = archive.retained_bodies();
            note(&built.batch(), 0, "/", 1000, &archive, &bodies, &mut noted);
            archive.write(&mut noted.commit).unwrap();
            noted.enter(&mut bodies);
        };
        retain("soon", Some(500));
        retain("later", Some(5000));
        retain("never", None);
        let kept = |now| {
            sweep(&archive, now);
            (archive.keys(OWNER).len(), archive.retained_bodies().len())
        };
        assert_eq!((kept(1499), kept(1500), kept(1_000_000)), ((3, 3), (2, 2), (1, 1)));
        // Nobody holds them any more.
        assert_eq!((0..3).map(|body| archive.hold_body(body)).collect::<Vec<_>>(), [false, false, true]);
    }
}

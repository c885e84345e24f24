//! What an address retains, in the log: the hub keeps it in memory, and finds it here after a restart.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::backend::Retained;
use linkspan_contract::{Batch, Flags, Message, Millis};
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
pub(crate) type Bodies = HashMap<Vec<u8>, u64, RandomState>;

/// What is to be written, and which bodies will be named then.
#[derive(Default)]
pub(crate) struct Note {
    pub(crate) commit: Commit,
    named: Vec<(Vec<u8>, Option<u64>)>,
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
        here.map_or_else(|| bodies.get(key).copied(), |(_, body)| *body)
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
    message: &Message,
    vhost: &str,
    now: Millis,
    archive: &Arc<Archive>,
    bodies: &Bodies,
    note: &mut Note,
) {
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
        note.named.push((key, number));
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
                bodies.extend(place.map(|(number, _)| (key.into_vec(), number)));
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

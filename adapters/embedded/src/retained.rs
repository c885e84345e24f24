//! What an address retains, in the log: the hub keeps it in memory, and finds it here after a restart.

use linkspan_contract::backend::Retained;
use linkspan_contract::{Batch, Flags, Message, Millis};
use linkspan_queues::Encode;
use linkspan_queues::log::Commit;

use crate::archive::Archive;
use crate::parcel::Parcel;
use crate::written::{self, Written};

/// Who owns the values in the log: no queue has this number.
const OWNER: u64 = 1 << 61;

/// Bytes before the message: since when, 8; its priority, 1; seven zeros.
const HEAD: usize = 16;

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
    commit: &mut Commit,
) {
    let key = key_of(vhost, &batch.address(message).topic());
    let noted = if batch.payload_len(message) == 0 {
        commit.delete(OWNER, &key)
    } else {
        let Some(kept) = batch.keep(at..at.saturating_add(1)).kept(0) else { return };
        let mut value = now.to_le_bytes().to_vec();
        value.extend_from_slice(&[message.priority, 0, 0, 0, 0, 0, 0, 0]);
        Written.encode(&Parcel::from(kept), &mut value);
        commit.put(OWNER, &key, &value)
    };
    if let Err(why) = noted {
        tracing::warn!(%why, "a retained message is not written down: it is gone after a restart");
    }
}

/// What the addresses of a vhost retained when the log was opened. What has expired since is forgotten.
pub(crate) fn found(archive: &Archive, vhost: &str, now: Millis) -> Vec<Retained> {
    let prefix = key_of(vhost, b"");
    let mut over = Commit::new();
    let mut found = Vec::new();
    for key in archive.keys(OWNER).into_iter().filter(|key| key.starts_with(&prefix)) {
        match archive.value(OWNER, &key).map(|value| value.and_then(|value| read(&value, now, archive))) {
            Ok(Some(retained)) => found.push(retained),
            // Short enough to have been put.
            Ok(None) => drop(over.delete(OWNER, &key)),
            Err(why) => tracing::error!(%why, "a retained message cannot be read"),
        }
    }
    archive.write_behind(&mut over);
    found
}

fn read(value: &[u8], now: Millis, archive: &Archive) -> Option<Retained> {
    let (head, message) = value.split_first_chunk::<HEAD>()?;
    let (since, rest) = head.split_first_chunk::<8>()?;
    let age = now.saturating_sub(u64::from_le_bytes(*since));
    let message = written::read_one(message, *rest.first()?, archive)?;
    let head = message.message();
    (!head.flags.has(Flags::EXPIRES) || head.expiry > age).then_some(Retained { message, age })
}

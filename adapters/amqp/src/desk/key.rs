//! What messages have in common that go to one consumer at a time.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use linkspan_contract::{Kept, Terms};
use linkspan_queues::Key;

static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The key of a message, where its route has them. Two that are the same here go the same way, without need and rarely.
pub(super) fn key_of(terms: &Terms, message: &Kept) -> Key {
    let Some(from) = &terms.ordering_key else { return 0 };
    let batch = message.batch.batch();
    let bytes = batch.message(message.at).and_then(|message| from.of(&batch, message));
    bytes.map_or(0, |bytes| {
        let hash = KEYS.hash_one(bytes) & u64::from(Key::MAX);
        Key::try_from(hash).unwrap_or_default().max(1)
    })
}

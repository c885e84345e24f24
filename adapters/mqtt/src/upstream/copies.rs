//! Copies of a message that come by several filters.

use std::collections::VecDeque;

use crate::translate;
use crate::upstream::packet::Incoming;
use crate::upstream::subscription::Id;

/// What tells one message from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) hash: u64,
    /// No other message has the same.
    pub(crate) is_unique: bool,
}

impl Content {
    /// What tells `message` from others, mostly.
    pub(crate) fn of(message: &Incoming) -> Self {
        use std::hash::{BuildHasher, Hash, Hasher};
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        (&message.topic, &message.payload, message.retain, message.packet_id.is_some()).hash(&mut hasher);
        if let Some(properties) = &message.properties {
            (&properties.user_properties, &properties.correlation_data, &properties.response_topic)
                .hash(&mut hasher);
        }
        Self { hash: hasher.finish(), is_unique: translate::origin(message).is_some() }
    }
}

/// A message that came, and the other filters by which it may come again.
#[derive(Debug)]
struct Recent {
    hash: u64,
    others: Vec<Id>,
}

/// How far back a copy is looked for.
const RECENT: usize = 64;

/// What came last and may come again.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    recent: VecDeque<Recent>,
}

impl Copies {
    /// True when a copy of this message came before by another filter than `id`; `ids` are all by which this one came.
    pub(crate) fn came_before(&mut self, hash: u64, id: Id, ids: &[usize]) -> bool {
        let again = self.recent.iter_mut().find(|it| it.hash == hash && it.others.contains(&id));
        let Some(again) = again else { return false };
        again.others.retain(|other| !ids.contains(&(*other as usize)));
        self.recent.retain(|it| !it.others.is_empty());
        true
    }

    /// A message came by `id` that may come again by `others`.
    pub(crate) fn note(&mut self, hash: u64, id: Id, others: Vec<Id>) {
        // Copies for one filter come in order: what came for it earlier and is still looked for never was there.
        for recent in &mut self.recent {
            recent.others.retain(|other| *other != id);
        }
        self.recent.retain(|it| !it.others.is_empty());
        if !others.is_empty() {
            self.recent.truncate(RECENT - 1);
            self.recent.push_front(Recent { hash, others });
        }
    }

    /// Nothing that came counts any more.
    pub(crate) fn clear(&mut self) {
        self.recent.clear();
    }
}

//! A window of a session, and what waits for it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use linkspan_contract::{Credit, Flags, Millis, OwnedBatch};

use crate::subscription::Subscription;

/// One credit, and the messages that it was too small for.
pub(crate) struct Window {
    pub(crate) credit: Option<Arc<Credit>>,
    pub(crate) waiting: VecDeque<Wait>,
}

/// A run of messages that waits for credit.
pub(crate) struct Wait {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) batch: Arc<OwnedBatch>,
    pub(crate) at: Range<u32>,
    pub(crate) since: Millis,
}

/// What a message costs beside its payload while it waits.
const OVERHEAD: u64 = 96;

impl Window {
    /// How many of `wanted` may be given at once: none while others wait.
    pub(crate) fn admit(&self, wanted: u32) -> u32 {
        match &self.credit {
            _ if !self.waiting.is_empty() => 0,
            Some(credit) => credit.take(wanted),
            None => wanted,
        }
    }
}

impl Wait {
    pub(crate) fn bytes(&self) -> u64 {
        self.at.clone().map(|place| size(&self.batch, place)).sum()
    }

    fn is_dead(&self, place: u32, now: Millis) -> bool {
        self.batch.messages().get(place as usize).is_some_and(|message| {
            message.flags.has(Flags::EXPIRES) && self.since.saturating_add(message.expiry) <= now
        })
    }

    /// Drops messages at the front whose time is over.
    pub(crate) fn skip_dead(&mut self, now: Millis, bytes: &mut u64) {
        if !self.batch.batch().any.has(Flags::EXPIRES) {
            return;
        }
        let dead = self.at.clone().take_while(|place| self.is_dead(*place, now));
        let (mut count, mut size_of_dead) = (0, 0_u64);
        for place in dead {
            count += 1;
            size_of_dead = size_of_dead.saturating_add(size(&self.batch, place));
        }
        if count > 0 {
            metrics::counter!("linkspan_messages_dropped_total", "reason" => "expired")
                .increment(u64::from(count));
            *bytes = bytes.saturating_sub(size_of_dead);
            self.at.start = self.at.start.saturating_add(count);
        }
    }

    /// How many at the front may be given now.
    pub(crate) fn run(&self, now: Millis) -> u32 {
        if !self.batch.batch().any.has(Flags::EXPIRES) {
            return self.at.end - self.at.start;
        }
        let alive = self.at.clone().take_while(|place| !self.is_dead(*place, now)).count();
        u32::try_from(alive).unwrap_or(u32::MAX)
    }
}

pub(crate) fn size(batch: &OwnedBatch, place: u32) -> u64 {
    batch.held(place).saturating_add(OVERHEAD)
}

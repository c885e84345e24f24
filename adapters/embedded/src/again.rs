//! What of a read was published before.

use std::sync::Arc;

use linkspan_contract::{Batch, Flags, Millis, Outcome, Published, Refused};
use linkspan_queues::log::Lsn;
use smallvec::SmallVec;

use crate::archive::Archive;
use crate::repeats::{self, Fresh, Repeats, Turn};
use crate::scratch::Scratch;
use crate::vhost::Vhost;

/// What a read has of messages that were published before.
#[derive(Default)]
pub(crate) struct Again {
    turn: Option<Turn>,
    pub(crate) count: u32,
    /// The places of those that are durable.
    durable: Vec<u32>,
}

impl Again {
    /// Lets nobody else publish to such queues until it is dropped.
    pub(crate) fn be_alone(&mut self, vhost: &Vhost) {
        self.turn.get_or_insert_with(|| vhost.house.be_alone());
    }

    /// Looks whether queues have seen a message. Yields which of them have; none when all have: then nobody gets it.
    pub(crate) fn look<'r>(
        &mut self,
        repeats: impl Iterator<Item = (u32, &'r Arc<Repeats>)>,
        batch: &Batch<'_>,
        place: u32,
        now: Millis,
        scratch: &mut Scratch,
    ) -> Option<SmallVec<[u32; 2]>> {
        let mut known = SmallVec::new();
        let message = batch.message(place)?;
        let mut is_new = true;
        for (at, repeats) in repeats {
            is_new = false;
            let Some(id) = repeats.id(batch, message) else { return Some(known) };
            if repeats.enter(id, now) {
                scratch.fresh.push(Fresh { of: repeats.number(), place, id });
            } else {
                known.push(at);
            }
        }
        if is_new || scratch.fresh.last().is_some_and(|fresh| fresh.place == place) {
            return Some(known);
        }
        if repeats::has_died(batch, message) {
            return Some(SmallVec::new());
        }
        self.count += 1;
        if message.flags.has(Flags::DURABLE) {
            self.durable.push(place);
        }
        None
    }

    /// Says of what came again what was said of it before; yields up to where the log has to be safe first, 0 when nothing
    /// has.
    #[cold]
    pub(crate) fn tell(
        &self,
        batch: &Batch<'_>,
        archive: Option<&Archive>,
        published: &mut Published,
    ) -> Lsn {
        repeats::count(self.count);
        let Some(archive) = archive.filter(|_| !self.durable.is_empty()) else { return 0 };
        if !archive.is_failed() {
            return archive.said();
        }
        let waits =
            |place: &&u32| batch.message(**place).is_some_and(|message| message.flags.has(Flags::RECEIPT));
        let failed = || Outcome::Failed(Refused::Full(archive.why()));
        published.exceptions.extend(self.durable.iter().filter(waits).map(|place| (*place, failed())));
        0
    }
}

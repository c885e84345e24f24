//! The dead letters of a queue, where they lie: in the queue that a route has at their address. They are looked at one by
//! one, as a consumer would, and given back in their order.

use std::collections::BTreeSet;
use std::sync::Arc;

use linkspan_contract::backend::Fetched;
use linkspan_contract::death::{self, Origin};
use linkspan_contract::{
    Deaths, DeliveryTag, Flags, Kept, Millis, Refused, Settled, Settlement, SubscriptionKey,
};
use serde::Serialize;

use super::Hub;
use super::inventory::dead_letter_queue_of;
use super::own_lane::OwnLane;
use super::queue_error::QueueError;

/// Messages that are looked at for one list.
const LOOKED_AT: u64 = 10_000;

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its place among those of its queue, from 1 on.
    pub number: u64,
    /// Why it died last.
    pub reason: String,
    /// How often it has died.
    pub count: u64,
    /// When it died last, in seconds since 1970.
    pub time: u64,
    /// The queue in which it died first.
    pub first_queue: String,
    /// The address that it had then.
    pub first_address: Option<String>,
    /// The queue in which it died last.
    pub last_queue: String,
    /// The address that it had then.
    pub last_address: Option<String>,
    /// How often it was moved back.
    pub replays: u64,
    /// The application's identifier of it.
    pub message_id: Option<String>,
    /// Bytes of its payload.
    pub bytes: u64,
}

/// Some of the dead letters of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letters {
    /// The queue in which they died.
    pub queue: Box<str>,
    /// The address that they went to.
    pub address: Box<str>,
    /// The queue that keeps them.
    pub kept_in: Box<str>,
    /// How many messages that queue has, those of other queues among them.
    pub waiting: u64,
    /// How many of these were looked at.
    pub looked_at: u64,
    /// The first of those that died in the queue.
    pub letters: Vec<DeadLetter>,
}

/// Which of the dead letters of a queue are meant.
#[derive(Debug, Clone, Copy)]
pub struct Meant<'a> {
    /// The queue in which they died last.
    pub queue: &'a str,
    /// Why they did; for whatever reason when none is given.
    pub reason: Option<&'a str>,
}

impl Meant<'_> {
    /// What is told of a message's deaths, when it is meant.
    pub fn told(&self, message: &Kept) -> Option<Deaths> {
        let properties = message.properties().ok()?;
        let deaths = Deaths::told(&properties.headers)?;
        let is_it =
            deaths.last.queue == self.queue && self.reason.is_none_or(|reason| deaths.reason == reason);
        is_it.then_some(deaths)
    }
}

/// A queue that keeps dead letters, while somebody goes through it. What is not settled goes back in its order at the end.
pub(super) struct DeadLetterBox {
    own: OwnLane,
    /// Where it is.
    pub address: Box<str>,
    /// What it is called.
    pub queue: Arc<str>,
    /// Messages that it had in the beginning.
    pub waiting: u64,
    /// How many of these were looked at.
    pub looked_at: u64,
    /// Those that were, and are there still.
    taken: BTreeSet<(SubscriptionKey, DeliveryTag)>,
}

impl DeadLetterBox {
    /// The next message of those that were there in the beginning.
    pub async fn next(&mut self) -> Result<Option<Fetched>, Refused> {
        if self.looked_at >= self.waiting {
            return Ok(None);
        }
        let fetched = self.own.lane.fetch(&self.queue, SubscriptionKey::default(), false).await?;
        self.looked_at = match &fetched {
            Some(fetched) => {
                self.taken.insert((fetched.key, fetched.tag));
                self.looked_at.saturating_add(1)
            }
            None => self.waiting,
        };
        Ok(fetched)
    }

    /// It is gone from here.
    pub fn remove(&mut self, key: SubscriptionKey, tag: DeliveryTag) {
        self.taken.remove(&(key, tag));
        let outcome = Settlement::Accept;
        self.own.lane.settle(&[Settled { key, first: tag, count: 1, outcome, word: None }]);
        self.own.lane.flush();
    }

    /// Puts the others back: nobody was given them.
    pub async fn close(mut self) -> Result<(), Refused> {
        let mut runs: Vec<Settled> = Vec::new();
        for (key, tag) in std::mem::take(&mut self.taken) {
            match runs.last_mut() {
                Some(run) if run.key == key && run.first.saturating_add(run.count.into()) == tag => {
                    run.count = run.count.saturating_add(1);
                }
                _ => {
                    runs.push(Settled { key, first: tag, count: 1, outcome: Settlement::Undo, word: None });
                }
            }
        }
        self.own.lane.settle(&runs);
        self.own.lane.flush();
        // Answered when that is done.
        self.own.lane.recover(true).await?;
        self.own.lane.flush();
        Ok(())
    }
}

impl DeadLetter {
    fn new(number: u64, message: &Kept, deaths: Deaths) -> Self {
        let properties = message.properties().unwrap_or_default();
        let Deaths { reason, count, time, first, last } = deaths;
        let Origin { queue: first_queue, address: first_address } = first;
        let Origin { queue: last_queue, address: last_address } = last;
        Self {
            number,
            reason,
            count,
            time,
            first_queue,
            first_address,
            last_queue,
            last_address,
            replays: death::replays(&properties.headers),
            message_id: properties.message_id.as_deref().map(str::to_owned),
            bytes: message.payload_len(),
        }
    }
}

/// Whether its time is over.
pub(super) fn has_expired(message: &Kept, age: Millis) -> bool {
    let of = message.message();
    of.flags.has(Flags::EXPIRES) && of.expiry <= age
}

impl Hub {
    /// The first `limit` of the dead letters that are meant; they stay where they are.
    ///
    /// # Errors
    /// When no queue keeps them, or it cannot be looked into.
    pub async fn dead_letters(
        &self,
        vhost: &Arc<str>,
        meant: Meant<'_>,
        limit: usize,
    ) -> Result<Letters, QueueError> {
        let mut letters = self.open_dead_letters(vhost, meant.queue).await?;
        let mut found: Vec<DeadLetter> = Vec::new();
        while found.len() < limit && letters.looked_at < LOOKED_AT {
            let Some(fetched) = letters.next().await? else { break };
            if let Some(deaths) = meant.told(&fetched.message) {
                let number = (found.len() as u64).saturating_add(1);
                found.push(DeadLetter::new(number, &fetched.message, deaths));
            }
        }
        let list = Letters {
            queue: meant.queue.into(),
            address: letters.address.clone(),
            kept_in: (*letters.queue).into(),
            waiting: letters.waiting,
            looked_at: letters.looked_at,
            letters: found,
        };
        letters.close().await?;
        Ok(list)
    }

    /// The dead letter of that number, from 1 on, among those that are meant, with its message.
    ///
    /// # Errors
    /// When there is none of that number, and as [`Hub::dead_letters`].
    pub async fn dead_letter(
        &self,
        vhost: &Arc<str>,
        meant: Meant<'_>,
        number: u64,
    ) -> Result<(DeadLetter, Kept), QueueError> {
        let mut letters = self.open_dead_letters(vhost, meant.queue).await?;
        let (mut count, mut found) = (0, None);
        while let Some(fetched) = letters.next().await? {
            let Some(deaths) = meant.told(&fetched.message) else { continue };
            count += 1;
            if count == number {
                found = Some((DeadLetter::new(number, &fetched.message, deaths), fetched.message));
                break;
            }
        }
        letters.close().await?;
        found.ok_or_else(|| QueueError::NoSuchLetter { queue: meant.queue.into(), count })
    }

    /// Removes the dead letters that are meant and are there now, and tells how many.
    ///
    /// # Errors
    /// As [`Hub::dead_letters`]; what was removed before stays removed.
    pub async fn purge_dead_letters(&self, vhost: &Arc<str>, meant: Meant<'_>) -> Result<u64, QueueError> {
        let mut letters = self.open_dead_letters(vhost, meant.queue).await?;
        let mut purged = 0;
        while let Some(fetched) = letters.next().await? {
            if meant.told(&fetched.message).is_some() {
                letters.remove(fetched.key, fetched.tag);
                purged += 1;
            }
        }
        letters.close().await?;
        tracing::info!(%vhost, queue = meant.queue, purged, "dead letters are purged");
        Ok(purged)
    }

    /// The queue that keeps the dead letters of a queue.
    pub(super) async fn open_dead_letters(
        &self,
        vhost: &Arc<str>,
        queue: &str,
    ) -> Result<DeadLetterBox, QueueError> {
        let none = |why: String| QueueError::NoDeadLetters { queue: queue.into(), why };
        let routes = self.routes();
        let route = routes.vhost(vhost).and_then(|table| Some((table, table.owner(queue)?)));
        let Some((table, route)) = route else {
            self.look_into(vhost, queue).await?;
            return Err(none(
                "belongs to no route: dead letters of queues that clients have made go where these say"
                    .into(),
            ));
        };
        let Some(address) = &route.dead_letter else {
            let kept = table
                .iter()
                .filter(|it| dead_letter_queue_of(table, it).is_some_and(|(_, keeper)| **keeper == *queue));
            let from: Vec<String> =
                kept.flat_map(|it| it.queues.iter().map(|queue| format!("'{queue}'"))).collect();
            let why = if from.is_empty() {
                "has no address for dead letters; its route gets one by `dead-letter = { address = \"…\", queue = \"…\" }`"
                    .to_owned()
            } else {
                format!("keeps dead letters of {}: ask for those", from.join(", "))
            };
            return Err(none(why));
        };
        let Some((keeper, kept_in)) = dead_letter_queue_of(table, route) else {
            return Err(none(format!(
                "has its dead letters go to '{address}', where no queue keeps them; one does by \
                 `dead-letter = {{ address = \"{address}\", queue = \"…\" }}`"
            )));
        };
        let mut own = OwnLane::open(&**self.backend(&keeper.backend)?, vhost).await?;
        let waiting = own.counts(kept_in).await?.map_or(0, |counts| counts.messages);
        if waiting == 0 {
            // What was not there may have cost the lane.
            own = OwnLane::open(&**self.backend(&keeper.backend)?, vhost).await?;
        }
        let (address, queue) = (address.clone(), Arc::clone(kept_in));
        Ok(DeadLetterBox { own, address, queue, waiting, looked_at: 0, taken: BTreeSet::new() })
    }
}

//! Moving dead letters back into the queue in which they died, and into no other: who else got the message has worked it.
//! Or to an address that whoever asks names.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;

use linkspan_contract::backend::Fetched;
use linkspan_contract::death::{self, Deaths};
use linkspan_contract::neutral::Draft;
use linkspan_contract::{
    BackendError, Body, Client, Connection, Destination, Flags, Kept, Lane, Lost, Message, Nobody, Outcome,
    OwnedBatch, Refused, Seq, SubscriptionKey, Syntax, TargetId, What, client_number,
};
use serde::Serialize;

use super::Hub;
use super::dead_letter_box::{DeadLetterBox, Meant, has_expired};
use super::queue_error::QueueError;
use crate::mover::{Ears, bring};

/// Messages that are on their way at a time.
const WINDOW: usize = 256;

/// What was moved back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// How many are in the queue again, or at the address.
    pub replayed: u64,
    /// How many were dropped because their time is over.
    pub expired: u64,
    /// Why the others were not moved, when something was in the way: they are where they were.
    pub stopped: Option<String>,
}

/// Where they go.
#[derive(Clone)]
enum Goal {
    /// The queue in which they died.
    Queue(Arc<str>),
    /// An address, as a topic.
    Address(Arc<str>),
}

impl Goal {
    fn name(&self) -> &Arc<str> {
        let (Self::Queue(name) | Self::Address(name)) = self;
        name
    }

    /// Nobody took a message.
    fn nobody(&self) -> Refused {
        match self {
            Self::Queue(queue) => Refused::NotFound { what: What::Queue, name: queue.to_string() },
            Self::Address(address) => {
                Refused::Precondition(format!("nobody takes what is published to '{address}'"))
            }
        }
    }
}

/// The way back.
struct Back {
    lane: Box<dyn Lane>,
    _connection: Box<dyn Connection>,
    target: TargetId,
    goal: Goal,
    ears: Arc<Ears>,
    /// What is under way: where it is taken from when it has arrived.
    pending: HashMap<Seq, (SubscriptionKey, u64)>,
    done: Replayed,
}

impl Back {
    /// Sends one back.
    async fn send(
        &mut self,
        letters: &mut DeadLetterBox,
        fetched: Fetched,
        deaths: &Deaths,
    ) -> Result<(), QueueError> {
        poll_fn(|cx| self.lane.poll_ready(cx)).await?;
        let Fetched { message, key, tag, age, .. } = fetched;
        let payload = match message.body() {
            Some(Body::Stored(stored)) => bring(&mut *self.lane, self.target, stored).await?,
            Some(body) => body.clone(),
            None => Body::Shared(message.payload().unwrap_or_default().to_vec().into()),
        };
        let batch = again(&message, age, payload, self.target, deaths, &self.goal);
        let Some(batch) = batch else {
            return Err(Refused::Precondition("what is told of the message cannot be read".into()).into());
        };
        let published = self.lane.publish(&batch.batch());
        self.lane.flush();
        if published.taken == 0 {
            let why = "it takes nothing any more".into();
            return Err(Lost { backend: self.goal.name().to_string(), why }.into());
        }
        if published.done > 0 {
            let exception = published.exceptions.into_iter().next();
            let outcome = exception.map_or(Outcome::Accepted, |(_, outcome)| outcome);
            self.has_arrived(letters, (key, tag), &outcome)
        } else {
            self.pending.insert(published.first, (key, tag));
            self.heed(letters)
        }
    }

    /// Deals with the receipts that have come.
    fn heed(&mut self, letters: &mut DeadLetterBox) -> Result<(), QueueError> {
        let mut result = Ok(());
        for receipt in self.ears.take() {
            for seq in receipt.first..receipt.first.saturating_add(receipt.count.into()) {
                if let Some(place) = self.pending.remove(&seq) {
                    result = result.and(self.has_arrived(letters, place, &receipt.outcome));
                }
            }
        }
        if self.ears.is_closed() {
            let why = "the way there was closed".into();
            return Err(Lost { backend: self.goal.name().to_string(), why }.into());
        }
        result
    }

    fn has_arrived(
        &mut self,
        letters: &mut DeadLetterBox,
        (key, tag): (SubscriptionKey, u64),
        outcome: &Outcome,
    ) -> Result<(), QueueError> {
        match outcome {
            Outcome::Accepted => {
                letters.remove(key, tag);
                self.done.replayed += 1;
                metrics::counter!("linkspan_dead_letters_replayed_total").increment(1);
                Ok(())
            }
            Outcome::Unroutable => Err(self.goal.nobody().into()),
            Outcome::Refused(refused) | Outcome::Failed(refused) => Err(refused.clone().into()),
        }
    }

    /// Waits until so few are under way.
    async fn until_pending(&mut self, letters: &mut DeadLetterBox, few: usize) -> Result<(), QueueError> {
        let mut result = Ok(());
        loop {
            let heeded = self.heed(letters);
            if matches!(heeded, Err(QueueError::Lost(_))) {
                return heeded;
            }
            // Of the others it is still to be known whether they have arrived.
            result = result.and(heeded);
            if self.pending.len() <= few {
                return result;
            }
            self.ears.said().await;
        }
    }
}

/// The message as it goes back: what is told of its deaths stays, and that it is replayed is counted. It has the address
/// that it had when it died, or that it goes to.
fn again(
    message: &Kept,
    age: u64,
    payload: Body,
    target: TargetId,
    deaths: &Deaths,
    goal: &Goal,
) -> Option<Arc<OwnedBatch>> {
    let mut properties = message.properties().ok()?;
    death::replay(&mut properties.headers);
    let of = message.message();
    let dropped = Flags::MANDATORY | Flags::RETAIN | Flags::EXACTLY_ONCE | Flags::REWRITE;
    let head = Message {
        target,
        flags: of.flags.without(dropped) | Flags::RECEIPT,
        priority: of.priority,
        expiry: of.expiry.saturating_sub(age),
        ..Message::default()
    };
    let (exchange, topic) = match (goal, &deaths.last.address) {
        (Goal::Address(address), _) => (None, &**address),
        (Goal::Queue(_), Some(address)) => (None, address.as_str()),
        (Goal::Queue(queue), None) => (Some(&b""[..]), &**queue),
    };
    let draft = Draft { exchange, topic: topic.as_bytes(), properties: &properties, payload, head };
    Some(draft.build())
}

impl Hub {
    /// Moves the dead letters that are meant and are there now back into the queue in which they died, or to the address
    /// `to`, at most `limit` of them, in their order. Each is gone from the dead letters when it has arrived: it may come
    /// twice and is never lost.
    ///
    /// # Errors
    /// When no queue keeps them, or nothing can be moved at all.
    pub async fn replay(
        &self,
        vhost: &Arc<str>,
        meant: Meant<'_>,
        to: Option<&str>,
        limit: Option<u64>,
    ) -> Result<Replayed, QueueError> {
        let mut letters = self.open_dead_letters(vhost, meant.queue).await?;
        let goal =
            to.map_or_else(|| Goal::Queue(meant.queue.into()), |address| Goal::Address(address.into()));
        let mut back = self.way_back(vhost, goal).await?;
        let limit = limit.unwrap_or(u64::MAX);
        let mut sent = 0;
        let moved = async {
            while sent < limit
                && let Some(fetched) = letters.next().await?
            {
                let Some(deaths) = meant.told(&fetched.message) else { continue };
                if has_expired(&fetched.message, fetched.age) {
                    letters.remove(fetched.key, fetched.tag);
                    back.done.expired += 1;
                    metrics::counter!("linkspan_messages_dropped_total", "reason" => "expired").increment(1);
                    continue;
                }
                sent += 1;
                back.send(&mut letters, fetched, &deaths).await?;
                back.until_pending(&mut letters, WINDOW).await?;
            }
            Ok::<_, QueueError>(())
        };
        let moved = moved.await;
        let arrived = back.until_pending(&mut letters, 0).await;
        let closed = letters.close().await;
        if let Err(error) = moved.and(arrived).and(closed.map_err(QueueError::from)) {
            if back.done == Replayed::default() {
                return Err(error);
            }
            back.done.stopped = Some(error.to_string());
        }
        let Replayed { replayed, .. } = back.done;
        tracing::info!(%vhost, queue = meant.queue, replayed, "dead letters are replayed");
        Ok(back.done)
    }

    async fn way_back(&self, vhost: &Arc<str>, goal: Goal) -> Result<Back, QueueError> {
        let hub = self.me.upgrade().ok_or_else(|| BackendError::Away {
            name: "hub".into(),
            why: "the server is going down".into(),
        })?;
        let client = Client {
            number: client_number(),
            identifier: "linkspan.replay".into(),
            user: "linkspan".into(),
            vhost: Arc::clone(vhost),
            session: None,
        };
        // Whoever had the queue then may have lost it since.
        let mut connection = hub.let_in(&client, Arc::new(Nobody), true).await?;
        let ears = Arc::new(Ears::default());
        let mut lane = connection.lane(Arc::clone(&ears) as _, Arc::clone(&ears) as _).await?;
        let target = match &goal {
            Goal::Queue(name) => lane.target(&Destination::Queue { name, more: &[] }),
            Goal::Address(address) => {
                let (path, syntax) = (address.as_bytes(), Syntax::Topic);
                lane.target(&Destination::Address { path, syntax, more: &[], queues: &[] })
            }
        };
        let (pending, done) = (HashMap::new(), Replayed::default());
        Ok(Back { lane, _connection: connection, target, goal, ears, pending, done })
    }
}

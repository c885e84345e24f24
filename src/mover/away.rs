//! The far end of a mover: where messages are published, and what is heard of them.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use linkspan_contract::neutral::Draft;
use linkspan_contract::{
    Address, Batch, Body, Connection, Deliveries, Delivery, DeliveryTag, Destination, Flags, Kept, Lane,
    LaneEvent, LaneEvents, Message, Outcome, OwnedBatch, QueueSpec, Receipt, ReceiptSink, Refused, Seq,
    Settlement, StoredPayload, Syntax, TargetId,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Mover, Stopped, To};

/// Bytes of a stored body that are carried at a time.
const PART: usize = 256 << 10;

/// The far end: where messages are published.
pub struct Away<'m> {
    mover: &'m Mover,
    _connection: Box<dyn Connection>,
    pub lane: Box<dyn Lane>,
    targets: Targets<'m>,
    pub ears: Arc<Ears>,
    pub pending: HashMap<Seq, Delivery>,
    /// What could not be taken for now, in its order.
    again: BTreeMap<DeliveryTag, Delivery>,
    /// A message was taken by no queue.
    pub nowhere: bool,
}

impl<'m> Away<'m> {
    pub async fn open(mover: &'m Mover) -> Result<Self, Stopped> {
        let (backend, vhost) = match &mover.to {
            To::Queue(station) => (&station.backend, &station.vhost),
            To::Address { hub: backend, .. } | To::Addresses { backend, .. } => (backend, &mover.from.vhost),
        };
        // It is given nothing: only publishes go this way.
        let nothing = Deliveries::working(0, None);
        let mut connection = backend.connect(&mover.client(vhost), nothing.sink()).await?;
        let ears = Arc::new(Ears::default());
        let mut lane = connection.lane(Arc::clone(&ears) as _, Arc::clone(&ears) as _).await?;
        let targets = match &mover.to {
            To::Queue(station) => {
                Targets::One(lane.target(&Destination::Queue { name: &station.queue, more: &[] }))
            }
            To::Address { topic, .. } => Targets::One(lane.target(&Destination::Address {
                path: topic.as_bytes(),
                syntax: Syntax::Topic,
                more: &[],
                queues: &[],
            })),
            To::Addresses { queues, .. } => Targets::Own { queues, known: HashMap::new() },
        };
        Ok(Self {
            mover,
            _connection: connection,
            lane,
            targets,
            ears,
            pending: HashMap::new(),
            again: BTreeMap::new(),
            nowhere: false,
        })
    }

    /// True when there is no queue to carry to.
    pub async fn is_gone(&mut self) -> Result<bool, Stopped> {
        let To::Queue(station) = &self.mover.to else { return Ok(false) };
        let spec = QueueSpec { passive: true, ..QueueSpec::new(&station.queue) };
        match self.lane.declare_queue(&spec).await {
            Err(refused) if refused.is_missing() => Ok(true),
            // Another's own: it is there.
            Ok(_) | Err(Refused::Locked(_)) => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }

    /// True when something could not be taken for now: nothing may overtake it.
    pub fn waits(&self) -> bool {
        !self.again.is_empty()
    }

    /// What comes first of that, once nothing is under way.
    pub fn first_again(&mut self) -> Option<Delivery> {
        if !self.pending.is_empty() {
            return None;
        }
        self.again.pop_first().map(|(_, delivery)| delivery)
    }

    pub async fn take(&mut self, delivery: Delivery) -> Result<(), Stopped> {
        let of = delivery.message.message();
        let expired = of.flags.has(Flags::EXPIRES) && of.expiry <= delivery.age;
        if expired {
            delivery.settle(Settlement::Accept);
            metrics::counter!("linkspan_messages_dropped_total", "reason" => "expired").increment(1);
            return Ok(());
        }
        let dropped = match &self.mover.to {
            To::Addresses { .. } => Flags::MANDATORY | Flags::EXACTLY_ONCE,
            To::Queue(_) | To::Address { .. } => Flags::MANDATORY | Flags::RETAIN | Flags::EXACTLY_ONCE,
        };
        let message = Message {
            target: self.targets.of(&delivery.message, &mut *self.lane),
            flags: of.flags.without(dropped) | Flags::RECEIPT,
            expiry: of.expiry.saturating_sub(delivery.age),
            ..of
        };
        let brought = match delivery.message.body() {
            Some(Body::Stored(stored)) => match bring(&mut *self.lane, message.target, stored).await {
                Ok(body) => Some(body),
                Err(_) if stored.is_lost() => {
                    // It will not be there the next time either, and what comes behind it waits.
                    delivery.settle(Settlement::Accept);
                    metrics::counter!("linkspan_messages_dropped_total", "reason" => "damaged").increment(1);
                    return Ok(());
                }
                Err(Stopped::Refused(refused)) if !refused.may_retry() => {
                    self.settle(delivery, &Outcome::Refused(refused));
                    return Ok(());
                }
                Err(stopped) => return Err(stopped),
            },
            Some(Body::Shared(_)) | None => None,
        };
        let body = brought.as_ref().or(delivery.message.body());
        let published = match &self.mover.to {
            To::Queue(_) | To::Addresses { .. } => {
                let batch = delivery.message.batch.batch();
                self.lane.publish(&Batch { messages: &[message], any: message.flags, body, ..batch })
            }
            To::Address { topic, .. } => match readdressed(&delivery, topic, message, body) {
                Some(batch) => self.lane.publish(&batch.batch()),
                None => {
                    delivery.settle(Settlement::Reject(None));
                    metrics::counter!("linkspan_messages_dropped_total", "reason" => "malformed")
                        .increment(1);
                    return Ok(());
                }
            },
        };
        self.lane.flush();
        if published.taken == 0 {
            return Err(Stopped::Ended("takes nothing any more"));
        }
        if published.done > 0 {
            let exception = published.exceptions.into_iter().next();
            let outcome = exception.map_or(Outcome::Accepted, |(_, outcome)| outcome);
            self.settle(delivery, &outcome);
        } else {
            self.pending.insert(published.first, delivery);
        }
        Ok(())
    }

    /// Deals with the receipts that have come.
    pub fn heed(&mut self) -> Result<(), Stopped> {
        for receipt in self.ears.take() {
            for seq in receipt.first..receipt.first.saturating_add(receipt.count.into()) {
                if let Some(delivery) = self.pending.remove(&seq) {
                    self.settle(delivery, &receipt.outcome);
                }
            }
        }
        if self.ears.is_closed() { Err(Stopped::Ended("closed the way")) } else { Ok(()) }
    }

    fn settle(&mut self, delivery: Delivery, outcome: &Outcome) {
        let later = match outcome {
            // The queue is gone, or not there yet: what is carried there waits.
            Outcome::Unroutable => matches!(self.mover.to, To::Queue(_)),
            Outcome::Accepted => false,
            Outcome::Failed(_) => true,
            Outcome::Refused(refused) => {
                refused.may_retry() || matches!(refused, Refused::Upstream { code: 500.., .. })
            }
        };
        if later {
            self.nowhere |= *outcome == Outcome::Unroutable;
            self.again.insert(delivery.tag, delivery);
        } else if let Outcome::Refused(refused) = outcome {
            tracing::warn!(mover = %self.mover.name, %refused, "a message was refused where it was carried to");
            metrics::counter!("linkspan_messages_dropped_total", "reason" => "refused").increment(1);
            delivery.settle(Settlement::Reject(None));
        } else {
            metrics::counter!("linkspan_messages_moved_total").increment(1);
            delivery.settle(Settlement::Accept);
        }
    }
}

/// A stored body, as the far end of `lane` can have it: where it keeps it, else in memory.
///
/// # Errors
/// When it cannot be read, or the far end does not take it.
pub async fn bring(
    lane: &mut dyn Lane,
    target: TargetId,
    stored: &Arc<dyn StoredPayload>,
) -> Result<Body, Stopped> {
    let unread = |error: io::Error| {
        tracing::error!(%error, "a stored payload cannot be read");
        Stopped::Ended("could not give a payload")
    };
    let Some(mut place) = lane.body(target, Some(stored.len()))? else {
        return Ok(Body::Shared(Body::Stored(Arc::clone(stored)).whole().await.map_err(unread)?));
    };
    let mut at = 0;
    while at < stored.len() {
        let part = stored.read(at, PART).await.map_err(unread)?;
        if part.is_empty() {
            return Err(unread(io::ErrorKind::UnexpectedEof.into()));
        }
        poll_fn(|cx| place.poll_ready(cx)).await;
        place.write(&part)?;
        at = at.saturating_add(part.len() as u64);
    }
    Ok(Body::Stored(poll_fn(|cx| place.poll_finish(cx)).await?))
}

/// Where messages go: all to one place, or each to where it was published.
enum Targets<'m> {
    One(TargetId),
    Own { queues: &'m [Arc<str>], known: HashMap<Place, TargetId> },
}

/// Whether it is a queue by name, and its spelling.
type Place = (bool, Syntax, Box<[u8]>);

/// So many are remembered.
const KNOWN: usize = 1000;

impl Targets<'_> {
    fn of(&mut self, message: &Kept, lane: &mut dyn Lane) -> TargetId {
        let (queues, known) = match self {
            Self::One(target) => return *target,
            Self::Own { queues, known } => (*queues, known),
        };
        let Address { exchange, path, syntax } = message.address();
        let by_name = exchange.is_some();
        if let Some(target) = known.get(&(by_name, syntax, path.into())) {
            return *target;
        }
        if known.len() >= KNOWN {
            lane.forget(&known.drain().map(|(_, target)| target).collect::<Vec<_>>());
        }
        let target = match std::str::from_utf8(path) {
            Ok(name) if by_name => lane.target(&Destination::Queue { name, more: &[] }),
            _ => lane.target(&Destination::Address { path, syntax, more: &[], queues }),
        };
        known.insert((by_name, syntax, path.into()), target);
        target
    }
}

/// The message as one that is published to `topic`; none when its properties cannot be read.
fn readdressed(
    delivery: &Delivery,
    topic: &str,
    head: Message,
    body: Option<&Body>,
) -> Option<Arc<OwnedBatch>> {
    let properties = delivery.message.properties().ok()?;
    let payload = match body {
        Some(body) => body.clone(),
        None => Body::Shared(delivery.message.payload()?.to_vec().into()),
    };
    let draft = Draft { exchange: None, topic: topic.as_bytes(), properties: &properties, payload, head };
    Some(draft.build())
}

/// What the far end says.
#[derive(Default)]
pub struct Ears {
    receipts: Mutex<Vec<Receipt>>,
    closed: Mutex<bool>,
    woken: Notify,
}

impl Ears {
    /// Returns when there is something to hear.
    pub async fn said(&self) {
        self.woken.notified().await;
    }

    /// The receipts that have come since this was asked last.
    pub fn take(&self) -> Vec<Receipt> {
        std::mem::take(&mut *self.receipts.lock())
    }

    /// Whether the way is over.
    pub fn is_closed(&self) -> bool {
        *self.closed.lock()
    }
}

impl ReceiptSink for Ears {
    fn receipts(&self, runs: &[Receipt]) {
        self.receipts.lock().extend_from_slice(runs);
        self.woken.notify_one();
    }
}

impl LaneEvents for Ears {
    fn event(&self, event: LaneEvent) {
        if matches!(event, LaneEvent::Closed { .. }) {
            *self.closed.lock() = true;
            self.woken.notify_one();
        }
    }
}

//! A consumer's time with a queue that it has alone.

mod coordinator;

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use linkspan_contract::neutral::Draft;
use linkspan_contract::{
    Batch, Body, Delivered, DeliverySink, Ended, LaneEvent, LaneEvents, Pick, SubscriptionKey, Value,
};

pub use self::coordinator::Tenancy;
use super::connection::Scope;

/// The header that tells a consumer under which number it has the queue.
pub const FENCE: &str = "linkspan-fence";

/// Why a tenancy is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The holder is gone, or wants the queue no more.
    Left,
    /// It had something in hand for too long without a word.
    Silent,
    /// Another instance may have the queue.
    Lost,
    /// The back end does not serve it.
    Unfit,
}

impl Over {
    /// For figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Silent => "silent",
            Self::Lost => "lost",
            Self::Unfit => "unfit",
        }
    }
}

/// The outbound side of a client while it has a queue alone: each message gets the number of its tenancy.
pub struct Fenced {
    scope: Arc<Scope>,
    /// It has what this is served by.
    tenancy: Weak<Tenancy>,
}

impl Fenced {
    /// Before the sink of that client.
    pub fn new(scope: Arc<Scope>, tenancy: &Arc<Tenancy>) -> Self {
        Self { scope, tenancy: Arc::downgrade(tenancy) }
    }

    /// Gives one message on.
    fn give(&self, batch: &Batch<'_>, at: u32, pick: &Pick, first: u64, tenancy: &Tenancy) -> Delivered {
        let Some(message) = batch.message(at) else { return Delivered::Taken };
        let address = batch.address(message);
        let mut properties = batch.properties(message).unwrap_or_default();
        properties.headers.retain(|(name, _)| name != FENCE);
        properties.headers.push((FENCE.into(), Value::I64(i64::try_from(tenancy.fence).unwrap_or(i64::MAX))));
        let payload = match batch.body {
            Some(body) => body.clone(),
            None => Body::Shared(bytes::Bytes::copy_from_slice(message.payload.of(batch.bytes))),
        };
        let (topic, exchange) = (address.topic(), address.exchange);
        let draft = Draft { exchange, topic: &topic, properties: &properties, payload, head: *message };
        let owned = draft.build();
        if !pick.settled {
            tenancy.gave(1);
        }
        self.scope.sink().deliver(&owned.batch(), &[Pick { at: 0..1, first, ..pick.clone() }])
    }
}

impl DeliverySink for Fenced {
    fn deliver(&self, batch: &Batch<'_>, picks: &[Pick]) -> Delivered {
        let tenancy = self.tenancy.upgrade();
        let Some(tenancy) = tenancy.filter(|tenancy| tenancy.over().is_none()) else {
            return Delivered::Closed;
        };
        let mut said = Delivered::Taken;
        for pick in picks {
            for (place, at) in (0u64..).zip(pick.at.clone()) {
                match self.give(batch, at, pick, pick.first.saturating_add(place), &tenancy) {
                    Delivered::Closed => return Delivered::Closed,
                    Delivered::Congested => said = Delivered::Congested,
                    Delivered::Taken => {}
                }
            }
        }
        said
    }

    fn flush(&self) {
        self.scope.sink().flush();
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.scope.sink().poll_drained(cx)
    }

    /// The holder goes on waiting for the queue, and is not told.
    fn ended(&self, _: SubscriptionKey, _: Ended) {
        if let Some(tenancy) = self.tenancy.upgrade() {
            tenancy.end(Over::Unfit);
        }
    }
}

impl LaneEvents for Fenced {
    fn event(&self, event: LaneEvent) {
        if let (LaneEvent::Closed { .. }, Some(tenancy)) = (event, self.tenancy.upgrade()) {
            tenancy.end(Over::Unfit);
        }
    }
}

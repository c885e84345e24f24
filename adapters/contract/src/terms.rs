//! How a work queue treats its messages, beyond what AMQP clients can declare.

use std::num::{NonZeroU32, NonZeroU64};

use crate::attribute::Attribute;
use crate::batch::Batch;
use crate::clock::Millis;
use crate::message::{Flags, Message};
use crate::value::Value;

/// The header by which a message says how many milliseconds it is to be held back, where its queue has
/// [`Terms::delay`]. RabbitMQ's delayed-message exchange has the same.
pub const DELAY: &str = "x-delay";

/// Milliseconds that a message can be held back: 49 days. What says more is held back that long. RabbitMQ, of whose times
/// to live delays are made there, has its bound just above.
pub const LONGEST_DELAY: Millis = 49 * 86_400_000;

/// What a route says of a queue that it owns ([`QueueSpec::terms`](crate::QueueSpec::terms)). The default asks for nothing.
/// Terms may change while messages are in the queue; those keep what they were given when they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// Milliseconds after which an unsettled delivery is released by itself and goes to somebody else.
    pub ack_timeout: Option<Millis>,
    /// How often a message is given out before it is a dead letter.
    pub max_deliveries: Option<NonZeroU32>,
    /// How long a message that came back waits before it is given out again; not what its consumer, in going, left.
    pub retry: Option<Retry>,
    /// What is published again is taken and dropped.
    pub deduplicate: Option<Deduplicate>,
    /// Messages with the same value of it go to one consumer at a time, in order; what has none goes to anybody.
    pub ordering_key: Option<Attribute>,
    /// Milliseconds that a message which says none ([`DELAY`]) is held back before it is given out.
    pub delay: Option<Millis>,
    /// Milliseconds that a message may wait in the queue; its own expiry counts when it is shorter.
    pub expiry: Option<Millis>,
    /// Most messages that are ready at once.
    pub max_length: Option<NonZeroU64>,
    /// What happens at that.
    pub overflow: Overflow,
    /// Levels, the higher ones first.
    pub priorities: Option<Priorities>,
}

/// How long a message that came back waits: longer each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Milliseconds the first time.
    pub delay: Millis,
    /// By how many hundredths of it the wait grows each time: 200 doubles it.
    pub factor: u32,
    /// Milliseconds at most.
    pub max: Millis,
}

/// Which messages are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deduplicate {
    /// Those with the same value of this; what has none is always new.
    pub by: Attribute,
    /// For so many milliseconds after the first one.
    pub window: Millis,
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// What comes is refused, and its publisher told.
    #[default]
    Reject,
    /// What would be given out next makes place, as a dead letter.
    DropHead,
    /// What comes is refused and becomes a dead letter.
    DeadLetter,
}

/// The levels of a priority queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priorities {
    /// The highest level; the lowest is 0.
    pub highest: u8,
    /// Lower levels get their share while higher ones have messages: level *n* has a share of *n* + 1. Else they wait.
    pub weighted: bool,
    /// What says a message's level when its publisher gives no priority.
    pub from: Option<Attribute>,
    /// The level of what says none at all.
    pub otherwise: u8,
    /// Whether each level is a queue of its own where a broker keeps them; nothing: where the broker's own priorities do not
    /// do what is asked.
    pub apart: Option<bool>,
}

impl Terms {
    /// The level of a message.
    pub fn priority(&self, batch: &Batch<'_>, message: &Message) -> u8 {
        self.priorities.as_ref().map_or(message.priority, |priorities| priorities.of(batch, message))
    }

    /// Milliseconds that a message is held back.
    pub fn delay(&self, batch: &Batch<'_>, message: &Message) -> Millis {
        let Some(otherwise) = self.delay else { return 0 };
        if !message.flags.has(Flags::HEADERS) {
            return otherwise;
        }
        let own = batch.properties(message).ok().and_then(|properties| match properties.header(DELAY)? {
            Value::Text(text) => text.trim().parse().ok(),
            other => other.as_i64().and_then(|millis| u64::try_from(millis).ok()),
        });
        own.unwrap_or(otherwise).min(LONGEST_DELAY)
    }
}

impl Priorities {
    /// The level of a message: what its publisher gave, else what [`Priorities::from`] says, else
    /// [`Priorities::otherwise`]. A level above the highest counts as that.
    pub fn of(&self, batch: &Batch<'_>, message: &Message) -> u8 {
        let level = if message.flags.has(Flags::PRIORITY) {
            message.priority
        } else {
            let said = self.from.as_ref().and_then(|from| from.of(batch, message));
            let level = said.and_then(|said| std::str::from_utf8(&said).ok()?.trim().parse::<u32>().ok());
            level.map_or(self.otherwise, |level| u8::try_from(level).unwrap_or(u8::MAX))
        };
        level.min(self.highest)
    }
}

impl Retry {
    /// Milliseconds before a message is given out again that was given out `attempts` times.
    pub fn after(&self, attempts: u32) -> Millis {
        let mut delay = u128::from(self.delay);
        for _ in 1..attempts {
            if delay == 0 || delay >= u128::from(self.max) || self.factor == 100 {
                break;
            }
            delay = delay.saturating_mul(self.factor.into()) / 100;
        }
        u64::try_from(delay).unwrap_or(u64::MAX).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use bytes::Bytes;

    use super::*;
    use crate::body::Body;
    use crate::neutral::Draft;
    use crate::properties::Properties;

    /// Calls `with` with a message to `tickets/7` that has these headers.
    fn message<R>(
        headers: &[(&str, Value<'_>)],
        head: Message,
        with: impl Fn(&Batch<'_>, &Message) -> R,
    ) -> R {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        let properties = Properties { headers, ..Properties::default() };
        let payload = Body::Shared(Bytes::new());
        let owned =
            Draft { exchange: None, topic: b"tickets/7", properties: &properties, payload, head }.build();
        let batch = owned.batch();
        with(&batch, batch.message(0).unwrap())
    }

    #[test]
    fn a_level_is_what_the_publisher_gave_else_what_the_route_reads_else_the_default() {
        let mut priorities =
            Priorities { highest: 9, weighted: false, from: None, otherwise: 4, apart: None };
        let none = Message::default();
        assert_eq!(message(&[], none, |batch, message| priorities.of(batch, message)), 4);
        let given = Message { flags: Flags::PRIORITY, priority: 200, ..none };
        assert_eq!(message(&[], given, |batch, message| priorities.of(batch, message)), 9);
        priorities.from = Some(Attribute::Level(NonZeroU8::new(2).unwrap()));
        assert_eq!(message(&[], none, |batch, message| priorities.of(batch, message)), 7);
        let given = Message { priority: 0, ..given };
        assert_eq!(message(&[], given, |batch, message| priorities.of(batch, message)), 0);
        priorities.from = Some(Attribute::Property("urgency".into()));
        let urgent = [("urgency", Value::Text("8".into()))];
        assert_eq!(message(&urgent, none, |batch, message| priorities.of(batch, message)), 8);
        let beyond = [("urgency", Value::Text("300".into()))];
        assert_eq!(message(&beyond, none, |batch, message| priorities.of(batch, message)), 9);
        let nonsense = [("urgency", Value::Text("very".into()))];
        assert_eq!(message(&nonsense, none, |batch, message| priorities.of(batch, message)), 4);
    }

    #[test]
    fn a_message_says_itself_how_long_it_is_held_back_where_its_queue_lets_it() {
        let terms = Terms { delay: Some(500), ..Terms::default() };
        let of = |headers: &[(&str, Value<'_>)]| {
            message(headers, Message::default(), |batch, message| terms.delay(batch, message))
        };
        assert_eq!(of(&[]), 500);
        assert_eq!(of(&[(DELAY, Value::I32(20))]), 20);
        assert_eq!(of(&[(DELAY, Value::Text("30".into()))]), 30);
        assert_eq!(of(&[(DELAY, Value::I32(-1))]), 500);
        assert_eq!(of(&[(DELAY, Value::I64(i64::MAX))]), LONGEST_DELAY);
        let own = [(DELAY, Value::I32(20))];
        let plain = Terms::default();
        assert_eq!(message(&own, Message::default(), |batch, message| plain.delay(batch, message)), 0);
    }

    #[test]
    fn each_retry_waits_longer_up_to_a_bound() {
        let retry = Retry { delay: 1000, factor: 200, max: 60_000 };
        let waits: Vec<_> = (1..=8).map(|attempts| retry.after(attempts)).collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(retry.after(u32::MAX), 60_000);
        assert_eq!(Retry { factor: 100, ..retry }.after(u32::MAX), 1000);
        assert_eq!(Retry { delay: 0, ..retry }.after(9), 0);
    }
}

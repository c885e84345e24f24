//! Where the broker holds messages back for a time: it delays none by itself, but what expires in one queue it puts into
//! another. There is a queue for each time, and times that nearly are the same share one.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use linkspan_contract::{Batch, Message, Millis, Terms};

use crate::now::poke;
use crate::queue_name::queue_name;

/// The queue for one time, from which messages go on to one work queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DelayQueue {
    pub(crate) name: ShortString,
    to: ShortString,
    millis: Millis,
}

/// Milliseconds that such a queue is kept beyond its own time when nobody declares it.
const KEPT: Millis = 1_200_000;

/// Milliseconds that a message can be held back: RabbitMQ's greatest time to live, less what the queue outlives it.
const LONGEST: Millis = u32::MAX as Millis - KEPT;

/// Milliseconds after which it is declared again: what is published until then is through before it goes.
const DECLARED_FOR: Millis = KEPT / 2;

/// So many queues are remembered.
const REMEMBERED: usize = 4096;

impl DelayQueue {
    /// Where a message waits that goes to the queue `to` under these terms; nothing when it does not.
    pub(crate) fn of(
        to: &ShortString,
        terms: Option<&Terms>,
        batch: &Batch<'_>,
        message: &Message,
    ) -> Option<Self> {
        let terms = terms?;
        let millis = match terms.delay(batch, message) {
            0 => return None,
            // The route's own time is one that many messages share.
            millis if terms.delay == Some(millis) => millis.min(LONGEST),
            millis => rounded(millis),
        };
        let name = queue_name("delay", &[to.as_str(), &millis.to_string()]);
        Some(Self { name: ShortString::try_new(name).ok()?, to: to.clone(), millis })
    }

    /// Has the broker make it, or keep it. What is published on that channel from now on comes behind.
    pub(crate) fn declare(&self, channel: &Channel) {
        let options = QueueDeclareOptions { durable: true, nowait: true, ..QueueDeclareOptions::default() };
        poke(channel.queue_declare(self.name.clone(), options, self.arguments()));
    }

    fn arguments(&self) -> FieldTable {
        let whole = |millis: Millis| AMQPValue::LongLongInt(i64::try_from(millis).unwrap_or(i64::MAX));
        let text = |text: &str| AMQPValue::LongString(text.into());
        let all = [
            ("x-queue-type", text("classic")),
            ("x-message-ttl", whole(self.millis)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(self.to.as_str())),
            ("x-expires", whole(self.millis.saturating_add(KEPT))),
        ];
        let mut arguments = FieldTable::default();
        for (name, value) in all {
            if let Ok(name) = ShortString::try_new(name) {
                arguments.insert(name, value);
            }
        }
        arguments
    }
}

/// At most 1 in 32 longer, so that few times are different.
fn rounded(millis: Millis) -> Millis {
    let millis = millis.min(LONGEST);
    let step = (1 << (Millis::BITS - millis.leading_zeros())) / 64;
    millis.checked_next_multiple_of(step).unwrap_or(millis).min(LONGEST)
}

/// Those that are declared on a channel, and when.
#[derive(Debug, Default)]
pub(crate) struct DelayQueues {
    declared: HashMap<ShortString, Millis, RandomState>,
}

impl DelayQueues {
    /// Has one declared where it may not be there, or not long enough.
    pub(crate) fn declare(&mut self, queue: &DelayQueue, channel: &Channel, now: Millis) {
        let is_there = |at: &Millis| now < at.saturating_add(DECLARED_FOR);
        if self.declared.get(&queue.name).is_some_and(is_there) {
            return;
        }
        queue.declare(channel);
        if self.declared.len() >= REMEMBERED {
            self.declared.clear();
        }
        self.declared.insert(queue.name.clone(), now);
    }

    /// One is not there any more.
    pub(crate) fn forget_one(&mut self, name: &ShortString) {
        self.declared.remove(name);
    }

    /// The channel is another one.
    pub(crate) fn forget(&mut self) {
        self.declared.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use linkspan_contract::neutral::Draft;
    use linkspan_contract::terms::DELAY;
    use linkspan_contract::{Body, Properties, Value};

    use super::*;

    /// The queue of a message that says this of its delay.
    fn queue(own: Option<i64>, terms: &Terms) -> Option<DelayQueue> {
        let headers = own.map(|own| (DELAY.into(), Value::I64(own))).into_iter().collect();
        let properties = Properties { headers, ..Properties::default() };
        let payload = Body::Shared(Bytes::new());
        let draft = Draft {
            exchange: None,
            topic: b"jobs",
            properties: &properties,
            payload,
            head: Message::default(),
        };
        let owned = draft.build();
        let batch = owned.batch();
        let to = ShortString::try_new("jobs").unwrap();
        DelayQueue::of(&to, Some(terms), &batch, batch.message(0)?)
    }

    #[test]
    fn times_that_nearly_are_the_same_share_a_queue() {
        for millis in [1, 31, 63, 64, 65, 1000, 1001, 59_999, 60_000, 86_400_000, LONGEST - 1, LONGEST] {
            let rounded = rounded(millis);
            assert!(rounded >= millis && rounded - millis <= millis / 32, "{millis} became {rounded}");
        }
        let different: std::collections::BTreeSet<_> = (1..=65_536).map(rounded).collect();
        assert!(different.len() < 500, "{}", different.len());
        assert_eq!(rounded(u64::MAX), LONGEST);
    }

    #[test]
    fn a_message_waits_as_long_as_it_says_or_its_route_does() {
        let terms = Terms { delay: Some(1001), ..Terms::default() };
        let name = |own| queue(own, &terms).map(|queue| queue.name.to_string());
        assert_eq!(name(None).as_deref(), Some("linkspan.delay.jobs.1001"));
        assert_eq!(name(Some(1002)).as_deref(), Some("linkspan.delay.jobs.1008"));
        assert_eq!(name(Some(0)), None);
        assert_eq!(queue(Some(1002), &Terms::default()), None, "its route knows no delays");
    }

    #[test]
    fn the_queue_is_kept_longer_than_what_waits_in_it() {
        let queue = queue(None, &Terms { delay: Some(5000), ..Terms::default() }).unwrap();
        let arguments = queue.arguments();
        let whole = |name: &str| match arguments.inner().get(name) {
            Some(AMQPValue::LongLongInt(millis)) => *millis,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(whole("x-message-ttl"), 5000);
        assert!(whole("x-expires") > 5000 + i64::try_from(DECLARED_FOR).unwrap());
    }
}

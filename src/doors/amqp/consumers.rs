//! The consumers of one connection, by the keys that back ends know them by.

use std::sync::Arc;

use linkspan_contract::{Credit, SubscriptionKey};

use crate::protocol::amqp::Forwarding;

/// One consumer, or what a channel fetches under.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    /// Its channel's place in the sink.
    pub(super) channel: usize,
    /// The consumer tag; `None` for what `basic.get` fetches.
    pub(super) tag: Option<Box<str>>,
    /// The head of its deliveries.
    pub(super) forwarding: Option<Forwarding>,
    /// The window, unless nobody settles.
    pub(super) credit: Option<Arc<Credit>>,
    /// Deliveries that are not settled.
    pub(super) unsettled: u64,
    /// The client has been told that it is there.
    pub(super) told: bool,
    /// Its back end ended it before that.
    pub(super) ended: bool,
    /// Cancelled or ended: gone when all is settled.
    pub(super) over: bool,
}

/// The table. A key is used again only long after its consumer is gone: what is on its way still for the old one is
/// not taken for the new one's.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    consumer: Option<Consumer>,
}

/// Bits of a key that are the slot's place; the others are its generation.
const PLACE_BITS: u32 = 20;
const PLACE: u32 = (1 << PLACE_BITS) - 1;

impl Consumers {
    /// Adds one; `None` when there are a million.
    pub(super) fn add(&mut self, consumer: Consumer) -> Option<SubscriptionKey> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.slots.len()).ok().filter(|place| *place <= PLACE)?;
                self.slots.push(Slot::default());
                place
            }
        };
        let slot = self.slots.get_mut(place as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.consumer = Some(consumer);
        Some(SubscriptionKey { subscription: (slot.generation << PLACE_BITS) | place, part: 0 })
    }

    /// The one with this key.
    #[inline]
    pub(super) fn get_mut(&mut self, key: SubscriptionKey) -> Option<&mut Consumer> {
        let slot = self.slots.get_mut((key.subscription & PLACE) as usize)?;
        if slot.generation << PLACE_BITS != key.subscription & !PLACE {
            return None;
        }
        slot.consumer.as_mut()
    }

    /// The live consumer of `channel` with this tag.
    pub(super) fn find(&self, channel: usize, tag: &str) -> Option<SubscriptionKey> {
        self.keys()
            .find(|(_, consumer)| {
                consumer.channel == channel && !consumer.over && consumer.tag.as_deref() == Some(tag)
            })
            .map(|(key, _)| key)
    }

    /// Everyone with its key.
    pub(super) fn keys(&self) -> impl Iterator<Item = (SubscriptionKey, &Consumer)> {
        self.slots.iter().zip(0u32..).filter_map(|(slot, place)| {
            let subscription = (slot.generation << PLACE_BITS) | place;
            Some((SubscriptionKey { subscription, part: 0 }, slot.consumer.as_ref()?))
        })
    }

    /// It is given nothing more; it goes when all that it has is settled. Its tag and channel, unless it was over.
    pub(super) fn end(&mut self, key: SubscriptionKey) -> Option<(usize, Option<Box<str>>)> {
        let consumer = self.get_mut(key).filter(|consumer| !consumer.over)?;
        consumer.over = true;
        let ended = (consumer.channel, consumer.tag.take());
        if consumer.unsettled == 0 {
            self.remove(key);
        }
        Some(ended)
    }

    /// `count` of its deliveries are settled.
    #[inline]
    pub(super) fn settled(&mut self, key: SubscriptionKey, count: u32) {
        if let Some(consumer) = self.get_mut(key) {
            consumer.unsettled = consumer.unsettled.saturating_sub(count.into());
            if consumer.over && consumer.unsettled == 0 {
                self.remove(key);
            }
        }
    }

    /// Removes all of a channel.
    pub(super) fn remove_channel(&mut self, channel: usize) {
        let keys: Vec<_> =
            self.keys().filter(|(_, consumer)| consumer.channel == channel).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.remove(key));
    }

    fn remove(&mut self, key: SubscriptionKey) {
        let place = key.subscription & PLACE;
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.consumer = None;
            self.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(channel: usize, tag: &str) -> Consumer {
        Consumer { channel, tag: Some(tag.into()), ..Consumer::default() }
    }

    #[test]
    fn a_cancelled_consumer_stays_until_all_is_settled_and_its_tag_is_free_at_once() {
        let mut consumers = Consumers::default();
        let key = consumers.add(consumer(0, "t")).unwrap();
        consumers.get_mut(key).unwrap().unsettled = 2;
        assert_eq!(consumers.find(0, "t"), Some(key));
        assert_eq!(consumers.find(1, "t"), None, "tags are a channel's own");
        assert!(consumers.end(key).is_some() && consumers.end(key).is_none());
        assert_eq!(consumers.find(0, "t"), None);
        consumers.settled(key, 1);
        assert!(consumers.get_mut(key).is_some());
        consumers.settled(key, 1);
        assert!(consumers.get_mut(key).is_none());
    }

    #[test]
    fn the_key_of_one_that_is_gone_is_not_the_next_ones() {
        let mut consumers = Consumers::default();
        let old = consumers.add(consumer(0, "a")).unwrap();
        consumers.remove_channel(0);
        let new = consumers.add(consumer(0, "b")).unwrap();
        assert_ne!(old, new);
        assert!(consumers.get_mut(old).is_none() && consumers.get_mut(new).is_some());
        let with_part = SubscriptionKey { part: 3, ..new };
        assert!(consumers.get_mut(with_part).is_some(), "the part is the hub's own");
    }
}

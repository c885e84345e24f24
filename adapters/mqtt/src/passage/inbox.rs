//! What the broker delivered to a client's session: numbered for the client, kept until it has room, and known by packet
//! identifier until it has acknowledged it.
//!
//! A broker that resumes a session sends again what was not acknowledged, under the same packet identifiers and before
//! anything new (MQTT 5 §4.4). The client is still there and has these messages: they are recognised, and not given twice.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{DeliveryTag, Millis, Settled, Settlement, SubscriptionKey};

use crate::upstream::copies::Content;
use crate::upstream::packet::Incoming;

/// A message that is not given yet.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) message: Incoming,
    /// Its number, when the client has to settle it.
    pub(crate) tag: Option<DeliveryTag>,
    pub(crate) since: Millis,
}

/// A message that the broker waits for the acknowledgement of.
#[derive(Debug)]
struct Open {
    tag: DeliveryTag,
    content: Content,
    exactly_once: bool,
    /// It came on an earlier connection.
    former: bool,
    /// The client has acknowledged it, which the broker may not have heard yet.
    settled: bool,
}

/// One session's deliveries.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    next: DeliveryTag,
    open: HashMap<u16, Open, RandomState>,
    numbers: HashMap<DeliveryTag, u16, RandomState>,
    /// Those that the broker was told of last.
    told: VecDeque<u16>,
    /// What was not acknowledged on an earlier connection may be sent again.
    resuming: bool,
    pub(crate) waiting: VecDeque<Letter>,
}

/// So many acknowledgements are remembered in case that a connection ends with them under way.
const TOLD: usize = 128;

/// A packet identifier that is to be acknowledged, and whether it is one of QoS 2.
pub(crate) type Acknowledged = (u16, bool);

impl Inbox {
    /// A connection begins. A session that the broker has forgotten waits for no acknowledgement.
    pub(crate) fn connected(&mut self, resumed: bool) {
        if resumed {
            self.lost();
        } else {
            self.open.clear();
            self.numbers.clear();
            self.told.clear();
            self.resuming = false;
        }
    }

    /// Takes a message in; yields what is to be acknowledged at once, for the client did so before.
    pub(crate) fn take(&mut self, message: Incoming, now: Millis) -> Option<Acknowledged> {
        let Some(packet_id) = message.packet_id else {
            self.waiting.push_back(Letter { message, tag: None, since: now });
            return None;
        };
        let (content, exactly_once) = (Content::of(&message), message.exactly_once);
        if self.resuming
            && message.repeated
            && let Some(open) = self.open.get_mut(&packet_id)
            && open.former
            && open.content == content
        {
            open.former = false;
            return open.settled.then_some((packet_id, exactly_once));
        }
        if std::mem::take(&mut self.resuming) {
            // This one is new: what was to be sent again has been.
            let numbers = &mut self.numbers;
            self.open.retain(|_, open| {
                if open.former {
                    numbers.remove(&open.tag);
                }
                !open.former
            });
        }
        if let Some(before) = self.open.remove(&packet_id) {
            self.numbers.remove(&before.tag);
        }
        let tag = self.next;
        self.next += 1;
        self.numbers.insert(tag, packet_id);
        self.open.insert(packet_id, Open { tag, content, exactly_once, former: false, settled: false });
        self.waiting.push_back(Letter { message, tag: Some(tag), since: now });
        None
    }

    /// The client has said what became of deliveries under `key`: what the broker is told.
    pub(crate) fn settle(&mut self, runs: &[Settled], key: SubscriptionKey, out: &mut Vec<Acknowledged>) {
        let over = |run: &&Settled| {
            run.key == key && matches!(run.outcome, Settlement::Accept | Settlement::Reject(_))
        };
        for run in runs.iter().filter(over) {
            for tag in run.first..run.first.saturating_add(run.count.into()) {
                let Some(packet_id) = self.numbers.remove(&tag) else { continue };
                let Some(open) = self.open.get_mut(&packet_id) else { continue };
                open.settled = true;
                if !open.former {
                    out.push((packet_id, open.exactly_once));
                    self.tell(packet_id);
                }
            }
        }
    }

    fn tell(&mut self, packet_id: u16) {
        self.told.push_back(packet_id);
        if self.told.len() > TOLD
            && let Some(oldest) = self.told.pop_front()
            && self.open.get(&oldest).is_some_and(|open| open.settled)
        {
            self.open.remove(&oldest);
        }
    }

    /// The connection is gone: acknowledgements wait until the broker asks for them.
    pub(crate) fn lost(&mut self) {
        self.open.values_mut().for_each(|open| open.former = true);
        self.told.clear();
        self.resuming = true;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const KEY: SubscriptionKey = SubscriptionKey { subscription: 0, part: 0 };

    fn message(packet_id: u16, text: &'static str, repeated: bool) -> Incoming {
        Incoming {
            topic: Bytes::from_static(b"t"),
            payload: Bytes::from_static(text.as_bytes()),
            properties: None,
            packet_id: (packet_id > 0).then_some(packet_id),
            exactly_once: false,
            repeated,
            retain: false,
        }
    }

    fn settled(inbox: &mut Inbox, first: DeliveryTag, count: u32) -> Vec<u16> {
        let run = Settled { key: KEY, first, count, outcome: Settlement::Accept, word: None };
        let mut out = Vec::new();
        inbox.settle(&[run], KEY, &mut out);
        out.into_iter().map(|(packet_id, _)| packet_id).collect()
    }

    fn waiting(inbox: &mut Inbox) -> Vec<Option<DeliveryTag>> {
        inbox.waiting.drain(..).map(|letter| letter.tag).collect()
    }

    #[test]
    fn a_message_is_acknowledged_when_the_client_has_and_once() {
        let mut inbox = Inbox::default();
        for (id, text) in [(7, "a"), (0, "x"), (8, "b"), (9, "c")] {
            assert_eq!(inbox.take(message(id, text, false), 0), None);
        }
        assert_eq!(waiting(&mut inbox), [Some(0), None, Some(1), Some(2)]);
        assert_eq!(settled(&mut inbox, 1, 2), [8, 9]);
        assert_eq!(settled(&mut inbox, 0, 3), [7]);
    }

    #[test]
    fn what_a_resumed_session_is_sent_again_is_not_given_again() {
        let mut inbox = Inbox::default();
        for (id, text) in [(1, "a"), (2, "b"), (3, "c")] {
            inbox.take(message(id, text, false), 0);
        }
        waiting(&mut inbox);
        inbox.lost();
        assert_eq!(settled(&mut inbox, 0, 1), [0; 0], "nobody to tell");
        inbox.connected(true);
        assert_eq!(inbox.take(message(1, "a", true), 0), Some((1, false)), "the client has acknowledged it");
        assert_eq!(inbox.take(message(2, "b", true), 0), None);
        assert_eq!(settled(&mut inbox, 1, 1), [2]);
        inbox.take(message(4, "d", false), 0);
        assert_eq!(waiting(&mut inbox), [Some(3)]);
        inbox.take(message(3, "c", false), 0);
        assert_eq!(
            waiting(&mut inbox),
            [Some(4)],
            "the broker had its acknowledgement: this is another message"
        );
        assert_eq!(settled(&mut inbox, 2, 1), [0; 0]);
        assert_eq!(settled(&mut inbox, 3, 2), [4, 3]);
    }

    #[test]
    fn an_acknowledgement_that_went_down_with_its_connection_is_given_again() {
        let mut inbox = Inbox::default();
        inbox.take(message(1, "a", false), 0);
        assert_eq!(settled(&mut inbox, 0, 1), [1]);
        inbox.lost();
        inbox.connected(true);
        assert_eq!(inbox.take(message(1, "a", true), 0), Some((1, false)));
        assert_eq!(waiting(&mut inbox), [Some(0)]);
    }

    #[test]
    fn acknowledgements_are_not_remembered_for_ever() {
        let mut inbox = Inbox::default();
        for id in 1..=5_000 {
            inbox.take(message(id, "a", false), 0);
            assert_eq!(settled(&mut inbox, u64::from(id) - 1, 1), [id]);
        }
        assert!(inbox.open.len() <= TOLD && inbox.numbers.is_empty());
    }

    #[test]
    fn a_session_that_is_forgotten_waits_for_no_acknowledgement() {
        let mut inbox = Inbox::default();
        inbox.take(message(1, "a", false), 0);
        inbox.lost();
        inbox.connected(false);
        assert_eq!(settled(&mut inbox, 0, 1), [0; 0]);
        assert_eq!(waiting(&mut inbox), [Some(0)], "the client gets it all the same");
    }
}

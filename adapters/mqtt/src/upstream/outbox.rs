//! Messages on their way to the broker: in order, until each is acknowledged, over as many connections as it takes.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::upstream::packet::{Ack, Outgoing};

/// A message and whose it is.
#[derive(Debug)]
pub(crate) struct Entry<C> {
    /// Its place among all of the session.
    order: u64,
    pub(crate) message: Outgoing,
    /// Who is told what becomes of it.
    pub(crate) claim: C,
    /// Connections that alone ended while it alone was on its way.
    strikes: u8,
}

/// The messages of one session. Those that wait are behind those that were handed to the connection, and these behind
/// those that have a packet identifier.
#[derive(Debug)]
pub(crate) struct Outbox<C> {
    waiting: VecDeque<Entry<C>>,
    handed: VecDeque<Entry<C>>,
    sent: HashMap<u16, Entry<C>, RandomState>,
    next: u64,
    bytes: u64,
    /// QoS 1 messages that may be on their way.
    window: usize,
    /// Of QoS 1, handed over and not acknowledged.
    open: usize,
    /// Connections in a row that ended without a single acknowledgement.
    losses: u32,
    /// The last connection ended while the first of those that wait was alone on its way.
    suspects: bool,
}

/// Numbers and messages are out of step: the connection has to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfStep;

/// After so many connections without an acknowledgement messages are sent one by one.
const LOSSES: u32 = 2;

/// So many connections ended on a message that was alone: it is the message.
const STRIKES: u8 = 3;

impl<C> Outbox<C> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            handed: VecDeque::new(),
            sent: HashMap::default(),
            next: 0,
            bytes: 0,
            window: 0,
            open: 0,
            losses: 0,
            suspects: false,
        }
    }

    /// Bytes of all that is not acknowledged.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.handed.is_empty() && self.sent.is_empty()
    }

    pub(crate) fn push(&mut self, message: Outgoing, claim: C) {
        self.bytes = self.bytes.saturating_add(message.size());
        self.waiting.push_back(Entry { order: self.next, message, claim, strikes: 0 });
        self.next += 1;
    }

    /// A connection that allows `window` messages begins.
    pub(crate) fn connected(&mut self, window: usize) {
        self.window = window.max(1);
    }

    fn sends_one_by_one(&self) -> bool {
        self.losses >= LOSSES
    }

    /// The next message that may be handed to the connection.
    pub(crate) fn peek(&self) -> Option<&Outgoing> {
        let first = &self.waiting.front()?.message;
        let window = if self.sends_one_by_one() { self.window.min(1) } else { self.window };
        (self.window > 0 && (!first.acknowledged || self.open < window)).then_some(first)
    }

    /// It was handed over.
    pub(crate) fn hand_over(&mut self) {
        if let Some(entry) = self.waiting.pop_front() {
            self.open += usize::from(entry.message.acknowledged);
            self.handed.push_back(entry);
        }
    }

    /// Takes out the next message instead: it cannot be sent.
    pub(crate) fn drop_next(&mut self) -> Option<Entry<C>> {
        let entry = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(entry.message.size());
        Some(entry)
    }

    /// The connection has sent the first of those that it was handed; yields it when that was all.
    pub(crate) fn sent(&mut self, packet_id: u16) -> Result<Option<Entry<C>>, OutOfStep> {
        let entry = self.handed.pop_front().ok_or(OutOfStep)?;
        if entry.message.acknowledged != (packet_id != 0) {
            self.handed.push_front(entry);
            return Err(OutOfStep);
        }
        if packet_id == 0 {
            self.bytes = self.bytes.saturating_sub(entry.message.size());
            return Ok(Some(entry));
        }
        match self.sent.insert(packet_id, entry) {
            None => Ok(None),
            Some(other) => {
                // Neither is forgotten: both are sent again.
                self.handed.push_back(other);
                Err(OutOfStep)
            }
        }
    }

    /// The broker has answered.
    pub(crate) fn acked(&mut self, packet_id: u16) -> Result<Entry<C>, OutOfStep> {
        let entry = self.sent.remove(&packet_id).ok_or(OutOfStep)?;
        self.bytes = self.bytes.saturating_sub(entry.message.size());
        self.open = self.open.saturating_sub(1);
        self.losses = 0;
        Ok(entry)
    }

    /// The connection is gone: what is not acknowledged waits again, in its order, in front of the rest; QoS 0 may have
    /// gone with it and is yielded.
    pub(crate) fn lost(&mut self) -> Vec<(Entry<C>, Ack)> {
        self.suspects = self.sends_one_by_one() && self.sent.len() == 1;
        if self.open > 0 {
            self.losses = self.losses.saturating_add(1);
        }
        self.open = 0;
        self.window = 0;
        let mut back: Vec<Entry<C>> = self.sent.drain().map(|(_, entry)| entry).collect();
        let mut over = Vec::new();
        for entry in self.handed.drain(..) {
            if entry.message.acknowledged {
                back.push(entry);
            } else {
                self.bytes = self.bytes.saturating_sub(entry.message.size());
                over.push((entry, Ack::Taken));
            }
        }
        back.sort_unstable_by_key(|entry| entry.order);
        for entry in back.into_iter().rev() {
            self.waiting.push_front(entry);
        }
        over
    }

    /// It was this session's connection alone that was lost: a message that was alone on its way may be why. Yields it when
    /// it has ended so many: the broker does not take it.
    pub(crate) fn lost_alone(&mut self) -> Option<(Entry<C>, Ack)> {
        let first = self.waiting.front_mut().filter(|_| std::mem::take(&mut self.suspects))?;
        first.strikes = first.strikes.saturating_add(1);
        if first.strikes < STRIKES {
            return None;
        }
        self.losses = 0;
        let why = "the broker closes the connection whenever it is sent this message".into();
        let why = linkspan_contract::Refused::Precondition(why);
        self.drop_next().map(|entry| (entry, Ack::Refused(why)))
    }

    /// Takes out what need not be kept while the broker is away: QoS 0.
    pub(crate) fn shed(&mut self) -> Vec<Entry<C>> {
        let mut shed = Vec::new();
        let waiting = std::mem::take(&mut self.waiting);
        for entry in waiting {
            if entry.message.acknowledged {
                self.waiting.push_back(entry);
            } else {
                self.bytes = self.bytes.saturating_sub(entry.message.size());
                shed.push(entry);
            }
        }
        shed
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(acknowledged: bool) -> Outgoing {
        Outgoing {
            topic: "t".into(),
            payload: Bytes::from_static(b"x"),
            properties: None,
            acknowledged,
            retain: false,
            expires: None,
        }
    }

    fn filled(count: u32) -> Outbox<u32> {
        let mut outbox = Outbox::new();
        (0..count).for_each(|number| outbox.push(message(true), number));
        outbox
    }

    /// Hands over what may be; tells how many.
    fn pump(outbox: &mut Outbox<u32>) -> u16 {
        let mut count = 0;
        while outbox.peek().is_some() {
            outbox.hand_over();
            count += 1;
        }
        count
    }

    #[test]
    fn a_window_bounds_what_is_on_its_way_and_acknowledgements_find_their_message_in_any_order() {
        let mut outbox = filled(5);
        assert_eq!(pump(&mut outbox), 0, "there is no connection");
        outbox.connected(3);
        assert_eq!(pump(&mut outbox), 3);
        for id in [7, 8, 9] {
            assert!(outbox.sent(id).unwrap().is_none());
        }
        assert_eq!(outbox.acked(8).unwrap().claim, 1);
        assert_eq!(outbox.acked(7).unwrap().claim, 0);
        assert_eq!(pump(&mut outbox), 2);
        assert_eq!(outbox.acked(8).unwrap_err(), OutOfStep, "an identifier that is not in use");
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_its_order_before_the_rest() {
        let mut outbox = filled(6);
        outbox.connected(4);
        pump(&mut outbox);
        // Identifiers have wrapped: order goes by what was sent first.
        for id in [4, 1, 2] {
            outbox.sent(id).unwrap();
        }
        outbox.acked(1).unwrap();
        assert!(outbox.lost().is_empty());
        outbox.connected(10);
        assert_eq!(pump(&mut outbox), 5);
        let mut order = Vec::new();
        for id in 1..=5 {
            outbox.sent(id).unwrap();
            order.push(outbox.acked(id).unwrap().claim);
        }
        assert_eq!(order, [0, 2, 3, 4, 5]);
        assert!(outbox.is_empty() && outbox.bytes() == 0);
    }

    #[test]
    fn qos_0_is_over_when_sent_lost_with_its_connection_and_shed_when_there_is_none() {
        let mut outbox = Outbox::new();
        for number in 0..3 {
            outbox.push(message(false), number);
        }
        outbox.connected(1);
        outbox.hand_over();
        assert_eq!(outbox.sent(0).unwrap().unwrap().claim, 0);
        outbox.hand_over();
        assert_eq!(outbox.lost().len(), 1);
        assert_eq!(outbox.shed().len(), 1);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_message_that_ends_every_connection_is_found_and_refused_and_the_rest_goes_on() {
        let mut outbox = filled(4);
        let (mut refused, mut taken) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            outbox.connected(10);
            let count = pump(&mut outbox);
            for id in 1..=count {
                outbox.sent(id).unwrap();
            }
            // The broker acknowledges what comes before number 2 when that is not on its way, and closes on it.
            let mut ids = (1..=count).collect::<Vec<_>>();
            while let Some(id) = ids.first().copied() {
                if outbox.sent[&id].claim == 2 || (count > 1 && outbox.sent.values().any(|it| it.claim == 2))
                {
                    break;
                }
                ids.remove(0);
                taken.push(outbox.acked(id).unwrap().claim);
            }
            if !ids.is_empty() || outbox.peek().is_none() {
                let over = outbox.lost().into_iter().chain(outbox.lost_alone());
                refused.extend(over.map(|(entry, _)| entry.claim));
            }
        }
        assert_eq!((refused, taken), (vec![2], vec![0, 1, 3]));
    }
}

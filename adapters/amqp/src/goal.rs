//! Where a target's messages go: exchange and routing key.

use std::sync::Arc;

use lapin::types::ShortString;
use linkspan_contract::address::{Syntax, respelled};
use linkspan_contract::{Batch, Destination, Message, Refused, Terms};

use crate::levels::Levels;
use crate::repeats::Repeats;
use crate::work_queue::WorkQueues;

/// A [`Destination`] as the broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) exchange: ShortString,
    pub(crate) key: ShortString,
    /// Queues of a work route, which get it by name whatever is bound.
    pub(crate) queues: Box<[ShortString]>,
    /// It names an exchange of its own, which may be missing: then the channel is closed.
    pub(crate) is_exchange: bool,
    /// It is an address.
    is_address: bool,
    /// What routes say of the queues that it names, leg by leg; nothing when they say nothing of any.
    terms: Box<[Option<Arc<Terms>>]>,
    /// The queues that each of them has for its levels, where it has some.
    levels: Box<[Option<Arc<Levels>>]>,
    /// What those queues are known to have taken, where that is to be known.
    repeats: Box<[Option<Arc<Repeats>>]>,
}

impl Goal {
    /// # Errors
    /// When the broker's protocol has no room for such a name.
    pub(crate) fn new(to: &Destination<'_>, topic_exchange: &str) -> Result<Self, Refused> {
        Ok(match to {
            Destination::Address { path, syntax, queues, .. } => Self {
                exchange: short("the topic exchange", topic_exchange.as_bytes())?,
                key: short("the address", &respelled(path, *syntax, Syntax::Key)).map_err(of_address)?,
                queues: queues
                    .iter()
                    .map(|name| short("the queue", name.as_bytes()))
                    .collect::<Result<_, _>>()?,
                is_exchange: false,
                is_address: true,
                terms: Box::default(),
                levels: Box::default(),
                repeats: Box::default(),
            },
            Destination::Exchange { name, key, .. } => Self {
                exchange: short("the exchange", name.as_bytes())?,
                key: short("the routing key", key)?,
                queues: Box::default(),
                is_exchange: true,
                is_address: false,
                terms: Box::default(),
                levels: Box::default(),
                repeats: Box::default(),
            },
            Destination::Queue { name, .. } => Self {
                exchange: ShortString::default(),
                key: short("the queue", name.as_bytes())?,
                queues: Box::default(),
                is_exchange: false,
                is_address: false,
                terms: Box::default(),
                levels: Box::default(),
                repeats: Box::default(),
            },
        })
    }

    /// The same, with what routes say now of the queues that it names.
    pub(crate) fn under(mut self, work_queues: &WorkQueues) -> Self {
        let of_leg = |leg| {
            let (exchange, key) = self.leg(leg);
            work_queues.terms(key.as_str()).filter(|_| exchange.as_str().is_empty())
        };
        let terms: Box<[_]> = (0..self.legs()).map(of_leg).collect();
        self.terms = if terms.iter().any(Option::is_some) { terms } else { Box::default() };
        let levels_of = |leg| {
            let (exchange, key) = self.leg(leg);
            work_queues.levels(key.as_str()).filter(|_| exchange.as_str().is_empty())
        };
        let levels: Box<[_]> = (0..self.legs()).map(levels_of).collect();
        self.levels = if levels.iter().any(Option::is_some) { levels } else { Box::default() };
        let taken_by = |leg| {
            let (exchange, key) = self.leg(leg);
            work_queues.repeats(key.as_str()).filter(|_| exchange.as_str().is_empty())
        };
        let repeats: Box<[_]> = (0..self.legs()).map(taken_by).collect();
        self.repeats = if repeats.iter().any(Option::is_some) { repeats } else { Box::default() };
        self
    }

    /// What its route says of the queue that the `leg`th publish is for, when it is for one.
    pub(crate) fn terms(&self, leg: u16) -> Option<&Terms> {
        self.terms.get(usize::from(leg))?.as_deref()
    }

    /// What the queue that the `leg`th publish is for is known to have taken, where that is to be known.
    pub(crate) fn repeats(&self, leg: u16) -> Option<&Arc<Repeats>> {
        self.repeats.get(usize::from(leg))?.as_ref()
    }

    /// Whether a message to it may have to wait for another.
    pub(crate) fn remembers(&self) -> bool {
        !self.repeats.is_empty()
    }

    /// Whether the `leg`th publish is for those who watch a work route.
    pub(crate) fn is_for_watchers(&self, leg: u16) -> bool {
        !self.queues.is_empty() && usize::from(leg) == self.queues.len()
    }

    /// Whether an address keeps what is published to it to be retained: those of work routes do not.
    pub(crate) fn retains(&self) -> bool {
        self.is_address && self.queues.is_empty()
    }

    /// Whether it is, first of all, a queue by name.
    pub(crate) fn is_by_name(&self) -> bool {
        self.leg(0).0.as_str().is_empty()
    }

    /// How often a message to it is published.
    pub(crate) fn legs(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX - 1).saturating_add(1)
    }

    /// Exchange and key of the `leg`th publish: the queues first, so that watchers see nothing that is not safe.
    pub(crate) fn leg(&self, leg: u16) -> (ShortString, ShortString) {
        match self.queues.get(usize::from(leg)) {
            Some(queue) => (ShortString::default(), queue.clone()),
            None => (self.exchange.clone(), self.key.clone()),
        }
    }

    /// The same for one message: where levels have queues, its level's.
    pub(crate) fn way(&self, leg: u16, batch: &Batch<'_>, message: &Message) -> (ShortString, ShortString) {
        let (exchange, key) = self.leg(leg);
        match self.levels.get(usize::from(leg)) {
            Some(Some(levels)) => {
                let terms = self.terms(leg);
                let level = terms.map_or(message.priority, |terms| terms.priority(batch, message));
                (exchange, levels.queue(level).clone())
            }
            _ => (exchange, key),
        }
    }
}

fn of_address(refused: Refused) -> Refused {
    match refused {
        Refused::Precondition(why) => Refused::AddressInvalid(why),
        other => other,
    }
}

/// A name as the protocol carries it.
///
/// # Errors
/// When it is longer than 255 bytes or not UTF-8.
pub(crate) fn short(what: &str, bytes: &[u8]) -> Result<ShortString, Refused> {
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| {
        Refused::Precondition(format!("{what} is not UTF-8, which the back end does not take"))
    })?;
    let len = text.len();
    ShortString::try_new(text).map_err(|_| {
        Refused::Precondition(format!("{what} has {len} bytes, and the back end's broker takes 255"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work_queue::Kind;

    #[test]
    fn an_address_is_a_routing_key_of_the_topic_exchange() {
        let queues = ["q".into()];
        let path = b"a.b/c";
        let to = Destination::Address { path, syntax: Syntax::Topic, more: &[], queues: &queues };
        let goal = Goal::new(&to, "amq.topic").unwrap();
        assert_eq!((goal.exchange.as_str(), goal.key.as_str(), goal.legs()), ("amq.topic", "a/b.c", 2));
        assert_eq!(goal.leg(0), (ShortString::default(), ShortString::try_new("q").unwrap()));
        assert_eq!(goal.leg(1).1, goal.key);
    }

    #[test]
    fn it_knows_what_routes_say_of_its_queues() {
        let work_queues = WorkQueues::default();
        let short = Arc::new(Terms { expiry: Some(1), ..Terms::default() });
        work_queues.note(
            "q",
            &short,
            Kind { is_quorum: false, single_active: false, has_levels: false },
            None,
        );
        let queues = ["other".into(), "q".into()];
        let to = Destination::Address { path: b"a", syntax: Syntax::Topic, more: &[], queues: &queues };
        let goal = Goal::new(&to, "amq.topic").unwrap();
        assert_eq!(goal.terms(1), None);
        let goal = goal.under(&work_queues);
        assert_eq!((goal.terms(0), goal.terms(1), goal.terms(2)), (None, Some(&*short), None));
        let exchange = Destination::Exchange { name: "e", key: b"q", more: &[] };
        let goal = Goal::new(&exchange, "amq.topic").unwrap().under(&work_queues);
        assert_eq!(goal.terms(0), None, "its key names no queue");
    }

    #[test]
    fn what_the_protocol_has_no_room_for_is_refused() {
        let long = "x".repeat(256);
        for path in [long.as_bytes(), b"\xff"] {
            let to = Destination::Address { path, syntax: Syntax::Topic, more: &[], queues: &[] };
            assert!(matches!(Goal::new(&to, "amq.topic"), Err(Refused::AddressInvalid(_))));
        }
    }
}

//! A client's subscription as it was asked for, and what it came to.

use std::sync::Arc;

use linkspan_contract::{
    Credit, Refused, Settle, Settlement, Source, Subscribe, SubscriptionKey, Value, Wishes,
};

use super::exclusive::Application;
use super::tenancy::Tenancy;
use crate::patterns::{Place, Taking, Work, taking};
use crate::routes::{Exclusive, NegativePuback, RouteTable};

/// A subscription of a hub's lane.
pub struct Subscription {
    /// The door's key.
    pub key: SubscriptionKey,
    source: Asked,
    settle: Settle,
    no_local: bool,
    exclusive: bool,
    priority: i32,
    arguments: Box<[(String, Value<'static>)]>,
    ack_timeout: Option<u64>,
    exactly_once: bool,
    several: bool,
    wishes: Option<Wishes>,
    credit: Option<Arc<Credit>>,
    /// The window of a work queue, inside the client's own.
    window: Option<Arc<Credit>>,
    /// What it came to.
    taking: Taking,
    /// Of a queue that one consumer at a time has: its claim, and its time with it.
    pub alone: Option<Box<Alone>>,
    /// What stands in its keys where it is made, and which of its spots that is.
    pub made: Vec<Made>,
    /// Whether it gives already.
    pub started: bool,
    /// Its queue gives nothing out for now: it is made nowhere.
    pub is_paused: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Filter(Arc<str>),
    Group { group: Arc<str>, filter: Arc<str> },
    Queue(Arc<str>),
}

/// A consumer's claim to a queue that one at a time has.
pub struct Alone {
    /// Until it is dropped: then its time with the queue is over, too.
    pub application: Application,
    /// That time, when it has the queue.
    pub tenancy: Option<Arc<Tenancy>>,
}

impl Alone {
    /// Whether the queue is offered to it once more, after its time with it.
    pub fn is_offered_another(&self) -> bool {
        let Some(Ok(offered)) = self.application.offer() else { return false };
        !self.tenancy.as_ref().is_some_and(|tenancy| Arc::ptr_eq(tenancy, &offered))
    }
}

/// Where a subscription is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// What stands in its keys there.
    pub part: u16,
    /// The place of the spot among [`Subscription::spots`].
    pub spot: u16,
}

/// What one back end is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The back end.
    pub backend: Arc<str>,
    asked: Asked,
}

impl Spot {
    /// What it is asked for there.
    pub fn source(&self) -> Source<'_> {
        match &self.asked {
            Asked::Filter(filter) => Source::Filter(filter),
            Asked::Group { group, filter } => Source::Group { group, filter },
            Asked::Queue(queue) => Source::Queue(queue),
        }
    }
}

impl Asked {
    fn taking(&self, table: &RouteTable) -> Result<Taking, Refused> {
        match self {
            Self::Filter(filter) => taking(table, None, filter),
            Self::Group { group, filter } => taking(table, Some(group), filter),
            Self::Queue(name) => {
                let owner = table.owner(name).map(|route| &**route);
                Ok(Taking::Work(Box::new(Work::new(name, owner, table.home()))))
            }
        }
    }
}

impl Subscription {
    /// A subscription to be made.
    ///
    /// # Errors
    /// When the routes do not allow it.
    pub fn new(
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
        table: &RouteTable,
    ) -> Result<Self, Refused> {
        let source = match *source {
            Source::Filter(filter) => Asked::Filter(filter.into()),
            Source::Group { group, filter } => Asked::Group { group: group.into(), filter: filter.into() },
            Source::Queue(name) => Asked::Queue(name.into()),
            Source::Session => {
                return Err(Refused::NotImplemented("a session is its home back end's alone".into()));
            }
        };
        let own = |(name, value): &(&str, Value<'_>)| ((*name).to_owned(), value.clone().into_owned());
        let taking = source.taking(table)?;
        let mut subscription = Self {
            key,
            source,
            settle: how.settle,
            no_local: how.no_local,
            exclusive: how.exclusive,
            priority: how.priority,
            arguments: how.arguments.iter().map(own).collect(),
            ack_timeout: how.ack_timeout,
            exactly_once: how.exactly_once,
            several: how.several,
            wishes: how.wishes,
            credit,
            window: None,
            taking,
            alone: None,
            made: Vec::new(),
            started: false,
            is_paused: false,
        };
        subscription.set_window();
        Ok(subscription)
    }

    /// What it comes to by `table`, when that is not what it came to.
    ///
    /// # Errors
    /// When the routes do not allow it any more.
    pub fn changed(&self, table: &RouteTable) -> Result<Option<Taking>, Refused> {
        let taking = self.source.taking(table)?;
        Ok((taking != self.taking).then_some(taking))
    }

    /// What it comes to.
    pub fn taking(&self) -> &Taking {
        &self.taking
    }

    /// The queue in which it competes.
    pub fn queue(&self) -> Option<&Arc<str>> {
        match &self.taking {
            Taking::Work(work) => Some(&work.queue),
            Taking::Watch { .. } => None,
        }
    }

    /// Makes it come to `taking`.
    pub fn become_taking(&mut self, taking: Taking) {
        self.taking = taking;
        self.set_window();
    }

    /// It takes the place of `before`. True when it comes to the same: then deliveries of `before` stay in its window.
    pub fn succeed(&mut self, before: &Self) -> bool {
        let same = self.taking == before.taking;
        if same && self.window.is_some() && before.window.is_some() {
            self.window.clone_from(&before.window);
        }
        same
    }

    /// That one consumer at a time has its queue, and how; and what it is.
    pub fn exclusive(&self) -> Option<(Exclusive, &Work)> {
        match &self.taking {
            Taking::Work(work) => work.exclusive.map(|exclusive| (exclusive, &**work)),
            Taking::Watch { .. } => None,
        }
    }

    /// Whether it asks for the same as `before`, and in the same way.
    pub fn asks_as(&self, before: &Self) -> bool {
        (self.settle, self.priority, self.taking == before.taking) == (before.settle, before.priority, true)
    }

    /// The client's word on who comes first.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// Whether it is given copies; else it competes.
    pub fn watches(&self) -> bool {
        matches!(self.taking, Taking::Watch { .. })
    }

    /// Whether it has a window of its own.
    pub fn has_window(&self) -> bool {
        self.window.is_some()
    }

    /// The window that a delivery took from whose key has `part`: what was given before routes changed took from
    /// another, which is gone.
    pub fn window_of(&self, part: u16) -> Option<&Arc<Credit>> {
        self.window.as_ref().filter(|_| self.made.iter().any(|made| made.part == part))
    }

    /// Who settles as published, which is MQTT, gets a window: AMQP clients set their own prefetch. Where the pattern asks
    /// for it, those who set none get one, too.
    fn set_window(&mut self) {
        let Taking::Work(work) = &self.taking else {
            self.window = None;
            return;
        };
        let is_given = match self.settle {
            Settle::AsPublished => true,
            Settle::ByConsumer => work.holds_all && self.credit.is_none(),
            Settle::OnDelivery => false,
        };
        let window = || Arc::new(Credit::within(work.window.get().into(), self.credit.clone()));
        self.window = is_given.then(window);
    }

    /// What its route makes of a rejection, when it is something else: only MQTT clients have no other word, so that one is
    /// all that is known when they cannot work a message.
    pub fn instead_of_rejecting(&self) -> Option<Settlement> {
        let (Taking::Work(work), Settle::AsPublished) = (&self.taking, self.settle) else { return None };
        match work.negative_puback {
            NegativePuback::DeadLetter => None,
            NegativePuback::Redeliver => Some(Settlement::Release { delay: 0 }),
            NegativePuback::Ignore => Some(Settlement::Accept),
        }
    }

    /// It takes the place of `before` and is the same.
    pub fn goes_on_from(&mut self, before: &mut Self) {
        self.alone = before.alone.take();
        self.made = std::mem::take(&mut before.made);
        self.window = before.window.take();
        self.started = before.started;
        self.is_paused = before.is_paused;
    }

    /// Its window begins anew.
    pub fn begin_window(&mut self) {
        if self.has_window() {
            self.set_window();
        }
    }

    /// Where it has to be made.
    pub fn spots(&self) -> Vec<Spot> {
        match &self.taking {
            Taking::Work(_) if self.is_paused => Vec::new(),
            Taking::Work(work) => {
                vec![Spot {
                    backend: Arc::clone(&work.backend),
                    asked: Asked::Queue(Arc::clone(&work.queue)),
                }]
            }
            Taking::Watch { places } => places.iter().map(|place| self.spot(place)).collect(),
        }
    }

    fn spot(&self, place: &Place) -> Spot {
        let part = |whole| Arc::clone(place.filter.as_ref().unwrap_or(whole));
        let asked = match &self.source {
            Asked::Group { group, filter } => Asked::Group { group: Arc::clone(group), filter: part(filter) },
            Asked::Filter(filter) => Asked::Filter(part(filter)),
            Asked::Queue(queue) => Asked::Queue(Arc::clone(queue)),
        };
        Spot { backend: Arc::clone(&place.backend), asked }
    }

    /// What stands in its keys at `spot`, when it is made there.
    pub fn at(&self, spot: &Spot) -> Option<u16> {
        let place = self.spots().iter().position(|it| it == spot)?;
        self.made.iter().find(|made| usize::from(made.spot) == place).map(|made| made.part)
    }

    /// What stands in its keys.
    pub fn parts(&self) -> Vec<u16> {
        self.made.iter().map(|made| made.part).collect()
    }

    /// The client's arguments, for [`Subscription::how`].
    pub fn arguments(&self) -> Vec<(&str, Value<'_>)> {
        self.arguments.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
    }

    /// The same, as the subscription's own.
    pub fn own_arguments(&self) -> Vec<(String, Value<'static>)> {
        self.arguments.to_vec()
    }

    /// How a back end is asked. In a work queue everything is settled by the consumer, however it was published.
    pub fn how<'a>(&self, arguments: &'a [(&'a str, Value<'a>)]) -> Subscribe<'a> {
        let settle = match (&self.taking, self.settle) {
            (Taking::Work(_), Settle::AsPublished) => Settle::ByConsumer,
            (_, settle) => settle,
        };
        let ack_timeout = match &self.taking {
            Taking::Work(work) => self.ack_timeout.or(work.ack_timeout),
            Taking::Watch { .. } => self.ack_timeout,
        };
        Subscribe {
            settle,
            no_local: self.no_local,
            exclusive: self.exclusive,
            several: self.several,
            priority: self.priority,
            arguments,
            ack_timeout,
            exactly_once: self.exactly_once,
            wishes: self.wishes,
        }
    }

    /// The window that a back end takes from.
    pub fn credit(&self) -> Option<Arc<Credit>> {
        self.window.clone().or_else(|| self.credit.clone())
    }
}

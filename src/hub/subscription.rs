//! A client's subscription as it was asked for, and what it came to.

use std::num::NonZeroU16;
use std::sync::Arc;

use linkspan_contract::{Credit, Refused, Settle, Source, Subscribe, SubscriptionKey, Value};

use crate::patterns::{Taking, taking};
use crate::routes::RouteTable;

/// Deliveries that an MQTT consumer of a queue without a route may have in hand.
const DEFAULT_WINDOW: NonZeroU16 = NonZeroU16::new(20).unwrap();

/// A subscription of a hub's lane.
pub struct Subscription {
    /// The door's key.
    pub key: SubscriptionKey,
    source: Asked,
    settle: Settle,
    no_local: bool,
    exclusive: bool,
    priority: i32,
    arguments: Vec<(String, Value<'static>)>,
    ack_timeout: Option<u64>,
    credit: Option<Arc<Credit>>,
    /// The window of a work queue, inside the client's own.
    window: Option<Arc<Credit>>,
    /// What it came to.
    taking: Taking,
    /// What stands in its keys for the back ends that it is made on.
    pub parts: Vec<u16>,
    /// Whether it gives already.
    pub started: bool,
}

#[derive(Debug, Clone)]
enum Asked {
    Filter(Box<str>),
    Group { group: Box<str>, filter: Box<str> },
    Queue(Box<str>),
}

impl Asked {
    fn taking(&self, table: &RouteTable) -> Result<Taking, Refused> {
        match self {
            Self::Filter(filter) => taking(table, None, filter),
            Self::Group { group, filter } => taking(table, Some(group), filter),
            Self::Queue(name) => {
                let owner = table.owner(name);
                Ok(Taking::Work {
                    backend: Arc::clone(owner.map_or(table.home(), |route| &route.backend)),
                    queue: Arc::from(&**name),
                    window: owner.map_or(DEFAULT_WINDOW, |route| route.window),
                })
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
            credit,
            window: None,
            taking,
            parts: Vec::new(),
            started: false,
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

    /// Makes it come to `taking`.
    pub fn become_taking(&mut self, taking: Taking) {
        self.taking = taking;
        self.set_window();
    }

    /// True when `later`, which takes its place, has it go on with other terms on a back end that it is made on.
    pub fn goes_on_as(&self, later: &Self, backend: &Arc<str>) -> bool {
        self.goes_on_by(&later.taking, backend)
    }

    /// True when it can go on as it is on a back end that it comes to by `taking` as well.
    pub fn goes_on_by(&self, taking: &Taking, backend: &Arc<str>) -> bool {
        match (&self.taking, taking) {
            (Taking::Watch { .. }, Taking::Watch { backends }) => backends.contains(backend),
            (mine, taking) => mine == taking,
        }
    }

    /// It takes the place of `before`. True when it comes to the same: then deliveries of `before` stay in its window.
    pub fn succeed(&mut self, before: &Self) -> bool {
        let same = self.taking == before.taking;
        if same && self.window.is_some() && before.window.is_some() {
            self.window.clone_from(&before.window);
        }
        same
    }

    /// Whether it has a window of its own.
    pub fn has_window(&self) -> bool {
        self.window.is_some()
    }

    /// The window that a delivery took from whose key has `part`: what was given before routes changed took from
    /// another, which is gone.
    pub fn window_of(&self, part: u16) -> Option<&Arc<Credit>> {
        self.window.as_ref().filter(|_| self.parts.contains(&part))
    }

    /// Only who settles as published, which is MQTT, gets a window: AMQP clients set their own prefetch.
    fn set_window(&mut self) {
        self.window = match (&self.taking, self.settle) {
            (Taking::Work { window, .. }, Settle::AsPublished) => {
                Some(Arc::new(Credit::within(window.get().into(), self.credit.clone())))
            }
            _ => None,
        };
    }

    /// The back ends that it is made on.
    pub fn backends(&self) -> Vec<Arc<str>> {
        match &self.taking {
            Taking::Work { backend, .. } => vec![Arc::clone(backend)],
            Taking::Watch { backends } => backends.clone(),
        }
    }

    /// What a back end is asked for.
    pub fn source(&self) -> Source<'_> {
        match (&self.taking, &self.source) {
            (Taking::Work { queue, .. }, _) => Source::Queue(queue),
            (Taking::Watch { .. }, Asked::Filter(filter)) => Source::Filter(filter),
            (Taking::Watch { .. }, Asked::Group { group, filter }) => Source::Group { group, filter },
            (Taking::Watch { .. }, Asked::Queue(name)) => Source::Queue(name),
        }
    }

    /// The client's arguments, for [`Subscription::how`].
    pub fn arguments(&self) -> Vec<(&str, Value<'_>)> {
        self.arguments.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
    }

    /// How a back end is asked. In a work queue everything is settled by the consumer, however it was published.
    pub fn how<'a>(&self, arguments: &'a [(&'a str, Value<'a>)]) -> Subscribe<'a> {
        let settle = match (&self.taking, self.settle) {
            (Taking::Work { .. }, Settle::AsPublished) => Settle::ByConsumer,
            (_, settle) => settle,
        };
        Subscribe {
            settle,
            no_local: self.no_local,
            exclusive: self.exclusive,
            priority: self.priority,
            arguments,
            ack_timeout: self.ack_timeout,
        }
    }

    /// The window that a back end takes from.
    pub fn credit(&self) -> Option<Arc<Credit>> {
        self.window.clone().or_else(|| self.credit.clone())
    }
}

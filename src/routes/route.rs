//! A route.

use std::num::{NonZeroU16, NonZeroU64};
use std::sync::Arc;

use linkspan_contract::Terms;

use super::{Exclusive, Filter, Others, Pattern};

/// One `[[route]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The vhost in whose address space the route lies.
    pub vhost: Arc<str>,
    /// The addresses that the route is for.
    pub filter: Filter,
    /// How they behave.
    pub pattern: Pattern,
    /// The back end that holds them.
    pub backend: Arc<str>,
    /// The queues that the route owns; none for publish-subscribe, one at least for a work route.
    pub queues: Vec<Arc<str>>,
    /// Messages that one MQTT consumer of a work route has unsettled at most (with its receive maximum).
    pub window: NonZeroU16,
    /// How its queues treat their messages.
    pub terms: Arc<Terms>,
    /// That one consumer has its queue alone, and how.
    pub exclusive: Option<Exclusive>,
    /// The queue whose holder alone may publish to its addresses; without, everybody may.
    pub fence: Option<Arc<str>>,
    /// What becomes of a message that an MQTT consumer answers with an error.
    pub negative_puback: NegativePuback,
    /// How an AMQP broker keeps the queues; its own default when not given.
    pub queue_type: Option<QueueType>,
    /// The address that messages go to which no consumer can work.
    pub dead_letter: Option<Box<str>>,
    /// Whether Linkspan may only start while the back end can be reached.
    pub required: bool,
    /// Whether a reload may move the queues to another back end while they hold messages, which follow then.
    pub drain: bool,
    /// Bytes of messages that are kept here while the back end is away; none: publishers wait.
    pub spool: Option<NonZeroU64>,
}

/// What becomes of a message that an MQTT consumer of a queue answers with an error (MQTT 5 §3.4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NegativePuback {
    /// It cannot be worked: it is a dead letter.
    #[default]
    DeadLetter,
    /// Somebody else may have it.
    Redeliver,
    /// It counts as worked.
    Ignore,
}

impl NegativePuback {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::DeadLetter, Self::Redeliver, Self::Ignore];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead-letter",
            Self::Redeliver => "redeliver",
            Self::Ignore => "ignore",
        }
    }
}

/// How a broker such as RabbitMQ keeps a queue (`x-queue-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueType {
    /// On one node.
    Classic,
    /// On several, by majority.
    Quorum,
}

impl QueueType {
    /// The name in the configuration, and the broker's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

impl Route {
    /// Messages that one MQTT consumer has unsettled when nothing is said: so that the first to come does not take all.
    pub const WINDOW: NonZeroU16 = NonZeroU16::MIN.saturating_add(19);

    /// That window, by pattern: of a priority queue so few messages are in hand that the next one is seldom late.
    pub const fn usual_window(pattern: Pattern) -> NonZeroU16 {
        match pattern {
            Pattern::PriorityQueue => NonZeroU16::MIN.saturating_add(3),
            _ => Self::WINDOW,
        }
    }

    /// A route of the vhost `/` with nothing but what every one has.
    pub fn new(filter: Filter, pattern: Pattern, backend: &str) -> Self {
        Self {
            vhost: "/".into(),
            filter,
            pattern,
            backend: backend.into(),
            queues: Vec::new(),
            window: Self::usual_window(pattern),
            terms: Arc::default(),
            exclusive: (pattern == Pattern::ExclusiveConsumer).then(Exclusive::default),
            fence: None,
            negative_puback: NegativePuback::default(),
            queue_type: None,
            dead_letter: None,
            required: false,
            drain: false,
            spool: None,
        }
    }

    /// What it says of its queues, for people.
    pub fn said(&self) -> Vec<String> {
        let millis = |time: u64| format!("{:?}", std::time::Duration::from_millis(time));
        let terms = &*self.terms;
        let mut said = Vec::new();
        if let Some(priorities) = &terms.priorities {
            let order = if priorities.weighted { "weighted" } else { "strict" };
            said.push(format!("{} levels ({order})", u16::from(priorities.highest) + 1));
        }
        if let Some(exclusive) = &self.exclusive {
            said.push(match exclusive.others {
                Others::Reject => "others are rejected".into(),
                Others::StandBy => "others stand by".into(),
            });
        }
        said.extend(self.fence.as_ref().map(|queue| format!("published to by the holder of {queue} alone")));
        said.extend(terms.ack_timeout.map(|time| format!("settled within {}", millis(time))));
        said.extend(terms.max_deliveries.map(|most| format!("{most} deliveries at most")));
        said.extend(terms.retry.map(|retry| format!("again after {}", millis(retry.delay))));
        said.extend(terms.deduplicate.as_ref().map(|it| format!("deduplicated by {}", it.by)));
        said.extend(terms.ordering_key.as_ref().map(|key| format!("ordered by {key}")));
        said.extend(terms.delay.map(|time| format!("held back {}", millis(time))));
        said.extend(terms.expiry.map(|time| format!("expires after {}", millis(time))));
        said.extend(terms.max_length.map(|most| format!("{most} messages at most")));
        said
    }
}

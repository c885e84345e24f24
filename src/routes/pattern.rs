//! The patterns by name.

use std::fmt;

/// How messages of a route reach consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Each subscriber gets each message.
    PublishSubscribe,
    /// Each of the route's queues gets each message; the consumers of one queue share its messages.
    CompetingConsumers,
    /// One consumer at a time has the queue.
    ExclusiveConsumer,
    /// Competing consumers, who get messages of higher priorities first.
    PriorityQueue,
}

impl Pattern {
    /// Every pattern that routes can have.
    pub const ALL: [Pattern; 4] = [
        Pattern::PublishSubscribe,
        Pattern::CompetingConsumers,
        Pattern::ExclusiveConsumer,
        Pattern::PriorityQueue,
    ];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::PublishSubscribe => "publish-subscribe",
            Pattern::CompetingConsumers => "competing-consumers",
            Pattern::ExclusiveConsumer => "exclusive-consumer",
            Pattern::PriorityQueue => "priority-queue",
        }
    }

    /// Whether a route of this pattern owns queues.
    pub fn is_work(self) -> bool {
        match self {
            Pattern::PublishSubscribe => false,
            Pattern::CompetingConsumers | Pattern::ExclusiveConsumer | Pattern::PriorityQueue => true,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

//! The patterns of the matrix: those of routes, and what routes with queues can have besides.

use linkspan_integration_tests::Dialect;

use super::cell::Place;
use super::stage::Stage;
use super::{
    ack_timeout, competing, dead_letter, deduplicate, exclusive_reject, exclusive_standby, groups,
    ordering_key, priority, publish_subscribe, retry,
};

/// What a cell shows to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    PublishSubscribe,
    Competing,
    Groups,
    ExclusiveReject,
    ExclusiveStandby,
    Priority,
    DeadLetter,
    AckTimeout,
    Retry,
    Deduplicate,
    OrderingKey,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::PublishSubscribe,
        Self::Competing,
        Self::Groups,
        Self::ExclusiveReject,
        Self::ExclusiveStandby,
        Self::Priority,
        Self::DeadLetter,
        Self::AckTimeout,
        Self::Retry,
        Self::Deduplicate,
        Self::OrderingKey,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PublishSubscribe => "publish-subscribe",
            Self::Competing => "competing consumers",
            Self::Groups => "consumer groups",
            Self::ExclusiveReject => "exclusive consumer, others rejected",
            Self::ExclusiveStandby => "exclusive consumer, others standing by",
            Self::Priority => "priority queue",
            Self::DeadLetter => "dead letters",
            Self::AckTimeout => "ack-timeout",
            Self::Retry => "retry",
            Self::Deduplicate => "deduplicate",
            Self::OrderingKey => "ordering-key",
        }
    }

    /// What a cell of it does, for who reads the page.
    pub fn course(self) -> &'static str {
        match self {
            Self::PublishSubscribe => publish_subscribe::COURSE,
            Self::Competing => competing::COURSE,
            Self::Groups => groups::COURSE,
            Self::ExclusiveReject => exclusive_reject::COURSE,
            Self::ExclusiveStandby => exclusive_standby::COURSE,
            Self::Priority => priority::COURSE,
            Self::DeadLetter => dead_letter::COURSE,
            Self::AckTimeout => ack_timeout::COURSE,
            Self::Retry => retry::COURSE,
            Self::Deduplicate => deduplicate::COURSE,
            Self::OrderingKey => ordering_key::COURSE,
        }
    }

    /// What `linkspan check` calls that which a cell is about.
    pub fn features(self, to: Dialect) -> &'static [&'static str] {
        match (self, to) {
            (Self::PublishSubscribe, _) => &["publish-subscribe"],
            (Self::Competing | Self::Groups, _) => &["competing-consumers"],
            (Self::ExclusiveReject | Self::ExclusiveStandby, _) => &["exclusive-consumer"],
            (Self::Priority, _) => &["priority-queue"],
            (Self::DeadLetter, Dialect::Mqtt3) => &["dead letters", "limit of deliveries"],
            (Self::DeadLetter, _) => &["dead letters"],
            (Self::AckTimeout, _) => &["deadlines"],
            (Self::Retry, Dialect::Mqtt3) => &["waits between deliveries", "deadlines"],
            (Self::Retry, _) => &["waits between deliveries"],
            (Self::Deduplicate, _) => &["deduplication"],
            (Self::OrderingKey, _) => &["order by keys"],
        }
    }

    /// The route of a cell.
    pub fn route(self, place: &Place, from: Dialect, to: Dialect) -> String {
        match self {
            Self::PublishSubscribe => publish_subscribe::route(place),
            Self::Competing => competing::route(place),
            Self::Groups => groups::route(place),
            Self::ExclusiveReject => exclusive_reject::route(place),
            Self::ExclusiveStandby => exclusive_standby::route(place, to),
            Self::Priority => priority::route(place),
            Self::DeadLetter => dead_letter::route(place, to),
            Self::AckTimeout => ack_timeout::route(place),
            Self::Retry => retry::route(place, to),
            Self::Deduplicate => deduplicate::route(place, from),
            Self::OrderingKey => ordering_key::route(place, from),
        }
    }

    /// Plays a cell of it; what is wrong is a failed assertion.
    pub async fn check(self, stage: &Stage) {
        match self {
            Self::PublishSubscribe => publish_subscribe::check(stage).await,
            Self::Competing => competing::check(stage).await,
            Self::Groups => groups::check(stage).await,
            Self::ExclusiveReject => exclusive_reject::check(stage).await,
            Self::ExclusiveStandby => exclusive_standby::check(stage).await,
            Self::Priority => priority::check(stage).await,
            Self::DeadLetter => dead_letter::check(stage).await,
            Self::AckTimeout => ack_timeout::check(stage).await,
            Self::Retry => retry::check(stage).await,
            Self::Deduplicate => deduplicate::check(stage).await,
            Self::OrderingKey => ordering_key::check(stage).await,
        }
    }
}

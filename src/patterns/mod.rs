//! The table of contents of messaging: a file per pattern, each opening with what the pattern is for.
//!
//! A pattern says what publishing to one of its addresses means (which queues get the message) and what
//! a subscription to them means: who competes, who watches.

pub mod competing_consumers;
pub mod publish_subscribe;

use std::num::NonZeroU16;
use std::sync::Arc;

use linkspan_contract::Refused;

use crate::routes::{Pattern, Relation, Route, RouteTable};

/// What a subscription by filter comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taking {
    /// Competes for the messages of one work queue.
    Work {
        /// The back end that has the queue.
        backend: Arc<str>,
        /// The queue.
        queue: Arc<str>,
        /// Deliveries that one consumer may have in hand.
        window: NonZeroU16,
    },
    /// Gets copies from each of these back ends.
    Watch {
        /// Where messages that the filter matches can be published.
        backends: Vec<Arc<str>>,
    },
}

/// What a subscription with `filter` means, alone or as a member of the shared subscription `group`.
///
/// # Errors
/// When it would take part of a work queue; the text says what to subscribe to instead.
pub fn taking(table: &RouteTable, group: Option<&str>, filter: &str) -> Result<Taking, Refused> {
    let mut backends: Vec<Arc<str>> = Vec::new();
    let mut covered = false;
    for (route, relation) in table.met_by(filter) {
        if let Some(work) = subscription(route, relation, group, filter)? {
            return Ok(work);
        }
        covered |= matches!(relation, Relation::Equal | Relation::Narrower);
        if !backends.contains(&route.backend) {
            backends.push(Arc::clone(&route.backend));
        }
    }
    if !covered && !backends.contains(table.home()) {
        backends.insert(0, Arc::clone(table.home()));
    }
    Ok(Taking::Watch { backends })
}

fn subscription(
    route: &Route,
    relation: Relation,
    group: Option<&str>,
    filter: &str,
) -> Result<Option<Taking>, Refused> {
    match route.pattern {
        Pattern::PublishSubscribe => Ok(publish_subscribe::subscription()),
        Pattern::CompetingConsumers => competing_consumers::subscription(route, relation, group, filter),
    }
}

//! A way into the embedded back end.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{Backend, Client, Lane, Nobody, TargetId};

use super::coordinator::Plan;

/// A lane into the embedded back end, and what it calls addresses.
pub(super) struct Way {
    pub(super) lane: Box<dyn Lane>,
    pub(super) targets: HashMap<Box<str>, TargetId, RandomState>,
}

impl Way {
    /// A lane for what the client of that number published; nothing when the embedded back end is closed.
    pub(super) fn new(plan: &Plan, number: u64) -> Option<Self> {
        let client = Client {
            number,
            identifier: "linkspan".into(),
            user: "linkspan".into(),
            vhost: Arc::clone(&plan.vhost),
            session: None,
        };
        let mut connection = crate::now::at_once(plan.inner.connect(&client, Arc::new(Nobody)))?.ok()?;
        let lane = crate::now::at_once(connection.lane(Arc::new(Nobody), Arc::new(Nobody)))?.ok()?;
        Some(Self { lane, targets: HashMap::default() })
    }
}

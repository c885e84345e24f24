//! Whose turn it is at queues that drop what comes again.

use std::collections::VecDeque;
use std::sync::Arc;

use linkspan_contract::Batch;

use super::{Publisher, Target};
use crate::again::Again;
use crate::plan::{Goal, Way};
use crate::topology::Routes;
use crate::vhost::Vhost;

impl Publisher {
    /// Waits for its turn at each queue that drops what comes again, of those that messages from this place on go to. Yields
    /// where those messages go that find their way by their headers, one by one.
    #[cold]
    pub(super) fn take_turns(
        &mut self,
        batch: &Batch<'_>,
        start: u32,
        again: &mut Again,
    ) -> VecDeque<Routes> {
        let (mut queues, mut own, mut last) = (Vec::new(), VecDeque::new(), None);
        for (place, message) in (start..).zip(batch.messages.get(start as usize..).unwrap_or_default()) {
            let target = message.target;
            if last != Some(target) {
                self.renew(target);
            }
            let Some(Target { goal, plan }) = self.targets.get(target.0 as usize) else { break };
            match &plan.way {
                Way::Common if last == Some(target) => {}
                Way::Common => queues.extend(plan.repeats.iter().map(|(_, repeats)| Arc::clone(repeats))),
                Way::Own => {
                    let routes = route_one(&self.vhost, goal, batch, place);
                    queues.extend(routes.queues.iter().filter_map(|queue| queue.repeats()));
                    own.push_back(routes);
                }
                Way::Closed(_) => break,
            }
            last = Some(target);
        }
        if !queues.is_empty() {
            again.be_alone(queues);
        }
        own
    }
}

/// Where a message goes that finds its way by its headers.
pub(super) fn route_one(vhost: &Vhost, goal: &Goal, batch: &Batch<'_>, place: u32) -> Routes {
    let properties = batch.message(place).and_then(|message| batch.properties(message).ok());
    goal.lend(|to| vhost.route(to, Some(&properties.unwrap_or_default()))).unwrap_or_default()
}

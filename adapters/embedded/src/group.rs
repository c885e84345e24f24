//! The queue of a shared subscription: in memory as long as no session that outlives the process is a member, and kept as
//! the queues that clients declare from then on.

use std::sync::Arc;

use linkspan_contract::Refused;

use crate::arguments::QueueArguments;
use crate::inbox::INBOX;
use crate::queue::{Queue, QueueTraits};
use crate::register::{Gone, QueueRow, Row};
use crate::topology::Topology;
use crate::vhost::Vhost;

/// What the names of their queues begin with; no client declares such.
pub(crate) const GROUP: &str = "$share/";

/// The name of one's queue.
fn name_of(group: &str, filter: &str) -> Arc<str> {
    format!("{GROUP}{group}/{filter}").into()
}

impl Vhost {
    /// The queue that the members of a shared subscription share; made by the first.
    pub(crate) fn group(self: &Arc<Self>, topology: &mut Topology, group: &str, filter: &str) -> Arc<Queue> {
        if let Some(queue) = topology.group(group, filter) {
            return Arc::clone(queue);
        }
        let number = self.house.archive.as_ref().filter(|_| self.records().is_some());
        let traits = QueueTraits {
            group: Some((group.into(), filter.into())),
            number: number.map(|archive| archive.group_number()),
            ..QueueTraits::default()
        };
        let name = name_of(group, filter);
        let queue = Queue::new(name, self, traits, &QueueArguments::default(), self.house.now());
        topology.add_group(group, filter, &queue);
        queue
    }

    /// Has a shared subscription's queue outlive the process, for `member`, the queue of a session that does, is about to
    /// be one of those who share it; where nothing is kept, there is nothing to do.
    pub(crate) async fn keep_group(
        self: &Arc<Self>,
        group: &str,
        filter: &str,
        member: &Arc<str>,
    ) -> Result<(), Refused> {
        let (Some(records), Some(archive)) = (self.records(), &self.house.archive) else { return Ok(()) };
        let name = name_of(group, filter);
        let turn = self.turn(&name).await;
        if self.look().group(group, filter).is_some_and(|queue| queue.has_kept_member(member)) {
            return Ok(());
        }
        let queue = self.change(|topology| {
            let queue = self.group(topology, group, filter);
            // From now on it does not go because others do.
            queue.expect_member(member);
            queue
        });
        if let Some(number) = queue.traits().number.filter(|_| !queue.is_kept()) {
            let (vhost, kept) = (Arc::clone(self), Arc::clone(&queue));
            let row = QueueRow { name, number, auto_delete: false, arguments: Box::default() };
            let keeping = records.put(Row::Queue(row), move || vhost.begin_to_keep(&kept));
            if let Err(why) = keeping.kept().await {
                self.leave_group(&queue, member);
                return Err(why);
            }
        }
        drop(turn);
        let Ok(written) = queue.note_member(member) else {
            self.leave_group(&queue, member);
            return Err(Refused::Full(archive.why()));
        };
        archive.safe(written).await.map_err(|why| {
            self.leave_group(&queue, member);
            Refused::Away(format!("{}: the subscription could not be written down: {why}", self.house.name))
        })
    }

    /// It is in the register.
    fn begin_to_keep(&self, queue: &Arc<Queue>) {
        self.change(|topology| {
            let is_it = |current: &Arc<Queue>| Arc::ptr_eq(current, queue);
            if queue.group().and_then(|(group, filter)| topology.group(group, filter)).is_some_and(is_it) {
                queue.keep();
            } else {
                topology.forget_kept(Gone::Queue(Arc::clone(&queue.name)));
            }
        });
    }

    /// One that an earlier process has kept.
    pub(crate) fn restore_group(self: &Arc<Self>, name: Arc<str>, number: u64) -> Result<(), Refused> {
        let Some((group, filter)) = name.strip_prefix(GROUP).and_then(|rest| rest.split_once('/')) else {
            return Err(Refused::Precondition(
                "it has the number of a shared subscription and no such name".into(),
            ));
        };
        if let Some(archive) = &self.house.archive {
            archive.note_group_number(number);
        }
        let traits = QueueTraits {
            durable: true,
            number: Some(number),
            group: Some((group.into(), filter.into())),
            ..QueueTraits::default()
        };
        let queue = Queue::new(Arc::clone(&name), self, traits, &QueueArguments::default(), self.house.now());
        self.change(|topology| topology.add_group(group, filter, &queue));
        Ok(())
    }

    /// Lets go of shared subscriptions that no session is a member of any more: the process ended before that was written
    /// down.
    pub(crate) fn tidy_groups(&self) {
        let groups: Vec<_> = self.look().groups().cloned().collect();
        for queue in groups {
            for member in queue.members() {
                debug_assert!(member.starts_with(INBOX), "{member} is no session");
                if self.look().inbox(&member).is_none() {
                    queue.forget_member(&member);
                }
            }
            self.leave(&queue);
        }
    }

    /// A session is no member of a shared subscription any more.
    pub(crate) fn leave_group(&self, queue: &Arc<Queue>, member: &str) {
        queue.forget_member(member);
        self.leave(queue);
    }

    /// A session is over.
    pub(crate) fn leave_groups(&self, member: &str) {
        let is_member = |queue: &&Arc<Queue>| queue.has_member(member);
        let groups: Vec<_> = self.look().groups().filter(is_member).cloned().collect();
        groups.iter().for_each(|queue| self.leave_group(queue, member));
    }
}

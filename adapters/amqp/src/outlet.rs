//! The publishing side of a lane.

use std::sync::Arc;
use std::task::{Context, Poll};

use linkspan_contract::{
    Batch, Destination, Flags, LaneEvents, Lost, Message, Outcome, Published, ReceiptSink, Refused, Seq,
    TargetId,
};
use slab::Slab;
use smallvec::SmallVec;

use crate::connection::Scope;
use crate::consumers::{Command, Consumers};
use crate::goal::Goal;
use crate::origin::Origin;
use crate::publisher::coordinator::{self, Plan};
use crate::publisher::{Parcel, Publisher};
use crate::retained::Safe;
use crate::translate::channel_error;

/// A lane's targets, and the channel that it publishes on: one that others share, until it publishes to an exchange that
/// may be missing.
pub(crate) struct Outlet {
    scope: Arc<Scope>,
    origin: Arc<Origin>,
    targets: Slab<Result<Arc<Goal>, Refused>>,
    own: Option<Publisher>,
    next: Seq,
    /// The edition of what routes say of their queues that the targets know.
    edition: u64,
}

impl Outlet {
    pub(crate) fn new(
        scope: Arc<Scope>,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Self {
        let origin = Arc::new(Origin::new(receipts, events, scope.fleet.options.lane_bytes));
        scope.publishing.listen(&origin);
        let edition = scope.fleet.work_queues.edition();
        Self { scope, origin, targets: Slab::new(), own: None, next: 0, edition }
    }

    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    pub(crate) fn target(&mut self, to: &Destination<'_>) -> TargetId {
        let fleet = &self.scope.fleet;
        let goal =
            Goal::new(to, &fleet.options.topic_exchange).map(|it| Arc::new(it.under(&fleet.work_queues)));
        TargetId(u32::try_from(self.targets.insert(goal)).unwrap_or(u32::MAX))
    }

    /// Has the targets know what routes say of their queues now.
    fn follow_routes(&mut self) {
        let work_queues = &self.scope.fleet.work_queues;
        let edition = work_queues.edition();
        if self.edition == edition {
            return;
        }
        self.edition = edition;
        for goal in self.targets.iter_mut().filter_map(|(_, goal)| goal.as_mut().ok()) {
            *goal = Arc::new(Goal::clone(goal).under(work_queues));
        }
    }

    pub(crate) fn forget(&mut self, targets: &[TargetId]) {
        for target in targets {
            self.targets.try_remove(target.0 as usize);
        }
        if self.targets.is_empty() {
            self.targets = Slab::new();
        }
    }

    /// Waits until all that was published has arrived.
    pub(crate) async fn arrived(&mut self) {
        self.origin.gauge.emptied().await;
    }

    /// Takes the messages of one read.
    pub(crate) fn publish(&mut self, batch: &Batch<'_>, transaction: Option<&Consumers>) -> Published {
        let first = self.next;
        let taken = u32::try_from(batch.messages.len()).unwrap_or(u32::MAX);
        let mut published = Published { taken, first, ..Published::default() };
        if self.origin.over().is_some() {
            let why = self.lost().to_string();
            published.taken = 0;
            published.exceptions.push((0, Outcome::Refused(Refused::Precondition(why))));
            return published;
        }
        self.follow_routes();
        let mut start = 0;
        while let Some(head) = batch.messages.get(start) {
            let rest = batch.messages.get(start..).unwrap_or_default();
            let known = self.goal(head).is_ok();
            let run = rest.iter().take_while(|it| self.goal(it).is_ok() == known).count();
            let messages = rest.get(..run).unwrap_or_default();
            let wanting = messages.iter().filter(|it| it.flags.has(Flags::RECEIPT)).count();
            if known {
                published.congested |= self.send(batch, start, messages, transaction);
            } else {
                self.refuse(batch, messages);
            }
            self.next = self.next.saturating_add(wanting as u64);
            start += run;
        }
        published.wanting = u32::try_from(self.next.saturating_sub(first)).unwrap_or(u32::MAX);
        published.congested |= self.scope.publishing.blocked().is_some();
        published
    }

    fn goal(&self, message: &Message) -> Result<&Arc<Goal>, Refused> {
        match self.targets.get(message.target.0 as usize) {
            Some(Ok(goal)) => Ok(goal),
            Some(Err(why)) => Err(why.clone()),
            None => Err(Refused::Precondition("unknown target".into())),
        }
    }

    /// Sends a run of messages whose goals are known; true when they are too many.
    fn send(
        &mut self,
        batch: &Batch<'_>,
        start: usize,
        messages: &[Message],
        transaction: Option<&Consumers>,
    ) -> bool {
        let mut goals: SmallVec<[(u32, Arc<Goal>); 1]> = SmallVec::new();
        let mut last = None;
        for message in messages {
            match goals.last_mut() {
                Some((count, _)) if last == Some(message.target) => *count += 1,
                _ => goals.extend(self.goal(message).ok().map(|goal| (1, Arc::clone(goal)))),
            }
            last = Some(message.target);
        }
        let bound = self.own.is_none()
            && transaction.is_none()
            && goals.iter().any(|(_, goal)| goal.is_exchange || goal.remembers());
        if bound {
            self.part();
        }
        let (from, len) = (u32::try_from(start).unwrap_or(u32::MAX), messages.len());
        let end = from.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        let parcel = Parcel {
            origin: Arc::clone(&self.origin),
            batch: batch.keep(from..end),
            goals,
            first: self.next,
            from: self.scope.from(),
            safe: self.retain(batch, messages),
        };
        match (transaction, &self.own) {
            (Some(transaction), _) => {
                let closed = self.origin.gauge.add(len as u64, parcel.size());
                transaction.tell(Command::Publish(parcel));
                closed
            }
            (None, Some(own)) => own.publish(parcel),
            (None, None) => self.scope.publisher.publish(parcel),
        }
    }

    /// Has those written down that addresses retain.
    fn retain(&self, batch: &Batch<'_>, messages: &[Message]) -> SmallVec<[(u32, Safe); 0]> {
        let Some(retained) = self.scope.fleet.retained.as_ref().filter(|_| batch.any.has(Flags::RETAIN))
        else {
            return SmallVec::new();
        };
        let is_kept = |message: &Message| {
            message.flags.has(Flags::RETAIN) && self.goal(message).is_ok_and(|goal| goal.retains())
        };
        (0..)
            .zip(messages)
            .filter(|(_, message)| is_kept(message))
            .map(|(at, message)| (at, retained.note(&self.scope.client.vhost, batch, message)))
            .collect()
    }

    /// From now on the lane has a channel of its own; what it has under way on the shared one comes first.
    fn part(&mut self) {
        let beside = Arc::new(self.origin.beside());
        self.scope.publishing.listen(&beside);
        let before = std::mem::replace(&mut self.origin, beside);
        let Scope { fleet, publishing, .. } = &*self.scope;
        let plan = Plan {
            upstream: Arc::clone(publishing),
            declaring: fleet.consuming.clone(),
            options: Arc::clone(&fleet.options),
            clock: Arc::clone(&fleet.clock),
            only: Some(Arc::clone(&self.origin)),
        };
        let own = coordinator::start(plan, fleet.options.shared_bytes);
        own.after(&before);
        self.own = Some(own);
    }

    /// Nothing of the run goes anywhere.
    fn refuse(&self, batch: &Batch<'_>, messages: &[Message]) {
        let mut seq = self.next;
        for message in messages {
            let Err(why) = self.goal(message) else { continue };
            if message.flags.has(Flags::RECEIPT) {
                let outcome = Outcome::Refused(why);
                self.origin.note(seq, outcome);
                seq += 1;
            } else {
                metrics::counter!("linkspan_messages_dropped_total", "reason" => "refused").increment(1);
                if let Some((code, text)) = channel_error(batch, &why) {
                    self.origin.close(code, &text);
                }
            }
        }
        self.origin.flush();
    }

    pub(crate) fn poll_ready(&self, cx: &Context<'_>) -> Poll<Result<(), Lost>> {
        if self.origin.over().is_some() {
            return Poll::Ready(Err(self.lost()));
        }
        let shared = self.own.as_ref().unwrap_or(&self.scope.publisher);
        let own = self.origin.gauge.poll_open(cx);
        let all = shared.gauge.poll_open(cx);
        if self.scope.publishing.blocked().is_some() {
            self.origin.gauge.wait(cx);
            if self.scope.publishing.blocked().is_some() {
                return Poll::Pending;
            }
        }
        match (own, all) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    fn lost(&self) -> Lost {
        let why = self.origin.over().map_or_else(String::new, |(_, text)| text.to_string());
        Lost { backend: self.scope.fleet.name.to_string(), why }
    }
}

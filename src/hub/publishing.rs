//! Publishing on a hub's lane: destinations are planned, batches passed on whole or taken apart by back end.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use linkspan_contract::{Batch, Flags, Message, Outcome, Published, Receipt, Refused, TargetId};

use super::lane::HubLane;
use super::plan::Wanted;
use super::ways::beyond_transaction;

thread_local! {
    static SCRATCH: RefCell<Vec<Message>> = const { RefCell::new(Vec::new()) };
}

/// The result of a future that is ready at once.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    // How much the task has done in this turn must not decide whether a message is taken.
    match pin!(tokio::task::unconstrained(future)).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

impl HubLane {
    /// Notices that routes were changed: plans are made again on next use.
    pub(super) fn follow_routes(&mut self) {
        let epoch = self.scope.hub.epoch();
        if self.epoch != epoch {
            self.epoch = epoch;
            self.part_ways();
        }
    }

    /// Where a destination leads by the routes in force.
    pub(super) fn course(&mut self, wanted: &Wanted) -> (bool, Result<(u16, TargetId), Refused>) {
        let routes = self.scope.hub.routes();
        let Some(table) = routes.vhost(&self.scope.client.vhost) else {
            return (false, Err(Refused::AccessRefused("the vhost is gone".into())));
        };
        let course = match wanted.course(table) {
            Ok(course) => course,
            Err(refused) => return (false, Err(refused)),
        };
        let vhost = &self.scope.client.vhost;
        let mut queues = course.queues.iter().map(|queue| &**queue).chain(wanted.queue());
        if queues.any(|queue| self.scope.hub.is_unmade(vhost, queue)) {
            return (false, Err(Refused::Away(course.backend.to_string())));
        }
        let part = match at_once(self.reach(&course.backend)) {
            Some(Ok(part)) => part,
            Some(Err(refused)) => return (false, Err(refused)),
            None => return (false, Err(Refused::Away(course.backend.to_string()))),
        };
        let target = match self.part(part) {
            Ok(lane) => wanted.with_queues(&course.queues, |to| lane.target(to)),
            Err(refused) => return (false, Err(refused)),
        };
        (course.retains && !self.scope.hub.retains(&course.backend), Ok((part, target)))
    }

    /// The course of a target that was given out; planned again when routes have changed.
    pub(super) fn current(&mut self, target: TargetId) -> Result<(u16, TargetId), Refused> {
        let at = target.0 as usize;
        match self.plans.get(at) {
            None => return Err(Refused::Precondition("unknown target".into())),
            Some(plan) if plan.epoch == self.epoch && !plan.may_change() => return plan.course.clone(),
            Some(_) => {}
        }
        let Some(wanted) = self.plans.get(at).map(|plan| plan.wanted.clone()) else {
            return Err(Refused::Precondition("unknown target".into()));
        };
        let (retains, course) = self.course(&wanted);
        let epoch = self.epoch;
        let Some(plan) = self.plans.get_mut(at) else { return course };
        let before = std::mem::replace(&mut plan.course, course.clone());
        plan.retains = retains;
        plan.epoch = epoch;
        if let Ok((part, target)) = before
            && let Ok(lane) = self.part(part)
        {
            lane.forget(&[target]);
        }
        course
    }

    /// Keeps what is to be retained, where the route lets it.
    pub(super) fn retain(&mut self, batch: &Batch<'_>) {
        for (at, message) in (0u32..).zip(batch.messages) {
            if !message.flags.has(Flags::RETAIN) {
                continue;
            }
            let planned = self.current(message.target);
            let retains = self.plans.get(message.target.0 as usize).is_some_and(|plan| plan.retains);
            if planned.is_ok()
                && retains
                && let Some(retained) = &self.retained
            {
                retained.store(batch, at, message);
            }
        }
    }

    /// Takes a batch apart: each run of messages that go to one back end is a batch there.
    pub(super) fn publish_by_part(&mut self, batch: &Batch<'_>) -> Published {
        let mut scratch = SCRATCH.take();
        let published = self.publish_runs(batch, &mut scratch);
        SCRATCH.set(scratch);
        published
    }

    fn publish_runs(&mut self, batch: &Batch<'_>, scratch: &mut Vec<Message>) -> Published {
        let mut all = Published { first: self.next, ..Published::default() };
        let len = u32::try_from(batch.messages.len()).unwrap_or(u32::MAX);
        let mut begin = 0;
        while begin < len {
            let part = match self.gather(batch, begin, scratch) {
                Ok(part) => part,
                Err(refused) => {
                    self.refuse(batch, begin, refused, &mut all);
                    begin += 1;
                    continue;
                }
            };
            if self.transacts
                && let Some(beyond) = self.parts.get(usize::from(part)).filter(|_| part > 0)
            {
                let refused = beyond_transaction(&beyond.backend);
                all.exceptions.push((begin, Outcome::Refused(refused)));
                break;
            }
            let run = Batch { messages: scratch, ..*batch };
            let run_len = u32::try_from(scratch.len()).unwrap_or(u32::MAX);
            let count = count_receipts(scratch);
            let next = self.next;
            let Some(part) = self.parts.get_mut(usize::from(part)) else { break };
            part.numbers.note(part.next, next, count);
            let published = part.lane.publish(&run);
            part.numbers.known(part.next, published.wanting, published.done);
            part.next = part.next.saturating_add(published.wanting.into());
            let taken = published.taken;
            self.merge(&mut all, published, begin, &run);
            if taken < run_len {
                break;
            }
            begin += run_len;
        }
        all
    }

    /// Fills `scratch` with the messages from `begin` on that go to one back end, and says which.
    fn gather(&mut self, batch: &Batch<'_>, begin: u32, scratch: &mut Vec<Message>) -> Result<u16, Refused> {
        scratch.clear();
        let mut of = None;
        for message in batch.messages.get(begin as usize..).unwrap_or_default() {
            match self.current(message.target) {
                Ok((part, target)) if of.is_none_or(|of| of == part) => {
                    of = Some(part);
                    scratch.push(Message { target, ..*message });
                }
                Err(refused) if of.is_none() => return Err(refused),
                _ => break,
            }
        }
        of.ok_or_else(|| Refused::Precondition("nothing to publish".into()))
    }

    fn refuse(&mut self, batch: &Batch<'_>, at: u32, refused: Refused, all: &mut Published) {
        let flags = batch.message(at).map_or(Flags::NONE, |message| message.flags);
        all.taken += 1;
        if !flags.any(Flags::RECEIPT | Flags::MANDATORY) {
            metrics::counter!("linkspan_messages_dropped_total", "reason" => "refused").increment(1);
            return;
        }
        let outcome = if refused.may_retry() { Outcome::Failed(refused) } else { Outcome::Refused(refused) };
        if flags.has(Flags::RECEIPT) {
            if all.done == all.wanting {
                all.done += 1;
            } else {
                self.late.push(Receipt { first: self.next, count: 1, outcome: outcome.clone() });
            }
            all.wanting += 1;
            self.next += 1;
        }
        all.exceptions.push((at, outcome));
    }

    /// Adds what one back end answered for the messages from `begin` on.
    fn merge(&mut self, all: &mut Published, mut one: Published, begin: u32, run: &Batch<'_>) {
        all.taken += one.taken;
        all.congested |= one.congested;
        if all.done == all.wanting {
            all.done += one.done;
        } else {
            let wanting = (0u32..).zip(run.messages).filter(|(_, message)| message.flags.has(Flags::RECEIPT));
            for (first, (at, _)) in (self.next..).zip(wanting.take(one.done as usize)) {
                let exception = one.exceptions.iter().find(|(exception, _)| *exception == at);
                let outcome = exception.map_or(Outcome::Accepted, |(_, outcome)| outcome.clone());
                self.late.push(Receipt { first, count: 1, outcome });
            }
        }
        all.wanting += one.wanting;
        self.next = self.next.saturating_add(one.wanting.into());
        all.exceptions.extend(one.exceptions.drain(..).map(|(at, outcome)| (begin + at, outcome)));
    }
}

fn count_receipts(messages: &[Message]) -> u32 {
    let count = messages.iter().filter(|message| message.flags.has(Flags::RECEIPT)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

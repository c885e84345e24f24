//! Publishing on a hub's lane: destinations are planned, batches passed on whole or taken apart by back end.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use linkspan_contract::{Batch, Flags, Message, Outcome, Published, Receipt, Refused, TargetId};

use super::exclusive::Place;
use super::lane::HubLane;
use super::plan::{Course, Plan, Wanted};
use super::spooling::{Lead, Led};
use super::ways::beyond_transaction;

thread_local! {
    static SCRATCH: RefCell<Vec<Message>> = const { RefCell::new(Vec::new()) };
}

/// The result of a future that is ready at once.
pub(super) fn at_once<F: Future>(future: F) -> Option<F::Output> {
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
    pub(super) fn plan(&mut self, wanted: Wanted) -> Plan {
        let routes = self.scope.hub.routes();
        let course = match routes.vhost(&self.scope.client.vhost) {
            Some(table) => wanted.course(table),
            None => Err(Refused::AccessRefused("the vhost is gone".into())),
        };
        let epoch = self.epoch;
        let course = match course {
            Ok(course) => course,
            Err(refused) => {
                let course = Err(refused);
                return Plan { wanted, epoch, retains: false, course, spool: None, fences: Box::default() };
            }
        };
        let retains = course.retains && !self.scope.hub.retains(&course.backend);
        let spool = self.spool_of(&wanted, &course);
        let table = routes.vhost(&self.scope.client.vhost);
        let place = |queue: &Arc<str>| {
            let owner = table.and_then(|table| table.owner(queue))?;
            let (backend, vhost) = (Arc::clone(&owner.backend), Arc::clone(&owner.vhost));
            Some(Place { backend, vhost, queue: Arc::clone(queue) })
        };
        let fences: Box<[Place]> = course.fences.iter().filter_map(place).collect();
        self.is_fenced |= !fences.is_empty();
        let course = self.lead(&wanted, &course);
        Plan { wanted, epoch, retains, course, spool, fences }
    }

    /// The way there, and its number on it.
    fn lead(&mut self, wanted: &Wanted, course: &Course) -> Result<(u16, TargetId), Refused> {
        let vhost = &self.scope.client.vhost;
        let mut queues = course.queues.iter().map(|queue| &**queue).chain(wanted.queue());
        if queues.any(|queue| self.scope.hub.is_unmade(vhost, queue)) {
            return Err(Refused::Away(course.backend.to_string()));
        }
        let part = match at_once(self.reach(&course.backend)) {
            Some(part) => part?,
            None => return Err(Refused::Away(course.backend.to_string())),
        };
        let lane = self.part(part)?;
        Ok((part, wanted.with_queues(&course.queues, |to| lane.target(to))))
    }

    /// The course of a target that was given out, and its spool; planned again when routes have changed.
    pub(super) fn current(&mut self, target: TargetId) -> Led {
        let unknown = || (None, Err(Refused::Precondition("unknown target".into())));
        let at = target.0 as usize;
        let wanted = match self.plans.get(at) {
            None => return unknown(),
            Some(plan) if plan.epoch == self.epoch && !plan.may_change() => {
                return (plan.spool, plan.course.clone());
            }
            // What goes into a spool needs no way there.
            Some(plan) if plan.epoch == self.epoch && self.is_diverted(plan.spool) => {
                return (plan.spool, plan.course.clone());
            }
            Some(plan) => plan.wanted.clone(),
        };
        let plan = self.plan(wanted);
        let led = (plan.spool, plan.course.clone());
        let Some(known) = self.plans.get_mut(at) else { return unknown() };
        let before = std::mem::replace(known, plan);
        if let Ok((part, target)) = before.course
            && let Ok(lane) = self.part(part)
        {
            lane.forget(&[target]);
        }
        led
    }

    /// Keeps what is to be retained, where the route lets it.
    pub(super) fn retain(&mut self, batch: &Batch<'_>) {
        for (at, message) in (0u32..).zip(batch.messages) {
            if !message.flags.has(Flags::RETAIN) {
                continue;
            }
            let (spool, course) = self.current(message.target);
            let retains = self.plans.get(message.target.0 as usize).is_some_and(|plan| plan.retains)
                && self.admit(batch, message).is_ok();
            if (course.is_ok() || spool.is_some())
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
            let lead = match self.gather(batch, begin, scratch) {
                Ok(lead) => lead,
                Err(refused) => {
                    self.refuse(batch, begin, refused, &mut all);
                    begin += 1;
                    continue;
                }
            };
            let run_len = u32::try_from(scratch.len()).unwrap_or(u32::MAX);
            let taken = match lead {
                Lead::Straight(part, spool) => {
                    if self.transacts
                        && let Some(beyond) = self.parts.get(usize::from(part)).filter(|_| part > 0)
                    {
                        let refused = beyond_transaction(&beyond.backend);
                        all.exceptions.push((begin, Outcome::Refused(refused)));
                        break;
                    }
                    let run = Batch { messages: scratch, ..*batch };
                    let taken = self.publish_run(part, &run, begin, &mut all);
                    self.went_straight(part, spool);
                    taken
                }
                Lead::Spool(spool) => match self.publish_into(spool, batch, scratch, begin, &mut all) {
                    Ok(Some(taken)) => taken,
                    // It has ended to divert: the way is straight now.
                    Ok(None) => continue,
                    Err(refused) => {
                        self.refuse(batch, begin, refused, &mut all);
                        begin += 1;
                        continue;
                    }
                },
                Lead::Nowhere => {
                    all.taken += run_len;
                    metrics::counter!("linkspan_messages_dropped_total", "reason" => "away")
                        .increment(run_len.into());
                    run_len
                }
            };
            if taken < run_len {
                break;
            }
            begin += run_len;
        }
        all
    }

    /// Publishes a run of messages on a part; tells how many were taken.
    pub(super) fn publish_run(&mut self, part: u16, run: &Batch<'_>, begin: u32, all: &mut Published) -> u32 {
        let count = count_receipts(run.messages);
        let next = self.next;
        let Some(part) = self.parts.get_mut(usize::from(part)) else { return 0 };
        part.numbers.note(part.next, next, count);
        let published = part.lane.publish(run);
        part.numbers.known(part.next, published.wanting, published.done);
        part.next = part.next.saturating_add(published.wanting.into());
        let taken = published.taken;
        self.merge(all, published, begin, run);
        taken
    }

    /// Fills `scratch` with the messages from `begin` on that go one way, and says which.
    fn gather(&mut self, batch: &Batch<'_>, begin: u32, scratch: &mut Vec<Message>) -> Result<Lead, Refused> {
        scratch.clear();
        let mut way = None;
        for message in batch.messages.get(begin as usize..).unwrap_or_default() {
            let led = self.current(message.target);
            match self.admit(batch, message).and_then(|()| self.lead_of(batch, message, led)) {
                Ok((lead, target)) if way.is_none_or(|way| way == lead) => {
                    way = Some(lead);
                    scratch.push(Message { target, ..*message });
                }
                Err(refused) if way.is_none() => return Err(refused),
                _ => break,
            }
        }
        way.ok_or_else(|| Refused::Precondition("nothing to publish".into()))
    }

    fn refuse(&mut self, batch: &Batch<'_>, at: u32, refused: Refused, all: &mut Published) {
        let flags = batch.message(at).map_or(Flags::NONE, |message| message.flags);
        all.taken += 1;
        // Who is the holder no more has to hear of it, whether it asked for receipts or not.
        let is_fenced = matches!(refused, Refused::Fenced(_));
        metrics::counter!("linkspan_publishes_fenced_total").increment(is_fenced.into());
        let is_heard = is_fenced || flags.any(Flags::RECEIPT | Flags::MANDATORY);
        if !is_heard {
            metrics::counter!("linkspan_messages_dropped_total", "reason" => "refused").increment(1);
            return;
        }
        let outcome = if refused.may_retry() { Outcome::Failed(refused) } else { Outcome::Refused(refused) };
        if flags.has(Flags::RECEIPT) {
            if all.done == all.wanting {
                all.done += 1;
            } else {
                self.late.get_or_insert_default().push(Receipt {
                    first: self.next,
                    count: 1,
                    outcome: outcome.clone(),
                });
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
                self.late.get_or_insert_default().push(Receipt { first, count: 1, outcome });
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

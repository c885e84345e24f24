//! The publishing side of a lane: finds out who gets what, once per run of messages with one target.

mod turns;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use linkspan_contract::{
    Batch, Delivered, Destination, Flags, Millis, Outcome, Pick, Published, Refused, Seq, TargetId,
};
use linkspan_queues::log::Lsn;
use slab::Slab;
use smallvec::SmallVec;

use self::turns::route_one;
use crate::again::Again;
use crate::brake::Brakes;
use crate::inward::Inward;
use crate::keeper::Keeper;
use crate::outlet::Touched;
use crate::plan::{Goal, Plan, Way};
use crate::retained::{self, Bodies, Note};
use crate::scratch::{NO_LIST, Scratch};
use crate::slots::{FOUND, Slots};
use crate::subscription::Subscription;
use crate::vhost::Vhost;

/// A lane's targets, and the sessions and queues that they lead to.
pub(crate) struct Publisher {
    vhost: Arc<Vhost>,
    /// The number of the client that publishes.
    client: u64,
    targets: Slab<Target>,
    slots: Slots,
    /// The topology's epoch that the slots are good for.
    epoch: u64,
    next: Seq,
    /// Where what the last publish wrote ends in the log; 0 when it wrote nothing that its publisher waits for.
    pub(crate) written: Lsn,
}

struct Target {
    plan: Plan,
    goal: Box<Goal>,
}

impl Publisher {
    pub(crate) fn new(vhost: Arc<Vhost>, client: u64) -> Self {
        Self { vhost, client, targets: Slab::new(), slots: Slots::default(), epoch: 0, next: 0, written: 0 }
    }

    pub(crate) fn target(&mut self, to: &Destination<'_>) -> TargetId {
        let place = self.targets.insert(Target { plan: Plan::default(), goal: Box::new(Goal::new(to)) });
        TargetId(u32::try_from(place).unwrap_or(u32::MAX))
    }

    pub(crate) fn forget(&mut self, targets: &[TargetId]) {
        for target in targets {
            self.targets.try_remove(target.0 as usize);
        }
        if self.targets.is_empty() {
            self.targets = Slab::new();
            self.slots = Slots::default();
        }
    }

    pub(crate) fn client(&self) -> u64 {
        self.client
    }

    /// What a target stands for.
    pub(crate) fn goal(&self, target: TargetId) -> Result<&Goal, Refused> {
        self.targets.get(target.0 as usize).map(|target| &*target.goal).ok_or_else(|| unknown(target))
    }

    /// What is wrong with a target, when nothing may be published to it.
    pub(crate) fn refusal(&mut self, target: TargetId) -> Option<Refused> {
        self.begin();
        self.renew(target);
        match self.targets.get(target.0 as usize).map(|target| &target.plan.way) {
            Some(Way::Closed(why)) => Some((**why).clone()),
            Some(_) => None,
            None => Some(unknown(target)),
        }
    }

    /// Takes the messages of one read.
    pub(crate) fn publish(
        &mut self,
        batch: &Batch<'_>,
        touched: &mut Touched,
        brakes: &mut Brakes,
        now: Millis,
    ) -> Published {
        let mut published = Published { first: self.next, ..Published::default() };
        Scratch::with(|scratch| {
            let mut again = Again::default();
            published.taken = self.pick(batch, scratch, &mut published, &mut again, now);
            let mut inward = Inward {
                client: self.client,
                now,
                touched,
                brakes,
                published: &mut published,
                written: 0,
                unwritten: false,
            };
            self.deliver(batch, scratch, &mut inward);
            self.written = inward.written;
            let mut unwritten = inward.unwritten;
            if again.count > 0 {
                let archive = self.vhost.house.archive.as_deref();
                self.written = self.written.max(again.tell(batch, archive, &mut published));
            }
            drop(again);
            if batch.any.has(Flags::RETAIN) {
                unwritten |= !self.retain(batch, published.taken, now);
            }
            // Also who publishes what is not durable: it may have been paged out.
            if let Some(archive) = &self.vhost.house.archive
                && archive.is_congested()
            {
                brakes.archive(archive);
            }
            if unwritten && let Some(archive) = &self.vhost.house.archive {
                unwritable(batch, &archive.why(), &mut published);
            }
            published.congested = !brakes.is_empty();
        });
        if published.exceptions.len() > 1 {
            published.exceptions.sort_by_key(|(place, _)| *place);
            published.exceptions.dedup_by_key(|(place, _)| *place);
        }
        if batch.any.any(Flags::RECEIPT) {
            let taken = batch.messages.get(..published.taken as usize).unwrap_or_default();
            let wanting = taken.iter().filter(|message| message.flags.any(Flags::RECEIPT)).count();
            published.wanting = u32::try_from(wanting).unwrap_or(u32::MAX);
            published.done = published.wanting;
            self.next = self.next.saturating_add(u64::from(published.wanting));
        }
        published
    }

    /// Writes down what addresses retain from now on; false when the log does not take it.
    #[cold]
    fn retain(&mut self, batch: &Batch<'_>, taken: u32, now: Millis) -> bool {
        let Some(archive) = &self.vhost.house.archive else { return true };
        let mut note = Note::default();
        let mut bodies = archive.retained_bodies();
        self.note_retained(batch, taken, now, &bodies, &mut note);
        if note.commit.is_empty() {
            return true;
        }
        let written = archive.write(&mut note.commit);
        if written.is_ok() {
            note.enter(&mut bodies);
        }
        if let Ok(written) = written
            && batch.any.has(Flags::DURABLE)
        {
            self.written = self.written.max(written);
        }
        written.is_ok()
    }

    /// Takes none of a batch of one message, now.
    #[cold]
    pub(crate) fn refuse(&mut self, batch: &Batch<'_>, why: Refused) -> Published {
        let wanting = u32::from(batch.any.has(Flags::RECEIPT));
        let first = self.next;
        self.next = self.next.saturating_add(wanting.into());
        let exceptions = (0..wanting).map(|place| (place, Outcome::Failed(why.clone()))).collect();
        Published { taken: 1, first, wanting, done: wanting, exceptions, congested: false }
    }

    /// Adds to a note what addresses retain from now on.
    pub(crate) fn note_retained(
        &self,
        batch: &Batch<'_>,
        taken: u32,
        now: Millis,
        bodies: &Bodies,
        note: &mut Note,
    ) {
        let Some(archive) = &self.vhost.house.archive else { return };
        let messages = batch.messages.get(..taken as usize).unwrap_or_default();
        for (at, message) in (0..).zip(messages).filter(|(_, message)| message.flags.has(Flags::RETAIN)) {
            let retains =
                self.targets.get(message.target.0 as usize).is_some_and(|target| target.goal.retains());
            if retains {
                retained::note(batch, at, &self.vhost.name, now, archive, bodies, note);
            }
        }
    }

    /// The number of the next message that wants a receipt.
    pub(crate) const fn next(&self) -> Seq {
        self.next
    }

    /// A message that wants a receipt was published in another way; its number.
    pub(crate) fn count_one(&mut self) -> Seq {
        let number = self.next;
        self.next = number.saturating_add(1);
        number
    }

    /// Goes through the batch run by run; tells how many messages could be dealt with.
    fn pick(
        &mut self,
        batch: &Batch<'_>,
        scratch: &mut Scratch,
        published: &mut Published,
        again: &mut Again,
        now: Millis,
    ) -> u32 {
        self.begin();
        let deduplicates = self.vhost.house.deduplicates();
        let mut own = None;
        let splits = Flags(batch.any.0 & Flags::DURABLE.0);
        let mut rest = batch.messages;
        let mut start = 0_u32;
        while let Some(first) = rest.first() {
            let (target, durable) = (first.target, first.flags.0 & splits.0);
            let run = rest
                .iter()
                .position(|message| message.target != target || message.flags.0 & splits.0 != durable)
                .unwrap_or(rest.len());
            let end = start.saturating_add(u32::try_from(run).unwrap_or(u32::MAX));
            if self.targets.get(target.0 as usize).is_some_and(|target| target.plan.epoch != self.epoch) {
                self.renew(target);
            }
            let Some(Target { goal, plan }) = self.targets.get(target.0 as usize) else {
                published.exceptions.push((start, Outcome::Refused(unknown(target))));
                return start;
            };
            match &plan.way {
                Way::Common if plan.repeats.is_empty() => {
                    let found = self.slots.append(plan, target, start..end, first.flags, scratch);
                    if !found {
                        unroutable(batch, start..end, published);
                    }
                }
                // What was picked so far waits for nobody's turn: a batch that needs none pays nothing for it.
                Way::Common | Way::Own if deduplicates && own.is_none() => {
                    own = Some(self.take_turns(batch, start, again));
                    continue;
                }
                Way::Common => {
                    for place in start..end {
                        let repeats = plan.repeats.iter().map(|(slot, repeats)| (*slot, repeats));
                        let Some(known) = again.look(repeats, batch, place, now, scratch) else { continue };
                        let (slots, at) = (&mut self.slots, place..place + 1);
                        if !slots.append_beside(&known, plan, target, at, first.flags, scratch) {
                            unroutable(batch, place..place + 1, published);
                        }
                    }
                }
                Way::Own => {
                    for place in start..end {
                        let looked_up = own.as_mut().and_then(VecDeque::pop_front);
                        let mut routes =
                            looked_up.unwrap_or_else(|| route_one(&self.vhost, goal, batch, place));
                        if deduplicates {
                            let repeats: Vec<_> = (0..)
                                .zip(&routes.queues)
                                .filter_map(|(at, queue)| Some((at, queue.repeats()?)))
                                .collect();
                            let all = repeats.iter().map(|(at, repeats)| (*at, repeats));
                            let Some(known) = again.look(all, batch, place, now, scratch) else { continue };
                            let mut at = 0..;
                            routes.queues.retain(|_| at.next().is_none_or(|at| !known.contains(&at)));
                        }
                        let flags = first.flags;
                        if !self.slots.append_found(routes, self.client, place, flags, scratch) {
                            unroutable(batch, place..place + 1, published);
                        }
                    }
                }
                Way::Closed(why) => {
                    published.exceptions.push((start, Outcome::Refused((**why).clone())));
                    return start;
                }
            }
            rest = rest.get(run..).unwrap_or_default();
            start = end;
        }
        start
    }

    /// When the topology has changed, sessions and queues are numbered anew: what is gone is let go.
    fn begin(&mut self) {
        let epoch = self.vhost.epoch();
        if self.epoch != epoch {
            self.epoch = epoch;
            self.slots.clear();
        }
    }

    /// Finds a target's way again when the topology has changed since.
    fn renew(&mut self, target: TargetId) {
        let epoch = self.epoch;
        let Some(Target { goal, plan }) = self.targets.get_mut(target.0 as usize) else { return };
        if plan.epoch == epoch {
            return;
        }
        let routes = goal.lend(|to| self.vhost.route(to, None));
        *plan = match routes {
            Err(why) => Plan { epoch, way: Way::Closed(Box::new(why)), ..Plan::default() },
            Ok(routes) if routes.by_message => Plan { epoch, way: Way::Own, ..Plan::default() },
            Ok(routes) => {
                let client = self.client;
                let slots = &mut self.slots;
                let members = routes
                    .subscribers
                    .into_iter()
                    .filter(|subscription| !(subscription.no_local && subscription.session.client == client))
                    .map(|subscription| slots.member(subscription))
                    .collect();
                let queues: SmallVec<_> = routes.queues.iter().map(|queue| slots.queue(queue)).collect();
                let mut repeats = SmallVec::new();
                if self.vhost.house.deduplicates() {
                    let all = queues.iter().zip(&routes.queues);
                    repeats.extend(all.filter_map(|(slot, queue)| Some((*slot, queue.repeats()?))));
                }
                Plan { epoch, members, queues, repeats, way: Way::Common }
            }
        };
    }

    /// Hands to each session and queue what was picked for it.
    fn deliver(&mut self, batch: &Batch<'_>, scratch: &mut Scratch, inward: &mut Inward<'_>) {
        let now = inward.now;
        let mut keeper = Keeper::new(batch);
        let mut places = std::mem::take(&mut scratch.sessions);
        let mut given = std::mem::take(&mut scratch.given);
        for place in places.drain(..) {
            let Some(slot) = self.slots.sessions.get_mut(place as usize) else { continue };
            let picks = scratch.picks.take(slot.list);
            let session = Arc::clone(&slot.outlet.session);
            let said = if slot.unsettled {
                let (targets, found) = (&self.targets, &scratch.found);
                let whose = |pick: &Pick| whose(targets, found, pick);
                session.deliver(&mut keeper, &picks, whose, &mut given, now, inward.touched)
            } else {
                let sink = slot.outlet.sink();
                inward.touched.add(sink);
                sink.deliver(batch, &picks)
            };
            match said {
                Delivered::Taken => {}
                Delivered::Congested => inward.brakes.sink(slot.outlet.sink()),
                Delivered::Closed => dropped_closed(&picks),
            }
            // Who would wait for itself is kept from settling.
            if slot.unsettled
                && session.client != inward.client
                && let Some(until) = session.gate.hold(now)
            {
                inward.brakes.session(&session, until);
            }
            let list = slot.list;
            (slot.list, slot.unsettled) = (NO_LIST, false);
            scratch.picks.put_back(list, picks);
        }
        (scratch.sessions, scratch.given) = (places, given);
        let mut places = std::mem::take(&mut scratch.queues);
        for place in places.drain(..) {
            let Some(slot) = self.slots.queues.get_mut(place as usize) else { continue };
            let ranges = scratch.ranges.take(slot.list);
            slot.queue.publish(&mut keeper, &ranges, slot.via, scratch, inward);
            let list = slot.list;
            slot.list = NO_LIST;
            scratch.ranges.put_back(list, ranges);
        }
        scratch.queues = places;
    }
}

/// The subscription that a pick is for: until tags are allotted, `first` says where it stands.
fn whose<'s>(
    targets: &'s Slab<Target>,
    found: &'s [Arc<Subscription>],
    pick: &Pick,
) -> Option<&'s Arc<Subscription>> {
    let (target, place) = (pick.first >> 32, (pick.first & FOUND) as usize);
    if target == FOUND {
        return found.get(place);
    }
    let target = targets.get(usize::try_from(target).ok()?)?;
    target.plan.members.get(place).map(|member| &member.subscription)
}

fn unknown(target: TargetId) -> Refused {
    Refused::Precondition(format!("target {} was never given out by this lane, or was forgotten", target.0))
}

fn unroutable(batch: &Batch<'_>, places: Range<u32>, published: &mut Published) {
    if batch.any.any(Flags::RECEIPT | Flags::MANDATORY) {
        let told = places.filter(|place| {
            batch.message(*place).is_some_and(|message| message.flags.any(Flags::RECEIPT | Flags::MANDATORY))
        });
        published.exceptions.extend(told.map(|place| (place, Outcome::Unroutable)));
    }
}

/// The log has taken nothing of what had to be written down.
fn unwritable(batch: &Batch<'_>, why: &str, published: &mut Published) {
    let waits = Flags::RECEIPT | Flags::DURABLE;
    let taken = batch.messages.get(..published.taken as usize).unwrap_or_default();
    let lost = (0..).zip(taken).filter(|(_, message)| message.flags.has(waits));
    let failed = || Outcome::Failed(Refused::Full(why.to_owned()));
    published.exceptions.extend(lost.map(|(place, _)| (place, failed())));
}

pub(crate) fn dropped_closed(picks: &[Pick]) {
    let settled = picks.iter().filter(|pick| pick.settled);
    let count: u64 = settled.map(|pick| u64::from(pick.at.end - pick.at.start)).sum();
    metrics::counter!("linkspan_messages_dropped_total", "reason" => "connection-closed").increment(count);
}

//! A transaction's commit: all that waited for it takes effect in one step.
//!
//! The locks of all queues and sessions that it comes to are held together. Messages are put into the queues first, then
//! sessions are given theirs, and last the queues give out, where something durable was changed: when that is safe. So who sees one message, in whatever way, finds everything
//! else in its place. Two things are not held back: what is published to a subscriber that settles nothing passes its
//! session by, so that its copies of the commit may lie between others'; and dead letters follow behind the commit, as
//! they always follow what made them.

use std::collections::BTreeMap;
use std::sync::Arc;

use linkspan_contract::{
    Delivered, DeliveryTag, Flags, Kept, Millis, OwnedBatch, Pick, Refused, Settled, Standing, TargetId,
};
use linkspan_queues::ConsumerId;
use linkspan_queues::log::Lsn;
use parking_lot::RwLockReadGuard;

use crate::archive::NotTaken;
use crate::brake::Brakes;
use crate::consumers::Consumers;
use crate::dead_letter::DeadLetters;
use crate::keeper::Keeper;
use crate::outlet::Touched;
use crate::parcel::Parcel;
use crate::plan::is_settled;
use crate::publisher::{Publisher, dropped_closed};
use crate::queue::{self, Queue};
use crate::repeats::{self, Repeats, Turns};
use crate::session::Session;
use crate::subscription::Subscription;
use crate::topology::{Routes, Topology};
use crate::transaction::Transaction;
use crate::vhost::Vhost;

/// What a commit does, by those who see it, by their addresses.
pub(crate) struct Commit<'t> {
    transaction: &'t Transaction,
    client: u64,
    queues: BTreeMap<usize, ForQueue>,
    sessions: BTreeMap<usize, ForSession>,
    /// Mandatory messages that nobody takes.
    returned: Vec<Kept>,
    /// How many messages nobody takes.
    missed: u32,
    /// When it is carried out, where some queue drops what comes again.
    deduplicates: Option<Millis>,
    /// How many come again, and whether one of them is durable.
    again: (u32, bool),
}

struct ForQueue {
    queue: Arc<Queue>,
    messages: Vec<Parcel>,
    /// What identifies those of them that it had not seen, by their places, where that counts.
    fresh: Vec<(usize, Arc<Repeats>, u128)>,
    bytes: u64,
    /// Bytes of bodies.
    bodies: u64,
    settled: Vec<Share>,
}

/// Deliveries of a run that are in one queue.
struct Share {
    run: usize,
    consumer: ConsumerId,
    first: DeliveryTag,
    count: u32,
}

struct ForSession {
    session: Arc<Session>,
    picks: Vec<(Arc<OwnedBatch>, Vec<Pick>)>,
    /// Whose each pick is that the client settles: the pick's `first` says where it stands.
    whose: Vec<Arc<Subscription>>,
}

/// What came of a commit.
pub(crate) struct Committed {
    /// How many deliveries of each run of settlements were there.
    pub(crate) known: Vec<u32>,
    /// Mandatory messages that nobody takes.
    pub(crate) returned: Vec<Kept>,
    /// How many messages nobody takes.
    pub(crate) missed: u32,
    /// Where what was written ends in the log; why the log did not take it, which may find its way there later all the same.
    pub(crate) written: Result<Lsn, Refused>,
}

impl<'t> Commit<'t> {
    /// Finds out what a transaction comes to, and carries it out. `noted` is written with it, and it alone when there is
    /// nothing else; nothing is held back for what goes with a note.
    ///
    /// # Errors
    /// When it cannot be carried out: then nothing was.
    #[allow(clippy::too_many_arguments, reason = "all that a lane has takes part in it")]
    pub(crate) fn carry_out(
        transaction: &'t Transaction,
        noted: linkspan_queues::log::Commit,
        publisher: &Publisher,
        consumers: &Consumers,
        vhost: &Arc<Vhost>,
        now: Millis,
        touched: &mut Touched,
        brakes: &mut Brakes,
    ) -> Result<Committed, Refused> {
        let client = publisher.client();
        let (queues, sessions, returned) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let deduplicates = vhost.house.deduplicates().then_some(now);
        let again = (0, false);
        let mut commit =
            Self { transaction, client, queues, sessions, returned, missed: 0, deduplicates, again };
        let holds = noted.is_empty();
        let (turns, topology) = commit.take_turns(publisher, vhost);
        if let Err(why) = commit.route(publisher, &topology, Self::add) {
            commit.withdraw();
            return Err(why);
        }
        commit.share_out(consumers);
        let mut locked: Vec<queue::Locked<'_>> = commit.queues.values().map(|one| one.queue.lock()).collect();
        // A queue that is locked cannot end before it is let go.
        drop(topology);
        let room = locked.iter_mut().zip(commit.queues.values()).try_for_each(|(queue, share)| {
            let durable = |parcel: &Parcel| parcel.clone().kept().message().flags.has(Flags::DURABLE);
            let any_durable = share.messages.iter().any(durable);
            queue.check_room(share.messages.len() as u64, (share.bytes, share.bodies), any_durable, now)
        });
        let has_to_be_safe = holds && vhost.house.archive.is_some() && commit.is_durable();
        locked.iter_mut().for_each(|queue| queue.begin(has_to_be_safe));
        let known = room.map(|()| commit.change(&mut locked, now));
        // Who is told that it failed may find it later all the same: it is in the queues as a whole, and written as a whole
        // when the disk takes it. What was not taken is not noted, and each queue writes for itself what was to be said anyway.
        let mut written = if known.is_ok() { write(&mut locked, noted, vhost) } else { Ok(0) };
        if known.is_err() {
            commit.withdraw();
        }
        repeats::count(commit.again.0);
        if let (Ok(written), Some(archive), (_, true)) = (&mut written, &vhost.house.archive, commit.again) {
            // What comes again is safe when it is where it came first.
            *written = (*written).max(archive.said());
        }
        drop(turns);
        if known.is_ok() {
            commit.deliver(now, touched, brakes);
        }
        let safe_at = match (&written, &vhost.house.archive) {
            (Ok(lsn @ 1..), Some(archive)) if holds => Some((*lsn, &**archive)),
            _ => None,
        };
        locked.iter_mut().for_each(|queue| queue.end(safe_at));
        locked.iter_mut().for_each(|queue| queue.hand_out(client, now, touched, brakes));
        let said: Vec<_> = locked.into_iter().map(|queue| queue.release(now)).collect();
        let mut dead = DeadLetters::default();
        for (queue, said) in said {
            dead.carry_out(queue, vhost, said);
        }
        dead.bury(vhost, now, touched);
        Ok(Committed { known: known?, returned: commit.returned, missed: commit.missed, written })
    }

    /// True when something of it is to outlive the process.
    fn is_durable(&self) -> bool {
        let durable = |batch: &Arc<OwnedBatch>| batch.batch().any.any(Flags::DURABLE);
        !self.transaction.settled.is_empty() || self.transaction.published.iter().any(durable)
    }

    /// Waits for its turn at each queue that drops what comes again, and looks at the topology in which these are all.
    fn take_turns<'v>(
        &mut self,
        publisher: &Publisher,
        vhost: &'v Vhost,
    ) -> (Turns, RwLockReadGuard<'v, Topology>) {
        loop {
            let (epoch, mut queues) = (vhost.epoch(), Vec::new());
            if self.deduplicates.is_some() {
                // What cannot be routed is told when it is.
                let _ = self.route(publisher, &vhost.look(), |_, _, routes| {
                    queues.extend(routes.queues.iter().filter_map(|queue| queue.repeats()));
                });
            }
            let turns = Turns::take(queues);
            let topology = vhost.look();
            if vhost.epoch() == epoch {
                return (turns, topology);
            }
        }
    }

    /// Finds who gets the messages.
    fn route(
        &mut self,
        publisher: &Publisher,
        topology: &Topology,
        mut each: impl FnMut(&mut Self, &Kept, &Routes),
    ) -> Result<(), Refused> {
        let transaction = self.transaction;
        let mut last: Option<(TargetId, Routes)> = None;
        for batch in &transaction.published {
            for (at, message) in (0..).zip(batch.messages()) {
                let kept = Kept { batch: Arc::clone(batch), at };
                if last.as_ref().is_none_or(|(target, _)| *target != message.target) {
                    let goal = publisher.goal(message.target)?;
                    last = Some((message.target, goal.lend(|to| topology.route(to, None))?));
                }
                match &last {
                    Some((_, routes)) if !routes.by_message => each(self, &kept, routes),
                    _ => {
                        let properties = kept.properties().unwrap_or_default();
                        let goal = publisher.goal(message.target)?;
                        let routes = goal.lend(|to| topology.route(to, Some(&properties)))?;
                        each(self, &kept, &routes);
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, message: &Kept, routes: &Routes) {
        let flags = message.message().flags;
        let mut any = !routes.queues.is_empty();
        let Some(known) = self.look(message, routes) else { return };
        for queue in routes.queues.iter().filter(|queue| !known.contains(&Arc::as_ptr(queue).addr())) {
            let share = self.queue(queue);
            share.add(message.clone().into());
        }
        for subscription in &routes.subscribers {
            if !(subscription.no_local && subscription.session.client == self.client) {
                any = true;
                match subscription.session.inbox().filter(|_| !is_settled(subscription.settle, flags)) {
                    Some(inbox) => {
                        let via = subscription.via();
                        let share = self.queue(inbox);
                        share.add(Parcel { via, ..message.clone().into() });
                    }
                    None => self.session(&subscription.session).add(message, subscription, flags),
                }
            }
        }
        self.missed += u32::from(!any);
        if !any && flags.has(Flags::MANDATORY) {
            self.returned.push(message.clone());
        }
    }

    /// Looks whether queues have seen a message. Yields which of them have, by their addresses; none when all have: then
    /// nobody gets it.
    fn look(&mut self, message: &Kept, routes: &Routes) -> Option<Vec<usize>> {
        let (mut known, mut is_new) = (Vec::new(), false);
        let Some(now) = self.deduplicates else { return Some(known) };
        let batch = message.batch.batch();
        for queue in &routes.queues {
            let Some(repeats) = queue.repeats() else { continue };
            match repeats.id(&batch, &message.message()) {
                // Nothing makes it the same as another one there.
                None => is_new = true,
                Some(id) if repeats.enter(id, now) => {
                    is_new = true;
                    let share = self.queue(queue);
                    share.fresh.push((share.messages.len(), repeats, id));
                }
                Some(_) => known.push(Arc::as_ptr(queue).addr()),
            }
        }
        if is_new || known.is_empty() {
            return Some(known);
        }
        if repeats::has_died(&batch, &message.message()) {
            return Some(Vec::new());
        }
        self.again.0 += 1;
        self.again.1 |= message.message().flags.has(Flags::DURABLE);
        None
    }

    /// Nothing of it was taken.
    fn withdraw(&self) {
        let fresh = self.queues.values().flat_map(|share| &share.fresh);
        fresh.for_each(|(_, repeats, id)| repeats.withdraw(*id));
    }

    /// Finds the queues of the settlements.
    fn share_out(&mut self, consumers: &Consumers) {
        let transaction = self.transaction;
        for (run, settled) in transaction.settled.iter().enumerate() {
            consumers.share_out(settled, |queue, consumer, first, count| {
                self.queue(queue).settled.push(Share { run, consumer, first, count });
            });
        }
    }

    fn queue(&mut self, queue: &Arc<Queue>) -> &mut ForQueue {
        self.queues.entry(Arc::as_ptr(queue).addr()).or_insert_with(|| ForQueue {
            queue: Arc::clone(queue),
            messages: Vec::new(),
            fresh: Vec::new(),
            bytes: 0,
            bodies: 0,
            settled: Vec::new(),
        })
    }

    fn session(&mut self, session: &Arc<Session>) -> &mut ForSession {
        self.sessions.entry(Arc::as_ptr(session).addr()).or_insert_with(|| ForSession {
            session: Arc::clone(session),
            picks: Vec::new(),
            whose: Vec::new(),
        })
    }

    /// Puts the messages into the queues and carries the settlements out; tells how many of each run were there.
    fn change(&self, locked: &mut [queue::Locked<'_>], now: Millis) -> Vec<u32> {
        let mut known = vec![0_u32; self.transaction.settled.len()];
        for (queue, share) in locked.iter_mut().zip(self.queues.values()) {
            let mut fresh = share.fresh.iter().peekable();
            for (at, message) in share.messages.iter().enumerate() {
                let taken = queue.push(message.clone(), now);
                if let Some((_, repeats, id)) = fresh.next_if(|(place, ..)| *place == at) {
                    let durable = message.clone().kept().message().flags.has(Flags::DURABLE);
                    queue.keep_seen(repeats, *id, taken, durable, now);
                }
            }
            for Share { run, consumer, first, count } in &share.settled {
                let Some(Settled { outcome, .. }) = self.transaction.settled.get(*run) else { continue };
                let there = queue.settle(*consumer, *first, *count, outcome, now);
                if let Some(known) = known.get_mut(*run) {
                    *known = known.saturating_add(there);
                }
            }
        }
        known
    }

    /// Gives the sessions theirs.
    fn deliver(&self, now: Millis, touched: &mut Touched, brakes: &mut Brakes) {
        let mut locked: Vec<_> = self.sessions.values().map(|one| one.session.lock()).collect();
        for (session, share) in locked.iter_mut().zip(self.sessions.values()) {
            for (batch, picks) in &share.picks {
                let whose = |pick: &Pick| share.whose.get(usize::try_from(pick.first).ok()?);
                let batch = batch.batch();
                match session.deliver(&mut Keeper::new(&batch), picks, whose, now, touched) {
                    Delivered::Taken => {}
                    Delivered::Congested => brakes.sink(session.sink()),
                    Delivered::Closed => dropped_closed(picks),
                }
            }
        }
        drop(locked);
        // Who would wait for itself is kept from settling.
        for ForSession { session, .. } in self.sessions.values() {
            if session.client != self.client
                && let Some(until) = session.gate.hold(now)
            {
                brakes.session(session, until);
            }
        }
    }
}

/// Hands to the log, as one commit, what has changed in all of them; tells where it ends, 0 when nothing has. Who is told of
/// a note waits for as long as that takes: a message that is in the queues already would be published once more.
///
/// # Errors
/// When the log does not take it, and nothing is `noted`.
fn write(
    locked: &mut [queue::Locked<'_>],
    noted: linkspan_queues::log::Commit,
    vhost: &Vhost,
) -> Result<Lsn, Refused> {
    let Some(archive) = &vhost.house.archive else { return Ok(0) };
    let (is_noted, mut together) = (!noted.is_empty(), noted);
    let mut parts: Vec<_> =
        locked.iter_mut().filter_map(|queue| queue.has_gathered().then_some(queue)).collect();
    parts.iter_mut().filter_map(|queue| queue.gathered()).for_each(|own| together.join(own));
    if together.is_empty() {
        return Ok(0);
    }
    match archive.write(&mut together) {
        Ok(lsn) => return Ok(lsn),
        Err(NotTaken) if together.is_empty() => {}
        Err(NotTaken) => {
            let place = archive.put_off(&mut together);
            parts.iter_mut().for_each(|queue| queue.wait_behind(place));
            if is_noted {
                return Ok(place);
            }
        }
    }
    Err(Refused::Full(archive.why()))
}

impl ForQueue {
    fn add(&mut self, message: Parcel) {
        self.bytes = self.bytes.saturating_add(message.batch.size(message.at));
        self.bodies = self.bodies.saturating_add(message.body_len());
        self.messages.push(message);
    }
}

impl ForSession {
    fn add(&mut self, message: &Kept, subscription: &Arc<Subscription>, flags: Flags) {
        let at = message.at..message.at.saturating_add(1);
        let settled = is_settled(subscription.settle, flags);
        let first = self.whose.len() as u64;
        if !settled {
            self.whose.push(Arc::clone(subscription));
        }
        let pick = Pick {
            at,
            key: subscription.key,
            first,
            age: 0,
            attempt: 0,
            settled,
            standing: Standing::Passing,
        };
        match self.picks.last_mut() {
            Some((batch, picks)) if Arc::ptr_eq(batch, &message.batch) => picks.push(pick),
            _ => self.picks.push((Arc::clone(&message.batch), vec![pick])),
        }
    }
}

#[cfg(test)]
mod tests;

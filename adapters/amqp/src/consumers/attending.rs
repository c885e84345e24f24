//! The queue of a session: who is given what comes by it.

use std::sync::Arc;

use linkspan_contract::address::{Syntax, respelled};
use linkspan_contract::{Credit, Delivered, Pick, Refused, Settle, Standing, SubscriptionKey};

use super::attendance::{Attendance, Interest, Letter as Going};
use super::coordinator::{Due, Worker};
use super::taker::Taker;
use super::{Hungry, Wanted};
use crate::inbox::Inbox;
use crate::translate::{Letter, attempt, from_of, is_deleted, refused};
use crate::upstream::Live;

/// Messages that are given out in one go.
const TOGETHER: usize = 64;

/// Stands in the key of what consumes a session's queue, which no subscription has.
const EVERY: u32 = u32::MAX;

/// Milliseconds until a channel that could not be had is asked for again.
const AGAIN: u64 = 1000;

/// Milliseconds after which what a client that is away has not settled goes back to the broker, which may otherwise close the
/// channel for it (RabbitMQ's `consumer_timeout`, 30 minutes).
const LEFT: u64 = 600_000;

impl Worker {
    /// Makes a subscription of the session, or says how one goes on. While the broker is away it is noted, and made when that
    /// is back.
    pub(super) async fn attend(
        &mut self,
        inbox: &Arc<Inbox>,
        interest: Interest,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        let at = match self.takers.iter().position(|taker| taker.attendance.is_some()) {
            Some(at) => at,
            None => {
                let wanted = Wanted {
                    queue: inbox.name.clone(),
                    key: SubscriptionKey { subscription: EVERY, part: interest.key.part },
                    settle: Settle::ByConsumer,
                    exclusive: false,
                    no_local: false,
                    arguments: lapin::types::FieldTable::default(),
                    ack_timeout: None,
                    credit: credit.clone(),
                    group: false,
                };
                self.takers.push(Taker::attending(wanted, Attendance::new(Arc::clone(inbox))));
                self.takers.len() - 1
            }
        };
        let Some(taker) = self.takers.get_mut(at) else { return Ok(()) };
        if taker.wanted.credit.is_none() {
            taker.wanted.credit = credit;
        }
        let Some(attendance) = &mut taker.attendance else { return Ok(()) };
        if let Some(before) = attendance.interest(interest.key) {
            before.succeed(&interest);
            return Ok(());
        }
        let (key, binding) = (interest.key, interest.binding.clone());
        inbox.hold(&binding);
        attendance.interests.push(interest);
        let upstream = Arc::clone(&self.plan.upstream);
        let Some(live) = upstream.live() else {
            self.wait_if_idle();
            return Ok(());
        };
        let made = match inbox.make(&upstream, &live).await {
            Ok(()) => inbox.bind_on(&upstream, &live, &binding).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(()) => Ok(()),
            Err(error) => match refused(&error, &upstream.backend) {
                // Who asks learns of a loss before lapin says so of the connection.
                Refused::Away(_) => {
                    self.wait_if_idle();
                    Ok(())
                }
                why => {
                    self.withdraw(key).await;
                    Err(why)
                }
            },
        }
    }

    fn wait_if_idle(&mut self) {
        if self.link.is_none() && self.waiting.is_none() {
            self.wait();
        }
    }

    /// Ends a subscription of the session, and its queue with the last; false when it has none under that key.
    pub(super) async fn leave(&mut self, key: SubscriptionKey) -> bool {
        let Some((inbox, is_last)) = self.withdraw(key).await else { return false };
        if is_last && let Err(why) = inbox.delete(&self.plan.upstream).await {
            tracing::debug!(queue = %inbox.name, %why, "a session's queue stays until it expires");
        }
        true
    }

    /// Ends a subscription of the session, whose queue stays; tells which queue, and whether that was the last.
    async fn withdraw(&mut self, key: SubscriptionKey) -> Option<(Arc<Inbox>, bool)> {
        for at in 0..self.takers.len() {
            let Some(attendance) = self.takers.get_mut(at).and_then(|taker| taker.attendance.as_deref_mut())
            else {
                continue;
            };
            let Some(place) = attendance.interests.iter().position(|it| it.key == key) else { continue };
            let inbox = Arc::clone(&attendance.inbox);
            let interest = attendance.interests.remove(place);
            let is_last = attendance.interests.is_empty();
            if inbox.let_go(&interest.binding) {
                inbox.unbind(&self.plan.upstream, &interest.binding).await;
            }
            if is_last {
                self.pause(at).await;
                self.takers.remove(at);
            }
            self.held.prune(key);
            return Some((inbox, is_last));
        }
        None
    }

    /// The broker has cancelled the consumer of the session's queue: that was deleted, or is not to be had for a while.
    pub(super) async fn cancelled_session(&mut self, at: usize) {
        let inbox = self.takers.get(at).and_then(|taker| taker.attendance.as_ref());
        let Some(inbox) = inbox.map(|attendance| Arc::clone(&attendance.inbox)) else { return };
        let upstream = Arc::clone(&self.plan.upstream);
        let (Some(_), Some(live)) = (&self.link, upstream.live()) else {
            self.link = None;
            self.forget();
            return self.wait_if_idle();
        };
        match inbox.look(&upstream, &live).await {
            Err(error) if is_deleted(&error) => self.cancelled(at),
            Err(error) => {
                tracing::warn!(queue = %inbox.name, %error, "the queue of a session is not to be had now");
                self.rest().await;
                self.again_later();
            }
            Ok(()) => self.replace().await,
        }
    }

    /// Whether the consumer at `at` is that of the session's queue.
    pub(super) fn is_of_session(&self, at: usize) -> bool {
        self.takers.get(at).is_some_and(|taker| taker.attendance.is_some())
    }

    /// Opens the channel in a while.
    pub(super) fn again_later(&mut self) {
        if self.later {
            return;
        }
        self.later = true;
        self.serial += 1;
        let at = self.plan.clock.now().saturating_add(AGAIN);
        self.due.insert((at, self.serial), Due::Opening);
    }

    /// Has the session's queue made on a new connection.
    pub(super) async fn make_inbox(&mut self, live: &Live) -> lapin::Result<()> {
        let mut attendances = self.takers.iter().filter_map(|taker| taker.attendance.as_deref());
        let Some(inbox) = attendances.next().map(|attendance| Arc::clone(&attendance.inbox)) else {
            return Ok(());
        };
        inbox.make(&self.plan.upstream, live).await
    }

    /// True when this lane only waits for its client: then it needs no channel.
    pub(super) fn is_at_rest(&self) -> bool {
        let has_letter = |taker: &Taker| taker.attendance.as_ref().is_some_and(|it| it.letter.is_some());
        self.is_left()
            && !self.is_anything_due()
            && self.held.is_empty()
            && !self.takers.iter().any(has_letter)
    }

    /// True when the client is away, and nothing is under way to it.
    fn is_left(&self) -> bool {
        let unsettling = self.plan.options.prefetch;
        let is_idle = |taker: &Taker| {
            taker.wanted_window(unsettling) == 0 && taker.streams.is_empty() && taker.buffer.is_empty()
        };
        self.plan.keeps
            && self.transaction.is_none()
            && !self.takers.is_empty()
            && self.takers.iter().all(is_idle)
    }

    /// True when something is due but the end of the channel.
    pub(super) fn is_anything_due(&self) -> bool {
        self.due.len() > usize::from(self.leaving.is_some())
    }

    /// Notes since when the client is away with something unsettled, or that it is back.
    pub(super) fn look_who_left(&mut self) {
        let is_left = self.link.is_some() && self.is_left();
        match self.leaving {
            None if is_left && !self.is_at_rest() => {
                self.serial += 1;
                let at = self.plan.clock.now().saturating_add(LEFT);
                self.due.insert((at, self.serial), Due::Leaving);
                self.leaving = Some((at, self.serial));
            }
            Some(leaving) if !is_left => {
                self.due.remove(&leaving);
                self.leaving = None;
            }
            _ => {}
        }
    }

    /// True when a client has come back to its session, and there is no channel yet that it is to be served by.
    pub(super) fn is_to_be_opened(&self) -> bool {
        let unsettling = self.plan.options.prefetch;
        self.plan.keeps
            && self.link.is_none()
            && self.waiting.is_none()
            && !self.later
            && self.plan.origin.over().is_none()
            && self.takers.iter().any(|taker| taker.wanted_window(unsettling) > 0)
    }

    /// Opens the channel for a client that has come back.
    pub(super) async fn open(&mut self) {
        let Err(why) = self.channel().await else { return };
        if self.waiting.is_some() {
            return;
        }
        if self.plan.upstream.live().is_none() {
            return self.wait();
        }
        tracing::warn!(backend = &*self.plan.upstream.backend, %why, "a session waits for its queue, and tries again");
        self.again_later();
    }

    /// Gives out what one call takes of the session's queue, and tells how much that was.
    pub(super) fn give_session(&mut self, at: usize) -> usize {
        let Some(mut attendance) = self.takers.get_mut(at).and_then(|taker| taker.attendance.take()) else {
            return 0;
        };
        let waiting = |it: &Self| it.takers.get(at).map_or(0, |taker| taker.buffer.len());
        let (before, mut given) = (waiting(self), 0);
        while given < TOGETHER && (attendance.letter.is_some() || self.next_letter(at, &mut attendance)) {
            let had = attendance.letter.as_ref().map_or(0, |letter| letter.copies.len());
            let is_done = self.hand_out(at, &mut attendance);
            let left = attendance.letter.as_ref().map_or(0, |letter| letter.copies.len());
            given += usize::from(is_done || left < had);
            if !is_done {
                break;
            }
        }
        // What is for nobody was taken, too.
        given = given.max(before.saturating_sub(waiting(self)));
        if let Some(taker) = self.takers.get_mut(at) {
            let is_starved = attendance.letter.is_some();
            taker.attendance = Some(attendance);
            if !is_starved && let Some(credit) = &taker.wanted.credit {
                credit.give_back(std::mem::take(&mut taker.prepaid));
            }
        }
        given
    }

    /// Takes the next message of the queue that is for somebody; false when there is none yet.
    fn next_letter(&mut self, at: usize, attendance: &mut Attendance) -> bool {
        loop {
            let Some(taker) = self.takers.get_mut(at) else { return false };
            let Some(delivery) = taker.buffer.front() else { return false };
            let (upstream, attempt) = (delivery.delivery_tag, attempt(delivery));
            let durable = *delivery.properties.delivery_mode() == Some(2);
            let own = from_of(&delivery.properties).is_some_and(|from| attendance.inbox.is_publisher(from));
            let topic = respelled(delivery.routing_key.as_str().as_bytes(), Syntax::Key, Syntax::Topic);
            let copies = if delivery.redelivered && !durable {
                // At most once: it may have been given before.
                metrics::counter!("linkspan_messages_dropped_total", "reason" => "connection-lost")
                    .increment(1);
                Some(Default::default())
            } else {
                attendance.copies(&topic, own, durable)
            };
            let Some(copies) = copies else { return false };
            let Some(mut delivery) = taker.buffer.pop_front() else { return false };
            let options = &self.plan.options;
            let now = self.plan.clock.now();
            let letter = Letter { topic_exchange: &options.topic_exchange, unescape: true, now };
            let unsettled = copies.iter().filter(|(_, settled)| !settled).count();
            self.scratch.clear();
            self.scratch.add(&mut delivery, &letter);
            let kept = self.scratch.batch().keep(0..1).kept(0);
            let Some(message) = kept.filter(|_| !copies.is_empty()) else {
                self.accept(None, upstream);
                continue;
            };
            if unsettled > 1 {
                self.copies.insert(upstream, unsettled);
            }
            let settled = unsettled == 0;
            attendance.letter = Some(Going { message, upstream, attempt, copies, settled });
            return true;
        }
    }

    /// Gives a message to those whom it is for; false when there is no room for one of them.
    fn hand_out(&mut self, at: usize, attendance: &mut Attendance) -> bool {
        let Some(mut letter) = attendance.letter.take() else { return true };
        while let Some((key, settled)) = letter.copies.front().copied() {
            if !settled && !self.take_credit(at) {
                attendance.letter = Some(letter);
                return false;
            }
            letter.copies.pop_front();
            let first = self.held.next(key);
            let place = letter.message.at..letter.message.at.saturating_add(1);
            let (attempt, standing) = (letter.attempt, Standing::Private);
            let pick = Pick { at: place, key, first, age: 0, attempt, settled, standing };
            let said = self.sink.deliver(&letter.message.batch.batch(), std::slice::from_ref(&pick));
            if !settled {
                self.note(key, letter.upstream, letter.attempt, Some(letter.message.clone()), None);
            } else if said == Delivered::Closed {
                metrics::counter!("linkspan_messages_dropped_total", "reason" => "connection-closed")
                    .increment(1);
            }
            if let Some(taker) = self.takers.get_mut(at) {
                taker.congested |= said == Delivered::Congested;
            }
        }
        if letter.settled {
            self.accept(None, letter.upstream);
        }
        true
    }

    /// Takes room for one delivery from the client's window; who finds none is noted as waiting for it.
    fn take_credit(&mut self, at: usize) -> bool {
        let Some(taker) = self.takers.get_mut(at) else { return false };
        if taker.prepaid > 0 {
            taker.prepaid -= 1;
            return true;
        }
        let wanting = u32::try_from(taker.buffer.len().min(TOGETHER)).unwrap_or(u32::MAX).saturating_add(1);
        let key = taker.wanted.key;
        let Some(credit) = taker.credit().map(Arc::clone) else { return true };
        let mut hungry = self.hungry.lock();
        hungry.retain(|other| other.key != key);
        let got = credit.take(1) > 0;
        if !got {
            hungry.push(Hungry { key, credit, wanting });
        }
        got
    }

    /// The client has settled one of several copies of a message: with the last one the broker may forget it. False when
    /// there was only one.
    pub(super) fn settle_copy(&mut self, upstream: u64) -> bool {
        let Some(left) = self.copies.get_mut(&upstream) else { return false };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.copies.remove(&upstream);
            self.accept(Some(()), upstream);
        }
        true
    }
}

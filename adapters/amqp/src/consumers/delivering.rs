//! From the broker's consumers to the client's sink.

use std::sync::Arc;
use std::task::Context;

use lapin::options::BasicAckOptions;
use linkspan_contract::{Delivered, DeliveryTag, Kept, Pick, Settle, Standing, SubscriptionKey};

use super::Hungry;
use super::coordinator::{Due, Turn, Worker};
use super::held::{LONGEST, Unsettled};
use super::taker::Source;
use crate::now::poke;
use crate::translate::{Letter, attempt};

/// Deliveries that are handed to the sink with one call.
const TOGETHER: usize = 64;

/// A delivery of a batch that is put together.
#[derive(Debug, Clone, Copy)]
struct Placed {
    upstream: u64,
    attempt: u32,
    settled: bool,
}

impl Worker {
    /// Gives each consumer what it may be given. Yields what needs more than that.
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>) -> Option<Turn> {
        let count = self.takers.len();
        let (mut gave, mut all) = (false, true);
        let mut turn = None;
        for place in 0..count {
            let at = place.wrapping_add(self.turn).checked_rem(count).unwrap_or(0);
            while let Some(taker) = self.takers.get_mut(at) {
                let known = taker.buffer.len();
                let source = taker.fill(cx);
                if taker.buffer.len() > known {
                    let from = if taker.streams.len() > 1 { 0 } else { known };
                    self.held.note_sent(taker.buffer.iter().skip(from));
                }
                if taker.congested && self.sink.poll_drained(cx).is_ready() {
                    taker.congested = false;
                }
                let given = if taker.is_open() { self.give(at) } else { 0 };
                gave |= given > 0;
                match source {
                    Source::Runs | Source::More if given > 0 => {}
                    Source::Runs => break,
                    Source::More => {
                        all = false;
                        break;
                    }
                    Source::Lost(error) => {
                        turn = Some(Turn::Lost(error));
                        break;
                    }
                    Source::Cancelled => {
                        turn = Some(Turn::Cancelled(at));
                        break;
                    }
                }
            }
            if turn.is_some() {
                break;
            }
        }
        if gave {
            self.sink.flush();
        }
        if self.strays && all && turn.is_none() {
            // What was sent before the last that is here was looked at in this pass, or nobody has it.
            for tag in std::mem::take(&mut self.suspects) {
                if self.held.marks().strays().contains(&tag) {
                    self.requeue(tag);
                }
            }
            self.suspects = self.held.marks().strays();
            if !self.suspects.is_empty() {
                cx.waker().wake_by_ref();
            }
        }
        turn
    }

    /// Gives the consumer at `at` what one call takes, and tells how much that was.
    fn give(&mut self, at: usize) -> usize {
        if self.takers.get(at).is_some_and(|taker| taker.attendance.is_some()) {
            return self.give_session(at);
        }
        let options = &self.plan.options;
        let now = self.plan.clock.now();
        let letter = Letter { topic_exchange: &options.topic_exchange, unescape: false, now };
        let Some(taker) = self.takers.get_mut(at) else { return 0 };
        let settle = taker.wanted.settle;
        let is_settled = |durable: bool| match settle {
            Settle::OnDelivery => true,
            Settle::ByConsumer => false,
            Settle::AsPublished => !durable,
        };
        let durable = |it: &lapin::message::Delivery| *it.properties.delivery_mode() == Some(2);
        let wanting = taker.buffer.iter().take(TOGETHER).filter(|it| !is_settled(durable(it))).count();
        let wanting = u32::try_from(wanting).unwrap_or(u32::MAX);
        let prepaid = std::mem::take(&mut taker.prepaid);
        let mut credit = match taker.credit() {
            Some(credit) if wanting > prepaid => credit.take(wanting - prepaid).saturating_add(prepaid),
            Some(_) => prepaid,
            None => wanting,
        };
        let had = credit.min(wanting);
        let starved = taker.credit().filter(|_| credit < wanting).map(Arc::clone);
        let key = taker.wanted.key;
        let mut hungry = self.hungry.lock();
        hungry.retain(|other| other.key != key);
        if let Some(credit) = starved {
            hungry.push(Hungry { key, credit, wanting: wanting - had });
        }
        drop(hungry);
        let mut placed: Vec<Placed> = Vec::with_capacity(taker.buffer.len().min(TOGETHER));
        self.scratch.clear();
        while let Some(delivery) = taker.buffer.front_mut() {
            let settled = is_settled(durable(delivery));
            if placed.len() == TOGETHER || self.scratch.is_full(delivery) || (!settled && credit == 0) {
                break;
            }
            credit -= u32::from(!settled);
            let (upstream, attempt) = (delivery.delivery_tag, attempt(delivery));
            self.scratch.add(delivery, &letter);
            placed.push(Placed { upstream, attempt, settled });
            taker.buffer.pop_front();
        }
        if credit > 0
            && let Some(window) = taker.credit()
        {
            window.give_back(credit);
        }
        if placed.is_empty() {
            return 0;
        }
        let (key, timeout) = (taker.wanted.key, taker.wanted.ack_timeout);
        let picks = picks(key, self.held.next(key), &placed);
        let batch = self.scratch.batch();
        let said = self.sink.deliver(&batch, &picks);
        let kept = self.plan.keeps.then(|| batch.keep(0..self.scratch.len()));
        if said == Delivered::Closed && !self.plan.keeps {
            taker.gone = true;
            if let Some(window) = taker.credit() {
                let taken = placed.iter().filter(|it| !it.settled).count();
                window.give_back(u32::try_from(taken).unwrap_or(u32::MAX));
            }
            self.undone.extend(placed.iter().map(|it| (key, it.upstream)));
            return 0;
        }
        taker.congested = said == Delivered::Congested && taker.credit().is_none();
        for (place, it) in (0..).zip(&placed) {
            if it.settled {
                self.accept(None, it.upstream);
            } else {
                let message = kept.as_ref().and_then(|kept| kept.kept(place));
                let deadline = timeout.map(|timeout| now.saturating_add(timeout));
                self.note(key, it.upstream, it.attempt, message, deadline);
            }
        }
        placed.len()
    }

    /// Notes that the client holds a delivery, and tells its tag.
    pub(super) fn note(
        &mut self,
        key: SubscriptionKey,
        upstream: u64,
        attempt: u32,
        message: Option<Kept>,
        deadline: Option<u64>,
    ) -> DeliveryTag {
        self.held.marks().open(upstream);
        let last = self.plan.clock.now().saturating_add(LONGEST);
        let deadline = deadline.map_or(0, |deadline| deadline.min(last));
        let tag = self.held.give(key, Unsettled { upstream, message, attempt, deadline, last, late: false });
        if deadline > 0 {
            self.serial += 1;
            self.due.insert((deadline, self.serial), Due::Deadline(key, tag));
        }
        tag
    }

    /// Gives the client once more what it has not settled, under the same tags.
    pub(super) fn give_again(&mut self) {
        for (key, tag, unsettled) in self.held.all_mut() {
            let Some(message) = &unsettled.message else { continue };
            unsettled.attempt = unsettled.attempt.saturating_add(1);
            let at = message.at..message.at.saturating_add(1);
            let attempt = unsettled.attempt;
            let pick =
                Pick { at, key, first: tag, age: 0, attempt, settled: false, standing: Standing::Passing };
            self.sink.deliver(&message.batch.batch(), std::slice::from_ref(&pick));
        }
        self.sink.flush();
    }

    /// Tells the broker what was accepted since the last time.
    pub(super) fn tell_acks(&mut self) {
        let acks = self.held.marks().tell();
        let Some((_, channel)) = self.link.as_ref().filter(|_| !acks.is_empty()) else { return };
        for ack in acks {
            poke(channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple }));
        }
    }
}

/// Runs of deliveries that are alike.
fn picks(key: SubscriptionKey, mut next: DeliveryTag, placed: &[Placed]) -> Vec<Pick> {
    let mut picks: Vec<Pick> = Vec::with_capacity(1);
    for (at, it) in (0..).zip(placed) {
        match picks.last_mut() {
            Some(pick) if pick.settled == it.settled && pick.attempt == it.attempt => pick.at.end = at + 1,
            _ => picks.push(Pick {
                at: at..at + 1,
                key,
                first: next,
                age: 0,
                attempt: it.attempt,
                settled: it.settled,
                standing: Standing::Passing,
            }),
        }
        next += u64::from(!it.settled);
    }
    picks
}

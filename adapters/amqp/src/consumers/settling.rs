//! What the client says about deliveries, and what time says.

use lapin::options::{BasicQosOptions, BasicRejectOptions};
use linkspan_contract::{DeliveryTag, Millis, Outcome, Refused, Settled, Settlement, SubscriptionKey};

use super::coordinator::{Due, Worker};
use super::held::Unsettled;
use crate::now::poke;

impl Worker {
    /// Carries out runs of settlements.
    pub(super) fn settle(&mut self, runs: &[Settled]) {
        for run in runs {
            let span = self.held.span(run.key);
            let last = run.first.saturating_add(run.count.into());
            let mut known = 0;
            for tag in run.first.max(span.start)..last.min(span.end) {
                known += u32::from(self.settle_one(run.key, tag, &run.outcome));
            }
            let unknown = run.count.saturating_sub(known);
            if unknown > 0 {
                metrics::counter!("linkspan_settlements_ignored_total").increment(unknown.into());
            }
            match run.word {
                Some(word) if known > 0 => self.words.push(word),
                Some(word) => {
                    self.plan.origin.note(word, Outcome::Refused(Refused::Late));
                    self.plan.origin.flush();
                }
                None => {}
            }
        }
    }

    fn settle_one(&mut self, key: SubscriptionKey, tag: DeliveryTag, outcome: &Settlement) -> bool {
        if *outcome == Settlement::Receive {
            return self.held.get_mut(key, tag).is_some_and(|it| !it.late);
        }
        if let Settlement::Extend(millis) = outcome {
            let at = self.plan.clock.now().saturating_add(*millis);
            let Some(unsettled) = self.held.get_mut(key, tag).filter(|it| !it.late) else { return false };
            let at = at.min(unsettled.last);
            unsettled.deadline = at;
            self.serial += 1;
            self.due.insert((at, self.serial), Due::Deadline(key, tag));
            return true;
        }
        let Some(unsettled) = self.held.take(key, tag) else { return false };
        if unsettled.late {
            if let Some(taker) = self.takers.iter_mut().find(|taker| taker.wanted.key == key) {
                taker.late = taker.late.saturating_sub(1);
            }
            return false;
        }
        let upstream = unsettled.upstream;
        if let Some(transaction) = &mut self.transaction {
            transaction.settled.push((key, tag, unsettled));
        }
        if self.settle_copy(upstream) {
            return true;
        }
        match outcome {
            Settlement::Undo if self.transaction.is_none() => self.undone.push((key, upstream)),
            Settlement::Accept => self.accept(Some(()), upstream),
            Settlement::Reject(_) => self.reject(upstream, false),
            Settlement::Release { delay } if *delay > 0 && self.transaction.is_none() => {
                let at = self.plan.clock.now().saturating_add(*delay);
                self.serial += 1;
                self.due.insert((at, self.serial), Due::Release(key, upstream));
                if let Some(taker) = self.takers.iter_mut().find(|taker| taker.wanted.key == key) {
                    taker.delayed = taker.delayed.saturating_add(1);
                }
            }
            Settlement::Release { .. } | Settlement::Undo | Settlement::Receive | Settlement::Extend(_) => {
                self.reject(upstream, true);
            }
        }
        true
    }

    /// The broker may forget it. Inside a transaction that waits for the commit, which tells of each alone.
    pub(super) fn accept(&mut self, by_client: Option<()>, upstream: u64) {
        match (&self.transaction, &self.link, by_client) {
            (Some(_), Some((_, channel)), Some(())) => {
                let one = lapin::options::BasicAckOptions { multiple: false };
                poke(channel.basic_ack(upstream, one));
            }
            // Upstream, who settles nothing inside a transaction consumes without acknowledgement.
            (Some(_), _, None) => self.held.marks().told(upstream),
            _ => {
                self.held.marks().open(upstream);
                self.held.marks().accept(upstream);
            }
        }
    }

    fn reject(&mut self, upstream: u64, requeue: bool) {
        if let Some((_, channel)) = &self.link {
            poke(channel.basic_reject(upstream, BasicRejectOptions { requeue }));
        }
        if self.transaction.is_none() {
            self.held.marks().told(upstream);
        }
    }

    /// Gives back what nobody was given.
    pub(super) fn requeue(&mut self, upstream: u64) {
        if let Some((_, channel)) = &self.link {
            poke(channel.basic_reject(upstream, BasicRejectOptions { requeue: true }));
        }
        self.held.marks().told(upstream);
    }

    /// Does what is due now; true when the channel of a client that is away is to be given up.
    pub(super) fn fall_due(&mut self, now: Millis) -> bool {
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove() {
                Due::Deadline(key, tag) => {
                    let passed = self.held.get_mut(key, tag).is_some_and(|it| !it.late && it.deadline <= now);
                    if passed {
                        self.late.push((key, tag));
                    }
                }
                Due::Opening => self.later = false,
                Due::Leaving => {
                    self.leaving = None;
                    return self.link.is_some();
                }
                Due::Release(key, upstream) => {
                    self.requeue(upstream);
                    if let Some(taker) = self.takers.iter_mut().find(|taker| taker.wanted.key == key) {
                        taker.delayed = taker.delayed.saturating_sub(1);
                    }
                }
            }
        }
        false
    }

    /// Gives back what a consumer has held for too long. Its window stays taken until it says something: it is sent
    /// nothing for it, or it would get the same again.
    pub(super) async fn release_late(&mut self) {
        for (key, tag) in std::mem::take(&mut self.late) {
            let Some(unsettled) = self.held.get_mut(key, tag).filter(|it| !it.late) else { continue };
            unsettled.late = true;
            let upstream = unsettled.upstream;
            metrics::counter!("linkspan_deadlines_passed_total").increment(1);
            if let Some(at) = self.takers.iter().position(|taker| taker.wanted.key == key) {
                if let Some(taker) = self.takers.get_mut(at) {
                    taker.late = taker.late.saturating_add(1);
                }
                self.pause(at).await;
            }
            self.requeue(upstream);
        }
    }

    /// Tells who waits for it that settlements are safe: the broker has answered what was asked after them.
    pub(super) async fn tell_words(&mut self) {
        let words = std::mem::take(&mut self.words);
        let safe = match &self.link {
            Some((_, channel)) => {
                let window = self.plan.options.prefetch;
                channel.basic_qos(window, BasicQosOptions { global: false }).await.is_ok()
            }
            None => false,
        };
        let outcome = if safe {
            Outcome::Accepted
        } else {
            Outcome::Failed(Refused::Away(self.plan.upstream.backend.to_string()))
        };
        for word in words {
            self.plan.origin.note(word, outcome.clone());
        }
        self.plan.origin.flush();
    }

    /// What a rollback makes unsettled again.
    pub(super) fn unsettle(&mut self, settled: Vec<(SubscriptionKey, DeliveryTag, Unsettled)>) {
        for (key, tag, unsettled) in settled {
            self.held.put_back(key, tag, unsettled);
        }
    }
}

//! One publish of one message, and what it comes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::Waker;

use lapin::message::BasicReturnMessage;
use lapin::types::ShortString;
use linkspan_contract::{Body, Flags, Kept, LaneEvent, Outcome, OwnedBatch, Seq};
use parking_lot::Mutex;

use super::returned::is_it;
use crate::delay_queue::DelayQueue;
use crate::gauge::{Gauge, OVERHEAD};
use crate::goal::Goal;
use crate::origin::Origin;
use crate::repeats::{Repeats, Verdict, count};
use crate::retained::Safe;
use crate::translate::{Sender, channel_error, outgoing, with_time_of};

/// One publish of one message.
pub(super) struct Entry {
    pub(super) origin: Arc<Origin>,
    pub(super) batch: Arc<OwnedBatch>,
    pub(super) at: u32,
    pub(super) goal: Arc<Goal>,
    pub(super) leg: u16,
    /// Present when the message is published more than once: to the queues of a work route, and to its watchers.
    pub(super) join: Option<Arc<Join>>,
    pub(super) seq: Option<Seq>,
    pub(super) from: Option<Arc<str>>,
    pub(super) mandatory: bool,
    /// What it is known by at its queue, once it is its turn to be published.
    pub(super) repeat: Option<(Arc<Repeats>, u128)>,
    /// The broker has sent it back where its queue was not the reason: it is published whatever is known.
    pub(super) is_exempt: bool,
    /// Its address retains it: when that is safe, for a publisher that waits for it.
    pub(super) safe: Option<Safe>,
    /// What the broker said when it sent the message back.
    pub(super) returned: Option<(u16, Arc<str>)>,
    pub(super) state: State,
}

/// What the publishes of one message have come to.
pub(super) struct Join {
    /// How many are not known yet, and what the others have come to.
    pub(super) all: Mutex<(u16, Outcome)>,
    /// How many were not published because their queues have the message.
    pub(super) known: AtomicU16,
}

pub(super) enum State {
    /// To be published.
    Waiting,
    /// Published, not confirmed.
    Flying,
    /// Confirmed, or not taken; not told yet.
    Landed(Outcome),
    /// Confirmed; what it is known by is being written down.
    Noting(Outcome),
    /// Told.
    Done,
}

impl Entry {
    pub(super) fn is_flying(&self) -> bool {
        matches!(self.state, State::Flying)
    }

    /// Whether its queue has it already, or may have. Those who watch get no copy of what all queues have.
    pub(super) fn judge(&mut self, waker: &Waker) -> Verdict {
        if self.is_exempt {
            return Verdict::New;
        }
        if let Some((repeats, id)) = &self.repeat {
            return repeats.judge(*id, true, waker);
        }
        if let Some(join) = self.join.as_ref().filter(|_| self.goal.is_for_watchers(self.leg)) {
            let is_known = join.known.load(Ordering::Relaxed) == self.leg;
            return if is_known { Verdict::Known } else { Verdict::New };
        }
        let Some(repeats) = self.goal.repeats(self.leg) else { return Verdict::New };
        let batch = self.batch.batch();
        let Some(id) = batch.message(self.at).and_then(|message| repeats.id(&batch, message)) else {
            return Verdict::New;
        };
        let verdict = repeats.judge(id, false, waker);
        match verdict {
            Verdict::New => self.repeat = Some((Arc::clone(repeats), id)),
            Verdict::Known => {
                count();
                if let Some(join) = &self.join {
                    join.known.fetch_add(1, Ordering::Relaxed);
                }
            }
            Verdict::Wait => {}
        }
        verdict
    }

    /// True when another publisher's that may be the same is at the broker, which has not confirmed it yet.
    pub(super) fn waits_for_the_broker(&self) -> bool {
        let Some(repeats) = self.goal.repeats(self.leg) else { return false };
        let batch = self.batch.batch();
        let id = batch.message(self.at).and_then(|message| repeats.id(&batch, message));
        id.is_some_and(|id| repeats.is_at_the_broker(id))
    }

    /// Its queue has not taken it.
    pub(super) fn withdraw(&self) {
        if let Some((repeats, id)) = &self.repeat {
            repeats.withdraw(*id);
        }
    }

    /// Its queue has taken it: what it is known by, which is to be written down before anybody is told.
    pub(super) fn begin_to_note(&mut self) -> Option<(Arc<Repeats>, u128)> {
        let is_taken = matches!(self.state, State::Landed(Outcome::Accepted)) && self.returned.is_none();
        let repeat = self.repeat.take_if(|_| is_taken)?;
        if let State::Landed(outcome) = std::mem::replace(&mut self.state, State::Done) {
            self.state = State::Noting(outcome);
        }
        Some(repeat)
    }

    /// It is written down.
    pub(super) fn noted(&mut self) {
        if let State::Noting(outcome) = std::mem::replace(&mut self.state, State::Done) {
            self.state = State::Landed(outcome);
        }
    }

    /// True when the broker may have it.
    pub(super) fn was_sent(&self) -> bool {
        matches!(self.state, State::Flying | State::Landed(_))
    }

    /// The queue in which it was to wait for its time, when the broker had none of that name and sent it back.
    pub(super) fn has_lost_its_delay_queue(&self) -> Option<ShortString> {
        self.returned.as_ref()?;
        let batch = self.batch.batch();
        let message = batch.message(self.at)?;
        let queue = self.goal.way(self.leg, &batch, message).1;
        DelayQueue::of(&queue, self.goal.terms(self.leg), &batch, message).map(|delay| delay.name)
    }

    pub(super) fn kept(&self) -> Option<Kept> {
        self.batch.kept(self.at)
    }

    pub(super) fn sent_this(&self, returned: &BasicReturnMessage, sender: &Sender<'_>) -> bool {
        let batch = self.batch.batch();
        let Some(message) = batch.message(self.at) else { return false };
        let (exchange, key) = self.goal.way(self.leg, &batch, message);
        let payload = match batch.body {
            Some(Body::Shared(bytes)) => bytes,
            Some(Body::Stored(stored)) if stored.len() == returned.data.len() as u64 => &returned.data[..],
            Some(Body::Stored(_)) => return false,
            None => message.payload.of(batch.bytes),
        };
        let by_name = exchange.as_str().is_empty();
        let terms = self.goal.terms(self.leg);
        let delay = DelayQueue::of(&key, terms, &batch, message);
        let is_delayed = delay.is_some();
        let key = delay.map_or(key, |delay| delay.name);
        let sender = Sender { from: self.from.as_deref(), by_name, terms, is_delayed, now: 0, ..*sender };
        is_it(returned, exchange.as_str(), key.as_str(), payload, || {
            // When it was sent is the one thing that is not the same.
            outgoing(&batch, message, &sender).ok().map(|sent| with_time_of(sent, &returned.properties))
        })
    }

    pub(super) fn tell(&mut self, gauge: &Gauge, touched: &mut Vec<Arc<Origin>>) {
        let State::Landed(mut outcome) = std::mem::replace(&mut self.state, State::Done) else { return };
        if self.returned.is_some() && outcome == Outcome::Accepted {
            outcome = Outcome::Unroutable;
        }
        if outcome != Outcome::Accepted {
            self.withdraw();
        }
        if let Some(join) = &self.join {
            let mut all = join.all.lock();
            all.0 = all.0.saturating_sub(1);
            match (&all.1, &outcome) {
                (Outcome::Refused(_), _) | (Outcome::Accepted, Outcome::Unroutable) => {}
                _ => all.1 = outcome,
            }
            if all.0 > 0 {
                return;
            }
            outcome = all.1.clone();
        }
        self.done(gauge);
        let flags = self.kept().map_or(Flags::NONE, |kept| kept.message().flags);
        if outcome == Outcome::Unroutable
            && flags.has(Flags::MANDATORY)
            && let Some(message) = self.kept()
        {
            let (code, text) = self.returned.take().unwrap_or_else(|| (312, "NO_ROUTE".into()));
            self.origin.event(LaneEvent::Returned { message, code, text });
        }
        match (self.seq, outcome) {
            (Some(seq), outcome) => {
                if self.origin.note(seq, outcome) {
                    touched.push(Arc::clone(&self.origin));
                }
            }
            (None, Outcome::Refused(why)) => {
                if let Some((code, text)) = channel_error(&self.batch.batch(), &why) {
                    self.origin.close(code, &text);
                }
                metrics::counter!("linkspan_messages_dropped_total", "reason" => "refused").increment(1);
                tracing::debug!(%why, "a message that nobody waits for was refused");
            }
            (None, _) => {}
        }
    }

    /// It is under way no more.
    pub(super) fn done(&self, gauge: &Gauge) {
        let size = self.batch.size(self.at).saturating_add(OVERHEAD);
        self.origin.gauge.sub(1, size);
        gauge.sub(1, size);
    }
}

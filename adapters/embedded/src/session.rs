//! What one lane's subscriptions to topic filters share: its sink, its windows, what waits for them, and what is
//! unsettled.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use linkspan_contract::{
    Credit, Delivered, DeliverySink, DeliveryTag, Ended, Kept, Millis, OwnedBatch, Pick, Standing,
    SubscriptionKey,
};
use parking_lot::{Mutex, MutexGuard};

use crate::gate::{Gate, Marks};
use crate::keeper::{Keeper, Piece};
use crate::options::EmbeddedOptions;
use crate::outlet::Touched;
use crate::queue::Queue;
use crate::subscription::Subscription;
use crate::window::{Wait, Window, size};

/// The consuming side of a lane.
pub(crate) struct Session {
    /// The client's number.
    pub(crate) client: u64,
    /// It outlives its socket: what it has unsettled is kept, to be given again.
    keeps: bool,
    /// Where what its client settles waits and is kept, when it outlives the process.
    inbox: Option<Arc<Queue>>,
    limit: u64,
    /// How often the sink was replaced.
    attached: AtomicU64,
    pub(crate) gate: Gate,
    state: Mutex<State>,
}

struct State {
    sink: Arc<dyn DeliverySink>,
    windows: Vec<Window>,
    /// Bytes that wait in all windows.
    bytes: u64,
    held: VecDeque<Option<Held>>,
    /// How many of these are settled.
    holes: usize,
}

/// A session whose lock is held.
pub(crate) struct Locked<'s> {
    session: &'s Session,
    state: MutexGuard<'s, State>,
}

/// More holes than this, and as many as what is held, are closed.
const HOLES: usize = 64;

/// A message that the client has not settled.
struct Held {
    key: SubscriptionKey,
    tag: DeliveryTag,
    message: Kept,
    since: Millis,
    attempt: u32,
}

impl Session {
    pub(crate) fn new(
        client: u64,
        keeps: bool,
        inbox: Option<Arc<Queue>>,
        sink: Arc<dyn DeliverySink>,
        options: &EmbeddedOptions,
    ) -> Self {
        Self {
            client,
            keeps,
            inbox,
            limit: options.session_limit,
            attached: AtomicU64::new(0),
            gate: Gate::new(Marks {
                high: options.session_high,
                longest: options.slow_after,
                slow_after: options.slow_after,
            }),
            state: Mutex::new(State { sink, windows: Vec::new(), bytes: 0, held: VecDeque::new(), holes: 0 }),
        }
    }

    #[inline]
    pub(crate) fn inbox(&self) -> Option<&Arc<Queue>> {
        self.inbox.as_ref()
    }

    /// The sink, and how often it was replaced.
    pub(crate) fn sink(&self) -> (u64, Arc<dyn DeliverySink>) {
        let state = self.state.lock();
        (self.attached.load(Ordering::Acquire), Arc::clone(&state.sink))
    }

    #[inline]
    pub(crate) fn attached(&self) -> u64 {
        self.attached.load(Ordering::Acquire)
    }

    /// From now on what there is goes to another sink.
    pub(crate) fn attach(&self, to: Arc<dyn DeliverySink>) {
        let mut state = self.state.lock();
        state.sink = to;
        self.attached.fetch_add(1, Ordering::Release);
    }

    /// The place of the window that `credit` is.
    pub(crate) fn window(&self, credit: Option<Arc<Credit>>) -> usize {
        let mut state = self.state.lock();
        let same = |window: &Window| match (&window.credit, &credit) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        state.windows.iter().position(same).unwrap_or_else(|| {
            state.windows.reserve_exact(1);
            state.windows.push(Window { credit, waiting: VecDeque::new() });
            state.windows.len() - 1
        })
    }

    /// Nobody else gives it anything that it settles, and nothing that waits, before the lock is let go.
    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { session: self, state: self.state.lock() }
    }

    /// Gives the client what it has credit for, in order, and keeps the rest. `whose` tells the subscription of a pick
    /// that the client will settle; `given` is scratch.
    #[inline]
    pub(crate) fn deliver<'s>(
        &self,
        keeper: &mut Keeper<'_>,
        picks: &[Pick],
        whose: impl Fn(&Pick) -> Option<&'s Arc<Subscription>>,
        given: &mut Vec<Pick>,
        now: Millis,
        touched: &mut Touched,
    ) -> Delivered {
        self.deliver_in(&mut self.state.lock(), keeper, picks, whose, given, now, touched)
    }

    #[allow(clippy::too_many_arguments, reason = "a delivery is what it is, and the lock on top")]
    fn deliver_in<'s>(
        &self,
        state: &mut State,
        keeper: &mut Keeper<'_>,
        picks: &[Pick],
        whose: impl Fn(&Pick) -> Option<&'s Arc<Subscription>>,
        given: &mut Vec<Pick>,
        now: Millis,
        touched: &mut Touched,
    ) -> Delivered {
        given.clear();
        let mut overrun = Vec::new();
        for pick in picks {
            if pick.settled {
                given.push(pick.clone());
                continue;
            }
            let Some(subscription) = whose(pick).filter(|it| !it.is_over()) else { continue };
            let wanted = pick.at.end - pick.at.start;
            let got = state.windows.get(subscription.window).map_or(0, |window| window.admit(wanted));
            let middle = pick.at.start.saturating_add(got);
            let share = Pick { at: pick.at.start..middle, first: subscription.allot(got), ..pick.clone() };
            if got < wanted || self.keeps {
                let kept = self.keep(state, keeper, &pick.at, &share, subscription, now);
                overrun.extend((!kept).then_some(subscription));
            }
            if got > 0 {
                given.push(share);
            }
        }
        let mut said = Delivered::Taken;
        if !given.is_empty() {
            touched.add(&state.sink);
            said = state.sink.deliver(keeper.batch(), given);
        }
        for subscription in overrun {
            self.overrun(state, subscription);
        }
        said
    }

    /// Keeps what comes behind the client's share until there is credit; and the share, for a session that outlives its
    /// socket. False when there is no room for all of it.
    fn keep(
        &self,
        state: &mut State,
        keeper: &mut Keeper<'_>,
        wanted: &Range<u32>,
        share: &Pick,
        subscription: &Arc<Subscription>,
        now: Millis,
    ) -> bool {
        let mut kept = true;
        for Piece { ranges, owned } in &*keeper.keep(std::slice::from_ref(wanted)) {
            let Some(range) = ranges.first() else { continue };
            let split = share.at.end.clamp(range.start, range.end) - range.start;
            let len = range.end - range.start;
            if self.keeps && split > 0 {
                let first = share.first.saturating_add((range.start - wanted.start).into());
                hold(&mut state.held, share.key, first, owned, 0..split, now);
            }
            if split < len {
                kept &= self.wait(state, Arc::clone(subscription), Arc::clone(owned), split..len, now);
            }
        }
        kept
    }

    fn wait(
        &self,
        state: &mut State,
        subscription: Arc<Subscription>,
        batch: Arc<OwnedBatch>,
        at: Range<u32>,
        now: Millis,
    ) -> bool {
        let mut end = at.start;
        for place in at.clone() {
            let size = size(&batch, place);
            if state.bytes.saturating_add(size) > self.limit {
                break;
            }
            state.bytes = state.bytes.saturating_add(size);
            end = place + 1;
        }
        dropped_full(u64::from(at.end - end));
        if end > at.start
            && let Some(window) = state.windows.get_mut(subscription.window)
        {
            window.waiting.push_back(Wait { subscription, batch, at: at.start..end, since: now });
        }
        self.gate.level(state.bytes);
        end == at.end
    }

    /// Ends a subscription for which more came than there is room for: a client that got what comes later would not know
    /// what it has missed.
    fn overrun(&self, state: &mut State, subscription: &Subscription) {
        if !subscription.is_over() {
            dropped_full(self.forget_in(state, subscription));
            state.sink.ended(subscription.key, Ended::LimitExceeded { bytes: self.limit });
        }
    }

    /// Gives what waits and has credit now. It takes the lock to look: who found no credit may be about to let something
    /// wait.
    pub(crate) fn resume(&self, now: Millis, touched: &mut Touched) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.bytes == 0 {
            return;
        }
        let mut moved = false;
        for window in &mut state.windows {
            while let Some(wait) = window.waiting.front_mut() {
                wait.skip_dead(now, &mut state.bytes);
                let wanted = wait.run(now);
                let got = match &window.credit {
                    Some(credit) => credit.take(wanted),
                    None => wanted,
                };
                if got > 0 {
                    let at = wait.at.start..wait.at.start.saturating_add(got);
                    let first = wait.subscription.allot(got);
                    let key = wait.subscription.key;
                    let age = now.saturating_sub(wait.since);
                    let pick = Pick {
                        at: at.clone(),
                        key,
                        first,
                        age,
                        attempt: 0,
                        settled: false,
                        standing: Standing::Passing,
                    };
                    if self.keeps {
                        hold(&mut state.held, key, first, &wait.batch, at.clone(), wait.since);
                    }
                    state.sink.deliver(&wait.batch.batch(), std::slice::from_ref(&pick));
                    moved = true;
                    let bytes: u64 = at.clone().map(|place| size(&wait.batch, place)).sum();
                    state.bytes = state.bytes.saturating_sub(bytes);
                    wait.at.start = at.end;
                }
                if wait.at.is_empty() {
                    window.waiting.pop_front();
                } else if got < wanted {
                    break;
                }
            }
            if window.waiting.is_empty() {
                window.waiting = VecDeque::new();
            }
        }
        if moved {
            touched.add(&state.sink);
            self.gate.progress(now);
        }
        self.gate.level(state.bytes);
    }

    /// The client has settled a run of what a topic filter gave it.
    pub(crate) fn settle(&self, key: SubscriptionKey, first: DeliveryTag, count: u32) {
        if !self.keeps {
            return;
        }
        let mut state = self.state.lock();
        let last = first.saturating_add(count.into());
        let state = &mut *state;
        let mut left = count;
        for held in &mut state.held {
            if left == 0 {
                break;
            }
            if held.as_ref().is_some_and(|held| held.key == key && (first..last).contains(&held.tag)) {
                *held = None;
                left -= 1;
            }
        }
        state.holes += (count - left) as usize;
        while state.held.pop_front_if(|held| held.is_none()).is_some() {
            state.holes = state.holes.saturating_sub(1);
        }
        // One that is never settled must not hold the place of all behind it.
        if state.holes > HOLES && state.holes > state.held.len() / 2 {
            state.held.retain(Option::is_some);
            state.holes = 0;
        }
    }

    /// Gives once more what the client has not settled, under the same tags.
    pub(crate) fn recover(&self, now: Millis, touched: &mut Touched) {
        let mut state = self.state.lock();
        let state = &mut *state;
        touched.add(&state.sink);
        for held in state.held.iter_mut().flatten() {
            held.attempt = held.attempt.saturating_add(1);
            let pick = Pick {
                at: held.message.at..held.message.at.saturating_add(1),
                key: held.key,
                first: held.tag,
                age: now.saturating_sub(held.since),
                attempt: held.attempt,
                settled: false,
                standing: Standing::Passing,
            };
            state.sink.deliver(&held.message.batch.batch(), std::slice::from_ref(&pick));
        }
    }

    /// Forgets what waits for a subscription.
    pub(crate) fn forget(&self, subscription: &Subscription) {
        self.forget_in(&mut self.state.lock(), subscription);
    }

    /// Tells how many messages that were.
    fn forget_in(&self, state: &mut State, subscription: &Subscription) -> u64 {
        subscription.end();
        let mut forgotten = 0;
        for window in &mut state.windows {
            let bytes = &mut state.bytes;
            window.waiting.retain(|wait| {
                let stays = !wait.subscription.is_of_line(subscription);
                if !stays {
                    *bytes = bytes.saturating_sub(wait.bytes());
                    forgotten += u64::from(wait.at.end - wait.at.start);
                }
                stays
            });
        }
        self.gate.level(state.bytes);
        forgotten
    }

    /// The lane is gone, and its subscriptions are over.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        (state.windows, state.bytes, state.held, state.holes) = (Vec::new(), 0, VecDeque::new(), 0);
        drop(state);
        self.gate.open();
    }
}

impl Locked<'_> {
    /// As [`Session::deliver`].
    pub(crate) fn deliver<'s>(
        &mut self,
        keeper: &mut Keeper<'_>,
        picks: &[Pick],
        whose: impl Fn(&Pick) -> Option<&'s Arc<Subscription>>,
        now: Millis,
        touched: &mut Touched,
    ) -> Delivered {
        let given = &mut Vec::new();
        self.session.deliver_in(&mut self.state, keeper, picks, whose, given, now, touched)
    }

    pub(crate) fn sink(&self) -> &Arc<dyn DeliverySink> {
        &self.state.sink
    }
}

fn dropped_full(count: u64) {
    if count > 0 {
        metrics::counter!("linkspan_messages_dropped_total", "reason" => "session-full").increment(count);
    }
}

fn hold(
    held: &mut VecDeque<Option<Held>>,
    key: SubscriptionKey,
    first: DeliveryTag,
    batch: &Arc<OwnedBatch>,
    at: Range<u32>,
    since: Millis,
) {
    let tags = first..;
    held.extend(tags.zip(at).map(|(tag, at)| {
        Some(Held { key, tag, message: Kept { batch: Arc::clone(batch), at }, since, attempt: 0 })
    }));
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("client", &self.client).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::TargetId;
    use linkspan_contract::conformance::letters::Letters;
    use linkspan_contract::conformance::recorder::Recorder;

    use super::*;

    #[test]
    fn one_delivery_that_is_never_settled_holds_no_room_of_those_behind_it() {
        let session = Session::new(1, true, None, Arc::new(Recorder::default()), &EmbeddedOptions::default());
        let key = SubscriptionKey { subscription: 1, part: 0 };
        let batch = Letters::numbered(TargetId(0), [1]).batch().keep(0..1);
        for tag in 1..=10_000 {
            hold(&mut session.state.lock().held, key, tag, &batch, 0..1, 0);
            if tag > 1 {
                session.settle(key, tag, 1);
            }
        }
        let state = session.state.lock();
        assert_eq!(state.held.iter().flatten().count(), 1);
        assert!(state.held.len() <= HOLES + 2, "{}", state.held.len());
    }
}

//! Messages that are published again: what a queue is known to have taken, by what its route says makes them the same.
//!
//! The broker remembers nothing of the kind, so the ledger does: many identifiers with one write, each when the broker has
//! confirmed its message. Only then is the publisher told. What has the identifier of a message that is under way waits until
//! it is known what became of that one; and while the ledger is away everything waits.

pub(crate) mod coordinator;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::death::DEATHS;
use linkspan_contract::{Attribute, Batch, Clock, Deduplicate, Flags, Message, Millis};
use linkspan_queues::Seen;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What one queue is known to have taken.
pub(crate) struct Repeats {
    by: Attribute,
    window: Millis,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// There is something to be written down.
    fresh: Notify,
}

struct State {
    seen: Seen,
    /// What was taken in an earlier life, and by others, is known.
    is_read: bool,
    /// What is under way to the broker, and whether that has confirmed it.
    under_way: HashMap<u128, bool, RandomState>,
    /// Confirmed, and not given to who writes it down.
    fresh: Vec<(u128, Millis)>,
    waiting: Vec<Waker>,
}

/// Two are the same when they are one.
impl PartialEq for Repeats {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Repeats {}

impl fmt::Debug for Repeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeats").field("by", &self.by).field("window", &self.window).finish_non_exhaustive()
    }
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To be published.
    New,
    /// The queue has it.
    Known,
    /// That is not known yet.
    Wait,
}

impl Repeats {
    pub(crate) fn new(how: &Deduplicate, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            seen: Seen::new(how.window),
            is_read: false,
            under_way: HashMap::default(),
            fresh: Vec::new(),
            waiting: Vec::new(),
        };
        let (by, window) = (how.by.clone(), how.window);
        Self { by, window, clock, state: Mutex::new(state), fresh: Notify::new() }
    }

    /// True when it does what is asked.
    pub(crate) fn is(&self, how: &Deduplicate) -> bool {
        self.by == how.by && self.window == how.window
    }

    /// What identifies a message, when it says it. A dead letter that is published once more is so on purpose.
    pub(crate) fn id(&self, batch: &Batch<'_>, message: &Message) -> Option<u128> {
        let has_died = || batch.properties(message).is_ok_and(|it| it.header(DEATHS).is_some());
        if message.flags.has(Flags::HEADERS) && has_died() {
            return None;
        }
        let bytes = self.by.of(batch, message)?;
        // Nobody can make two that are the same.
        let digest: [u8; 16] = Blake2b::<U16>::digest(bytes).into();
        Some(u128::from_le_bytes(digest))
    }

    /// What is to be done with a message of that identifier; `again`: which was to be published before, on a channel that is
    /// lost. Who has to wait is woken.
    pub(crate) fn judge(&self, id: u128, again: bool, waker: &Waker) -> Verdict {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let verdict = match state.under_way.get(&id).copied() {
            _ if !state.is_read => Verdict::Wait,
            Some(false) if again => Verdict::New,
            None if again => Verdict::Known,
            Some(_) => Verdict::Wait,
            None if state.seen.enter(id, now) => {
                state.under_way.insert(id, false);
                Verdict::New
            }
            None => Verdict::Known,
        };
        state.seen.let_go(now);
        if verdict == Verdict::Wait && !state.waiting.iter().any(|other| other.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        verdict
    }

    /// True when the broker has not confirmed the one of that identifier that is under way.
    pub(crate) fn is_at_the_broker(&self, id: u128) -> bool {
        let state = self.state.lock();
        state.is_read && state.under_way.get(&id) == Some(&false)
    }

    /// The broker has taken it: returns when that is written down.
    pub(crate) async fn note(&self, id: u128) {
        let now = self.clock.now();
        self.confirm(id, now);
        self.fresh.notify_one();
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if !state.under_way.contains_key(&id) {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|other| other.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn confirm(&self, id: u128, now: Millis) {
        let state = &mut *self.state.lock();
        if let Some(is_confirmed) = state.under_way.get_mut(&id)
            && !std::mem::replace(is_confirmed, true)
        {
            state.fresh.push((id, now));
        }
    }

    /// The broker has not taken it.
    pub(crate) fn withdraw(&self, id: u128) {
        let mut state = self.state.lock();
        if state.under_way.get(&id) == Some(&false) {
            state.under_way.remove(&id);
            state.seen.withdraw(id);
        }
        wake(state);
    }

    /// At most so many that are to be written down.
    fn take_fresh(&self, most: usize) -> Vec<(u128, Millis)> {
        let mut state = self.state.lock();
        let count = state.fresh.len().min(most);
        state.fresh.drain(..count).collect()
    }

    /// They are.
    fn written(&self, page: &[(u128, Millis)]) {
        let mut state = self.state.lock();
        for (id, _) in page {
            state.under_way.remove(id);
        }
        wake(state);
    }

    /// What was written down by somebody, at some time.
    fn learn(&self, page: impl Iterator<Item = (u128, Millis)>) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        for (id, when) in page {
            if when.saturating_add(self.window) > now && !state.under_way.contains_key(&id) {
                state.seen.enter(id, when.min(now));
            }
        }
    }

    /// All that was written down before is known.
    fn begin(&self) {
        let mut state = self.state.lock();
        state.is_read = true;
        wake(state);
    }
}

/// Has those look again who wait.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    waiting.into_iter().for_each(Waker::wake);
}

/// Counts what was published again.
pub(crate) fn count() {
    metrics::counter!("linkspan_messages_deduplicated_total").increment(1);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Hands(AtomicU64);

    impl Clock for Hands {
        fn now(&self) -> Millis {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn repeats() -> (Repeats, Arc<Hands>) {
        let clock = Arc::new(Hands::default());
        let how = Deduplicate { by: Attribute::MessageId, window: 1000 };
        let repeats = Repeats::new(&how, Arc::clone(&clock) as _);
        (repeats, clock)
    }

    #[test]
    fn a_message_is_new_once_and_others_like_it_wait_until_it_is_written_down() {
        let (repeats, clock) = repeats();
        let judge = |id, again| repeats.judge(id, again, Waker::noop());
        assert_eq!(judge(1, false), Verdict::Wait, "nothing is known yet");
        repeats.begin();
        assert_eq!((judge(1, false), judge(1, false)), (Verdict::New, Verdict::Wait));
        assert_eq!(judge(1, true), Verdict::New, "its channel was lost");
        assert!(repeats.is_at_the_broker(1));
        assert!(crate::now::at_once(repeats.note(1)).is_none());
        assert_eq!((judge(1, false), judge(1, true)), (Verdict::Wait, Verdict::Wait));
        assert!(!repeats.is_at_the_broker(1), "it waits for the ledger");
        let page = repeats.take_fresh(9);
        assert_eq!(page, [(1, 0)]);
        repeats.written(&page);
        assert_eq!((judge(1, false), judge(1, true)), (Verdict::Known, Verdict::Known));
        clock.0.store(1000, Ordering::Relaxed);
        assert_eq!(judge(1, false), Verdict::New, "its window is over");
        repeats.withdraw(1);
        assert_eq!(judge(1, false), Verdict::New, "it was not taken");
    }

    #[test]
    fn what_was_written_down_in_another_life_is_known_for_what_remains() {
        let (repeats, clock) = repeats();
        clock.0.store(1500, Ordering::Relaxed);
        repeats.learn([(1, 400), (2, 600)].into_iter());
        repeats.begin();
        let judge = |id| repeats.judge(id, false, Waker::noop());
        assert_eq!((judge(1), judge(2)), (Verdict::New, Verdict::Known));
    }
}

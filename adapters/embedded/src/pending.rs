//! Who waits until the log is safe up to a place.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{Outcome, Receipt, ReceiptSink, Refused};
use linkspan_queues::log::{LogError, Lsn, Watch};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::archive::Archive;
use crate::postponed::Postponed;
use crate::queue::Queue;
use crate::vhost::Vhost;

/// Hears from the log, and tells those who wait.
#[derive(Default)]
pub(crate) struct Pending {
    state: Mutex<State>,
    synced: AtomicU64,
    /// Up to here somebody was told that it has failed.
    given_up: AtomicU64,
    written: AtomicU64,
    promised: AtomicU64,
    failed: AtomicBool,
    /// Has what the log did not take.
    archive: OnceLock<Weak<Archive>>,
}

#[derive(Default)]
struct State {
    /// By the places that are waited for.
    line: VecDeque<(Lsn, Waits)>,
    /// Those that stand for a place of the log that is not known yet.
    promises: BTreeSet<Lsn>,
    publishers: Vec<Waker>,
    /// Queues that have something to write, by their addresses.
    stuck: HashMap<usize, Weak<Queue>, RandomState>,
    /// Dead letters that cannot be written down where they go.
    letters: Vec<(Weak<Vhost>, Postponed)>,
    why: Option<Arc<str>>,
}

/// Places from this one on are promises: each stands for one that something gets when the log takes it.
const PROMISES: Lsn = 1 << 63;

/// Who waits for a place.
pub(crate) enum Waits {
    /// A lane's publisher.
    Receipts { sink: Arc<dyn ReceiptSink>, runs: SmallVec<[Receipt; 1]> },
    /// Who is told nothing before it is safe, whatever fails meanwhile.
    Words { sink: Arc<dyn ReceiptSink>, runs: SmallVec<[Receipt; 1]> },
    /// A queue that gives nothing out before.
    Queue(Weak<Queue>),
    /// Somebody who does nothing else meanwhile.
    Task(oneshot::Sender<Result<(), Arc<str>>>),
}

impl Waits {
    fn tell(self, failed: Option<&Arc<str>>) {
        match self {
            Self::Queue(queue) => {
                if let Some(queue) = queue.upgrade() {
                    queue.let_go();
                }
            }
            Self::Task(told) => {
                let _ = told.send(failed.map_or(Ok(()), |why| Err(Arc::clone(why))));
            }
            Self::Receipts { sink, mut runs } => {
                if let Some(why) = failed {
                    for run in runs.iter_mut().filter(|run| run.outcome == Outcome::Accepted) {
                        let text = format!("the message could not be written down: {why}");
                        run.outcome = Outcome::Failed(Refused::Full(text));
                    }
                }
                sink.receipts(&runs);
            }
            Self::Words { sink, runs } => sink.receipts(&runs),
        }
    }

    /// Adds receipts of the same lane that are told at the same time; gives them back when they are another's.
    fn join(&mut self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Receipts { sink, runs }, Self::Receipts { sink: same, runs: more })
            | (Self::Words { sink, runs }, Self::Words { sink: same, runs: more })
                if Arc::ptr_eq(sink, &same) =>
            {
                for run in more {
                    match runs.last_mut() {
                        Some(last)
                            if last.outcome == run.outcome
                                && last.first.saturating_add(last.count.into()) == run.first =>
                        {
                            last.count = last.count.saturating_add(run.count);
                        }
                        _ => runs.push(run),
                    }
                }
                None
            }
            (_, other) => Some(other),
        }
    }
}

impl State {
    /// Who waits takes its place in the line.
    fn enter(&mut self, lsn: Lsn, who: Waits) {
        // Who wrote first may come second, by a little.
        let behind = self.line.iter().rev().take_while(|(other, _)| *other > lsn).count();
        let place = self.line.len() - behind;
        self.line.insert(place, (lsn, who));
    }
}

impl Pending {
    /// For whom it hears.
    pub(crate) fn serve(&self, archive: &Arc<Archive>) {
        // It is told once.
        let _ = self.archive.set(Arc::downgrade(archive));
    }

    /// Everything before `synced` is safe from the beginning.
    pub(crate) fn begin(&self, synced: Lsn) {
        self.synced.store(synced, Ordering::SeqCst);
        self.written.fetch_max(synced, Ordering::SeqCst);
    }

    /// So far was written.
    pub(crate) fn written(&self, to: Lsn) {
        self.written.fetch_max(to, Ordering::SeqCst);
    }

    /// Where what was written last ends.
    pub(crate) fn last_written(&self) -> Lsn {
        self.written.load(Ordering::SeqCst)
    }

    /// True when everything before a place is safe.
    pub(crate) fn is_safe(&self, lsn: Lsn) -> bool {
        lsn <= self.synced.load(Ordering::SeqCst)
    }

    /// True when everything before a place is safe, or was told not to be.
    pub(crate) fn is_settled(&self, lsn: Lsn) -> bool {
        lsn <= self.synced.load(Ordering::SeqCst).max(self.given_up.load(Ordering::SeqCst))
    }

    /// Bytes that are not safe yet.
    #[inline]
    pub(crate) fn waiting(&self) -> u64 {
        self.written.load(Ordering::Relaxed).saturating_sub(self.synced.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn why(&self) -> Option<Arc<str>> {
        self.state.lock().why.clone()
    }

    /// Has somebody wait for a place; false when it is safe already.
    pub(crate) fn add(&self, lsn: Lsn, who: impl FnOnce() -> Waits) -> bool {
        let mut state = self.state.lock();
        let is_kept = (PROMISES..Lsn::MAX).contains(&lsn) && !state.promises.contains(&lsn);
        let lsn = if is_kept { self.last_written() } else { lsn };
        if lsn <= self.synced.load(Ordering::SeqCst) {
            return false;
        }
        state.enter(lsn, who());
        true
    }

    /// A place for what the log has not taken yet: it is safe when the place is that [`keep`](Self::keep) says.
    pub(crate) fn promise(&self) -> Lsn {
        let promise = PROMISES + self.promised.fetch_add(1, Ordering::SeqCst);
        self.state.lock().promises.insert(promise);
        promise
    }

    /// What was promised a place ends at `lsn`.
    pub(crate) fn keep(&self, promise: Lsn, lsn: Lsn) {
        let mut told: Vec<Waits> = Vec::new();
        let mut state = self.state.lock();
        if !state.promises.remove(&promise) {
            return;
        }
        let first = state.line.partition_point(|(other, _)| *other < promise);
        let behind = state.line.partition_point(|(other, _)| *other <= promise);
        let waiting: Vec<(Lsn, Waits)> = state.line.drain(first..behind).collect();
        for (_, waits) in waiting {
            if lsn <= self.synced.load(Ordering::SeqCst) {
                told.push(waits);
            } else {
                state.enter(lsn, waits);
            }
        }
        drop(state);
        told.into_iter().for_each(|waits| waits.tell(None));
    }

    /// Has a queue write again when the disk takes writes; false when the word that it does not has not come yet, or that it
    /// does again has come already.
    pub(crate) fn ask_again(&self, queue: &Arc<Queue>) -> bool {
        let mut state = self.state.lock();
        state.stuck.entry(Arc::as_ptr(queue).addr()).or_insert_with(|| Arc::downgrade(queue));
        self.is_failed()
    }

    /// Keeps in mind which dead letters wait until the disk takes writes; gives them back when it does by now.
    pub(crate) fn postpone(&self, vhost: &Arc<Vhost>, letters: Postponed) -> Option<Postponed> {
        let mut state = self.state.lock();
        if !self.is_failed() {
            return Some(letters);
        }
        let is_it = |(other, _): &&mut (Weak<Vhost>, _)| std::ptr::eq(other.as_ptr(), Arc::as_ptr(vhost));
        match state.letters.iter_mut().find(is_it) {
            Some((_, others)) => others.join(letters),
            None => state.letters.push((Arc::downgrade(vhost), letters)),
        }
        None
    }

    /// Ready when no more than `low` bytes wait, or there is no telling when that will be.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, low: u64) -> Poll<()> {
        let mut state = self.state.lock();
        if self.is_failed() || self.waiting() <= low {
            return Poll::Ready(());
        }
        if !state.publishers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.publishers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Takes out who waits for places up to `to`, those of one lane together; where these places have `failed`, not who goes
    /// on waiting then.
    fn take(state: &mut State, to: Lsn, failed: bool) -> Vec<Waits> {
        let count = state.line.partition_point(|(lsn, _)| *lsn <= to);
        let mut taken: Vec<Waits> = Vec::new();
        let mut stay = Vec::new();
        for (lsn, waits) in state.line.drain(..count) {
            if failed && matches!(waits, Waits::Words { .. }) {
                stay.push((lsn, waits));
                continue;
            }
            let alone = match taken.last_mut() {
                Some(last) => last.join(waits),
                None => Some(waits),
            };
            taken.extend(alone);
        }
        stay.into_iter().rev().for_each(|one| state.line.push_front(one));
        if state.line.is_empty() && state.line.capacity() > ROOM {
            state.line = VecDeque::new();
        }
        taken
    }
}

/// Room for so many who wait is kept.
const ROOM: usize = 4096;

impl Watch for Pending {
    fn synced(&self, to: Lsn) {
        let (taken, publishers) = {
            let mut state = self.state.lock();
            let before = self.synced.fetch_max(to, Ordering::SeqCst);
            metrics::counter!("linkspan_log_bytes_total").increment(to.saturating_sub(before));
            (Self::take(&mut state, to, false), std::mem::take(&mut state.publishers))
        };
        metrics::counter!("linkspan_log_syncs_total").increment(1);
        taken.into_iter().for_each(|waits| waits.tell(None));
        publishers.into_iter().for_each(Waker::wake);
    }

    fn failed(&self, _from: Lsn, to: Lsn, why: &str) {
        let why: Arc<str> = why.into();
        tracing::error!(%why, "messages cannot be written down: publishers of durable messages are refused until they can");
        let (taken, publishers) = {
            let mut state = self.state.lock();
            state.why = Some(Arc::clone(&why));
            self.failed.store(true, Ordering::SeqCst);
            self.given_up.fetch_max(to, Ordering::SeqCst);
            (Self::take(&mut state, to, true), std::mem::take(&mut state.publishers))
        };
        metrics::counter!("linkspan_log_failures_total").increment(1);
        taken.into_iter().for_each(|waits| waits.tell(Some(&why)));
        publishers.into_iter().for_each(Waker::wake);
    }

    fn resumed(&self) {
        tracing::info!("messages can be written down again");
        let (stuck, letters) = {
            let mut state = self.state.lock();
            state.why = None;
            self.failed.store(false, Ordering::SeqCst);
            (std::mem::take(&mut state.stuck), std::mem::take(&mut state.letters))
        };
        if let Some(archive) = self.archive.get().and_then(Weak::upgrade) {
            archive.catch_up();
        }
        for queue in stuck.values().filter_map(Weak::upgrade) {
            queue.write_again();
        }
        for (vhost, letters) in letters {
            if let Some(vhost) = vhost.upgrade() {
                vhost.house.coordinator.bury(&vhost, letters, vhost.house.now());
            }
        }
    }

    fn trouble(&self, what: &LogError) {
        tracing::warn!(%what, "the log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<u32>);

    impl ReceiptSink for Heard {
        fn receipts(&self, runs: &[Receipt]) {
            *self.0.lock() += runs.iter().map(|run| run.count).sum::<u32>();
        }
    }

    fn word(heard: &Arc<Heard>) -> Waits {
        let runs = SmallVec::from_elem(Receipt { first: 1, count: 1, outcome: Outcome::Accepted }, 1);
        Waits::Words { sink: Arc::clone(heard) as _, runs }
    }

    #[test]
    fn a_word_for_what_the_log_has_not_taken_waits_for_the_place_that_it_gets() {
        let (pending, heard) = (Pending::default(), Arc::new(Heard::default()));
        let promise = pending.promise();
        assert!(pending.add(promise, || word(&heard)));
        pending.written(200);
        pending.synced(200);
        pending.failed(200, 240, "full");
        assert_eq!(*heard.0.lock(), 0, "what others have written meanwhile says nothing of it");
        pending.written(300);
        pending.keep(promise, 300);
        pending.synced(250);
        assert_eq!(*heard.0.lock(), 0, "it is written and not safe");
        pending.synced(300);
        assert_eq!(*heard.0.lock(), 1);
    }

    #[test]
    fn who_asks_for_a_promise_that_was_kept_meanwhile_waits_for_what_is_written() {
        let (pending, heard) = (Pending::default(), Arc::new(Heard::default()));
        let promise = pending.promise();
        pending.written(300);
        pending.keep(promise, 300);
        assert!(pending.add(promise, || word(&heard)));
        pending.synced(300);
        assert_eq!(*heard.0.lock(), 1);
    }
}

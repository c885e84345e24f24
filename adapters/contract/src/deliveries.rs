//! The pull side, for who waits for one message at a time: HTTP, sagas, requests, movers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::backend::Lane;
use crate::batch::{Batch, Kept};
use crate::body::Body;
use crate::clock::Millis;
use crate::credit::Credit;
use crate::receipt::Seq;
use crate::settlement::{DeliveryTag, Settled, Settlement};
use crate::sink::{Delivered, DeliverySink, Ended, Pick, SubscriptionKey};

/// The receiving end: a [`DeliverySink`] that keeps what it is given until somebody asks.
///
/// What [`Deliveries::next`] yields has to be settled by [`Delivery::settle`], unless it came settled; dropping a
/// delivery releases it. Settlements are carried out by the next call of `next` or [`Deliveries::settle_into`].
#[derive(Debug)]
pub struct Deliveries {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mark: u64,
    credit: Option<Arc<Credit>>,
    watches: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Item>,
    bytes: u64,
    settled: Vec<Settled>,
    ended: VecDeque<(SubscriptionKey, Ended)>,
    dropped: u64,
    closed: bool,
    reader: Option<Waker>,
    publishers: Vec<Waker>,
}

#[derive(Debug)]
struct Item {
    message: Kept,
    key: SubscriptionKey,
    tag: DeliveryTag,
    age: u64,
    attempt: u32,
    settled: bool,
}

impl Item {
    fn size(&self) -> u64 {
        let payload = self.message.body().map_or_else(|| self.message.payload_len(), Body::held);
        payload.saturating_add(OVERHEAD)
    }
}

/// What a kept message costs beside its payload.
const OVERHEAD: u64 = 128;

/// What comes out of [`Deliveries`].
#[derive(Debug)]
pub enum Next {
    /// A message.
    Delivery(Delivery),
    /// The back end ended a subscription.
    Ended(SubscriptionKey, Ended),
    /// So many messages were dropped since the last call because nobody asked for them in time.
    Dropped(u64),
}

impl Deliveries {
    /// For a worker: holds all that it is given, and counts as congested above `mark` bytes. `credit` is what its
    /// subscriptions were made with: settling grants it again.
    pub fn working(mark: u64, credit: Option<Arc<Credit>>) -> Self {
        Self { inner: Arc::new(Inner { mark, credit, watches: false, state: Mutex::default() }) }
    }

    /// For a watcher, who must hold up nobody: what nobody settles is dropped above `mark` bytes, and told by
    /// [`Next::Dropped`].
    pub fn watching(mark: u64) -> Self {
        Self { inner: Arc::new(Inner { mark, credit: None, watches: true, state: Mutex::default() }) }
    }

    /// The side that is handed to [`Backend::connect`](crate::Backend::connect).
    pub fn sink(&self) -> Arc<dyn DeliverySink> {
        self.inner.clone()
    }

    /// The next message or end of a subscription, in the order in which they came. First carries out on `lane` what was
    /// settled since the last call, and lets the back end go on.
    pub async fn next(&mut self, lane: &mut dyn Lane) -> Next {
        loop {
            self.settle_into(lane);
            if let Some(next) = poll_fn(|cx| self.poll_next(cx)).await {
                return next;
            }
        }
    }

    /// The next one when it is there; `None` when there are settlements to be carried out first.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        let mut state = self.inner.state.lock();
        if !state.settled.is_empty() {
            return Poll::Ready(None);
        }
        if state.waiting.is_empty() && state.dropped > 0 {
            return Poll::Ready(Some(Next::Dropped(std::mem::take(&mut state.dropped))));
        }
        if let Some(item) = state.waiting.pop_front() {
            state.bytes = state.bytes.saturating_sub(item.size());
            let wake = if state.bytes <= self.inner.mark / 2 {
                std::mem::take(&mut state.publishers)
            } else {
                Vec::new()
            };
            drop(state);
            wake.into_iter().for_each(Waker::wake);
            let home = (!item.settled).then(|| Arc::clone(&self.inner));
            let Item { message, key, tag, age, attempt, .. } = item;
            return Poll::Ready(Some(Next::Delivery(Delivery { message, key, tag, age, attempt, home })));
        }
        if let Some((key, why)) = state.ended.pop_front() {
            return Poll::Ready(Some(Next::Ended(key, why)));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Carries out on `lane` what was settled since the last call.
    pub fn settle_into(&mut self, lane: &mut dyn Lane) {
        let settled = std::mem::take(&mut self.inner.state.lock().settled);
        if !settled.is_empty() {
            lane.settle(&settled);
            let over = settled.iter().filter(|run| run.outcome.is_last()).count();
            if let Some(credit) = &self.inner.credit {
                credit.grant(u32::try_from(over).unwrap_or(u32::MAX));
            }
        }
        lane.resume();
        lane.flush();
    }

    /// Takes nothing more. Carries out on `lane` what was settled, and gives back what nobody has asked for, as given to
    /// nobody ([`Settlement::Undo`]): for who lets go of a lane, which else counts as given what lies here.
    pub fn end(&mut self, lane: &mut dyn Lane) {
        let mut state = self.inner.state.lock();
        state.closed = true;
        let mut settled = std::mem::take(&mut state.settled);
        let shelf = std::mem::take(&mut state.waiting);
        state.bytes = 0;
        let wake = std::mem::take(&mut state.publishers);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        settled.extend(shelf.iter().filter(|item| !item.settled).map(|item| Settled {
            key: item.key,
            first: item.tag,
            count: 1,
            outcome: Settlement::Undo,
            word: None,
        }));
        if !settled.is_empty() {
            lane.settle(&settled);
            lane.flush();
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        state.closed = true;
        state.waiting.clear();
        let wake = std::mem::take(&mut state.publishers);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
    }
}

impl DeliverySink for Inner {
    fn deliver(&self, batch: &Batch<'_>, picks: &[Pick]) -> Delivered {
        let mut state = self.state.lock();
        if state.closed {
            return Delivered::Closed;
        }
        for pick in picks {
            if self.watches && pick.settled && state.bytes > self.mark {
                state.dropped = state.dropped.saturating_add(pick.at.len() as u64);
                continue;
            }
            let owned = batch.keep(pick.at.clone());
            for at in 0..u32::try_from(owned.messages().len()).unwrap_or(u32::MAX) {
                let Some(message) = owned.kept(at) else { continue };
                let item = Item {
                    message,
                    key: pick.key,
                    tag: pick.first.saturating_add(at.into()),
                    age: pick.age,
                    attempt: pick.attempt,
                    settled: pick.settled,
                };
                state.bytes = state.bytes.saturating_add(item.size());
                state.waiting.push_back(item);
            }
        }
        if state.bytes > self.mark && !self.watches { Delivered::Congested } else { Delivered::Taken }
    }

    fn flush(&self) {
        let reader = self.state.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.closed || self.watches || state.bytes <= self.mark / 2 {
            return Poll::Ready(());
        }
        if !state.publishers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.publishers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn ended(&self, key: SubscriptionKey, why: Ended) {
        self.state.lock().ended.push_back((key, why));
        self.flush();
    }
}

/// One message, and its settlement. Dropping it unsettled releases it.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: Kept,
    /// The subscription it came by.
    pub key: SubscriptionKey,
    /// Its number there.
    pub tag: DeliveryTag,
    /// Milliseconds that it waited in a queue.
    pub age: u64,
    /// How often it was given out before.
    pub attempt: u32,
    home: Option<Arc<Inner>>,
}

impl Delivery {
    /// Says what became of it.
    pub fn settle(mut self, outcome: Settlement) {
        self.say(outcome, None);
    }

    /// The same; the lane's [`ReceiptSink`](crate::ReceiptSink) is told under `word` when that is safe, or that it comes too
    /// late ([`Settled::word`]).
    pub fn settle_under(mut self, outcome: Settlement, word: Seq) {
        self.say(outcome, Some(word));
    }

    /// It stays unsettled, and its deadline begins anew: `by` milliseconds from now. `word` is told as that of a settlement.
    pub fn extend(&self, by: Millis, word: Option<Seq>) {
        if let Some(home) = &self.home {
            self.tell(home, Settlement::Extend(by), word);
        }
    }

    fn say(&mut self, outcome: Settlement, word: Option<Seq>) {
        if let Some(home) = self.home.take() {
            self.tell(&home, outcome, word);
        }
    }

    fn tell(&self, home: &Inner, outcome: Settlement, word: Option<Seq>) {
        let settled = Settled { key: self.key, first: self.tag, count: 1, outcome, word };
        let mut state = home.state.lock();
        state.settled.push(settled);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.say(Settlement::Release { delay: 0 }, None);
    }
}

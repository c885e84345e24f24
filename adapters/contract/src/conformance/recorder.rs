//! A sink that writes down what it is given.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::batch::Batch;
use crate::properties::Properties;
use crate::settlement::DeliveryTag;
use crate::sink::{Delivered, DeliverySink, Ended, Pick, SubscriptionKey};

/// One delivery.
#[derive(Debug, Clone)]
pub struct Given {
    /// The subscription.
    pub key: SubscriptionKey,
    /// Its number there.
    pub tag: DeliveryTag,
    /// The payload as text.
    pub payload: String,
    /// How often it was given out before.
    pub attempt: u32,
    /// Nobody settles it.
    pub settled: bool,
    /// What its publisher said about it.
    pub properties: Properties<'static>,
}

/// Keeps deliveries until a check looks at them; what was not flushed is not to be seen, as it would not be on a wire.
#[derive(Debug, Default)]
pub struct Recorder {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    appended: Vec<Given>,
    flushed: Vec<Given>,
    ended: Vec<(SubscriptionKey, Ended)>,
    /// Above so many deliveries it is congested.
    mark: Option<usize>,
    closed: bool,
    publishers: Vec<Waker>,
}

impl Recorder {
    /// From now on it is congested while it holds more than `mark` deliveries.
    pub fn mark(&self, mark: usize) {
        self.state.lock().mark = Some(mark);
    }

    /// From now on it takes nothing.
    pub fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Waits for `count` deliveries and takes them out, in order.
    ///
    /// # Panics
    /// When they do not come in time.
    pub async fn expect(&self, count: usize, within: Duration) -> Vec<Given> {
        let come = async {
            loop {
                let changed = self.changed.notified();
                if let Some(given) = self.take(count) {
                    return given;
                }
                changed.await;
            }
        };
        let come = tokio::time::timeout(within, come).await;
        come.unwrap_or_else(|_| {
            let there: Vec<String> = self.state.lock().flushed.iter().map(|it| it.payload.clone()).collect();
            panic!("{count} deliveries were due within {within:?}; only these came: {there:?}")
        })
    }

    fn take(&self, count: usize) -> Option<Vec<Given>> {
        let mut state = self.state.lock();
        if state.flushed.len() < count {
            return None;
        }
        let given = state.flushed.drain(..count).collect();
        let drained = state.is_drained();
        let publishers = if drained { std::mem::take(&mut state.publishers) } else { Vec::new() };
        drop(state);
        publishers.into_iter().for_each(Waker::wake);
        Some(given)
    }

    /// Takes out what is there now.
    pub fn take_all(&self) -> Vec<Given> {
        let count = self.state.lock().flushed.len();
        self.take(count).unwrap_or_default()
    }

    /// Waits until a subscription was ended, and tells why.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub async fn expect_end(&self, within: Duration) -> (SubscriptionKey, Ended) {
        let end = async {
            loop {
                let changed = self.changed.notified();
                if let Some(ended) = self.state.lock().ended.pop() {
                    return ended;
                }
                changed.await;
            }
        };
        let end = tokio::time::timeout(within, end).await;
        end.unwrap_or_else(|_| panic!("the subscription was to be ended within {within:?}"))
    }
}

impl State {
    fn is_drained(&self) -> bool {
        self.mark.is_none_or(|mark| self.appended.len() + self.flushed.len() <= mark / 2)
    }
}

impl DeliverySink for Recorder {
    fn deliver(&self, batch: &Batch<'_>, picks: &[Pick]) -> Delivered {
        let mut state = self.state.lock();
        if state.closed {
            return Delivered::Closed;
        }
        for pick in picks {
            for (at, tag) in pick.at.clone().zip(pick.first..) {
                let message = batch.message(at).expect("a pick names messages of its batch");
                let properties = batch.properties(message).expect("properties are readable").into_owned();
                state.appended.push(Given {
                    key: pick.key,
                    tag,
                    payload: String::from_utf8_lossy(message.payload.of(batch.bytes)).into_owned(),
                    attempt: pick.attempt,
                    settled: pick.settled,
                    properties,
                });
            }
        }
        let there = state.appended.len() + state.flushed.len();
        if state.mark.is_some_and(|mark| there > mark) { Delivered::Congested } else { Delivered::Taken }
    }

    fn flush(&self) {
        let mut state = self.state.lock();
        let appended = std::mem::take(&mut state.appended);
        state.flushed.extend(appended);
        drop(state);
        self.changed.notify_waiters();
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.closed || state.is_drained() {
            return Poll::Ready(());
        }
        state.publishers.push(cx.waker().clone());
        Poll::Pending
    }

    fn ended(&self, key: SubscriptionKey, why: Ended) {
        self.state.lock().ended.push((key, why));
        self.changed.notify_waiters();
    }
}

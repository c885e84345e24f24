//! The task that keeps a desk's channel to the broker.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ConnectionState, Consumer, Error, ErrorKind};
use linkspan_contract::{Clock, Ended, Millis, Outcome, Refused};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::{Desk, Look};
use crate::translate::{closed, is_deleted, refused};
use crate::upstream::{Live, Upstream};

/// What the task is made of.
pub(crate) struct Plan {
    pub(crate) desk: Arc<Desk>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Has one more message taken from the broker, whether or not somebody still waits for it; tells how many it has behind
/// that.
///
/// # Errors
/// What the broker says.
pub(super) async fn get(desk: &Arc<Desk>, channel: Arc<Channel>) -> Result<Option<u32>, Refused> {
    let got = tokio::spawn(Arc::clone(desk).get(channel)).await;
    got.unwrap_or_else(|_| Err(Refused::Away(desk.backend.to_string())))
}

/// Messages that a desk has at most for those who work there.
const MOST: u32 = 1000;

/// Messages that it has at most beside these because they wait for their time.
const MOST_WAITING: usize = 4096;

/// Messages by which it makes more room for these at least.
const ROOM: usize = 32;

/// Milliseconds until a channel that could not be had is asked for again.
const AGAIN: Millis = 1000;

/// Milliseconds that a desk keeps what it has when nobody works there.
const LINGER: Millis = 1000;

/// The same when somebody has tried some of it: how often would be forgotten, and who died of it often comes back.
const LINGER_TRIED: Millis = 60_000;

/// So many deliveries are taken from lapin at a time.
const AT_A_TIME: usize = 256;

/// Waits for a connection.
type Waiting = Pin<Box<dyn Future<Output = Option<Arc<Live>>> + Send>>;

/// Starts the task. It opens its channel when somebody comes.
pub(crate) fn start(plan: Plan) {
    let upstream = Arc::clone(&plan.upstream);
    let worker = Worker {
        closing: Box::pin(async move { while upstream.after(u64::MAX).await.is_some() {} }),
        plan,
        link: None,
        seen: 0,
        waiting: None,
        again: 0,
        resting: None,
        serial: 0,
        alarm: Box::pin(sleep(Duration::ZERO)),
    };
    tokio::spawn(worker.run());
}

struct Worker {
    plan: Plan,
    link: Option<Link>,
    /// The generation of the last connection.
    seen: u64,
    /// Waits for another.
    waiting: Option<Waiting>,
    /// Returns at the end of the back end.
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// No channel is asked for before.
    again: Millis,
    /// Since when nobody works at the desk.
    resting: Option<Millis>,
    serial: u64,
    alarm: Pin<Box<Sleep>>,
}

/// The channel, and the broker's consumers on it with their windows.
struct Link {
    live: Arc<Live>,
    channel: Arc<Channel>,
    streams: Vec<(Consumer, u16)>,
}

enum Turn {
    Came(Vec<Delivery>),
    Open,
    /// Have so many more sent.
    Widen(u16, bool),
    Words,
    Lost(Error),
    Cancelled,
    Close,
    Over,
}

impl Link {
    fn window(&self) -> u32 {
        self.streams.iter().fold(0, |all, (_, window)| all.saturating_add((*window).into()))
    }

    /// Takes what has come.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Option<Turn> {
        let mut came = Vec::new();
        for (consumer, _) in &mut self.streams {
            while came.len() < AT_A_TIME {
                match Pin::new(&mut *consumer).poll_next(cx) {
                    Poll::Ready(Some(Ok(delivery))) => came.push(delivery),
                    Poll::Ready(Some(Err(error))) => return Some(Turn::Lost(error)),
                    Poll::Ready(None) => return Some(Turn::Cancelled),
                    Poll::Pending => break,
                }
            }
        }
        if came.is_empty() {
            let is_there = self.live.is_connected() && self.channel.status().connected();
            return (!is_there).then(|| Turn::Lost(lost()));
        }
        came.sort_by_key(|delivery| delivery.delivery_tag);
        Some(Turn::Came(came))
    }
}

impl Worker {
    async fn run(mut self) {
        loop {
            match poll_fn(|cx| self.turn(cx)).await {
                Turn::Came(deliveries) => self.plan.desk.arrive(deliveries),
                Turn::Open => self.open().await,
                Turn::Widen(more, exclusive) => self.widen(more, exclusive).await,
                Turn::Words => self.tell_words().await,
                Turn::Lost(error) => self.lost(&error),
                Turn::Cancelled => self.cancelled(),
                Turn::Close => self.close().await,
                Turn::Over => break,
            }
        }
        self.close().await;
        self.plan.desk.retire();
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        self.plan.desk.task.register(cx.waker());
        if self.closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Turn::Over);
        }
        if let Some(turn) = self.link.as_mut().and_then(|link| link.poll_next(cx)) {
            return Poll::Ready(turn);
        }
        loop {
            let look = self.plan.desk.look(cx);
            let now = self.plan.clock.now();
            if look.over && look.window == 0 && !look.is_in_hand {
                return Poll::Ready(Turn::Over);
            }
            let (turn, at) = match &self.link {
                Some(link) => self.look_after(link, &look, now),
                None => self.look_for_one(&look, now, cx),
            };
            if let Some(turn) = turn {
                return Poll::Ready(turn);
            }
            if let Some(since) = self.resting.filter(|_| look.window > 0 || look.asks) {
                tracing::trace!(since, "somebody works at the desk again");
                self.resting = None;
            } else if self.resting.is_none() && look.window == 0 && !look.asks && self.link.is_some() {
                self.resting = Some(now);
                continue;
            }
            let Some(at) = at.into_iter().chain(look.next).min() else { return Poll::Pending };
            let wait = Duration::from_millis(at.saturating_sub(now).max(1));
            self.alarm.as_mut().reset(Instant::now() + wait);
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// What a desk needs that has a channel, and when it is to be looked at again.
    fn look_after(&self, link: &Link, look: &Look, now: Millis) -> (Option<Turn>, Option<Millis>) {
        if look.has_words {
            return (Some(Turn::Words), None);
        }
        let (wanted, has) = (window(look), link.window());
        // What works alone has one consumer at the broker, whose window does not grow.
        if wanted > has && (has == 0 || !look.is_alone) {
            let more = u16::try_from(wanted - has).unwrap_or(u16::MAX);
            return (Some(Turn::Widen(more, look.is_exclusive)), None);
        }
        if look.asks {
            self.plan.desk.answer(&Ok(()));
            return (None, None);
        }
        let Some(since) = self.resting.filter(|_| look.window == 0) else { return (None, None) };
        if look.is_in_hand {
            return (None, None);
        }
        let end = since.saturating_add(if look.is_untried { LINGER } else { LINGER_TRIED });
        ((end <= now).then_some(Turn::Close), Some(end))
    }

    /// What one needs that has none.
    fn look_for_one(
        &mut self,
        look: &Look,
        now: Millis,
        cx: &mut Context<'_>,
    ) -> (Option<Turn>, Option<Millis>) {
        if look.has_words {
            return (Some(Turn::Words), None);
        }
        if let Some(waiting) = &mut self.waiting {
            if waiting.as_mut().poll(cx).is_pending() {
                if look.asks {
                    self.plan.desk.answer(&Err(self.away()));
                }
                return (None, None);
            }
            self.waiting = None;
        }
        match look.asks || look.window > 0 {
            true if look.asks || self.again <= now => (Some(Turn::Open), None),
            true => (None, Some(self.again)),
            false => (None, None),
        }
    }

    fn away(&self) -> Refused {
        Refused::Away(self.plan.upstream.backend.to_string())
    }

    /// Opens the channel.
    async fn open(&mut self) {
        let upstream = Arc::clone(&self.plan.upstream);
        let Some(live) = upstream.live() else {
            self.plan.desk.answer(&Err(self.away()));
            return self.wait();
        };
        self.seen = live.generation;
        self.again = self.plan.clock.now().saturating_add(AGAIN);
        let opened = tokio::select! {
            opened = live.connection.create_channel() => opened,
            () = upstream.gone(live.generation) => Err(lost()),
        };
        match opened {
            Ok(channel) => {
                let channel = Arc::new(channel);
                self.plan.desk.open(&channel);
                self.link = Some(Link { live, channel, streams: Vec::new() });
            }
            Err(error) => {
                self.plan.desk.answer(&Err(refused(&error, &upstream.backend)));
                if !live.is_connected() {
                    self.wait();
                }
            }
        }
    }

    /// Waits for another connection.
    fn wait(&mut self) {
        let (upstream, seen) = (Arc::clone(&self.plan.upstream), self.seen);
        self.waiting = Some(Box::pin(async move { upstream.after(seen).await }));
    }

    /// Has the broker send more, by another consumer.
    async fn widen(&mut self, more: u16, exclusive: bool) {
        let Some(link) = &mut self.link else { return };
        self.serial += 1;
        let tag = ShortString::try_new(format!("linkspan-desk-{}", self.serial)).unwrap_or_default();
        let queue = self.plan.desk.queue.clone();
        let (channel, upstream) = (Arc::clone(&link.channel), Arc::clone(&self.plan.upstream));
        let consume = async {
            channel.basic_qos(more, BasicQosOptions { global: false }).await?;
            let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
            channel.basic_consume(queue, tag, options, FieldTable::default()).await
        };
        let consumer = tokio::select! {
            consumer = consume => consumer,
            () = upstream.gone(link.live.generation) => Err(lost()),
        };
        match consumer {
            Ok(consumer) => {
                link.streams.push((consumer, more));
                self.plan.desk.consumes_by(link.streams.len());
            }
            Err(error) => {
                self.plan.desk.answer(&Err(refused(&error, &upstream.backend)));
                if is_deleted(&error) {
                    self.cancelled();
                } else {
                    self.lost(&error);
                }
            }
        }
    }

    /// The queue is gone.
    fn cancelled(&mut self) {
        self.link = None;
        self.plan.desk.end(Ended::QueueDeleted);
    }

    /// The channel is gone.
    fn lost(&mut self, error: &Error) {
        let Some(link) = self.link.take() else { return };
        if let Some((code, text, _)) = closed(error) {
            tracing::warn!(queue = %self.plan.desk.queue, code, text, "the broker closed a desk's channel");
        }
        self.plan.desk.lose();
        self.resting = None;
        if !link.live.is_connected() {
            self.wait();
        }
    }

    /// Gives the broker back what is here, in good order.
    async fn close(&mut self) {
        self.resting = None;
        let Some(Link { live, channel, .. }) = self.link.take() else { return };
        self.plan.desk.lose();
        let text = ShortString::try_new("OK").unwrap_or_default();
        tokio::select! {
            closed = timeout(Duration::from_secs(5), channel.close(200, text)) => {
                if !matches!(closed, Ok(Ok(()))) {
                    tracing::debug!(queue = %self.plan.desk.queue, "a desk's channel was lost while it was given up");
                }
            }
            () = self.plan.upstream.gone(live.generation) => {}
        }
    }

    /// Tells who waits for it that settlements are safe: the broker has answered what was asked after them.
    async fn tell_words(&mut self) {
        let words = self.plan.desk.take_words();
        let safe = match &self.link {
            Some(link) => {
                let asked = link.channel.basic_qos(1, BasicQosOptions { global: false });
                tokio::select! {
                    done = asked => done.is_ok(),
                    () = self.plan.upstream.gone(link.live.generation) => false,
                }
            }
            None => false,
        };
        for (origin, word) in words {
            let outcome = if safe { Outcome::Accepted } else { Outcome::Failed(self.away()) };
            origin.note(word, outcome);
            origin.flush();
        }
    }
}

/// How many messages a desk should have.
fn window(look: &Look) -> u32 {
    if look.window == 0 {
        return 0;
    }
    if look.is_alone {
        return MOST;
    }
    let waiting = match look.waiting {
        0 => 0,
        some => some.next_power_of_two().clamp(ROOM, MOST_WAITING),
    };
    look.window.min(MOST).next_power_of_two().min(MOST).saturating_add(u32::try_from(waiting).unwrap_or(0))
}

/// The connection is gone, whatever lapin says.
fn lost() -> Error {
    ErrorKind::InvalidConnectionState(ConnectionState::Error).into()
}

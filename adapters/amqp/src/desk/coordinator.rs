//! The task that keeps a desk's channel to the broker.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::Error;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use linkspan_contract::{Clock, Ended, Millis, Outcome, Refused};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::Desk;
use super::inflow::coordinator::ready_in;
use super::link::{Came, Intake, Link, lost};
use super::look::Look;
use crate::mark::number_reached;
use crate::translate::{closed, is_deleted, refused};
use crate::upstream::{Live, Upstream};
use crate::work_queue::WorkQueues;

/// What the task is made of.
pub(crate) struct Plan {
    pub(crate) desk: Arc<Desk>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where the desk is known.
    pub(crate) work_queues: Weak<WorkQueues>,
}

/// Milliseconds until a channel that could not be had is asked for again.
const AGAIN: Millis = 1000;

/// Milliseconds for which a desk has had more than those who work there need before it gives that back.
const TOO_MUCH: Millis = 2000;

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
        rich: None,
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
    /// Since when it has more than those who work there need.
    rich: Option<Millis>,
    serial: u64,
    alarm: Pin<Box<Sleep>>,
}

enum Turn {
    Came(Came),
    Open,
    /// Have so many more sent.
    Widen(u16, bool),
    /// Have less here.
    Narrow,
    /// Ask whether there is more of some levels.
    Ask,
    Words,
    /// Give the broker back what is here.
    Close,
    /// The same, when nobody has anything in hand.
    Rest,
    Over,
}

impl Worker {
    async fn run(mut self) {
        loop {
            match poll_fn(|cx| self.turn(cx)).await {
                Turn::Came(came) => self.take_in(came),
                Turn::Open => self.open().await,
                Turn::Widen(more, exclusive) => self.widen(more, exclusive).await,
                Turn::Narrow => self.narrow().await,
                Turn::Ask => self.ask().await,
                Turn::Words => self.tell_words().await,
                Turn::Close => self.close().await,
                Turn::Rest if self.plan.desk.give_up() => {
                    self.close().await;
                    self.retire();
                }
                // Somebody was given something meanwhile.
                Turn::Rest => self.resting = None,
                Turn::Over => break,
            }
        }
        self.close().await;
        self.plan.desk.retire();
    }

    /// Lets a desk go that no route's queue needs: nobody tells it when the queue is deleted.
    fn retire(&self) {
        let desk = &self.plan.desk;
        let work_queues = self.plan.work_queues.upgrade();
        if work_queues.is_some_and(|it| it.lose_idle_desk(desk.queue.as_str(), desk)) {
            desk.close();
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        self.plan.desk.task.register(cx.waker());
        if self.closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Turn::Over);
        }
        if let Some(came) = self.link.as_mut().and_then(|link| link.poll_next(cx)) {
            return Poll::Ready(Turn::Came(came));
        }
        loop {
            let look = self.plan.desk.look(cx);
            let now = self.plan.clock.now();
            if look.over && look.window == 0 && !look.is_in_hand {
                return Poll::Ready(Turn::Over);
            }
            self.note_riches(&look, now);
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
            let asks_at = look.asks_at.filter(|_| self.link.is_some());
            let grows_at = self.link.as_ref().filter(|link| link.makes_room(&look));
            let grows_at = grows_at.map(|_| now.saturating_add(AGAIN));
            let soonest = at.into_iter().chain(look.next).chain(asks_at).chain(grows_at).min();
            let Some(at) = soonest else { return Poll::Pending };
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
        if look.is_overdue {
            return (Some(Turn::Close), None);
        }
        if let Some(again) = link.unmarked {
            if look.asks {
                self.plan.desk.answer(&Ok(()));
            }
            return ((again <= now || !look.is_in_hand).then_some(Turn::Narrow), Some(again));
        }
        let (wanted, has) = (look.wanted(), link.window());
        if wanted > has && (has == 0 || !look.is_alone) {
            let more = u16::try_from(wanted - has).unwrap_or(u16::MAX);
            return (Some(Turn::Widen(more, look.is_exclusive)), None);
        }
        if link.makes_room(look) && self.plan.upstream.publishing().is_some() {
            // The broker's one consumer makes room for one with a greater window; nobody else is given anything meanwhile.
            return (Some(Turn::Narrow), None);
        }
        if look.asks {
            self.plan.desk.answer(&Ok(()));
        }
        if look.asks_at.is_some_and(|at| at <= now) && has > 0 {
            return (Some(Turn::Ask), None);
        }
        if let Some(since) = self.rich {
            let end = since.saturating_add(if look.window == 0 { look.linger() } else { TOO_MUCH });
            return ((end <= now).then_some(Turn::Narrow), Some(end));
        }
        let Some(since) = self.resting.filter(|_| look.window == 0 && !look.asks) else {
            return (None, None);
        };
        if look.is_in_hand || (look.waiting > 0 && !look.counts) {
            return (None, None);
        }
        let end = since.saturating_add(look.linger());
        ((end <= now).then_some(Turn::Rest), Some(end))
    }

    /// Notes since when it has more than is needed. Where others stand by nothing goes back before all does.
    fn note_riches(&mut self, look: &Look, now: Millis) {
        let has = self.link.as_ref().map_or(0, Link::window);
        let stays = look.is_in_hand || (look.waiting > 0 && !look.counts);
        let is_rich = match look.window {
            0 => stays,
            _ => look.wanted().saturating_mul(2) <= has,
        };
        let is_rich = is_rich && (has > 0 || look.window == 0 && look.has_spare);
        self.rich = self.rich.or(Some(now)).filter(|_| is_rich && self.link.is_some() && !look.is_alone);
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
        let queues = self.plan.desk.queues();
        let open = async {
            let channel = live.connection.create_channel().await?;
            // Who has a window of nothing yet is told all the same when there is no such queue.
            let ready = ready_in(&channel, queues.iter().map(|(_, queue)| queue)).await?;
            Ok((channel, ready))
        };
        let opened = tokio::select! {
            opened = open => opened,
            () = upstream.gone(live.generation) => Err(lost()),
        };
        match opened {
            Ok((channel, ready)) => {
                let channel = Arc::new(channel);
                self.plan.desk.open(&channel, ready);
                self.link = Some(Link { live, channel, streams: Vec::new(), unmarked: None });
            }
            Err(error) => {
                self.plan.desk.answer(&Err(refused(&error, &upstream.backend)));
                if is_deleted(&error) {
                    self.cancelled();
                } else if !live.is_connected() {
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

    fn take_in(&mut self, came: Came) {
        match came {
            Came::Messages(deliveries) => self.plan.desk.arrive(deliveries),
            Came::Lost(error) => self.lost(&error),
            Came::Cancelled => self.cancelled(),
        }
    }

    /// Asks the broker whether it has more of levels of which nothing lies here.
    async fn ask(&mut self) {
        let Some(link) = &self.link else { return };
        let levels = self.plan.desk.ask();
        let queues = self.plan.desk.queues();
        let of_level = |level: &u8| queues.get(usize::from(*level)).map(|(_, queue)| queue);
        let told = tokio::select! {
            told = ready_in(&link.channel, levels.iter().filter_map(of_level)) => told,
            () = self.plan.upstream.gone(link.live.generation) => Err(lost()),
        };
        let came = poll_fn(|cx| Poll::Ready(self.link.as_mut().and_then(|link| link.poll_next(cx)))).await;
        came.into_iter().for_each(|came| self.take_in(came));
        match told {
            Ok(ready) if self.link.is_some() => self.plan.desk.learn(levels.into_iter().zip(ready)),
            Err(error) if is_deleted(&error) => self.cancelled(),
            Err(error) => self.lost(&error),
            Ok(_) => {}
        }
    }

    /// Has the broker send more, by another consumer of each queue.
    async fn widen(&mut self, more: u16, exclusive: bool) {
        let Some(link) = &mut self.link else { return };
        let queues = self.plan.desk.queues();
        let first = self.serial;
        self.serial = first.saturating_add(queues.len() as u64);
        let (channel, upstream) = (Arc::clone(&link.channel), Arc::clone(&self.plan.upstream));
        let consume = async {
            channel.basic_qos(more, BasicQosOptions { global: false }).await?;
            let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
            let streams = (first..).zip(queues).map(async |(serial, (level, queue))| {
                let tag = ShortString::try_new(format!("linkspan-desk-{serial}")).unwrap_or_default();
                let consumer = channel.basic_consume(queue, tag, options, FieldTable::default()).await?;
                lapin::Result::Ok(Intake { consumer, window: more, level })
            });
            try_join_all(streams).await
        };
        let streams = tokio::select! {
            streams = consume => streams,
            () = upstream.gone(link.live.generation) => Err(lost()),
        };
        match streams {
            Ok(streams) => {
                link.streams.extend(streams);
                self.plan.desk.consumes_by(link.of_one().count(), link.window());
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

    /// Has the broker send less from now on, and gives back what nobody was given.
    async fn narrow(&mut self) {
        self.rich = None;
        let Some(link) = &mut self.link else { return };
        let getting = self.plan.desk.getting(&link.channel);
        let cancel = async {
            // What was taken by itself is on its way to who took it: it must lie here before it is looked what nobody has.
            let quiet = match &getting {
                Some(getting) => Some(getting.write().await),
                None => None,
            };
            let cancelled = link.streams.iter().map(async |Intake { consumer, .. }| {
                link.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await
            });
            try_join_all(cancelled).await?;
            Ok((quiet, number_reached(&self.plan.upstream, &link.channel).await?))
        };
        let reached = tokio::select! {
            reached = cancel => reached,
            () = self.plan.upstream.gone(link.live.generation) => Err(lost()),
        };
        let came = poll_fn(|cx| Poll::Ready(link.take_rest(cx))).await;
        match reached {
            Ok((_quiet, Some(reached))) => {
                link.unmarked = None;
                self.plan.desk.arrive(came);
                self.plan.desk.give_back(reached);
            }
            // What was on its way may be in nobody's hands: with the channel it goes back,
            Ok((_, None)) if self.plan.desk.give_up() => self.close().await,
            // but not what somebody has.
            Ok((_, None)) => {
                link.unmarked = Some(self.plan.clock.now().saturating_add(AGAIN));
                self.plan.desk.arrive(came);
            }
            Err(error) => self.lost(&error),
        }
    }

    /// The queue is gone, and the desk with it: who comes when there is another works at another.
    fn cancelled(&mut self) {
        self.link = None;
        self.plan.desk.end(Ended::QueueDeleted);
        let desk = &self.plan.desk;
        if let Some(work_queues) = self.plan.work_queues.upgrade() {
            work_queues.lose_desk(desk.queue.as_str(), desk);
        }
        desk.close();
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

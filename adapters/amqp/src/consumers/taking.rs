//! The broker's consumers of a lane: made, paused, given another window.

use std::future::poll_fn;
use std::task::Poll;

use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions, BasicRecoverOptions,
};
use lapin::types::ShortString;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{Ended, Refused, Settle, SubscriptionKey};

use super::coordinator::{Turn, Worker};
use super::taker::{Source, Taker};
use super::{Prepaid, Wanted};
use crate::clerk::delete_unused;
use crate::mark::number_reached;
use crate::translate::{Arrived, Letter, attempt, refused};

impl Worker {
    /// Makes the broker's consumer for the one at `at`, when it may be sent something.
    pub(super) async fn consume(&mut self, at: usize) -> lapin::Result<()> {
        let unsettling = self.plan.options.prefetch;
        let (Some((_, channel)), Some(taker)) = (&self.link, self.takers.get_mut(at)) else { return Ok(()) };
        let window = taker.wanted_window(unsettling).saturating_sub(taker.window());
        if window == 0 {
            return Ok(());
        }
        self.serial += 1;
        let wanted = taker.terms();
        let tag = format!("linkspan-{}-{}", wanted.key.subscription, self.serial);
        let options = BasicConsumeOptions {
            no_local: wanted.no_local,
            // What a transaction holds back must not hold up who settles nothing.
            no_ack: self.transaction.is_some() && wanted.settle == Settle::OnDelivery,
            exclusive: wanted.exclusive,
            nowait: false,
        };
        channel.basic_qos(window, BasicQosOptions { global: false }).await?;
        let tag = ShortString::try_new(tag).unwrap_or_default();
        let consumer =
            channel.basic_consume(wanted.queue.clone(), tag, options, wanted.arguments.clone()).await?;
        taker.streams.push((consumer, window));
        Ok(())
    }

    pub(super) async fn subscribe(&mut self, wanted: Wanted) -> Result<(), Refused> {
        let before = self.takers.iter().position(|taker| taker.wanted.key == wanted.key);
        let known = self.seen > 0;
        let ready = self.channel().await;
        if let Err(why) = ready
            && !(known && matches!(why, Refused::Away(_)))
        {
            return Err(why);
        }
        if let Some(at) = before
            && self.takers.get(at).is_some_and(|taker| taker.wanted.queue == wanted.queue)
        {
            return self.replace_taker(at, wanted).await;
        }
        if wanted.group {
            self.plan.groups.join(wanted.queue.as_str());
        }
        self.takers.push(Taker::new(wanted, self.plan.keeps));
        let at = self.takers.len() - 1;
        if let Err(error) = self.consume(at).await {
            let why = refused(&error, &self.plan.upstream.backend);
            if let Some(taker) = self.takers.pop() {
                self.leave_group(&taker.wanted).await;
            }
            self.lost(&error).await;
            return Err(why);
        }
        if let Some(before) = before {
            self.pause(before).await;
            let taker = self.takers.remove(before);
            self.leave_group(&taker.wanted).await;
        }
        Ok(())
    }

    /// Has the consumer at `at` go on under other terms when it is started. Only where the broker has to know them does it
    /// get another consumer: then it gives out again what it has sent and nobody was given.
    async fn replace_taker(&mut self, at: usize, wanted: Wanted) -> Result<(), Refused> {
        let transacts = self.transaction.is_some();
        let Some(taker) = self.takers.get_mut(at) else { return Ok(()) };
        let is_served = wanted.is_served_by(taker.terms(), transacts);
        let before = taker.replace(Some(wanted));
        if is_served {
            return Ok(());
        }
        self.pause(at).await;
        let Err(error) = self.consume(at).await else { return Ok(()) };
        let why = refused(&error, &self.plan.upstream.backend);
        if let Some(taker) = self.takers.get_mut(at) {
            taker.replace(before);
        }
        self.lost(&error).await;
        Err(why)
    }

    pub(super) async fn unsubscribe(&mut self, key: SubscriptionKey) {
        if self.leave(key).await {
            return;
        }
        let Some(at) = self.takers.iter().position(|taker| taker.wanted.key == key) else { return };
        self.pause(at).await;
        let taker = self.takers.remove(at);
        self.held.prune(key);
        self.reach_broker().await;
        self.leave_group(&taker.wanted).await;
    }

    /// Returns when the broker has what it was told: who consumes by another channel then comes behind what was given back.
    async fn reach_broker(&mut self) {
        let Some((_, channel)) = &self.link else { return };
        let window = self.plan.options.prefetch;
        if let Err(error) = channel.basic_qos(window, BasicQosOptions { global: false }).await {
            tracing::debug!(%error, "a channel was lost while a consumer ended");
        }
    }

    pub(super) async fn leave_group(&mut self, wanted: &Wanted) {
        if wanted.group && self.plan.groups.leave(wanted.queue.as_str()) {
            delete_unused(&self.plan.upstream, wanted.queue.clone()).await;
        }
    }

    /// Ends the broker's consumers from the one at `from` on, and takes what they have sent into the buffer. Yields what was
    /// on its way to them and is in nobody's hands.
    pub(super) async fn stop(&mut self, at: usize, from: usize) -> Vec<u64> {
        let Some((_, channel)) = &self.link else { return Vec::new() };
        let Some(taker) = self.takers.get_mut(at) else { return Vec::new() };
        // One whose window is full is sent nothing more.
        let out = self.held.count(taker.wanted.key).saturating_add(taker.buffer.len());
        let full = taker.attendance.is_none()
            && out.saturating_add(taker.delayed.into()) >= usize::from(taker.window());
        let mut may_stray = false;
        for (consumer, _) in taker.streams.iter().skip(from) {
            may_stray |= !full;
            if let Err(error) = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await {
                tracing::debug!(%error, "a consumer could not be cancelled: its channel is lost");
            }
        }
        let reached = match may_stray && self.transaction.is_none() {
            true => number_reached(&self.plan.upstream, channel).await,
            false => Ok(None),
        };
        let source = poll_fn(|cx| Poll::Ready(taker.take_rest(from, cx))).await;
        self.held.note_sent(taker.buffer.iter());
        taker.streams.truncate(from);
        if let Source::Lost(error) = source {
            tracing::debug!(%error, "a consumer was lost while it was cancelled");
        }
        match reached {
            Ok(Some(reached)) => self.lost_on_the_way(at, reached).await,
            _ => {
                self.strays |= may_stray;
                Vec::new()
            }
        }
    }

    /// What the broker has sent until the number that it has reached and nobody here has.
    async fn lost_on_the_way(&mut self, but: usize, reached: u64) -> Vec<u64> {
        for (at, taker) in self.takers.iter_mut().enumerate().filter(|(at, _)| *at != but) {
            let all = taker.streams.len();
            let source = poll_fn(|cx| Poll::Ready(taker.take_rest(all, cx))).await;
            if matches!(source, Source::Lost(_) | Source::Cancelled) {
                tracing::debug!(at, "a consumer ends while another is cancelled");
                self.ends.push((taker.wanted.key, source));
            }
            self.held.note_sent(taker.buffer.iter());
        }
        self.held.marks().told(reached);
        self.held.marks().strays()
    }

    /// A consumer that has ended while it was looked for something else.
    pub(super) fn next_end(&mut self) -> Option<Turn> {
        loop {
            let (key, source) = self.ends.pop()?;
            let at = self.takers.iter().position(|taker| taker.wanted.key == key);
            match (source, at) {
                (Source::Lost(error), _) => return Some(Turn::Lost(error)),
                (Source::Cancelled, Some(at)) => return Some(Turn::Cancelled(at)),
                _ => {}
            }
        }
    }

    /// Ends the broker's consumers and gives back what they have sent and nobody was given.
    pub(super) async fn pause(&mut self, at: usize) {
        let mut tags = self.stop(at, 0).await;
        let Some(taker) = self.takers.get_mut(at) else { return };
        tags.extend(taker.buffer.drain(..).map(|delivery| delivery.delivery_tag));
        let key = taker.wanted.key;
        tags.extend(self.undone.extract_if(.., |(of, _)| *of == key).map(|(_, tag)| tag));
        // A quorum queue gives out in this order what it gets back.
        tags.sort_unstable();
        if taker.attendance.as_ref().is_some_and(|it| it.letter.is_none())
            && let Some(credit) = &taker.wanted.credit
        {
            credit.give_back(std::mem::take(&mut taker.prepaid));
        }
        for tag in tags {
            self.requeue(tag);
        }
    }

    /// Gives back what was given to nobody, and with it all that came behind it and is here: nothing may overtake it.
    pub(super) async fn undo(&mut self) {
        while let Some((key, _)) = self.undone.first().copied() {
            if let Some(at) = self.takers.iter().position(|taker| taker.wanted.key == key) {
                self.pause(at).await;
            }
            let mut left: Vec<_> = self.undone.extract_if(.., |(of, _)| *of == key).collect();
            left.sort_unstable();
            left.into_iter().for_each(|(_, tag)| self.requeue(tag));
        }
    }

    /// The window has changed: the broker learns of it by a new consumer.
    pub(super) async fn adjust(&mut self, at: usize) {
        let Some(taker) = self.takers.get(at) else { return };
        let (wanted, window) = (taker.wanted_window(self.plan.options.prefetch), taker.window());
        let last = taker.streams.last().map_or(0, |(_, window)| *window);
        if wanted < window && taker.streams.len() > 1 && window - last == wanted {
            let from = taker.streams.len() - 1;
            for tag in self.stop(at, from).await {
                self.requeue(tag);
            }
        } else if wanted < window {
            self.pause(at).await;
        }
        if let Err(error) = self.consume(at).await {
            self.lost(&error).await;
        }
    }

    /// The broker has cancelled a consumer: its queue is gone.
    pub(super) fn cancelled(&mut self, at: usize) {
        if at < self.takers.len() {
            let taker = self.takers.remove(at);
            if taker.wanted.group {
                self.plan.groups.leave(taker.wanted.queue.as_str());
            }
            self.sink.ended(taker.wanted.key, Ended::QueueDeleted);
            self.sink.flush();
        }
    }

    pub(super) async fn fetch(
        &mut self,
        queue: ShortString,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused> {
        let channel = self.channel().await?;
        let got = channel.basic_get(queue, BasicGetOptions { no_ack: settled }).await;
        let got = match got {
            Ok(got) => got,
            Err(error) => {
                let why = refused(&error, &self.plan.upstream.backend);
                self.lost(&error).await;
                return Err(why);
            }
        };
        let Some(mut got) = got else { return Ok(None) };
        let (upstream, attempt) = (got.delivery.delivery_tag, attempt(&got.delivery));
        let options = &self.plan.options;
        let letter =
            Letter { topic_exchange: &options.topic_exchange, unescape: false, now: self.plan.clock.now() };
        let Some(message) = Arrived::one(&mut got.delivery, &letter) else { return Ok(None) };
        let tag = if settled {
            self.held.marks().told(upstream);
            0
        } else {
            self.note(key, upstream, attempt, None, None)
        };
        let remaining = got.message_count.into();
        Ok(Some(Fetched { message, key, tag, age: 0, attempt, remaining }))
    }

    pub(super) async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        // The broker would have these back by that, and not know them any more.
        self.undo().await;
        if !requeue {
            self.give_again();
            return Ok(());
        }
        let Some((_, channel)) = &self.link else { return Ok(()) };
        let done = channel.basic_recover(BasicRecoverOptions { requeue: true }).await;
        self.held.lose();
        self.held.marks().forget();
        self.due.clear();
        for taker in &mut self.takers {
            taker.buffer.clear();
            (taker.delayed, taker.late) = (0, 0);
        }
        self.copies.clear();
        match done {
            Ok(()) => Ok(()),
            Err(error) => {
                let why = refused(&error, &self.plan.upstream.backend);
                self.lost(&error).await;
                Err(why)
            }
        }
    }

    /// The lane has taken credit for some.
    pub(super) fn prepay(&mut self, prepaid: Vec<Prepaid>) {
        for Prepaid { key, credit, count } in prepaid {
            match self.takers.iter_mut().find(|taker| taker.wanted.key == key) {
                Some(taker) => taker.prepaid = taker.prepaid.saturating_add(count),
                None => credit.give_back(count),
            }
        }
    }
}

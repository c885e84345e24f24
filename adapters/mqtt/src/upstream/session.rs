//! A session at the broker: what it has to say, over as many connections as it takes, and what became of it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use linkspan_contract::{Millis, Refused};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::claim::{Claim, Words};
use crate::upstream::connection::Sender;
use crate::upstream::copies::Content;
use crate::upstream::cover::{Cover, Standing, Step};
use crate::upstream::link::{Broken, Link};
use crate::upstream::outbox::{OutOfStep, Outbox};
use crate::upstream::packet::{Ack, Happened, Incoming, Outgoing, Version, Welcome};

/// One session: many speak into it, its coordinator's task carries it.
pub(crate) struct Session {
    /// The back end's name.
    pub(crate) backend: Arc<str>,
    /// Its filters are shared under this name.
    share: Option<Arc<str>>,
    marks: Marks,
    state: Mutex<State>,
    /// Something about the filters or the connection changed.
    changed: Notify,
}

/// Bytes that wait for the broker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    pub(crate) high: u64,
    pub(crate) limit: u64,
    /// Messages on their way.
    pub(crate) window: usize,
}

struct State {
    outbox: Outbox<Claim>,
    cover: Cover,
    link: Option<Link>,
    /// Counts the connections: an acknowledgement belongs to one.
    generation: u64,
    waiting: Vec<Waker>,
    /// It was found out whether the broker is there for it.
    tried: bool,
    closing: bool,
}

impl Session {
    pub(crate) fn new(backend: Arc<str>, share: Option<Arc<str>>, marks: Marks) -> Arc<Self> {
        let state = State {
            outbox: Outbox::new(),
            cover: Cover::new(),
            link: None,
            generation: 0,
            waiting: Vec::new(),
            tried: false,
            closing: false,
        };
        Arc::new(Self { backend, share, marks, state: Mutex::new(state), changed: Notify::new() })
    }

    /// Takes messages for the broker, in order; those that it does not are told at once. True when there is more than
    /// there should be.
    pub(crate) fn publish(
        &self,
        messages: &mut Vec<(Outgoing, Claim)>,
        now: Millis,
        refused: &mut Vec<(Claim, Ack)>,
    ) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        for (message, claim) in messages.drain(..) {
            if !message.acknowledged && state.link.is_none() {
                dropped("backend-away");
                refused.push((claim, Ack::Taken));
            } else if state.outbox.bytes().saturating_add(message.size()) > self.marks.limit {
                let why = format!("too much waits for back end '{}'", self.backend);
                refused.push((claim, Ack::Refused(Refused::Full(why))));
            } else {
                state.outbox.push(message, claim);
            }
        }
        state.pump(now, refused);
        state.outbox.bytes() > self.marks.high
    }

    /// Pending as long as there is more for the broker than there should be.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.closing || state.outbox.bytes() <= self.marks.high / 2 {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// A connection begins, and what waits goes out.
    pub(crate) fn connected(&self, sender: Sender, welcome: Welcome, now: Millis) -> u64 {
        let generation = self.linked(sender, welcome);
        self.speak(now);
        generation
    }

    /// A connection begins. What waits goes out with [`Session::speak`].
    pub(crate) fn linked(&self, sender: Sender, welcome: Welcome) -> u64 {
        let mut state = self.state.lock();
        state.generation += 1;
        state.tried = true;
        let generation = state.generation;
        // What a shared session is resumed with carries identifiers of a former life.
        let welcome = Welcome { identifies: welcome.identifies && self.share.is_none(), ..welcome };
        state.link = Some(Link::new(sender, welcome));
        let mut steps = state.cover.connected(welcome.resumed, welcome.identifies);
        if welcome.resumed {
            // A broker that was restarted may know a session as it was when it last wrote it down, without filters that it has
            // granted since, and Mosquitto forgets that a session is a group's member. Retained messages do not come again.
            steps.extend(state.cover.again());
        }
        state.ask(steps, self.share.as_deref());
        drop(state);
        self.changed.notify_waiters();
        generation
    }

    /// What waits goes out, when there is a connection.
    pub(crate) fn speak(&self, now: Millis) {
        let mut refused = Vec::new();
        let mut state = self.state.lock();
        let Some(link) = &state.link else { return };
        let window = self.marks.window.min(link.welcome.receive_maximum.into());
        state.outbox.connected(window);
        state.pump(now, &mut refused);
        drop(state);
        self.tell(refused);
    }

    /// The connection is gone, or cannot be had.
    pub(crate) fn lost(&self) {
        let mut state = self.state.lock();
        state.link = None;
        state.tried = true;
        let mut over: Vec<(Claim, Ack)> =
            state.outbox.lost().into_iter().map(|(entry, ack)| (entry.claim, ack)).collect();
        for entry in state.outbox.shed() {
            dropped("backend-away");
            over.push((entry.claim, Ack::Taken));
        }
        let drained = state.outbox.bytes() <= self.marks.high / 2;
        let wake = if drained { std::mem::take(&mut state.waiting) } else { Vec::new() };
        drop(state);
        self.tell(over);
        wake.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
    }

    /// It is known by now that no other session's connection was lost with the last one.
    pub(crate) fn lost_alone(&self) {
        let over = self.state.lock().outbox.lost_alone();
        self.tell(over.into_iter().map(|(entry, ack)| (entry.claim, ack)).collect());
    }

    /// Carries out what happened on the connection. What was delivered and counts is put into `delivered`.
    pub(crate) fn apply(
        &self,
        happened: &mut Vec<Happened>,
        delivered: &mut Vec<Incoming>,
        words: &mut Words,
        now: Millis,
    ) -> Result<(), Broken> {
        let mut refused = Vec::new();
        let mut result = Ok(());
        let mut changed = false;
        let mut wake = Vec::new();
        {
            let mut state = self.state.lock();
            let state = &mut *state;
            for one in happened.drain(..) {
                changed |= matches!(one, Happened::Granted(..) | Happened::Released(..));
                if result.is_ok() || matches!(one, Happened::Delivered(_) | Happened::Acked(..)) {
                    result = state.apply(one, self, delivered, words).and(result);
                }
            }
            state.pump(now, &mut refused);
            if state.outbox.bytes() <= self.marks.high / 2 {
                wake = std::mem::take(&mut state.waiting);
            }
        }
        refused.into_iter().for_each(|(claim, ack)| words.answer(&self.backend, claim, ack));
        words.say();
        wake.into_iter().for_each(Waker::wake);
        if changed {
            self.changed.notify_waiters();
        }
        result
    }

    fn tell(&self, over: Vec<(Claim, Ack)>) {
        let mut words = Words::default();
        over.into_iter().for_each(|(claim, ack)| words.answer(&self.backend, claim, ack));
        words.say();
    }

    /// Acknowledges messages that came on the connection of that generation, by packet identifier and whether they came
    /// at QoS 2; a later connection knows nothing of them.
    pub(crate) fn acknowledge(
        &self,
        generation: u64,
        packet_ids: impl Iterator<Item = (u16, bool)>,
    ) -> Result<(), Broken> {
        let state = self.state.lock();
        let Some(link) = state.link.as_ref().filter(|_| state.generation == generation) else {
            metrics::counter!("linkspan_backend_stale_acks_total").increment(1);
            return Ok(());
        };
        for (packet_id, exactly_once) in packet_ids {
            link.sender.acknowledge(packet_id, exactly_once).map_err(|_| Broken)?;
        }
        Ok(())
    }

    /// Notes that somebody wants what `filter` matches; [`Session::settled`] waits for the broker's word.
    pub(crate) fn want(&self, filter: &str) {
        let mut state = self.state.lock();
        let steps = state.cover.want(filter);
        state.ask(steps, self.share.as_deref());
    }

    /// Notes that one of them does not any more.
    pub(crate) fn release(&self, filter: &str) {
        let mut state = self.state.lock();
        let steps = state.cover.release(filter);
        state.ask(steps, self.share.as_deref());
    }

    /// Waits until the broker has answered for `filter`, or is away: then it is asked when it is back.
    pub(crate) async fn settled(&self, filter: &str) -> Result<(), Refused> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                match state.cover.standing(filter) {
                    Standing::Ready => return Ok(()),
                    Standing::Refused(why) => return Err(why),
                    Standing::Asked if (state.tried && state.link.is_none()) || state.closing => {
                        return Ok(());
                    }
                    Standing::Asked => {}
                }
            }
            changed.await;
        }
    }

    /// Waits until there is a connection, and the broker has answered for all filters.
    pub(crate) async fn answered(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_answered() {
                return;
            }
            changed.await;
        }
    }

    fn is_answered(&self) -> bool {
        let state = self.state.lock();
        // What is asked for once more on a resumed session is granted already, as far as the cover knows.
        let answered = state.link.as_ref().is_some_and(Link::is_answered);
        state.closing || (answered && state.cover.is_answered())
    }

    /// Waits until the broker has answered all that it was asked about filters, or is away.
    pub(crate) async fn heard(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.has_heard() {
                return;
            }
            changed.await;
        }
    }

    fn has_heard(&self) -> bool {
        let state = self.state.lock();
        state.link.as_ref().is_none_or(Link::is_answered)
    }

    /// What the broker said when it let us in, while there is a connection.
    pub(crate) fn welcome(&self) -> Option<Welcome> {
        self.state.lock().link.as_ref().map(|link| link.welcome)
    }

    /// Waits until there is a connection that is later than `generation`.
    pub(crate) async fn linked_after(&self, generation: u64) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_linked_after(generation) {
                return;
            }
            changed.await;
        }
    }

    fn is_linked_after(&self, generation: u64) -> bool {
        let state = self.state.lock();
        state.link.is_some() && state.generation > generation
    }

    /// The number of the connection that there is, or was last.
    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Waits until all that was taken is acknowledged, or the connection is gone.
    pub(crate) async fn drained(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_drained() {
                return;
            }
            changed.await;
        }
    }

    /// True when all that was taken is acknowledged, or the connection is gone.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.state.lock();
        state.link.is_none() || state.outbox.is_empty()
    }

    /// Says good-bye; publishers are let go.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        if let Some(link) = &state.link {
            // When it takes nothing more its task ends it.
            let _ = link.sender.disconnect();
        }
        let wake = std::mem::take(&mut state.waiting);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
    }
}

impl State {
    fn apply(
        &mut self,
        happened: Happened,
        session: &Session,
        delivered: &mut Vec<Incoming>,
        words: &mut Words,
    ) -> Result<(), Broken> {
        let step = |_: OutOfStep| Broken;
        match happened {
            Happened::Sent(packet_id) => {
                if let Some(entry) = self.outbox.sent(packet_id).map_err(step)? {
                    words.answer(&session.backend, entry.claim, Ack::Taken);
                }
                if self.outbox.is_empty() {
                    session.changed.notify_waiters();
                }
            }
            Happened::OutOfStep => return Err(Broken),
            Happened::Acked(packet_id, ack) => {
                let entry = self.outbox.acked(packet_id).map_err(step)?;
                words.answer(&session.backend, entry.claim, ack);
                if self.outbox.is_empty() {
                    session.changed.notify_waiters();
                }
            }
            Happened::Asked(packet_id) => self.link.as_mut().ok_or(Broken)?.numbered(packet_id)?,
            Happened::Granted(packet_id, answer) => {
                let Step::Subscribe { id, filter } = self.link.as_mut().ok_or(Broken)?.answered(packet_id)?
                else {
                    return Err(Broken);
                };
                if let Err(why) = &answer {
                    tracing::warn!(backend = %session.backend, %filter, %why, "the broker does not grant a subscription");
                }
                let steps = self.cover.subscribed(id, answer);
                self.ask(steps, session.share.as_deref());
            }
            Happened::Released(packet_id, _) => {
                let Step::Unsubscribe { id, .. } = self.link.as_mut().ok_or(Broken)?.answered(packet_id)?
                else {
                    return Err(Broken);
                };
                self.cover.unsubscribed(id);
            }
            Happened::Delivered(message) => {
                // Here it can only be one that was kept for a new subscriber: its flag is set for nobody else.
                let older = self.link.as_ref().is_some_and(|link| link.welcome.version == Version::V311);
                if older && message.retain && session.share.is_none() {
                    return Ok(());
                }
                let ids = message.properties.as_deref().map_or(&[][..], |it| &it.subscription_identifiers);
                if self.cover.counts(&message.topic, ids, || Content::of(&message)) {
                    delivered.push(message);
                }
            }
        }
        Ok(())
    }

    /// Says what is to be said about filters, when there is somebody to say it to.
    fn ask(&mut self, steps: Vec<Step>, share: Option<&str>) {
        if let Some(link) = &mut self.link {
            steps.into_iter().for_each(|step| link.ask(step, share));
        }
    }

    /// Hands to the connection what it may have.
    fn pump(&mut self, now: Millis, refused: &mut Vec<(Claim, Ack)>) {
        let Some(link) = &self.link else { return };
        while let Some(message) = self.outbox.peek() {
            let too_large =
                link.welcome.max_packet_size.filter(|limit| message.packet_size() > u64::from(*limit));
            let answer = if let Some(limit) = too_large {
                let size = message.packet_size();
                let why = format!("the packet would have {size} bytes, and the broker takes {limit}");
                Some(Ack::Refused(Refused::TooLarge(why)))
            } else if message.expires.is_some_and(|end| end <= now) {
                metrics::counter!("linkspan_messages_expired_total").increment(1);
                Some(Ack::Taken)
            } else if link.sender.publish(message, now).is_err() {
                return;
            } else {
                None
            };
            match answer {
                None => self.outbox.hand_over(),
                Some(answer) => refused.extend(self.outbox.drop_next().map(|entry| (entry.claim, answer))),
            }
        }
    }
}

fn dropped(reason: &'static str) {
    metrics::counter!("linkspan_messages_dropped_total", "reason" => reason).increment(1);
}

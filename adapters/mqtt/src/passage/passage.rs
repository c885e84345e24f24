//! One client's way to the broker: what its lane and its task share.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use linkspan_contract::neutral::NEUTRAL;
use linkspan_contract::{
    Batch, Body, Credit, Delivered, DeliverySink, Message, Millis, Pick, Refused, Settled, Standing,
    SubscriptionKey,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::inbox::{Acknowledged, Inbox, Letter};
use super::questions::{Answer, OutOfStep, Questions, Say};
use crate::house::House;
use crate::translate::{self, APART_FROM};
use crate::upstream::connection::{Full, Sender};
use crate::upstream::packet::{Happened, Incoming, Version, Welcome};
use crate::upstream::session::Session;
use crate::upstream::wish::Wish;

/// A client that is passed through.
pub(crate) struct Passage {
    house: Arc<House>,
    /// What it publishes, and the acknowledgements of what it was given.
    pub(crate) session: Arc<Session>,
    state: Mutex<State>,
    vanishing: AtomicBool,
    vanished: Notify,
    given_up: AtomicBool,
}

struct State {
    sink: Arc<dyn DeliverySink>,
    link: Option<Link>,
    questions: Questions,
    inbox: Inbox,
    taker: Option<Taker>,
    absence: Option<Absence>,
    /// Seconds that the session is to be kept after the client's end.
    keep: u32,
}

/// While it lasts those who publish wait a little for this subscriber: what they publish meanwhile the broker may drop, if it
/// has lost the session or does not know it yet.
struct Absence(Arc<House>);

impl Absence {
    fn begin(house: &Arc<House>) -> Self {
        house.absent.send_modify(|absent| *absent += 1);
        Self(Arc::clone(house))
    }
}

impl Drop for Absence {
    fn drop(&mut self) {
        self.0.absent.send_modify(|absent| *absent = absent.saturating_sub(1));
    }
}

struct Link {
    sender: Sender,
    identifies: bool,
    generation: u64,
}

/// Under which key the client takes what comes.
struct Taker {
    key: SubscriptionKey,
    credit: Option<Arc<Credit>>,
    started: bool,
}

/// Bytes of a batch that are put together at most.
const BATCH: usize = 256 * 1024;

impl Passage {
    /// One whose session is to be kept for `keep` seconds after the client's end.
    pub(crate) fn new(
        house: Arc<House>,
        session: Arc<Session>,
        sink: Arc<dyn DeliverySink>,
        keep: u32,
    ) -> Arc<Self> {
        let state = State {
            sink,
            link: None,
            questions: Questions::default(),
            inbox: Inbox::default(),
            taker: None,
            absence: None,
            keep,
        };
        Arc::new(Self {
            house,
            session,
            state: Mutex::new(state),
            vanishing: AtomicBool::new(false),
            vanished: Notify::new(),
            given_up: AtomicBool::new(false),
        })
    }

    /// Another outbound side for the client.
    pub(crate) fn attach(&self, sink: Arc<dyn DeliverySink>) {
        self.state.lock().sink = sink;
    }

    /// After its end the session is to be kept for so many seconds.
    pub(crate) fn set_keep(&self, seconds: u32) {
        self.state.lock().keep = seconds;
    }

    pub(crate) fn keep(&self) -> u32 {
        self.state.lock().keep
    }

    /// Another client has the session, or nobody can have it: it is not this one's to end.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// There is no connection to the broker.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.state.lock().link.is_none()
    }

    /// The client is gone without a good-bye.
    pub(crate) fn vanish(&self) {
        self.vanishing.store(true, Ordering::Release);
        self.vanished.notify_one();
    }

    pub(crate) fn is_vanishing(&self) -> bool {
        self.vanishing.load(Ordering::Acquire)
    }

    /// Waits until the client has vanished.
    pub(crate) async fn vanished(&self) {
        self.vanished.notified().await;
    }

    /// A connection begins: what is wanted and not there is asked for.
    pub(crate) fn connected(&self, sender: Sender, welcome: Welcome, generation: u64) {
        let mut state = self.state.lock();
        state.inbox.connected(welcome.resumed);
        state.link = Some(Link { sender, identifies: welcome.identifies, generation });
        for say in state.questions.connected(welcome.resumed) {
            if state.speak(&say).is_ok() {
                state.questions.said_again(say);
            }
        }
        state.note_answers();
    }

    /// The connection is gone, and no other is tried.
    pub(crate) fn over(&self) {
        self.lost(false);
        self.state.lock().absence = None;
    }

    /// The connection is gone. `has_past` when the session may have filters that only the broker knows.
    pub(crate) fn lost(&self, has_past: bool) {
        let mut state = self.state.lock();
        if state.absence.is_none() && (has_past || state.questions.wants_something()) {
            state.absence = Some(Absence::begin(&self.house));
        }
        state.link = None;
        state.inbox.lost();
        state.questions.lost();
    }

    /// The broker has said something about filters.
    pub(crate) fn hear(&self, happened: Happened) -> Result<(), OutOfStep> {
        let mut state = self.state.lock();
        let questions = &mut state.questions;
        let result = match happened {
            Happened::Asked(packet_id) => questions.numbered(packet_id),
            Happened::Granted(packet_id, answer) => questions.answered(packet_id, answer.map(|()| true)),
            Happened::Released(packet_id, existed) => questions.answered(packet_id, Ok(existed)),
            Happened::Sent(_) | Happened::OutOfStep | Happened::Acked(..) | Happened::Delivered(_) => Ok(()),
        };
        state.note_answers();
        result
    }

    /// Subscribes the client's session; waits for the broker's word, unless it is away: then it is asked when it is back.
    pub(crate) async fn subscribe(&self, filter: &Arc<str>, wish: Wish) -> Result<(), Refused> {
        if wish.no_local && self.house.dial.version() == Some(Version::V311) {
            return Err(Refused::NotImplemented(format!(
                "back end '{}' speaks MQTT 3.1.1, which has no word for no-local",
                self.house.name
            )));
        }
        let answer = {
            let mut state = self.state.lock();
            let say = state.questions.want(filter, wish);
            state.ask(say)
        };
        answered(answer).await.map(drop)
    }

    /// Ends a subscription of the client's session; false when there was none.
    pub(crate) async fn unsubscribe(&self, filter: &Arc<str>) -> Result<bool, Refused> {
        let answer = {
            let mut state = self.state.lock();
            let say = state.questions.give_up(filter);
            state.ask(say)
        };
        answered(answer).await
    }

    /// What comes is for this key; it begins with [`Passage::start`].
    pub(crate) fn take_under(&self, key: SubscriptionKey, credit: Option<Arc<Credit>>) {
        self.state.lock().taker = Some(Taker { key, credit, started: false });
    }

    /// True when the key is the session's: it is given what has come.
    pub(crate) fn start(&self, key: SubscriptionKey) -> bool {
        match &mut self.state.lock().taker {
            Some(taker) if taker.key == key => taker.started = true,
            _ => return false,
        }
        self.give();
        true
    }

    /// Takes what the broker delivered and gives the client what it has room for. True when it has more than enough.
    pub(crate) fn take(&self, delivered: &mut Vec<Incoming>) -> bool {
        let now = self.house.now();
        let (acknowledged, generation) = {
            let mut state = self.state.lock();
            let generation = state.link.as_ref().map_or(0, |link| link.generation);
            let taken = delivered.drain(..).filter_map(|message| state.inbox.take(message, now));
            (taken.collect::<Vec<_>>(), generation)
        };
        self.acknowledge(generation, &acknowledged);
        let congested = self.give();
        self.flush();
        congested
    }

    /// What the client has acknowledged is acknowledged at the broker.
    pub(crate) fn settle(&self, runs: &[Settled]) {
        let mut acknowledged = Vec::new();
        let generation = {
            let mut state = self.state.lock();
            let state = &mut *state;
            let Some(taker) = &state.taker else { return };
            state.inbox.settle(runs, taker.key, &mut acknowledged);
            state.link.as_ref().map_or(0, |link| link.generation)
        };
        self.acknowledge(generation, &acknowledged);
    }

    fn acknowledge(&self, generation: u64, acknowledged: &[Acknowledged]) {
        if !acknowledged.is_empty() {
            // What it breaks is noticed by who reads.
            let _ = self.session.acknowledge(generation, acknowledged.iter().copied());
        }
    }

    /// Gives the client what waits for it, as far as it has room. What it has to settle is given in the order in which it
    /// came, and so is what it has not; the one does not wait for the other.
    pub(crate) fn give(&self) -> bool {
        let now = self.house.now();
        let mut state = self.state.lock();
        let State { sink, inbox, taker, .. } = &mut *state;
        let Some(taker) = taker.as_ref().filter(|taker| taker.started) else { return false };
        let mut draft = Draft::default();
        let mut congested = false;
        let mut dry = false;
        let mut left = std::mem::take(&mut inbox.waiting);
        left.retain_mut(|letter| {
            if letter.tag.is_some() {
                dry |= taker.credit.as_ref().is_some_and(|credit| dry || credit.take(1) == 0);
                if dry {
                    return true;
                }
            }
            let apart = letter.message.payload.len() >= APART_FROM;
            if apart || draft.bytes.len() > BATCH {
                congested |= draft.deliver(&**sink, None);
            }
            draft.add(letter, taker.key, now);
            if apart {
                congested |= draft.deliver(&**sink, Some(&Body::Shared(letter.message.payload.clone())));
            }
            false
        });
        congested |= draft.deliver(&**sink, None);
        if left.is_empty() {
            left = Default::default();
        }
        inbox.waiting = left;
        congested
    }

    /// Lets what was given be written.
    pub(crate) fn flush(&self) {
        let sink = Arc::clone(&self.state.lock().sink);
        sink.flush();
    }

    /// Waits until the client has taken what it was given.
    pub(crate) async fn drained(&self) {
        let sink = Arc::clone(&self.state.lock().sink);
        poll_fn(|cx| sink.poll_drained(cx)).await;
    }
}

impl State {
    /// A subscriber is back when the broker has answered all that it was asked.
    fn note_answers(&mut self) {
        if self.absence.is_some() && self.questions.are_answered() {
            self.absence = None;
        }
    }

    fn ask(&mut self, say: Say) -> Option<Answer> {
        self.speak(&say).ok()?;
        Some(self.questions.said(say))
    }

    fn speak(&self, say: &Say) -> Result<(), Full> {
        let link = self.link.as_ref().ok_or(Full)?;
        match say {
            Say::Subscribe(filter, wish) => link.sender.subscribe_as(filter, wish, link.identifies),
            Say::Unsubscribe(filter) => link.sender.unsubscribe(filter),
        }
    }
}

async fn answered(answer: Option<Answer>) -> Result<bool, Refused> {
    match answer {
        Some(answer) => answer.await.unwrap_or(Ok(true)),
        None => Ok(true),
    }
}

/// Messages that are given together.
#[derive(Default)]
struct Draft {
    bytes: Vec<u8>,
    messages: Vec<Message>,
    picks: Vec<Pick>,
}

impl Draft {
    fn add(&mut self, letter: &Letter, key: SubscriptionKey, now: Millis) {
        let at = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        translate::append_for_client(&letter.message, &mut self.bytes, &mut self.messages);
        let age = now.saturating_sub(letter.since);
        let attempt = u32::from(letter.message.repeated);
        let settled = letter.tag.is_none();
        let first = letter.tag.unwrap_or_default();
        match self.picks.last_mut() {
            Some(pick)
                if pick.settled == settled
                    && pick.age == age
                    && pick.attempt == attempt
                    && (settled || pick.first + u64::from(at - pick.at.start) == first) =>
            {
                pick.at.end = at + 1;
            }
            _ => self.picks.push(Pick {
                at: at..at + 1,
                key,
                first,
                age,
                attempt,
                settled,
                standing: Standing::Passing,
            }),
        }
    }

    fn deliver(&mut self, sink: &dyn DeliverySink, body: Option<&Body>) -> bool {
        if self.picks.is_empty() {
            return false;
        }
        let batch = Batch { body, ..Batch::new(&self.bytes, &self.messages, &NEUTRAL) };
        let delivered = sink.deliver(&batch, &self.picks);
        self.bytes.clear();
        self.messages.clear();
        self.picks.clear();
        delivered == Delivered::Congested
    }
}

//! What is under way on a publishing channel, in the order in which it was published.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream::FuturesUnordered;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use linkspan_contract::{Body, Flags, Outcome, Refused};
use parking_lot::Mutex;

use super::Parcel;
use super::bell::Bell;
use super::entry::{Entry, Join, State};
use crate::delay_queue::{DelayQueue, DelayQueues};
use crate::gauge::Gauge;
use crate::now::at_once;
use crate::origin::Origin;
use crate::repeats::Verdict;
use crate::retained::is_safe;
use crate::translate::{Sender, closed, outgoing};

/// A publish that was handed to lapin, with the number of its entry: what the broker said, and what became of it here.
type Flight = Pin<Box<dyn Future<Output = (u64, lapin::Result<(Confirmation, Outcome)>)> + Send>>;

/// What a queue has taken is being written down; the number of the entry.
type Note = Pin<Box<dyn Future<Output = u64> + Send>>;

/// What ended a channel.
#[derive(Debug, Clone)]
pub(super) struct Failure(pub(super) lapin::Error);

/// The list, and the channel that it is published on.
pub(super) struct Inflight {
    entries: VecDeque<Entry>,
    /// The number of the first.
    first: u64,
    /// How many of them were handed to lapin.
    sent: usize,
    flights: FuturesUnordered<Flight>,
    notes: FuturesUnordered<Note>,
    bell: Arc<Bell>,
    /// Those of which it has become known what they have come to.
    landed: Vec<u64>,
    /// Confirmed, but perhaps sent back: their confirms brought what others were sent back.
    doubtful: Vec<u64>,
    window: usize,
    /// The window while the culprit of a closed channel is looked for, and how many suspects are left.
    careful: Option<(usize, usize)>,
    returns: Vec<BasicReturnMessage>,
    gauge: Arc<Gauge>,
    touched: Vec<Arc<Origin>>,
    delays: DelayQueues,
    /// How often something went on.
    steps: u64,
}

/// A large payload that has to be read before it can be published.
pub(super) struct Large(pub(super) Body);

impl Inflight {
    pub(super) fn new(window: usize, gauge: Arc<Gauge>) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            sent: 0,
            flights: FuturesUnordered::new(),
            notes: FuturesUnordered::new(),
            bell: Arc::default(),
            landed: Vec::new(),
            doubtful: Vec::new(),
            window,
            careful: None,
            returns: Vec::new(),
            gauge,
            touched: Vec::new(),
            delays: DelayQueues::default(),
            steps: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How often something went on: sent, confirmed, written down.
    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    /// True when all that is left waits to be written down, or for what is: nothing of it is at the broker, and the next one
    /// does not wait for another publisher's that is.
    pub(super) fn is_stuck(&self) -> bool {
        self.flights.is_empty() && !self.entries.get(self.sent).is_some_and(Entry::waits_for_the_broker)
    }

    pub(super) fn add(&mut self, parcel: &Parcel) {
        for (at, message, goal, seq) in parcel.letters() {
            let legs = goal.legs();
            let all = || Join { all: Mutex::new((legs, Outcome::Unroutable)), known: AtomicU16::new(0) };
            let join = (legs > 1).then(|| Arc::new(all()));
            for leg in 0..legs {
                self.entries.push_back(Entry {
                    origin: Arc::clone(&parcel.origin),
                    batch: Arc::clone(&parcel.batch),
                    at,
                    goal: Arc::clone(goal),
                    leg,
                    join: join.clone(),
                    seq,
                    from: parcel.from.clone(),
                    // Also for who waits for nothing: what no queue has taken is not remembered.
                    mandatory: message.flags.any(Flags::RECEIPT | Flags::MANDATORY)
                        || goal.repeats(leg).is_some(),
                    repeat: None,
                    is_exempt: false,
                    safe: seq.and_then(|_| parcel.safe_at(at)),
                    returned: None,
                    state: State::Waiting,
                });
            }
        }
    }

    /// Publishes what the window lets. Yields a payload that has to be read first; then call it again with it.
    pub(super) fn send(
        &mut self,
        channel: &Arc<Channel>,
        sender: &Sender<'_>,
        mut large: Option<Bytes>,
        waker: &Waker,
    ) -> Result<Option<Large>, Failure> {
        let window = self.careful.map_or(self.window, |(window, _)| window);
        while self.flights.len() < window && self.sent < self.window.saturating_mul(4) {
            let Some(entry) = self.entries.get_mut(self.sent) else { return Ok(None) };
            if !matches!(entry.state, State::Waiting) {
                self.sent += 1;
                continue;
            }
            // What was read is for this one, which was judged before.
            let verdict = if large.is_some() { Verdict::New } else { entry.judge(waker) };
            match verdict {
                Verdict::New => {}
                Verdict::Wait => return Ok(None),
                Verdict::Known => {
                    entry.state = State::Landed(Outcome::Accepted);
                    self.landed.push(self.first + self.sent as u64);
                    self.sent += 1;
                    continue;
                }
            }
            self.steps += 1;
            let batch = entry.batch.batch();
            let Some(message) = batch.message(entry.at) else { return Ok(None) };
            let payload = match (&batch.body, large.take()) {
                (None, _) => None,
                (Some(Body::Shared(bytes)), _) => Some(bytes.clone()),
                (Some(Body::Stored(_)), Some(bytes)) => Some(bytes),
                (Some(body), None) => return Ok(Some(Large((*body).clone()))),
            };
            let (exchange, key) = entry.goal.way(entry.leg, &batch, message);
            let by_name = exchange.as_str().is_empty();
            let terms = entry.goal.terms(entry.leg);
            let delay = DelayQueue::of(&key, terms, &batch, message);
            let is_delayed = delay.is_some();
            let sender = Sender { from: entry.from.as_deref(), by_name, terms, is_delayed, ..*sender };
            let properties = match outgoing(&batch, message, &sender) {
                Ok(properties) => properties,
                Err(why) => {
                    entry.state = State::Landed(Outcome::Refused(why));
                    self.landed.push(self.first + self.sent as u64);
                    self.sent += 1;
                    continue;
                }
            };
            let key = match delay {
                None => key,
                Some(delay) => {
                    self.delays.declare(&delay, channel, sender.now);
                    // Somebody may have deleted it meanwhile.
                    entry.mandatory = true;
                    delay.name
                }
            };
            let options = BasicPublishOptions { mandatory: entry.mandatory, immediate: false };
            let (channel, span, owned) = (Arc::clone(channel), message.payload, Arc::clone(&entry.batch));
            let number = self.first + self.sent as u64;
            let safe = entry.safe.clone();
            let mut publish = Box::pin(async move {
                let published = match &payload {
                    Some(bytes) => channel.basic_publish(exchange, key, options, bytes, properties).await,
                    None => {
                        let bytes = span.of(owned.batch().bytes);
                        channel.basic_publish(exchange, key, options, bytes, properties).await
                    }
                };
                let confirmed = match published {
                    Ok(confirm) => confirm.await,
                    Err(error) => return (number, Err(error)),
                };
                match confirmed {
                    Ok(confirmation) => (number, Ok((confirmation, is_safe(safe).await))),
                    Err(error) => (number, Err(error)),
                }
            });
            // The first poll hands the frames over, in this order; who waits is told by the second.
            match at_once(publish.as_mut()) {
                Some((_, Err(error))) => return Err(Failure(error)),
                Some(done) => self.flights.push(Box::pin(std::future::ready(done))),
                None => self.flights.push(publish),
            }
            entry.state = State::Flying;
            self.sent += 1;
        }
        Ok(None)
    }

    /// The next one's payload is lost.
    pub(super) fn refuse_next(&mut self, error: &std::io::Error) {
        if let Some(entry) = self.entries.get_mut(self.sent) {
            entry.state = State::Landed(Outcome::Refused(Refused::Precondition(format!(
                "the stored payload cannot be read: {error}"
            ))));
            self.landed.push(self.first + self.sent as u64);
            self.sent += 1;
        }
    }

    /// Takes the confirms that are there; true when something has become known.
    pub(super) fn collect(&mut self, sender: &Sender<'_>, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let landing = self.land(cx);
        self.assign_returns(sender);
        if self.flights.is_empty() {
            // All that was sent back has come.
            self.landed.append(&mut self.doubtful);
        }
        let told = self.tell();
        let told = self.collect_notes(cx) || told;
        landing?;
        Ok(told)
    }

    /// Tells of what has been written down meanwhile.
    fn collect_notes(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(Some(number)) = Pin::new(&mut self.notes).poll_next(cx) {
            let place = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
            if let Some(entry) = self.entries.get_mut(place) {
                entry.noted();
                self.landed.push(number);
            }
        }
        self.tell()
    }

    /// Notes all that has become known. It ends when nothing more is known: what lapin knew before something that is
    /// found is found with it, but not in lapin's order.
    fn land(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let waker = self.bell.waker(cx.waker());
        let mut cx = Context::from_waker(&waker);
        let mut before = std::mem::take(&mut self.doubtful);
        let mut empty = false;
        let ended = loop {
            let (number, done) = match Pin::new(&mut self.flights).poll_next(&mut cx) {
                Poll::Ready(Some(landed)) => landed,
                Poll::Ready(None) => break Ok(()),
                // It may only have made a pause.
                Poll::Pending if self.bell.was_rung() => continue,
                Poll::Pending => break Ok(()),
            };
            let (confirmation, here) = match done {
                Ok(done) => done,
                Err(error) => break Err(Failure(error)),
            };
            let nacked = confirmation.is_nack();
            let returned = confirmation.take_message();
            let place = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
            let Some(entry) = self.entries.get_mut(place) else { continue };
            entry.state = State::Landed(if nacked {
                let queue = entry.goal.leg(entry.leg).1;
                let why = format!(
                    "the broker did not take a message to '{queue}': a queue that it goes to is full"
                );
                Outcome::Refused(Refused::Full(why))
            } else {
                here
            });
            match returned {
                Some(returned) => {
                    self.returns.push(returned);
                    self.doubtful.push(number);
                }
                None => {
                    empty = true;
                    self.landed.push(number);
                }
            }
            if let Some((_, suspects)) = &mut self.careful {
                *suspects = suspects.saturating_sub(1);
                if *suspects == 0 {
                    self.careful = None;
                }
            }
        };
        // lapin had nothing left that was sent back, and that is later than what was found in a turn of before.
        if empty {
            self.landed.append(&mut before);
        } else {
            self.doubtful.append(&mut before);
        }
        ended
    }

    fn assign_returns(&mut self, sender: &Sender<'_>) {
        for returned in std::mem::take(&mut self.returns) {
            let owner = self.entries.iter_mut().enumerate().find(|(_, entry)| {
                let open = entry.mandatory && entry.returned.is_none() && entry.was_sent();
                open && entry.sent_this(&returned, sender)
            });
            match owner {
                Some((at, entry)) => {
                    entry.returned = Some((returned.reply_code, returned.reply_text.as_str().into()));
                    let number = self.first + at as u64;
                    if let Some(at) = self.doubtful.iter().position(|doubtful| *doubtful == number) {
                        self.landed.push(self.doubtful.swap_remove(at));
                    }
                }
                None => metrics::counter!("linkspan_returns_unknown_total").increment(1),
            }
        }
    }

    /// Tells what has become of messages, and forgets them.
    fn tell(&mut self) -> bool {
        let mut landed = std::mem::take(&mut self.landed);
        let told = !landed.is_empty();
        self.steps += u64::from(told);
        landed.sort_unstable();
        for number in landed.drain(..) {
            let place = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
            let Some(entry) = self.entries.get_mut(place) else { continue };
            if let Some(queue) = entry.has_lost_its_delay_queue() {
                // It is declared again and the message published again, in its order.
                self.delays.forget_one(&queue);
                (entry.state, entry.returned, entry.is_exempt) = (State::Waiting, None, true);
                self.sent = self.sent.min(place);
                continue;
            }
            if let Some((repeats, id)) = entry.begin_to_note() {
                self.notes.push(Box::pin(async move {
                    repeats.note(id).await;
                    number
                }));
                continue;
            }
            entry.tell(&self.gauge, &mut self.touched);
        }
        self.landed = landed;
        while self.entries.front().is_some_and(|entry| matches!(entry.state, State::Done)) {
            self.entries.pop_front();
            self.first += 1;
            self.sent = self.sent.saturating_sub(1);
        }
        for origin in self.touched.drain(..) {
            origin.flush();
        }
        told
    }

    /// The channel is gone: what was not confirmed is published again, in its order; what nobody waits for and nothing
    /// keeps is not.
    pub(super) fn rewind(&mut self) {
        for (number, entry) in (self.first..).zip(self.entries.iter_mut()) {
            if entry.is_flying() {
                let flags = entry.batch.messages().get(entry.at as usize).map_or(Flags::NONE, |it| it.flags);
                if flags.any(Flags::RECEIPT | Flags::DURABLE | Flags::MANDATORY) {
                    entry.state = State::Waiting;
                    entry.returned = None;
                } else {
                    metrics::counter!("linkspan_messages_dropped_total", "reason" => "connection-lost")
                        .increment(1);
                    entry.withdraw();
                    entry.state = State::Landed(Outcome::Accepted);
                    self.landed.push(number);
                }
            }
        }
        self.returns.clear();
        self.flights.clear();
        self.delays.forget();
        // Confirmed is confirmed, wherever it was sent back to.
        self.landed.append(&mut self.doubtful);
        self.tell();
        self.sent = 0;
    }

    /// The broker closed the channel because of one of these messages: the set that it may be in is halved until it is
    /// found, and refused.
    pub(super) fn suspect(&mut self, why: &Refused) {
        let suspects = self.entries.iter().filter(|entry| entry.is_flying()).count();
        if suspects == 1
            && let Some((number, culprit)) =
                (self.first..).zip(self.entries.iter_mut()).find(|(_, entry)| entry.is_flying())
        {
            tracing::warn!(
                address = %culprit.goal.key,
                why = %why,
                "a message made the broker close a channel that others share; it is refused, the others are sent again"
            );
            metrics::counter!("linkspan_poison_messages_total").increment(1);
            culprit.state = State::Landed(Outcome::Refused(why.clone()));
            self.landed.push(number);
            self.careful = self.careful.filter(|(_, left)| *left > 1).map(|(_, left)| (1, left - 1));
        } else if suspects > 0 {
            let left = self.careful.map_or(suspects, |(_, left)| left.max(suspects));
            self.careful = Some((suspects.div_ceil(2), left));
        }
        self.rewind();
    }

    /// Waits for the broker's own words about the channel that was lost: who learned of it first may only know that it is
    /// closed. Nothing when there are none.
    pub(super) fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<Option<lapin::Error>> {
        loop {
            match ready!(Pin::new(&mut self.flights).poll_next(cx)) {
                Some((_, Err(error))) if closed(&error).is_some() => return Poll::Ready(Some(error)),
                // A confirm that came in time is asked for again: nobody can tell it from one that did not.
                Some(_) => {}
                None => return Poll::Ready(None),
            }
        }
    }

    /// The lane that this channel was for is over.
    pub(super) fn give_up(&mut self) {
        for entry in self.entries.drain(..) {
            entry.withdraw();
            if matches!(entry.state, State::Waiting) {
                metrics::counter!("linkspan_messages_dropped_total", "reason" => "publisher-gone")
                    .increment(1);
            }
            let last = entry.join.as_ref().is_none_or(|join| {
                let mut all = join.all.lock();
                all.0 = all.0.saturating_sub(1);
                all.0 == 0
            });
            if last && !matches!(entry.state, State::Done) {
                entry.done(&self.gauge);
            }
        }
        self.sent = 0;
        self.flights.clear();
        self.landed.clear();
        self.doubtful.clear();
    }
}

//! What the broker has for work queues: one persistent member of a shared subscription for each queue.

pub(crate) mod coordinator;

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use linkspan_contract::address::Pattern;
use linkspan_contract::neutral::NEUTRAL;
use linkspan_contract::{
    Backend, Batch, Body, Client, Connection, Destination, Flags, Lane, Message, Nobody, Outcome, Receipt,
    ReceiptSink, Refused, Seq, TargetId, What,
};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::house::House;
use crate::translate::{self, APART_FROM};
use crate::upstream::packet::Incoming;
use crate::upstream::session::Session;

/// The feeds of a back end, by vhost and queue.
#[derive(Default)]
pub(crate) struct Feeds {
    all: Mutex<HashMap<Place, Arc<Feed>, RandomState>>,
    /// Queues that make dead letters of what they do not take.
    burying: Mutex<HashSet<Place, RandomState>>,
}

/// A vhost and a queue there.
type Place = (Arc<str>, Arc<str>);

impl Feeds {
    pub(crate) fn of(&self, vhost: &Arc<str>, queue: impl Into<Arc<str>>) -> Option<Arc<Feed>> {
        self.all.lock().get(&(Arc::clone(vhost), queue.into())).cloned()
    }

    /// The feed of a queue; made when there is none. One that is about to end goes on: there must not be two members
    /// with the same client identifier.
    pub(crate) fn open(&self, vhost: &Arc<str>, queue: &str, make: impl FnOnce() -> Arc<Feed>) -> Arc<Feed> {
        let mut all = self.all.lock();
        let feed = Arc::clone(all.entry((Arc::clone(vhost), queue.into())).or_insert_with(make));
        feed.state.lock().turns += 1;
        feed
    }

    /// Removes a feed that was to end with that turn; false when it goes on.
    pub(crate) fn remove(&self, feed: &Feed, turn: u64) -> bool {
        let mut all = self.all.lock();
        let ends = feed.state.lock().turns == turn;
        if ends {
            all.remove(&(Arc::clone(&feed.vhost), Arc::clone(&feed.queue)));
        }
        ends
    }

    /// Whether a queue makes a dead letter of what it does not take.
    pub(crate) fn set_burying(&self, vhost: &Arc<str>, queue: &str, buries: bool) {
        let place = (Arc::clone(vhost), queue.into());
        let mut burying = self.burying.lock();
        if buries {
            burying.insert(place);
        } else {
            burying.remove(&place);
        }
    }

    fn buries(&self, feed: &Feed) -> bool {
        self.burying.lock().contains(&(Arc::clone(&feed.vhost), Arc::clone(&feed.queue)))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Feed>> {
        self.all.lock().values().cloned().collect()
    }
}

/// One queue's way from the broker.
pub(crate) struct Feed {
    pub(crate) vhost: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) session: Arc<Session>,
    state: Mutex<State>,
}

struct State {
    filters: Vec<Arc<str>>,
    /// What the broker had for these when they were given up belongs into the queue, too.
    former: Vec<Arc<str>>,
    /// Counts how often it was begun and ended.
    turns: u64,
    /// What these match and does not belong into the queue.
    except: Vec<Pattern>,
    hold: Hold,
    task: Option<AbortHandle>,
}

/// Whether this instance is the queue's member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    /// That is being found out.
    Asking,
    /// It is.
    Ours,
    /// It is not, and why.
    Not(String),
}

/// Where a message belongs that the broker had for a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belongs {
    /// Into the queue.
    Here,
    /// To another route, which gets it otherwise.
    Elsewhere,
    /// It was sent for a filter of a former life.
    Nowhere,
}

impl Feed {
    pub(crate) fn new(vhost: Arc<str>, queue: Arc<str>, session: Arc<Session>) -> Arc<Self> {
        let state = State {
            filters: Vec::new(),
            former: Vec::new(),
            turns: 0,
            except: Vec::new(),
            hold: Hold::Asking,
            task: None,
        };
        Arc::new(Self { vhost, queue, session, state: Mutex::new(state) })
    }

    /// From now on these filters and no others, but for what `except` matches.
    pub(crate) fn set_filters(&self, filters: &[&str], except: &[&str]) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.except = except.iter().map(|filter| Pattern::from_filter(filter)).collect();
        for filter in filters {
            if !state.filters.iter().any(|known| **known == **filter) {
                self.session.want(filter);
                state.filters.push((*filter).into());
            }
        }
        for over in state.filters.extract_if(.., |known| !filters.contains(&&**known)) {
            self.session.release(&over);
            if !state.former.contains(&over) {
                state.former.push(over);
            }
        }
    }

    /// It is about to end: nothing more is subscribed to for it. The turn with which it does.
    pub(crate) fn ends(&self) -> u64 {
        self.set_filters(&[], &[]);
        let mut state = self.state.lock();
        state.turns += 1;
        state.turns
    }

    /// Where a message of that topic belongs.
    fn place_of(&self, topic: &[u8]) -> Belongs {
        let state = self.state.lock();
        if state.except.iter().any(|filter| filter.matches(topic)) {
            Belongs::Elsewhere
        } else if state.filters.iter().chain(&state.former).any(|it| Pattern::from_filter(it).matches(topic))
        {
            Belongs::Here
        } else {
            Belongs::Nowhere
        }
    }

    pub(crate) fn hold(&self, hold: Hold) {
        self.state.lock().hold = hold;
    }

    /// The task that carries it.
    pub(crate) fn is_carried_by(&self, task: AbortHandle) {
        self.state.lock().task = Some(task);
    }

    /// Whether somebody carries it: nobody does before it has begun, and after it was taken over.
    pub(crate) fn is_carried(&self) -> bool {
        self.state.lock().task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Ends it at once.
    pub(crate) fn abort(&self) {
        if let Some(task) = self.state.lock().task.take() {
            task.abort();
        }
    }

    /// Whether the queue may be worked here.
    ///
    /// # Errors
    /// Who works it.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        match &self.state.lock().hold {
            Hold::Asking | Hold::Ours => Ok(()),
            Hold::Not(why) => {
                Err(Refused::AccessRefused(format!("queue '{}' is not worked here: {why}", self.queue)))
            }
        }
    }

    /// Whether it is the member of that shared subscription.
    pub(crate) fn is_member_of(&self, group: &str, filter: &str) -> bool {
        Self::share(&self.vhost, &self.queue) == group
            && self.state.lock().filters.iter().any(|known| **known == *filter)
    }

    /// The client identifier at the broker.
    pub(crate) fn identifier(vhost: &str, queue: &str) -> String {
        if vhost == "/" { format!("linkspan.{queue}") } else { format!("linkspan.{vhost}.{queue}") }
    }

    /// The queue's name as that of a shared subscription, in which some letters cannot be.
    pub(crate) fn share(vhost: &str, queue: &str) -> String {
        let name = if vhost == "/" { queue.into() } else { format!("{vhost}.{queue}") };
        let mut share = String::with_capacity(name.len());
        for letter in name.chars() {
            match letter {
                '/' | '+' | '#' | '%' => share.push_str(&format!("%{:02X}", u32::from(letter))),
                other => share.push(other),
            }
        }
        share
    }
}

/// Puts messages into a queue, and has each acknowledged when it is there.
pub(crate) struct Feeder {
    house: Arc<House>,
    feed: Arc<Feed>,
    _connection: Box<dyn Connection>,
    lane: Box<dyn Lane>,
    target: TargetId,
    /// What the queue has taken and not yet made safe.
    unsafe_yet: Arc<Unsafe>,
    /// The number of the next receipt.
    next: Seq,
    bytes: Vec<u8>,
    messages: Vec<Message>,
}

/// Messages by the numbers of their receipts: generation and packet identifier at the broker.
struct Unsafe {
    session: Arc<Session>,
    numbers: Mutex<HashMap<Seq, (u64, u16), RandomState>>,
}

impl ReceiptSink for Unsafe {
    fn receipts(&self, runs: &[Receipt]) {
        for run in runs {
            for seq in run.first..run.first.saturating_add(run.count.into()) {
                let found = self.numbers.lock().remove(&seq);
                if let (Some((generation, packet_id)), Outcome::Accepted) = (found, &run.outcome) {
                    // What it breaks is noticed by who reads.
                    let _ = self.session.acknowledge(generation, std::iter::once((packet_id, false)));
                }
            }
        }
    }
}

impl Feeder {
    pub(crate) async fn open(house: &Arc<House>, feed: Arc<Feed>) -> Option<Self> {
        let client = Client {
            number: u64::MAX,
            identifier: "linkspan".into(),
            user: "linkspan".into(),
            vhost: Arc::clone(&feed.vhost),
            session: None,
        };
        let unsafe_yet = Arc::new(Unsafe { session: Arc::clone(&feed.session), numbers: Mutex::default() });
        let mut connection = house.inner.connect(&client, Arc::new(Nobody)).await.ok()?;
        let lane = connection.lane(Arc::clone(&unsafe_yet) as _, Arc::new(Nobody)).await;
        let mut lane = lane.ok()?;
        let target = lane.target(&Destination::Queue { name: &feed.queue, more: &[] });
        Some(Self {
            house: Arc::clone(house),
            feed,
            _connection: connection,
            lane,
            target,
            unsafe_yet,
            next: 0,
            bytes: Vec::new(),
            messages: Vec::new(),
        })
    }

    /// Puts a message into the queue. It is acknowledged as soon as it is safe there.
    ///
    /// # Errors
    /// Why the queue does not take it now; the same again later may succeed.
    pub(crate) fn put(&mut self, message: &Incoming, generation: u64) -> Result<(), Refused> {
        let number = message.packet_id.map(|packet_id| (generation, packet_id));
        let belongs = self.feed.place_of(&message.topic);
        if belongs == Belongs::Nowhere {
            metrics::counter!("linkspan_messages_dropped_total", "reason" => "stale-subscription")
                .increment(1);
        }
        if belongs != Belongs::Here {
            self.acknowledge(number);
            return Ok(());
        }
        self.bytes.clear();
        self.messages.clear();
        translate::append(message, self.target, &mut self.bytes, &mut self.messages);
        for head in &mut self.messages {
            head.flags |= Flags::RECEIPT;
        }
        let apart = message.payload.len() >= APART_FROM;
        let body = apart.then(|| Body::Shared(message.payload.clone()));
        let batch = Batch { body: body.as_ref(), ..Batch::new(&self.bytes, &self.messages, &NEUTRAL) };
        // Its receipt may come before `publish` returns.
        let seq = self.next;
        if let Some(number) = number {
            self.unsafe_yet.numbers.lock().insert(seq, number);
        }
        let published = self.lane.publish(&batch);
        self.lane.flush();
        self.next = self.next.saturating_add(published.wanting.into());
        if published.done == published.wanting {
            self.unsafe_yet.numbers.lock().remove(&seq);
        }
        match published.exceptions.into_iter().next() {
            // Another try would make another dead letter, and its publisher was told long ago.
            Some((_, Outcome::Refused(Refused::Full(_)))) if self.house.feeds.buries(&self.feed) => {
                self.acknowledge(number);
                Ok(())
            }
            Some((_, Outcome::Refused(why) | Outcome::Failed(why))) => Err(why),
            Some((_, Outcome::Unroutable)) => {
                Err(Refused::NotFound { what: What::Queue, name: self.feed.queue.to_string() })
            }
            Some((_, Outcome::Accepted)) | None => {
                if published.done == published.wanting {
                    self.acknowledge(number);
                }
                Ok(())
            }
        }
    }

    fn acknowledge(&self, number: Option<(u64, u16)>) {
        if let Some((generation, packet_id)) = number {
            // What it breaks is noticed by who reads.
            let _ = self.feed.session.acknowledge(generation, std::iter::once((packet_id, false)));
        }
    }
}

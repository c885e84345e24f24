//! The task of a consuming channel.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use lapin::Channel;
use lapin::types::ShortString;
use linkspan_contract::{Clock, DeliverySink, DeliveryTag, Millis, Refused, Seq, SubscriptionKey};
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::held::Held;
use super::taker::{Source, Taker};
use super::transaction::{Committed, Transaction};
use super::{Command, Consumers, Hungry, Reply};
use crate::fate::Fate;
use crate::group::Groups;
use crate::options::AmqpOptions;
use crate::origin::Origin;
use crate::translate::Arrived;
use crate::upstream::{Live, Upstream};

/// What a consuming channel is made of.
pub(crate) struct Plan {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) options: Arc<AmqpOptions>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) sink: Arc<dyn DeliverySink>,
    /// The client is given again what it has not settled, when it asks.
    pub(crate) keeps: bool,
    /// What becomes of the session, once the channel is over.
    pub(crate) fate: watch::Receiver<Fate>,
}

/// Starts a consuming channel. It is opened when it is first needed.
pub(crate) fn start(plan: Plan) -> Consumers {
    let (consumers, commands) = Consumers::new(Arc::clone(&plan.upstream.backend));
    let hungry = Arc::clone(&consumers.hungry);
    let worker = Worker {
        sink: Arc::clone(&plan.sink),
        plan,
        commands,
        link: None,
        seen: 0,
        waiting: None,
        takers: Vec::new(),
        held: Held::default(),
        due: BTreeMap::new(),
        alarm: Box::pin(sleep(Duration::ZERO)),
        serial: 0,
        transaction: None,
        scratch: Arrived::default(),
        words: Vec::new(),
        copies: HashMap::default(),
        later: false,
        leaving: None,
        late: Vec::new(),
        hungry,
        strays: false,
        suspects: Vec::new(),
        ends: Vec::new(),
        undone: Vec::new(),
        turn: 0,
    };
    tokio::spawn(worker.run());
    consumers
}

/// Waits for a connection.
pub(super) type Waiting = Pin<Box<dyn Future<Output = Option<Arc<Live>>> + Send>>;

pub(super) struct Worker {
    pub(super) plan: Plan,
    commands: UnboundedReceiver<Command>,
    pub(super) sink: Arc<dyn DeliverySink>,
    /// The channel and the connection that it is on.
    pub(super) link: Option<(Arc<Live>, Arc<Channel>)>,
    /// The generation of the last connection.
    pub(super) seen: u64,
    pub(super) waiting: Option<Waiting>,
    pub(super) takers: Vec<Taker>,
    pub(super) held: Held,
    /// What becomes due, and when.
    pub(super) due: BTreeMap<(Millis, u64), Due>,
    alarm: Pin<Box<Sleep>>,
    pub(super) serial: u64,
    pub(super) transaction: Option<Transaction>,
    pub(super) scratch: Arrived,
    /// Settlements whose safety somebody waits to hear of.
    pub(super) words: Vec<Seq>,
    /// Of messages that several subscriptions of the session were given, by the broker's numbers: how many of them have
    /// still to settle.
    pub(super) copies: HashMap<u64, usize, RandomState>,
    /// The channel is opened when something is due.
    pub(super) later: bool,
    /// Under what is due, when the client is away and has left something unsettled: that its channel is given up.
    pub(super) leaving: Option<(Millis, u64)>,
    /// Deliveries whose deadline has passed.
    pub(super) late: Vec<(SubscriptionKey, DeliveryTag)>,
    /// Who waits for credit; the lane looks.
    pub(super) hungry: Arc<Mutex<Vec<Hungry>>>,
    /// A consumer was cancelled on this channel: lapin may have dropped what came for it.
    pub(super) strays: bool,
    /// What nobody had when it was last looked.
    pub(super) suspects: Vec<u64>,
    /// Consumers that have ended, and how, while others were looked at.
    pub(super) ends: Vec<(SubscriptionKey, Source)>,
    /// What was given to nobody, by the broker's numbers.
    pub(super) undone: Vec<(SubscriptionKey, u64)>,
    /// Which consumer comes first.
    pub(super) turn: usize,
}

/// What becomes due.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    /// A delivery's deadline.
    Deadline(SubscriptionKey, DeliveryTag),
    /// A delayed release of the broker's number.
    Release(SubscriptionKey, u64),
    /// Another attempt to open the channel.
    Opening,
    /// The end of a channel whose client does not come back.
    Leaving,
}

/// What needs more than a look.
pub(super) enum Turn {
    Command(Command),
    Lost(lapin::Error),
    Cancelled(usize),
    Adjust(usize),
    Late,
    Undo,
    Words,
    Replace,
    Open,
    Rest,
    Back(Option<Arc<Live>>),
    Over,
}

impl Worker {
    async fn run(mut self) {
        loop {
            match poll_fn(|cx| self.turn(cx)).await {
                Turn::Command(command) => self.obey(command).await,
                Turn::Lost(error) => self.struck(&error).await,
                Turn::Cancelled(at) if self.is_of_session(at) => self.cancelled_session(at).await,
                Turn::Cancelled(at) => self.cancelled(at),
                Turn::Adjust(at) => self.adjust(at).await,
                Turn::Late => self.release_late().await,
                Turn::Undo => self.undo().await,
                Turn::Words => self.tell_words().await,
                Turn::Replace => self.replace().await,
                Turn::Open => self.open().await,
                Turn::Rest => self.rest().await,
                Turn::Back(Some(live)) => self.back(live).await,
                Turn::Back(None) | Turn::Over => break,
            }
        }
        self.end().await;
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        loop {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(Command::Settle(runs))) => self.settle(&runs),
                Poll::Ready(Some(Command::Resume(prepaid))) => {
                    self.turn = self.turn.wrapping_add(1);
                    self.prepay(prepaid);
                }
                Poll::Ready(Some(Command::Start(key))) => {
                    if let Some(taker) = self.takers.iter_mut().find(|taker| taker.wanted.key == key) {
                        taker.start();
                        self.hungry.lock().retain(|other| other.key != key);
                    }
                    for taker in &mut self.takers {
                        taker.start_interest(key);
                    }
                }
                Poll::Ready(Some(Command::Publish(parcel))) => self.hold(parcel),
                Poll::Ready(Some(command)) => {
                    self.tell_acks();
                    return Poll::Ready(Turn::Command(command));
                }
                Poll::Ready(None) => {
                    self.tell_acks();
                    return Poll::Ready(Turn::Over);
                }
                Poll::Pending => break,
            }
        }
        self.tell_acks();
        if !self.words.is_empty() {
            return Poll::Ready(Turn::Words);
        }
        if let Some(waiting) = &mut self.waiting
            && let Poll::Ready(live) = waiting.as_mut().poll(cx)
        {
            self.waiting = None;
            return Poll::Ready(Turn::Back(live));
        }
        if let Some(turn) = self.next_end() {
            return Poll::Ready(turn);
        }
        if !self.undone.is_empty() {
            return Poll::Ready(Turn::Undo);
        }
        if let Some(turn) = self.deliver(cx) {
            return Poll::Ready(turn);
        }
        if !self.undone.is_empty() {
            return Poll::Ready(Turn::Undo);
        }
        self.look_who_left();
        while let Some(((at, _), _)) = self.due.first_key_value() {
            let now = self.plan.clock.now();
            if *at <= now {
                if self.fall_due(now) {
                    return Poll::Ready(Turn::Rest);
                }
                continue;
            }
            let wait = Duration::from_millis(at - now);
            self.alarm.as_mut().reset(Instant::now() + wait);
            if self.alarm.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        self.tell_acks();
        if !self.late.is_empty() {
            return Poll::Ready(Turn::Late);
        }
        let unsettling = self.plan.options.prefetch;
        if self.link.is_some()
            && let Some(at) = self.takers.iter().position(|it| it.is_to_be_adjusted(unsettling))
        {
            return Poll::Ready(Turn::Adjust(at));
        }
        if self.is_to_be_opened() {
            return Poll::Ready(Turn::Open);
        }
        if self.link.is_some() && self.is_at_rest() {
            return Poll::Ready(Turn::Rest);
        }
        if self.strays && self.transaction.is_none() && self.held.is_empty() && !self.is_anything_due() {
            return Poll::Ready(Turn::Replace);
        }
        Poll::Pending
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Subscribe(wanted, reply) => {
                let done = self.subscribe(*wanted).await;
                answer(reply, done);
            }
            Command::Attend(inbox, interest, credit, reply) => {
                let done = self.attend(&inbox, *interest, credit).await;
                answer(reply, done);
            }
            Command::Unsubscribe(key, reply) => {
                self.unsubscribe(key).await;
                answer(reply, Ok(()));
            }
            Command::Fetch(queue, key, settled, reply) => {
                let done = self.fetch(queue, key, settled).await;
                answer(reply, done);
            }
            Command::Recover(requeue, reply) => {
                let done = self.recover(requeue).await;
                answer(reply, done);
            }
            Command::Attach(sink) => {
                self.sink = sink;
                for taker in &mut self.takers {
                    (taker.gone, taker.congested) = (false, false);
                }
            }
            Command::Begin(reply) => {
                let done = self.begin().await;
                answer(reply, done);
            }
            Command::Commit(reply) => match self.commit().await {
                Ok(committed) if committed.has_ids() => {
                    tokio::spawn(tell_when_noted(committed, Arc::clone(&self.plan.origin), reply));
                }
                Ok(committed) => {
                    committed.tell(&self.plan.origin);
                    answer(reply, Ok(()));
                }
                Err(why) => answer(reply, Err(why)),
            },
            Command::Rollback(reply) => {
                let done = self.rollback().await;
                answer(reply, done);
            }
            Command::Start(_) | Command::Settle(_) | Command::Resume(_) | Command::Publish(_) => {}
        }
    }

    async fn end(mut self) {
        if let Some((live, channel)) = self.link.take()
            && live.is_connected()
        {
            let text = ShortString::try_new("OK").unwrap_or_default();
            let closed = timeout(Duration::from_secs(5), channel.close(200, text)).await;
            if closed.is_err() {
                tracing::debug!("the broker did not agree to the end of a channel in time");
            }
        }
        let is_over = !self.plan.keeps || Fate::is_over(&mut self.plan.fate).await;
        for taker in std::mem::take(&mut self.takers) {
            if is_over {
                self.leave_group(&taker.wanted).await;
            } else if taker.wanted.group {
                self.plan.groups.leave(taker.wanted.queue.as_str());
            }
        }
    }
}

/// Tells of a commit when it is written down what queues have taken; the ledger may be away, and the lane does not wait for it.
/// What the broker has taken is written down even when nobody waits any more.
async fn tell_when_noted(committed: Committed, origin: Arc<Origin>, mut reply: Reply<()>) {
    tokio::select! {
        biased;
        () = committed.noted() => {
            committed.tell(&origin);
            answer(reply, Ok(()));
        }
        () = reply.closed() => {}
    }
}

fn answer<T>(reply: Reply<T>, done: Result<T, Refused>) {
    if reply.send(done).is_err() {
        tracing::debug!("nobody waits for an answer any more");
    }
}

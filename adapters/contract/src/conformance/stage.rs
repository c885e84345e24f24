//! Where a check plays: a back end, and clients that act on it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::address::Syntax;
use crate::backend::{Backend, Connection, Lane};
use crate::batch::{Batch, Kept};
use crate::capabilities::{Capabilities, Support};
use crate::client::Client;
use crate::conformance::Fixture;
use crate::conformance::heard::Heard;
use crate::conformance::letters::Letters;
use crate::conformance::recorder::{Given, Recorder};
use crate::credit::Credit;
use crate::destination::Destination;
use crate::events::LaneEvent;
use crate::message::TargetId;
use crate::receipt::{Outcome, Published, Receipt, Seq};
use crate::refusal::Refused;
use crate::session::SessionTerms;
use crate::settlement::{DeliveryTag, Settled, Settlement};
use crate::sink::SubscriptionKey;
use crate::source::{Settle, Source, Subscribe};
use crate::topology::{Argument, Binding, BindingEnd, QueueSpec};

/// One check's back end.
pub struct Stage<'f> {
    fixture: &'f dyn Fixture,
    backend: Arc<dyn Backend>,
    check: String,
    _company: Company,
}

/// Who watches everything at a broker that others use must be alone: to the others nothing would be unroutable.
#[allow(dead_code, reason = "held, not looked at")]
enum Company {
    Alone(RwLockWriteGuard<'static, ()>),
    Others(RwLockReadGuard<'static, ()>),
}

static ROOM: RwLock<()> = RwLock::const_new(());

/// The checks that watch everything.
const ALONE: [&str; 1] = ["leading_wildcards_spare_dollar_addresses"];

static CLIENTS: AtomicU64 = AtomicU64::new(1);
static STAGES: AtomicU64 = AtomicU64::new(1);

impl<'f> Stage<'f> {
    /// A stage for the check of that name.
    pub async fn new(fixture: &'f dyn Fixture, check: &str) -> Self {
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let company = if ALONE.contains(&check) {
            Company::Alone(ROOM.write().await)
        } else {
            Company::Others(ROOM.read().await)
        };
        let check = format!("{check}-{}-{number}", std::process::id());
        Self { fixture, backend: fixture.backend().await, check, _company: company }
    }

    /// The end of a check that went well.
    pub async fn close(self) {
        self.backend.close().await;
    }

    /// A name that only this check uses.
    pub fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.check)
    }

    /// What the back end can do.
    pub fn can(&self, feature: impl FnOnce(&Capabilities) -> Support) -> bool {
        !matches!(feature(self.backend.capabilities()), Support::Absent(_))
    }

    /// Whether a broker of its own lies behind the back end.
    pub fn is_remote(&self) -> bool {
        self.fixture.is_remote()
    }

    /// A number that only this check uses.
    pub fn number(&self) -> u32 {
        self.check.bytes().fold(7, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()))
    }

    /// Lets time pass.
    pub async fn pass(&self, millis: u64) {
        self.fixture.pass(millis).await;
    }

    /// Waits as long as it takes to be sure that nothing comes any more.
    pub async fn settle_down(&self) {
        tokio::time::sleep(self.fixture.quiet()).await;
    }

    /// A client of its own.
    pub async fn client(&self) -> Peer<'_> {
        self.client_that_keeps(0).await
    }

    /// A client whose session outlives its socket by so many seconds.
    pub async fn client_that_keeps(&self, keep_session: u32) -> Peer<'_> {
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let terms =
            SessionTerms { at_broker: false, fresh: true, keep: keep_session, window: 100, will: None };
        self.client_called(number, &format!("client-{number}"), (keep_session > 0).then_some(terms)).await
    }

    /// A client of that identifier, whose session, if it has one, may have begun earlier.
    pub async fn client_of_session(&self, identifier: &str, fresh: bool) -> Peer<'_> {
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let terms = SessionTerms { at_broker: false, fresh, keep: 3600, window: 100, will: None };
        self.client_called(number, identifier, Some(terms)).await
    }

    async fn client_called(&self, number: u64, identifier: &str, terms: Option<SessionTerms>) -> Peer<'_> {
        let client = Client {
            number,
            identifier: identifier.into(),
            user: "guest".into(),
            vhost: "/".into(),
            session: terms.map(Arc::new),
        };
        let recorder = Arc::new(Recorder::default());
        let mut connection =
            self.backend.connect(&client, recorder.clone()).await.expect("a client connects");
        let heard = Arc::new(Heard::default());
        let lane = connection.lane(heard.clone(), heard.clone()).await.expect("a lane opens");
        Peer { stage: self, connection, lane, recorder, heard }
    }
}

/// A client with one lane.
pub struct Peer<'s> {
    stage: &'s Stage<'s>,
    /// Its scope.
    pub connection: Box<dyn Connection>,
    lane: Box<dyn Lane>,
    recorder: Arc<Recorder>,
    heard: Arc<Heard>,
}

/// The key of a check's subscription.
pub const fn key(subscription: u32) -> SubscriptionKey {
    SubscriptionKey { subscription, part: 0 }
}

impl Peer<'_> {
    /// The client's sink.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// A further sink for the same client.
    pub fn attach_another(&mut self) {
        self.recorder = Arc::new(Recorder::default());
        self.connection.attach(self.recorder.clone());
    }

    /// Replaces the lane by a new one: what it held is released.
    pub async fn lose_lane(&mut self) {
        self.lane = self.connection.lane(self.heard.clone(), self.heard.clone()).await.expect("a lane opens");
    }

    /// The target of an address, as a topic.
    pub fn to_topic(&mut self, topic: &str) -> TargetId {
        let path = topic.as_bytes();
        self.lane.target(&Destination::Address { path, syntax: Syntax::Topic, more: &[], queues: &[] })
    }

    /// The target of a queue.
    pub fn to_queue(&mut self, name: &str) -> TargetId {
        self.lane.target(&Destination::Queue { name, more: &[] })
    }

    /// The target of an exchange and key.
    pub fn to_exchange(&mut self, name: &str, key: &str) -> TargetId {
        self.lane.target(&Destination::Exchange { name, key: key.as_bytes(), more: &[] })
    }

    /// Publishes and flushes; `done` and `wanting` are left as they came.
    pub fn publish(&mut self, letters: &Letters) -> Published {
        self.publish_batch(&letters.batch())
    }

    /// The same with messages of any form.
    pub fn publish_batch(&mut self, batch: &Batch<'_>) -> Published {
        let published = self.lane.publish(batch);
        self.lane.flush();
        published
    }

    /// Publishes and waits until all receipts are there; what was not accepted is told by place.
    pub async fn confirm(&mut self, letters: &Letters) -> Vec<(u32, Outcome)> {
        let published = self.publish(letters);
        assert_eq!(published.taken as usize, letters.batch().messages.len(), "all were to be dealt with");
        let mut exceptions = published.exceptions.to_vec();
        let all = published.first + u64::from(published.done)..published.first + u64::from(published.wanting);
        for receipt in self.receipts(all.clone()).await {
            for seq in receipt.first..receipt.first + u64::from(receipt.count) {
                if receipt.outcome != Outcome::Accepted && all.contains(&seq) {
                    let place = u32::try_from(seq - published.first).expect("a batch is small");
                    exceptions.push((place, receipt.outcome.clone()));
                }
            }
        }
        exceptions
    }

    /// Publishes what cannot be taken, and waits until that is told: by `publish` itself, or by the end of the lane. Tells
    /// the code and text that an AMQP client would get.
    pub async fn expect_refusal(&mut self, letters: &Letters) -> (u16, String) {
        let published = self.publish(letters);
        if let Some((_, Outcome::Refused(why))) = published.exceptions.last() {
            let code = match why {
                Refused::NotFound { .. } => 404,
                Refused::AccessRefused(_) => 403,
                _ => 406,
            };
            return (code, why.to_string());
        }
        assert!(self.stage.is_remote(), "it was to be refused at once: {published:?}");
        let closed = async {
            loop {
                for event in self.events() {
                    if let LaneEvent::Closed { code, text } = event {
                        return (code, text.to_string());
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let closed = tokio::time::timeout(self.stage.fixture.patience(), closed).await;
        let refusal = closed.expect("the lane was to be closed");
        self.heard.events.lock().clear();
        self.lose_lane().await;
        refusal
    }

    /// Waits until these numbers were told by the receipt sink.
    pub async fn receipts(&self, numbers: std::ops::Range<Seq>) -> Vec<Receipt> {
        let told = async {
            loop {
                let receipts = self.heard.receipts.lock().clone();
                let is_told = |seq: &Seq| {
                    receipts.iter().any(|it| (it.first..it.first + u64::from(it.count)).contains(seq))
                };
                if numbers.clone().all(|seq| is_told(&seq)) {
                    return receipts;
                }
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let told = tokio::time::timeout(self.stage.fixture.patience(), told).await;
        told.unwrap_or_else(|_| {
            panic!("receipts {numbers:?} were due; these came: {:?}", self.heard.receipts)
        })
    }

    /// Waits until a message was given back as one that nobody takes.
    pub async fn expect_return(&self) -> Kept {
        let returned = async {
            loop {
                let events = self.heard.events.lock().clone();
                let found = events.into_iter().find_map(|event| match event {
                    LaneEvent::Returned { message, code: 312, .. } => Some(message),
                    _ => None,
                });
                match found {
                    Some(message) => return message,
                    None => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                }
            }
        };
        let returned = tokio::time::timeout(self.stage.fixture.patience(), returned).await;
        returned.unwrap_or_else(|_| panic!("a message was to be given back; events: {:?}", self.heard.events))
    }

    /// The events so far.
    pub fn events(&self) -> Vec<LaneEvent> {
        self.heard.events.lock().clone()
    }

    /// Subscribes and starts; a window of 0 is none.
    pub async fn subscribe_how(
        &mut self,
        source: Source<'_>,
        number: u32,
        how: &Subscribe<'_>,
        window: u32,
    ) -> Arc<Credit> {
        let credit = Arc::new(Credit::new(window));
        let lent = (window > 0).then(|| Arc::clone(&credit));
        self.lane.subscribe(&source, key(number), how, lent).await.expect("a subscription is made");
        self.lane.start(key(number));
        self.lane.flush();
        credit
    }

    /// Subscribes to a filter that nobody settles.
    pub async fn watch(&mut self, filter: &str, number: u32) {
        self.subscribe_how(Source::Filter(filter), number, &Subscribe::new(Settle::OnDelivery), 0).await;
    }

    /// Consumes from a queue, settling, within a window.
    pub async fn consume(&mut self, queue: &str, number: u32, window: u32) -> Arc<Credit> {
        self.subscribe_how(Source::Queue(queue), number, &Subscribe::new(Settle::ByConsumer), window).await
    }

    /// Settles a run, flushes, and lets the back end go on.
    pub fn settle(&mut self, number: u32, first: DeliveryTag, count: u32, outcome: Settlement) {
        self.settle_word(number, first, count, outcome, None);
    }

    /// The same with a word.
    pub fn settle_word(
        &mut self,
        number: u32,
        first: DeliveryTag,
        count: u32,
        outcome: Settlement,
        word: Option<Seq>,
    ) {
        self.lane.settle(&[Settled { key: key(number), first, count, outcome, word }]);
        self.lane.resume();
        self.lane.flush();
    }

    /// Accepts a delivery.
    pub fn accept(&mut self, given: &Given) {
        self.settle(given.key.subscription, given.tag, 1, Settlement::Accept);
    }

    /// Lets the back end go on.
    pub fn resume(&mut self) {
        self.lane.resume();
        self.lane.flush();
    }

    /// Waits for `count` deliveries and takes them.
    pub async fn expect(&self, count: usize) -> Vec<Given> {
        self.recorder.expect(count, self.stage.fixture.patience()).await
    }

    /// Waits for `count` deliveries and tells their payloads.
    pub async fn expect_payloads(&self, count: usize) -> Vec<String> {
        self.expect(count).await.into_iter().map(|given| given.payload).collect()
    }

    /// Waits for deliveries of exactly these numbers, in order.
    pub async fn expect_numbers(&self, numbers: impl IntoIterator<Item = u32>) -> Vec<Given> {
        let numbers: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
        let given = self.expect(numbers.len()).await;
        let payloads: Vec<_> = given.iter().map(|given| given.payload.clone()).collect();
        assert_eq!(payloads, numbers, "what was published is to come in its order");
        given
    }

    /// Waits a while; nothing must come.
    pub async fn expect_nothing(&self) {
        self.stage.settle_down().await;
        let given = self.recorder.take_all();
        assert!(given.is_empty(), "nothing was to come, but this did: {given:?}");
    }

    /// Waits until the back end ended a subscription.
    pub async fn expect_end(&self) -> (SubscriptionKey, crate::sink::Ended) {
        self.recorder.expect_end(self.stage.fixture.patience()).await
    }

    /// Declares a durable queue.
    pub async fn queue(&mut self, name: &str, arguments: &[Argument<'_>]) {
        self.lane.declare_queue(&queue_spec(name, arguments)).await.expect("a queue is declared");
    }

    /// Binds a queue.
    pub async fn bind_queue(&mut self, source: &str, queue: &str, key: &str) {
        let to = BindingEnd::Queue(queue);
        let binding = Binding { source, to, key: key.as_bytes(), arguments: &[] };
        self.lane.bind(&binding).await.expect("a queue is bound");
    }
}

/// A durable queue to be declared.
pub fn queue_spec<'a>(name: &'a str, arguments: &'a [Argument<'a>]) -> QueueSpec<'a> {
    QueueSpec { durable: true, arguments, ..QueueSpec::new(name) }
}

impl Deref for Peer<'_> {
    type Target = dyn Lane;

    fn deref(&self) -> &Self::Target {
        &*self.lane
    }
}

impl DerefMut for Peer<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.lane
    }
}

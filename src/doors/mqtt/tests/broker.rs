//! A broker for tests: publish-subscribe only, everything recorded, receipts and refusals on demand.

use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use linkspan_contract::address::Pattern;
use linkspan_contract::*;
use parking_lot::Mutex;

use crate::retained::Retained;

/// The broker and what it saw.
#[derive(Clone)]
pub(super) struct Broker(Arc<Shared>);

struct Shared {
    retained: Arc<Retained>,
    /// Requests are not answered for now.
    stalled: tokio::sync::watch::Sender<bool>,
    /// Questions for retained messages are not answered for now.
    silent: tokio::sync::watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscriptions: Vec<Subscription>,
    published: Vec<Seen>,
    subscribed: Vec<String>,
    unsubscribed: usize,
    settled: Vec<Settled>,
    clients: Vec<Client>,
    closed: Vec<Arc<str>>,
    receipts: Vec<Arc<dyn ReceiptSink>>,
    events: Vec<Arc<dyn LaneEvents>>,
    hold_receipts: bool,
    outcome: Option<Outcome>,
    refuse_subscriptions: Option<Refused>,
    refuse_clients: Option<BackendError>,
    congested: bool,
    wakers: Vec<std::task::Waker>,
    refreshed: usize,
    kept: Vec<backend::Retained>,
    /// What is not settled.
    held: Vec<Held>,
    fail_recovery: bool,
    /// How often a client got a sink that takes nothing.
    detached: usize,
}

struct Held {
    client: u64,
    key: SubscriptionKey,
    tag: DeliveryTag,
    message: Kept,
}

/// A published message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub topic: String,
    pub payload: Vec<u8>,
    pub flags: Flags,
    pub priority: u8,
    pub expiry: u64,
    pub properties: Properties<'static>,
    pub by_reference: bool,
}

struct Subscription {
    client: u64,
    sink: Arc<dyn DeliverySink>,
    key: SubscriptionKey,
    pattern: Pattern,
    settle: Settle,
    no_local: bool,
    credit: Option<Arc<Credit>>,
    started: bool,
    next: DeliveryTag,
    waiting: Vec<Kept>,
}

impl Subscription {
    fn give(&mut self, kept: &Kept, held: &mut Vec<Held>) {
        let durable = kept.message().flags.has(Flags::DURABLE);
        let settled = match self.settle {
            Settle::OnDelivery => true,
            Settle::ByConsumer => false,
            Settle::AsPublished => !durable,
        };
        if !settled && self.credit.as_ref().is_some_and(|credit| credit.take(1) == 0) {
            self.waiting.push(kept.clone());
            return;
        }
        let at = kept.at..kept.at + 1;
        let pick = Pick {
            at,
            key: self.key,
            first: self.next,
            age: 0,
            attempt: 0,
            settled,
            standing: Standing::Passing,
        };
        if !settled {
            held.push(Held { client: self.client, key: self.key, tag: self.next, message: kept.clone() });
        }
        self.next += u64::from(!settled);
        self.sink.deliver(&kept.batch.batch(), &[pick]);
    }
}

impl Broker {
    pub(super) fn new() -> Self {
        let retained = Arc::new(Retained::new(1000, Arc::new(SystemClock)));
        Self(Arc::new(Shared {
            retained,
            stalled: Default::default(),
            silent: Default::default(),
            state: Mutex::default(),
        }))
    }

    pub(super) fn retained(&self) -> Arc<Retained> {
        Arc::clone(&self.0.retained)
    }

    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    pub(super) fn published(&self) -> Vec<Seen> {
        self.0.state.lock().published.clone()
    }

    pub(super) fn payloads(&self) -> Vec<String> {
        self.published().iter().map(|seen| String::from_utf8_lossy(&seen.payload).into_owned()).collect()
    }

    pub(super) fn subscribed(&self) -> Vec<String> {
        self.0.state.lock().subscribed.clone()
    }

    pub(super) fn unsubscribed(&self) -> usize {
        self.0.state.lock().unsubscribed
    }

    pub(super) fn settled(&self) -> Vec<Settled> {
        self.0.state.lock().settled.clone()
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        self.0.state.lock().clients.clone()
    }

    pub(super) fn refreshed(&self) -> usize {
        self.0.state.lock().refreshed
    }

    /// Identifiers of clients whose connection is closed.
    pub(super) fn closed(&self) -> Vec<Arc<str>> {
        self.0.state.lock().closed.clone()
    }

    pub(super) fn hold_receipts(&self) {
        self.0.state.lock().hold_receipts = true;
    }

    pub(super) fn receipts(&self, runs: &[Receipt]) {
        let sinks = self.0.state.lock().receipts.clone();
        sinks.iter().for_each(|sink| sink.receipts(runs));
    }

    pub(super) fn event(&self, event: &LaneEvent) {
        let ears = self.0.state.lock().events.clone();
        ears.iter().for_each(|ear| ear.event(event.clone()));
    }

    pub(super) fn end_subscriptions(&self, why: Ended) {
        self.0.state.lock().subscriptions.iter().for_each(|s| s.sink.ended(s.key, why));
    }

    /// Everything published from now on has this outcome.
    pub(super) fn answer(&self, outcome: Option<Outcome>) {
        self.0.state.lock().outcome = outcome;
    }

    pub(super) fn refuse_subscriptions(&self, refused: Option<Refused>) {
        self.0.state.lock().refuse_subscriptions = refused;
    }

    pub(super) fn refuse_clients(&self, error: Option<BackendError>) {
        self.0.state.lock().refuse_clients = error;
    }

    /// From now on requests are not answered, or those that wait are.
    pub(super) fn stall(&self, stalled: bool) {
        self.0.stalled.send_replace(stalled);
    }

    /// It keeps retained messages of its own, of these topics and payloads.
    pub(super) fn keep(&self, kept: &[(&str, &str)]) {
        self.0.state.lock().kept = kept
            .iter()
            .map(|(topic, payload)| {
                let head = Message { flags: Flags::RETAIN | Flags::DURABLE, ..Message::default() };
                let properties = Properties::default();
                let payload = Body::Shared((*payload).to_owned().into());
                let topic = topic.as_bytes();
                let draft = neutral::Draft { exchange: None, topic, properties: &properties, payload, head };
                backend::Retained { message: Kept { batch: draft.build(), at: 0 }, age: 0 }
            })
            .collect();
    }

    /// From now on it does not say what it keeps, or says it to those who wait.
    pub(super) fn silence(&self, silent: bool) {
        self.0.silent.send_replace(silent);
    }

    /// How many wait to be told what it keeps.
    pub(super) fn asking(&self) -> usize {
        self.0.silent.receiver_count()
    }

    /// How many requests wait to be answered.
    pub(super) fn waiting(&self) -> usize {
        self.0.stalled.receiver_count()
    }

    /// How often a client has gone whose session stays.
    pub(super) fn detached(&self) -> usize {
        self.0.state.lock().detached
    }

    /// Counts from now on.
    pub(super) fn forget_detached(&self) {
        self.0.state.lock().detached = 0;
    }

    /// Forgets what was published.
    pub(super) fn forget_published(&self) {
        self.0.state.lock().published.clear();
    }

    /// From now on sessions cannot be given again what they had, or can.
    pub(super) fn fail_recovery(&self, fail: bool) {
        self.0.state.lock().fail_recovery = fail;
    }

    /// Forgets what clients have not settled, as a broker does that was lost.
    pub(super) fn lose_unsettled(&self) {
        self.0.state.lock().held.clear();
    }

    /// How many subscriptions there are.
    pub(super) fn subscriptions(&self) -> usize {
        self.0.state.lock().subscriptions.len()
    }

    pub(super) fn congest(&self, congested: bool) {
        let mut state = self.0.state.lock();
        state.congested = congested;
        state.wakers.drain(..).for_each(std::task::Waker::wake);
    }

    /// Delivers messages of any form to all who want them; `age` milliseconds old.
    pub(super) fn deliver(&self, owned: &Arc<OwnedBatch>, age: u64) {
        let mut state = self.0.state.lock();
        let batch = owned.batch();
        for subscription in &mut state.subscriptions {
            let settled = subscription.settle == Settle::OnDelivery;
            let at = 0..u32::try_from(owned.messages().len()).unwrap();
            let count = u64::from(at.end);
            if let Some(credit) = subscription.credit.as_ref().filter(|_| !settled) {
                credit.take(at.end);
            }
            let pick = Pick {
                at,
                key: subscription.key,
                first: subscription.next,
                age,
                attempt: 0,
                settled,
                standing: Standing::Passing,
            };
            subscription.next += count;
            subscription.sink.deliver(&batch, &[pick]);
            subscription.sink.flush();
        }
    }
}

static CAPABILITIES: Capabilities = Capabilities {
    publish_subscribe: Support::Native,
    competing_consumers: Support::Native,
    exclusive_consumer: Support::Native,
    priority_queue: Support::Native,
    expiry: Support::Native,
    dead_letter: Support::Native,
    ack_timeout: Support::Native,
    max_deliveries: Support::Native,
    retry: Support::Native,
    deduplicate: Support::Native,
    ordering_key: Support::Native,
    delay: Support::Native,
    max_length: Support::Native,
    weighted_order: Support::Native,
    queue_per_level: Support::Native,
    shares_queues: false,
    exchanges: Support::Native,
    transactions: Support::Native,
    durable: Support::Native,
    retained: Support::Emulated("the hub keeps them"),
    holds_publishers: Support::Native,
    sessions: Support::Absent("a session ends with its connection"),
};

#[async_trait]
impl Backend for Broker {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        let mut stalled = self.0.stalled.subscribe();
        stalled.wait_for(|stalled| !stalled).await.unwrap();
        let mut state = self.0.state.lock();
        if let Some(error) = &state.refuse_clients {
            return Err(error.clone());
        }
        state.clients.push(client.clone());
        Ok(Box::new(Scope { shared: Arc::clone(&self.0), client: client.clone(), sink }))
    }

    async fn health(&self) -> Health {
        Health::Up
    }

    async fn close(&self) {}
}

struct Scope {
    shared: Arc<Shared>,
    client: Client,
    sink: Arc<dyn DeliverySink>,
}

#[async_trait]
impl Connection for Scope {
    fn attach(&mut self, sink: Arc<dyn DeliverySink>) {
        let mut state = self.shared.state.lock();
        let number = self.client.number;
        let nothing = Batch::new(&[], &[], &neutral::NEUTRAL);
        state.detached += usize::from(sink.deliver(&nothing, &[]) == Delivered::Closed);
        state
            .subscriptions
            .iter_mut()
            .filter(|s| s.client == number)
            .for_each(|s| s.sink = Arc::clone(&sink));
        self.sink = sink;
    }

    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError> {
        let mut state = self.shared.state.lock();
        state.receipts.push(receipts);
        state.events.push(events);
        let (shared, sink) = (Arc::clone(&self.shared), Arc::clone(&self.sink));
        Ok(Box::new(Way { shared, client: self.client.number, sink, targets: Vec::new(), seq: 0 }))
    }

    async fn close(self: Box<Self>) {
        self.shared.state.lock().closed.push(Arc::clone(&self.client.identifier));
    }
}

struct Way {
    shared: Arc<Shared>,
    client: u64,
    sink: Arc<dyn DeliverySink>,
    targets: Vec<Vec<u8>>,
    seq: Seq,
}

impl Way {
    fn publish_one(&self, state: &mut State, batch: &Batch<'_>, at: u32) -> bool {
        let message = batch.message(at).unwrap();
        let owned = batch.keep(at..at + 1);
        let kept = owned.kept(0).unwrap();
        let topic = String::from_utf8(batch.address(message).topic().into_owned()).unwrap();
        assert_eq!(self.targets[message.target.0 as usize], topic.as_bytes(), "the target of another topic");
        state.published.push(Seen {
            topic: topic.clone(),
            payload: kept.payload().unwrap().to_vec(),
            flags: message.flags,
            priority: message.priority,
            expiry: message.expiry,
            properties: batch.properties(message).unwrap().into_owned(),
            by_reference: batch.body.is_some(),
        });
        if message.flags.has(Flags::RETAIN) {
            self.shared.retained.store(batch, at, message);
        }
        let mut taken = false;
        let State { subscriptions, held, .. } = state;
        for subscription in subscriptions {
            let own = subscription.no_local && subscription.client == self.client;
            if subscription.started && !own && subscription.pattern.matches(topic.as_bytes()) {
                subscription.give(&kept, held);
                taken = true;
            }
        }
        taken
    }
}

#[async_trait]
impl Lane for Way {
    fn target(&mut self, to: &Destination<'_>) -> TargetId {
        let Destination::Address { path, .. } = to else { panic!("MQTT publishes to addresses") };
        self.targets.push(path.to_vec());
        TargetId(u32::try_from(self.targets.len() - 1).unwrap())
    }

    fn forget(&mut self, _targets: &[TargetId]) {}

    fn publish(&mut self, batch: &Batch<'_>) -> Published {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        let mut published = Published { first: self.seq, congested: state.congested, ..Published::default() };
        for (at, message) in (0..).zip(batch.messages) {
            let taken = self.publish_one(&mut state, batch, at);
            published.taken += 1;
            if message.flags.has(Flags::RECEIPT) {
                published.wanting += 1;
                let outcome = state.outcome.clone().or((!taken).then_some(Outcome::Unroutable));
                if let Some(outcome) = outcome.filter(|_| !state.hold_receipts) {
                    published.exceptions.push((at, outcome));
                }
            }
        }
        published.done = if state.hold_receipts { 0 } else { published.wanting };
        self.seq += u64::from(published.wanting);
        published
    }

    fn flush(&mut self) {
        self.shared.state.lock().subscriptions.iter().for_each(|subscription| subscription.sink.flush());
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut state = self.shared.state.lock();
        if state.congested {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn settle(&mut self, runs: &[Settled]) {
        let mut state = self.shared.state.lock();
        for run in runs {
            let tags = run.first..run.first + u64::from(run.count);
            state.held.retain(|it| it.client != self.client || it.key != run.key || !tags.contains(&it.tag));
        }
        state.settled.extend_from_slice(runs);
    }

    fn resume(&mut self) {
        let mut state = self.shared.state.lock();
        let State { subscriptions, held, .. } = &mut *state;
        for subscription in subscriptions.iter_mut().filter(|s| s.client == self.client) {
            for kept in std::mem::take(&mut subscription.waiting) {
                subscription.give(&kept, held);
            }
        }
    }

    async fn retained(&mut self, _filter: &str) -> Result<Option<Vec<backend::Retained>>, Refused> {
        let mut silent = self.shared.silent.subscribe();
        silent.wait_for(|silent| !silent).await.unwrap();
        Ok(Some(self.shared.state.lock().kept.clone()))
    }

    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        let mut stalled = self.shared.stalled.subscribe();
        stalled.wait_for(|stalled| !stalled).await.unwrap();
        let mut state = self.shared.state.lock();
        state.subscribed.push(format!("{source:?} {:?} {}", how.settle, credit.is_some()));
        if let Some(refused) = &state.refuse_subscriptions {
            return Err(refused.clone());
        }
        let same = |s: &&mut Subscription| s.client == self.client && s.key == key;
        if let Some(known) = state.subscriptions.iter_mut().find(same) {
            (known.settle, known.no_local, known.credit) = (how.settle, how.no_local, credit);
            return Ok(());
        }
        let filter = match source {
            Source::Session => panic!("no session was offered"),
            Source::Filter(filter) | Source::Group { filter, .. } | Source::Queue(filter) => filter,
        };
        state.subscriptions.push(Subscription {
            client: self.client,
            sink: Arc::clone(&self.sink),
            key,
            pattern: Pattern::from_filter(filter),
            settle: how.settle,
            no_local: how.no_local,
            credit,
            started: false,
            next: 0,
            waiting: Vec::new(),
        });
        Ok(())
    }

    fn start(&mut self, key: SubscriptionKey) {
        let mut state = self.shared.state.lock();
        let client = self.client;
        state
            .subscriptions
            .iter_mut()
            .filter(|s| s.client == client && s.key == key)
            .for_each(|s| s.started = true);
    }

    async fn refresh(&mut self) {
        self.shared.state.lock().refreshed += 1;
    }

    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        let mut state = self.shared.state.lock();
        let client = self.client;
        state.subscriptions.retain(|s| s.client != client || s.key != key);
        state.unsubscribed += 1;
        Ok(())
    }

    async fn fetch(
        &mut self,
        _: &str,
        _: SubscriptionKey,
        _: bool,
    ) -> Result<Option<backend::Fetched>, Refused> {
        panic!("not MQTT's")
    }

    async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        assert!(!requeue, "not MQTT's");
        let state = self.shared.state.lock();
        if state.fail_recovery {
            return Err(Refused::Away("test".into()));
        }
        let of_client = |s: &&Subscription| s.client == self.client;
        let Some(sink) = state.subscriptions.iter().find(of_client).map(|s| Arc::clone(&s.sink)) else {
            return Ok(());
        };
        // The last first: the door knows the order.
        for Held { key, tag, message, .. } in state.held.iter().filter(|it| it.client == self.client).rev() {
            let at = message.at..message.at + 1;
            let pick = Pick {
                at,
                key: *key,
                first: *tag,
                age: 0,
                attempt: 1,
                settled: false,
                standing: Standing::Passing,
            };
            sink.deliver(&message.batch.batch(), &[pick]);
        }
        Ok(())
    }

    async fn declare_exchange(&mut self, _: &ExchangeSpec<'_>) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn delete_exchange(&mut self, _: &str, _: bool) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn declare_queue(&mut self, _: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        panic!("not MQTT's")
    }

    async fn delete_queue(&mut self, _: &str, _: bool, _: bool) -> Result<u64, Refused> {
        panic!("not MQTT's")
    }

    async fn purge_queue(&mut self, _: &str) -> Result<u64, Refused> {
        panic!("not MQTT's")
    }

    async fn bind(&mut self, _: &Binding<'_>) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn unbind(&mut self, _: &Binding<'_>) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn begin(&mut self) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn commit(&mut self) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn rollback(&mut self) -> Result<(), Refused> {
        panic!("not MQTT's")
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        let client = self.client;
        self.shared.state.lock().subscriptions.retain(|s| s.client != client);
    }
}

//! A broker for tests: publish-subscribe only, everything recorded, receipts and refusals on demand.

use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use linkspan_contract::address::Pattern;
use linkspan_contract::*;
use parking_lot::Mutex;

use crate::retained::Retained;

mod way;

use way::Scope;

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

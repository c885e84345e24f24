//! A back end over a broker, and clients of it, for tests that are this back end's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use linkspan_contract::conformance::heard::Heard;
use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::conformance::recorder::Recorder;
use linkspan_contract::conformance::stage::queue_spec;
use linkspan_contract::{
    Backend, Batch, Client, Connection, Destination, Flags, Health, Lane, Outcome, Settle, SoleInstance,
    Source, Subscribe, SubscriptionKey, Syntax, SystemClock, TargetId,
};
use linkspan_integration_tests::Cable;
use linkspan_mqtt::{MqttBackend, MqttOptions};

static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// A name that only one test uses.
pub fn name(of: &str) -> String {
    format!("{of}-{}-{}", std::process::id(), number())
}

/// The URL of the broker at the other end of a cable.
pub fn by(cable: &Cable) -> String {
    format!("mqtt://{}", cable.address())
}

pub fn options(url: &str) -> MqttOptions {
    MqttOptions::new(url, &name("test"))
}

pub fn open(options: MqttOptions) -> Arc<MqttBackend> {
    let leases = Arc::new(SoleInstance);
    MqttBackend::open("broker", options, Arc::new(SystemClock), leases).expect("the options are right")
}

/// Waits until the back end is as it should be.
pub async fn wait_for(backend: &MqttBackend, up: bool) {
    for _ in 0..1000 {
        if (backend.health().await == Health::Up) == up {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the back end was to be up: {up}; it is {:?}", backend.health().await);
}

pub async fn reached(options: MqttOptions) -> Arc<MqttBackend> {
    let backend = open(options);
    wait_for(&backend, true).await;
    backend
}

/// A client with one lane.
pub struct Peer {
    pub recorder: Arc<Recorder>,
    pub heard: Arc<Heard>,
    pub lane: Box<dyn Lane>,
    _connection: Box<dyn Connection>,
    wanting: u64,
}

pub const PATIENCE: Duration = Duration::from_secs(20);

pub const fn key(subscription: u32) -> SubscriptionKey {
    SubscriptionKey { subscription, part: 0 }
}

impl Peer {
    pub async fn of(backend: &dyn Backend) -> Self {
        let number = number();
        let client = Client {
            number,
            identifier: format!("client-{number}").into(),
            user: "guest".into(),
            vhost: "/".into(),
            session: None,
        };
        let (recorder, heard) = (Arc::new(Recorder::default()), Arc::new(Heard::default()));
        let mut connection = backend.connect(&client, recorder.clone()).await.expect("a client connects");
        let lane = connection.lane(heard.clone(), heard.clone()).await.expect("a lane opens");
        Self { recorder, heard, lane, _connection: connection, wanting: 0 }
    }

    pub fn to(&mut self, topic: &str) -> TargetId {
        let path = topic.as_bytes();
        self.lane.target(&Destination::Address { path, syntax: Syntax::Topic, more: &[], queues: &[] })
    }

    /// Publishes numbers at QoS 1.
    pub fn publish(&mut self, target: TargetId, numbers: impl IntoIterator<Item = u32>) {
        self.send(Letters::confirmed(target, numbers));
    }

    pub fn send(&mut self, letters: Letters) {
        self.send_batch(&letters.batch());
    }

    pub fn send_batch(&mut self, batch: &Batch<'_>) {
        let published = self.lane.publish(batch);
        self.wanting += u64::from(published.wanting);
        self.lane.flush();
    }

    pub fn sized(target: TargetId, number: u32, bytes: usize) -> Letter {
        let mut letter = Letter::numbered(target, number).flagged(Flags::RECEIPT | Flags::DURABLE);
        letter.payload.resize(bytes, b' ');
        letter
    }

    /// Waits for all receipts; what was not accepted is told by number.
    pub async fn confirmed(&self) -> Vec<(u64, Outcome)> {
        for _ in 0..4000 {
            let told = self.heard.receipts.lock().clone();
            let count: u64 = told.iter().map(|receipt| u64::from(receipt.count)).sum();
            assert!(count <= self.wanting, "{count} receipts for {} messages", self.wanting);
            if count == self.wanting {
                let exceptions = told.into_iter().filter(|receipt| receipt.outcome != Outcome::Accepted);
                return exceptions
                    .flat_map(|it| {
                        (it.first..it.first + u64::from(it.count)).map(move |seq| (seq, it.outcome.clone()))
                    })
                    .collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let told = self.heard.receipts.lock().clone();
        let count: u64 = told.iter().map(|receipt| u64::from(receipt.count)).sum();
        panic!("{} receipts were due, {count} came", self.wanting);
    }

    pub async fn watch(&mut self, filter: &str, number: u32, settle: Settle) {
        let how = Subscribe::new(settle);
        self.lane
            .subscribe(&Source::Filter(filter), key(number), &how, None)
            .await
            .expect("a subscription is made");
        self.lane.start(key(number));
    }

    pub async fn consume(&mut self, queue: &str, number: u32) {
        let how = Subscribe::new(Settle::ByConsumer);
        self.lane
            .subscribe(&Source::Queue(queue), key(number), &how, None)
            .await
            .expect("a queue is consumed");
        self.lane.start(key(number));
        self.lane.flush();
    }

    pub async fn queue(&mut self, queue: &str) {
        self.lane.declare_queue(&queue_spec(queue, &[])).await.expect("a queue is declared");
    }

    /// The numbers that come until `last` has.
    pub async fn numbers_until(&self, last: u32) -> Vec<u32> {
        let mut all = Vec::new();
        while all.last() != Some(&last) {
            let given = self.recorder.expect(1, PATIENCE).await;
            all.extend(given.iter().map(|it| it.payload.trim().parse::<u32>().unwrap_or(u32::MAX)));
        }
        all
    }
}

/// The numbers without those that came before.
pub fn without_repetitions(numbers: &[u32]) -> Vec<u32> {
    let mut seen = std::collections::BTreeSet::new();
    numbers.iter().copied().filter(|number| seen.insert(*number)).collect()
}

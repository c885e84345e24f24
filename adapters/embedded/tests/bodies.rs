//! Bodies that lie in the log by themselves.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::conformance::stage::queue_spec;
use linkspan_contract::deliveries::Next;
use linkspan_contract::neutral::{Draft, NEUTRAL};
use linkspan_contract::topology::Argument;
use linkspan_contract::{
    Backend, Body, BodyWriter, Client, Connection, Credit, Deliveries, Delivery, Destination, Flags, Kept,
    Lane, LaneEvent, LaneEvents, Message, Outcome, Properties, Published, Receipt, ReceiptSink, Refused,
    Settle, Settlement, Source, Subscribe, SubscriptionKey, SystemClock, TargetId, Value,
};
use linkspan_embedded::{Embedded, EmbeddedOptions, OnDisk, SyncMode};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

fn open(folder: &TempDir, name: &str) -> Arc<Embedded> {
    let on_disk = OnDisk {
        directory: folder.path().join(name),
        sync: SyncMode::Group,
        segment_size: 1 << 20,
        forms: vec![&NEUTRAL],
        budget: Arc::default(),
    };
    let options = EmbeddedOptions { large_body: 1000, ..EmbeddedOptions::default() };
    Embedded::durable(name, options, Arc::new(SystemClock), &on_disk).expect("it opens")
}

#[derive(Default)]
struct Ears(Mutex<Vec<Receipt>>);

impl ReceiptSink for Ears {
    fn receipts(&self, runs: &[Receipt]) {
        self.0.lock().extend_from_slice(runs);
    }
}

impl LaneEvents for Ears {
    fn event(&self, _: LaneEvent) {}
}

struct Peer {
    lane: Box<dyn Lane>,
    deliveries: Deliveries,
    ears: Arc<Ears>,
    _connection: Box<dyn Connection>,
}

impl Peer {
    async fn of(backend: &Embedded) -> Self {
        let client = Client {
            number: linkspan_contract::client_number(),
            identifier: "client".into(),
            user: "guest".into(),
            vhost: "/".into(),
            session: None,
        };
        let deliveries = Deliveries::working(u64::MAX, None);
        let mut connection = backend.connect(&client, deliveries.sink()).await.expect("it connects");
        let ears = Arc::new(Ears::default());
        let lane = connection.lane(Arc::clone(&ears) as _, Arc::clone(&ears) as _).await.expect("a lane");
        Self { lane, deliveries, ears, _connection: connection }
    }

    async fn queue(&mut self, name: &str, arguments: &[Argument<'_>]) {
        self.lane.declare_queue(&queue_spec(name, arguments)).await.expect("it is declared");
    }

    fn to(&mut self, queue: &str, more: &[&[u8]]) -> TargetId {
        self.lane.target(&Destination::Queue { name: queue, more })
    }

    /// Writes a body in pieces.
    async fn write(&mut self, target: TargetId, body: &[u8], by: usize) -> Body {
        let size = Some(body.len() as u64);
        let mut place = self.lane.body(target, size).expect("it is taken").expect("it is large");
        for piece in body.chunks(by) {
            poll_fn(|cx| place.poll_ready(cx)).await;
            place.write(piece).expect("it is written");
        }
        Body::Stored(poll_fn(|cx| place.poll_finish(cx)).await.expect("it is complete"))
    }

    fn publish(&mut self, target: TargetId, body: &Body) -> Published {
        let head = Message { target, flags: Flags::DURABLE | Flags::RECEIPT, ..Message::default() };
        let properties = Properties::default();
        let draft =
            Draft { exchange: None, topic: b"t", properties: &properties, payload: body.clone(), head };
        let built = draft.build();
        let published = self.lane.publish(&built.batch());
        self.lane.flush();
        published
    }

    async fn confirmed(&mut self, target: TargetId, body: &Body) {
        let published = self.publish(target, body);
        assert_eq!((published.taken, published.exceptions.len()), (1, 0));
        let ears = Arc::clone(&self.ears);
        let told = async {
            while published.done == 0 && ears.0.lock().pop().is_none() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, told).await.expect("a receipt");
    }

    async fn consume(&mut self, queue: &str, subscription: u32) {
        self.consume_by(queue, subscription, 100).await;
    }

    async fn consume_by(&mut self, queue: &str, subscription: u32, most: u32) {
        let key = SubscriptionKey { subscription, part: 0 };
        let how = Subscribe::new(Settle::ByConsumer);
        let credit = Some(Arc::new(Credit::new(most)));
        self.lane.subscribe(&Source::Queue(queue), key, &how, credit).await.expect("it subscribes");
        self.lane.start(key);
        self.lane.flush();
    }

    async fn next(&mut self) -> Delivery {
        match timeout(PATIENCE, self.deliveries.next(&mut *self.lane)).await.expect("a delivery") {
            Next::Delivery(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, delivery: Delivery, word: Settlement) {
        delivery.settle(word);
        self.deliveries.settle_into(&mut *self.lane);
        self.lane.flush();
    }
}

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 % 251) as u8).collect()
}

async fn assert_is(message: &Kept, body: &[u8]) {
    assert!(message.payload().is_none(), "it is not in memory");
    assert_eq!(message.payload_len(), body.len() as u64);
    let whole = message.body().expect("it lies apart").whole().await.expect("it can be read");
    assert!(whole == body, "it is as it was written");
}

#[tokio::test]
async fn queues_share_a_body_in_this_life_and_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&folder, "one");
    let mut peer = Peer::of(&backend).await;
    peer.queue("a", &[]).await;
    peer.queue("b", &[]).await;
    let sent = body(700_001);
    let target = peer.to("a", &[b"b"]);
    let stored = peer.write(target, &sent, 999).await;
    peer.confirmed(target, &stored).await;
    drop(stored);
    peer.consume("a", 1).await;
    let delivery = peer.next().await;
    assert_is(&delivery.message, &sent).await;
    peer.settle(delivery, Settlement::Accept);
    assert_eq!(backend.depth("/", "b").unwrap().bytes / 1000, 700, "the queue counts it whole");
    drop(peer);
    backend.close().await;
    let backend = open(&folder, "one");
    let mut peer = Peer::of(&backend).await;
    peer.consume("b", 1).await;
    let delivery = peer.next().await;
    assert_is(&delivery.message, &sent).await;
    peer.settle(delivery, Settlement::Accept);
    peer.consume("a", 2).await;
    assert_eq!(backend.depth("/", "a").unwrap().ready, 0);
}

#[tokio::test]
async fn one_in_memory_is_put_into_the_log_when_it_is_large() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&folder, "one");
    let mut peer = Peer::of(&backend).await;
    peer.queue("a", &[]).await;
    let target = peer.to("a", &[]);
    let sent = body(40_000);
    peer.confirmed(target, &Body::Shared(sent.clone().into())).await;
    peer.consume("a", 1).await;
    assert_is(&peer.next().await.message, &sent).await;
    assert!(peer.lane.body(target, Some(999)).unwrap().is_none(), "a small one is better held in memory");
    let memory = Embedded::open("two", EmbeddedOptions::default(), Arc::new(SystemClock));
    let mut peer = Peer::of(&memory).await;
    let target = peer.to("a", &[]);
    assert!(peer.lane.body(target, Some(1 << 30)).unwrap().is_none(), "there is no other place");
}

#[tokio::test]
async fn a_dead_letter_and_a_transaction_have_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&folder, "one");
    let mut peer = Peer::of(&backend).await;
    peer.queue("graves", &[]).await;
    let grave = [
        ("x-dead-letter-exchange", Value::Text("".into())),
        ("x-dead-letter-routing-key", Value::Text("graves".into())),
    ];
    peer.queue("a", &grave).await;
    peer.lane.begin().await.unwrap();
    let target = peer.to("a", &[]);
    let sent = body(5000);
    let stored = peer.write(target, &sent, 5000).await;
    peer.publish(target, &stored);
    drop(stored);
    peer.lane.commit().await.unwrap();
    let mut worker = Peer::of(&backend).await;
    worker.consume("a", 1).await;
    let delivery = worker.next().await;
    assert_is(&delivery.message, &sent).await;
    worker.settle(delivery, Settlement::Reject(None));
    worker.consume("graves", 2).await;
    let letter = worker.next().await;
    assert_is(&letter.message, &sent).await;
    worker.settle(letter, Settlement::Accept);
}

/// Changes a byte of what lies in the log of `name`.
fn damage(folder: &TempDir, name: &str, what: &[u8]) {
    let mut hit = false;
    let mut folders = vec![folder.path().join(name)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(what.len()).position(|window| window == what) {
                use std::os::unix::fs::FileExt;
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&[!what[0]], at as u64).unwrap();
                hit = true;
            }
        }
    }
    assert!(hit, "it lies in a file");
}

#[tokio::test]
async fn a_damaged_body_is_tried_once_and_what_is_behind_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&folder, "one");
    let mut peer = Peer::of(&backend).await;
    peer.queue("a", &[]).await;
    peer.queue("b", &[]).await;
    let target = peer.to("a", &[b"b"]);
    let sent = body(5000);
    let stored = peer.write(target, &sent, 5000).await;
    peer.confirmed(target, &stored).await;
    drop(stored);
    peer.confirmed(target, &Body::Shared(b"behind".to_vec().into())).await;
    damage(&folder, "one", &sent[1000..1100]);
    let mut worker = Peer::of(&backend).await;
    worker.consume("a", 1).await;
    let delivery = worker.next().await;
    let read = delivery.message.body().unwrap().whole().await;
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    assert!(delivery.message.body().unwrap().is_lost());
    // Its connection is closed for that.
    drop((delivery, worker));
    let mut worker = Peer::of(&backend).await;
    for (subscription, queue) in [(1, "a"), (2, "b")] {
        worker.consume_by(queue, subscription, 1).await;
        let delivery = worker.next().await;
        assert!(delivery.message.body().is_none(), "in '{queue}' nobody else is given it");
        worker.settle(delivery, Settlement::Accept);
        assert_eq!(backend.depth("/", queue).unwrap().ready, 0);
    }
    assert!(peer.lane.fetch("a", SubscriptionKey::default(), true).await.unwrap().is_none());
}

#[tokio::test]
async fn who_reads_the_same_body_at_the_same_time_has_it_in_memory_once() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&folder, "one");
    let mut peer = Peer::of(&backend).await;
    peer.queue("a", &[]).await;
    let target = peer.to("a", &[]);
    let stored = peer.write(target, &body(300_000), 5000).await;
    let Body::Stored(stored) = stored else { panic!("{stored:?}") };
    let first = stored.read(0, 1 << 20).await.unwrap();
    let second = stored.read(0, 1000).await.unwrap();
    assert_eq!((first.as_ptr(), second.len()), (second.as_ptr(), 1000));
}

#[tokio::test]
async fn what_is_retained_and_damaged_is_not_there_in_the_next_life() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&folder, "one");
    let mut peer = Peer::of(&backend).await;
    let address =
        Destination::Address { path: b"t", syntax: linkspan_contract::Syntax::Topic, more: &[], queues: &[] };
    let target = peer.lane.target(&address);
    let sent = body(40_000);
    let head =
        Message { target, flags: Flags::DURABLE | Flags::RECEIPT | Flags::RETAIN, ..Message::default() };
    let (properties, payload) = (Properties::default(), Body::Shared(sent.clone().into()));
    let draft = Draft { exchange: None, topic: b"t", properties: &properties, payload, head };
    peer.lane.publish(&draft.build().batch());
    peer.lane.flush();
    drop(peer);
    backend.close().await;
    let backend = open(&folder, "one");
    assert_is(&backend.retained("/").await[0].message, &sent).await;
    backend.close().await;
    damage(&folder, "one", &sent[1000..1100]);
    for life in 1..3 {
        let backend = open(&folder, "one");
        assert!(backend.retained("/").await.is_empty(), "in life {life}");
        backend.close().await;
    }
}

#[tokio::test]
async fn what_is_not_as_announced_or_lies_elsewhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open(&folder, "one"), open(&folder, "two"));
    let mut peer = Peer::of(&one).await;
    let target = peer.to("a", &[]);
    let begin =
        |peer: &mut Peer| -> Box<dyn BodyWriter> { peer.lane.body(target, Some(2000)).unwrap().unwrap() };
    let mut place = begin(&mut peer);
    place.write(&[0; 1500]).unwrap();
    assert!(matches!(place.write(&[0; 501]), Err(Refused::Precondition(_))));
    let mut place = begin(&mut peer);
    place.write(&[0; 1999]).unwrap();
    let short = poll_fn(|cx| place.poll_finish(cx)).await;
    assert!(matches!(short, Err(Refused::Precondition(_))));
    let stored = peer.write(target, &body(2000), 300).await;
    let mut other = Peer::of(&two).await;
    other.queue("a", &[]).await;
    let target = other.to("a", &[]);
    let published = other.publish(target, &stored);
    let [(0, Outcome::Failed(_))] = published.exceptions[..] else { panic!("{published:?}") };
    assert_eq!(two.depth("/", "a").unwrap().ready, 0);
    other.confirmed(target, &Body::Shared(vec![1; 10].into())).await;
}

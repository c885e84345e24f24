//! What the back end costs a message, from the lane to a sink that writes nothing.

#![allow(clippy::expect_used, missing_docs, reason = "a measurement, not a product")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use linkspan_contract::neutral::NEUTRAL;
use linkspan_contract::{
    Attribute, Backend, Batch, Client, Connection, Credit, Deduplicate, Delivered, DeliverySink, Destination,
    Ended, Flags, Lane, LaneEvent, LaneEvents, Message, Pick, QueueSpec, Receipt, ReceiptSink, Settle,
    Settled, Settlement, Source, Span, Subscribe, SubscriptionKey, SystemClock, TargetId, Terms,
};
use linkspan_embedded::{Embedded, EmbeddedOptions};
use tokio::runtime::Runtime;

/// Messages of one read of 128 KiB with 16 bytes of payload.
const BATCH: u32 = 4096;

/// Counts what it is given.
#[derive(Default)]
struct Null {
    taken: AtomicU64,
    last: AtomicU64,
}

impl DeliverySink for Null {
    fn deliver(&self, _batch: &Batch<'_>, picks: &[Pick]) -> Delivered {
        let count: u64 = picks.iter().map(|pick| u64::from(pick.at.end - pick.at.start)).sum();
        self.taken.fetch_add(count, Ordering::Relaxed);
        if let Some(last) = picks.last() {
            self.last.store(last.first + u64::from(last.at.end - last.at.start), Ordering::Relaxed);
        }
        Delivered::Taken
    }

    fn flush(&self) {}

    fn poll_drained(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn ended(&self, _key: SubscriptionKey, _why: Ended) {}
}

struct Deaf;

impl ReceiptSink for Deaf {
    fn receipts(&self, _runs: &[Receipt]) {}
}

impl LaneEvents for Deaf {
    fn event(&self, _event: LaneEvent) {}
}

struct Peer {
    _connection: Box<dyn Connection>,
    lane: Box<dyn Lane>,
    sink: Arc<Null>,
}

const KEY: SubscriptionKey = SubscriptionKey { subscription: 1, part: 0 };

fn peer(runtime: &Runtime, backend: &Arc<Embedded>, number: u64) -> Peer {
    let client =
        Client { number, identifier: "bench".into(), user: "guest".into(), vhost: "/".into(), session: None };
    let sink = Arc::new(Null::default());
    let opened = async {
        let mut connection = backend.connect(&client, sink.clone()).await.expect("a client connects");
        let lane = connection.lane(Arc::new(Deaf), Arc::new(Deaf)).await.expect("a lane opens");
        (connection, lane)
    };
    let (connection, lane) = runtime.block_on(opened);
    Peer { _connection: connection, lane, sink }
}

impl Peer {
    fn subscribe(
        &mut self,
        runtime: &Runtime,
        source: &Source<'_>,
        settle: Settle,
        credit: Option<Arc<Credit>>,
    ) {
        let how = Subscribe::new(settle);
        let made = self.lane.subscribe(source, KEY, &how, credit);
        runtime.block_on(made).expect("a subscription is made");
        self.lane.start(KEY);
    }

    fn queue(&mut self, runtime: &Runtime, name: &str) -> TargetId {
        let spec = QueueSpec { durable: true, ..QueueSpec::new(name) };
        runtime.block_on(self.lane.declare_queue(&spec)).expect("a queue is declared");
        self.lane.target(&Destination::Queue { name, more: &[] })
    }

    fn topic(&mut self, topic: &str) -> TargetId {
        let path = topic.as_bytes();
        let syntax = linkspan_contract::Syntax::Topic;
        self.lane.target(&Destination::Address { path, syntax, more: &[], queues: &[] })
    }
}

fn messages(targets: &[TargetId], flags: Flags) -> (Vec<u8>, Vec<Message>) {
    let bytes = vec![b'x'; 32 * BATCH as usize];
    let messages = (0..BATCH)
        .zip(targets.iter().cycle())
        .map(|(at, target)| Message {
            target: *target,
            flags,
            wire: Span::new(at * 32, 32),
            address: Span::new(at * 32 + 2, 10),
            payload: Span::new(at * 32 + 16, 16),
            ..Message::default()
        })
        .collect();
    (bytes, messages)
}

/// What this thread has cost so far: other load on the machine does not count. Where the system does not tell, the
/// time of day.
fn spent(begun: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|nanos| nanos.parse().ok());
    nanos.map_or_else(|| begun.elapsed(), Duration::from_nanos)
}

fn measured(bencher: &mut Bencher<'_>, mut what: impl FnMut()) {
    bencher.iter_custom(|times| {
        let begun = Instant::now();
        let before = spent(begun);
        (0..times).for_each(|_| what());
        spent(begun).saturating_sub(before)
    });
}

fn publish(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let mut group = criterion.benchmark_group("publish");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300)).sample_size(20);
    let open = || Embedded::open("bench", EmbeddedOptions::default(), Arc::new(SystemClock));

    for (name, watchers, topics) in [("1 to 1", 1, 1), ("1 to 50", 50, 1), ("1 to 1, 1000 topics", 1, 1000)] {
        let backend = open();
        let mut publisher = peer(&runtime, &backend, 1);
        let mut all: Vec<Peer> = (0..watchers).map(|number| peer(&runtime, &backend, 2 + number)).collect();
        for watcher in &mut all {
            watcher.subscribe(&runtime, &Source::Filter("bench/#"), Settle::OnDelivery, None);
        }
        let targets: Vec<_> = (0..topics).map(|number| publisher.topic(&format!("bench/{number}"))).collect();
        let (bytes, messages) = messages(&targets, Flags::NONE);
        group.throughput(Throughput::Elements(u64::from(BATCH) * watchers));
        group.bench_function(format!("QoS 0, {name}"), |bencher| {
            measured(bencher, || {
                publisher.lane.publish(&Batch::new(&bytes, &messages, &NEUTRAL));
                publisher.lane.flush();
            });
        });
    }

    group.throughput(Throughput::Elements(u64::from(BATCH)));
    for (name, consumers) in [("1 consumer", 1), ("4 consumers", 4)] {
        let backend = open();
        let mut publisher = peer(&runtime, &backend, 1);
        let target = publisher.queue(&runtime, "q");
        let mut all: Vec<Peer> = (0..consumers).map(|number| peer(&runtime, &backend, 2 + number)).collect();
        for consumer in &mut all {
            consumer.subscribe(&runtime, &Source::Queue("q"), Settle::OnDelivery, None);
        }
        let (bytes, messages) = messages(&[target], Flags::NONE);
        group.bench_function(format!("queue, auto-ack, {name}"), |bencher| {
            measured(bencher, || {
                publisher.lane.publish(&Batch::new(&bytes, &messages, &NEUTRAL));
                publisher.lane.flush();
            });
        });
    }

    {
        let backend = open();
        let mut publisher = peer(&runtime, &backend, 1);
        let target = publisher.queue(&runtime, "q");
        let deduplicate = Some(Deduplicate { by: Attribute::Payload, window: 2000 });
        let terms = Arc::new(Terms { deduplicate, ..Terms::default() });
        let spec = QueueSpec { durable: true, terms: Some(&terms), ..QueueSpec::new("q") };
        runtime.block_on(publisher.lane.declare_queue(&spec)).expect("a queue is declared");
        let mut consumer = peer(&runtime, &backend, 2);
        consumer.subscribe(&runtime, &Source::Queue("q"), Settle::OnDelivery, None);
        let (mut bytes, messages) = messages(&[target], Flags::NONE);
        let mut next = 0_u64;
        group.bench_function("queue, auto-ack, 1 consumer, nothing twice", |bencher| {
            measured(bencher, || {
                for payload in bytes.chunks_exact_mut(32).filter_map(|it| it.last_chunk_mut::<8>()) {
                    *payload = next.to_le_bytes();
                    next += 1;
                }
                publisher.lane.publish(&Batch::new(&bytes, &messages, &NEUTRAL));
                publisher.lane.flush();
            });
        });
        assert_eq!(consumer.sink.taken.load(Ordering::Relaxed), next);
    }

    for (name, queue) in [("QoS 1", false), ("queue, ack", true)] {
        let backend = open();
        let mut publisher = peer(&runtime, &backend, 1);
        let mut consumer = peer(&runtime, &backend, 2);
        let credit = Arc::new(Credit::new(BATCH));
        let target = if queue {
            let target = publisher.queue(&runtime, "q");
            consumer.subscribe(&runtime, &Source::Queue("q"), Settle::ByConsumer, Some(Arc::clone(&credit)));
            target
        } else {
            consumer.subscribe(
                &runtime,
                &Source::Filter("b"),
                Settle::AsPublished,
                Some(Arc::clone(&credit)),
            );
            publisher.topic("b")
        };
        let (bytes, messages) = messages(&[target], Flags::DURABLE | Flags::RECEIPT);
        let mut first = 1;
        group.bench_function(format!("{name}, settled by reads of 50"), |bencher| {
            measured(bencher, || {
                publisher.lane.publish(&Batch::new(&bytes, &messages, &NEUTRAL));
                publisher.lane.flush();
                let last = consumer.sink.last.load(Ordering::Relaxed);
                while first < last {
                    let count = u32::try_from((last - first).min(50)).expect("at most 50");
                    let run = Settled { key: KEY, first, count, outcome: Settlement::Accept, word: None };
                    consumer.lane.settle(&[run]);
                    credit.grant(count);
                    consumer.lane.resume();
                    consumer.lane.flush();
                    first += u64::from(count);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, publish);
criterion_main!(benches);

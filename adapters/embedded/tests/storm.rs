//! Many threads at once: nothing is lost, nothing overtakes, nobody waits for ever.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::conformance::stage::queue_spec;
use linkspan_contract::topology::{Binding, BindingEnd};
use linkspan_contract::{
    Backend, Batch, Client, Connection, Credit, Delivered, DeliverySink, Destination, Ended, ExchangeKind,
    ExchangeSpec, Lane, LaneEvent, LaneEvents, Pick, QueueSpec, Receipt, ReceiptSink, Settle, Settled,
    Settlement, Source, Subscribe, SubscriptionKey, Syntax, SystemClock,
};
use linkspan_embedded::{Embedded, EmbeddedOptions};
use parking_lot::Mutex;

/// Keeps the numbers that it is given, by publisher.
#[derive(Default)]
struct Sink {
    given: Mutex<Vec<(u32, u32)>>,
    unsettled: Mutex<Vec<(SubscriptionKey, u64)>>,
    closed: AtomicBool,
}

impl DeliverySink for Sink {
    fn deliver(&self, batch: &Batch<'_>, picks: &[Pick]) -> Delivered {
        if self.closed.load(Ordering::SeqCst) {
            return Delivered::Closed;
        }
        let (mut given, mut unsettled) = (self.given.lock(), self.unsettled.lock());
        for pick in picks {
            for (at, tag) in pick.at.clone().zip(pick.first..) {
                let message = batch.message(at).unwrap();
                let text = std::str::from_utf8(message.payload.of(batch.bytes)).unwrap();
                let number: u32 = text.parse().unwrap();
                if pick.attempt == 0 {
                    given.push((number / 1_000_000, number % 1_000_000));
                }
                if !pick.settled {
                    unsettled.push((pick.key, tag));
                }
            }
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

/// Tells threads to end, also when the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

static CLIENTS: AtomicU64 = AtomicU64::new(1);

fn client(
    runtime: &tokio::runtime::Handle,
    backend: &Embedded,
) -> (Box<dyn Connection>, Box<dyn Lane>, Arc<Sink>) {
    let sink = Arc::new(Sink::default());
    let client = Client {
        number: CLIENTS.fetch_add(1, Ordering::Relaxed),
        identifier: "storm".into(),
        user: "guest".into(),
        vhost: "/".into(),
        session: None,
    };
    runtime.block_on(async {
        let mut connection = backend.connect(&client, sink.clone()).await.unwrap();
        let lane = connection.lane(Arc::new(Deaf), Arc::new(Deaf)).await.unwrap();
        (connection, lane, sink)
    })
}

const KEY: SubscriptionKey = SubscriptionKey { subscription: 1, part: 0 };
const PUBLISHERS: u32 = 3;
const READS: u32 = 150;
const READ: u32 = 40;

/// Settles all that a sink was given, and lets the back end go on.
fn settle(lane: &mut dyn Lane, sink: &Sink, credit: &Credit) {
    let unsettled = std::mem::take(&mut *sink.unsettled.lock());
    for (key, first) in &unsettled {
        lane.settle(&[Settled {
            key: *key,
            first: *first,
            count: 1,
            outcome: Settlement::Accept,
            word: None,
        }]);
    }
    credit.grant(u32::try_from(unsettled.len()).unwrap());
    lane.resume();
    lane.flush();
}

fn assert_order(given: &[(u32, u32)], who: &str) {
    for publisher in 0..PUBLISHERS {
        let numbers: Vec<u32> = given.iter().filter(|it| it.0 == publisher).map(|it| it.1).collect();
        assert!(numbers.is_sorted(), "{who}: messages of publisher {publisher} overtook each other");
    }
}

#[test]
fn publishers_consumers_and_a_changing_topology_get_along() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let runtime = runtime.handle();
    let backend = Embedded::open("storm", EmbeddedOptions::default(), Arc::new(SystemClock));
    let (_owner, mut owner, _) = client(runtime, &backend);
    let spec = QueueSpec { durable: true, ..QueueSpec::new("work") };
    runtime.block_on(owner.declare_queue(&spec)).unwrap();
    let all = (PUBLISHERS * READS * READ) as usize;
    let done = AtomicBool::new(false);
    let worked = AtomicU64::new(0);

    let (watched, shared) = thread::scope(|threads| {
        let done_by_end = Done(&done);
        let watcher = threads.spawn(|| {
            let (_connection, mut lane, sink) = client(runtime, &backend);
            let credit = Arc::new(Credit::new(10));
            let mut how = Subscribe::new(Settle::AsPublished);
            let patience = Instant::now() + Duration::from_secs(60);
            while sink.given.lock().len() < all {
                assert!(Instant::now() < patience, "only {} of {all} came", sink.given.lock().len());
                // Subscribes anew again and again, which costs it nothing.
                how.no_local = !how.no_local;
                let made = lane.subscribe(&Source::Filter("storm/#"), KEY, &how, Some(credit.clone()));
                runtime.block_on(made).unwrap();
                lane.start(KEY);
                worked.fetch_add(1, Ordering::SeqCst);
                settle(&mut *lane, &sink, &credit);
                thread::yield_now();
            }
            std::mem::take(&mut *sink.given.lock())
        });
        while worked.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let workers: Vec<_> = (0..2)
            .map(|_| {
                threads.spawn(|| {
                    // Comes and goes with messages in hand.
                    let mut mine = Vec::new();
                    while !done.load(Ordering::SeqCst) {
                        let (_connection, mut lane, sink) = client(runtime, &backend);
                        let credit = Arc::new(Credit::new(16));
                        let how = Subscribe::new(Settle::ByConsumer);
                        let made = lane.subscribe(&Source::Queue("work"), KEY, &how, Some(credit.clone()));
                        runtime.block_on(made).unwrap();
                        lane.start(KEY);
                        for _ in 0..20 {
                            settle(&mut *lane, &sink, &credit);
                            thread::yield_now();
                        }
                        sink.closed.store(true, Ordering::SeqCst);
                        drop(lane);
                        let given = std::mem::take(&mut *sink.given.lock());
                        mine.extend(given);
                    }
                    mine
                })
            })
            .collect();
        let restless = threads.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let (_connection, mut lane, _) = client(runtime, &backend);
                let how = Subscribe::new(Settle::OnDelivery);
                runtime.block_on(lane.subscribe(&Source::Filter("storm/1"), KEY, &how, None)).unwrap();
                lane.start(KEY);
                thread::yield_now();
            }
        });
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let backend = &backend;
                threads.spawn(move || {
                    let (_connection, mut lane, _) = client(runtime, backend);
                    let queues = [Arc::from("work")];
                    let path = format!("storm/{publisher}");
                    let target = lane.target(&Destination::Address {
                        path: path.as_bytes(),
                        syntax: Syntax::Topic,
                        more: &[],
                        queues: &queues,
                    });
                    for read in 0..READS {
                        let numbers = read * READ..(read + 1) * READ;
                        let letters: Letters = numbers
                            .map(|number| {
                                Letter::numbered(target, publisher * 1_000_000 + number).confirmed()
                            })
                            .collect();
                        let published = lane.publish(&letters.batch());
                        lane.flush();
                        assert_eq!((published.done, published.exceptions.len()), (READ, 0));
                        runtime.block_on(std::future::poll_fn(|cx| lane.poll_ready(cx))).unwrap();
                    }
                })
            })
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        let watched = watcher.join().unwrap();
        // What was in hand comes back; the queue drains.
        for _ in 0..5000 {
            let depth = backend.queues();
            if depth.iter().all(|queue| queue.ready + queue.unsettled == 0) {
                break;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        drop(done_by_end);
        restless.join().unwrap();
        let shared: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        (watched, shared)
    });

    assert_eq!(watched.len(), all, "the watcher gets everything once");
    assert_order(&watched, "watcher");
    let mut first_given: Vec<_> = shared.concat();
    first_given.sort_unstable();
    assert!(first_given.windows(2).all(|pair| pair[0] != pair[1]), "one was given twice and not said to be");
    assert_eq!(first_given.len(), all, "each message was given to a worker");
    let depth = backend.queues();
    assert!(depth.iter().all(|queue| queue.ready + queue.unsettled == 0), "the queue is empty: {depth:?}");
}

const ROUNDS: u32 = 200;

fn binding(queue: &'static str) -> Binding<'static> {
    Binding { source: "amq.direct", to: BindingEnd::Queue(queue), key: b"k", arguments: &[] }
}

#[test]
fn a_binding_that_was_made_or_undone_is_seen_by_the_next_publish_on_any_lane() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let runtime = runtime.handle();
    let backend = Embedded::open("storm", EmbeddedOptions::default(), Arc::new(SystemClock));
    let (_owner, mut owner, _) = client(runtime, &backend);
    runtime.block_on(owner.declare_queue(&queue_spec("q", &[]))).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        // The topology changes all the time, under other publishers, too.
        let restless: Vec<_> = (0..2)
            .map(|_| {
                threads.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        let (_connection, mut lane, _) = client(runtime, &backend);
                        let how = Subscribe::new(Settle::AsPublished);
                        let group = Source::Group { group: "g", filter: "k" };
                        runtime.block_on(lane.subscribe(&group, KEY, &how, None)).unwrap();
                        lane.start(KEY);
                        let target = lane.target(&Destination::Address {
                            path: b"k",
                            syntax: Syntax::Topic,
                            more: &[],
                            queues: &[],
                        });
                        let published = lane.publish(&Letters::confirmed(target, 0..READ).batch());
                        assert_eq!((published.done, published.exceptions.len()), (READ, 0));
                        lane.flush();
                    }
                })
            })
            .collect();
        let (asks, answers): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (ask, asked) = mpsc::channel::<()>();
                let (answer, answered) = mpsc::channel();
                let backend = &backend;
                threads.spawn(move || {
                    let (_connection, mut lane, _) = client(runtime, backend);
                    let target =
                        lane.target(&Destination::Exchange { name: "amq.direct", key: b"k", more: &[] });
                    for () in asked {
                        let published = lane.publish(&Letters::confirmed(target, [1]).batch());
                        answer.send(published.exceptions.is_empty()).unwrap();
                    }
                });
                (ask, answered)
            })
            .unzip();
        let arrive = || {
            asks.iter().for_each(|ask| ask.send(()).unwrap());
            answers.iter().map(|answer| answer.recv().unwrap()).collect::<Vec<_>>()
        };
        let done = Done(&done);
        for round in 0..ROUNDS {
            runtime.block_on(owner.bind(&binding("q"))).unwrap();
            assert_eq!(arrive(), [true, true], "round {round}: bound, and not seen");
            runtime.block_on(owner.unbind(&binding("q"))).unwrap();
            assert_eq!(arrive(), [false, false], "round {round}: unbound, and not seen");
        }
        drop(done);
        restless.into_iter().for_each(|it| it.join().unwrap());
        drop(asks);
    });
    let depths = backend.queues();
    assert_eq!(depths.len(), 1, "the groups went with their members: {depths:?}");
    assert_eq!(depths[0].ready, u64::from(2 * ROUNDS));
}

#[test]
fn a_commit_publishes_everything_or_nothing_although_an_exchange_is_deleted_meanwhile() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let runtime = runtime.handle();
    let backend = Embedded::open("storm", EmbeddedOptions::default(), Arc::new(SystemClock));
    let (_owner, mut owner, _) = client(runtime, &backend);
    runtime.block_on(owner.declare_queue(&queue_spec("q", &[]))).unwrap();
    let exchange = ExchangeSpec {
        name: "x",
        kind: ExchangeKind::Direct,
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        arguments: &[],
    };
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                runtime.block_on(owner.declare_exchange(&exchange)).unwrap();
                runtime.block_on(owner.delete_exchange("x", false)).unwrap();
            }
        });
        let (_connection, mut lane, _) = client(runtime, &backend);
        let (x, q) = (
            lane.target(&Destination::Exchange { name: "x", key: b"k", more: &[] }),
            lane.target(&Destination::Queue { name: "q", more: &[] }),
        );
        runtime.block_on(lane.begin()).unwrap();
        let many = Letters::numbered(q, 0..200);
        let mixed: Letters = [x, q, x, q].map(|to| Letter::numbered(to, 1)).into_iter().collect();
        let ready = || backend.queues()[0].ready;
        let done = Done(&done);
        for _ in 0..500 {
            let before = ready();
            lane.publish(&many.batch());
            let is_whole = lane.publish(&mixed.batch()).taken == 4;
            match runtime.block_on(lane.commit()) {
                Ok(()) if is_whole => assert_eq!(ready() - before, 202, "those to the queue are all there"),
                Ok(()) => {}
                Err(_) => assert_eq!(ready(), before, "nothing was published"),
            }
        }
        drop(done);
    });
}

#[test]
fn a_queue_that_is_deleted_only_when_empty_takes_no_confirmed_message_along() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let runtime = runtime.handle();
    let backend = Embedded::open("storm", EmbeddedOptions::default(), Arc::new(SystemClock));
    let (_owner, mut owner, _) = client(runtime, &backend);
    let done = AtomicBool::new(false);
    let deleted = AtomicU64::new(0);
    thread::scope(|threads| {
        threads.spawn(|| {
            let (_connection, mut lane, _) = client(runtime, &backend);
            let target = lane.target(&Destination::Queue { name: "q", more: &[] });
            while !done.load(Ordering::SeqCst) {
                lane.publish(&Letters::confirmed(target, [1]).batch());
            }
        });
        let done = Done(&done);
        for _ in 0..5000 {
            runtime.block_on(owner.declare_queue(&queue_spec("q", &[]))).unwrap();
            match runtime.block_on(owner.delete_queue("q", false, true)) {
                Ok(count) => {
                    assert_eq!(count, 0, "it was to be deleted only when empty");
                    deleted.fetch_add(1, Ordering::SeqCst);
                }
                Err(_) => assert!(runtime.block_on(owner.purge_queue("q")).unwrap() > 0),
            }
        }
        drop(done);
    });
    assert!(deleted.load(Ordering::SeqCst) > 0, "it was empty now and then");
}

const COMMITS: u32 = 400;

/// How many messages are ready in a queue, and how many unsettled.
fn counts(runtime: &tokio::runtime::Handle, lane: &mut dyn Lane, name: &str) -> (u64, u64) {
    let spec = QueueSpec { passive: true, ..queue_spec(name, &[]) };
    let counts = runtime.block_on(lane.declare_queue(&spec)).unwrap();
    (counts.messages, counts.unsettled.unwrap())
}

/// Each commit takes one message of `from` and puts one into `a` and `b`, one to a consumer of `seen` and one to a
/// subscriber of the topic `t`. Whoever sees one of these finds all the others.
#[test]
fn nobody_sees_half_of_a_commit() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let runtime = runtime.handle();
    let backend = Embedded::open("storm", EmbeddedOptions::default(), Arc::new(SystemClock));
    let (_owner, mut owner, _) = client(runtime, &backend);
    for name in ["a", "b", "from", "seen"] {
        runtime.block_on(owner.declare_queue(&queue_spec(name, &[]))).unwrap();
    }
    let from = owner.target(&Destination::Queue { name: "from", more: &[] });
    owner.publish(&Letters::numbered(from, 0..COMMITS).batch());
    let done = AtomicBool::new(false);
    let started = AtomicU64::new(0);
    let begin = || {
        started.fetch_add(1, Ordering::SeqCst);
    };
    thread::scope(|threads| {
        let done_by_end = Done(&done);
        threads.spawn(|| {
            let (_connection, mut lane, _) = client(runtime, &backend);
            begin();
            while !done.load(Ordering::SeqCst) {
                let (a, b) = (counts(runtime, &mut *lane, "a").0, counts(runtime, &mut *lane, "b").0);
                assert!(a <= b, "a message was seen in a ({a}) and not yet in b ({b})");
                let (b, a) = (counts(runtime, &mut *lane, "b").0, counts(runtime, &mut *lane, "a").0);
                assert!(b <= a, "a message was seen in b ({b}) and not yet in a ({a})");
                let (held, b) = (counts(runtime, &mut *lane, "from"), counts(runtime, &mut *lane, "b").0);
                let gone = u64::from(COMMITS) - held.0 - held.1;
                assert!(gone <= b, "{gone} were settled, and only {b} published");
                let (b, held) = (counts(runtime, &mut *lane, "b").0, counts(runtime, &mut *lane, "from"));
                let gone = u64::from(COMMITS) - held.0 - held.1;
                assert!(b <= gone, "{b} were published, and only {gone} settled");
            }
        });
        for source in [Source::Queue("seen"), Source::Filter("t")] {
            let (backend, done, begin) = (&backend, &done, &begin);
            threads.spawn(move || {
                let (_connection, mut lane, sink) = client(runtime, backend);
                let how = Subscribe::new(Settle::ByConsumer);
                let credit = Arc::new(Credit::new(10_000));
                runtime.block_on(lane.subscribe(&source, KEY, &how, Some(credit))).unwrap();
                lane.start(KEY);
                begin();
                while !done.load(Ordering::SeqCst) {
                    let seen = sink.given.lock().len() as u64;
                    for name in ["a", "b"] {
                        let there = counts(runtime, &mut *lane, name).0;
                        assert!(seen <= there, "{source:?} gave {seen}, and {name} has {there} only");
                    }
                }
                assert_eq!(sink.given.lock().len(), COMMITS as usize, "{source:?}");
            });
        }
        while started.load(Ordering::SeqCst) < 3 {
            thread::yield_now();
        }
        let (_connection, mut lane, _) = client(runtime, &backend);
        let mut to = |name| lane.target(&Destination::Queue { name, more: &[] });
        let (a, b, seen) = (to("a"), to("b"), to("seen"));
        let t =
            lane.target(&Destination::Address { path: b"t", syntax: Syntax::Topic, more: &[], queues: &[] });
        runtime.block_on(lane.begin()).unwrap();
        for number in 0..COMMITS {
            let fetched = runtime.block_on(lane.fetch("from", KEY, false)).unwrap().unwrap();
            let order = if number % 2 == 0 { [a, seen, t, b] } else { [b, t, seen, a] };
            for target in order {
                lane.publish(&Letters::confirmed(target, [number]).batch());
            }
            lane.settle(&[Settled {
                key: fetched.key,
                first: fetched.tag,
                count: 1,
                outcome: Settlement::Accept,
                word: None,
            }]);
            runtime.block_on(lane.commit()).unwrap();
            lane.flush();
            thread::yield_now();
        }
        drop(done_by_end);
    });
}

//! What the back end costs beside its client library: processor time a message that is published with a confirm,
//! consumed and acknowledged, against lapin alone doing the same with the same broker.
//!
//! `cargo bench -p linkspan-amqp --bench against_lapin`, with `-- MESSAGES ROUNDS`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench stops where it cannot go on"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use linkspan_amqp::{AmqpBackend, AmqpOptions};
use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::{
    Backend, Batch, Client, Credit, Delivered, DeliverySink, Destination, Ended, Health, LaneEvent,
    LaneEvents, Pick, QueueSpec, Receipt, ReceiptSink, Settle, Settled, Settlement, Source, Subscribe,
    SubscriptionKey, SystemClock,
};
use linkspan_integration_tests::RabbitMq;
use tokio::sync::Notify;

const SIZE: usize = 1024;
const ACKS: u64 = 50;

/// Seconds of processor time that this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a process is described");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

struct Figures {
    cpu: f64,
    wall: f64,
}

async fn measured(count: u64, run: impl Future<Output = ()>) -> Figures {
    let (begin, start) = (cpu(), Instant::now());
    run.await;
    let per = |seconds: f64| seconds * 1e6 / count as f64;
    Figures { cpu: per(cpu() - begin), wall: per(start.elapsed().as_secs_f64()) }
}

fn name(text: &str) -> ShortString {
    ShortString::try_new(text).expect("a short name")
}

async fn lapin_alone(url: &str, window: usize, count: u64) -> Figures {
    let queue = name("linkspan-bench-lapin");
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a broker");
    let channel = connection.create_channel().await.expect("a channel");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.clone(), durable, FieldTable::default()).await.expect("a queue");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let taking = connection.create_channel().await.expect("a channel");
    taking.basic_qos(1000, BasicQosOptions::default()).await.expect("a window");
    let options = BasicConsumeOptions::default();
    let consumer = taking.basic_consume(queue.clone(), name("c"), options, FieldTable::default());
    let mut consumer = consumer.await.expect("a consumer");
    let body = vec![7; SIZE];
    let figures = measured(count, async {
        let taken = tokio::spawn(async move {
            for number in 1..=count {
                let delivery = consumer.next().await.expect("a delivery").expect("no loss");
                if number % ACKS == 0 || number == count {
                    let all = BasicAckOptions { multiple: true };
                    taking.basic_ack(delivery.delivery_tag, all).await.expect("an acknowledgement");
                }
            }
        });
        let mut confirms = FuturesUnordered::new();
        for _ in 0..count {
            while confirms.len() >= window {
                let confirm: lapin::Result<lapin::Confirmation> = confirms.next().await.expect("one is out");
                assert!(confirm.expect("no loss").is_ack());
            }
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let published = channel.basic_publish(name(""), queue.clone(), options, &body, properties);
            confirms.push(published.await.expect("a publish"));
        }
        while let Some(confirm) = confirms.next().await {
            assert!(confirm.expect("no loss").is_ack());
        }
        taken.await.expect("all were taken");
    })
    .await;
    channel.queue_delete(queue, QueueDeleteOptions::default()).await.expect("a deletion");
    connection.close(200, name("OK")).await.expect("a close");
    figures
}

/// Counts what comes.
#[derive(Default)]
struct Counter {
    receipts: AtomicU64,
    deliveries: AtomicU64,
    changed: Notify,
}

impl DeliverySink for Counter {
    fn deliver(&self, _: &Batch<'_>, picks: &[Pick]) -> Delivered {
        let count: u64 = picks.iter().map(|pick| pick.at.len() as u64).sum();
        self.deliveries.fetch_add(count, Ordering::SeqCst);
        Delivered::Taken
    }

    fn flush(&self) {
        self.changed.notify_one();
    }

    fn poll_drained(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn ended(&self, _: SubscriptionKey, _: Ended) {}
}

impl ReceiptSink for Counter {
    fn receipts(&self, runs: &[Receipt]) {
        let count: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        self.receipts.fetch_add(count, Ordering::SeqCst);
        self.changed.notify_one();
    }
}

impl LaneEvents for Counter {
    fn event(&self, event: LaneEvent) {
        panic!("nothing was to happen, but this did: {event:?}");
    }
}

async fn through_the_back_end(url: &str, window: usize, count: u64) -> Figures {
    let queue = "linkspan-bench-adapter";
    let options = AmqpOptions { connections: 1, ..AmqpOptions::from_url(url).expect("a URL") };
    let backend = AmqpBackend::open("rabbit", options, Arc::new(SystemClock)).expect("a back end");
    while backend.health().await != Health::Up {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let client = |number| Client {
        number,
        identifier: "bench".into(),
        user: "guest".into(),
        vhost: "/".into(),
        session: None,
    };
    let (out, taken) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    let mut publisher = backend.connect(&client(1), out.clone()).await.expect("a client");
    let mut lane = publisher.lane(out.clone(), out.clone()).await.expect("a lane");
    let spec = QueueSpec {
        name: queue,
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: &[],
    };
    lane.declare_queue(&spec).await.expect("a queue");
    let target = lane.target(&Destination::Queue { name: queue, more: &[] });
    let mut worker = backend.connect(&client(2), taken.clone()).await.expect("a client");
    let mut work = worker.lane(taken.clone(), taken.clone()).await.expect("a lane");
    let key = SubscriptionKey { subscription: 1, part: 0 };
    let credit = Arc::new(Credit::new(1000));
    let how = Subscribe::new(Settle::ByConsumer);
    work.subscribe(&Source::Queue(queue), key, &how, Some(credit.clone())).await.expect("a consumer");
    work.start(key);
    let letters: Letters = (0..window)
        .map(|_| {
            let mut letter = Letter::numbered(target, 0).confirmed();
            letter.payload = vec![7; SIZE];
            letter
        })
        .collect();
    let figures = measured(count, async {
        let taking = tokio::spawn(async move {
            let mut settled = 0;
            while settled < count {
                let there = taken.deliveries.load(Ordering::SeqCst);
                let ready = if there == count { there - settled } else { (there - settled) / ACKS * ACKS };
                if ready == 0 {
                    taken.changed.notified().await;
                    continue;
                }
                for first in (settled..settled + ready).step_by(ACKS as usize) {
                    let run = u32::try_from(ACKS.min(settled + ready - first)).expect("a small run");
                    let outcome = Settlement::Accept;
                    work.settle(&[Settled { key, first: first + 1, count: run, outcome, word: None }]);
                    if credit.grant(run) {
                        work.resume();
                    }
                }
                work.flush();
                settled += ready;
            }
        });
        let mut sent = 0;
        while sent < count {
            let known = out.receipts.load(Ordering::SeqCst);
            let room = (window as u64).saturating_sub(sent - known).min(count - sent);
            if room == 0 {
                out.changed.notified().await;
                continue;
            }
            let batch = letters.batch();
            let messages = &batch.messages[..room as usize];
            lane.publish(&Batch { messages, ..batch });
            lane.flush();
            sent += room;
        }
        while out.receipts.load(Ordering::SeqCst) < count {
            out.changed.notified().await;
        }
        taking.await.expect("all were taken");
    })
    .await;
    lane.delete_queue(queue, false, false).await.expect("a deletion");
    backend.close().await;
    figures
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|it| it.parse().ok()).collect();
    let (count, rounds) = (numbers.first().copied().unwrap_or(50_000), numbers.get(1).copied().unwrap_or(5));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let url = RabbitMq::shared().await.url();
        for window in [100, 1000] {
            let (mut alone, mut through) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                let one = lapin_alone(url, window, count).await;
                let other = through_the_back_end(url, window, count).await;
                println!(
                    "window {window} round {round}: lapin {:.1} us cpu {:.1} us wall, back end {:.1} us cpu {:.1} us wall",
                    one.cpu, one.wall, other.cpu, other.wall
                );
                alone.push(one.cpu);
                through.push(other.cpu);
            }
            let median = |all: &mut Vec<f64>| {
                all.sort_by(f64::total_cmp);
                all.get(all.len() / 2).copied().unwrap_or(0.0)
            };
            let (one, other) = (median(&mut alone), median(&mut through));
            println!("window {window}: lapin {one:.1} us, back end {other:.1} us, ratio {:.2}", other / one);
        }
    });
}

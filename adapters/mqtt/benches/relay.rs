//! What a message costs on its way through the back end: published, delivered back and acknowledged at QoS 1 over
//! Mosquitto, against rumqttc alone doing the same. CPU is this process's; the broker is another one.
//!
//! `cargo bench -p linkspan-mqtt --bench relay`; figures are CPU microseconds a message, best and median of the rounds.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program for people"
)]

#[path = "../tests/stage/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use linkspan_contract::conformance::letters::Letter;
use linkspan_contract::conformance::letters::Letters;
use linkspan_contract::{
    Backend, Batch, Client, Delivered, DeliverySink, Destination, Ended, Pick, Receipt, ReceiptSink, Settle,
    Settled, Settlement, Source, Subscribe, SubscriptionKey, Syntax,
};
use linkspan_integration_tests::Mosquitto;
use rumqttc::v5;
use rumqttc::v5::mqttbytes::QoS;
use stage::{Heard, key, name, options, reached};
use tokio::sync::Notify;

const MESSAGES: u64 = 200_000;
const ROUNDS: usize = 5;
const RUN: u64 = 50;

/// User and system time of this process, in microseconds.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: u64 =
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number");
    ticks * 10_000
}

#[derive(Default)]
struct Count {
    count: AtomicU64,
    more: Notify,
}

impl Count {
    fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::SeqCst);
        self.more.notify_one();
    }

    /// Waits until there are so many.
    async fn reaches(&self, least: u64) -> u64 {
        loop {
            let count = self.count.load(Ordering::SeqCst);
            if count >= least {
                return count;
            }
            self.more.notified().await;
        }
    }
}

impl ReceiptSink for Count {
    fn receipts(&self, runs: &[Receipt]) {
        self.add(runs.iter().map(|run| u64::from(run.count)).sum());
    }
}

impl DeliverySink for Count {
    fn deliver(&self, _batch: &Batch<'_>, picks: &[Pick]) -> Delivered {
        self.add(picks.iter().map(|pick| pick.at.len() as u64).sum());
        Delivered::Taken
    }

    fn flush(&self) {}

    fn poll_drained(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn ended(&self, _key: SubscriptionKey, _why: Ended) {}
}

fn letters(target: linkspan_contract::TargetId, count: u64) -> Letters {
    let letter = |number| {
        let mut letter = Letter::numbered(target, number).confirmed();
        letter.payload.resize(64, b'x');
        letter
    };
    (0..u32::try_from(count).expect("few")).map(letter).collect()
}

/// Through the back end.
async fn through(url: &str, window: u64) -> f64 {
    let backend = reached(linkspan_mqtt::MqttOptions { window: 1000, ..options(url) }).await;
    let topic = name("t");
    let client = |number| Client {
        number,
        identifier: "bench".into(),
        user: "bench".into(),
        vhost: "/".into(),
        session: None,
    };
    let (delivered, confirmed) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let heard = Arc::new(Heard::default());
    let mut consuming = backend.connect(&client(1), delivered.clone()).await.expect("a client connects");
    let mut consumer = consuming.lane(heard.clone(), heard.clone()).await.expect("a lane opens");
    let how = Subscribe::new(Settle::AsPublished);
    consumer.subscribe(&Source::Filter(&topic), key(1), &how, None).await.expect("a subscription");
    consumer.start(key(1));
    let mut publishing =
        backend.connect(&client(2), Arc::new(Count::default())).await.expect("a client connects");
    let mut publisher = publishing.lane(confirmed.clone(), heard.clone()).await.expect("a lane opens");
    let target = publisher.target(&Destination::Address {
        path: topic.as_bytes(),
        syntax: Syntax::Topic,
        more: &[],
        queues: &[],
    });
    let run = RUN.min(window);
    let batch = letters(target, run);
    let before = cpu();
    let publish = async {
        let mut sent = 0;
        while sent < MESSAGES {
            confirmed.reaches((sent + run).saturating_sub(window)).await;
            publisher.publish(&batch.batch());
            publisher.flush();
            sent += run;
        }
        confirmed.reaches(MESSAGES).await;
    };
    let consume = async {
        let mut settled = 0;
        while settled < MESSAGES {
            let there = delivered.reaches((settled + run).min(MESSAGES)).await;
            let count = u32::try_from(there - settled).expect("few");
            consumer.settle(&[Settled {
                key: key(1),
                first: settled + 1,
                count,
                outcome: Settlement::Accept,
                word: None,
            }]);
            consumer.resume();
            consumer.flush();
            settled = there;
        }
    };
    tokio::join!(publish, consume);
    let cost = (cpu() - before) as f64 / MESSAGES as f64;
    backend.close().await;
    cost
}

/// With rumqttc alone: one client that publishes, one that consumes.
async fn alone(port: u16, window: u64) -> f64 {
    let topic = name("t");
    let client = |manual: bool| {
        let mut options = v5::MqttOptions::new(name("bench"), "127.0.0.1", port);
        options.set_outgoing_inflight_upper_limit(u16::try_from(window).expect("few"));
        options.set_receive_maximum(Some(1000)).set_manual_acks(manual);
        v5::AsyncClient::new(options, 70_000)
    };
    let (consumer, mut incoming) = client(true);
    consumer.try_subscribe(topic.as_str(), QoS::AtLeastOnce).expect("there is room");
    while !matches!(incoming.poll().await, Ok(v5::Event::Incoming(v5::Incoming::SubAck(_)))) {}
    let (publisher, mut outgoing) = client(false);
    let confirmed = Arc::new(Count::default());
    let told = confirmed.clone();
    let before = cpu();
    let answers = tokio::spawn(async move {
        let mut count = 0;
        while count < MESSAGES {
            if let v5::Event::Incoming(v5::Incoming::PubAck(_)) = outgoing.poll().await.expect("a connection")
            {
                count += 1;
                told.add(1);
            }
        }
    });
    let deliveries = tokio::spawn(async move {
        let mut count = 0;
        while count < MESSAGES {
            if let v5::Event::Incoming(v5::Incoming::Publish(publish)) =
                incoming.poll().await.expect("a connection")
            {
                consumer.try_ack(&publish).expect("there is room");
                count += 1;
            }
        }
    });
    let run = RUN.min(window);
    let payload = vec![b'x'; 64];
    let mut sent = 0;
    while sent < MESSAGES {
        confirmed.reaches((sent + run).saturating_sub(window)).await;
        for _ in 0..run {
            publisher
                .try_publish(topic.as_str(), QoS::AtLeastOnce, false, payload.clone())
                .expect("there is room");
        }
        sent += run;
    }
    answers.await.expect("no panic");
    deliveries.await.expect("no panic");
    (cpu() - before) as f64 / MESSAGES as f64
}

fn shown(mut costs: Vec<f64>) -> (f64, f64) {
    costs.sort_by(f64::total_cmp);
    (costs[0], costs[costs.len() / 2])
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let broker = Mosquitto::own_with("max_inflight_messages 1000\nmax_queued_messages 0", &[]).await;
    for window in [100, 1000] {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let began = Instant::now();
        for _ in 0..ROUNDS {
            without.push(alone(broker.address().port(), window).await);
            with.push(through(broker.url(), window).await);
        }
        let ((best, median), (best_alone, median_alone)) = (shown(with), shown(without));
        println!(
            "window {window}: {best:.2} / {median:.2} through the back end, {best_alone:.2} / {median_alone:.2} with rumqttc \
             alone: {:.2} / {:.2} times ({} rounds of {MESSAGES}, {:.0} s)",
            best / best_alone,
            median / median_alone,
            ROUNDS,
            began.elapsed().as_secs_f64()
        );
    }
}

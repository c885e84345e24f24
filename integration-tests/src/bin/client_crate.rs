//! What a client crate alone takes to publish, consume and acknowledge: the measure of what Linkspan adds in front of a
//! broker. `integration-tests/loadgen/baseline.sh` runs it beside the load generator, and reads its line of JSON.
//!
//!     client_crate lapin 127.0.0.1:5672 --window 100 --size 1024 --ack-batch 50 --seconds 2
//!     client_crate rumqttc 127.0.0.1:1883 --window 100 --size 64 --acks manual --seconds 2
//!
//! `--part publish` and `--part consume` do one half: publish for nobody, or consume what was published before.
//! Processor time is this process's.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement stops where it cannot go on"
)]

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, ConnectionProperties};
use rumqttc::v5;
use rumqttc::v5::mqttbytes::QoS;
use tokio::task::{JoinHandle, LocalSet};

/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// Deliveries without an acknowledgement that a consumer allows.
const PREFETCH: u16 = 1000;

/// Messages that wait for who consumes only.
const BACKLOG: u64 = 100_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Both,
    Publish,
    Consume,
}

/// What is asked.
struct Work {
    address: String,
    part: Part,
    window: usize,
    size: usize,
    ack_batch: u64,
    /// rumqttc acknowledges by itself, else when it is told.
    automatic: bool,
    length: Duration,
    labels: HashMap<String, String>,
}

impl Work {
    fn asked(address: String, mut options: HashMap<String, String>) -> Self {
        let mut number = |name: &str, default: f64| -> f64 {
            options
                .remove(name)
                .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("--{name}: {text}")))
        };
        let (window, size) = (number("window", 100.0) as usize, number("size", 64.0) as usize);
        let (ack_batch, length) =
            (number("ack-batch", 1.0) as u64, Duration::from_secs_f64(number("seconds", 2.0)));
        let part = match options.remove("part").as_deref() {
            None | Some("both") => Part::Both,
            Some("publish") => Part::Publish,
            Some("consume") => Part::Consume,
            Some(other) => panic!("--part {other}: publish, consume or both"),
        };
        let automatic = match options.remove("acks").as_deref() {
            None | Some("manual") => false,
            Some("automatic") => true,
            Some(other) => panic!("--acks {other}: manual or automatic"),
        };
        Self { address, part, window, size, ack_batch, automatic, length, labels: options }
    }
}

/// Counts, and knows when it is time.
struct Clock {
    opened: Instant,
    length: Duration,
    published: Cell<u64>,
    confirmed: Cell<u64>,
    delivered: Cell<u64>,
    begun: Cell<Option<Mark>>,
}

#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    cpu: f64,
    confirmed: u64,
    delivered: u64,
}

impl Clock {
    fn new(work: &Work) -> Self {
        let zero = || Cell::new(0);
        let (published, confirmed, delivered) = (zero(), zero(), zero());
        Self {
            opened: Instant::now(),
            length: work.length,
            published,
            confirmed,
            delivered,
            begun: Cell::new(None),
        }
    }

    fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            cpu: cpu(),
            confirmed: self.confirmed.get(),
            delivered: self.delivered.get(),
        }
    }

    /// Whether another message is to be published: of so many, or in the time that there is.
    fn goes_on(&self, limit: Option<u64>) -> bool {
        let count = self.published.get();
        if limit.is_some() || !count.is_multiple_of(64) {
            return limit.is_none_or(|limit| count < limit);
        }
        let since = self.opened.elapsed();
        if self.begun.get().is_none() && since >= WARM_UP {
            self.begun.set(Some(self.mark()));
        }
        since < WARM_UP + self.length
    }

    fn begin(&self) -> Mark {
        self.begun.get().expect("it ran longer than the warm-up")
    }
}

/// Seconds of processor time that this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux describes a process");
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|it| it.parse::<f64>().ok()).expect("a number of ticks");
    (ticks() + ticks()) / 100.0
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

fn name(text: &str) -> ShortString {
    ShortString::try_new(text).expect("a short name")
}

/// Counts until all that was published has been delivered, then ends the consumer.
async fn all_delivered(clock: &Clock, published: u64, consumer: JoinHandle<()>) {
    while clock.delivered.get() < published {
        assert!(!consumer.is_finished(), "the consumer lives as long as there is something to consume");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    consumer.abort();
}

/// One connection, a channel that publishes with confirms and one that consumes.
async fn lapin(work: Work) -> (Mark, Mark) {
    let queue = name(&format!("client-crate-{}", std::process::id()));
    let url = format!("amqp://guest:guest@{}/%2f", work.address);
    let connection =
        lapin::Connection::connect(&url, ConnectionProperties::default()).await.expect("a broker");
    let channel = connection.create_channel().await.expect("a channel");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.clone(), durable, FieldTable::default()).await.expect("a queue");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let (body, window) = (vec![b'x'; work.size], work.window);
    let publish = async |clock: &Clock, limit: Option<u64>| {
        let mut confirms = FuturesUnordered::new();
        let took = |confirm: Option<lapin::Result<lapin::Confirmation>>| {
            assert!(confirm.expect("one is out").expect("no loss").is_ack(), "the broker took it");
            add(&clock.confirmed, 1);
        };
        while clock.goes_on(limit) {
            while confirms.len() >= window {
                took(confirms.next().await);
            }
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let published = channel.basic_publish(name(""), queue.clone(), options, &body, properties);
            confirms.push(published.await.expect("a publish"));
            add(&clock.published, 1);
        }
        while !confirms.is_empty() {
            took(confirms.next().await);
        }
    };
    let taking = connection.create_channel().await.expect("a channel");
    taking.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a window");
    let subscribed = async || {
        let options = BasicConsumeOptions::default();
        let consumer = taking.basic_consume(queue.clone(), name("c"), options, FieldTable::default());
        consumer.await.expect("a consumer")
    };
    let consume = |clock: Rc<Clock>, mut consumer: lapin::Consumer| {
        let (taking, batch) = (taking.clone(), work.ack_batch);
        tokio::task::spawn_local(async move {
            while let Some(delivery) = consumer.next().await {
                let tag = delivery.expect("no loss").delivery_tag;
                add(&clock.delivered, 1);
                if tag.is_multiple_of(batch) {
                    let all = BasicAckOptions { multiple: true };
                    taking.basic_ack(tag, all).await.expect("an acknowledgement");
                }
            }
        })
    };
    let clock = Rc::new(Clock::new(&work));
    let marks = match work.part {
        Part::Consume => {
            publish(&Clock::new(&work), Some(BACKLOG)).await;
            let begin = clock.mark();
            let consumer = consume(Rc::clone(&clock), subscribed().await);
            all_delivered(&clock, BACKLOG, consumer).await;
            (begin, clock.mark())
        }
        Part::Publish => {
            publish(&clock, None).await;
            (clock.begin(), clock.mark())
        }
        Part::Both => {
            let consumer = consume(Rc::clone(&clock), subscribed().await);
            publish(&clock, None).await;
            all_delivered(&clock, clock.published.get(), consumer).await;
            (clock.begin(), clock.mark())
        }
    };
    channel.queue_delete(queue, QueueDeleteOptions::default()).await.expect("a deletion");
    connection.close(200, name("OK")).await.expect("a close");
    marks
}

/// A connection that publishes and one that consumes.
async fn rumqttc(work: Work) -> (Mark, Mark) {
    let topic = format!("client-crate/{}", std::process::id());
    let (host, port) = work.address.split_once(':').expect("HOST:PORT");
    let port: u16 = port.parse().expect("a port");
    let client = |role: &str, fresh: bool| {
        let mut options = v5::MqttOptions::new(format!("{topic}/{role}"), host, port);
        options
            .set_clean_start(fresh)
            .set_session_expiry_interval(Some(60))
            .set_outgoing_inflight_upper_limit(u16::try_from(work.window).expect("at most 65535"))
            .set_receive_maximum(Some(PREFETCH))
            .set_manual_acks(!work.automatic);
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        v5::AsyncClient::new(options, 70_000)
    };
    let publish = async |clock: &Clock, limit: Option<u64>| {
        let (publisher, mut events) = client("publisher", true);
        let body = vec![b'x'; work.size];
        let one = || {
            let sent = publisher.try_publish(topic.as_str(), QoS::AtLeastOnce, false, body.clone());
            sent.expect("there is room");
            add(&clock.published, 1);
        };
        (0..work.window).for_each(|_| one());
        while clock.confirmed.get() < clock.published.get() {
            if let v5::Event::Incoming(v5::Incoming::PubAck(_)) = events.poll().await.expect("a connection") {
                add(&clock.confirmed, 1);
                if clock.goes_on(limit) {
                    one();
                }
            }
        }
    };
    let subscribed = async || {
        let (consumer, mut events) = client("consumer", true);
        consumer.try_subscribe(topic.as_str(), QoS::AtLeastOnce).expect("there is room");
        while !matches!(events.poll().await, Ok(v5::Event::Incoming(v5::Incoming::SubAck(_)))) {}
        (consumer, events)
    };
    let consume = |clock: Rc<Clock>, (consumer, mut events): (v5::AsyncClient, v5::EventLoop)| {
        let automatic = work.automatic;
        tokio::task::spawn_local(async move {
            loop {
                if let v5::Event::Incoming(v5::Incoming::Publish(message)) =
                    events.poll().await.expect("a connection")
                {
                    add(&clock.delivered, 1);
                    if !automatic {
                        consumer.try_ack(&message).expect("there is room");
                    }
                }
            }
        })
    };
    let clock = Rc::new(Clock::new(&work));
    match work.part {
        Part::Consume => {
            drop(subscribed().await);
            publish(&Clock::new(&work), Some(BACKLOG)).await;
            let begin = clock.mark();
            let consumer = consume(Rc::clone(&clock), client("consumer", false));
            all_delivered(&clock, BACKLOG, consumer).await;
            (begin, clock.mark())
        }
        Part::Publish => {
            publish(&clock, None).await;
            (clock.begin(), clock.mark())
        }
        Part::Both => {
            let consumer = consume(Rc::clone(&clock), subscribed().await);
            publish(&clock, None).await;
            all_delivered(&clock, clock.published.get(), consumer).await;
            (clock.begin(), clock.mark())
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: client_crate lapin|rumqttc HOST:PORT [--OPTION VALUE]...";
    let (Some(which), Some(address)) = (arguments.next(), arguments.next()) else { panic!("{usage}") };
    let mut options = HashMap::new();
    while let Some(option) = arguments.next() {
        let option = option.strip_prefix("--").expect(usage).to_owned();
        options.insert(option, arguments.next().expect(usage));
    }
    let mut work = Work::asked(address, options);
    let labels = std::mem::take(&mut work.labels);
    let part = work.part;
    let here = LocalSet::new();
    let (begin, end) = match which.as_str() {
        "lapin" => here.run_until(lapin(work)).await,
        "rumqttc" => here.run_until(rumqttc(work)).await,
        _ => panic!("{usage}"),
    };
    let (delivered, confirmed) = (end.delivered - begin.delivered, end.confirmed - begin.confirmed);
    let count = if part == Part::Publish { confirmed } else { delivered };
    let (cpu, wall) = (end.cpu - begin.cpu, (end.at - begin.at).as_secs_f64());
    eprintln!(
        "{which} alone: {count} messages, {:.0}/s, {:.2} us of processor time each",
        count as f64 / wall,
        cpu * 1e6 / count as f64
    );
    let mut line = serde_json::json!({
        "kind": which,
        "delivered": delivered,
        "expected": delivered,
        "confirmed": confirmed,
        "lost": 0,
        "dup": 0,
        "ooo": 0,
        "del_rate": count as f64 / wall,
        "conf_rate": confirmed as f64 / wall,
        "broker_cpu_s": cpu,
        "broker_util": cpu / wall,
        "eff_delivered_per_cpu_s": count as f64 / cpu,
    });
    if let Some(line) = line.as_object_mut() {
        line.extend(labels.into_iter().map(|(label, value)| (label, value.into())));
    }
    println!("{line}");
}

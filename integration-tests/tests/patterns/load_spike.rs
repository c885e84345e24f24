//! Ten times as much is published for ten seconds as the workers can do: what that does to the server, and to others.

mod plot;
mod probe;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linkspan_integration_tests::http::Client;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::{Asking, Consumer, Dialect, Outgoing, Publisher, Taking, soon};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use plot::{Plot, Second};
use probe::Probe;

const ROUTES: &str = "[[route]]\nmatch = \"spike\"\npattern = \"competing-consumers\"\nqueue = \"spike\"\n\
    [[route]]\nmatch = \"other/work\"\npattern = \"competing-consumers\"\nqueue = \"other\"\n";

/// Messages that the workers do in a second, and bytes of each.
const RATE: u32 = 100;
const BYTES: usize = 8 << 10;

/// How long it is quiet, and how long the spike is, in seconds.
const QUIET: usize = 10;
const SPIKE: usize = 10;

/// How many times as much comes then.
const TIMES: u32 = 10;

/// Workers that join when the spike is over.
const MORE: usize = 3;

/// How many times as slow others may become; what is faster than the floor is fast enough on a machine that has other things
/// to do.
const SLOWER: u32 = 2;
const FLOOR: Duration = Duration::from_millis(25);

/// When set, the plot is written.
const WRITE: &str = "LINKSPAN_WRITE_SPIKE";

/// More messages than a run has.
const ROOM: usize = 1 << 17;

/// Parts of a second in which messages are published and worked.
const BEATS: u32 = 20;

/// Publishers, each of which has its turn in another part: so each has time to wait for its receipts.
const PUBLISHERS: u32 = 10;

/// Messages that have to wait for it to be a spike, and bytes of memory that the server may have more then.
const NO_SPIKE: u64 = 5_000;
const MORE_MEMORY: u64 = 32 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_spike_takes_bounded_memory_loses_nothing_and_holds_up_nobody_else() {
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", ROUTES);
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let (mqtt, amqp, http) = (process.door("mqtt"), process.door("amqp"), process.door("http"));
    let mut news = Probe::start(Dialect::Mqtt5, mqtt, "other/news", Taking::Watch("other/news")).await;
    let mut work = Probe::start(Dialect::Amqp, amqp, "other/work", Taking::Queue("other")).await;

    // The one worker there is does so many messages a second, whatever comes.
    let (tells, mut worked) = mpsc::channel(ROOM);
    let asking = Asking { in_hand: Some(20), ..Asking::default() };
    let worker = async || {
        let consuming = Consumer::ask(Dialect::Amqp, amqp, "worker", Taking::Queue("spike"), asking).await;
        consuming.expect("let in")
    };
    let slowly = tokio::spawn(work_slowly(worker().await, tells.clone()));
    let demand = Arc::new(Demand { messages: AtomicU32::new(RATE / BEATS), published: AtomicU32::new(0) });
    let mut publishing = JoinSet::new();
    for n in 0..PUBLISHERS {
        let publisher = Publisher::connect(Dialect::Mqtt5, mqtt, &format!("publisher-{n}")).await;
        publishing.spawn(publish(publisher, n, Arc::clone(&demand)));
    }

    let client = Client::to(http);
    let began = Instant::now();
    let mut seconds: Vec<Second> = Vec::new();
    let mut turns = tokio::time::interval(Duration::from_secs(1));
    turns.tick().await;
    let mut joined = Vec::new();
    let published = soon_enough(async {
        let mut published = None;
        loop {
            turns.tick().await;
            let waiting = ready(&client).await;
            let others = [news.p99().await, work.p99().await];
            seconds.push(Second { at: began.elapsed(), waiting, resident: process.memory(), others });
            match seconds.len() {
                QUIET => demand.messages.store(RATE * TIMES / BEATS, Ordering::Relaxed),
                over if over == QUIET + SPIKE => {
                    demand.messages.store(0, Ordering::Relaxed);
                    while let Some(ended) = publishing.join_next().await {
                        ended.expect("all is published");
                    }
                    published = Some(demand.published.load(Ordering::Relaxed));
                    for _ in 0..MORE {
                        joined.push(tokio::spawn(work_fast(worker().await, tells.clone())));
                    }
                }
                _ => {}
            }
            if let Some(published) = published.filter(|_| waiting == 0) {
                return published;
            }
        }
    })
    .await;

    let mut missing: HashSet<u32> = (0..published).collect();
    soon("every message is worked", async {
        while !missing.is_empty() {
            missing.remove(&worked.recv().await.expect("workers live"));
        }
    })
    .await;
    slowly.abort();
    joined.iter().for_each(tokio::task::JoinHandle::abort);

    let plot = Plot { seconds, spike: QUIET..QUIET + SPIKE };
    eprintln!("{}", plot.summary());
    if std::env::var_os(WRITE).is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/load-spike.svg");
        std::fs::write(path, plot.svg()).expect("docs/load-spike.svg is written");
    }
    let waited = plot.most_waiting();
    assert!(waited >= NO_SPIKE, "{waited} messages waited at most: that is no spike");
    let more = plot.more_resident();
    let bytes = waited * BYTES as u64;
    assert!(more <= MORE_MEMORY, "{more} bytes more are resident while {bytes} wait");
    for (name, [before, during]) in plot.others() {
        let bound = (before * SLOWER).max(FLOOR);
        assert!(during <= bound, "{name}: p99 was {before:?} before the spike, and {during:?} in it");
    }
}

/// Long enough for all of it.
async fn soon_enough<F: Future>(all: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(110), all).await {
        Ok(output) => output,
        Err(_) => panic!("the queue is not empty again"),
    }
}

/// Messages that are ready.
async fn ready(client: &Client) -> u64 {
    let answer = client.ask("GET", "/v1/queues/spike", Vec::new(), Vec::new()).await.expect("an answer");
    let queue: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    queue["ready"].as_u64().unwrap_or_else(|| panic!("no count: {answer:?}"))
}

/// What is published.
struct Demand {
    /// Messages of each part of a second; none any more when the spike is over.
    messages: AtomicU32,
    /// Messages so far, which are numbered so.
    published: AtomicU32,
}

/// The `n`th publisher: as much as is wanted, when it is its turn.
async fn publish(mut publisher: Publisher, n: u32, demand: Arc<Demand>) {
    let beat = Duration::from_secs(1) / BEATS;
    let mut turns = tokio::time::interval_at(tokio::time::Instant::now() + beat * n, beat * PUBLISHERS);
    loop {
        turns.tick().await;
        let count = demand.messages.load(Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let first = demand.published.fetch_add(count, Ordering::Relaxed);
        let messages = (first..first + count).map(|number| {
            let mut message = Outgoing::text(format!("{number} "));
            message.payload.resize(BYTES, b'.');
            message
        });
        publisher.publish("spike", messages).await;
    }
}

/// The number of a message.
fn number(received: &linkspan_integration_tests::Received) -> u32 {
    let (number, _) = received.text().split_once(' ').expect("a number");
    number.parse().expect("a number")
}

async fn work_slowly(mut worker: Consumer, tells: mpsc::Sender<u32>) {
    let mut turns = tokio::time::interval(Duration::from_secs(1) / BEATS);
    loop {
        turns.tick().await;
        for _ in 0..RATE / BEATS {
            let Some(received) = worker.next_within(Duration::from_secs(600)).await else { return };
            let number = number(&received);
            received.settle().await;
            if tells.try_send(number).is_err() {
                return;
            }
        }
    }
}

async fn work_fast(mut worker: Consumer, tells: mpsc::Sender<u32>) {
    while let Some(received) = worker.next_within(Duration::from_secs(600)).await {
        let number = number(&received);
        received.settle().await;
        if tells.try_send(number).is_err() {
            return;
        }
    }
}

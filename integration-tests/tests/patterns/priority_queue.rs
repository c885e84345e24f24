//! The more urgent messages first.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use linkspan_integration_tests::http::Client;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Asking, Consumer, Dialect, Outgoing, Publisher, Server, Taking, soon};
use tokio::task::JoinSet;

use crate::back_end::BackEnd;

const LEVELS: u32 = 10;

/// Messages that wait before any consumer comes.
const WAITING: u32 = 10_000;

/// Messages that are published at once.
const BATCH: u32 = 500;

fn route(address: &str, queues: &[String]) -> String {
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"priority-queue\"\nqueue = {queues:?}\nlevels = {LEVELS}\n"
    )
}

/// A message of that level.
fn urgent(level: u32, text: impl ToString) -> Outgoing {
    Outgoing { priority: u8::try_from(level).ok(), ..Outgoing::text(text) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_waiting_messages_are_given_out_by_level_on_the_embedded_back_end() {
    ten_thousand_are_given_out_by_level(BackEnd::Embedded, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_waiting_messages_are_given_out_by_level_on_rabbitmq() {
    ten_thousand_are_given_out_by_level(BackEnd::RabbitMq, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_waiting_messages_are_given_out_by_level_on_mosquitto() {
    ten_thousand_are_given_out_by_level(BackEnd::Mosquitto, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_waiting_messages_are_given_out_by_level_on_rabbitmq_with_a_queue_for_each_level() {
    ten_thousand_are_given_out_by_level(BackEnd::RabbitMq, "as = \"queue-per-level\"\n").await;
}

/// A level that nobody can guess from the number.
fn level(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761) >> 16 & 0xffff
}

/// A queue for each protocol gets all messages, and then a consumer of that protocol comes.
async fn ten_thousand_are_given_out_by_level(back_end: BackEnd, how: &str) {
    let address = unique("tickets");
    let queues = Dialect::ALL.map(|to| format!("{address}-{}", to as u8));
    let route = format!("{}{how}", route(&address, &queues));
    let server = Server::start(&format!("{}{route}", back_end.table().await)).await;
    let mut publisher = Publisher::connect(Dialect::Amqp, server.amqp(), "desk").await;
    for first in (0..WAITING).step_by(BATCH as usize) {
        let batch = (first..first + BATCH).map(|number| urgent(level(number) % LEVELS, number));
        publisher.publish(&address, batch).await;
    }
    let mut expected: Vec<u32> = (0..WAITING).collect();
    expected.sort_by_key(|number| Reverse(level(*number) % LEVELS));
    for queue in &queues {
        ready(&server, queue, WAITING).await;
    }
    let mut consuming = JoinSet::new();
    for (to, queue) in Dialect::ALL.into_iter().zip(queues) {
        let mut consumer =
            Consumer::connect(to, server.door(to), &unique("worker"), Taking::Queue(&queue)).await;
        let expected = expected.clone();
        consuming.spawn(async move {
            for (at, expected) in expected.into_iter().enumerate() {
                let received = consumer.next().await;
                assert_eq!(received.number(), expected, "{to} on {back_end}: message {at}");
                received.settle().await;
            }
        });
    }
    while let Some(ended) = consuming.join_next().await {
        ended.expect("each protocol's consumer gets them by level, and in order within a level");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lower_levels_have_their_shares_on_the_embedded_back_end() {
    lower_levels_have_their_shares(BackEnd::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lower_levels_have_their_shares_on_rabbitmq() {
    lower_levels_have_their_shares(BackEnd::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lower_levels_have_their_shares_on_mosquitto() {
    lower_levels_have_their_shares(BackEnd::Mosquitto).await;
}

/// Parts that all levels have together.
const PARTS: u32 = LEVELS * (LEVELS + 1) / 2;

/// A consumer of each protocol is given ten times all parts, as long as each level has something.
async fn lower_levels_have_their_shares(back_end: BackEnd) {
    let address = unique("tickets");
    let queues = Dialect::ALL.map(|to| format!("{address}-{}", to as u8));
    let route = format!("{}order = \"weighted\"\n", route(&address, &queues));
    let server = Server::start(&format!("{}{route}", back_end.table().await)).await;
    let mut publisher = Publisher::connect(Dialect::Amqp, server.amqp(), "desk").await;
    let waiting = LEVELS * (10 * LEVELS + 10);
    publisher.publish(&address, (0..waiting).map(|number| urgent(number % LEVELS, number))).await;
    for (to, queue) in Dialect::ALL.into_iter().zip(&queues) {
        ready(&server, queue, waiting).await;
        let mut consumer =
            Consumer::connect(to, server.door(to), &unique("worker"), Taking::Queue(queue)).await;
        let mut shares = vec![0; LEVELS as usize];
        for _ in 0..10 * PARTS {
            let received = consumer.next().await;
            shares[(received.number() % LEVELS) as usize] += 1;
            received.settle().await;
        }
        eprintln!("shares of {to} on {back_end}: {shares:?}");
        for (level, share) in (1..).zip(&shares) {
            let expected = 10 * level;
            assert!(i32::abs_diff(*share, expected) <= 2, "{to} on {back_end}: {shares:?}");
        }
    }
}

/// Returns when so many messages are ready in a queue.
async fn ready(server: &Server, queue: &str, messages: u32) {
    let (client, path) = (Client::to(server.http()), format!("/v1/queues/{queue}"));
    soon("all messages wait", async {
        loop {
            let answer = client.ask("GET", &path, Vec::new(), Vec::new()).await.expect("an answer");
            let queue: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            if queue["ready"] == messages {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_urgent_hardly_waits_under_overload_on_the_embedded_back_end() {
    what_is_urgent_hardly_waits(BackEnd::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_urgent_hardly_waits_under_overload_on_rabbitmq() {
    what_is_urgent_hardly_waits(BackEnd::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_urgent_hardly_waits_under_overload_on_mosquitto() {
    what_is_urgent_hardly_waits(BackEnd::Mosquitto).await;
}

/// One message of each level is published so often, for so many times: twice what the worker can do.
const EVERY: Duration = Duration::from_millis(40);
const TIMES: u32 = 200;

/// How long the worker takes for one.
const WORK: Duration = Duration::from_millis(8);

/// How many times as long the least urgent ones have to wait at least.
const TIMES_AS_LONG: u32 = 50;

async fn what_is_urgent_hardly_waits(back_end: BackEnd) {
    let address = unique("tickets");
    let queues = [format!("{address}-q")];
    let server = Server::start(&format!("{}{}", back_end.table().await, route(&address, &queues))).await;
    let mut publisher = Publisher::connect(Dialect::Mqtt5, server.mqtt(), &unique("desk")).await;
    let asking = Asking { in_hand: Some(1), ..Asking::default() };
    let worker = Consumer::ask(Dialect::Amqp, server.amqp(), "worker", Taking::Queue(&queues[0]), asking);
    let mut worker = worker.await.expect("let in");
    let began = Instant::now();
    let publishing = tokio::spawn(async move {
        let mut turns = tokio::time::interval(EVERY);
        for _ in 0..TIMES {
            turns.tick().await;
            let now = began.elapsed().as_micros();
            publisher
                .publish(&address, (0..LEVELS).map(|level| urgent(level, format!("{level} {now}"))))
                .await;
        }
    });
    let mut waits = vec![Vec::new(); LEVELS as usize];
    for _ in 0..LEVELS * TIMES {
        let received = worker.next().await;
        let (level, published) = received.text().split_once(' ').expect("level and time");
        let published = Duration::from_micros(published.parse().expect("a time"));
        waits[level.parse::<usize>().expect("a level")].push(began.elapsed().saturating_sub(published));
        tokio::time::sleep(WORK).await;
        received.settle().await;
    }
    publishing.await.expect("all is published");
    let medians: Vec<Duration> = waits
        .iter_mut()
        .map(|waits| {
            waits.sort();
            waits[waits.len() / 2]
        })
        .collect();
    eprintln!("median waits by level on {back_end}: {medians:?}");
    let (least, most) = (medians[0], medians[LEVELS as usize - 1]);
    assert!(most * TIMES_AS_LONG <= least, "level 9 waits {most:?}, level 0 {least:?}: {medians:?}");
}

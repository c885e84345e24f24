//! Priority queues at RabbitMQ with a queue there for each of their levels.

mod reload;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Consumer};
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::http;
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Cable, RabbitMq, Server, soon, within};
use serde_json::Value;

use crate::LULL;
use crate::back_ends::{LOCAL, home_is, rabbit_at, work};

/// The ways to have a queue for each level.
const WAYS: [&str; 2] = ["as = \"queue-per-level\"", "queue-type = \"quorum\""];

fn of_level(level: u8) -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2).with_priority(level)
}

/// A queue of five levels with such terms.
fn tickets(queue: &str, terms: &str) -> String {
    format!(
        "[[route]]\nmatch = \"{queue}\"\npattern = \"priority-queue\"\nqueue = \"{queue}\"\nbackend = \"rabbit\"\n\
         levels = 5\n{terms}\n"
    )
}

async fn configuration(routes: &str) -> String {
    format!("{}{}{routes}", rabbit_at(RabbitMq::shared().await.url()), home_is("rabbit"))
}

async fn server(routes: &str) -> Server {
    Server::start(&configuration(routes).await).await
}

async fn publish(client: &Amqp, queue: &str, levels: &[u8]) {
    for level in levels {
        let confirm = client.publish_as("amq.topic", queue, &level.to_string(), of_level(*level)).await;
        assert!(confirm.is_ack(), "level {level}: {confirm:?}");
    }
}

async fn worker(client: &Amqp, queue: &str) -> Consumer {
    client.channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    client.channel.basic_consume(queue.into(), "w".into(), options, FieldTable::default()).await.unwrap()
}

async fn next(worker: &mut Consumer) -> Delivery {
    soon("a message", worker.next()).await.expect("the consumer goes on").expect("a delivery")
}

async fn accept(delivery: &Delivery) {
    delivery.ack(BasicAckOptions::default()).await.unwrap();
}

async fn give_back(delivery: &Delivery, requeue: bool) {
    delivery.nack(BasicNackOptions { requeue, multiple: false }).await.unwrap();
}

/// What a worker is given, one after the other.
async fn worked(worker: &mut Consumer, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        let delivery = next(worker).await;
        all.push(text(&delivery.data));
        accept(&delivery).await;
    }
    all
}

async fn shown(server: &Server, queue: &str) -> Value {
    let answer = http::get(server.http(), &format!("/v1/queues/{queue}"), &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// Returns when so many messages are ready.
async fn ready(server: &Server, queue: &str, messages: u64) {
    let counted = async {
        while shown(server, queue).await["ready"] != messages {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all are counted", counted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_back_keeps_its_level_and_dies_in_the_queue_that_its_route_names() {
    for way in WAYS {
        let (queue, dead) = (unique("tickets"), unique("dead"));
        let terms = format!("{way}\nmax-deliveries = 2\ndead-letter = \"{dead}\"");
        let server = server(&format!("{}{}", tickets(&queue, &terms), work(&dead, &dead, "rabbit"))).await;
        let client = Amqp::confirming(server.amqp()).await;
        publish(&client, &queue, &[0, 3, 1, 4, 3]).await;
        let worker_client = Amqp::connect(server.amqp()).await;
        let mut worker = worker(&worker_client, &queue).await;
        assert_eq!(worked(&mut worker, 1).await, ["4"], "{way}");
        for redelivered in [false, true] {
            let delivery = next(&mut worker).await;
            assert_eq!((text(&delivery.data).as_str(), delivery.redelivered), ("3", redelivered), "{way}");
            give_back(&delivery, true).await;
        }
        let left = worked(&mut worker, 3).await;
        assert_eq!(left, ["3", "1", "0"], "{way}: the other of the same level comes next");
        let letter = soon("a dead letter", async {
            loop {
                let options = BasicGetOptions { no_ack: true };
                if let Some(letter) = client.channel.basic_get(dead.as_str().into(), options).await.unwrap() {
                    return letter;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let headers = letter.delivery.properties.headers().clone().unwrap_or_default();
        let died_in = Some(&AMQPValue::LongString(queue.as_str().into()));
        assert_eq!(headers.inner().get("linkspan-dead-last-queue"), died_in, "{way}: {headers:?}");
        assert_eq!(headers.inner().get("x-first-death-queue"), died_in, "{way}: {headers:?}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_had_that_dies_is_given_out_first_of_its_level() {
    for way in WAYS {
        let queue = unique("tickets");
        let server = server(&tickets(&queue, way)).await;
        let client = Amqp::confirming(server.amqp()).await;
        publish(&client, &queue, &[1, 2, 2]).await;
        let doomed = Amqp::connect(server.amqp()).await;
        let mut first = worker(&doomed, &queue).await;
        assert_eq!(text(&next(&mut first).await.data), "2", "{way}");
        publish(&client, &queue, &[3]).await;
        let other = Amqp::connect(server.amqp()).await;
        let mut second = worker(&other, &queue).await;
        assert_eq!(worked(&mut second, 1).await, ["3"], "{way}");
        let held = next(&mut second).await;
        drop(doomed.connection.close(200, "killed".into()).await);
        accept(&held).await;
        let again = next(&mut second).await;
        assert_eq!((text(&again.data).as_str(), again.redelivered), ("2", true), "{way}");
        accept(&again).await;
        assert_eq!(worked(&mut second, 1).await, ["1"], "{way}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_levels_are_counted_paused_and_purged_together() {
    let queue = unique("tickets");
    let server = server(&tickets(&queue, WAYS[0])).await;
    let client = Amqp::confirming(server.amqp()).await;
    publish(&client, &queue, &[0, 1, 2, 3, 4, 200]).await;
    ready(&server, &queue, 6).await;
    assert_eq!(client.counts(&queue).await, (6, 0));
    let at_rabbitmq = Amqp::connect(RabbitMq::shared().await.address()).await;
    assert_eq!(at_rabbitmq.counts(&queue).await.0, 1, "the lowest level's has the name of the route's queue");
    assert_eq!(at_rabbitmq.counts(&format!("linkspan.level.{queue}.4")).await.0, 2);
    let other = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&other, &queue).await;
    let held = next(&mut worker).await;
    ready(&server, &queue, 5).await;
    assert_eq!(client.counts(&queue).await, (5, 1));
    let path = |what: &str| format!("/v1/queues/{queue}/{what}");
    assert_eq!(http::post(server.http(), &path("pause"), &[], Vec::new()).await.status, 200);
    accept(&held).await;
    assert!(within(LULL, worker.next()).await.is_none(), "it is paused");
    let purged = http::post(server.http(), &path("purge"), &[], Vec::new()).await;
    let purged: Value = serde_json::from_str(&purged.body).unwrap();
    assert_eq!(purged["purged"], 5, "{purged}");
    assert_eq!(http::post(server.http(), &path("resume"), &[], Vec::new()).await.status, 200);
    ready(&server, &queue, 0).await;
    publish(&client, &queue, &[2]).await;
    assert_eq!(worked(&mut worker, 1).await, ["2"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_one_by_one_is_given_the_highest_and_told_at_once_when_there_is_none() {
    for way in WAYS {
        let queue = unique("tickets");
        let server = server(&tickets(&queue, way)).await;
        let client = Amqp::confirming(server.amqp()).await;
        publish(&client, &queue, &[0, 4, 2, 4, 1]).await;
        // Nothing is settled before all are taken.
        let mut taken = Vec::new();
        for _ in 0..5 {
            let got =
                client.channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap();
            taken.push(got.expect("a message"));
        }
        let texts: Vec<_> = taken.iter().map(|got| text(&got.delivery.data)).collect();
        assert_eq!(texts, ["4", "4", "2", "1", "0"], "{way}");
        if way == WAYS[0] {
            // A quorum queue's own count comes late.
            assert_eq!(taken[0].message_count, 4, "all levels are counted");
        }
        let asked = Instant::now();
        assert_eq!(client.get(&queue).await, None, "{way}");
        assert!(asked.elapsed() < Duration::from_secs(3), "{way}: {:?}", asked.elapsed());
        for got in &taken {
            accept(&got.delivery).await;
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_comes_back_to_its_level() {
    let queue = unique("tickets");
    let terms = format!("{}\ndelay = \"500ms\"\nretry = {{ delay = \"500ms\" }}", WAYS[0]);
    let server = server(&tickets(&queue, &terms)).await;
    let client = Amqp::confirming(server.amqp()).await;
    publish(&client, &queue, &[1, 3]).await;
    let other = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&other, &queue).await;
    // Both are due at about the same time: which comes first is RabbitMQ's.
    let mut came = vec![next(&mut worker).await];
    give_back(&came[0], true).await;
    came.push(next(&mut worker).await);
    give_back(&came[1], true).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut again = vec![next(&mut worker).await];
    assert!(again[0].redelivered);
    accept(&again[0]).await;
    again.push(next(&mut worker).await);
    accept(&again[1]).await;
    let mut texts: Vec<_> = again.iter().map(|it| text(&it.data)).collect();
    texts.sort();
    assert_eq!(texts, ["1", "3"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_puts_each_message_into_its_level() {
    let queue = unique("tickets");
    let server = server(&tickets(&queue, WAYS[0])).await;
    let client = Amqp::connect(server.amqp()).await;
    client.channel.tx_select().await.unwrap();
    for level in [0, 4, 2] {
        let (options, text) = (BasicPublishOptions::default(), level.to_string());
        let published = client.channel.basic_publish(
            "amq.topic".into(),
            queue.as_str().into(),
            options,
            text.as_bytes(),
            of_level(level),
        );
        published.await.unwrap().await.unwrap();
    }
    client.channel.tx_commit().await.unwrap();
    let other = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&other, &queue).await;
    assert_eq!(worked(&mut worker, 3).await, ["4", "2", "0"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_in_a_level_that_its_route_has_no_more_is_not_forgotten() {
    let folder = Folder::new();
    let queue = unique("tickets");
    let five = configuration(&tickets(&queue, WAYS[0])).await;
    let server = Server::start_in(&folder, &five).await;
    let client = Amqp::confirming(server.amqp()).await;
    publish(&client, &queue, &[0, 4, 2, 4]).await;
    let fewer = server.broker().reload(server.config(&five.replace("levels = 5", "levels = 3"))).await;
    let why = fewer.expect_err("a level would be lost").to_string();
    let level = format!("'linkspan.level.{queue}.4' has 2 messages and 0 consumers");
    assert!(why.contains("x-max-priority") && why.contains(&level), "{why}");
    let other = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&other, &queue).await;
    let held = next(&mut worker).await;
    let more = server.broker().reload(server.config(&five.replace("levels = 5", "levels = 7"))).await;
    assert!(more.is_err(), "who works there would be given nothing of the new ones");
    give_back(&held, true).await;
    other.connection.close(200, "OK".into()).await.unwrap();
    server.stop().await;
    // Its heir on another back end gets all levels.
    let moved = format!(
        "{LOCAL}{}{}drain = true\n",
        configuration("").await.replace(&home_is("rabbit"), &home_is("local")),
        work(&queue, &queue, "local")
    );
    let server = Server::start_in(&folder, &moved).await;
    let client = Amqp::confirming(server.amqp()).await;
    let mut all = Vec::new();
    let drained = async {
        while all.len() < 4 {
            match client.get(&queue).await {
                Some(one) => all.push(one),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    soon("all levels", drained).await;
    assert_eq!(all, ["4", "4", "2", "0"]);
    server.stop().await;
}

/// So many messages of each level, in turn.
async fn publish_many(client: &Amqp, queue: &str, each: u32) {
    for number in 0..5 * each {
        let level = u8::try_from(number % 5).unwrap();
        let confirm = client.publish_as("amq.topic", queue, &number.to_string(), of_level(level)).await;
        assert!(confirm.is_ack(), "{number}: {confirm:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_instances_share_each_level_and_each_gives_out_the_highest_first() {
    for way in WAYS {
        let queue = unique("tickets");
        let (one, other) = (server(&tickets(&queue, way)).await, server(&tickets(&queue, way)).await);
        let client = Amqp::confirming(one.amqp()).await;
        publish_many(&client, &queue, 60).await;
        let mut all = Vec::new();
        let mut working = Vec::new();
        for server in [&one, &other] {
            let client = Amqp::connect(server.amqp()).await;
            let mut worker = worker(&client, &queue).await;
            working.push(tokio::spawn(async move {
                let mut came: Vec<u32> = Vec::new();
                while let Some(delivery) = within(Duration::from_secs(2), worker.next()).await {
                    let delivery = delivery.expect("the consumer goes on").expect("a delivery");
                    came.push(text(&delivery.data).parse().unwrap());
                    accept(&delivery).await;
                }
                drop(client);
                came
            }));
        }
        for working in working {
            let came = working.await.unwrap();
            assert!(came.is_sorted_by_key(|number| (5 - number % 5, *number)), "{way}: {came:?}");
            assert!(!came.is_empty(), "{way}: each has a part");
            all.extend(came);
        }
        all.sort_unstable();
        assert_eq!(all, (0..300).collect::<Vec<_>>(), "{way}: each once");
        one.stop().await;
        other.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_any_level_is_lost_with_a_link() {
    let rabbitmq = RabbitMq::shared().await;
    let cable = Cable::to(rabbitmq.address()).await;
    let queue = unique("tickets");
    let by_cable = rabbit_at(&rabbitmq.url_by(cable.address()));
    let server = Server::start(&format!("{by_cable}{}{}", home_is("rabbit"), tickets(&queue, WAYS[0]))).await;
    let client = Amqp::confirming(server.amqp()).await;
    publish_many(&client, &queue, 40).await;
    let other = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&other, &queue).await;
    let mut left: BTreeSet<u32> = (0..200).collect();
    for round in 0.. {
        if round == 50 || round == 120 {
            cable.cut().await;
            cable.heal().await;
        }
        let delivery = next(&mut worker).await;
        left.remove(&text(&delivery.data).parse().unwrap());
        accept(&delivery).await;
        if left.is_empty() {
            break;
        }
    }
    ready(&server, &queue, 0).await;
    server.stop().await;
}

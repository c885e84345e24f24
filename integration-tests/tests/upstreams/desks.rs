//! Work queues at RabbitMQ whose routes ask for more than it has: what comes back waits, and dies after its last attempt.

use std::time::{Duration, Instant};

use futures_lite::StreamExt;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Consumer};
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Cable, RabbitMq, Server, soon, within};

use crate::LULL;
use crate::back_ends::{home_is, rabbit_at, work};

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// A work route, and one for its dead letters.
fn routes(jobs: &str, terms: &str) -> String {
    let dead = format!("{jobs}-dead");
    let jobs = work(jobs, jobs, "rabbit");
    format!("{jobs}{terms}\ndead-letter = \"{dead}\"\n{}", work(&dead, &dead, "rabbit"))
}

fn configuration(url: &str, routes: &str) -> String {
    format!("{}{}{routes}", rabbit_at(url), home_is("rabbit"))
}

async fn server(routes: &str) -> Server {
    Server::start(&configuration(RabbitMq::shared().await.url(), routes)).await
}

/// A worker with so many messages in hand at most.
async fn worker(client: &Amqp, queue: &str, window: u16) -> Consumer {
    client.channel.basic_qos(window, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    client.channel.basic_consume(queue.into(), "w".into(), options, FieldTable::default()).await.unwrap()
}

async fn next(worker: &mut Consumer) -> Delivery {
    soon("a message", worker.next()).await.expect("the consumer goes on").expect("a delivery")
}

async fn release(delivery: &Delivery) {
    delivery.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
}

async fn accept(delivery: &Delivery) {
    delivery.ack(BasicAckOptions::default()).await.unwrap();
}

async fn got(client: &Amqp, queue: &str) -> BasicGetMessage {
    let get = async {
        loop {
            let options = BasicGetOptions { no_ack: true };
            if let Some(message) = client.channel.basic_get(queue.into(), options).await.unwrap() {
                return message;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("a message", get).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_back_waits_longer_each_time_and_is_dead_after_the_last() {
    let jobs = unique("retried");
    let terms = "max-deliveries = 3\nretry = { delay = \"200ms\", factor = 2, max = \"10s\" }";
    let server = server(&routes(&jobs, terms)).await;
    let client = Amqp::confirming(server.amqp()).await;
    client.publish_as("amq.topic", &jobs, "bad", persistent()).await;
    let worker_client = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&worker_client, &jobs, 5).await;
    let mut last = Instant::now();
    for (attempt, wait) in [(1, 0), (2, 200), (3, 400)] {
        let delivery = next(&mut worker).await;
        let waited = last.elapsed();
        assert!(waited >= Duration::from_millis(wait), "attempt {attempt} came after {waited:?}");
        assert_eq!(delivery.redelivered, attempt > 1);
        if attempt == 2 {
            // Others are not held up by one that waits.
            client.publish_as("amq.topic", &jobs, "good", persistent()).await;
        }
        last = Instant::now();
        release(&delivery).await;
        if attempt == 2 {
            let good = next(&mut worker).await;
            assert_eq!(text(&good.data), "good");
            accept(&good).await;
        }
    }
    assert_eq!(text(&got(&client, &format!("{jobs}-dead")).await.delivery.data), "bad");
    assert!(within(LULL, worker.next()).await.is_none(), "it is given to nobody any more");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_its_workers_is_dead_after_its_last_delivery() {
    for kind in ["classic", "quorum"] {
        let jobs = unique(kind);
        let terms = format!("max-deliveries = 3\nqueue-type = \"{kind}\"");
        let server = server(&routes(&jobs, &terms)).await;
        let client = Amqp::confirming(server.amqp()).await;
        client.publish_as("amq.topic", &jobs, "poison", persistent()).await;
        for attempt in 0..3 {
            let doomed = Amqp::connect(server.amqp()).await;
            let mut worker = worker(&doomed, &jobs, 1).await;
            let delivery = next(&mut worker).await;
            assert_eq!(delivery.redelivered, attempt > 0, "{kind}");
            drop(doomed.connection.close(200, "killed".into()).await);
        }
        let dead = got(&client, &format!("{jobs}-dead")).await;
        assert_eq!(text(&dead.delivery.data), "poison", "{kind}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_and_amqp_workers_share_a_queue_whose_messages_are_retried() {
    let jobs = unique("shared");
    let server = server(&routes(&jobs, "retry = { delay = \"50ms\" }\nwindow = 2")).await;
    let publisher = Amqp::confirming(server.amqp()).await;
    let mut device = Mqtt5::connect(server.mqtt(), "device").await;
    device.subscribe(&format!("$queue/{jobs}")).await;
    let client = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&client, &jobs, 2).await;
    for n in 0..40 {
        publisher.publish_as("amq.topic", &jobs, &n.to_string(), persistent()).await;
    }
    let mut came = std::collections::BTreeSet::new();
    let (mut by_mqtt, mut by_amqp) = (0, 0);
    while came.len() < 40 {
        tokio::select! {
            text = device.next_text() => {
                by_mqtt += 1;
                came.insert(text);
            }
            delivery = next(&mut worker) => {
                by_amqp += 1;
                if by_amqp == 1 {
                    release(&delivery).await;
                } else {
                    came.insert(text(&delivery.data));
                    accept(&delivery).await;
                }
            }
        }
    }
    // The device acknowledges at once, and may have had most of them before the worker was asked for its first.
    assert!(by_mqtt > 0 && by_amqp > 1, "{by_mqtt} by MQTT, {by_amqp} by AMQP");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_one_by_one_is_settled_under_its_own_number_whatever_queue_it_is_from() {
    let (jobs, plain) = (unique("jobs"), unique("plain"));
    let routes = format!(
        "{}{}",
        routes(&jobs, "retry = { delay = \"2s\" }\nmax-deliveries = 2"),
        work(&plain, &plain, "rabbit")
    );
    let server = server(&routes).await;
    let publisher = Amqp::confirming(server.amqp()).await;
    for n in ["1", "2"] {
        publisher.publish_as("amq.topic", &plain, &format!("plain {n}"), persistent()).await;
        publisher.publish_as("amq.topic", &jobs, &format!("job {n}"), persistent()).await;
    }
    let client = Amqp::connect(server.amqp()).await;
    let options = BasicGetOptions::default();
    let mut got = Vec::new();
    for queue in [&plain, &jobs, &plain, &jobs] {
        let message = client.channel.basic_get(queue.as_str().into(), options).await.unwrap();
        got.push(message.expect("a message").delivery);
    }
    let again = Amqp::connect(server.amqp()).await;
    accept(&got[0]).await;
    release(&got[1]).await;
    release(&got[2]).await;
    accept(&got[3]).await;
    assert_eq!(again.get(&jobs).await, None, "it waits");
    let mut left = vec![text(&self::got(&again, &jobs).await.delivery.data)];
    left.push(text(&self::got(&again, &plain).await.delivery.data));
    assert_eq!(left, ["job 1", "plain 2"]);
    assert_eq!((again.get(&jobs).await, again.get(&plain).await), (None, None));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_hand_when_the_link_was_cut_comes_again_and_late_words_are_ignored() {
    let rabbitmq = RabbitMq::shared().await;
    let jobs = unique("cut");
    let cable = Cable::to(rabbitmq.address()).await;
    let url = rabbitmq.url_by(cable.address());
    let terms = "retry = { delay = \"30s\" }";
    let server = Server::start(&configuration(&url, &routes(&jobs, terms))).await;
    let publisher = Amqp::confirming(server.amqp()).await;
    for n in 0..10 {
        publisher.publish_as("amq.topic", &jobs, &n.to_string(), persistent()).await;
    }
    let client = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&client, &jobs, 4).await;
    let mut in_hand = Vec::new();
    for _ in 0..4 {
        in_hand.push(next(&mut worker).await);
    }
    release(&in_hand[0]).await;
    cable.cut().await;
    tokio::time::sleep(LULL).await;
    cable.heal().await;
    for late in &in_hand[1..] {
        accept(late).await;
    }
    let mut came = Vec::new();
    while came.len() < 10 {
        let delivery = next(&mut worker).await;
        came.push(text(&delivery.data).parse::<u32>().unwrap());
        accept(&delivery).await;
    }
    came.sort_unstable();
    came.dedup();
    assert_eq!(came, (0..10).collect::<Vec<_>>());
    assert!(client.channel.status().connected(), "a late word is no error");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_linkspan_is_killed_with_messages_at_its_desk() {
    let rabbitmq = RabbitMq::shared().await;
    let jobs = unique("killed");
    let folder = Folder::new();
    let configuration = configuration(rabbitmq.url(), &routes(&jobs, "retry = { delay = \"1s\" }"));
    let file = folder.write(
        "linkspan.toml",
        &format!(
            "[doors.mqtt]\nlisten = \"127.0.0.1:0\"\n[doors.amqp]\nlisten = \"127.0.0.1:0\"\n[doors.http]\nlisten = \
             \"127.0.0.1:0\"\n{configuration}"
        ),
    );
    let mut accepted = std::collections::BTreeSet::new();
    let mut published = false;
    for _ in 0..3 {
        let mut process = Process::start(folder.path(), &["--config", &file]);
        let door = process.door("amqp");
        let client = Amqp::connect(door).await;
        if !std::mem::replace(&mut published, true) {
            client.channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            for n in 0..60 {
                client.publish_as("amq.topic", &jobs, &n.to_string(), persistent()).await;
            }
        }
        let mut worker = worker(&client, &jobs, 10).await;
        for n in 0..20 {
            let delivery = next(&mut worker).await;
            match n % 4 {
                0 => release(&delivery).await,
                1 => {}
                _ => {
                    accept(&delivery).await;
                    accepted.insert(text(&delivery.data));
                }
            }
            if n == 11 {
                break;
            }
        }
        process.kill();
    }
    let at_rabbitmq = Amqp::connect(rabbitmq.address()).await;
    let mut left = std::collections::BTreeSet::new();
    let rest = async {
        loop {
            left.extend(at_rabbitmq.drain(&jobs).await);
            if left.union(&accepted).count() == 60 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all that nobody accepted is still there", rest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_held_back_as_long_as_it_or_its_route_says() {
    let jobs = unique("delayed");
    let server = server(&routes(&jobs, "delay = \"400ms\"")).await;
    let client = Amqp::confirming(server.amqp()).await;
    let own = |millis: i32| {
        let mut headers = FieldTable::default();
        headers.insert("x-delay".into(), AMQPValue::LongInt(millis));
        persistent().with_headers(headers)
    };
    let begin = Instant::now();
    client.publish_as("amq.topic", &jobs, "1500", own(1500)).await;
    client.publish_as("amq.topic", &jobs, "route", persistent()).await;
    client.publish_as("", &jobs, "800", own(800)).await;
    client.publish_as("amq.topic", &jobs, "at once", own(0)).await;
    for (expected, least) in [("at once", 0), ("route", 400), ("800", 800), ("1500", 1500)] {
        let message = got(&client, &jobs).await;
        let waited = begin.elapsed();
        assert_eq!(text(&message.delivery.data), expected, "after {waited:?}");
        assert!(waited >= Duration::from_millis(least), "{expected} came after {waited:?}");
        let headers = message.delivery.properties.headers().clone().unwrap_or_default();
        assert!(!headers.inner().contains_key("x-death"), "to have waited is no death: {headers:?}");
        assert_eq!(message.delivery.routing_key.as_str(), jobs, "the address is told");
    }
    server.stop().await;
}

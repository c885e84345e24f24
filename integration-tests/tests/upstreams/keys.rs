//! Work queues at RabbitMQ whose messages have keys: those of one key go to one consumer at a time, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Consumer};
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::http;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{RabbitMq, Server, soon, within};

use crate::LULL;
use crate::back_ends::{home_is, rabbit_at, work};

/// A server at RabbitMQ with a queue whose messages have customers.
async fn server(orders: &str, terms: &str) -> Server {
    let url = RabbitMq::shared().await.url();
    let route = work(orders, orders, "rabbit");
    let keyed = format!("{route}ordering-key = \"property:customer\"\n{terms}\n");
    Server::start(&format!("{}{}{keyed}", rabbit_at(url), home_is("rabbit"))).await
}

/// Publishes `count` messages of so many customers in turn.
async fn publish(client: &Amqp, orders: &str, count: usize, customers: usize) {
    for n in 0..count {
        let mut headers = FieldTable::default();
        headers.insert("customer".into(), AMQPValue::LongString(format!("c{}", n % customers).into()));
        let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
        assert!(client.publish_as("amq.topic", orders, &n.to_string(), properties).await.is_ack());
    }
}

async fn worker(client: &Amqp, queue: &str, window: u16) -> Consumer {
    client.channel.basic_qos(window, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    client.channel.basic_consume(queue.into(), "w".into(), options, FieldTable::default()).await.unwrap()
}

async fn next(worker: &mut Consumer) -> Delivery {
    soon("a message", worker.next()).await.expect("the consumer goes on").expect("a delivery")
}

fn number(delivery: &Delivery) -> usize {
    text(&delivery.data).parse().unwrap()
}

/// Each customer's messages in the order in which they came, which is that in which they were published.
fn assert_ordered(came: &[usize], customers: usize) {
    let mut last = BTreeMap::new();
    for n in came {
        let before = last.insert(n % customers, *n);
        assert!(before.is_none_or(|before| before < *n), "{n} came behind {before:?}: {came:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_one_workers_and_moves_in_order_when_it_dies() {
    for kind in ["classic", "quorum"] {
        let orders = unique(kind);
        let server = server(&orders, &format!("queue-type = \"{kind}\"")).await;
        let publisher = Amqp::confirming(server.amqp()).await;
        publish(&publisher, &orders, 60, 6).await;
        let (one, other) = (Amqp::connect(server.amqp()).await, Amqp::connect(server.amqp()).await);
        let mut doomed = worker(&one, &orders, 10).await;
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(number(&next(&mut doomed).await));
        }
        assert_eq!(held, (0..10).collect::<Vec<_>>(), "{kind}: there is nobody else");
        let mut heir = worker(&other, &orders, 60).await;
        assert!(within(LULL, heir.next()).await.is_none(), "{kind}: each customer is the first one's");
        one.connection.close(200, "gone".into()).await.unwrap();
        let mut came = Vec::new();
        while came.len() < 60 {
            let delivery = next(&mut heir).await;
            came.push(number(&delivery));
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        assert_ordered(&came, 6);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_the_keys_and_what_is_given_back_holds_its_key() {
    let orders = unique("shared");
    let server = server(&orders, "").await;
    let publisher = Amqp::confirming(server.amqp()).await;
    let (one, other) = (Amqp::connect(server.amqp()).await, Amqp::connect(server.amqp()).await);
    let mut workers = [worker(&one, &orders, 4).await, worker(&other, &orders, 4).await];
    publish(&publisher, &orders, 100, 10).await;
    let (mut came, mut shares, mut back) = (Vec::new(), [0, 0], BTreeSet::new());
    let [first, second] = &mut workers;
    while came.len() < 100 {
        let (at, delivery) = tokio::select! {
            delivery = next(first) => (0, delivery),
            delivery = next(second) => (1, delivery),
        };
        let n = number(&delivery);
        if n % 10 == 3 && back.insert(n) {
            delivery.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
            continue;
        }
        came.push(n);
        shares[at] += 1;
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    let others: Vec<_> = came.iter().copied().filter(|n| n % 10 != 3).collect();
    assert_ordered(&others, 10);
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_stands_by_and_takes_over_in_order() {
    let orders = unique("instances");
    let (here, there) = (server(&orders, "").await, server(&orders, "").await);
    let publisher = Amqp::confirming(here.amqp()).await;
    let one = Amqp::connect(here.amqp()).await;
    let mut holder = worker(&one, &orders, 10).await;
    let other = Amqp::connect(there.amqp()).await;
    publish(&publisher, &orders, 40, 4).await;
    let mut came = Vec::new();
    for _ in 0..10 {
        let delivery = next(&mut holder).await;
        if came.len() < 5 {
            came.push(number(&delivery));
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
    }
    let mut heir = worker(&other, &orders, 10).await;
    assert!(within(LULL, heir.next()).await.is_none(), "one instance at a time has the queue");
    one.connection.close(200, "gone".into()).await.unwrap();
    while came.len() < 40 {
        let delivery = next(&mut heir).await;
        came.push(number(&delivery));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    assert_ordered(&came, 4);
    assert_eq!(came.iter().collect::<BTreeSet<_>>().len(), 40);
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_what_is_taken_one_by_one_keep_to_the_keys() {
    let orders = unique("one-by-one");
    let server = server(&orders, "").await;
    let client = Amqp::confirming(server.amqp()).await;
    publish(&client, &orders, 4, 2).await;
    let path = format!("/v1/queues/{orders}/leases?wait=5s");
    let mut leases = Vec::new();
    for expected in ["0", "1"] {
        let answer = http::post(server.http(), &path, &[], Vec::new()).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{answer:?}");
        leases.push(answer);
    }
    let path = format!("/v1/queues/{orders}/leases?wait=300ms");
    let none = http::post(server.http(), &path, &[], Vec::new()).await;
    assert_eq!(none.status, 204, "both customers are somebody's: {none:?}");
    assert_eq!(client.get(&orders).await, None);
    let location = leases[1].header("location").expect("where the lease is");
    assert_eq!(http::delete(server.http(), location, &[]).await.status, 204);
    let got = async {
        loop {
            if let Some(got) = client.get(&orders).await {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(soon("the next of that customer", got).await, "3");
    server.stop().await;
}

/// How long nobody asks: by then the desk has given everything back.
const PAUSE: Duration = Duration::from_millis(1300);

/// Asks a queue of 50 messages for one of them thirty times.
async fn poll_now_and_then(terms: &str) {
    let (orders, dead) = (unique("polled"), unique("dead"));
    let dead_route = work(&dead, &dead, "rabbit");
    let terms = format!("queue-type = \"quorum\"\n{terms}\ndead-letter = \"{dead}\"\n{dead_route}");
    let server = server(&orders, &terms).await;
    let client = Amqp::confirming(server.amqp()).await;
    publish(&client, &orders, 50, 5).await;
    let mut came = Vec::new();
    for n in 0..30 {
        if n % 2 == 0 {
            let got = async {
                loop {
                    if let Some(got) = client.get(&orders).await {
                        return got;
                    }
                }
            };
            came.push(soon("a message", got).await.parse().unwrap());
        } else {
            let path = format!("/v1/queues/{orders}/leases?wait=10s");
            let answer = http::post(server.http(), &path, &[], Vec::new()).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            came.push(answer.body.parse().unwrap());
            let location = answer.header("location").expect("where the lease is");
            assert_eq!(http::delete(server.http(), location, &[]).await.status, 204);
        }
        tokio::time::sleep(PAUSE).await;
    }
    let mut rest = worker(&client, &orders, 10).await;
    while came.len() < 50 {
        let delivery = next(&mut rest).await;
        came.push(number(&delivery));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    assert_ordered(&came, 5);
    assert_eq!(came.iter().collect::<BTreeSet<_>>().len(), 50, "{terms}: each once");
    assert_eq!(client.counts(&dead).await.0, 0, "{terms}: nobody has given up on any");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_desk_had_and_nobody_was_given_does_not_count_however_often_a_quorum_queue_is_asked() {
    tokio::join!(poll_now_and_then(""), poll_now_and_then("max-deliveries = 3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_with_a_key_in_a_quorum_queue_is_dead_after_its_last_delivery() {
    let (orders, dead) = (unique("fatal"), unique("dead"));
    let dead_route = work(&dead, &dead, "rabbit");
    let terms = "queue-type = \"quorum\"\nmax-deliveries = 3";
    let server = server(&orders, &format!("{terms}\ndead-letter = \"{dead}\"\n{dead_route}")).await;
    let client = Amqp::confirming(server.amqp()).await;
    publish(&client, &orders, 1, 1).await;
    let mut one = worker(&client, &orders, 1).await;
    for _ in 0..3 {
        next(&mut one).await.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
    }
    let died = async {
        while client.get(&dead).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("it is a dead letter", died).await;
    assert!(within(LULL, one.next()).await.is_none());
    server.stop().await;
}

//! HTTP leases of queues behind which a broker lies, and of one behind which none does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::http::{self, Answer};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Mosquitto, RabbitMq, Server, soon};
use tokio::time::timeout;

use crate::back_ends::{all, home_is, rabbit_at, work};

async fn lease(door: SocketAddr, queue: &str, query: &str) -> Answer {
    http::post(door, &format!("/v1/queues/{queue}/leases{query}"), &[], Vec::new()).await
}

async fn accept(door: SocketAddr, answer: &Answer) -> u16 {
    http::delete(door, answer.header("location").expect("where the lease is"), &[]).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_means_the_same_whatever_lies_behind_the_queue() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let places = [("local", unique("l")), ("rabbit", unique("r")), ("mosquitto", unique("m"))];
    let routes = places.iter().map(|(backend, place)| work(place, &format!("{place}-q"), backend));
    let server =
        Server::start(&format!("{}{}", all(rabbitmq, mosquitto, "local"), routes.collect::<String>())).await;
    let door = server.http();
    let mut mqtt = Mqtt5::connect(server.mqtt(), "publisher").await;
    for (backend, place) in &places {
        let queue = format!("{place}-q");
        assert_eq!(lease(door, &queue, "").await.status, 204, "{backend}: nothing is there");
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { lease(door, &queue, "?wait=30s&lease=2s").await }
        });
        mqtt.publish(place, "one").await;
        let first = soon("the long poll is answered", waiting).await.unwrap();
        assert_eq!((first.status, first.body.as_str()), (200, "one"), "{backend}: {first:?}");
        let again = lease(door, &queue, "?wait=30s").await;
        assert_eq!((again.status, again.body.as_str()), (200, "one"), "{backend}: it ran out: {again:?}");
        assert_eq!(accept(door, &first).await, 410, "{backend}: it is another's");
        assert_eq!(accept(door, &again).await, 204, "{backend}");
        assert_eq!(accept(door, &again).await, 410, "{backend}: once");

        mqtt.publish(place, "two").await;
        let released = lease(door, &queue, "?wait=30s").await;
        let path = format!("{}/release", released.header("location").unwrap());
        assert_eq!(http::post(door, &path, &[], Vec::new()).await.status, 204, "{backend}");
        // Whoever consumes by another protocol gets it, and what comes after: nothing is kept for requests that are over.
        let amqp = Amqp::connect(server.amqp()).await;
        amqp.channel.basic_qos(10, BasicQosOptions::default()).await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumed =
            amqp.channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let mut consumer = consumed.await.unwrap();
        mqtt.publish(place, "three").await;
        let mut got = Vec::new();
        while got.len() < 2 {
            let next = soon("an AMQP consumer's turn", futures_lite::StreamExt::next(&mut consumer)).await;
            got.push(String::from_utf8(next.unwrap().unwrap().data).unwrap());
        }
        got.sort();
        assert_eq!(got, ["three", "two"], "{backend}");
    }
}

/// How long a thousand requests may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client was given, and when it had asked for it and had it.
type Given = (Instant, Instant, usize);

/// Asks again and again until nothing is left, and tells what it was given.
async fn take_all(door: SocketAddr, queue: String, left: Arc<AtomicUsize>) -> Vec<Given> {
    let mut given = Vec::new();
    while left.load(Ordering::SeqCst) > 0 {
        let asked = Instant::now();
        let answer = lease(door, &queue, "?wait=5ms").await;
        if answer.status == 204 {
            continue;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        given.push((asked, Instant::now(), answer.body.parse().unwrap()));
        assert_eq!(accept(door, &answer).await, 204);
        left.fetch_sub(1, Ordering::SeqCst);
    }
    given
}

/// What was given before something that stands before it, though who got that had not even asked yet.
fn overtaken(given: &[Given], rank: impl Fn(usize) -> usize) -> Vec<(usize, usize)> {
    let rank = &rank;
    let before = |(_, had, it): &Given| {
        let later = given.iter().filter(move |(asked, _, other)| had < asked && rank(*other) < rank(*it));
        later.map(|(.., other)| (*it, *other)).collect::<Vec<_>>()
    };
    given.iter().flat_map(before).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_ask_for_moments_are_given_a_queue_of_rabbitmq_in_its_order() {
    let (jobs, urgent) = (unique("ordered"), unique("urgent"));
    let routes = format!(
        "{}{}",
        work(&jobs, &jobs, "rabbit"),
        work(&urgent, &urgent, "rabbit").replace("competing-consumers", "priority-queue")
    );
    let url = RabbitMq::shared().await.url();
    let server =
        Server::start(&format!("{}{}{routes}levels = 10\n", rabbit_at(url), home_is("rabbit"))).await;
    let publisher = Amqp::confirming(server.amqp()).await;
    let level = |n: usize| u8::try_from(n * 7 % 10).unwrap();
    for clients in [2, 3] {
        const COUNT: usize = 500;
        let left = Arc::new(AtomicUsize::new(COUNT));
        let take = |_| tokio::spawn(take_all(server.http(), jobs.clone(), Arc::clone(&left)));
        let taking: Vec<_> = (0..clients).map(take).collect();
        for n in 0..COUNT {
            publisher.publish("amq.topic", &jobs, &n.to_string()).await;
            if n % 20 == 0 {
                // They find nothing now and then.
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        let mut given = Vec::new();
        for client in taking {
            given.extend(timeout(PATIENCE, client).await.expect("all of them").unwrap());
        }
        assert_eq!(given.len(), COUNT, "{clients} clients");
        assert_eq!(overtaken(&given, |n| n), [], "{clients} clients");

        for n in 0..COUNT {
            let properties = BasicProperties::default().with_priority(level(n));
            publisher.publish_as("amq.topic", &urgent, &n.to_string(), properties).await;
        }
        let left = Arc::new(AtomicUsize::new(COUNT));
        let take = |_| tokio::spawn(take_all(server.http(), urgent.clone(), Arc::clone(&left)));
        let taking: Vec<_> = (0..clients).map(take).collect();
        let mut given = Vec::new();
        for client in taking {
            given.extend(timeout(PATIENCE, client).await.expect("all of them").unwrap());
        }
        assert_eq!(given.len(), COUNT, "{clients} clients");
        let rank = |n: usize| (9 - usize::from(level(n))) * COUNT + n;
        assert_eq!(overtaken(&given, rank), [], "{clients} clients, by priority");
    }
    server.stop().await;
}

/// A server with RabbitMQ alone behind it, and one work queue.
async fn instance(jobs: &str) -> Server {
    let url = RabbitMq::shared().await.url();
    Server::start(&format!("{}{}{}", rabbit_at(url), home_is("rabbit"), work(jobs, jobs, "rabbit"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_any_longer_is_another_instances_though_a_lease_goes_on() {
    let jobs = unique("spare");
    let (here, there) = (instance(&jobs).await, instance(&jobs).await);
    let publisher = Amqp::confirming(here.amqp()).await;
    let ask = |_| {
        let (door, jobs) = (here.http(), jobs.clone());
        tokio::spawn(async move { lease(door, &jobs, "?wait=1s").await })
    };
    let asking: Vec<_> = (0..4).map(ask).collect();
    for job in ["0", "1"] {
        publisher.publish("amq.topic", &jobs, job).await;
    }
    let mut leases = Vec::new();
    for asked in asking {
        let answer = soon("an answer", asked).await.unwrap();
        leases.extend(Some(answer).filter(|answer| answer.status == 200));
    }
    assert_eq!(leases.len(), 2, "there were so many messages");
    // The desk here could have two more, and RabbitMQ sends them.
    for job in ["2", "3"] {
        publisher.publish("amq.topic", &jobs, job).await;
    }
    for job in ["2", "3"] {
        let answer = lease(there.http(), &jobs, "?wait=10s").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, job), "{answer:?}");
    }
    let released = leases.pop().unwrap();
    let path = format!("{}/release", released.header("location").unwrap());
    assert_eq!(http::post(here.http(), &path, &[], Vec::new()).await.status, 204);
    let answer = lease(there.http(), &jobs, "?wait=10s").await;
    assert_eq!((answer.status, &answer.body), (200, &released.body), "{answer:?}");
    assert_eq!(accept(here.http(), &leases[0]).await, 204, "the other lease goes on");
    here.stop().await;
    there.stop().await;
}

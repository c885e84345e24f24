//! HTTP: work on lease.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use linkspan::identity::hash_password;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::http::{self, Answer};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::wire::Wire;
use linkspan_integration_tests::{Server, soon};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::LULL;

const WORK: &str = "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"jobs\"\n";

/// Asks for a message of the queue `jobs`; `query` begins with a `?` if there is any.
async fn lease(door: SocketAddr, query: &str) -> Answer {
    http::post(door, &format!("/v1/queues/jobs/leases{query}"), &[], Vec::new()).await
}

/// A message, and where its lease is.
async fn leased(door: SocketAddr, query: &str) -> (String, String) {
    let answer = lease(door, query).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let location = answer.header("location").expect("where the lease is").to_owned();
    (answer.body, location)
}

async fn publish(door: SocketAddr, body: &str) {
    let answer = http::post(door, "/v1/messages/jobs", &[], body.into()).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

async fn accept(door: SocketAddr, lease: &str) -> u16 {
    http::delete(door, lease, &[]).await.status
}

async fn ask(door: SocketAddr, lease: &str, what: &str) -> u16 {
    http::post(door, &format!("{lease}/{what}"), &[], Vec::new()).await.status
}

#[tokio::test]
async fn a_message_is_leased_with_its_properties_and_accepted_once() {
    let server = Server::start(WORK).await;
    let door = server.http();
    assert_eq!(lease(door, "").await.status, 204, "nothing is there");
    let mut mqtt = Mqtt5::connect(server.mqtt(), "publisher").await;
    let properties = PublishProperties {
        content_type: Some("image/png".into()),
        message_expiry_interval: Some(600),
        response_topic: Some("answers/7".into()),
        correlation_data: Some("c-7".into()),
        user_properties: vec![("site".into(), "north".into()), ("site".into(), "south".into())],
        ..PublishProperties::default()
    };
    mqtt.publish_as("jobs", "pixels", false, properties).await;
    let answer = lease(door, "?wait=10s").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "pixels"), "{answer:?}");
    for (name, value) in [
        ("content-type", "image/png"),
        ("linkspan-address", "jobs"),
        ("linkspan-reply-to", "answers/7"),
        ("linkspan-correlation-id", "c-7"),
        ("linkspan-deliveries", "1"),
        ("linkspan-durable", "true"),
        ("linkspan-lease", "30s"),
        ("content-length", "6"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}: {answer:?}");
    }
    let sites = answer.headers.iter().filter(|(name, _)| name == "linkspan-property-site");
    assert!(sites.map(|(_, value)| value.as_str()).eq(["north", "south"]), "{answer:?}");
    let left = answer.header("linkspan-expiry").expect("what remains of ten minutes").to_owned();
    assert!(left.starts_with("59") || left == "600s", "{left}");
    let lease_of = answer.header("location").unwrap().to_owned();
    assert_eq!(accept(door, &lease_of).await, 204);
    assert_eq!(accept(door, &lease_of).await, 410, "it is settled");
    assert_eq!(ask(door, &lease_of, "extend?by=5s").await, 410);
    let amqp = Amqp::connect(server.amqp()).await;
    assert_eq!(amqp.counts("jobs").await.0, 0, "and gone from the queue");
}

#[tokio::test]
async fn who_waits_is_told_by_a_later_publish_and_who_came_first_comes_first() {
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", WORK);
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let door = process.door("http");
    let mut waiting = Vec::new();
    let amqp = Amqp::confirming(process.door("amqp")).await;
    for waits in 1..=2 {
        waiting.push(tokio::spawn(async move { leased(door, "?wait=30s").await.0 }));
        let counted = format!("linkspan_lease_waits {waits}");
        soon("the request waits", async {
            while !http::get(door, "/metrics", &[]).await.body.contains(&counted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    let mut mqtt = Mqtt5::connect(process.door("mqtt"), "publisher").await;
    mqtt.publish("jobs", "by MQTT").await;
    assert_eq!(soon("the first", &mut waiting[0]).await.unwrap(), "by MQTT");
    amqp.publish("amq.topic", "jobs", "by AMQP").await;
    assert_eq!(soon("the second", &mut waiting[1]).await.unwrap(), "by AMQP");
}

/// Returns when the queue has so many consumers: the door is one while requests wait.
async fn consumed(server: &Server, consumers: u32) {
    let amqp = Amqp::connect(server.amqp()).await;
    soon("the queue's consumers", async {
        while amqp.counts("jobs").await.1 != consumers {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_in_vain_is_told_so_in_time() {
    let server = Server::start(WORK).await;
    let begin = Instant::now();
    assert_eq!(lease(server.http(), "?wait=600ms").await.status, 204);
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn a_lease_that_runs_out_is_anothers_and_a_late_word_is_refused() {
    let server = Server::start(WORK).await;
    let door = server.http();
    publish(door, "task").await;
    let (_, late) = leased(door, "?wait=10s&lease=1s").await;
    let amqp = Amqp::connect(server.amqp()).await;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer =
        amqp.channel.basic_consume("jobs".into(), "worker".into(), options, arguments).await.unwrap();
    let next = async { futures_lite::StreamExt::next(&mut consumer).await.unwrap().unwrap() };
    let delivery = soon("the lease runs out", next).await;
    assert_eq!((&delivery.data[..], delivery.redelivered), (&b"task"[..], true));
    for (status, what) in [
        (accept(door, &late).await, "accept"),
        (ask(door, &late, "reject").await, "reject"),
        (ask(door, &late, "release").await, "release"),
        (ask(door, &late, "extend?by=5s").await, "extend"),
    ] {
        assert_eq!(status, 410, "{what}");
    }
    delivery.ack(BasicAckOptions::default()).await.unwrap();
}

#[tokio::test]
async fn the_routes_ack_timeout_is_the_usual_lease() {
    let server = Server::start(&format!("{WORK}ack-timeout = \"900ms\"\n")).await;
    let door = server.http();
    publish(door, "task").await;
    let answer = lease(door, "?wait=10s").await;
    assert_eq!(answer.header("linkspan-lease"), Some("900ms"), "{answer:?}");
    let again = lease(door, "?wait=20s&lease=10s").await;
    assert_eq!((again.status, again.body.as_str()), (200, "task"), "{again:?}");
    assert_eq!(again.header("linkspan-lease"), Some("10s"), "a request may ask for another");
    assert_eq!(again.header("linkspan-deliveries"), Some("2"));
    assert_eq!(accept(door, answer.header("location").unwrap()).await, 410);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(accept(door, again.header("location").unwrap()).await, 204, "it outlasts the ack-timeout");
}

#[tokio::test]
async fn an_extended_lease_goes_on() {
    let server = Server::start(WORK).await;
    let door = server.http();
    publish(door, "task").await;
    let (_, lease_of) = leased(door, "?wait=10s&lease=1s").await;
    let answer = http::post(door, &format!("{lease_of}/extend?by=20s"), &[], Vec::new()).await;
    assert_eq!((answer.status, answer.header("linkspan-lease")), (204, Some("20s")), "{answer:?}");
    assert_eq!(lease(door, "?wait=1500ms").await.status, 204, "nobody else is given it");
    assert_eq!(accept(door, &lease_of).await, 204);
}

#[tokio::test]
async fn a_released_message_comes_again_at_once_or_later() {
    let server = Server::start(WORK).await;
    let door = server.http();
    publish(door, "task").await;
    let (_, first) = leased(door, "?wait=10s").await;
    assert_eq!(ask(door, &first, "release").await, 204);
    let again = lease(door, "?wait=10s").await;
    assert_eq!((again.status, again.header("linkspan-deliveries")), (200, Some("2")), "{again:?}");
    let begin = Instant::now();
    assert_eq!(ask(door, again.header("location").unwrap(), "release?delay=1s").await, 204);
    let (body, third) = leased(door, "?wait=20s").await;
    assert!(begin.elapsed() >= Duration::from_millis(950), "{:?}", begin.elapsed());
    assert_eq!(body, "task");
    assert_eq!(accept(door, &third).await, 204);
}

#[tokio::test]
async fn a_rejected_message_is_a_dead_letter() {
    let server = Server::start(&format!("{WORK}dead-letter = \"failed/jobs\"\n")).await;
    let door = server.http();
    let amqp = Amqp::connect(server.amqp()).await;
    let dead = amqp.bound("amq.topic", "failed.jobs").await;
    publish(door, "task").await;
    let (_, lease_of) = leased(door, "?wait=10s").await;
    assert_eq!(ask(door, &lease_of, "reject?reason=no%20image").await, 204);
    soon("the dead letter", async {
        while amqp.get(&dead).await.as_deref() != Some("task") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(lease(door, "").await.status, 204);
}

#[tokio::test]
async fn many_clients_never_have_one_message_at_the_same_time() {
    const MESSAGES: usize = 200;
    let server = Server::start(WORK).await;
    let door = server.http();
    let workers: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut got = Vec::new();
                loop {
                    let answer = lease(door, "?wait=3s").await;
                    if answer.status == 204 {
                        return got;
                    }
                    assert_eq!(answer.status, 200, "{answer:?}");
                    assert_eq!(answer.header("linkspan-deliveries"), Some("1"), "{answer:?}");
                    assert_eq!(accept(door, answer.header("location").unwrap()).await, 204);
                    got.push(answer.body.parse::<usize>().unwrap());
                }
            })
        })
        .collect();
    for n in 0..MESSAGES {
        publish(door, &n.to_string()).await;
    }
    let mut got = Vec::new();
    for worker in workers {
        got.extend(soon("the work is done", worker).await.unwrap());
    }
    got.sort_unstable();
    assert!(got.into_iter().eq(0..MESSAGES), "each once");
}

#[tokio::test]
async fn a_client_that_hangs_up_loses_nothing_and_keeps_nothing_from_others() {
    let server = Server::start(WORK).await;
    let door = server.http();
    let mut gone = Wire::to(door).await;
    let request =
        "POST /v1/queues/jobs/leases?wait=30s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    gone.send(request.as_bytes()).await;
    consumed(&server, 1).await;
    drop(gone);
    consumed(&server, 0).await;
    publish(door, "task").await;
    let (body, lease_of) = leased(door, "?wait=10s").await;
    assert_eq!(body, "task");
    assert_eq!(accept(door, &lease_of).await, 204);
}

#[tokio::test]
async fn two_clients_never_have_messages_of_one_ordering_key() {
    let server = Server::start(&format!("{WORK}ordering-key = \"property:order\"\n")).await;
    let door = server.http();
    for (body, order) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        let headers = [("linkspan-property-order", order)];
        let answer = http::post(door, "/v1/messages/jobs", &headers, body.into()).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    let (first, of_a) = leased(door, "?wait=10s").await;
    let (second, _) = leased(door, "?wait=10s").await;
    assert_eq!((first.as_str(), second.as_str()), ("a1", "b1"), "the second of `a` waits for the first");
    assert_eq!(lease(door, "").await.status, 204);
    let (third, ()) = tokio::join!(leased(door, "?wait=10s"), async {
        assert_eq!(accept(door, &of_a).await, 204);
    });
    assert_eq!(third.0, "a2");
}

#[tokio::test]
async fn an_answer_that_its_client_does_not_take_gives_its_message_back() {
    const LARGE: usize = 9 << 20;
    let server = Server::start(WORK).await;
    let door = server.http();
    let answer = http::post(door, "/v1/messages/jobs", &[], vec![b'x'; LARGE]).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let mut gone = Wire::to(door).await;
    let request = "POST /v1/queues/jobs/leases?wait=30s&lease=1h HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    gone.send(request.as_bytes()).await;
    // Some of it is on its way; more than sockets hold is not.
    tokio::time::sleep(LULL).await;
    drop(gone);
    let answer = lease(door, "?wait=20s").await;
    assert_eq!((answer.status, answer.body.len()), (200, LARGE), "it is not kept for the hour");
    assert_eq!(answer.header("content-length"), Some("9437184"));
    assert_eq!(accept(door, answer.header("location").unwrap()).await, 204);
}

#[tokio::test]
async fn what_is_out_when_the_server_is_killed_comes_again_and_what_was_accepted_does_not() {
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", WORK);
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let door = process.door("http");
    for body in ["accepted", "out"] {
        publish(door, body).await;
    }
    let (first, accepted) = leased(door, "?wait=10s&lease=1h").await;
    let (second, out) = leased(door, "?wait=10s&lease=1h").await;
    assert_eq!((first.as_str(), second.as_str()), ("accepted", "out"));
    assert_eq!(accept(door, &accepted).await, 204);
    process.kill();
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let door = process.door("http");
    assert_eq!(accept(door, &out).await, 404, "a restart ends all leases");
    let (body, again) = leased(door, "?wait=10s").await;
    assert_eq!(body, "out");
    assert_eq!(accept(door, &again).await, 204);
    assert_eq!(lease(door, "").await.status, 204);
}

#[tokio::test]
async fn a_lease_is_its_users_and_there_are_so_many_for_each() {
    let hash = hash_password(b"s3cret").unwrap();
    let toml = format!(
        "{WORK}[users.ann]\npassword = \"{hash}\"\n[users.ben]\npassword = \"{hash}\"\n\
         [doors.http]\nmax-leases-per-user = 2\nmax-leases = 3\n"
    );
    let server = Server::start(&toml).await;
    let door = server.http();
    let ann = [("authorization", "Basic YW5uOnMzY3JldA==")];
    let ben = [("authorization", "Basic YmVuOnMzY3JldA==")];
    for n in 0..5 {
        let answer = http::post(door, "/v1/messages/jobs", &ann, vec![b'0' + n]).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    let take = async |who| http::post(door, "/v1/queues/jobs/leases?wait=10s", who, Vec::new()).await;
    let first = take(&ann).await;
    assert_eq!((first.status, take(&ann).await.status), (200, 200));
    let third = take(&ann).await;
    assert_eq!(third.status, 429, "{third:?}");
    assert!(third.header("retry-after").is_some(), "{third:?}");
    assert!(third.body.contains("max-leases-per-user"), "{third:?}");
    assert_eq!(take(&ben).await.status, 200);
    let beyond = take(&ben).await;
    assert!(beyond.status == 429 && beyond.body.contains("max-leases)"), "{beyond:?}");
    let lease_of = first.header("location").unwrap();
    assert_eq!(http::delete(door, lease_of, &ben).await.status, 403);
    assert_eq!(http::delete(door, lease_of, &[]).await.status, 401);
    assert_eq!(http::delete(door, lease_of, &ann).await.status, 204);
    assert_eq!(http::delete(door, "/v1/leases/0123", &ann).await.status, 404);
    assert_eq!(take(&ann).await.status, 200, "what was settled makes room");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_for_work_is_said() {
    let server = Server::start(&format!("{WORK}[doors.http]\nmax-wait = \"5s\"\nmax-lease = \"1m\"\n")).await;
    let door = server.http();
    for (query, said) in [
        ("?wait=soon", "wait"),
        ("?wait=6s", "5s at most"),
        ("?lease=61s", "60s at most"),
        ("?lease=0s", "lease"),
    ] {
        let answer = lease(door, query).await;
        assert!(answer.status == 400 && answer.body.contains(said), "{query}: {answer:?}");
    }
    let missing = http::post(door, "/v1/queues/missing/leases", &[], Vec::new()).await;
    assert!(missing.status == 404 && missing.body.contains("missing"), "{missing:?}");
    let foreign = [("origin", "https://example.com")];
    let answer = http::post(door, "/v1/queues/jobs/leases", &foreign, Vec::new()).await;
    assert_eq!(answer.status, 403, "no web page of somebody else takes work");
}

#[tokio::test]
async fn a_queue_that_another_consumer_has_alone_is_a_conflict() {
    let server = Server::start("").await;
    let amqp = Amqp::connect(server.amqp()).await;
    amqp.queue("tasks").await;
    let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let arguments = FieldTable::default();
    let consumer =
        amqp.channel.basic_consume("tasks".into(), "alone".into(), options, arguments).await.unwrap();
    let answer = http::post(server.http(), "/v1/queues/tasks/leases", &[], Vec::new()).await;
    assert!(answer.status == 409 && answer.body.contains("exclusive use"), "{answer:?}");
    amqp.channel.basic_cancel("alone".into(), Default::default()).await.unwrap();
    drop(consumer);
    amqp.publish("", "tasks", "task").await;
    let answer = http::post(server.http(), "/v1/queues/tasks/leases?wait=10s", &[], Vec::new()).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "task"),
        "a queue of a client's own is worked, too"
    );
}

#[tokio::test]
async fn who_waits_when_the_server_stops_is_answered() {
    let server = Server::start(WORK).await;
    let door = server.http();
    let waiting = tokio::spawn(async move { lease(door, "?wait=30s").await.status });
    consumed(&server, 1).await;
    let begin = Instant::now();
    server.stop().await;
    assert_eq!(waiting.await.unwrap(), 204);
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

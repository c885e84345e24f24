//! HTTP for operators: queues listed, purged, paused and resumed, dead letters listed, shown, replayed and removed, while
//! clients of other protocols are at work.

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use linkspan::identity::hash_password;
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::http::{self, Answer};
use linkspan_integration_tests::mqtt5::{self, Mqtt5};
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::{Server, soon, within};
use serde_json::{Value, json};

use crate::LULL;

const ROUTES: &str = "[[route]]\nmatch = \"images/resize\"\npattern = \"competing-consumers\"\nqueue = \"resize\"\n\
    dead-letter = { address = \"images/failed\", queue = \"images-failed\" }\n\
    [[route]]\nmatch = \"orders/placed\"\npattern = \"competing-consumers\"\nqueue = [\"stock\", \"mail\"]\n\
    dead-letter = { address = \"orders/failed\", queue = \"orders-failed\" }\n\
    [[route]]\nmatch = \"bids\"\npattern = \"exclusive-consumer\"\nqueue = \"bids\"\n";

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

async fn get(server: &Server, path: &str) -> Value {
    let answer = http::get(server.http(), path, &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    json_of(&answer)
}

async fn post(server: &Server, path: &str) -> Value {
    let answer = http::post(server.http(), path, &[], Vec::new()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    json_of(&answer)
}

/// Asks until the answer is as wanted.
async fn until(server: &Server, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let found = get(server, path).await;
            if is_it(&found) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the answer is as wanted", asking).await
}

async fn consume(amqp: &Amqp, queue: &str, prefetch: u16) -> lapin::Consumer {
    amqp.channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    amqp.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
}

async fn next(consumer: &mut lapin::Consumer) -> Delivery {
    soon("a delivery", consumer.next()).await.expect("the consumer lives").expect("a delivery")
}

async fn next_text(consumer: &mut lapin::Consumer) -> String {
    let delivery = next(consumer).await;
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    text(&delivery.data)
}

async fn publish(server: &Server, address: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let path = format!("/v1/messages/{address}");
        let answer = http::post(server.http(), &path, &[], number.to_string().into_bytes()).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_listed_with_what_they_hold_and_who_consumes() {
    let server = Server::start(ROUTES).await;
    let amqp = Amqp::connect(server.amqp()).await;
    amqp.queue("of-a-client").await;
    publish(&server, "images/resize", 0..3).await;
    let mut worker = consume(&amqp, "resize", 2).await;
    next(&mut worker).await;
    next(&mut worker).await;
    let holder = Amqp::connect(server.amqp()).await;
    let _bids = consume(&holder, "bids", 1).await;
    let found = until(&server, "/v1/queues", |found| found[0]["unsettled"] == 2).await;
    let names: Vec<&str> = found.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    let expected = ["resize", "images-failed", "stock", "mail", "orders-failed", "bids", "of-a-client"];
    let sorted = |names: &[&str]| {
        let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(sorted(&names), sorted(&expected));
    let queue = |name: &str| found.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
    assert_eq!(
        queue("resize"),
        json!({
            "name": "resize", "vhost": "/", "backend": "local", "pattern": "competing-consumers", "match": "images/resize",
            "ready": 1, "unsettled": 2, "consumers": 1, "paused": false, "holder": null, "dead_letter": "images/failed",
            "dead_letter_queue": "images-failed", "unknown": null,
        })
    );
    let own = queue("of-a-client");
    assert_eq!((&own["pattern"], &own["match"], &own["ready"]), (&Value::Null, &Value::Null, &json!(0)));
    assert!(queue("bids")["holder"]["fence"].as_u64().is_some_and(|fence| fence > 0), "{}", queue("bids"));
    assert_eq!(get(&server, "/v1/queues/resize").await, queue("resize"));

    let missing = http::get(server.http(), "/v1/queues/resise", &[]).await;
    assert_eq!((missing.status, missing.header("content-type")), (404, Some("application/problem+json")));
    assert_eq!(json_of(&missing)["detail"], "no queue 'resise' in vhost '/'; did you mean 'resize'?");

    let routes = get(&server, "/v1/routes").await;
    assert_eq!(routes["routes"][0]["match"], "images/resize");
    assert_eq!(routes["routes"][0]["queues"], json!(["resize"]));
    let plain = http::get(server.http(), "/v1/routes", &[("accept", "text/plain")]).await;
    assert_eq!(routes["text"], plain.body.as_str());
    assert!(plain.body.contains("images/resize") && plain.body.contains("(all else)"), "{}", plain.body);

    assert_eq!(post(&server, "/v1/queues/resize/purge").await, json!({ "queue": "resize", "purged": 1 }));
    assert_eq!(get(&server, "/v1/queues/resize").await["ready"], 0);
    assert_eq!(
        get(&server, "/v1/queues/resize").await["unsettled"],
        2,
        "what workers have in hand is theirs"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_queue_gives_nothing_out_until_it_goes_on_in_order() {
    let folder = Folder::new();
    let server = Server::start_in(&folder, ROUTES).await;
    let amqp = Amqp::connect(server.amqp()).await;
    let mut worker = consume(&amqp, "resize", 10).await;
    publish(&server, "images/resize", 0..2).await;
    let in_hand = next(&mut worker).await;
    assert_eq!(next_text(&mut worker).await, "1");
    let paused = post(&server, "/v1/queues/resize/pause").await;
    assert_eq!(paused, json!({ "queue": "resize", "paused": true, "changed": true }));
    assert_eq!(post(&server, "/v1/queues/resize/pause").await["changed"], false);
    publish(&server, "images/resize", 2..6).await;
    // Who comes meanwhile waits, too.
    let mut device = Mqtt5::connect(server.mqtt(), "device").await;
    device.subscribe("$queue/resize").await;
    assert!(device.next_within(LULL).await.is_none(), "MQTT");
    assert!(within(LULL, worker.next()).await.is_none(), "AMQP");
    let got = amqp.channel.basic_get("resize".into(), BasicGetOptions::default()).await.unwrap();
    assert!(got.is_none(), "basic.get");
    let found = get(&server, "/v1/queues/resize").await;
    assert_eq!((&found["paused"], &found["ready"]), (&json!(true), &json!(4)), "{found}");
    device.leave().await;
    in_hand.ack(BasicAckOptions::default()).await.unwrap();
    until(&server, "/v1/queues/resize", |found| found["unsettled"] == 0).await;
    let resumed = post(&server, "/v1/queues/resize/resume").await;
    assert_eq!(resumed, json!({ "queue": "resize", "paused": false, "changed": true }));
    for expected in 2..6 {
        assert_eq!(next_text(&mut worker).await, expected.to_string(), "in order");
    }
    post(&server, "/v1/queues/resize/pause").await;
    publish(&server, "images/resize", 6..8).await;
    drop((worker, amqp));
    server.stop().await;

    let server = Server::start_in(&folder, ROUTES).await;
    let mut device = Mqtt5::connect(server.mqtt(), "device").await;
    device.subscribe("images/resize").await;
    assert_eq!(get(&server, "/v1/queues/resize").await["paused"], true, "after a restart");
    assert!(device.next_within(LULL).await.is_none(), "after a restart");
    post(&server, "/v1/queues/resize/resume").await;
    assert_eq!([device.next_text().await, device.next_text().await], ["6", "7"]);
    let own = Amqp::connect(server.amqp()).await;
    own.queue("of-a-client").await;
    let answer = http::post(server.http(), "/v1/queues/of-a-client/pause", &[], Vec::new()).await;
    assert_eq!(answer.status, 409, "a client's own may end with its last consumer: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exclusive_consumer_keeps_its_queue_while_that_is_paused() {
    let server = Server::start(ROUTES).await;
    let amqp = Amqp::connect(server.amqp()).await;
    let mut holder = consume(&amqp, "bids", 2).await;
    publish(&server, "bids", 0..1).await;
    let in_hand = next(&mut holder).await;
    let before = get(&server, "/v1/queues/bids").await["holder"].clone();
    post(&server, "/v1/queues/bids/pause").await;
    publish(&server, "bids", 1..4).await;
    assert!(within(LULL, holder.next()).await.is_none());
    assert_eq!(get(&server, "/v1/queues/bids").await["holder"], before);
    post(&server, "/v1/queues/bids/resume").await;
    assert_eq!(next_text(&mut holder).await, "1");
    in_hand.ack(BasicAckOptions::default()).await.unwrap();
    assert_eq!([next_text(&mut holder).await, next_text(&mut holder).await], ["2", "3"]);
    let found = until(&server, "/v1/queues/bids", |found| found["unsettled"] == 0).await;
    assert_eq!((&found["ready"], &found["holder"]), (&json!(0), &before), "what it had in hand is settled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_queue_of_an_exclusive_consumer_passes_to_the_next_and_gives_nothing_even_after_a_restart() {
    let folder = Folder::new();
    let server = Server::start_in(&folder, ROUTES).await;
    let first = Amqp::connect(server.amqp()).await;
    let holder = consume(&first, "bids", 2).await;
    post(&server, "/v1/queues/bids/pause").await;
    publish(&server, "bids", 0..2).await;
    let other = Amqp::connect(server.amqp()).await;
    let options = BasicConsumeOptions::default();
    let refused = other.channel.basic_consume("bids".into(), "".into(), options, FieldTable::default()).await;
    assert!(refused.is_err(), "there is one holder, paused or not");
    let before = get(&server, "/v1/queues/bids").await["holder"]["fence"].as_u64();
    drop((holder, first));
    until(&server, "/v1/queues/bids", |found| found["holder"].is_null()).await;
    let second = Amqp::connect(server.amqp()).await;
    let mut next_holder = consume(&second, "bids", 2).await;
    assert!(within(LULL, next_holder.next()).await.is_none(), "it came while the queue was paused");
    let found = get(&server, "/v1/queues/bids").await;
    assert!(found["holder"]["fence"].as_u64() > before && found["ready"] == 2, "{found}");
    drop((next_holder, second));
    server.stop().await;

    let server = Server::start_in(&folder, ROUTES).await;
    let third = Amqp::connect(server.amqp()).await;
    let mut holder = consume(&third, "bids", 2).await;
    assert!(within(LULL, holder.next()).await.is_none(), "after a restart");
    post(&server, "/v1/queues/bids/resume").await;
    assert_eq!([next_text(&mut holder).await, next_text(&mut holder).await], ["0", "1"], "in order");
}

/// Has the next message of a queue dead.
async fn reject(amqp: &Amqp, queue: &str) {
    let got = async {
        loop {
            let options = BasicGetOptions::default();
            if let Some(message) = amqp.channel.basic_get(queue.into(), options).await.unwrap() {
                return message;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let message = soon("a message", got).await;
    message.delivery.nack(BasicNackOptions { requeue: false, multiple: false }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_shown_and_moved_back_to_where_they_died() {
    let server = Server::start(ROUTES).await;
    let amqp = Amqp::confirming(server.amqp()).await;
    // Both groups get each order, and of both some die.
    for order in ["one", "two", "three"] {
        amqp.publish("amq.topic", "orders.placed", order).await;
    }
    for _ in 0..3 {
        reject(&amqp, "stock").await;
    }
    reject(&amqp, "mail").await;
    until(&server, "/v1/queues/orders-failed", |found| found["ready"] == 4).await;
    let list = get(&server, "/v1/queues/stock/dead-letters").await;
    assert_eq!(
        (&list["address"], &list["kept_in"]),
        (&json!("orders/failed"), &json!("orders-failed")),
        "{list}"
    );
    assert_eq!(
        list["letters"].as_array().unwrap().len(),
        3,
        "those of the other group are not among them: {list}"
    );
    let first = &list["letters"][0];
    for (name, value) in [
        ("number", json!(1)),
        ("reason", json!("rejected")),
        ("count", json!(1)),
        ("first_queue", json!("stock")),
        ("first_address", json!("orders/placed")),
        ("last_queue", json!("stock")),
        ("last_address", json!("orders/placed")),
        ("replays", json!(0)),
        ("bytes", json!(3)),
    ] {
        assert_eq!(first[name], value, "{name} of {first}");
    }
    assert!(first["time"].as_u64() > Some(1_700_000_000), "{first}");
    let some = get(&server, "/v1/queues/stock/dead-letters?limit=1&reason=rejected").await;
    assert_eq!(some["letters"].as_array().unwrap().len(), 1);
    let none = get(&server, "/v1/queues/stock/dead-letters?reason=expired").await;
    assert_eq!(none["letters"], json!([]));
    let shown = get(&server, "/v1/queues/stock/dead-letters/2").await;
    assert_eq!(
        (&shown["message"]["payload"], &shown["letter"]["number"]),
        (&json!("two"), &json!(2)),
        "{shown}"
    );
    assert_eq!(shown["message"]["properties"]["linkspan-dead-reason"], "rejected");
    assert_eq!(http::get(server.http(), "/v1/queues/stock/dead-letters/9", &[]).await.status, 404);
    for wrong in
        ["dead-letters?limit=many", "dead-letters?limt=1", "dead-letters?limit=0", "dead-letters/first"]
    {
        let answer = http::get(server.http(), &format!("/v1/queues/stock/{wrong}"), &[]).await;
        let form = answer.header("content-type");
        assert_eq!((answer.status, form), (400, Some("application/problem+json")), "{wrong}: {answer:?}");
    }
    let found = until(&server, "/v1/queues/orders-failed", |found| found["unsettled"] == 0).await;
    assert_eq!(found["ready"], 4, "nothing was taken away");
    let options = BasicGetOptions::default();
    let unseen = amqp.channel.basic_get("orders-failed".into(), options).await.unwrap().expect("the first");
    assert!(!unseen.delivery.redelivered, "who looks at it is given nothing");
    unseen.delivery.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();

    let replayed = post(&server, "/v1/queues/stock/replay?limit=2").await;
    assert_eq!(replayed, json!({ "replayed": 2, "expired": 0, "stopped": null }));
    let mut stock = consume(&amqp, "stock", 10).await;
    for expected in ["one", "two"] {
        let delivery = next(&mut stock).await;
        assert_eq!(text(&delivery.data), expected, "in order");
        assert_eq!(delivery.routing_key.as_str(), "orders.placed", "where it was published");
        let headers = delivery.properties.headers().clone().unwrap();
        let header = |name: &str| headers.inner().get(name).cloned();
        assert_eq!(header("linkspan-dead-replays"), Some(AMQPValue::LongLongInt(1)));
        assert!(matches!(header("x-death"), Some(AMQPValue::FieldArray(_))), "the history is kept");
        delivery.nack(BasicNackOptions { requeue: false, multiple: false }).await.unwrap();
    }
    assert_eq!(amqp.counts("mail").await.0, 2, "the other group gets nothing twice");
    let again = until(&server, "/v1/queues/stock/dead-letters", |list| {
        list["letters"].as_array().is_some_and(|letters| letters.len() == 3)
    })
    .await;
    let of_two =
        again["letters"].as_array().unwrap().iter().filter(|it| it["count"] == 2 && it["replays"] == 1);
    assert_eq!(of_two.count(), 2, "they died again, and the history says so: {again}");
    assert_eq!(again["letters"][0]["count"], 1, "what was not replayed is still the first");

    let purged = post(&server, "/v1/queues/stock/dead-letters/purge").await;
    assert_eq!(purged, json!({ "queue": "stock", "purged": 3 }));
    assert_eq!(get(&server, "/v1/queues/mail/dead-letters").await["letters"].as_array().unwrap().len(), 1);
    for (queue, word) in
        [("orders-failed", "'stock', 'mail'"), ("bids", "dead-letter = {"), ("nowhere", "no queue 'nowhere'")]
    {
        let answer = http::get(server.http(), &format!("/v1/queues/{queue}/dead-letters"), &[]).await;
        assert!(answer.status == 409 || answer.status == 404, "{answer:?}");
        assert!(json_of(&answer)["detail"].as_str().unwrap().contains(word), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_no_repetition() {
    let server = Server::start(
        "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"jobs\"\n\
         deduplicate = { by = \"message-id\", window = \"10m\" }\n\
         dead-letter = { address = \"failed\", queue = \"failed\" }\n",
    )
    .await;
    let publish = async || {
        let headers = [("linkspan-message-id", "one")];
        let answer = http::post(server.http(), "/v1/messages/jobs", &headers, b"job".to_vec()).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    };
    publish().await;
    let amqp = Amqp::connect(server.amqp()).await;
    reject(&amqp, "jobs").await;
    until(&server, "/v1/queues/failed", |found| found["ready"] == 1).await;
    publish().await;
    assert_eq!(get(&server, "/v1/queues/jobs").await["ready"], 0, "its identifier is known");
    let replayed = post(&server, "/v1/queues/jobs/replay").await;
    assert_eq!(replayed, json!({ "replayed": 1, "expired": 0, "stopped": null }));
    assert_eq!(get(&server, "/v1/queues/jobs").await["ready"], 1);
    publish().await;
    assert_eq!(get(&server, "/v1/queues/jobs").await["ready"], 1, "it is still known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_mqtt_worker_of_dead_letters_is_told_in_user_properties() {
    let server = Server::start(ROUTES).await;
    let amqp = Amqp::confirming(server.amqp()).await;
    let mut device = Mqtt5::connect(server.mqtt(), "undertaker").await;
    device.subscribe("$queue/images-failed").await;
    amqp.publish("amq.topic", "images.resize", "cat").await;
    reject(&amqp, "resize").await;
    let dead = device.next().await;
    assert_eq!((mqtt5::topic(&dead), mqtt5::payload(&dead)), ("images/failed".into(), "cat".into()));
    let properties = dead.properties.unwrap().user_properties;
    let property = |name: &str| properties.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
    assert_eq!(property("linkspan-dead-reason"), Some("rejected"));
    assert_eq!(property("linkspan-dead-count"), Some("1"));
    assert_eq!(property("linkspan-dead-first-queue"), Some("resize"));
    assert_eq!(property("linkspan-dead-last-address"), Some("images/resize"));
    assert!(property("linkspan-dead-time").is_some_and(|time| time.parse::<u64>().is_ok()), "{properties:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_enter_the_vhost_operates_nothing() {
    let hash = hash_password(b"s3cret").unwrap();
    let server = Server::start(&format!(
        "[vhosts.\"/\"]\nbackend = \"local\"\n[vhosts.lab]\nbackend = \"local\"\n\
         [users.ann]\npassword = \"{hash}\"\n[users.lab]\npassword = \"{hash}\"\nvhosts = [\"lab\"]\n{ROUTES}"
    ))
    .await;
    // ann:s3cret and lab:s3cret
    let (ann, lab) = ("Basic YW5uOnMzY3JldA==", "Basic bGFiOnMzY3JldA==");
    for path in ["/v1/queues", "/v1/queues/resize", "/v1/routes", "/v1/queues/resize/dead-letters"] {
        for (login, status) in [(Some(ann), 200), (Some(lab), 403), (None, 401)] {
            let headers: Vec<_> = login.map(|login| ("authorization", login)).into_iter().collect();
            assert_eq!(http::get(server.http(), path, &headers).await.status, status, "{path}");
        }
    }
    for path in ["purge", "pause", "resume", "replay", "dead-letters/purge"] {
        let path = format!("/v1/queues/resize/{path}");
        for (login, status) in [(Some(ann), 200), (Some(lab), 403), (None, 401)] {
            let headers: Vec<_> = login.map(|login| ("authorization", login)).into_iter().collect();
            assert_eq!(http::post(server.http(), &path, &headers, Vec::new()).await.status, status, "{path}");
        }
        let foreign = [("authorization", ann), ("origin", "https://example.com")];
        let answer = http::post(server.http(), &path, &foreign, Vec::new()).await;
        assert_eq!(answer.status, 403, "a web page of somebody else: {path}");
    }
}

//! Workers: the messages of queues behind which a broker lies, and of one behind which none does, pushed to a URL.

use linkspan_integration_tests::http::{self, Client};
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::web::{Asked, Reply, Web};
use linkspan_integration_tests::{Consumer, Dialect, Mosquitto, RabbitMq, Server, Taking, soon};

use crate::LULL;
use crate::back_ends::{all, work};

/// What a route and a worker of that place say.
fn of(place: &str, backend: &str, web: &Web) -> String {
    let (route, url) = (work(place, &format!("{place}-q"), backend), web.url("http", &format!("/{backend}")));
    format!(
        "{route}dead-letter = {{ address = \"{place}/dead\", queue = \"{place}-dead\" }}\n\
         [[worker]]\nqueue = \"{place}-q\"\nurl = \"{url}\"\nretry = {{ delay = \"100ms\" }}\n"
    )
}

/// The web server's mind: some are wrong, some fail the first time.
fn answer(asked: &Asked) -> Reply {
    let first = asked.header("linkspan-deliveries") == Some("1");
    match asked.text().as_str() {
        "wrong" => Reply::status(422),
        "fails once" if first => Reply::status(500),
        _ => Reply::status(200),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_push_the_same_whatever_lies_behind_the_queue() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    for backend in ["local", "rabbit", "mosquitto"] {
        let mut web = Web::start(answer).await;
        let place = unique("w");
        let toml = format!("{}{}", all(rabbitmq, mosquitto, "local"), of(&place, backend, &web));
        let server = Server::start(&toml).await;
        for body in ["one", "wrong", "fails once", "two"] {
            let headers = [("linkspan-property-site", "north"), ("content-type", "text/plain")];
            let answer =
                http::post(server.http(), &format!("/v1/messages/{place}"), &headers, body.into()).await;
            assert_eq!(answer.status, 204, "{backend}: {answer:?}");
        }
        let mut asked = Vec::new();
        for _ in 0..5 {
            let one = web.next().await;
            assert_eq!(one.line, format!("POST /{backend} HTTP/1.1"));
            for (name, value) in [
                ("linkspan-property-site", "north"),
                ("content-type", "text/plain"),
                ("linkspan-address", &place),
            ] {
                assert_eq!(one.header(name), Some(value), "{backend}: {name}: {one:?}");
            }
            asked.push((one.text(), one.header("linkspan-deliveries").unwrap_or_default().to_owned()));
        }
        let mut sorted = asked.clone();
        sorted.sort();
        let expected = [("fails once", "1"), ("fails once", "2"), ("one", "1"), ("two", "1"), ("wrong", "1")];
        let expected = expected.map(|(text, deliveries)| (text.to_owned(), deliveries.to_owned()));
        assert_eq!(sorted, expected, "{backend}: what failed comes again, and nothing else");
        let first_times = asked.iter().filter(|(_, n)| n == "1").map(|(text, _)| text.as_str());
        assert!(first_times.eq(["one", "wrong", "fails once", "two"]), "{backend}: in order: {asked:?}");

        let dead = format!("{place}-dead");
        let looking = Taking::Queue(&dead);
        let mut undertaker = Consumer::connect(Dialect::Amqp, server.amqp(), "undertaker", looking).await;
        let letter = undertaker.next().await;
        assert_eq!((letter.text(), letter.property("linkspan-dead-reason")), ("wrong", Some("rejected")));
        letter.settle().await;
        empty(&server, &format!("{place}-q")).await;
        server.stop().await;
        assert!(web.next_within(LULL).await.is_none(), "{backend}: nothing is pushed twice");
    }
}

/// Returns when a queue holds nothing any more.
async fn empty(server: &Server, queue: &str) {
    let (client, path) = (Client::to(server.http()), format!("/v1/queues/{queue}"));
    soon("the queue is empty", async {
        loop {
            let answer = client.ask("GET", &path, Vec::new(), Vec::new()).await.expect("an answer");
            let queue: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            if queue["ready"] == 0 && queue["unsettled"].as_u64().unwrap_or(0) == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_on_where_it_was_when_its_broker_was_away() {
    let (rabbitmq, mosquitto) = (RabbitMq::own().await, Mosquitto::own().await);
    for backend in ["rabbit", "mosquitto"] {
        let mut web = Web::start(|_: &Asked| Reply::status(200)).await;
        let place = unique("w");
        let toml = format!("{}{}", all(&rabbitmq, &mosquitto, "local"), of(&place, backend, &web));
        let server = Server::start(&toml).await;
        let publish = async |body: &str| {
            let path = format!("/v1/messages/{place}");
            soon("it is published", async {
                while http::post(server.http(), &path, &[], body.into()).await.status != 204 {
                    tokio::time::sleep(LULL).await;
                }
            })
            .await;
        };
        publish("before").await;
        assert_eq!(web.next().await.text(), "before", "{backend}");
        if backend == "rabbit" {
            rabbitmq.stop().await;
            rabbitmq.start().await;
        } else {
            mosquitto.stop().await;
            mosquitto.start().await;
        }
        publish("after").await;
        // The answer to the first may have been on its way to the broker when that went.
        let mut next = web.next().await;
        if next.text() == "before" {
            next = web.next().await;
        }
        assert_eq!(next.text(), "after", "{backend}");
        server.stop().await;
    }
}

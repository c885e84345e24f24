//! Workers: the messages of a queue pushed to a URL.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::web::{Asked, Reply, Web};
use linkspan_integration_tests::{Certificates, Server, http, soon};

use crate::LULL;

const WORK: &str = "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"jobs\"\n";

/// That route with these keys, and a worker with those.
fn toml(of_route: &str, url: &str, of_worker: &str) -> String {
    format!("{WORK}{of_route}\n[[worker]]\nqueue = \"jobs\"\nurl = \"{url}\"\n{of_worker}\n")
}

async fn publish(server: &Server, bodies: &[&str]) {
    publish_at(server.http(), bodies).await;
}

async fn publish_at(door: SocketAddr, bodies: &[&str]) {
    for body in bodies {
        let headers = [("content-type", "text/plain"), ("linkspan-property-site", "north")];
        let answer = http::post(door, "/v1/messages/jobs", &headers, (*body).into()).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}

/// What a lease of the queue gives, which is accepted.
async fn leased(server: &Server) -> String {
    let answer = http::post(server.http(), "/v1/queues/jobs/leases?wait=20s", &[], Vec::new()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let location = answer.header("location").expect("where the lease is");
    assert_eq!(http::delete(server.http(), location, &[]).await.status, 204);
    answer.body
}

/// Returns when nothing of the queue waits or is out any more: then nothing would come again.
async fn done(server: Server, web: &mut Web) {
    server.stop().await;
    assert!(web.next_within(LULL).await.is_none(), "nothing is pushed twice");
}

async fn dead_letter(amqp: &Amqp, queue: &str) -> String {
    soon("a dead letter", async {
        loop {
            if let Some(text) = amqp.get(queue).await {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test]
async fn each_message_is_posted_with_its_properties_in_order_over_one_connection() {
    let mut web = Web::start(|_: &Asked| Reply::status(204)).await;
    let url = web.url("http", "/work?key=1");
    let of_worker = "headers = { Authorization = \"Bearer s3cret\" }";
    let server = Server::start(&toml("", &url, of_worker)).await;
    publish(&server, &["1", "2", "3"]).await;
    for (n, body) in ["1", "2", "3"].into_iter().enumerate() {
        let asked = web.next().await;
        assert_eq!((asked.text().as_str(), asked.number, asked.connection), (body, n, 0), "{asked:?}");
        assert_eq!(asked.line, "POST /work?key=1 HTTP/1.1");
        let host = format!("localhost:{}", web.address().port());
        for (name, value) in [
            ("host", host.as_str()),
            ("content-type", "text/plain"),
            ("content-length", "1"),
            ("authorization", "Bearer s3cret"),
            ("linkspan-property-site", "north"),
            ("linkspan-address", "jobs"),
            ("linkspan-deliveries", "1"),
        ] {
            assert_eq!(asked.header(name), Some(value), "{name}: {asked:?}");
        }
        assert!(asked.header("user-agent").is_some_and(|name| name.starts_with("linkspan/")), "{asked:?}");
    }
    done(server, &mut web).await;
}

#[tokio::test]
async fn a_large_payload_is_streamed() {
    let mut web = Web::start(|_: &Asked| Reply::status(200)).await;
    let server = Server::start(&toml("", &web.url("http", "/"), "")).await;
    let all: Vec<u8> = (0..6_000_000_u32).map(|at| (at % 251) as u8).collect();
    let answer = http::post(server.http(), "/v1/messages/jobs", &[], all.clone()).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let asked = web.next().await;
    assert!(asked.body == all, "{} bytes", asked.body.len());
    done(server, &mut web).await;
}

#[tokio::test]
async fn as_many_are_pushed_at_a_time_as_may_be() {
    let slow = Duration::from_millis(400);
    let mut web = Web::start(move |_: &Asked| Reply::status(200).after(slow)).await;
    let server = Server::start(&toml("", &web.url("http", "/"), "concurrency = 3")).await;
    publish(&server, &["1", "2", "3", "4"]).await;
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(web.next().await);
    }
    let fourth = asked[3].at.duration_since(asked[0].at);
    assert!(fourth >= slow, "the fourth waits for the first: {fourth:?}");
    let mut connections: Vec<_> = asked.iter().map(|asked| asked.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    assert!(
        (2..=3).contains(&connections.len()),
        "some at a time, over connections that are used again: {asked:?}"
    );
    done(server, &mut web).await;
}

#[tokio::test]
async fn of_each_ordering_key_one_is_pushed_at_a_time() {
    let slow = Duration::from_millis(200);
    let mut web = Web::start(move |_: &Asked| Reply::status(200).after(slow)).await;
    let of_route = "ordering-key = \"property:order\"";
    let server = Server::start(&toml(of_route, &web.url("http", "/"), "concurrency = 4")).await;
    for (body, order) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
        let headers = [("linkspan-property-order", order)];
        let answer = http::post(server.http(), "/v1/messages/jobs", &headers, body.into()).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    let mut of_a = Vec::new();
    for _ in 0..4 {
        let asked = web.next().await;
        if asked.text().starts_with('a') {
            of_a.push(asked);
        }
    }
    assert!(of_a.iter().map(Asked::text).eq(["a1", "a2", "a3"]), "{of_a:?}");
    for pair in of_a.windows(2) {
        let between = pair[1].at.duration_since(pair[0].at);
        assert!(between >= slow, "each waits for the answer to the one before: {between:?}");
    }
    done(server, &mut web).await;
}

#[tokio::test]
async fn what_the_server_will_never_take_is_a_dead_letter_at_once() {
    let mut web = Web::start(|_: &Asked| Reply::status(422)).await;
    let server = Server::start(&toml("dead-letter = \"failed\"", &web.url("http", "/"), "")).await;
    let amqp = Amqp::connect(server.amqp()).await;
    let dead = amqp.bound("amq.topic", "failed").await;
    publish(&server, &["bad"]).await;
    assert_eq!(dead_letter(&amqp, &dead).await, "bad");
    assert_eq!(web.next().await.text(), "bad");
    drop(amqp);
    done(server, &mut web).await;
}

#[tokio::test]
async fn what_fails_is_tried_again_later_each_time_and_at_last_a_dead_letter() {
    let mut web = Web::start(|_: &Asked| Reply::status(500)).await;
    let of_worker = "retry = { delay = \"200ms\", factor = 3 }";
    let of_route = "dead-letter = \"failed\"\nmax-deliveries = 3";
    let server = Server::start(&toml(of_route, &web.url("http", "/"), of_worker)).await;
    let amqp = Amqp::connect(server.amqp()).await;
    let dead = amqp.bound("amq.topic", "failed").await;
    publish(&server, &["hopeless"]).await;
    let (one, two, three) = (web.next().await, web.next().await, web.next().await);
    for (n, asked) in [&one, &two, &three].into_iter().enumerate() {
        assert_eq!(asked.header("linkspan-deliveries"), Some((n + 1).to_string().as_str()), "{asked:?}");
    }
    let (first, second) = (two.at.duration_since(one.at), three.at.duration_since(two.at));
    assert!(
        first >= Duration::from_millis(190) && second >= Duration::from_millis(590),
        "{first:?} {second:?}"
    );
    assert_eq!(dead_letter(&amqp, &dead).await, "hopeless");
    drop(amqp);
    done(server, &mut web).await;
}

#[tokio::test]
async fn a_server_that_asks_for_time_is_given_it_for_all_messages() {
    let busy = |asked: &Asked| match asked.number {
        0 => Reply::status(503).with("Retry-After", "2"),
        _ => Reply::status(200),
    };
    let mut web = Web::start(busy).await;
    let server = Server::start(&toml("", &web.url("http", "/"), "")).await;
    publish(&server, &["1"]).await;
    let first = web.next().await;
    publish(&server, &["2"]).await;
    let (second, third) = (web.next().await, web.next().await);
    let waited = second.at.duration_since(first.at);
    assert!(waited >= Duration::from_millis(1900), "{waited:?}");
    assert_eq!([second.text(), third.text()], ["1", "2"], "what comes again keeps its place");
    done(server, &mut web).await;
}

#[tokio::test]
async fn a_server_may_say_by_a_date_when_it_has_time_again() {
    let until = SystemTime::now() + Duration::from_secs(5);
    let date = httpdate::fmt_http_date(until);
    let busy = move |asked: &Asked| match asked.number {
        0 => Reply::status(429).with("Retry-After", &date),
        _ => Reply::status(200),
    };
    let mut web = Web::start(busy).await;
    let of_worker = "retry = { delay = \"50ms\" }";
    let server = Server::start(&toml("", &web.url("http", "/"), of_worker)).await;
    publish(&server, &["1"]).await;
    web.next().await;
    let again = web.next().await;
    assert_eq!((again.text().as_str(), again.header("linkspan-deliveries")), ("1", Some("2")), "{again:?}");
    // A date has no parts of a second.
    let early = until.duration_since(SystemTime::now()).unwrap_or_default();
    assert!(early <= Duration::from_secs(1), "{early:?} too early");
    done(server, &mut web).await;
}

#[tokio::test]
async fn a_worker_that_stands_still_leaves_the_queue_to_others() {
    let mut web = Web::start(|_: &Asked| Reply::status(429).with("Retry-After", "3000")).await;
    let server = Server::start(&toml("", &web.url("http", "/"), "")).await;
    publish(&server, &["1"]).await;
    web.next().await;
    publish(&server, &["2"]).await;
    assert_eq!([leased(&server).await, leased(&server).await], ["1", "2"]);
    done(server, &mut web).await;
}

#[tokio::test]
async fn a_slow_server_is_not_waited_for_and_a_redirection_is_not_followed() {
    let answers = |asked: &Asked| match asked.number {
        0 => Reply::status(200).after(Duration::from_secs(20)),
        1 => Reply::status(307).with("Location", "http://localhost:1/elsewhere"),
        _ => Reply::status(200),
    };
    let mut web = Web::start(answers).await;
    let of_worker = "timeout = \"500ms\"\nretry = { delay = \"50ms\" }";
    let server = Server::start(&toml("", &web.url("http", "/"), of_worker)).await;
    publish(&server, &["1"]).await;
    for deliveries in ["1", "2", "3"] {
        let asked = web.next().await;
        assert_eq!(asked.header("linkspan-deliveries"), Some(deliveries), "{asked:?}");
    }
    done(server, &mut web).await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_looked_for_and_costs_no_delivery() {
    let web = Web::start(|_: &Asked| Reply::status(200)).await;
    let (address, url) = (web.address(), web.url("http", "/"));
    drop(web);
    let of_worker = "retry = { delay = \"100ms\", factor = 1 }";
    let server = Server::start(&toml("max-deliveries = 1", &url, of_worker)).await;
    publish(&server, &["1", "2", "3"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut web = Web::start_at(address, |_: &Asked| Reply::status(200)).await;
    for text in ["1", "2", "3"] {
        let asked = web.next().await;
        assert_eq!((asked.text().as_str(), asked.header("linkspan-deliveries")), (text, Some("1")));
    }
    done(server, &mut web).await;
}

#[tokio::test]
async fn tls_goes_by_the_authority_that_is_named_and_by_no_other() {
    let certificates = Certificates::new();
    let mut web = Web::start_tls(&certificates, |_: &Asked| Reply::status(200)).await;
    let url = web.url("https", "/");
    let ca = |name: &str| format!("ca = \"{}\"", certificates.path(name).display());
    let server = Server::start(&toml("", &url, &ca("other.pem"))).await;
    publish(&server, &["1"]).await;
    assert!(web.next_within(Duration::from_secs(2)).await.is_none(), "it is not trusted");
    server.stop().await;
    let server = Server::start(&toml("", &url, &ca("ca.pem"))).await;
    publish(&server, &["2"]).await;
    assert_eq!(web.next().await.text(), "2");
    done(server, &mut web).await;
}

#[tokio::test]
async fn workers_follow_a_reload() {
    let mut one = Web::start(|_: &Asked| Reply::status(200)).await;
    let mut two = Web::start(|_: &Asked| Reply::status(200)).await;
    let server = Server::start(WORK).await;
    publish(&server, &["1"]).await;
    assert!(one.next_within(LULL).await.is_none(), "there is no worker yet");
    let reload = async |toml: &str| server.broker().reload(server.config(toml)).await.expect("reloaded");
    reload(&toml("", &one.url("http", "/"), "")).await;
    assert_eq!(one.next().await.text(), "1");
    reload(&toml("", &two.url("http", "/"), "")).await;
    publish(&server, &["2"]).await;
    assert_eq!(two.next().await.text(), "2");
    reload(WORK).await;
    publish(&server, &["3"]).await;
    assert!(two.next_within(LULL).await.is_none(), "and none any more");
    assert_eq!(leased(&server).await, "3");
    let wrong = server.config(&toml("", "https://localhost:1/", "ca = \"missing.pem\""));
    let refused = server.broker().reload(wrong).await.unwrap_err().to_string();
    assert!(refused.contains("worker[0].ca") && refused.contains("no such file"), "{refused}");
    assert!(one.next_within(LULL).await.is_none());
}

#[tokio::test]
async fn what_is_on_its_way_when_the_server_is_killed_comes_again_as_redelivered() {
    let answers = |asked: &Asked| match asked.number {
        0 => Reply::status(200).after(Duration::from_secs(60)),
        _ => Reply::status(200),
    };
    let mut web = Web::start(answers).await;
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", &toml("", &web.url("http", "/"), ""));
    let mut process = Process::start(folder.path(), &["--config", &file]);
    publish_at(process.door("http"), &["1", "2"]).await;
    let first = web.next().await;
    assert_eq!((first.text().as_str(), first.header("linkspan-deliveries")), ("1", Some("1")));
    process.kill();
    let process = Process::start(folder.path(), &["--config", &file]);
    for (text, deliveries) in [("1", "2"), ("2", "1")] {
        let asked = web.next().await;
        assert_eq!((asked.text().as_str(), asked.header("linkspan-deliveries")), (text, Some(deliveries)));
    }
    process.signal("TERM");
    let (status, _) = process.exit();
    assert!(status.success(), "{status}");
    assert!(web.next_within(LULL).await.is_none(), "nothing is pushed twice");
}

#[tokio::test]
async fn a_server_that_stops_waits_for_the_answer_and_settles_by_it() {
    let slow = Duration::from_secs(1);
    let mut web = Web::start(move |_: &Asked| Reply::status(200).after(slow)).await;
    let folder = Folder::new();
    let toml = toml("", &web.url("http", "/"), "");
    let server = Server::start_in(&folder, &toml).await;
    publish(&server, &["1", "2"]).await;
    assert_eq!(web.next().await.text(), "1");
    server.stop().await;
    let server = Server::start_in(&folder, &toml).await;
    let next = web.next().await;
    assert_eq!((next.text().as_str(), next.header("linkspan-deliveries")), ("2", Some("1")), "1 is done");
    done(server, &mut web).await;
}

#[tokio::test]
async fn a_queue_that_is_not_there_yet_is_waited_for() {
    let mut web = Web::start(|_: &Asked| Reply::status(200)).await;
    let url = web.url("http", "/");
    let server = Server::start(&format!("[[worker]]\nqueue = \"later\"\nurl = \"{url}\"\n")).await;
    let amqp = Amqp::connect(server.amqp()).await;
    amqp.queue("later").await;
    amqp.publish("", "later", "1").await;
    assert_eq!(web.next().await.text(), "1");
    drop(amqp);
    done(server, &mut web).await;
}

#[tokio::test]
async fn a_queue_that_one_consumer_has_alone_is_waited_for() {
    let mut web = Web::start(|_: &Asked| Reply::status(200)).await;
    let route = "[[route]]\nmatch = \"jobs\"\npattern = \"exclusive-consumer\"\nqueue = \"jobs\"\n";
    let server = Server::start(route).await;
    let holder = Amqp::connect(server.amqp()).await;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer =
        holder.channel.basic_consume("jobs".into(), "".into(), options, FieldTable::default()).await;
    let url = web.url("http", "/");
    let with_worker = format!("{route}[[worker]]\nqueue = \"jobs\"\nurl = \"{url}\"\n");
    server.broker().reload(server.config(&with_worker)).await.expect("reloaded");
    assert!(web.next_within(LULL).await.is_none());
    drop(consumer.expect("the queue is the consumer's"));
    holder.connection.close(200, "bye".into()).await.unwrap();
    publish(&server, &["1"]).await;
    let asked = web.next().await;
    assert_eq!(asked.text(), "1");
    assert!(asked.header("linkspan-fence").is_some(), "{asked:?}");
    done(server, &mut web).await;
}

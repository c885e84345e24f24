use std::collections::HashMap;
use std::num::NonZeroU16;

use linkspan_contract::{Clock, SystemClock};
use linkspan_embedded::{Embedded, EmbeddedOptions};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::doors::listener::Listener;
use crate::doors::{Stopper, serve};
use crate::routes::{Filter, Pattern, Route, Routes};

/// A door over one embedded back end with the work route `jobs`; bodies have 1000 bytes at most.
async fn door() -> (SocketAddr, Stopper) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let backend = Embedded::open("one", EmbeddedOptions::default(), Arc::clone(&clock));
    let backends = HashMap::from([(Arc::from("one"), backend as _)]);
    let route = Route {
        vhost: "/".into(),
        filter: Filter::parse("jobs").unwrap(),
        pattern: Pattern::CompetingConsumers,
        backend: "one".into(),
        queues: vec!["jobs".into()],
        window: NonZeroU16::new(20).unwrap(),
    };
    let routes = Routes::new([("/".into(), "one".into())], [Arc::new(route)]).unwrap();
    let hub = Hub::open(backends, routes, 1000, clock).await.unwrap();
    let (stopper, stop) = Stop::new();
    let options = HttpOptions { vhost: "/".into(), max_body: 1000, header_timeout: Duration::from_secs(30) };
    let figures = PrometheusBuilder::new().build_recorder().handle();
    let http = HttpDoor::new(hub, Arc::new(Users::new([])), options, figures, stop.clone());
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address().unwrap();
    tokio::spawn(serve(listener, Arc::new(http), 100, stop));
    (address, stopper)
}

async fn send(door: SocketAddr, request: &str) -> TcpStream {
    let mut client = TcpStream::connect(door).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

/// All of the answer to a request after which the connection is closed.
async fn ask(door: SocketAddr, request: &str) -> String {
    let mut answer = String::new();
    send(door, request).await.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn publish(door: SocketAddr, address: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("POST /v1/messages/{address} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    ask(door, &format!("{head}Content-Length: {length}\r\n\r\n{body}")).await
}

async fn read_until(client: &mut TcpStream, wanted: &str) -> String {
    let mut got = String::new();
    while !got.contains(wanted) {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(10), client.read(&mut bytes)).await;
        let n = read.unwrap_or_else(|_| panic!("{wanted:?} does not come after {got}")).unwrap();
        assert!(n > 0, "it ended before {wanted:?}: {got}");
        got.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    got
}

#[tokio::test]
async fn a_watcher_of_a_work_route_gets_copies_and_takes_no_work() {
    let (door, _stopper) = door().await;
    let watching = "GET /v1/subscriptions/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (mut one, mut two) = (send(door, watching).await, send(door, watching).await);
    for client in [&mut one, &mut two] {
        read_until(client, "text/event-stream").await;
    }
    for client in [&mut one, &mut two] {
        let answer = publish(door, "jobs", "resize").await;
        assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("linkspan-routed: true"), "{answer}");
        read_until(client, "\"payload\":\"resize\"").await;
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_as_a_problem() {
    let (door, _stopper) = door().await;
    let fits = publish(door, "a", &"x".repeat(1000)).await;
    assert!(fits.starts_with("HTTP/1.1 204"), "{fits}");
    let beyond = publish(door, "a", &"x".repeat(1001)).await;
    assert!(beyond.starts_with("HTTP/1.1 413") && beyond.contains("application/problem+json"), "{beyond}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (door, _stopper) = door().await;
    let answer =
        ask(door, "POST /v1/messages/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("nothing was published"), "{answer}");
}

#[tokio::test]
async fn a_page_of_another_origin_publishes_nothing() {
    let (door, _stopper) = door().await;
    let head = "POST /v1/messages/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let answer = ask(door, &format!("{head}Origin: https://example.com\r\nContent-Length: 1\r\n\r\nx")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

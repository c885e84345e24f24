use std::collections::HashMap;

use async_trait::async_trait;
use linkspan_contract::{
    Backend, BackendError, Capabilities, Client, Clock, Connection, DeliverySink, Health, Lane, LaneEvent,
    LaneEvents, ReceiptSink, SystemClock,
};
use linkspan_embedded::{Embedded, EmbeddedOptions};
use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::doors::listener::Listener;
use crate::doors::{Stopper, serve};
use crate::hub::Memory;
use crate::routes::{Filter, Pattern, Route, Routes};

/// A door over one embedded back end with the work route `jobs`; bodies have 1000 bytes at most.
async fn door() -> (SocketAddr, Stopper) {
    door_over(Embedded::open("one", EmbeddedOptions::default(), Arc::new(SystemClock))).await
}

async fn door_over(backend: Arc<dyn Backend>) -> (SocketAddr, Stopper) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let backends = HashMap::from([(Arc::from("one"), backend)]);
    let filter = Filter::parse("jobs").unwrap();
    let queues = vec!["jobs".into()];
    let route = Route { queues, ..Route::new(filter, Pattern::CompetingConsumers, "one") };
    let routes = Routes::new([("/".into(), "one".into())], [Arc::new(route)]).unwrap();
    let (memory, spools) = (Memory::of_nobody().await, crate::hub::tests::spool::stores());
    let hub = Hub::open(backends, routes, 1000, clock, memory, spools).await.unwrap();
    let (stopper, stop) = Stop::new();
    let minute = Duration::from_secs(60);
    let leases = LeaseLimits { all: 100, of_user: 100, longest: minute, longest_wait: minute };
    let header_timeout = Duration::from_secs(30);
    let options = HttpOptions { vhost: "/".into(), max_body: 1000, header_timeout, leases };
    let figures = PrometheusBuilder::new().build_recorder().handle();
    let http = HttpDoor::new(hub, Arc::new(Users::new([])), Arc::default(), options, figures, stop.clone());
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

type Ears = Arc<Mutex<Vec<Arc<dyn LaneEvents>>>>;

/// The embedded back end, whose lanes the test can end.
struct Mortal(Arc<dyn Backend>, Ears);

#[async_trait]
impl Backend for Mortal {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        Ok(Box::new(MortalConnection(self.0.connect(client, sink).await?, Arc::clone(&self.1))))
    }

    async fn health(&self) -> Health {
        Health::Up
    }

    async fn close(&self) {}
}

struct MortalConnection(Box<dyn Connection>, Ears);

#[async_trait]
impl Connection for MortalConnection {
    fn attach(&mut self, sink: Arc<dyn DeliverySink>) {
        self.0.attach(sink);
    }

    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError> {
        self.1.lock().push(Arc::clone(&events));
        self.0.lane(receipts, events).await
    }

    async fn close(self: Box<Self>) {
        self.0.close().await;
    }
}

#[tokio::test]
async fn a_lane_that_is_over_ends_its_watcher_and_is_not_published_on_again() {
    let ears = Ears::default();
    let embedded = Embedded::open("one", EmbeddedOptions::default(), Arc::new(SystemClock));
    let (door, _stopper) = door_over(Arc::new(Mortal(embedded, Arc::clone(&ears)))).await;
    let answer = publish(door, "a", "1").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let watching = "GET /v1/subscriptions/a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut watcher = send(door, watching).await;
    read_until(&mut watcher, "text/event-stream").await;
    let before = ears.lock().clone();
    for events in &before {
        events.event(LaneEvent::Closed { code: 541, text: "gone".into() });
    }
    read_until(&mut watcher, r#"{"why":"away"}"#).await;
    let answer = publish(door, "a", "2").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(ears.lock().len(), before.len() + 1, "the next publish has a lane of its own");
}

/// A request without a body, to its end.
async fn bare(door: SocketAddr, method: &str, path: &str) -> String {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    ask(door, &format!("{head}Content-Length: 0\r\n\r\n")).await
}

fn location(answer: &str) -> &str {
    let line = answer.lines().find_map(|line| line.strip_prefix("location: "));
    line.unwrap_or_else(|| panic!("no lease in {answer}"))
}

#[tokio::test]
async fn a_lane_that_is_over_ends_its_leases_and_what_they_were_for_is_given_again() {
    let ears = Ears::default();
    let embedded = Embedded::open("one", EmbeddedOptions::default(), Arc::new(SystemClock));
    let (door, _stopper) = door_over(Arc::new(Mortal(embedded, Arc::clone(&ears)))).await;
    publish(door, "jobs", "task").await;
    let leased = bare(door, "POST", "/v1/queues/jobs/leases?wait=10s").await;
    assert!(leased.starts_with("HTTP/1.1 200") && leased.ends_with("\r\n\r\ntask"), "{leased}");
    let waiting = tokio::spawn(bare(door, "POST", "/v1/queues/jobs/leases?wait=50s"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    for events in ears.lock().clone() {
        events.event(LaneEvent::Closed { code: 541, text: "gone".into() });
    }
    let waited = waiting.await.unwrap();
    assert!(waited.starts_with("HTTP/1.1 503"), "{waited}");
    let late = bare(door, "DELETE", location(&leased)).await;
    assert!(late.starts_with("HTTP/1.1 410"), "{late}");
    let again = bare(door, "POST", "/v1/queues/jobs/leases?wait=10s").await;
    assert!(again.ends_with("\r\n\r\ntask") && again.contains("linkspan-deliveries: 2"), "{again}");
    let accepted = bare(door, "DELETE", location(&again)).await;
    assert!(accepted.starts_with("HTTP/1.1 204"), "{accepted}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_runs_out_when_its_time_is_over_and_not_before() {
    let (door, _stopper) = door().await;
    publish(door, "jobs", "task").await;
    let first = bare(door, "POST", "/v1/queues/jobs/leases?wait=10s&lease=20s").await;
    assert!(first.contains("linkspan-lease: 20s"), "{first}");
    let early = bare(door, "POST", "/v1/queues/jobs/leases?wait=15s").await;
    assert!(early.starts_with("HTTP/1.1 204"), "{early}");
    let again = bare(door, "POST", "/v1/queues/jobs/leases?wait=15s").await;
    assert!(again.ends_with("\r\n\r\ntask"), "{again}");
    let late = bare(door, "DELETE", location(&first)).await;
    assert!(late.starts_with("HTTP/1.1 410") && late.contains("problem+json"), "{late}");
}

//! Brokers that are not there, or are something else.

use std::sync::Arc;
use std::time::Duration;

use linkspan_amqp::{AmqpBackend, AmqpOptions, Node, Tls, probe};
use linkspan_contract::conformance::heard::Heard;
use linkspan_contract::conformance::letters::Letters;
use linkspan_contract::conformance::recorder::Recorder;
use linkspan_contract::conformance::stage::{Stage, queue_spec};
use linkspan_contract::{Backend, Client, Health, QueueSpec, Refused, SystemClock};
use linkspan_integration_tests::RabbitMq;
use linkspan_integration_tests::upstreams::Port;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::Linked;
use crate::notes::Notes;

async fn options() -> AmqpOptions {
    AmqpOptions::from_url(RabbitMq::shared().await.url()).expect("the broker's URL is one")
}

async fn wrong(change: impl FnOnce(&mut AmqpOptions)) -> String {
    let mut options = options().await;
    options.connect_timeout = Duration::from_secs(2);
    change(&mut options);
    let found = probe(&options).await;
    found.expect_err("it cannot be reached like this").to_string()
}

fn notes() -> Arc<Notes> {
    Arc::new(Notes::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_says_who_is_there_or_exactly_what_is_wrong() {
    let found = probe(&options().await).await.expect("the broker is there");
    assert!(found.product.as_deref().is_some_and(|it| it.starts_with("RabbitMQ ")), "{found}");
    let password = wrong(|it| it.password = "wrong".into()).await;
    assert!(password.contains("password of user `guest`"), "{password}");
    let vhost = wrong(|it| it.vhost = "nope".into()).await;
    assert!(vhost.contains("no vhost `nope`"), "{vhost}");
    let tls = wrong(|it| it.tls = Some(Tls::default())).await;
    assert!(tls.contains("TLS"), "{tls}");
    let reserved = Port::reserve();
    let port = reserved.number();
    let silent = TcpListener::bind(reserved.address()).await.expect("a free port");
    let there = |port| vec![Node { host: "127.0.0.1".into(), port }];
    let said = wrong(|it| it.nodes = there(port)).await;
    assert!(said.contains("has not answered within 2000 ms"), "{said}");
    drop(silent);
    let said = wrong(|it| it.nodes = there(port)).await;
    assert!(said.contains("nothing listens"), "{said}");
    let other = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = other.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let said = wrong(|it| it.nodes = there(port)).await;
    assert!(said.contains("not AMQP") || said.contains("no AMQP broker"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_at_once_that_the_broker_is_away_and_the_next_node_is_tried() {
    let real = options().await;
    let silent = Port::reserve();
    let nowhere = Node { host: "127.0.0.1".into(), port: silent.number() };
    let clock = Arc::new(SystemClock);
    let backend = AmqpBackend::open(
        "rabbit",
        AmqpOptions { nodes: vec![nowhere.clone()], ..real.clone() },
        clock,
        notes(),
    );
    let backend = backend.expect("a back end opens without its broker");
    let client =
        Client { number: 1, identifier: "c".into(), user: "guest".into(), vhost: "/".into(), session: None };
    tokio::time::sleep(Duration::from_millis(300)).await;
    let Health::Away(why) = backend.health().await else { panic!("nobody is there") };
    assert!(why.contains("nothing listens"), "{why}");
    let mut early = backend.connect(&client, Arc::new(Recorder::default())).await.expect("it is let in");
    let told = Arc::new(Heard::default());
    let mut lane = early.lane(told.clone(), told).await.expect("a lane opens");
    let refused = lane.declare_queue(&queue_spec("q", &[])).await;
    assert_eq!(refused.map(|it| it.name), Err(Refused::Away("rabbit".into())));
    drop((lane, early));
    backend.close().await;
    // The second node is tried when the first one is not there.
    let nodes = vec![nowhere, real.nodes[0].clone()];
    let backend = AmqpBackend::open("rabbit", AmqpOptions { nodes, ..real }, Arc::new(SystemClock), notes());
    let backend = backend.expect("a back end opens");
    for _ in 0..500 {
        if backend.health().await == Health::Up {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(backend.connect(&client, Arc::new(Recorder::default())).await.is_ok());
    backend.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_share_a_few_connections() {
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "many").await;
    let mut devices = Vec::new();
    for number in 0..1000_u32 {
        let mut device = stage.client().await;
        device.watch(&stage.name(&format!("device/{number}")), 1).await;
        devices.push(device);
    }
    let mut workers = Vec::new();
    for _ in 0..200 {
        let mut worker = stage.client().await;
        let own = QueueSpec { exclusive: true, ..queue_spec("", &[]) };
        let queue = worker.declare_queue(&own).await.expect("a queue is declared").name;
        worker.consume(&queue, 1, 10).await;
        workers.push((worker, queue));
    }
    let mut publisher = stage.client().await;
    for (number, device) in (0..).zip(&mut devices) {
        let target = publisher.to_topic(&stage.name(&format!("device/{number}")));
        publisher.publish(&Letters::numbered(target, [number]));
        device.expect_numbers([number]).await;
    }
    for (worker, queue) in &mut workers {
        let target = publisher.to_queue(queue);
        publisher.publish(&Letters::numbered(target, [1]));
        worker.expect_numbers([1]).await;
    }
    assert_eq!(linked.cable.connections(), linked.backend.connections());
    assert_eq!(linked.backend.connections(), 4, "whatever the number of clients");
    drop((devices, workers, publisher));
    stage.close().await;
}

//! Queues that remember what they have taken, while the ledger is away, and what they have not taken.

use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use linkspan_contract::conformance::heard::Heard;
use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::conformance::recorder::Recorder;
use linkspan_contract::conformance::stage::{Peer, Stage, key, queue_spec};
use linkspan_contract::{
    Attribute, Backend, Client, Deduplicate, Destination, Flags, Outcome, QueueSpec, Settle, Source,
    Subscribe, Terms,
};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::{RabbitMq, soon};
use tokio::time::{sleep, timeout};

use super::Linked;

/// Terms by which two messages with the same payload are one.
fn once() -> Terms {
    let deduplicate = Some(Deduplicate { by: Attribute::Payload, window: 600_000 });
    Terms { deduplicate, ..Terms::default() }
}

/// Declares a queue of a route, and tells how much is in it.
async fn declare(client: &mut Peer<'_>, queue: &str, terms: &Arc<Terms>) -> u64 {
    let spec = QueueSpec { terms: Some(terms), ..queue_spec(queue, &[]) };
    client.declare_queue(&spec).await.expect("a queue is declared").messages
}

/// Deletes it behind the back end's back.
async fn delete(queue: &str) {
    let direct = Amqp::connect(RabbitMq::shared().await.address()).await;
    direct.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("it is deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_that_give_up_while_the_ledger_is_away_leave_no_channel_open() {
    let broker = RabbitMq::own_with("channel_max = 16", &[]).await;
    let linked = Linked::to(&broker, |options| options.connections = 1).await;
    let stage = Stage::new(&linked, "gone").await;
    let (orders, terms) = (stage.name("orders"), Arc::new(once()));
    let mut client = stage.client().await;
    declare(&mut client, &orders, &terms).await;
    let target = client.to_queue(&orders);
    assert_eq!(client.confirm(&Letters::confirmed(target, [0])).await, []);
    linked.ledger.go(true);
    for number in 1..=14 {
        let mut publisher = stage.client().await;
        let target = publisher.to_queue(&orders);
        publisher.publish(&Letters::confirmed(target, [number]));
        let taken = async {
            while declare(&mut client, &orders, &terms).await <= u64::from(number) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        soon("RabbitMQ has taken it", taken).await;
    }
    let mut others = Vec::new();
    for _ in 0..10 {
        let mut other = stage.client().await;
        let to_exchange = other.to_exchange("amq.direct", "nobody");
        let letters = Letters::confirmed(to_exchange, [0]);
        let confirmed = timeout(Duration::from_secs(30), other.confirm(&letters));
        confirmed.await.expect("there is a channel for each of them");
        others.push(other);
    }
    drop(others);
    linked.ledger.go(false);
    let mut again = stage.client().await;
    let target = again.to_queue(&orders);
    assert_eq!(again.confirm(&Letters::confirmed(target, 0..=14)).await, []);
    assert_eq!(declare(&mut again, &orders, &terms).await, 15, "what it has taken is known all the same");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_goes_on_while_its_commit_waits_for_the_ledger() {
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "commits").await;
    let (orders, jobs, terms) = (stage.name("orders"), stage.name("jobs"), Arc::new(once()));
    let mut other = stage.client().await;
    declare(&mut other, &orders, &terms).await;
    other.queue(&jobs, &[]).await;
    let (recorder, heard) = (Arc::new(Recorder::default()), Arc::new(Heard::default()));
    let client = Client {
        number: 1 << 40,
        identifier: "commits".into(),
        user: "guest".into(),
        vhost: "/".into(),
        session: None,
    };
    let mut connection = linked.backend.connect(&client, recorder.clone()).await.expect("a client connects");
    let mut lane = connection.lane(heard.clone(), heard.clone()).await.expect("a lane opens");
    lane.begin().await.expect("a transaction begins");
    let how = Subscribe::new(Settle::ByConsumer);
    lane.subscribe(&Source::Queue(&jobs), key(1), &how, None).await.expect("a subscription is made");
    lane.start(key(1));
    let target = lane.target(&Destination::Queue { name: &orders, more: &[] });
    linked.ledger.go(true);
    lane.publish(&Letters::numbered(target, [1]).batch());
    {
        let mut committing = pin!(lane.commit());
        let early = timeout(Duration::from_millis(500), &mut committing).await;
        assert!(early.is_err(), "nobody is told before it is written down: {early:?}");
        let to_jobs = other.to_queue(&jobs);
        other.confirm(&Letters::confirmed(to_jobs, [7])).await;
        assert_eq!(recorder.expect(1, Duration::from_secs(10)).await[0].payload, "7");
        linked.ledger.go(false);
        soon("it is written down", committing).await.expect("the ledger is back");
    }
    linked.ledger.go(true);
    lane.publish(&Letters::numbered(target, [2]).batch());
    let given_up = timeout(Duration::from_millis(500), lane.commit()).await;
    assert!(given_up.is_err(), "{given_up:?}");
    linked.ledger.go(false);
    let target = other.to_queue(&orders);
    assert_eq!(other.confirm(&Letters::confirmed(target, 1..=3)).await, []);
    assert_eq!(declare(&mut other, &orders, &terms).await, 3, "two of them were known");
    drop(lane);
    for queue in [&orders, &jobs] {
        other.delete_queue(queue, false, false).await.expect("the queue is deleted");
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_back_is_not_remembered_inside_a_transaction_and_outside() {
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "returned").await;
    for transacts in [false, true] {
        let (orders, terms) = (stage.name(if transacts { "inside" } else { "outside" }), Arc::new(once()));
        let (mut client, mut other) = (stage.client().await, stage.client().await);
        declare(&mut client, &orders, &terms).await;
        delete(&orders).await;
        let target = client.to_queue(&orders);
        if transacts {
            client.begin().await.expect("a transaction begins");
            let returned = Letter::numbered(target, 2).flagged(Flags::MANDATORY);
            client.publish(&[Letter::numbered(target, 1), returned].into_iter().collect());
            client.commit().await.expect("a transaction is committed");
            assert_eq!(client.expect_return().await.payload(), Some(&b"2"[..]));
        } else {
            let told = client.confirm(&Letters::confirmed(target, 1..=2)).await;
            assert_eq!(told, [(0, Outcome::Unroutable), (1, Outcome::Unroutable)]);
        }
        declare(&mut other, &orders, &terms).await;
        let target = other.to_queue(&orders);
        assert_eq!(other.confirm(&Letters::confirmed(target, [1, 2, 1, 2])).await, []);
        assert_eq!(declare(&mut other, &orders, &terms).await, 2, "transacts: {transacts}");
        other.delete_queue(&orders, false, false).await.expect("the queue is deleted");
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_queue_refused_is_not_remembered() {
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "refused").await;
    let orders = stage.name("orders");
    let terms = Arc::new(Terms { max_length: NonZeroU64::new(1), ..once() });
    let mut client = stage.client().await;
    declare(&mut client, &orders, &terms).await;
    let target = client.to_queue(&orders);
    assert_eq!(client.confirm(&Letters::confirmed(target, [1])).await, []);
    let told = client.confirm(&Letters::confirmed(target, [2])).await;
    assert!(matches!(told[..], [(0, Outcome::Refused(_))]), "{told:?}");
    client.purge_queue(&orders).await.expect("there is room again");
    assert_eq!(client.confirm(&Letters::confirmed(target, [2])).await, []);
    assert_eq!(declare(&mut client, &orders, &terms).await, 1, "it is taken now");
    client.delete_queue(&orders, false, false).await.expect("the queue is deleted");
    stage.close().await;
}

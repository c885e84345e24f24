//! The link is cut.

use std::time::Duration;

use linkspan_contract::conformance::letters::Letters;
use linkspan_contract::conformance::recorder::Given;
use linkspan_contract::conformance::stage::{Peer, Stage, key, queue_spec};
use linkspan_contract::topology::BindingEnd;
use linkspan_contract::{Binding, LaneEvent, QueueSpec, Settle, Settlement, Source, Subscribe};

use super::Linked;

/// All that comes within a while after the last.
async fn gather(peer: &mut Peer<'_>, until: impl Fn(&[Given]) -> bool) -> Vec<Given> {
    let mut all = Vec::new();
    for _ in 0..600 {
        let given = peer.recorder().take_all();
        for one in &given {
            if !one.settled {
                peer.settle(one.key.subscription, one.tag, 1, Settlement::Accept);
            }
        }
        all.extend(given);
        if until(&all) {
            return all;
        }
        peer.resume();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen: Vec<_> = all.iter().map(|it| it.payload.as_str()).collect();
    panic!("not all has come: {} came, the last {:?}", seen.len(), seen.last());
}

/// The first time that each number came, in that order.
fn firsts(all: &[Given]) -> Vec<u32> {
    let mut seen = std::collections::HashSet::new();
    all.iter().filter_map(|it| it.payload.parse().ok()).filter(|number| seen.insert(*number)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_and_order_holds_over_five_cuts() {
    const COUNT: u32 = 3000;
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "cuts").await;
    let (topic, queue) = (stage.name("t"), stage.name("q"));
    let (mut publisher, mut worker, mut device) =
        (stage.client().await, stage.client().await, stage.client().await);
    publisher.queue(&queue, &[]).await;
    let to = BindingEnd::Queue(&queue);
    let binding = Binding { source: "amq.topic", to, key: topic.as_bytes(), arguments: &[] };
    publisher.bind(&binding).await.expect("a queue is bound");
    worker.consume(&queue, 1, 0).await;
    let how = Subscribe::new(Settle::AsPublished);
    device.subscribe_how(Source::Filter(&topic), 1, &how, 0).await;
    let target = publisher.to_topic(&topic);
    let mut first = None;
    let mut wanted = 0;
    for start in (0..COUNT).step_by(100) {
        let published = publisher.publish(&Letters::confirmed(target, start..start + 100));
        first.get_or_insert(published.first);
        wanted += published.wanting;
        if start % 600 == 300 {
            linked.cable.reset();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let first = first.expect("something was published");
    publisher.receipts(first..first + u64::from(wanted)).await;
    let complete = |all: &[Given]| firsts(all).len() == COUNT as usize;
    let numbers: Vec<u32> = (0..COUNT).collect();
    assert_eq!(firsts(&gather(&mut worker, complete).await), numbers, "the worker's order");
    assert_eq!(firsts(&gather(&mut device, complete).await), numbers, "the device's order");
    publisher.delete_queue(&queue, false, false).await.expect("the queue is deleted");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_declared_comes_back_with_its_consumers() {
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "declared").await;
    let mut client = stage.client().await;
    let own = QueueSpec { exclusive: true, ..queue_spec("", &[]) };
    let own = client.declare_queue(&own).await.expect("a queue is declared").name;
    let passing = stage.name("auto");
    let spec = QueueSpec { auto_delete: true, durable: false, ..queue_spec(&passing, &[]) };
    client.declare_queue(&spec).await.expect("a queue is declared");
    client.bind_queue("amq.direct", &own, &own).await;
    client.bind_queue("amq.direct", &passing, &passing).await;
    client.consume(&own, 1, 0).await;
    client.consume(&passing, 2, 0).await;
    linked.cable.cut().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    linked.cable.heal().await;
    linked.back().await;
    let mut other = stage.client().await;
    for (number, queue) in [(1, &own), (2, &passing)] {
        let target = other.to_exchange("amq.direct", queue);
        assert_eq!(other.confirm(&Letters::confirmed(target, [number])).await, [], "it is bound again");
        let given = client.expect_numbers([number]).await;
        assert_eq!(given[0].key, key(number));
    }
    let refused = other.declare_queue(&queue_spec(&own, &[])).await.expect_err("it is another's");
    assert!(matches!(refused, linkspan_contract::Refused::Locked(_)), "{refused:?}");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settlements_of_before_are_ignored_and_the_messages_come_again() {
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "stale").await;
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, 0..3)).await;
    let credit = client.consume(&queue, 1, 3).await;
    let before = client.expect_numbers(0..3).await;
    linked.cable.reset();
    linked.back().await;
    client.settle(1, before[0].tag, 3, Settlement::Accept);
    credit.grant(3);
    client.resume();
    let again = client.expect_numbers(0..3).await;
    assert!(again.iter().all(|it| it.attempt > 0 && it.tag > before[2].tag), "{again:?}");
    client.settle(1, again[0].tag, 3, Settlement::Accept);
    stage.settle_down().await;
    client.lose_lane().await;
    let left = client.delete_queue(&queue, false, false).await;
    assert_eq!(left, Ok(0));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_closes_its_lane() {
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "transaction").await;
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.consume(&queue, 1, 0).await;
    client.begin().await.expect("a transaction begins");
    client.publish(&Letters::numbered(target, [1]));
    stage.settle_down().await;
    linked.cable.reset();
    linked.back().await;
    stage.settle_down().await;
    let events = client.events();
    let [LaneEvent::Closed { code: 406, text }] = &events[..] else { panic!("one end: {events:?}") };
    assert!(text.contains("transaction"), "{text}");
    client.commit().await.expect_err("the lane is over");
    client.lose_lane().await;
    client.delete_queue(&queue, false, false).await.expect("the next lane works");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_wait_while_the_broker_is_away() {
    let linked = Linked::with(|options| options.lane_bytes = 10_000).await;
    let stage = Stage::new(&linked, "away").await;
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut sent = 0;
    linked.cable.reset();
    while client.poll_ready(&mut cx).is_ready() && sent < 10_000 {
        client.publish(&Letters::confirmed(target, sent..sent + 10));
        sent += 10;
        tokio::time::sleep(Duration::from_micros(100)).await;
        if sent % 100 == 0 {
            linked.cable.reset();
        }
    }
    assert!(sent < 10_000, "a lane holds what it can and then its publisher");
    linked.up().await;
    client.receipts(0..u64::from(sent)).await;
    assert!(client.poll_ready(&mut cx).is_ready(), "all has arrived");
    let left = client.delete_queue(&queue, false, false).await.expect("the queue is deleted");
    assert!(left >= u64::from(sent), "{left} of {sent}");
    stage.close().await;
}

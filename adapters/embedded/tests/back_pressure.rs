//! Who is held by a backlog, and what is dropped beyond the bounds.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use linkspan_contract::conformance::Fixture;
use linkspan_contract::conformance::clocks::PausedClock;
use linkspan_contract::conformance::letters::Letters;
use linkspan_contract::conformance::stage::{Peer, Stage, key};
use linkspan_contract::{Backend, Credit, Ended, Outcome, Refused, Settle, Settlement, Source, Subscribe};
use linkspan_embedded::{Embedded, EmbeddedOptions};

/// A back end with little room.
struct Narrow;

#[async_trait]
impl Fixture for Narrow {
    async fn backend(&self) -> Arc<dyn Backend> {
        let options = EmbeddedOptions {
            queue_high: 10_000,
            queue_limit: 50_000,
            session_high: 10_000,
            session_limit: 50_000,
            ..EmbeddedOptions::default()
        };
        Embedded::open("narrow", options, Arc::new(PausedClock::new()))
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(10)
    }
}

fn is_held(peer: &mut Peer<'_>) -> bool {
    matches!(peer.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

/// More than twice the mark, which holds longest.
const MANY: std::ops::Range<u32> = 0..200;

#[tokio::test(start_paused = true)]
async fn a_backlog_holds_publishers_while_consumers_make_progress_and_only_so_long() {
    let stage = Stage::new(&Narrow, "backlog").await;
    let (mut publisher, mut consumer) = (stage.client().await, stage.client().await);
    publisher.queue("q", &[]).await;
    let target = publisher.to_queue("q");
    publisher.publish(&Letters::numbered(target, MANY));
    assert!(!is_held(&mut publisher), "nobody consumes: a queue may be filled before any consumer was seen");
    let credit = consumer.consume("q", 1, 10).await;
    let given = consumer.expect(10).await;
    assert!(publisher.publish(&Letters::numbered(target, [0])).congested);
    assert!(is_held(&mut publisher));
    stage.pass(251).await;
    assert!(!is_held(&mut publisher), "it is slowed, not stopped");

    publisher.publish(&Letters::numbered(target, [0]));
    assert!(is_held(&mut publisher));
    credit.grant(1000);
    consumer.settle(1, given[0].tag, 10, Settlement::Accept);
    assert!(!is_held(&mut publisher), "the backlog is gone");

    stage.pass(10_000).await;
    credit.set_limit(0);
    publisher.publish(&Letters::numbered(target, MANY));
    publisher.publish(&Letters::numbered(target, MANY));
    stage.pass(10_000).await;
    publisher.publish(&Letters::numbered(target, [0]));
    assert!(!is_held(&mut publisher), "a consumer that hangs holds nobody");
}

#[tokio::test(start_paused = true)]
async fn who_consumes_from_a_queue_is_not_held_by_it() {
    let stage = Stage::new(&Narrow, "own").await;
    let mut worker = stage.client().await;
    worker.queue("q", &[]).await;
    worker.consume("q", 1, 1).await;
    let target = worker.to_queue("q");
    worker.publish(&Letters::numbered(target, MANY));
    worker.expect(1).await;
    worker.publish(&Letters::numbered(target, [0]));
    assert!(!is_held(&mut worker), "it could not settle while it is held");
}

#[tokio::test(start_paused = true)]
async fn a_session_holds_publishers_and_its_subscription_ends_beyond_its_limit() {
    let stage = Stage::new(&Narrow, "session").await;
    let (mut publisher, mut subscriber) = (stage.client().await, stage.client().await);
    let how = Subscribe::new(Settle::AsPublished);
    let credit = subscriber.subscribe_how(Source::Filter("t"), 1, &how, 1).await;
    let target = publisher.to_topic("t");
    publisher.confirm(&Letters::confirmed(target, 0..2)).await;
    subscriber.expect_numbers([0]).await;
    credit.grant(1);
    subscriber.resume();
    subscriber.expect_numbers([1]).await;
    publisher.publish(&Letters::confirmed(target, MANY));
    assert!(is_held(&mut publisher));
    let small = Arc::new(Credit::new(0));
    let lent = Some(Arc::clone(&small));
    subscriber.subscribe(&Source::Filter("small"), key(2), &how, lent).await.unwrap();
    subscriber.start(key(2));
    let to_small = publisher.to_topic("small");
    publisher.publish(&Letters::confirmed(to_small, 0..2));
    publisher.publish(&Letters::confirmed(target, 200..1000));
    assert_eq!(subscriber.expect_end().await, (key(1), Ended::LimitExceeded { bytes: 50_000 }));
    assert!(!is_held(&mut publisher), "there is room again");
    publisher.publish(&Letters::confirmed(target, 1000..1010));
    credit.grant(10_000);
    small.grant(10_000);
    subscriber.resume();
    let others = subscriber.expect_numbers(0..2).await;
    assert!(others.iter().all(|given| given.key == key(2)), "another subscription goes on: {others:?}");
    subscriber.expect_nothing().await;

    subscriber.unsubscribe(key(1)).await.unwrap();
    subscriber.subscribe_how(Source::Filter("t"), 1, &how, 10).await;
    publisher.publish(&Letters::confirmed(target, 0..2));
    subscriber.expect_numbers(0..2).await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_a_length_of_its_own_refuses_what_memory_has_no_room_for() {
    let stage = Stage::new(&Narrow, "memory").await;
    let mut publisher = stage.client().await;
    publisher.queue("q", &[]).await;
    let target = publisher.to_queue("q");
    let refused = publisher.confirm(&Letters::confirmed(target, 0..5000)).await;
    assert!(!refused.is_empty() && refused.len() < 5000);
    assert!(refused.iter().all(|(_, why)| matches!(why, Outcome::Refused(Refused::Full(_)))));
}

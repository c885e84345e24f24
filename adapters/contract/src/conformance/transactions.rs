//! Publishes and settlements as one step (AMQP 0-9-1 §1.9).

use crate::conformance::letters::{Letter, Letters};
use crate::conformance::stage::{Stage, queue_spec};
use crate::events::LaneEvent;
use crate::message::Flags;
use crate::settlement::Settlement;

/// Nothing is seen before the commit, all is after it.
pub async fn a_commit_publishes_and_settles(stage: &Stage<'_>) {
    if !stage.can(|it| it.transactions) {
        return;
    }
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, 0..2)).await;
    client.consume(&queue, 1, 2).await;
    let given = client.expect_numbers(0..2).await;
    client.begin().await.expect("a transaction begins");
    client.publish(&Letters::numbered(target, 2..4));
    client.settle(1, given[0].tag, 1, Settlement::Accept);
    let counts = client.declare_queue(&queue_spec(&queue, &[])).await.expect("the queue is there");
    assert_eq!(counts.messages, 0, "nothing is published before the commit");
    client.commit().await.expect("a transaction is committed");
    client.flush();
    let counts = client.declare_queue(&queue_spec(&queue, &[])).await.expect("the queue is there");
    // A remote broker may have sent one in the place of the accepted one, before the client has granted credit for it.
    let ahead = u64::from(stage.is_remote());
    assert!((2 - ahead..=2).contains(&counts.messages), "{counts:?}");
    client.lose_lane().await;
    client.consume(&queue, 2, 0).await;
    client.expect_numbers([1, 2, 3]).await;
}

/// Nothing of it ever happened.
pub async fn a_rollback_does_neither(stage: &Stage<'_>) {
    if !stage.can(|it| it.transactions) {
        return;
    }
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, [0])).await;
    client.consume(&queue, 1, 0).await;
    let given = client.expect_numbers([0]).await;
    client.begin().await.expect("a transaction begins");
    client.publish(&Letters::numbered(target, [1]));
    client.settle(1, given[0].tag, 1, Settlement::Accept);
    client.rollback().await.expect("a transaction is rolled back");
    client.commit().await.expect("the next one is empty");
    client.expect_nothing().await;
    client.lose_lane().await;
    client.consume(&queue, 2, 0).await;
    client.expect_numbers([0]).await;
    client.expect_nothing().await;
}

/// `basic.return` comes with the commit.
pub async fn a_commit_returns_what_nobody_takes(stage: &Stage<'_>) {
    if !stage.can(|it| it.transactions) {
        return;
    }
    let nowhere = stage.name("none");
    let mut client = stage.client().await;
    let target = client.to_queue(&nowhere);
    client.begin().await.expect("a transaction begins");
    let letter = Letter::numbered(target, 7).flagged(Flags::MANDATORY);
    client.publish(&[letter].into_iter().collect());
    assert!(client.events().is_empty(), "nothing happens before the commit");
    client.commit().await.expect("a transaction is committed");
    stage.settle_down().await;
    let events = client.events();
    let [LaneEvent::Returned { message, code, .. }] = &events[..] else { panic!("one return: {events:?}") };
    assert_eq!((message.payload(), *code), (Some(&b"7"[..]), 312));
}

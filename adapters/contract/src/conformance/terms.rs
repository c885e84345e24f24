//! What a route says of its queues.

use std::num::{NonZeroU8, NonZeroU32, NonZeroU64};
use std::sync::Arc;

use crate::attribute::Attribute;
use crate::conformance::letters::{Letter, Letters};
use crate::conformance::stage::{Peer, Stage, queue_spec};
use crate::receipt::Outcome;
use crate::settlement::Settlement;
use crate::terms::{Overflow, Priorities, Retry, Terms};
use crate::topology::{Argument, QueueSpec};
use crate::value::Value;

const NOW: Settlement = Settlement::Release { delay: 0 };

/// A client that has declared a queue with these terms, as the hub does; and the names of the queue and of that of its
/// dead letters.
async fn owned<'s>(
    stage: &'s Stage<'_>,
    terms: Terms,
    more: &[Argument<'static>],
) -> (Peer<'s>, String, String) {
    let (work, dead) = (stage.name("work"), stage.name("dead"));
    let mut client = stage.client().await;
    client.queue(&dead, &[]).await;
    let mut arguments = vec![
        ("x-dead-letter-exchange", Value::Text("".into())),
        ("x-dead-letter-routing-key", Value::Text(dead.clone().into())),
    ];
    arguments.extend_from_slice(more);
    let terms = Arc::new(terms);
    let spec = QueueSpec { terms: Some(&terms), ..queue_spec(&work, &arguments) };
    client.declare_queue(&spec).await.expect("a queue is declared");
    (client, work, dead)
}

/// `max-deliveries`: so often a message is given out, then it is a dead letter.
pub async fn a_message_is_given_out_as_often_as_its_route_says(stage: &Stage<'_>) {
    if !stage.can(|it| it.max_deliveries) {
        return;
    }
    let terms = Terms { max_deliveries: NonZeroU32::new(2), ..Terms::default() };
    let (mut client, work, dead) = owned(stage, terms, &[]).await;
    let target = client.to_queue(&work);
    client.confirm(&Letters::confirmed(target, [0])).await;
    client.consume(&work, 1, 0).await;
    for attempt in 0..2 {
        let given = client.expect_numbers([0]).await;
        assert_eq!(given[0].attempt, attempt);
        client.settle(1, given[0].tag, 1, NOW);
    }
    client.consume(&dead, 2, 0).await;
    let given = client.expect_numbers([0]).await;
    assert_eq!(given[0].key.subscription, 2, "it comes as a dead letter");
}

/// `retry`: each wait is longer; what a consumer leaves that goes does not wait.
pub async fn a_message_that_was_given_back_waits_longer_each_time(stage: &Stage<'_>) {
    if !stage.can(|it| it.retry) {
        return;
    }
    let retry = Some(Retry { delay: 1000, factor: 200, max: 60_000 });
    let (mut client, work, _) = owned(stage, Terms { retry, ..Terms::default() }, &[]).await;
    let target = client.to_queue(&work);
    client.confirm(&Letters::confirmed(target, [0])).await;
    client.consume(&work, 1, 0).await;
    for (attempt, wait) in [(0, 1000), (1, 2000)] {
        let given = client.expect_numbers([0]).await;
        assert_eq!(given[0].attempt, attempt);
        client.settle(1, given[0].tag, 1, NOW);
        stage.pass(wait - 700).await;
        client.expect_nothing().await;
        stage.pass(700).await;
    }
    client.expect_numbers([0]).await;
    client.lose_lane().await;
    client.consume(&work, 2, 0).await;
    let again = client.expect_numbers([0]).await;
    assert_eq!(again[0].attempt, 3, "it was given out to who went, and comes at once");
}

/// `ack-timeout` counts for what is fetched, and the wait of `retry` follows it.
pub async fn what_was_fetched_comes_back_when_its_deadline_passes(stage: &Stage<'_>) {
    if !stage.can(|it| it.ack_timeout) || !stage.can(|it| it.retry) {
        return;
    }
    let retry = Some(Retry { delay: 1000, factor: 100, max: 1000 });
    let terms = Terms { ack_timeout: Some(500), retry, ..Terms::default() };
    let (mut client, work, _) = owned(stage, terms, &[]).await;
    let target = client.to_queue(&work);
    client.confirm(&Letters::confirmed(target, [0])).await;
    let fetched = client.fetch(&work, super::stage::key(9), false).await.expect("a queue is asked");
    assert!(fetched.is_some());
    client.consume(&work, 1, 0).await;
    stage.pass(800).await;
    client.expect_nothing().await;
    stage.pass(800).await;
    let again = client.expect_numbers([0]).await;
    assert_eq!(again[0].attempt, 1);
}

/// `expiry`: the shorter of the route's and the message's own counts.
pub async fn a_message_expires_when_its_route_says_so(stage: &Stage<'_>) {
    if !stage.can(|it| it.expiry) || !stage.can(|it| it.max_deliveries) {
        return;
    }
    let (mut client, work, dead) = owned(stage, Terms { expiry: Some(2000), ..Terms::default() }, &[]).await;
    let target = client.to_queue(&work);
    let letter = |number| Letter::numbered(target, number).confirmed();
    client.confirm(&[letter(0).expiring(500), letter(1)].into_iter().collect()).await;
    client.consume(&dead, 1, 0).await;
    stage.pass(1000).await;
    client.expect_numbers([0]).await;
    client.expect_nothing().await;
    stage.pass(1500).await;
    client.expect_numbers([1]).await;
}

/// `max-length` with `overflow`.
pub async fn a_full_queue_does_what_its_route_says(stage: &Stage<'_>) {
    if !stage.can(|it| it.max_length) || !stage.can(|it| it.max_deliveries) {
        return;
    }
    for (overflow, refused, kept, dead) in [
        (Overflow::Reject, &[3, 4][..], [0, 1, 2], &[][..]),
        (Overflow::DropHead, &[], [2, 3, 4], &[0, 1]),
        (Overflow::DeadLetter, &[3, 4], [0, 1, 2], &[3, 4]),
    ] {
        let terms = Terms { max_length: NonZeroU64::new(3), overflow, ..Terms::default() };
        let (mut client, work, dead_queue) = owned(stage, terms, &[]).await;
        let target = client.to_queue(&work);
        let exceptions = client.confirm(&Letters::confirmed(target, 0..5)).await;
        let places: Vec<_> = exceptions.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, refused, "{overflow:?}");
        assert!(exceptions.iter().all(|(_, why)| matches!(why, Outcome::Refused(_))), "{exceptions:?}");
        client.consume(&work, 1, 0).await;
        let given = client.expect_numbers(kept).await;
        client.settle(1, given[0].tag, 3, Settlement::Accept);
        client.consume(&dead_queue, 2, 0).await;
        let letters = client.expect_numbers(dead.iter().copied()).await;
        for letter in letters {
            let reason = letter.properties.header("x-first-death-reason");
            assert_eq!(reason, Some(&Value::Text("maxlen".into())), "{overflow:?}");
            client.accept(&letter);
        }
        client.expect_nothing().await;
        for queue in [&work, &dead_queue] {
            client.delete_queue(queue, false, false).await.expect("a queue is deleted");
        }
        client.lose_lane().await;
    }
}

/// What the last declaration says counts, also for a queue that is there.
pub async fn another_declaration_changes_what_a_queue_does(stage: &Stage<'_>) {
    // A broker of its own has them among the queue's arguments, which must agree.
    if stage.is_remote() || !stage.can(|it| it.max_length) {
        return;
    }
    let bounded = Terms { max_length: NonZeroU64::new(1), ..Terms::default() };
    let (mut client, work, dead) = owned(stage, bounded, &[]).await;
    let target = client.to_queue(&work);
    assert_eq!(client.confirm(&Letters::confirmed(target, 0..2)).await.len(), 1);
    let arguments = [
        ("x-dead-letter-exchange", Value::Text("".into())),
        ("x-dead-letter-routing-key", Value::Text(dead.into())),
    ];
    // A client of the queue knows nothing of its route.
    client.declare_queue(&queue_spec(&work, &arguments)).await.expect("it is the same queue");
    assert_eq!(client.confirm(&Letters::confirmed(target, [2])).await.len(), 1);
    let terms = Arc::new(Terms::default());
    let spec = QueueSpec { terms: Some(&terms), ..queue_spec(&work, &arguments) };
    client.declare_queue(&spec).await.expect("it is the same queue");
    assert_eq!(client.confirm(&Letters::confirmed(target, [3])).await, []);
}

/// `priority-from`: what the publisher gave counts, else what the route reads, else its default.
pub async fn a_route_reads_the_level_of_a_message(stage: &Stage<'_>) {
    // Who can weigh levels knows them itself.
    if !stage.can(|it| it.priority_queue) || !stage.can(|it| it.weighted_order) {
        return;
    }
    let from = Attribute::Level(NonZeroU8::new(2).expect("it is not zero"));
    let priorities =
        Some(Priorities { highest: 9, weighted: false, from: Some(from), otherwise: 4, apart: false });
    let levels = [("x-max-priority", Value::I32(9))];
    let (mut client, work, _) = owned(stage, Terms { priorities, ..Terms::default() }, &levels).await;
    let target = client.to_queue(&work);
    let letter =
        |number, topic: &str| Letter { topic: topic.into(), ..Letter::numbered(target, number).confirmed() };
    let letters = [letter(0, "t/none"), letter(1, "t/2"), letter(2, "t/9"), letter(3, "t/9").priority(3)];
    client.confirm(&letters.into_iter().collect()).await;
    let credit = client.consume(&work, 1, 1).await;
    for (at, number) in [2, 0, 3, 1].into_iter().enumerate() {
        let given = client.expect_numbers([number]).await;
        if at == 0 {
            client.settle(1, given[0].tag, 1, NOW);
            credit.grant(1);
            client.resume();
            let again = client.expect_numbers([number]).await;
            assert_eq!(again[0].attempt, 1, "a message that comes back keeps its level");
            client.accept(&again[0]);
        } else {
            client.accept(&given[0]);
        }
        credit.grant(1);
        client.resume();
    }
}

//! Queues that consumers share.

use std::collections::BTreeSet;

use crate::conformance::letters::{Letter, Letters};
use crate::conformance::recorder::Given;
use crate::conformance::stage::{Peer, Stage, key};
use crate::receipt::Outcome;
use crate::refusal::Refused;
use crate::settlement::Settlement;
use crate::sink::Ended;
use crate::source::{Settle, Source, Subscribe};
use crate::value::Value;

async fn filled<'s>(stage: &'s Stage<'_>, queue: &str, numbers: std::ops::Range<u32>) -> Peer<'s> {
    let mut publisher = stage.client().await;
    publisher.queue(queue, &[]).await;
    let target = publisher.to_queue(queue);
    assert_eq!(publisher.confirm(&Letters::confirmed(target, numbers)).await, []);
    publisher
}

fn numbers(given: &[Given]) -> BTreeSet<u32> {
    given.iter().map(|it| it.payload.parse().unwrap_or(u32::MAX)).collect()
}

/// Messages wait in a queue before any consumer was ever seen.
pub async fn messages_wait_for_a_first_consumer(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let publisher = filled(stage, &queue, 0..1000).await;
    drop(publisher);
    let mut consumer = stage.client().await;
    let counts = consumer.declare_queue(&super::stage::queue_spec(&queue, &[])).await;
    let counts = counts.expect("the queue is there");
    assert_eq!((counts.messages, counts.consumers), (1000, 0));
    consumer.consume(&queue, 1, 0).await;
    let given = consumer.expect_numbers(0..1000).await;
    assert!(given.iter().all(|it| it.attempt == 0 && !it.settled));
}

/// AMQP 0-9-1 §1.7.2.1: prefetch.
pub async fn consumers_share_a_queue_within_their_windows(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let publisher = filled(stage, &queue, 0..300).await;
    let mut consumers = [stage.client().await, stage.client().await, stage.client().await];
    let mut credits = Vec::new();
    for consumer in &mut consumers {
        credits.push(consumer.consume(&queue, 1, 10).await);
    }
    let mut all = Vec::new();
    let mut shares = [0; 3];
    while all.len() < 300 {
        for ((consumer, credit), share) in consumers.iter_mut().zip(&credits).zip(&mut shares) {
            stage.settle_down().await;
            let given = consumer.recorder().take_all();
            assert!(given.len() <= 10, "more than the window was given: {}", given.len());
            *share += given.len();
            let count = u32::try_from(given.len()).unwrap_or(u32::MAX);
            if let Some(first) = given.first() {
                credit.grant(count);
                consumer.settle(1, first.tag, count, Settlement::Accept);
            }
            all.extend(given);
        }
    }
    assert_eq!(numbers(&all).len(), 300, "each message goes to one consumer");
    assert!(shares.iter().all(|share| *share >= 30), "each gets its part: {shares:?}");
    drop(publisher);
}

/// Auto-acknowledge takes turns, too.
pub async fn consumers_that_settle_nothing_share_message_by_message(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut publisher = filled(stage, &queue, 0..0).await;
    let (mut one, mut two) = (stage.client().await, stage.client().await);
    let how = Subscribe::new(Settle::OnDelivery);
    for consumer in [&mut one, &mut two] {
        consumer.subscribe_how(Source::Queue(&queue), 1, &how, 0).await;
    }
    let target = publisher.to_queue(&queue);
    publisher.confirm(&Letters::confirmed(target, 0..100)).await;
    let (first, second) = (one.expect(50).await, two.expect(50).await);
    assert!(first.iter().chain(&second).all(|it| it.settled));
    let all: Vec<_> = first.into_iter().chain(second).collect();
    assert_eq!(numbers(&all).len(), 100);
}

/// What one lane publishes to one queue stays in its order.
pub async fn one_lanes_messages_keep_their_order(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut publisher = filled(stage, &queue, 0..0).await;
    let mut consumer = stage.client().await;
    let credit = consumer.consume(&queue, 1, 7).await;
    let target = publisher.to_queue(&queue);
    for start in (0..200).step_by(20) {
        publisher.publish(&Letters::numbered(target, start..start + 20));
    }
    let mut next = 0;
    while next < 200 {
        let count = 7.min(200 - next);
        let given = consumer.expect_numbers(next..next + count).await;
        credit.grant(count);
        consumer.settle(1, given[0].tag, count, Settlement::Accept);
        next += count;
    }
}

/// A client that vanishes: its messages stand where they stood, and say that they were given before.
pub async fn what_a_lost_lane_held_comes_again_in_its_place(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let publisher = filled(stage, &queue, 0..10).await;
    let mut first = stage.client().await;
    first.consume(&queue, 1, 4).await;
    let given = first.expect_numbers(0..4).await;
    first.accept(&given[1]);
    drop(first);
    let mut second = stage.client().await;
    second.consume(&queue, 1, 0).await;
    let given = second.expect_numbers([0, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    let attempts: Vec<_> = given.iter().map(|it| it.attempt).collect();
    assert_eq!(attempts[..3], [1, 1, 1]);
    // A remote broker may have sent one more in the place of the accepted one, before the client has granted credit for it.
    let ahead = usize::from(stage.is_remote());
    assert!(attempts[3 + ahead..].iter().all(|attempt| *attempt == 0), "{attempts:?}");
    drop(publisher);
}

/// MQTT 5 §3.8.4 [MQTT-3.8.4-3], of a queue: under the same key, what it has in hand stays its own.
pub async fn a_consumer_that_is_replaced_loses_and_repeats_nothing(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let credit = client.consume(&queue, 1, 2).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, 0..6)).await;
    let mut given = client.expect_numbers(0..2).await;
    let mut how = Subscribe::new(Settle::ByConsumer);
    for (priority, next) in [(1, 2), (2, 4)] {
        how.priority = priority;
        let lent = Some(credit.clone());
        client.subscribe(&Source::Queue(&queue), key(1), &how, lent).await.expect("it is replaced");
        client.start(key(1));
        client.flush();
        client.expect_nothing().await;
        client.settle(1, given[given.len() - 2].tag, 2, Settlement::Accept);
        credit.grant(2);
        client.resume();
        given.extend(client.expect_numbers(next..next + 2).await);
    }
    let tags: Vec<_> = given.iter().map(|it| it.tag).collect();
    assert!(tags.is_sorted_by(|one, next| one < next), "no tag is used twice: {tags:?}");
    client.lose_lane().await;
    client.consume(&queue, 1, 0).await;
    let again = client.expect_numbers(4..6).await;
    assert!(again.iter().all(|it| it.attempt == 1), "the others were settled: {again:?}");
}

/// The group's queue is not left in between.
pub async fn a_group_outlives_the_replacement_of_its_only_member(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let source = Source::Group { group: "g", filter: &topic };
    let (mut publisher, mut member) = (stage.client().await, stage.client().await);
    let how = Subscribe::new(Settle::ByConsumer);
    let credit = member.subscribe_how(source, 1, &how, 1).await;
    let target = publisher.to_topic(&topic);
    publisher.confirm(&Letters::confirmed(target, 0..5)).await;
    let first = member.expect_numbers([0]).await;
    member.subscribe(&source, key(1), &how, Some(credit.clone())).await.expect("it is replaced");
    publisher.confirm(&Letters::confirmed(target, 5..7)).await;
    member.start(key(1));
    member.accept(&first[0]);
    credit.grant(1);
    credit.set_limit(10);
    member.resume();
    member.expect_numbers(1..7).await;
}

/// AMQP 0-9-1 §1.8.3.5: cancelling does not touch what was delivered.
pub async fn a_cancelled_consumers_deliveries_stay_unsettled(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let publisher = filled(stage, &queue, 0..4).await;
    let (mut first, mut second) = (stage.client().await, stage.client().await);
    first.consume(&queue, 1, 2).await;
    let given = first.expect_numbers([0, 1]).await;
    first.unsubscribe(key(1)).await.expect("a consumer is cancelled");
    second.consume(&queue, 1, 0).await;
    second.expect_numbers([2, 3]).await;
    second.expect_nothing().await;
    first.accept(&given[0]);
    first.settle(1, given[1].tag, 1, Settlement::Release { delay: 0 });
    let again = second.expect_numbers([1]).await;
    assert_eq!(again[0].attempt, 1);
    drop(publisher);
}

/// RabbitMQ's `x-max-priority`.
pub async fn higher_priorities_come_first(stage: &Stage<'_>) {
    if !stage.can(|it| it.priority_queue) {
        return;
    }
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[("x-max-priority", Value::I32(5))]).await;
    let target = client.to_queue(&queue);
    let priorities = [0, 5, 3, 9, 3, 0];
    let letters = (0..)
        .zip(priorities)
        .map(|(number, level)| Letter::numbered(target, number).confirmed().priority(level));
    client.confirm(&letters.collect()).await;
    client.consume(&queue, 1, 0).await;
    client.expect_numbers([1, 3, 2, 4, 0, 5]).await;
}

/// AMQP 0-9-1 §1.8.3.3 `exclusive`.
pub async fn an_exclusive_consumer_is_alone(stage: &Stage<'_>) {
    if !stage.can(|it| it.exclusive_consumer) {
        return;
    }
    let queue = stage.name("q");
    let publisher = filled(stage, &queue, 0..1).await;
    let (mut first, mut second) = (stage.client().await, stage.client().await);
    let alone = Subscribe { exclusive: true, ..Subscribe::new(Settle::ByConsumer) };
    first.subscribe_how(Source::Queue(&queue), 1, &alone, 0).await;
    for how in [&alone, &Subscribe::new(Settle::ByConsumer)] {
        let refused = second.subscribe(&Source::Queue(&queue), key(1), how, None).await;
        assert!(matches!(refused, Err(Refused::ExclusiveUse(_))), "{refused:?}");
    }
    first.expect_numbers([0]).await;
    drop(first);
    stage.settle_down().await;
    second.subscribe_how(Source::Queue(&queue), 1, &alone, 0).await;
    second.expect_numbers([0]).await;
    drop(publisher);
}

/// RabbitMQ's `x-single-active-consumer`.
pub async fn a_standby_consumer_takes_over(stage: &Stage<'_>) {
    if !stage.can(|it| it.exclusive_consumer) {
        return;
    }
    let queue = stage.name("q");
    let mut publisher = stage.client().await;
    publisher.queue(&queue, &[("x-single-active-consumer", Value::Bool(true))]).await;
    let (mut first, mut second) = (stage.client().await, stage.client().await);
    first.consume(&queue, 1, 0).await;
    second.consume(&queue, 1, 0).await;
    let target = publisher.to_queue(&queue);
    publisher.confirm(&Letters::confirmed(target, 0..3)).await;
    let given = first.expect_numbers(0..3).await;
    second.expect_nothing().await;
    first.accept(&given[0]);
    drop(first);
    second.expect_numbers([1, 2]).await;
}

/// A consumer that hangs does not keep its message for ever.
pub async fn a_deadline_that_passes_gives_the_message_to_another(stage: &Stage<'_>) {
    if !stage.can(|it| it.ack_timeout) {
        return;
    }
    let queue = stage.name("q");
    let publisher = filled(stage, &queue, 0..1).await;
    let (mut first, mut second) = (stage.client().await, stage.client().await);
    let how = Subscribe { ack_timeout: Some(1000), ..Subscribe::new(Settle::ByConsumer) };
    first.subscribe_how(Source::Queue(&queue), 1, &how, 1).await;
    let given = first.expect_numbers([0]).await;
    stage.pass(600).await;
    first.settle(1, given[0].tag, 1, Settlement::Extend(1000));
    second.subscribe_how(Source::Queue(&queue), 1, &how, 1).await;
    stage.pass(600).await;
    second.expect_nothing().await;
    stage.pass(600).await;
    let again = second.expect_numbers([0]).await;
    assert_eq!(again[0].attempt, 1);
    first.settle_word(1, given[0].tag, 1, Settlement::Accept, Some(1_000));
    let told = first.receipts(1_000..1_001).await;
    let late = told.iter().find(|it| it.first == 1_000).map(|it| &it.outcome);
    assert_eq!(late, Some(&Outcome::Refused(Refused::Late)), "the message is another's by now");
    second.accept(&again[0]);
    let counts = second.declare_queue(&super::stage::queue_spec(&queue, &[])).await;
    assert_eq!(counts.expect("the queue is there").messages, 0);
    drop(publisher);
}

/// Consumers are told behind what they were given.
pub async fn a_deleted_queue_ends_its_consumers(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut publisher = filled(stage, &queue, 0..5).await;
    let mut consumer = stage.client().await;
    consumer.consume(&queue, 1, 2).await;
    let given = consumer.expect_numbers([0, 1]).await;
    let gone = publisher.delete_queue(&queue, false, false).await.expect("a queue is deleted");
    assert_eq!(gone, 3, "what was ready is counted");
    assert_eq!(consumer.expect_end().await, (key(1), Ended::QueueDeleted));
    consumer.accept(&given[0]);
    consumer.settle(1, given[1].tag, 1, Settlement::Release { delay: 0 });
    consumer.expect_nothing().await;
    assert_eq!(publisher.delete_queue(&queue, false, false).await, Ok(0), "it is gone already");
}

/// AMQP 0-9-1 §1.8.3.10 `basic.get`.
pub async fn one_message_is_fetched_at_a_time(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = filled(stage, &queue, 0..3).await;
    let mut fetched = Vec::new();
    for remaining in [2, 1] {
        let one = client.fetch(&queue, key(9), false).await.expect("a queue is asked").expect("a message");
        assert_eq!(one.remaining, remaining);
        fetched.push(one);
    }
    let settled = client.fetch(&queue, key(9), true).await.expect("a queue is asked").expect("a message");
    assert_eq!(settled.message.payload(), Some(&b"2"[..]));
    assert!(client.fetch(&queue, key(9), false).await.expect("a queue is asked").is_none());
    assert!(fetched[0].tag < fetched[1].tag, "tags count up");
    client.settle(fetched[1].key.subscription, fetched[1].tag, 1, Settlement::Accept);
    client.settle(fetched[0].key.subscription, fetched[0].tag, 1, Settlement::Release { delay: 0 });
    let again = client.fetch(&queue, key(9), false).await.expect("a queue is asked").expect("a message");
    assert_eq!((again.message.payload(), again.attempt), (Some(&b"0"[..]), 1));
    let missing = client.fetch(&stage.name("none"), key(9), false).await;
    assert!(matches!(missing, Err(Refused::NotFound { .. })), "{missing:?}");
}

/// A sink above its mark is not filled further: the queue keeps the rest.
pub async fn a_congested_consumer_leaves_messages_in_the_queue(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut publisher = filled(stage, &queue, 0..5000).await;
    let mut consumer = stage.client().await;
    consumer.recorder().mark(10);
    let how = Subscribe::new(Settle::OnDelivery);
    consumer.subscribe_how(Source::Queue(&queue), 1, &how, 0).await;
    stage.settle_down().await;
    let left = publisher.declare_queue(&super::stage::queue_spec(&queue, &[])).await;
    let left = left.expect("the queue is there").messages;
    assert!(left > 1000, "the consumer was above its mark after 10, but only {left} stayed in the queue");
    let mut next = 0;
    while next < 5000 {
        let given = consumer.recorder().take_all();
        for one in given {
            assert_eq!(one.payload, next.to_string());
            next += 1;
        }
        consumer.resume();
        stage.settle_down().await;
    }
}

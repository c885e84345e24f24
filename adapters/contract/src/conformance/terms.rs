//! What a route says of its queues.

use std::num::{NonZeroU8, NonZeroU32, NonZeroU64};
use std::sync::Arc;

use crate::attribute::Attribute;
use crate::conformance::letters::{Letter, Letters};
use crate::conformance::stage::{Peer, Stage, queue_spec};
use crate::receipt::Outcome;
use crate::settlement::Settlement;
use crate::source::{Settle, Source, Subscribe};
use crate::terms::{DELAY, Deduplicate, Overflow, Priorities, Retry, Terms};
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
        Some(Priorities { highest: 9, weighted: false, from: Some(from), otherwise: 4, apart: None });
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

/// `delay`: a message is held back, as long as it says itself or as its route says; what is held back is not ready.
pub async fn a_message_is_held_back_as_long_as_it_or_its_route_says(stage: &Stage<'_>) {
    if !stage.can(|it| it.delay) {
        return;
    }
    let (mut client, work, _) = owned(stage, Terms { delay: Some(6000), ..Terms::default() }, &[]).await;
    let target = client.to_queue(&work);
    let letter = |number| Letter::numbered(target, number).confirmed();
    let letters = [
        letter(0),
        letter(1).header(DELAY, Value::I32(3000)),
        letter(2).header(DELAY, Value::I32(0)),
        letter(3).header(DELAY, Value::Text("3000".into())),
    ];
    assert_eq!(client.confirm(&letters.into_iter().collect()).await, []);
    let spec = QueueSpec { passive: true, ..QueueSpec::new(&work) };
    let counts = client.declare_queue(&spec).await.expect("the queue is there");
    assert_eq!(counts.messages, 1, "what is held back is not ready");
    client.consume(&work, 1, 0).await;
    client.expect_numbers([2]).await;
    stage.pass(1500).await;
    client.expect_nothing().await;
    stage.pass(1800).await;
    client.expect_numbers([1, 3]).await;
    client.expect_nothing().await;
    stage.pass(3000).await;
    client.expect_numbers([0]).await;
}

/// `deduplicate`: what is published again within the window is taken, and goes to nobody.
pub async fn what_is_published_again_is_taken_and_dropped(stage: &Stage<'_>) {
    if !stage.can(|it| it.deduplicate) {
        return;
    }
    let by = Attribute::Property("id".into());
    let deduplicate = Some(Deduplicate { by, window: 5000 });
    let terms = Terms { deduplicate, max_length: NonZeroU64::new(3), ..Terms::default() };
    let (mut client, work, _) = owned(stage, terms, &[]).await;
    let target = client.to_queue(&work);
    let letter = |number, id: &'static str| {
        Letter::numbered(target, number).confirmed().header("id", Value::Text(id.into()))
    };
    let none = Letter::numbered(target, 9).confirmed();
    let letters = [letter(0, "a"), letter(1, "b"), letter(2, "a"), none];
    assert_eq!(client.confirm(&letters.into_iter().collect()).await, []);
    assert_eq!(client.confirm(&[letter(3, "b")].into_iter().collect()).await, []);
    // What was refused was not published: it is taken when it comes again.
    assert_eq!(client.confirm(&[letter(4, "c")].into_iter().collect()).await.len(), 1);
    client.consume(&work, 1, 0).await;
    let given = client.expect_numbers([0, 1, 9]).await;
    client.settle(1, given[0].tag, 3, Settlement::Accept);
    assert_eq!(client.confirm(&[letter(5, "c"), letter(6, "a")].into_iter().collect()).await, []);
    client.expect_numbers([5]).await;
    client.expect_nothing().await;
    stage.pass(5500).await;
    assert_eq!(client.confirm(&[letter(7, "a")].into_iter().collect()).await, []);
    client.expect_numbers([7]).await;
    let replayed = letter(12, "a").header("x-death", Value::Array(Vec::new()));
    assert_eq!(client.confirm(&[replayed].into_iter().collect()).await, []);
    client.expect_numbers([12]).await;
    if stage.can(|it| it.transactions) {
        client.begin().await.expect("a transaction begins");
        client.publish(&[letter(8, "a"), letter(10, "d"), letter(11, "d")].into_iter().collect());
        client.commit().await.expect("it is committed");
        client.flush();
        client.expect_numbers([10]).await;
        client.expect_nothing().await;
    }
}

/// `ordering-key`: messages of one key go to one consumer at a time, in order, and move when it dies.
pub async fn messages_of_one_key_go_to_one_consumer_at_a_time(stage: &Stage<'_>) {
    if !stage.can(|it| it.ordering_key) {
        return;
    }
    let ordering_key = Some(Attribute::Property("customer".into()));
    let (mut client, work, _) = owned(stage, Terms { ordering_key, ..Terms::default() }, &[]).await;
    let target = client.to_queue(&work);
    let letter = |number, customer: &'static str| {
        Letter::numbered(target, number).confirmed().header("customer", Value::Text(customer.into()))
    };
    let (mut one, mut two) = (stage.client().await, stage.client().await);
    one.consume(&work, 1, 1).await;
    client.confirm(&[letter(0, "a")].into_iter().collect()).await;
    one.expect_numbers([0]).await;
    let credit = two.consume(&work, 1, 1).await;
    let none = Letter::numbered(target, 4).confirmed();
    let letters = [letter(1, "a"), letter(2, "a"), letter(3, "b"), none];
    client.confirm(&letters.into_iter().collect()).await;
    for number in [3, 4] {
        let given = two.expect_numbers([number]).await;
        two.expect_nothing().await;
        two.accept(&given[0]);
        credit.grant(1);
        two.resume();
    }
    two.expect_nothing().await;
    drop(one);
    for (number, attempt) in [(0, 1), (1, 0), (2, 0)] {
        let given = two.expect_numbers([number]).await;
        assert_eq!(given[0].attempt, attempt);
        two.accept(&given[0]);
        credit.grant(1);
        two.resume();
    }
}

/// Who stands for several workers is given one message of a key at a time, and nobody else another one.
pub async fn several_workers_behind_one_subscription_do_not_share_a_key(stage: &Stage<'_>) {
    if !stage.can(|it| it.ordering_key) {
        return;
    }
    let ordering_key = Some(Attribute::Property("customer".into()));
    let (mut client, work, _) = owned(stage, Terms { ordering_key, ..Terms::default() }, &[]).await;
    let target = client.to_queue(&work);
    let letter = |number, customer: &'static str| {
        Letter::numbered(target, number).confirmed().header("customer", Value::Text(customer.into()))
    };
    let letters = [letter(0, "a"), letter(1, "a"), letter(2, "b"), letter(3, "a")];
    client.confirm(&letters.into_iter().collect()).await;
    let how = Subscribe { several: true, ..Subscribe::new(Settle::ByConsumer) };
    let mut desk = stage.client().await;
    let credit = desk.subscribe_how(Source::Queue(&work), 1, &how, 4).await;
    let mut given = desk.expect_numbers([0, 2]).await;
    for number in [1, 3] {
        desk.expect_nothing().await;
        desk.accept(&given[0]);
        credit.grant(1);
        desk.resume();
        given = desk.expect_numbers([number]).await;
    }
}

/// What is given to nobody is neither counted nor waits.
pub async fn what_was_given_to_nobody_counts_for_nothing(stage: &Stage<'_>) {
    if stage.is_remote() || !stage.can(|it| it.max_deliveries) || !stage.can(|it| it.retry) {
        return;
    }
    let retry = Some(Retry { delay: 60_000, factor: 100, max: 60_000 });
    let terms = Terms { max_deliveries: NonZeroU32::new(1), retry, ..Terms::default() };
    let (mut client, work, dead) = owned(stage, terms, &[]).await;
    let target = client.to_queue(&work);
    client.confirm(&Letters::confirmed(target, [0])).await;
    client.consume(&dead, 2, 0).await;
    client.consume(&work, 1, 0).await;
    for _ in 0..3 {
        let given = client.expect_numbers([0]).await;
        assert_eq!((given[0].key.subscription, given[0].attempt), (1, 0));
        client.settle(1, given[0].tag, 1, Settlement::Undo);
    }
    let given = client.expect_numbers([0]).await;
    client.settle(1, given[0].tag, 1, NOW);
    let given = client.expect_numbers([0]).await;
    assert_eq!(given[0].key.subscription, 2, "it was given once");
}

/// `order = "weighted"`: no level starves.
pub async fn lower_levels_have_their_share(stage: &Stage<'_>) {
    if !stage.can(|it| it.weighted_order) {
        return;
    }
    let priorities = Some(Priorities { highest: 3, weighted: true, from: None, otherwise: 0, apart: None });
    let levels = [("x-max-priority", Value::I32(3))];
    let (mut client, work, _) = owned(stage, Terms { priorities, ..Terms::default() }, &levels).await;
    let target = client.to_queue(&work);
    let letters = (0..400u32).map(|number| {
        Letter::numbered(target, number).confirmed().priority((number % 4).try_into().unwrap_or(0))
    });
    assert_eq!(client.confirm(&letters.collect()).await, []);
    let credit = client.consume(&work, 1, 20).await;
    let mut shares = [0; 4];
    for _ in 0..5 {
        let given = client.expect(20).await;
        for number in given.iter().filter_map(|given| given.payload.parse::<usize>().ok()) {
            shares[number % 4] += 1;
        }
        client.settle(1, given[0].tag, 20, Settlement::Accept);
        credit.grant(20);
        client.resume();
    }
    for (share, expected) in shares.into_iter().zip([10_i32, 20, 30, 40]) {
        assert!((share - expected).abs() <= 2, "level n has a share of n + 1: {shares:?}");
    }
}

//! Copies to every subscription.

use std::collections::BTreeSet;

use crate::conformance::letters::{Letter, Letters};
use crate::conformance::stage::{Stage, key};
use crate::message::Flags;
use crate::receipt::Outcome;
use crate::source::{Settle, Source, Subscribe};

/// Publish-subscribe with three consumers.
pub async fn each_of_three_subscribers_gets_everything_in_order(stage: &Stage<'_>) {
    let topic = stage.name("room/1");
    let (mut one, mut two, mut three) = (stage.client().await, stage.client().await, stage.client().await);
    for subscriber in [&mut one, &mut two, &mut three] {
        subscriber.watch(&topic, 1).await;
    }
    let mut publisher = stage.client().await;
    let target = publisher.to_topic(&topic);
    for start in [0, 100, 200] {
        let exceptions = publisher.confirm(&Letters::confirmed(target, start..start + 100)).await;
        assert_eq!(exceptions, []);
    }
    for subscriber in [&one, &two, &three] {
        subscriber.expect_numbers(0..300).await;
    }
}

/// MQTT 5 §4.7.1.
pub async fn filters_get_what_they_match_and_nothing_else(stage: &Stage<'_>) {
    let root = stage.name("plant");
    let mut client = stage.client().await;
    let filters = ["line/+/temperature", "line/#", "line/1/temperature", "+/1/#"];
    for (number, filter) in (1..).zip(filters) {
        client.watch(&format!("{root}/{filter}"), number).await;
    }
    let topics = ["line/1/temperature", "line/2/temperature", "line", "line/1", "other/1/x/y", "other"];
    for (number, topic) in (0..).zip(topics) {
        let target = client.to_topic(&format!("{root}/{topic}"));
        client.publish(&Letters::numbered(target, [number]));
    }
    stage.settle_down().await;
    let given = client.recorder().take_all();
    for (number, expected) in (1..).zip([&["0", "1"][..], &["0", "1", "2", "3"], &["0"], &["0", "3", "4"]]) {
        let got: Vec<_> =
            given.iter().filter(|it| it.key == key(number)).map(|it| it.payload.as_str()).collect();
        assert_eq!(got, expected, "filter {}", filters[number as usize - 1]);
    }
}

/// MQTT 5 §4.7.2 [MQTT-4.7.2-1].
pub async fn leading_wildcards_spare_dollar_addresses(stage: &Stage<'_>) {
    let topic = format!("$own/{}", stage.name("x"));
    let mut client = stage.client().await;
    client.watch("#", 1).await;
    client.watch(&format!("+/{}", stage.name("x")), 2).await;
    client.watch(&topic, 3).await;
    let target = client.to_topic(&topic);
    let number = stage.number();
    client.publish(&Letters::numbered(target, [number]));
    stage.settle_down().await;
    // Whatever others publish at the same time is matched by `#`, too.
    let given = client.recorder().take_all().into_iter().filter(|it| it.payload == number.to_string());
    assert_eq!(given.map(|it| it.key).collect::<Vec<_>>(), [key(3)]);
}

/// An AMQP routing key and an MQTT topic name one address.
pub async fn both_spellings_are_one_address(stage: &Stage<'_>) {
    let name = stage.name("k");
    let mut client = stage.client().await;
    client.watch(&format!("{name}/b.c/#"), 1).await;
    let path = format!("{name}.b/c.d");
    let target = client.target(&crate::Destination::Address {
        path: path.as_bytes(),
        syntax: crate::Syntax::Key,
        more: &[],
        queues: &[],
    });
    client.publish(&Letters::numbered(target, [1]));
    client.expect_numbers([1]).await;
}

/// Picks are grouped by connection, not by subscription.
pub async fn overlapping_filters_keep_the_publishers_order(stage: &Stage<'_>) {
    let root = stage.name("r");
    let mut client = stage.client().await;
    client.watch(&format!("{root}/a"), 1).await;
    client.watch(&format!("{root}/b"), 2).await;
    let (a, b) = (client.to_topic(&format!("{root}/a")), client.to_topic(&format!("{root}/b")));
    let letters = (0..20).map(|number| Letter::numbered(if number % 3 == 0 { a } else { b }, number));
    client.publish(&letters.collect());
    client.expect_numbers(0..20).await;
}

/// MQTT 5 §3.8.3.1 [MQTT-3.8.3-3].
pub async fn no_local_keeps_a_clients_own_messages_away(stage: &Stage<'_>) {
    let topic = stage.name("chat");
    let (mut one, mut two) = (stage.client().await, stage.client().await);
    let how = Subscribe { no_local: true, ..Subscribe::new(Settle::OnDelivery) };
    one.subscribe_how(Source::Filter(&topic), 1, &how, 0).await;
    two.watch(&topic, 1).await;
    let (from_one, from_two) = (one.to_topic(&topic), two.to_topic(&topic));
    // Two lanes have no order among each other but by receipts.
    one.confirm(&Letters::confirmed(from_one, [1])).await;
    two.confirm(&Letters::confirmed(from_two, [2])).await;
    two.expect_numbers([1, 2]).await;
    one.expect_numbers([2]).await;
    one.expect_nothing().await;
}

/// The door answers first.
pub async fn nothing_is_given_before_start(stage: &Stage<'_>) {
    let (topic, queue) = (stage.name("t"), stage.name("q"));
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let to_queue = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(to_queue, [1])).await;
    let how = Subscribe::new(Settle::OnDelivery);
    client.subscribe(&Source::Queue(&queue), key(1), &how, None).await.expect("a queue is consumed");
    client.subscribe(&Source::Filter(&topic), key(2), &how, None).await.expect("a filter is watched");
    client.flush();
    client.expect_nothing().await;
    client.start(key(1));
    client.start(key(2));
    client.flush();
    client.expect_numbers([1]).await;
    let to_topic = client.to_topic(&topic);
    client.publish(&Letters::numbered(to_topic, [2]));
    client.expect_numbers([2]).await;
}

/// A target is good for ever; where it leads is found out anew.
pub async fn a_target_follows_the_topology(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let (mut publisher, mut subscriber) = (stage.client().await, stage.client().await);
    let target = publisher.to_topic(&topic);
    publisher.confirm(&Letters::confirmed(target, [0])).await;
    subscriber.watch(&topic, 1).await;
    publisher.publish(&Letters::numbered(target, [1]));
    subscriber.expect_numbers([1]).await;
    subscriber.unsubscribe(key(1)).await.expect("a subscription ends");
    stage.settle_down().await;
    publisher.confirm(&Letters::confirmed(target, [2])).await;
    subscriber.watch(&topic, 2).await;
    publisher.publish(&Letters::numbered(target, [3]));
    subscriber.expect_numbers([3]).await;
}

/// A window bounds one session and nobody else.
pub async fn what_has_no_credit_waits_in_order_and_blocks_nobody(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let (mut slow, mut quick) = (stage.client().await, stage.client().await);
    let how = Subscribe::new(Settle::AsPublished);
    let credit = slow.subscribe_how(Source::Filter(&topic), 1, &how, 3).await;
    quick.watch(&topic, 1).await;
    let target = quick.to_topic(&topic);
    for start in [0, 5] {
        quick.confirm(&Letters::confirmed(target, start..start + 5)).await;
    }
    quick.expect_numbers(0..10).await;
    let mut given = slow.expect_numbers(0..3).await;
    slow.expect_nothing().await;
    for next in (3..10).step_by(2) {
        let first = given.first().expect("something was given").clone();
        slow.settle(1, first.tag, 2, crate::Settlement::Accept);
        assert!(credit.grant(2), "the back end had run dry");
        slow.resume();
        given.drain(..2.min(given.len()));
        given.extend(slow.expect_numbers(next..(next + 2).min(10)).await);
    }
    let tags: Vec<_> = given.iter().map(|it| it.tag).collect();
    assert!(tags.is_sorted(), "tags count up: {tags:?}");
}

/// A subscription of QoS 1 gets QoS 0 messages at QoS 0.
pub async fn only_durable_messages_are_settled_as_published(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let mut client = stage.client().await;
    let how = Subscribe::new(Settle::AsPublished);
    client.subscribe_how(Source::Filter(&topic), 1, &how, 1).await;
    let target = client.to_topic(&topic);
    let letters = (0..6).map(|number| Letter::numbered(target, number));
    client.publish(
        &letters.map(|it| if it.payload == b"3" { it.flagged(Flags::DURABLE) } else { it }).collect(),
    );
    let given = client.expect_numbers(0..6).await;
    let unsettled: Vec<_> = given.iter().filter(|it| !it.settled).map(|it| it.payload.as_str()).collect();
    assert_eq!(unsettled, ["3"]);
}

/// MQTT 5 §3.3.2.3.3 [MQTT-3.3.2-5].
pub async fn an_expired_message_is_not_given(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let mut client = stage.client().await;
    let how = Subscribe::new(Settle::AsPublished);
    let credit = client.subscribe_how(Source::Filter(&topic), 1, &how, 1).await;
    let target = client.to_topic(&topic);
    let letters = [0, 1, 2].map(|number| Letter::numbered(target, number).confirmed());
    let [first, second, third] = letters;
    client.publish(&[first, second.expiring(1000), third].into_iter().collect());
    client.expect_numbers([0]).await;
    stage.pass(1500).await;
    credit.grant(1);
    client.resume();
    client.expect_numbers([2]).await;
}

/// MQTT 5 §3.10.4 [MQTT-3.10.4-2].
pub async fn a_filter_that_was_given_up_gets_nothing_more(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let mut client = stage.client().await;
    let how = Subscribe::new(Settle::AsPublished);
    let credit = client.subscribe_how(Source::Filter(&topic), 1, &how, 1).await;
    let target = client.to_topic(&topic);
    client.publish(&Letters::confirmed(target, 0..5));
    client.expect_numbers([0]).await;
    client.unsubscribe(key(1)).await.expect("a subscription ends");
    client.publish(&Letters::confirmed(target, 5..9));
    credit.grant(9);
    client.resume();
    client.expect_nothing().await;
}

/// MQTT 5 §3.8.4 [MQTT-3.8.4-3] [MQTT-3.8.4-4]: under the same key, with what waits for the window and what is unsettled.
pub async fn a_subscription_that_is_replaced_loses_and_repeats_nothing(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let (mut publisher, mut client) = (stage.client().await, stage.client().await);
    let mut how = Subscribe::new(Settle::AsPublished);
    let credit = client.subscribe_how(Source::Filter(&topic), 1, &how, 2).await;
    let target = publisher.to_topic(&topic);
    publisher.confirm(&Letters::confirmed(target, 0..6)).await;
    let mut given = client.expect_numbers(0..2).await;
    for round in 1..4 {
        let first = round * 6;
        how.no_local = round % 2 == 1;
        let lent = Some(credit.clone());
        client.subscribe(&Source::Filter(&topic), key(1), &how, lent).await.expect("it is replaced");
        publisher.confirm(&Letters::confirmed(target, first..first + 3)).await;
        client.start(key(1));
        client.flush();
        publisher.confirm(&Letters::confirmed(target, first + 3..first + 6)).await;
    }
    client.expect_nothing().await;
    for next in (2..24).step_by(2) {
        client.settle(1, given[given.len() - 2].tag, 2, crate::Settlement::Accept);
        assert!(credit.grant(2), "the back end had run dry");
        client.resume();
        given.extend(client.expect_numbers(next..next + 2).await);
    }
    let tags: Vec<_> = given.iter().map(|it| it.tag).collect();
    assert!(tags.is_sorted_by(|one, next| one < next), "no tag is used twice: {tags:?}");
    client.expect_nothing().await;
}

/// What waits keeps the terms that it was published under; what comes has the new ones.
pub async fn a_replaced_subscription_may_settle_otherwise(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let (mut publisher, mut client) = (stage.client().await, stage.client().await);
    let how = Subscribe::new(Settle::AsPublished);
    let credit = client.subscribe_how(Source::Filter(&topic), 1, &how, 1).await;
    let target = publisher.to_topic(&topic);
    publisher.confirm(&Letters::confirmed(target, 0..3)).await;
    let first = client.expect_numbers([0]).await;
    let how = Subscribe::new(Settle::OnDelivery);
    client.subscribe_how(Source::Filter(&topic), 1, &how, 0).await;
    publisher.confirm(&Letters::confirmed(target, 3..5)).await;
    let now = client.expect_numbers(3..5).await;
    assert!(now.iter().all(|given| given.settled), "nobody settles them: {now:?}");
    client.accept(&first[0]);
    credit.grant(2);
    client.resume();
    let late = client.expect_numbers(1..3).await;
    assert!(late.iter().all(|given| !given.settled), "they took credit: {late:?}");
    client.expect_nothing().await;
}

/// MQTT 5 §4.8.2.
pub async fn members_of_a_group_share_and_groups_do_not(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let filter = topic.as_str();
    let (mut one, mut two, mut other) = (stage.client().await, stage.client().await, stage.client().await);
    let how = Subscribe::new(Settle::AsPublished);
    for (peer, group) in [(&mut one, "g"), (&mut two, "g"), (&mut other, "h")] {
        peer.subscribe_how(Source::Group { group, filter }, 1, &how, 1000).await;
    }
    let target = other.to_topic(&topic);
    other.confirm(&Letters::confirmed(target, 0..100)).await;
    other.expect_numbers(0..100).await;
    let (first, second) = (one.expect_payloads(50).await, two.expect_payloads(50).await);
    let mut all: Vec<u32> = first.iter().chain(&second).map(|it| it.parse().unwrap_or_default()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>(), "each message goes to exactly one member");
}

/// A group is there as long as it has members.
pub async fn a_group_goes_with_its_last_member(stage: &Stage<'_>) {
    let topic = stage.name("t");
    let filter = topic.as_str();
    let how = Subscribe::new(Settle::AsPublished);
    let (mut publisher, mut member) = (stage.client().await, stage.client().await);
    member.subscribe_how(Source::Group { group: "g", filter }, 1, &how, 1).await;
    let target = publisher.to_topic(&topic);
    assert_eq!(publisher.confirm(&Letters::confirmed(target, 0..5)).await, []);
    drop(member);
    stage.settle_down().await;
    assert_eq!(publisher.confirm(&Letters::confirmed(target, [9])).await, [(0, Outcome::Unroutable)]);
    let mut member = stage.client().await;
    member.subscribe_how(Source::Group { group: "g", filter }, 1, &how, 0).await;
    member.expect_nothing().await;
}

/// AMQP 0-9-1 §1.8.3.3, MQTT 5 §3.4.2.1 reason 0x10.
pub async fn a_message_that_nobody_takes_is_unroutable(stage: &Stage<'_>) {
    let mut client = stage.client().await;
    let (nowhere, queue) = (stage.name("nowhere"), stage.name("q"));
    client.queue(&queue, &[]).await;
    let (lost, kept) = (client.to_topic(&nowhere), client.to_queue(&queue));
    let letters: Letters = [
        Letter::numbered(kept, 0).confirmed(),
        Letter::numbered(lost, 1).confirmed(),
        Letter::numbered(lost, 2),
        Letter::numbered(lost, 3).flagged(Flags::MANDATORY),
        Letter::numbered(kept, 4).confirmed(),
    ]
    .into_iter()
    .collect();
    let told = client.confirm(&letters).await;
    let unroutable: BTreeSet<u32> = told.iter().map(|(place, _)| *place).collect();
    assert!(told.iter().all(|(_, outcome)| *outcome == Outcome::Unroutable), "{told:?}");
    if unroutable.contains(&3) {
        assert_eq!(unroutable, BTreeSet::from([1, 3]), "what publish itself told");
    } else {
        // Who asks a broker knows it later, and gives back what has to be given back.
        assert_eq!(unroutable, BTreeSet::from([1]));
        let message = client.expect_return().await;
        assert_eq!(message.payload(), Some(&b"3"[..]));
    }
    let missing = stage.name("no-queue");
    let target = client.to_queue(&missing);
    assert_eq!(client.confirm(&Letters::confirmed(target, [5])).await, [(0, Outcome::Unroutable)]);
}

//! What clients do that they should not, and what happens at the same time.

#![allow(clippy::expect_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linkspan_contract::conformance::Fixture;
use linkspan_contract::conformance::clocks::PausedClock;
use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::conformance::stage::{Peer, Stage, key, queue_spec};
use linkspan_contract::topology::{Binding, BindingEnd};
use linkspan_contract::{
    Attribute, Backend, ExchangeKind, ExchangeSpec, QueueSpec, Refused, Settle, Settlement, Source,
    Subscribe, Terms, Value,
};
use linkspan_embedded::{Embedded, EmbeddedOptions};

/// A back end whose shared subscriptions are full soon.
struct Fresh;

#[async_trait]
impl Fixture for Fresh {
    async fn backend(&self) -> Arc<dyn Backend> {
        let options = EmbeddedOptions { queue_limit: 10_000, ..EmbeddedOptions::default() };
        Embedded::open("local", options, Arc::new(PausedClock::new()))
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(10)
    }
}

async fn ready(peer: &mut Peer<'_>, queue: &str) -> u64 {
    peer.declare_queue(&queue_spec(queue, &[])).await.expect("the queue is there").messages
}

#[tokio::test(start_paused = true)]
async fn settling_twice_for_a_consumer_that_is_gone_does_not_settle_what_was_fetched() {
    let stage = Stage::new(&Fresh, "late").await;
    let mut client = stage.client().await;
    client.queue("q", &[]).await;
    let target = client.to_queue("q");
    client.confirm(&Letters::confirmed(target, 0..2)).await;
    client.consume("q", 1, 1).await;
    let given = client.expect_numbers([0]).await;
    client.accept(&given[0]);
    client.unsubscribe(key(1)).await.expect("a consumer is cancelled");
    let fetched = client.fetch("q", key(9), false).await.expect("a queue is asked").expect("a message");
    assert_eq!(fetched.tag, given[0].tag, "two that have to be told apart");
    client.accept(&given[0]);
    client.lose_lane().await;
    assert_eq!(ready(&mut client, "q").await, 1, "what was fetched comes back with its lane");
}

#[tokio::test(start_paused = true)]
async fn a_long_chain_of_auto_delete_exchanges_goes_at_once() {
    const LINKS: u32 = 20_000;
    let stage = Stage::new(&Fresh, "chain").await;
    let mut client = stage.client().await;
    let names: Vec<String> = (0..LINKS).map(|link| format!("e{link}")).collect();
    for name in &names {
        let spec = ExchangeSpec {
            name,
            kind: ExchangeKind::Fanout,
            passive: false,
            durable: false,
            auto_delete: true,
            internal: false,
            arguments: &[],
        };
        client.declare_exchange(&spec).await.expect("an exchange is declared");
    }
    for pair in names.windows(2) {
        let to = BindingEnd::Exchange(&pair[1]);
        let binding = Binding { source: &pair[0], to, key: b"", arguments: &[] };
        client.bind(&binding).await.expect("an exchange is bound");
    }
    client.delete_exchange(&names[names.len() - 1], false).await.expect("an exchange is deleted");
    let target = client.to_exchange(&names[0], "");
    assert_eq!(client.publish(&Letters::confirmed(target, [1])).taken, 0, "the first went with the last");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_without_a_transaction_begins_none() {
    let stage = Stage::new(&Fresh, "rollback").await;
    let mut client = stage.client().await;
    client.queue("q", &[]).await;
    assert!(client.rollback().await.is_err());
    let target = client.to_queue("q");
    client.publish(&Letters::confirmed(target, [1]));
    assert_eq!(ready(&mut client, "q").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_shared_subscription_does_not_refuse_what_others_get() {
    let stage = Stage::new(&Fresh, "group").await;
    let (mut publisher, mut hung, mut other) =
        (stage.client().await, stage.client().await, stage.client().await);
    let how = Subscribe::new(Settle::AsPublished);
    hung.subscribe_how(Source::Group { group: "g", filter: "t" }, 1, &how, 1).await;
    other.watch("t", 1).await;
    let target = publisher.to_topic("t");
    assert_eq!(publisher.confirm(&Letters::confirmed(target, 0..1000)).await, []);
    other.expect_numbers(0..1000).await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_expires_is_spared_when_a_consumer_comes_in_time() {
    let stage = Stage::new(&Fresh, "expires").await;
    let mut client = stage.client().await;
    client.queue("q", &[("x-expires", Value::I32(1000)), ("x-message-ttl", Value::I32(700))]).await;
    for _ in 0..5 {
        stage.pass(900).await;
        assert!(client.fetch("q", key(9), true).await.expect("the queue is in use").is_none());
    }
    client.consume("q", 1, 1).await;
    stage.pass(5000).await;
    client.settle(1, 1, 1, Settlement::Accept);
    client.unsubscribe(key(1)).await.expect("a consumer is cancelled");
    stage.pass(1001).await;
    assert!(client.fetch("q", key(9), true).await.is_err(), "nobody used it for a second");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_used_again_still_settles_what_it_was_given_before() {
    let stage = Stage::new(&Fresh, "again").await;
    let mut client = stage.client().await;
    for queue in ["q", "other"] {
        client.queue(queue, &[]).await;
    }
    let (q, other) = (client.to_queue("q"), client.to_queue("other"));
    client.confirm(&Letters::confirmed(q, 0..4)).await;
    client.confirm(&Letters::confirmed(other, 4..6)).await;
    let mut all = Vec::new();
    for (queue, numbers) in [("q", 0..2), ("q", 2..4), ("other", 4..6)] {
        client.consume(queue, 1, 2).await;
        all.extend(client.expect_numbers(numbers).await);
        client.unsubscribe(key(1)).await.expect("a consumer is cancelled");
    }
    assert!(all.is_sorted_by(|one, next| one.tag < next.tag), "each tag says whose it is");
    client.settle(1, all[1].tag, 2, Settlement::Accept);
    client.accept(&all[4]);
    client.lose_lane().await;
    client.consume("q", 1, 9).await;
    client.consume("other", 2, 9).await;
    client.expect_numbers([0, 3, 5]).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_a_full_queue_would_refuse_does_nothing_at_all() {
    let stage = Stage::new(&Fresh, "full-commit").await;
    let mut client = stage.client().await;
    let overflow = ("x-overflow", Value::Text("reject-publish".into()));
    client.queue("full", &[("x-max-length", Value::I32(2)), overflow]).await;
    client.queue("free", &[]).await;
    let (full, free) = (client.to_queue("full"), client.to_queue("free"));
    client.confirm(&Letters::confirmed(free, [0])).await;
    client.consume("free", 1, 1).await;
    let given = client.expect_numbers([0]).await;
    for (count, commits) in [(3, false), (2, true)] {
        client.begin().await.expect("it is done");
        client.publish(&Letters::numbered(free, [1]));
        client.publish(&Letters::numbered(full, 0..count));
        client.settle(1, given[0].tag, 1, Settlement::Accept);
        let committed = client.commit().await;
        assert_eq!(committed.is_ok(), commits, "{committed:?}");
        let mut counts = Vec::new();
        for name in ["full", "free"] {
            let passive = QueueSpec { passive: true, ..queue_spec(name, &[]) };
            let it = client.declare_queue(&passive).await.expect("it is done");
            counts.push((it.messages, it.unsettled));
        }
        let expected = if commits { [(2, Some(0)), (1, Some(0))] } else { [(0, Some(0)), (0, Some(1))] };
        assert_eq!(counts, expected);
        if let Err(why) = committed {
            assert!(matches!(&why, Refused::Full(text) if text.contains("'full'")), "{why:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_others_of_its_key_goes_on_when_who_had_them_consumes_no_more() {
    let stage = Stage::new(&Fresh, "keyed").await;
    let mut one = stage.client().await;
    let terms = Terms { ordering_key: Some(Attribute::Property("key".into())), ..Terms::default() };
    let spec = QueueSpec { terms: Some(&Arc::new(terms)), ..queue_spec("q", &[]) };
    one.declare_queue(&spec).await.expect("a queue is declared");
    let target = one.to_queue("q");
    let letter = |number| Letter::numbered(target, number).confirmed().header("key", Value::I64(1));
    one.consume("q", 1, 1).await;
    assert!(one.confirm(&Letters::from_iter([letter(1)])).await.is_empty());
    let given = one.expect_numbers([1]).await;
    one.unsubscribe(key(1)).await.expect("a consumer is cancelled");
    let mut other = stage.client().await;
    other.consume("q", 1, 0).await;
    assert!(one.confirm(&Letters::from_iter([letter(2)])).await.is_empty());
    other.expect_nothing().await;
    given.iter().for_each(|given| one.accept(given));
    other.expect_numbers([2]).await;
    drop((one, other));
    stage.close().await;
}

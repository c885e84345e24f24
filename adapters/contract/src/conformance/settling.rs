//! What becomes of a delivery.

use crate::conformance::letters::{Letter, Letters};
use crate::conformance::stage::{Peer, Stage, queue_spec};
use crate::receipt::Outcome;
use crate::refusal::Refused;
use crate::settlement::Settlement;
use crate::value::Value;

const NOW: Settlement = Settlement::Release { delay: 0 };

/// A queue whose dead letters go to a second one, and the second one's name.
async fn with_dead_letters<'s>(
    stage: &'s Stage<'_>,
    more: &[(&'static str, Value<'static>)],
) -> (Peer<'s>, String, String) {
    let (work, dead) = (stage.name("work"), stage.name("dead"));
    let mut client = stage.client().await;
    client.queue(&dead, &[]).await;
    let mut arguments = vec![
        ("x-dead-letter-exchange", Value::Text("".into())),
        ("x-dead-letter-routing-key", Value::Text(dead.clone().into())),
    ];
    arguments.extend_from_slice(more);
    client.queue(&work, &arguments).await;
    (client, work, dead)
}

async fn ready(client: &mut Peer<'_>, queue: &str) -> u64 {
    let counts = client.declare_queue(&queue_spec(queue, &[])).await;
    counts.expect("the queue is there").messages
}

/// Tags may be settled in any order; what is not there is nobody's error here.
pub async fn runs_settle_in_any_order_and_unknown_ones_are_ignored(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, 0..10)).await;
    client.consume(&queue, 1, 0).await;
    let given = client.expect_numbers(0..10).await;
    client.settle(1, given[7].tag, 3, Settlement::Accept);
    client.settle(1, given[2].tag, 2, Settlement::Accept);
    client.settle(1, given[2].tag, 2, Settlement::Accept);
    client.settle(1, 1_000_000, 5, NOW);
    client.settle(77, 1, 1, NOW);
    client.lose_lane().await;
    client.consume(&queue, 2, 0).await;
    client.expect_numbers([0, 1, 4, 5, 6]).await;
}

/// Given back, at once or after a delay, in its place.
pub async fn a_released_message_comes_again_at_once_or_later(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, 0..4)).await;
    let credit = client.consume(&queue, 1, 2).await;
    let given = client.expect_numbers([0, 1]).await;
    client.settle(1, given[0].tag, 1, Settlement::Release { delay: 1000 });
    client.settle(1, given[1].tag, 1, NOW);
    credit.grant(2);
    client.resume();
    let again = client.expect_numbers([1, 2]).await;
    assert_eq!((again[0].attempt, again[1].attempt), (1, 0));
    stage.pass(1100).await;
    credit.grant(2);
    client.settle(1, again[0].tag, 2, Settlement::Accept);
    client.expect_numbers([0, 3]).await;
}

/// What never left Linkspan is as if it had not been given out, but for what a broker may count.
pub async fn what_was_given_to_nobody_comes_again_in_its_place(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, 0..4)).await;
    let credit = client.consume(&queue, 1, 3).await;
    let given = client.expect_numbers([0, 1, 2]).await;
    client.settle_word(1, given[1].tag, 2, Settlement::Undo, Some(1_000));
    client.receipts(1_000..1_001).await;
    credit.grant(2);
    client.resume();
    let again = client.expect_numbers([1, 2]).await;
    if !stage.is_remote() {
        assert_eq!((again[0].attempt, again[1].attempt), (0, 0));
    }
    client.settle(1, given[0].tag, 1, Settlement::Accept);
    client.settle(1, again[0].tag, 2, Settlement::Accept);
    credit.grant(3);
    client.resume();
    client.expect_numbers([3]).await;
}

/// RabbitMQ's `x-dead-letter-exchange`.
pub async fn a_rejected_message_goes_where_dead_letters_go(stage: &Stage<'_>) {
    if !stage.can(|it| it.dead_letter) {
        return;
    }
    let (mut client, work, dead) = with_dead_letters(stage, &[]).await;
    let target = client.to_queue(&work);
    client.confirm(&Letters::confirmed(target, 0..3)).await;
    client.consume(&work, 1, 0).await;
    let given = client.expect_numbers(0..3).await;
    client.settle(1, given[1].tag, 1, Settlement::Reject(None));
    client.consume(&dead, 2, 0).await;
    let given = client.expect_numbers([1]).await;
    assert_eq!(given[0].attempt, 0, "it is a new message there");
}

/// RabbitMQ's `x-death`.
pub async fn a_dead_letter_tells_its_history(stage: &Stage<'_>) {
    if !stage.can(|it| it.dead_letter) {
        return;
    }
    let (mut client, work, dead) = with_dead_letters(stage, &[]).await;
    let target = client.to_queue(&work);
    let letter = Letter::numbered(target, 1).confirmed().header("mine", Value::I32(7));
    client.confirm(&[letter].into_iter().collect()).await;
    client.consume(&work, 1, 0).await;
    let given = client.expect(1).await;
    client.settle(1, given[0].tag, 1, Settlement::Reject(None));
    client.consume(&dead, 2, 0).await;
    let given = client.expect(1).await;
    let properties = &given[0].properties;
    assert_eq!(properties.header("mine"), Some(&Value::I32(7)), "its own headers stay");
    assert_eq!(properties.header("x-first-death-queue"), Some(&Value::Text(work.clone().into())));
    assert_eq!(properties.header("x-first-death-reason"), Some(&Value::Text("rejected".into())));
    let Some(Value::Array(deaths)) = properties.header("x-death") else { panic!("x-death is a list") };
    let [Value::Table(death)] = &deaths[..] else { panic!("one death: {deaths:?}") };
    let field = |name: &str| death.iter().find(|(field, _)| field == name).map(|(_, value)| value);
    assert_eq!(field("queue"), Some(&Value::Text(work.into())));
    assert_eq!(field("reason"), Some(&Value::Text("rejected".into())));
    assert_eq!(field("count"), Some(&Value::I64(1)));
}

/// RabbitMQ's `x-message-ttl` and `expiration`.
pub async fn an_expired_message_goes_where_dead_letters_go(stage: &Stage<'_>) {
    if !stage.can(|it| it.dead_letter) || !stage.can(|it| it.expiry) {
        return;
    }
    let (mut client, work, dead) = with_dead_letters(stage, &[("x-message-ttl", Value::I32(5000))]).await;
    let target = client.to_queue(&work);
    let letters =
        [Letter::numbered(target, 0).confirmed().expiring(1000), Letter::numbered(target, 1).confirmed()];
    client.confirm(&letters.into_iter().collect()).await;
    client.consume(&dead, 1, 0).await;
    stage.pass(1500).await;
    let given = client.expect_numbers([0]).await;
    assert_eq!(given[0].properties.expiration, None, "it does not expire again");
    client.expect_nothing().await;
    stage.pass(5000).await;
    client.expect_numbers([1]).await;
    assert_eq!(ready(&mut client, &dead).await, 0);
}

/// A message that nobody can work does not go round for ever.
pub async fn a_message_that_comes_back_too_often_is_dead(stage: &Stage<'_>) {
    if !stage.can(|it| it.dead_letter) {
        return;
    }
    let limit = [("linkspan-delivery-limit", Value::I32(2))];
    let (mut client, work, dead) = with_dead_letters(stage, &limit).await;
    let target = client.to_queue(&work);
    client.confirm(&Letters::confirmed(target, [0])).await;
    client.consume(&work, 1, 0).await;
    for attempt in 0..3 {
        let given = client.expect_numbers([0]).await;
        assert_eq!(given[0].attempt, attempt);
        client.settle(1, given[0].tag, 1, NOW);
    }
    client.expect_nothing().await;
    client.consume(&dead, 2, 0).await;
    client.expect_numbers([0]).await;
}

/// AMQP 0-9-1 §1.8.3.16 `basic.recover`.
pub async fn recovered_deliveries_come_again(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, 0..3)).await;
    let credit = client.consume(&queue, 1, 3).await;
    let given = client.expect_numbers(0..3).await;
    client.accept(&given[0]);
    credit.grant(3);
    client.recover(true).await.expect("recover is carried out");
    client.resume();
    let again = client.expect_numbers([1, 2]).await;
    assert!(again.iter().all(|it| it.attempt == 1));
    client.settle(1, given[1].tag, 2, Settlement::Accept);
    client.lose_lane().await;
    client.consume(&queue, 2, 0).await;
    client.expect_numbers([1, 2]).await;
}

/// Who asks for a word gets one; a late settlement is told as such.
pub async fn a_word_is_told_when_the_settlement_is_safe(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    client.confirm(&Letters::confirmed(target, [0])).await;
    client.consume(&queue, 1, 0).await;
    let given = client.expect_numbers([0]).await;
    client.settle_word(1, given[0].tag, 1, Settlement::Accept, Some(1_000));
    client.settle_word(1, given[0].tag, 1, Settlement::Accept, Some(1_001));
    let told = client.receipts(1_000..1_002).await;
    let of = |seq| told.iter().find(|it| it.first == seq).map(|it| &it.outcome);
    assert_eq!(of(1_000), Some(&Outcome::Accepted));
    assert_eq!(of(1_001), Some(&Outcome::Refused(Refused::Late)));
    client.settle_word(77, 1, 1, Settlement::Accept, Some(1_002));
    let told = client.receipts(1_002..1_003).await;
    let of_nobody = told.iter().find(|it| it.first == 1_002).map(|it| &it.outcome);
    assert_eq!(of_nobody, Some(&Outcome::Refused(Refused::Late)), "what never was is told so, too");
}

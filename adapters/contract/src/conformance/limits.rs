//! Bounds, and who is held at them.

use std::task::{Context, Poll, Waker};

use crate::conformance::letters::Letters;
use crate::conformance::stage::{Stage, queue_spec};
use crate::receipt::Outcome;
use crate::refusal::Refused;
use crate::value::Value;

/// RabbitMQ's `x-max-length`.
pub async fn a_full_queue_drops_its_head(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    client.queue(&queue, &[("x-max-length", Value::I32(3))]).await;
    let target = client.to_queue(&queue);
    assert_eq!(client.confirm(&Letters::confirmed(target, 0..10)).await, []);
    client.consume(&queue, 1, 0).await;
    client.expect_numbers(7..10).await;
}

/// RabbitMQ's `x-overflow`: `reject-publish`.
pub async fn a_full_queue_refuses_what_comes(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut client = stage.client().await;
    let overflow = ("x-overflow", Value::Text("reject-publish".into()));
    client.queue(&queue, &[("x-max-length", Value::I32(3)), overflow]).await;
    let target = client.to_queue(&queue);
    let refused = client.confirm(&Letters::confirmed(target, 0..5)).await;
    let places: Vec<_> = refused.iter().map(|(place, _)| *place).collect();
    assert_eq!(places, [3, 4]);
    assert!(refused.iter().all(|(_, why)| matches!(why, Outcome::Refused(Refused::Full(_)))), "{refused:?}");
    client.consume(&queue, 1, 0).await;
    client.expect_numbers(0..3).await;
}

/// A publisher that is faster than a consumer reads waits for it.
pub async fn publishers_are_held_above_a_sinks_mark(stage: &Stage<'_>) {
    let (queue, topic) = (stage.name("q"), stage.name("t"));
    let holds = stage.can(|it| it.holds_publishers);
    for to_queue in [false, true].into_iter().filter(|to_queue| *to_queue || holds) {
        let (mut publisher, mut consumer) = (stage.client().await, stage.client().await);
        consumer.recorder().mark(10);
        let target = if to_queue {
            publisher.queue(&queue, &[]).await;
            let how = crate::Subscribe::new(crate::Settle::OnDelivery);
            consumer.subscribe_how(crate::Source::Queue(&queue), 1, &how, 0).await;
            publisher.to_queue(&queue)
        } else {
            consumer.watch(&topic, 1).await;
            publisher.to_topic(&topic)
        };
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(publisher.poll_ready(&mut cx), Poll::Ready(Ok(()))), "nothing holds it yet");
        let published = publisher.publish(&Letters::numbered(target, 0..20));
        stage.settle_down().await;
        if stage.is_remote() {
            // It comes as the consumer takes it.
            for number in 0..20 {
                consumer.expect_numbers([number]).await;
            }
            publisher.publish(&Letters::numbered(target, [20]));
            consumer.expect_numbers([20]).await;
            continue;
        }
        if published.congested {
            assert!(publisher.poll_ready(&mut cx).is_pending(), "to a queue: {to_queue}");
        }
        assert!(published.congested, "to a queue: {to_queue}");
        consumer.expect_numbers(0..20).await;
        assert!(matches!(publisher.poll_ready(&mut cx), Poll::Ready(Ok(()))), "the sink has drained");
        consumer.resume();
        publisher.publish(&Letters::numbered(target, [20]));
        consumer.expect_numbers([20]).await;
    }
    let mut client = stage.client().await;
    let counts = client.declare_queue(&queue_spec(&queue, &[])).await.expect("the queue is there");
    assert_eq!(counts.messages, 0);
}

//! Clients that outlive their sockets, and sockets that are gone.

use std::sync::Arc;

use crate::conformance::letters::Letters;
use crate::conformance::stage::{Stage, key};
use crate::credit::Credit;
use crate::source::{Settle, Source, Subscribe};

/// MQTT 5 §4.4 [MQTT-4.4.0-1]: the same messages, in order, under the same tags.
pub async fn a_session_gets_again_what_it_had_under_the_same_tags(stage: &Stage<'_>) {
    let (topic, queue) = (stage.name("t"), stage.name("q"));
    let mut publisher = stage.client().await;
    publisher.queue(&queue, &[]).await;
    let mut session = stage.client_that_keeps(60).await;
    let how = Subscribe::new(Settle::AsPublished);
    session.subscribe_how(Source::Filter(&topic), 1, &how, 10).await;
    session.subscribe_how(Source::Queue(&queue), 2, &how, 10).await;
    let (to_topic, to_queue) = (publisher.to_topic(&topic), publisher.to_queue(&queue));
    publisher.confirm(&Letters::confirmed(to_topic, 0..3)).await;
    let mut before = session.expect_numbers(0..3).await;
    publisher.confirm(&Letters::confirmed(to_queue, 3..6)).await;
    before.extend(session.expect_numbers(3..6).await);
    session.accept(&before[1]);
    session.accept(&before[4]);
    session.recorder().close();
    session.attach_another();
    session.recover(false).await.expect("a session is taken up again");
    session.flush();
    let again = session.expect_numbers([0, 2, 3, 5]).await;
    for given in &again {
        let same = before.iter().find(|it| it.payload == given.payload).expect("it was given before");
        assert_eq!((given.key, given.tag), (same.key, same.tag));
        assert!(given.attempt > 0, "it is a duplicate");
    }
}

/// One window over several subscriptions starves none of them.
pub async fn subscriptions_that_share_a_window_take_turns(stage: &Stage<'_>) {
    let (topic, queue) = (stage.name("t"), stage.name("q"));
    let mut publisher = stage.client().await;
    publisher.queue(&queue, &[]).await;
    let mut client = stage.client().await;
    let how = Subscribe::new(Settle::AsPublished);
    let credit = Arc::new(Credit::new(2));
    for (number, source) in [(1, Source::Filter(&topic)), (2, Source::Queue(&queue))] {
        client
            .subscribe(&source, key(number), &how, Some(credit.clone()))
            .await
            .expect("a subscription is made");
        client.start(key(number));
    }
    let (to_topic, to_queue) = (publisher.to_topic(&topic), publisher.to_queue(&queue));
    publisher.confirm(&Letters::confirmed(to_topic, 0..100)).await;
    publisher.confirm(&Letters::confirmed(to_queue, 100..200)).await;
    let mut from_queue = 0;
    for _ in 0..20 {
        for given in client.expect(2).await {
            from_queue += u32::from(given.key == key(2));
            client.accept(&given);
        }
        credit.grant(2);
        client.resume();
        if stage.is_remote() {
            // What was accepted is replaced from afar.
            stage.pass(20).await;
        }
    }
    assert!((5..35).contains(&from_queue), "of 40 deliveries {from_queue} came from the queue");
}

/// A sink that says closed has taken nothing.
pub async fn a_closed_sink_gets_nothing(stage: &Stage<'_>) {
    let queue = stage.name("q");
    let mut publisher = stage.client().await;
    publisher.queue(&queue, &[]).await;
    let (mut gone, mut other) = (stage.client().await, stage.client().await);
    let how = Subscribe::new(Settle::OnDelivery);
    gone.subscribe_how(Source::Queue(&queue), 1, &how, 0).await;
    gone.recorder().close();
    let target = publisher.to_queue(&queue);
    publisher.confirm(&Letters::confirmed(target, 0..3)).await;
    other.subscribe_how(Source::Queue(&queue), 1, &how, 0).await;
    other.expect_numbers(0..3).await;
    publisher.confirm(&Letters::confirmed(target, 3..6)).await;
    other.expect_numbers(3..6).await;
}

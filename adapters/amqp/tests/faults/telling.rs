//! What becomes of a message is told of that message and no other.

use std::task::{Context, Poll, Waker};

use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::conformance::stage::Stage;
use linkspan_contract::{Flags, LaneEvent, Outcome, Refused, Value};
use linkspan_integration_tests::{RabbitMq, soon};

use super::Linked;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returned_and_refused_messages_are_told_apart_under_load() {
    const COUNT: u32 = 5000;
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "apart").await;
    let (queue, full) = (stage.name("q"), stage.name("full"));
    let mut client = stage.client().await;
    client.queue(&queue, &[]).await;
    let overflow = ("x-overflow", Value::Text("reject-publish".into()));
    client.queue(&full, &[("x-max-length", Value::I32(1)), overflow]).await;
    let (kept, refused) = (client.to_queue(&queue), client.to_queue(&full));
    let lost = client.to_queue(&stage.name("nowhere"));
    assert_eq!(client.confirm(&Letters::confirmed(refused, [0])).await, [], "one has room");
    let kind = |number: u32| match number % 33 {
        7 => Outcome::Unroutable,
        20 => Outcome::Refused(Refused::Full(String::new())),
        _ => Outcome::Accepted,
    };
    let letters: Letters = (0..COUNT)
        .map(|number| match kind(number) {
            Outcome::Unroutable => Letter::numbered(lost, number).confirmed().flagged(Flags::MANDATORY),
            Outcome::Accepted => Letter::numbered(kept, number).confirmed(),
            _ => Letter::numbered(refused, number).confirmed(),
        })
        .collect();
    let told = client.confirm(&letters).await;
    let mut wrong = Vec::new();
    let mut outcomes = vec![Outcome::Accepted; COUNT as usize];
    for (place, outcome) in told {
        outcomes[place as usize] = outcome;
    }
    for (number, outcome) in (0..).zip(&outcomes) {
        if std::mem::discriminant(outcome) != std::mem::discriminant(&kind(number)) {
            wrong.push((number, outcome.clone()));
        }
    }
    assert!(wrong.is_empty(), "{} are told wrongly, such as {:?}", wrong.len(), wrong.first());
    let returned: Vec<u32> = client
        .events()
        .iter()
        .filter_map(|event| match event {
            LaneEvent::Returned { message, code: 312, .. } => {
                std::str::from_utf8(message.payload()?).ok()?.parse().ok()
            }
            _ => None,
        })
        .collect();
    assert_eq!(returned, (0..COUNT).filter(|it| it % 33 == 7).collect::<Vec<_>>());
    for queue in [&queue, &full] {
        client.delete_queue(queue, false, false).await.expect("the queue is deleted");
    }
    stage.close().await;
}

async fn until(mut happened: impl FnMut() -> bool) {
    while !happened() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_takes_nothing_holds_publishers_and_says_so() {
    let broker = RabbitMq::own().await;
    let linked = Linked::to(&broker, |_| {}).await;
    let stage = Stage::new(&linked, "blocked").await;
    let mut client = stage.client().await;
    let queue = stage.name("q");
    client.queue(&queue, &[]).await;
    let target = client.to_queue(&queue);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(client.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    // The broker says so to who publishes: connection.blocked and connection.unblocked, RabbitMQ's extension.
    broker.ctl("set_vm_memory_high_watermark 0").await;
    client.publish(&Letters::confirmed(target, [1]));
    soon("publishers are held", until(|| client.poll_ready(&mut cx).is_pending())).await;
    broker.ctl("set_vm_memory_high_watermark 0.9").await;
    soon("publishers are let go", until(|| client.poll_ready(&mut cx).is_ready())).await;
    let events = client.events();
    let [LaneEvent::Blocked(reason), LaneEvent::Unblocked] = &events[..] else {
        panic!("blocked, then not: {events:?}")
    };
    assert_eq!(&**reason, "low on memory");
    stage.close().await;
}

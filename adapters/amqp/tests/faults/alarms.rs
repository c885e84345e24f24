//! The broker has an alarm, and takes nothing that is published.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use linkspan_contract::conformance::letters::Letters;
use linkspan_contract::conformance::stage::{Stage, key, queue_spec};
use linkspan_contract::{QueueSpec, Retry, Settle, Settlement, Source, Subscribe, Terms};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::{RabbitMq, soon};
use tokio::time::sleep;

use super::Linked;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_goes_during_an_alarm_has_its_acknowledgements_read() {
    let broker = RabbitMq::own().await;
    let linked = Linked::to(&broker, |_| {}).await;
    let stage = Stage::new(&linked, "alarm").await;
    let jobs = stage.name("jobs");
    let (mut client, mut publisher) = (stage.client().await, stage.client().await);
    client.queue(&jobs, &[]).await;
    let target = publisher.to_queue(&jobs);
    publisher.confirm(&Letters::confirmed(target, 0..10)).await;
    // There is room for more: it may be on its way when the consumer goes.
    client.consume(&jobs, 1, 20).await;
    let given = client.expect_numbers(0..10).await;
    broker.ctl("set_vm_memory_high_watermark 0").await;
    publisher.publish(&Letters::numbered(target, [10]));
    let mut cx = Context::from_waker(Waker::noop());
    let held = async {
        while publisher.poll_ready(&mut cx).is_ready() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("publishers are held", held).await;
    soon("a subscription ends", client.unsubscribe(key(1))).await.expect("nothing hinders it");
    client.settle(1, given[0].tag, 10, Settlement::Accept);
    // What was not read would come back now.
    sleep(Duration::from_millis(500)).await;
    linked.cable.cut().await;
    let direct = Amqp::connect(broker.address()).await;
    sleep(Duration::from_secs(1)).await;
    let left = direct.drain(&jobs).await;
    assert!(left.iter().all(|it| it == "10"), "the ten were accepted: {left:?}");
    broker.ctl("set_vm_memory_high_watermark 0.9").await;
    linked.cable.heal().await;
    drop((client, publisher));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_exclusive_consumer_has_in_hand_stays_its_own_when_its_window_grows_during_an_alarm() {
    let broker = RabbitMq::own().await;
    let linked = Linked::to(&broker, |_| {}).await;
    let stage = Stage::new(&linked, "alone").await;
    let jobs = stage.name("jobs");
    let (mut client, mut publisher) = (stage.client().await, stage.client().await);
    let retry = Some(Retry { delay: 1, factor: 100, max: 1 });
    let terms = Arc::new(Terms { retry, ..Terms::default() });
    let spec = QueueSpec { terms: Some(&terms), ..queue_spec(&jobs, &[]) };
    client.declare_queue(&spec).await.expect("a queue is declared");
    let target = publisher.to_queue(&jobs);
    publisher.confirm(&Letters::confirmed(target, 0..400)).await;
    let how = Subscribe { exclusive: true, ..Subscribe::new(Settle::ByConsumer) };
    client.subscribe_how(Source::Queue(&jobs), 1, &how, 2).await;
    let given = client.expect_numbers(0..2).await;
    broker.ctl("set_vm_memory_high_watermark 0").await;
    publisher.publish(&Letters::numbered(target, [400]));
    let mut cx = Context::from_waker(Waker::noop());
    let held = async {
        while publisher.poll_ready(&mut cx).is_ready() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("publishers are held", held).await;
    client.subscribe_how(Source::Queue(&jobs), 1, &how, 300).await;
    // Time enough to make room more than once.
    sleep(Duration::from_secs(3)).await;
    let here = client.recorder().take_all();
    assert!(
        !here.is_empty() && here.iter().all(|it| it.attempt == 0),
        "what it has is not given to it again"
    );
    assert_eq!(here[0].payload, "2", "it came behind that");
    client.settle(1, given[0].tag, 2, Settlement::Accept);
    broker.ctl("set_vm_memory_high_watermark 0.9").await;
    let rest = u32::try_from(here.len()).unwrap() + 2;
    client.expect_numbers(rest..302).await;
    drop((client, publisher));
    stage.close().await;
}

//! The broker has an alarm, and takes nothing that is published.

use std::task::{Context, Waker};
use std::time::Duration;

use linkspan_contract::Settlement;
use linkspan_contract::conformance::letters::Letters;
use linkspan_contract::conformance::stage::{Stage, key};
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

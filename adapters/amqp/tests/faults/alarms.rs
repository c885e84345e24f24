//! The broker has an alarm, and takes nothing that is published.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use linkspan_contract::conformance::letters::Letters;
use linkspan_contract::conformance::stage::{Stage, key, queue_spec};
use linkspan_contract::{QueueSpec, Retry, Settlement, Terms};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::{RabbitMq, soon};
use tokio::time::sleep;

use super::Linked;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_goes_during_an_alarm_has_its_acknowledgements_read() {
    let broker = RabbitMq::own().await;
    let retry = Some(Retry { delay: 1, factor: 100, max: 1 });
    for terms in [Terms::default(), Terms { retry, ..Terms::default() }] {
        let linked = Linked::to(&broker, |_| {}).await;
        let stage = Stage::new(&linked, "alarm").await;
        let (jobs, terms) = (stage.name("jobs"), Arc::new(terms));
        let (mut client, mut publisher) = (stage.client().await, stage.client().await);
        let spec = QueueSpec { terms: Some(&terms), ..queue_spec(&jobs, &[]) };
        client.declare_queue(&spec).await.expect("a queue is declared");
        let target = publisher.to_queue(&jobs);
        publisher.confirm(&Letters::confirmed(target, 0..20)).await;
        client.consume(&jobs, 1, 10).await;
        let given = client.expect_numbers(0..10).await;
        broker.ctl("set_vm_memory_high_watermark 0").await;
        publisher.publish(&Letters::numbered(target, [20]));
        let mut cx = Context::from_waker(Waker::noop());
        let held = async {
            while publisher.poll_ready(&mut cx).is_ready() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        soon("publishers are held", held).await;
        soon("a subscription ends", client.unsubscribe(key(1))).await.expect("nothing hinders it");
        client.settle(1, given[0].tag, 10, Settlement::Accept);
        let direct = Amqp::connect(broker.address()).await;
        let is_read = async {
            // What nobody was given comes back, and nothing else does when the link is cut.
            while direct.counts(&jobs).await.0 < 10 {
                sleep(Duration::from_millis(20)).await;
            }
            sleep(Duration::from_millis(300)).await;
            linked.cable.cut().await;
            sleep(Duration::from_secs(1)).await;
            direct.counts(&jobs).await.0
        };
        assert_eq!(soon("what nobody was given is the broker's", is_read).await, 10, "{terms:?}");
        broker.ctl("set_vm_memory_high_watermark 0.9").await;
        linked.cable.heal().await;
        drop((client, publisher));
        stage.close().await;
    }
}

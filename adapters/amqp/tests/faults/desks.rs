//! Desks whose queue goes, and what lies longer there than the broker lets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use linkspan_contract::conformance::letters::Letters;
use linkspan_contract::conformance::stage::{Peer, Stage, key, queue_spec};
use linkspan_contract::{
    Clock, Ended, Millis, QueueSpec, Retry, Settle, Settlement, Source, Subscribe, Terms,
};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::{RabbitMq, soon};
use tokio::time::sleep;

use super::Linked;

/// Terms that RabbitMQ does not know.
fn retried() -> Arc<Terms> {
    let retry = Some(Retry { delay: 1, factor: 100, max: 1 });
    Arc::new(Terms { retry, ..Terms::default() })
}

async fn declare(client: &mut Peer<'_>, queue: &str, terms: &Arc<Terms>) {
    let spec = QueueSpec { terms: Some(terms), ..queue_spec(queue, &[]) };
    client.declare_queue(&spec).await.expect("a queue is declared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_works_at_a_desk_hears_that_its_queue_is_gone_and_the_next_queue_has_a_desk_of_its_own() {
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "deleted").await;
    let (jobs, terms) = (stage.name("jobs"), retried());
    let mut client = stage.client().await;
    let direct = Amqp::connect(RabbitMq::shared().await.address()).await;
    for number in 1..=3 {
        declare(&mut client, &jobs, &terms).await;
        client.consume(&jobs, number, 5).await;
        let target = client.to_queue(&jobs);
        client.confirm(&Letters::confirmed(target, 0..8)).await;
        client.expect_numbers(0..5).await;
        let deleted = direct.channel.queue_delete(jobs.as_str().into(), QueueDeleteOptions::default());
        deleted.await.expect("it is deleted");
        assert_eq!(client.expect_end().await, (key(number), Ended::QueueDeleted));
    }
    stage.close().await;
}

/// A clock whose time is what a test says.
#[derive(Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
}

/// RabbitMQ waits 30 minutes for a word about a message; it is not to wait longer than 25.
const LONGEST: Millis = 1_500_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_beyond_25_minutes_passes_after_them_at_a_desk_and_without_one() {
    let plain = Arc::new(Terms::default());
    for (terms, extends) in [(&plain, false), (&plain, true), (&retried(), false), (&retried(), true)] {
        let hands = Arc::new(Hands(AtomicU64::new(1)));
        let linked = Linked::at(RabbitMq::shared().await, Arc::clone(&hands) as _, |_| {}).await;
        let stage = Stage::new(&linked, "long").await;
        let jobs = stage.name("jobs");
        let mut client = stage.client().await;
        declare(&mut client, &jobs, terms).await;
        let target = client.to_queue(&jobs);
        client.confirm(&Letters::confirmed(target, [0])).await;
        let how = Subscribe { ack_timeout: Some(10 * LONGEST), ..Subscribe::new(Settle::ByConsumer) };
        client.subscribe_how(Source::Queue(&jobs), 1, &how, 2).await;
        let given = client.expect_numbers([0]).await;
        if extends {
            client.settle(1, given[0].tag, 1, Settlement::Extend(10 * LONGEST));
        }
        hands.0.fetch_add(LONGEST - 10, Ordering::SeqCst);
        client.resume();
        client.expect_nothing().await;
        hands.0.fetch_add(1000, Ordering::SeqCst);
        let again = async {
            loop {
                client.resume();
                sleep(Duration::from_millis(20)).await;
                if let Some(again) = client.recorder().take_all().pop() {
                    return again;
                }
            }
        };
        assert_eq!(soon("it comes again", again).await.payload, "0");
        client.settle(1, given[0].tag, 1, Settlement::Accept);
        stage.settle_down().await;
        let late = client.declare_queue(&queue_spec(&jobs, &[])).await;
        assert!(late.is_ok(), "a late word is no error: {late:?}");
        client.delete_queue(&jobs, false, false).await.expect("the queue is deleted");
        stage.close().await;
    }
}

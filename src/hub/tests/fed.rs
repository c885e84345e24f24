//! Queues of one back end that are fed from addresses of another.

use super::*;

#[tokio::test]
async fn a_queue_bound_to_addresses_of_another_back_end_gets_their_messages_until_it_is_unbound() {
    let hub = hub([route("far/#", "two", &[])]).await;
    let mut client = Client1::connect(&hub, 1, None).await;
    client.bind("q", "#.t").await;
    client.bind("q", "far.a.*").await;
    let mut publisher = Client1::connect(&hub, 2, None).await;
    publisher.publish(&["near/t", "far/a/b", "far/c/t", "far/c/d", "far/a/t"], WANTED | Flags::DURABLE);
    client.waits("q", 4).await;
    client.lane.delete_queue("q", false, false).await.unwrap();
    client.bind("q", "near.x").await;
    publisher.publish(&["far/a/b", "near/x"], WANTED | Flags::DURABLE);
    client.waits("q", 1).await;
}

#[tokio::test]
async fn dead_letters_of_one_back_end_come_to_an_address_of_another() {
    let mut jobs = route("jobs", "two", &["jobs"]);
    Arc::make_mut(&mut jobs).dead_letter = Some("failed/jobs".into());
    let hub = hub([jobs, route("failed/#", "one", &["failed"])]).await;
    let mut worker = Client1::connect(&hub, 1, None).await;
    let mut publisher = Client1::connect(&hub, 2, None).await;
    publisher.publish(&["jobs"; 3], WANTED | Flags::DURABLE);
    worker.subscribe(Source::Queue("jobs"), Settle::ByConsumer).await.unwrap();
    for _ in 0..3 {
        worker.next().await.settle(Settlement::Reject(None));
        worker.deliveries.settle_into(&mut *worker.lane);
    }
    worker.waits("failed", 3).await;
}

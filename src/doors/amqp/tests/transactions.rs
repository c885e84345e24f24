//! `tx`: publishes and settlements as one step.

use super::*;
use crate::protocol::amqp::tx;

async fn transactional(house: &House) -> Client {
    let mut client = house.channel().await;
    client.queue("q").await;
    client.send(1, tx::Select {}).await;
    client.expect(1, tx::SelectOk {}).await;
    client
}

#[tokio::test]
async fn what_is_published_is_there_after_the_commit_only() {
    let house = house();
    let mut client = transactional(&house).await;
    let mut other = house.channel().await;
    client.publish(1, "", b"q", b"1").await;
    client.quiet(1).await;
    assert_eq!(other.ready("q").await, 0);
    client.send(1, tx::Commit {}).await;
    client.expect(1, tx::CommitOk {}).await;
    assert_eq!(other.ready("q").await, 1);
    client.publish(1, "", b"q", b"2").await;
    client.send(1, tx::Rollback {}).await;
    client.expect(1, tx::RollbackOk {}).await;
    assert_eq!(other.ready("q").await, 1);
}

#[tokio::test]
async fn what_is_acknowledged_is_unsettled_again_after_a_rollback() {
    let house = house();
    let mut client = transactional(&house).await;
    let mut other = house.channel().await;
    other.publish(1, "", b"q", b"1").await;
    other.quiet(1).await;
    client.consume("q", false).await;
    client.bodies(1).await;
    for _ in 0..2 {
        client.ack(1, false).await;
        client.send(1, tx::Rollback {}).await;
        client.expect(1, tx::RollbackOk {}).await;
    }
    client.ack(1, false).await;
    client.send(1, tx::Commit {}).await;
    client.expect(1, tx::CommitOk {}).await;
    client.ack(1, false).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - unknown delivery tag 1");
    assert_eq!(other.ready("q").await, 0);
}

#[tokio::test]
async fn a_transaction_does_not_confirm_and_a_confirming_channel_has_none() {
    let house = house();
    let mut client = transactional(&house).await;
    client.send(1, confirm::Select { no_wait: false }).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - cannot switch from tx to confirm mode");
    client.open(1).await;
    client.select_confirms().await;
    client.send(1, tx::Select {}).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - cannot switch from confirm to tx mode");
    client.open(1).await;
    client.send(1, tx::Commit {}).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - channel is not transactional");
}

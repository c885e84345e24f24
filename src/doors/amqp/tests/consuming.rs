//! Consumers, deliveries and what becomes of them.

use super::*;
use crate::protocol::amqp::TableBuf;

async fn qos(client: &mut Client, prefetch_count: u16, global: bool) {
    client.send(1, basic::Qos { prefetch_size: 0, prefetch_count, global }).await;
    client.expect(1, basic::QosOk {}).await;
}

async fn fill(client: &mut Client, queue: &str, count: usize) {
    for i in 0..count {
        client.publish(1, "", queue.as_bytes(), i.to_string().as_bytes()).await;
    }
}

#[tokio::test]
async fn the_answer_to_consume_comes_before_the_first_delivery() {
    let mut client = house().channel().await;
    client.queue("q").await;
    fill(&mut client, "q", 3).await;
    client.consume("q", false).await;
    assert_eq!(client.bodies(3).await, ["0", "1", "2"]);
}

#[tokio::test]
async fn the_server_gives_a_consumer_tag_and_refuses_one_twice() {
    let mut client = house().channel().await;
    client.queue("q").await;
    client.send(1, consume("q", "", true)).await;
    let got = client.skip("ConsumeOk").await;
    let Method::Basic(Basic::ConsumeOk(ok)) = got.method() else { panic!() };
    assert!(ok.consumer_tag.starts_with("amq.ctag-"));
    client.consume("q", true).await;
    client.send(1, consume("q", "c", true)).await;
    let text = client.connection_error(ReplyCode::NotAllowed).await;
    assert_eq!(text, "NOT_ALLOWED - attempt to reuse consumer tag 'c'");
}

#[tokio::test]
async fn prefetch_bounds_what_is_unsettled_and_acknowledging_lets_more_come() {
    let mut client = house().channel().await;
    client.queue("q").await;
    fill(&mut client, "q", 10).await;
    qos(&mut client, 3, false).await;
    client.consume("q", false).await;
    assert_eq!(client.bodies(3).await, ["0", "1", "2"]);
    client.quiet(1).await;
    client.ack(2, false).await;
    assert_eq!(client.bodies(1).await, ["3"]);
    client.ack(4, true).await;
    assert_eq!(client.bodies(3).await, ["4", "5", "6"]);
    client.ack(0, true).await;
    assert_eq!(client.bodies(3).await, ["7", "8", "9"]);
    client.send(1, basic::Ack { delivery_tag: 10, multiple: true }).await;
    client.quiet(1).await;
    client.ack(10, false).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - unknown delivery tag 10");
}

#[tokio::test]
async fn a_global_prefetch_bounds_all_consumers_of_the_channel() {
    let mut client = house().channel().await;
    for queue in ["a", "b"] {
        client.queue(queue).await;
        fill(&mut client, queue, 10).await;
    }
    qos(&mut client, 3, true).await;
    for queue in ["a", "b"] {
        client.send(1, consume(queue, queue, false)).await;
        client.expect(1, basic::ConsumeOk { consumer_tag: short(queue) }).await;
        if queue == "a" {
            assert_eq!(client.bodies(3).await, ["0", "1", "2"]);
        }
    }
    qos(&mut client, 4, true).await;
    assert_eq!(client.message().await.tag, 4, "one more than before");
    qos(&mut client, 4, true).await;
    client.ack(4, true).await;
    client.bodies(4).await;
    qos(&mut client, 0, true).await;
    client.bodies(12).await;
}

#[tokio::test]
async fn what_is_refused_comes_again_or_goes() {
    let mut client = house().channel().await;
    client.queue("q").await;
    fill(&mut client, "q", 4).await;
    client.consume("q", false).await;
    client.bodies(4).await;
    client.send(1, basic::Reject { delivery_tag: 1, requeue: false }).await;
    client.send(1, basic::Reject { delivery_tag: 2, requeue: true }).await;
    let got = client.message().await;
    assert_eq!((got.tag, got.redelivered, &*got.body), (5, true, &b"1"[..]));
    client.send(1, basic::Nack { delivery_tag: 4, multiple: true, requeue: true }).await;
    let mut again = client.bodies(2).await;
    again.sort();
    assert_eq!(again, ["2", "3"]);
    client.send(1, basic::Nack { delivery_tag: 0, multiple: true, requeue: false }).await;
    assert_eq!(client.ready("q").await, 0);
    client.send(1, basic::Reject { delivery_tag: 9, requeue: true }).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - unknown delivery tag 9");
}

#[tokio::test]
async fn a_channel_that_goes_gives_everything_back_in_order() {
    let house = house();
    let mut client = house.channel().await;
    client.queue("q").await;
    fill(&mut client, "q", 3).await;
    client.consume("q", false).await;
    client.bodies(3).await;
    let close = channel::Close { reply_code: 200, reply_text: short(""), class_id: 0, method_id: 0 };
    client.send(1, close).await;
    client.expect(1, channel::CloseOk {}).await;
    client.open(1).await;
    client.consume("q", false).await;
    for body in [b"0", b"1", b"2"] {
        let got = client.message().await;
        assert_eq!((&got.body[..], got.redelivered), (&body[..], true));
    }
    drop(client);
    let mut client = house.channel().await;
    client.consume("q", true).await;
    assert_eq!(client.bodies(3).await, ["0", "1", "2"], "a connection that vanishes gives back too");
}

#[tokio::test]
async fn recovering_gives_all_that_is_unsettled_again() {
    let mut client = house().channel().await;
    client.queue("q").await;
    fill(&mut client, "q", 3).await;
    qos(&mut client, 3, false).await;
    client.consume("q", false).await;
    client.bodies(3).await;
    client.ack(1, false).await;
    client.send(1, basic::Recover { requeue: true }).await;
    let answer = client.frame().await;
    assert!(
        matches!(answer.method(), Method::Basic(Basic::RecoverOk(_))),
        "first of all: {}",
        answer.shown()
    );
    let mut again = Vec::new();
    for _ in 0..2 {
        let frame = client.frame().await;
        let Method::Basic(Basic::Deliver(deliver)) = frame.method() else { panic!("{}", frame.shown()) };
        assert!(deliver.redelivered && deliver.delivery_tag > 3);
        let _header = client.frame().await;
        again.push(client.frame().await.payload);
    }
    assert_eq!(again, [b"1", b"2"]);
    client.send(1, basic::RecoverAsync { requeue: false }).await;
    assert_eq!(client.connection_error(ReplyCode::NotImplemented).await, "NOT_IMPLEMENTED - requeue=false");
}

#[tokio::test]
async fn messages_are_fetched_one_by_one() {
    let mut client = house().channel().await;
    client.queue("q").await;
    fill(&mut client, "q", 3).await;
    let get = |no_ack| basic::Get { queue: short("q"), no_ack };
    client.send(1, get(false)).await;
    let got = client.message().await;
    assert_eq!((&*got.method, got.tag, got.left, &*got.body), ("get-ok", 1, 2, &b"0"[..]));
    client.send(1, get(true)).await;
    assert_eq!(client.message().await.body, b"1");
    client.send(1, basic::Nack { delivery_tag: 1, multiple: false, requeue: true }).await;
    client.send(1, get(false)).await;
    let got = client.message().await;
    assert_eq!((got.tag, got.redelivered, &*got.body), (3, true, &b"0"[..]));
    client.ack(3, false).await;
    client.send(1, get(true)).await;
    assert_eq!(client.message().await.body, b"2");
    client.send(1, get(true)).await;
    client.expect(1, basic::GetEmpty {}).await;
}

#[tokio::test]
async fn a_cancelled_consumer_gets_nothing_more_and_may_still_settle() {
    let mut client = house().channel().await;
    client.queue("q").await;
    fill(&mut client, "q", 2).await;
    qos(&mut client, 1, false).await;
    client.consume("q", false).await;
    client.bodies(1).await;
    let cancel = basic::Cancel { consumer_tag: short("c"), no_wait: false };
    client.send(1, cancel).await;
    client.expect(1, basic::CancelOk { consumer_tag: short("c") }).await;
    client.ack(1, false).await;
    client.quiet(1).await;
    assert_eq!(client.ready("q").await, 1);
    client.send(1, cancel).await;
    client.expect(1, basic::CancelOk { consumer_tag: short("c") }).await;
    client.consume("q", false).await;
    assert_eq!(client.bodies(1).await, ["1"]);
}

#[tokio::test]
async fn a_deleted_queue_cancels_its_consumers_behind_what_they_have() {
    let house = house();
    let mut client = house.channel().await;
    client.queue("q").await;
    let mut told = house.channel().await;
    told.consume("q", false).await;
    let mut untold = house.client_with(131_072, 0, &[]).await;
    untold.open(1).await;
    untold.consume("q", false).await;
    fill(&mut client, "q", 2).await;
    client.quiet(1).await;
    let delete = queue::Delete { queue: short("q"), if_unused: false, if_empty: false, no_wait: false };
    client.send(1, delete).await;
    client.skip("DeleteOk").await;
    told.message().await;
    told.expect(1, basic::Cancel { consumer_tag: short("c"), no_wait: true }).await;
    told.ack(1, false).await;
    untold.message().await;
    untold.quiet(1).await;
    told.queue("q").await;
    told.consume("q", true).await;
}

#[tokio::test]
async fn an_exclusive_consumer_is_alone() {
    let house = house();
    let mut client = house.channel().await;
    client.queue("q").await;
    client.send(1, basic::Consume { exclusive: true, ..consume("q", "c", true) }).await;
    client.skip("ConsumeOk").await;
    let mut other = house.channel().await;
    other.send(1, consume("q", "c", true)).await;
    let text = other.channel_error(1, ReplyCode::AccessRefused).await;
    assert_eq!(text, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use");
}

#[tokio::test]
async fn a_consumer_of_higher_priority_comes_first() {
    let house = house();
    let mut low = house.channel().await;
    low.queue("q").await;
    qos(&mut low, 10, false).await;
    low.consume("q", false).await;
    let mut high = house.channel().await;
    qos(&mut high, 1, false).await;
    let mut arguments = TableBuf::new();
    arguments.put("x-priority", 5).unwrap();
    high.send(1, basic::Consume { arguments: arguments.as_table(), ..consume("q", "c", false) }).await;
    high.skip("ConsumeOk").await;
    fill(&mut low, "q", 2).await;
    assert_eq!(high.bodies(1).await, ["0"]);
    assert_eq!(low.bodies(1).await, ["1"]);
    arguments.put("x-priority", 5).unwrap();
    let mut wrong = TableBuf::new();
    wrong.put("x-priority", "high").unwrap();
    high.send(1, basic::Consume { arguments: wrong.as_table(), ..consume("q", "d", false) }).await;
    high.channel_error(1, ReplyCode::PreconditionFailed).await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_keeps_its_messages_in_the_queue_and_gets_them_all() {
    let house = house();
    let mut client = house.channel().await;
    client.queue("q").await;
    client.select_confirms().await;
    let mut consumer = house.channel().await;
    consumer.consume("q", true).await;
    let body = vec![7; 20_000];
    let count = 400u64;
    let publisher = tokio::spawn(async move {
        let mut confirmed = 0;
        for at in 1..=count {
            client.publish(1, "", b"q", &body).await;
            while at - confirmed > 100 {
                let got = client.frame().await;
                if let Method::Basic(Basic::Ack(ack)) = got.method() {
                    confirmed = ack.delivery_tag;
                }
            }
        }
        client
    });
    let _client = publisher.await.unwrap();
    for tag in 1..=count {
        let got = consumer.message().await;
        assert_eq!((got.tag, got.body.len()), (tag, 20_000));
    }
}

//! AMQP: consuming, settling, giving back.

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    BasicRecoverOptions, BasicRejectOptions, ChannelFlowOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use linkspan_integration_tests::amqp::{Amqp, refusal, text};
use linkspan_integration_tests::amqp_wire::{AmqpWire, method};
use linkspan_integration_tests::{Server, soon, within};

use crate::LULL;

async fn consume(channel: &Channel, queue: &str) -> Consumer {
    consume_as(channel, queue, BasicConsumeOptions::default()).await
}

async fn consume_as(channel: &Channel, queue: &str, options: BasicConsumeOptions) -> Consumer {
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.expect("consume-ok")
}

async fn next(consumer: &mut Consumer) -> Delivery {
    soon("a delivery", consumer.next()).await.expect("the consumer lives").expect("the channel lives")
}

/// How many deliveries come until none comes any more, and the last of them.
async fn flood(consumer: &mut Consumer) -> (usize, Option<Delivery>) {
    let (mut count, mut last) = (0, None);
    while let Some(Some(delivery)) = within(LULL, consumer.next()).await {
        (count, last) = (count + 1, Some(delivery.expect("the channel lives")));
    }
    (count, last)
}

/// A queue with `count` messages: "0", "1" and so on.
async fn filled(amqp: &Amqp, queue: &str, count: usize) {
    amqp.queue(queue).await;
    for n in 0..count {
        amqp.publish("", queue, &n.to_string()).await;
    }
}

#[tokio::test]
async fn a_prefetch_bounds_each_consumer_that_comes_after_it() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    filled(&amqp, "work", 20).await;
    amqp.channel.basic_qos(3, BasicQosOptions { global: false }).await.unwrap();
    let mut one = consume(&amqp.channel, "work").await;
    let (count, last) = flood(&mut one).await;
    assert_eq!(count, 3);
    let mut other = consume(&amqp.channel, "work").await;
    assert_eq!(flood(&mut other).await.0, 3, "each has its own three");
    last.unwrap().acker.ack(BasicAckOptions { multiple: false }).await.unwrap();
    assert_eq!(flood(&mut one).await.0, 1, "one settled, one more");
}

#[tokio::test]
async fn a_global_prefetch_bounds_all_consumers_of_the_channel_together() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    filled(&amqp, "work", 20).await;
    amqp.channel.basic_qos(4, BasicQosOptions { global: true }).await.unwrap();
    let (mut one, mut other) = (consume(&amqp.channel, "work").await, consume(&amqp.channel, "work").await);
    let (first, second) = (flood(&mut one).await, flood(&mut other).await);
    assert_eq!(first.0 + second.0, 4, "{} and {}", first.0, second.0);
    let last =
        [first.1, second.1].into_iter().flatten().max_by_key(|delivery| delivery.delivery_tag).unwrap();
    last.acker.ack(BasicAckOptions { multiple: true }).await.unwrap();
    assert_eq!(flood(&mut one).await.0 + flood(&mut other).await.0, 4, "all settled at once, four more");
}

#[tokio::test]
async fn what_is_nacked_with_requeue_comes_again_first_and_marked() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    filled(&amqp, "work", 3).await;
    amqp.channel.basic_qos(2, BasicQosOptions::default()).await.unwrap();
    let mut consumer = consume(&amqp.channel, "work").await;
    let (zero, one) = (next(&mut consumer).await, next(&mut consumer).await);
    assert!(!zero.redelivered && !one.redelivered);
    one.acker.nack(BasicNackOptions { multiple: true, requeue: true }).await.unwrap();
    for expected in ["0", "1"] {
        let again = next(&mut consumer).await;
        assert_eq!((text(&again.data).as_str(), again.redelivered), (expected, true));
        again.acker.ack(BasicAckOptions::default()).await.unwrap();
    }
    assert_eq!(text(&next(&mut consumer).await.data), "2");
}

#[tokio::test]
async fn what_is_rejected_without_requeue_is_gone() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    filled(&amqp, "work", 2).await;
    let mut consumer = consume(&amqp.channel, "work").await;
    for delivery in [next(&mut consumer).await, next(&mut consumer).await] {
        delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    }
    amqp.channel.close(200, "".into()).await.unwrap();
    let other = Amqp::connect(server.amqp()).await;
    assert_eq!(other.counts("work").await, (0, 0));
}

#[tokio::test]
async fn a_closed_channel_gives_back_what_was_not_settled() {
    let server = Server::start("").await;
    let (amqp, other) = (Amqp::confirming(server.amqp()).await, Amqp::connect(server.amqp()).await);
    filled(&amqp, "work", 2).await;
    let mut consumer = consume(&amqp.channel, "work").await;
    let (zero, _one) = (next(&mut consumer).await, next(&mut consumer).await);
    zero.acker.ack(BasicAckOptions::default()).await.unwrap();
    amqp.channel.close(200, "".into()).await.unwrap();
    let mut successor = consume(&other.channel, "work").await;
    let again = next(&mut successor).await;
    assert_eq!((text(&again.data).as_str(), again.redelivered), ("1", true));
}

#[tokio::test]
async fn recover_gives_back_all_that_the_channel_holds() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    filled(&amqp, "work", 2).await;
    let mut consumer = consume(&amqp.channel, "work").await;
    let _held = [next(&mut consumer).await, next(&mut consumer).await];
    amqp.channel.basic_recover(BasicRecoverOptions { requeue: true }).await.unwrap();
    for expected in ["0", "1"] {
        let again = next(&mut consumer).await;
        assert_eq!((text(&again.data).as_str(), again.redelivered), (expected, true));
    }
}

#[tokio::test]
async fn get_takes_one_message_and_says_how_many_are_left() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    filled(&amqp, "work", 2).await;
    let got = amqp.channel.basic_get("work".into(), Default::default()).await.unwrap().unwrap();
    assert_eq!((text(&got.delivery.data).as_str(), got.message_count), ("0", 1));
    got.delivery.acker.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
    assert_eq!(amqp.drain("work").await, ["0", "1"]);
    assert_eq!(amqp.get("work").await, None);
}

#[tokio::test]
async fn a_cancelled_consumer_gets_nothing_more_and_keeps_what_it_has() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    filled(&amqp, "work", 1).await;
    let mut consumer = consume(&amqp.channel, "work").await;
    let held = next(&mut consumer).await;
    amqp.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
    assert_eq!(amqp.counts("work").await, (0, 0), "no consumer, and the delivery is still unsettled");
    held.acker.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
    assert_eq!(amqp.drain("work").await, ["0"]);
}

#[tokio::test]
async fn consumers_are_cancelled_when_their_queue_is_deleted() {
    let server = Server::start("").await;
    let (amqp, other) = (Amqp::confirming(server.amqp()).await, Amqp::connect(server.amqp()).await);
    filled(&amqp, "work", 1).await;
    let mut consumer = consume(&amqp.channel, "work").await;
    let held = next(&mut consumer).await;
    other.channel.queue_delete("work".into(), QueueDeleteOptions::default()).await.unwrap();
    let end = soon("the consumer is cancelled", consumer.next()).await;
    assert!(end.is_none(), "{end:?}");
    held.acker.ack(BasicAckOptions::default()).await.unwrap();
    amqp.queue("the channel lives on after a late settlement").await;
}

#[tokio::test]
async fn an_unknown_delivery_tag_closes_the_channel() {
    let server = Server::start("").await;
    let mut amqp = AmqpWire::open(server.amqp()).await;
    amqp.send(&method(1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 7, 0])).await;
    let text = "PRECONDITION_FAILED - unknown delivery tag 7";
    assert_eq!(amqp.closed().await, (1, 406, text.to_owned()));
}

#[tokio::test]
async fn an_exclusive_consumer_is_alone() {
    let server = Server::start("").await;
    let (amqp, other) = (Amqp::connect(server.amqp()).await, Amqp::connect(server.amqp()).await);
    amqp.queue("mine").await;
    let exclusive = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let _consumer = consume_as(&amqp.channel, "mine", exclusive).await;
    let options = BasicConsumeOptions::default();
    let second = other.channel.basic_consume("mine".into(), "".into(), options, FieldTable::default());
    let text = "ACCESS_REFUSED - queue 'mine' in vhost '/' in exclusive use";
    assert_eq!(refusal(&second.await.unwrap_err()), (403, text.to_owned()));
}

#[tokio::test]
async fn consumers_of_a_queue_take_turns() {
    let server = Server::start("").await;
    let (amqp, other) = (Amqp::confirming(server.amqp()).await, Amqp::connect(server.amqp()).await);
    amqp.queue("work").await;
    let auto = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut one = consume_as(&amqp.channel, "work", auto).await;
    let mut two = consume_as(&other.channel, "work", auto).await;
    for n in 0..10 {
        amqp.publish("", "work", &n.to_string()).await;
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        first.push(text(&next(&mut one).await.data));
        second.push(text(&next(&mut two).await.data));
    }
    first.append(&mut second);
    first.sort();
    assert_eq!(first.join(""), "0123456789", "five each");
}

#[tokio::test]
async fn channel_flow_is_answered() {
    let server = Server::start("").await;
    let amqp = Amqp::connect(server.amqp()).await;
    assert!(amqp.channel.channel_flow(ChannelFlowOptions { active: true }).await.unwrap());
}

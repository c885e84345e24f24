//! While an alarm is raised: who publishes is told and not read, who consumes goes on.

use linkspan_contract::LaneEvent;

use super::remote::slow;
use super::slow_lane::settled;
use super::*;
use crate::alarms::Shortage;
use crate::protocol::amqp::tx;

const MEMORY: Shortage = Shortage::Memory { used: 3 << 30, limit: 2 << 30 };

fn raised() -> Arc<Alarms> {
    let alarms = Arc::new(Alarms::default());
    alarms.raise(&MEMORY);
    alarms
}

fn house_of(alarms: &Arc<Alarms>) -> House {
    house_under(Arc::clone(alarms), embedded(), AmqpLimits::default())
}

impl Client {
    async fn blocked(&mut self) -> String {
        let got = self.skip("Blocked").await;
        match got.method() {
            Method::Connection(connection::Connection::Blocked(blocked)) => {
                blocked.reason.as_str().to_owned()
            }
            _ => panic!("{}", got.shown()),
        }
    }
}

#[tokio::test]
async fn a_publisher_is_told_why_at_its_first_publish_and_goes_on_when_the_alarm_is_over() {
    let alarms = raised();
    let house = house_of(&alarms);
    let mut publisher = house.channel().await;
    publisher.queue("q").await;
    publisher.select_confirms().await;
    publisher.quiet(1).await;
    for body in [b"1", b"2"] {
        publisher.publish(1, "", b"q", body).await;
    }
    let reason = publisher.blocked().await;
    assert_eq!(reason, "low on memory: 3.0 GiB used, 1.0 GiB above memory.limit (2.0 GiB)");
    // What comes behind waits too, and in its order.
    publisher.send(1, queue::Declare { passive: true, ..declare("q") }).await;
    let mut other = house.channel().await;
    assert_eq!(other.ready("q").await, 0, "nothing is published");
    alarms.lower(&MEMORY.subject());
    publisher.expect(0, connection::Unblocked {}).await;
    let mut acked = 0;
    while acked < 2 {
        match publisher.frame().await.method() {
            Method::Basic(Basic::Ack(ack)) => acked = ack.delivery_tag,
            other => panic!("{other:?}"),
        }
    }
    let got = publisher.skip("DeclareOk").await;
    assert!(got.shown().contains("message_count: 2"), "{}", got.shown());
}

#[tokio::test]
async fn who_only_consumes_never_notices() {
    let alarms = Arc::new(Alarms::default());
    let house = house_of(&alarms);
    let mut publisher = house.channel().await;
    publisher.queue("q").await;
    for n in 0..20 {
        publisher.publish(1, "", b"q", format!("{n}").as_bytes()).await;
    }
    publisher.quiet(1).await;
    alarms.raise(&MEMORY);
    let mut consumer = house.channel().await;
    consumer.send(1, basic::Qos { prefetch_size: 0, prefetch_count: 1, global: false }).await;
    consumer.expect(1, basic::QosOk {}).await;
    consumer.consume("q", false).await;
    for n in 0..20 {
        let message = consumer.message().await;
        assert_eq!(message.body, format!("{n}").as_bytes(), "each needs the acknowledgement before");
        consumer.ack(message.tag, false).await;
    }
    consumer.quiet(1).await;
}

#[tokio::test]
async fn a_message_that_was_begun_before_is_completed_and_the_next_is_held() {
    let alarms = Arc::new(Alarms::default());
    let house = house_of(&alarms);
    let mut publisher = house.channel().await;
    publisher.queue("q").await;
    publisher.select_confirms().await;
    let message = published(1, "", b"q", false, &NONE, &[b'x'; 20_000], 4096);
    // The last frame is still to come when the alarm is raised.
    let last = message.len() - (20_000 % (4096 - frame::OVERHEAD) + frame::OVERHEAD);
    publisher.write(&message[..last]).await;
    publisher.open(2).await;
    alarms.raise(&MEMORY);
    publisher.write(&message[last..]).await;
    publisher.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    publisher.publish(1, "", b"q", b"next").await;
    publisher.blocked().await;
    alarms.lower(&MEMORY.subject());
    publisher.expect(0, connection::Unblocked {}).await;
    publisher.expect(1, basic::Ack { delivery_tag: 2, multiple: false }).await;
}

#[tokio::test]
async fn a_transaction_from_before_is_committed_and_what_it_is_to_have_more_is_held() {
    let alarms = Arc::new(Alarms::default());
    let house = house_of(&alarms);
    let mut publisher = house.channel().await;
    publisher.queue("q").await;
    publisher.send(1, tx::Select {}).await;
    publisher.expect(1, tx::SelectOk {}).await;
    publisher.publish(1, "", b"q", b"1").await;
    publisher.quiet(1).await;
    alarms.raise(&MEMORY);
    publisher.send(1, tx::Commit {}).await;
    publisher.expect(1, tx::CommitOk {}).await;
    assert_eq!(publisher.ready("q").await, 1);
    publisher.publish(1, "", b"q", b"2").await;
    publisher.send(1, tx::Commit {}).await;
    publisher.blocked().await;
    let mut other = house.channel().await;
    assert_eq!(other.ready("q").await, 1);
    alarms.lower(&MEMORY.subject());
    publisher.expect(0, connection::Unblocked {}).await;
    publisher.expect(1, tx::CommitOk {}).await;
    assert_eq!(other.ready("q").await, 2);
}

#[tokio::test]
async fn who_did_not_ask_to_be_told_is_held_without_a_word() {
    let alarms = raised();
    let house = house_of(&alarms);
    let mut publisher = house.client_with(131_072, 0, &[]).await;
    publisher.open(1).await;
    publisher.queue("q").await;
    publisher.select_confirms().await;
    publisher.publish(1, "", b"q", b"1").await;
    let mut other = house.channel().await;
    assert_eq!(other.ready("q").await, 0);
    alarms.lower(&MEMORY.subject());
    publisher.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
}

#[tokio::test]
async fn an_alarm_and_a_blocked_back_end_are_told_as_one() {
    let alarms = raised();
    let (backend, gate) = slow(99, true);
    let house = house_under(Arc::clone(&alarms), backend, AmqpLimits::default());
    let mut client = house.channel().await;
    gate.ears().1.event(LaneEvent::Blocked("low on disk".into()));
    assert_eq!(client.blocked().await, "low on disk");
    let mut other = house.channel().await;
    client.publish(1, "", b"q", b"1").await;
    other.quiet(1).await;
    settled().await;
    gate.ears().1.event(LaneEvent::Unblocked);
    other.quiet(1).await;
    assert_eq!(gate.published.lock().len(), 0, "the alarm holds it");
    gate.ears().1.event(LaneEvent::Blocked("low on disk again".into()));
    settled().await;
    alarms.lower(&MEMORY.subject());
    settled().await;
    gate.ears().1.event(LaneEvent::Unblocked);
    client.expect(0, connection::Unblocked {}).await;
    client.quiet(1).await;
    assert_eq!(gate.published.lock().len(), 1);
}

#[tokio::test]
async fn heartbeats_go_out_while_a_publisher_is_held_and_none_are_expected() {
    let alarms = raised();
    let house = house_of(&alarms);
    let mut publisher = house.client_with(131_072, 1, &CAPABILITIES).await;
    publisher.open(1).await;
    publisher.queue("q").await;
    publisher.publish(1, "", b"q", b"1").await;
    publisher.blocked().await;
    tokio::time::pause();
    for _ in 0..20 {
        // Twice an interval; two intervals of silence would end a connection that is read.
        assert_eq!(publisher.next().await.map(|got| got.kind), Some(FrameKind::Heartbeat));
    }
    tokio::time::resume();
    alarms.lower(&MEMORY.subject());
    publisher.expect(0, connection::Unblocked {}).await;
    assert_eq!(publisher.ready("q").await, 1);
}

#[tokio::test]
async fn a_held_publisher_is_told_when_the_server_goes_down() {
    let alarms = raised();
    let mut house = house_of(&alarms);
    let mut publisher = house.channel().await;
    publisher.publish(1, "", b"q", b"1").await;
    publisher.blocked().await;
    house.stopper.take().unwrap().stop();
    publisher.connection_error(ReplyCode::ConnectionForced).await;
}

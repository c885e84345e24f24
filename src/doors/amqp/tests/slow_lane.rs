//! A back end that takes its time, refuses, or tells later: nobody else waits for it.

use std::sync::atomic::Ordering;

use linkspan_contract::{Ended, LaneEvent, Outcome, Receipt, Refused};

use super::remote::slow;
use super::*;

async fn opened(house: &House, vhost: &str) -> Client {
    let mut client = house.raw().await;
    client.log_in(b"\0guest\0guest", &CAPABILITIES).await;
    client.skip("Tune").await;
    client.send(0, connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 }).await;
    client.send(0, connection::Open { virtual_host: short(vhost) }).await;
    client
}

#[tokio::test]
async fn a_vhost_that_is_not_there_is_530_and_one_whose_back_end_is_away_320() {
    let house = house_with(slow(0, false).0, AmqpLimits::default());
    let mut client = opened(&house, "nope").await;
    assert_eq!(client.connection_error(ReplyCode::NotAllowed).await, "NOT_ALLOWED - vhost nope not found");
    let mut client = opened(&house, "away").await;
    assert_eq!(
        client.connection_error(ReplyCode::ConnectionForced).await,
        "CONNECTION_FORCED - back end 'rabbit' cannot be reached: refused"
    );
}

#[tokio::test]
async fn a_request_that_takes_long_holds_up_its_channel_only_and_keeps_its_order() {
    let (backend, gate) = slow(0, false);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.open(2).await;
    client.send(1, declare("q")).await;
    // These wait for it; the message in two pieces, one of which comes later.
    let message = published(1, "", b"q", false, &NONE, b"x", 131_072);
    let (first, rest) = message.split_at(message.len() - "x".len() - frame::OVERHEAD);
    client.write(first).await;
    client.quiet(2).await;
    client.write(rest).await;
    client.send(1, queue::Purge { queue: short(""), no_wait: false }).await;
    client.quiet(2).await;
    gate.permits.add_permits(1);
    client.expect(1, queue::DeclareOk { queue: short("q"), message_count: 0, consumer_count: 0 }).await;
    client.quiet(2).await;
    gate.permits.add_permits(1);
    client.expect(1, queue::PurgeOk { message_count: 1 }).await;
}

#[tokio::test]
async fn a_client_that_goes_while_its_lane_is_away_leaves_nothing_behind() {
    let (backend, _gate) = slow(0, false);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.send(1, declare("q")).await;
    let close = connection::Close { reply_code: 200, reply_text: short(""), class_id: 0, method_id: 0 };
    client.send(0, close).await;
    client.expect(0, connection::CloseOk {}).await;
    client.is_over().await;
}

#[tokio::test]
async fn a_commit_that_could_not_be_carried_out_closes_the_channel() {
    let (backend, _gate) = slow(9, false);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.send(1, crate::protocol::amqp::tx::Select {}).await;
    client.skip("SelectOk").await;
    client.send(1, crate::protocol::amqp::tx::Commit {}).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - partial tx completion");
}

#[tokio::test]
async fn receipts_and_events_that_come_later_reach_the_client() {
    let (backend, gate) = slow(9, true);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.select_confirms().await;
    for _ in 0..4 {
        client.publish(1, "", b"q", b"x").await;
    }
    client.quiet(1).await;
    let (receipts, events) = gate.ears();
    receipts.receipts(&[
        Receipt { first: 2, count: 1, outcome: Outcome::Accepted },
        Receipt { first: 0, count: 2, outcome: Outcome::Unroutable },
    ]);
    client.expect(1, basic::Ack { delivery_tag: 3, multiple: false }).await;
    client.expect(1, basic::Ack { delivery_tag: 2, multiple: true }).await;
    receipts.receipts(&[Receipt { first: 3, count: 1, outcome: Outcome::Failed(Refused::Away("r".into())) }]);
    client.expect(1, basic::Nack { delivery_tag: 4, multiple: false, requeue: false }).await;
    events.event(LaneEvent::Blocked("low on memory".into()));
    client.expect(0, connection::Blocked { reason: short("low on memory") }).await;
    events.event(LaneEvent::Unblocked);
    client.expect(0, connection::Unblocked {}).await;
    events.event(LaneEvent::Changed);
    events.event(LaneEvent::Closed { code: 404, text: "NOT_FOUND - gone upstream".into() });
    assert_eq!(client.channel_error(1, ReplyCode::NotFound).await, "NOT_FOUND - gone upstream");
    client.open(1).await;
    receipts.receipts(&[Receipt { first: 0, count: 1, outcome: Outcome::Accepted }]);
    client.quiet(1).await;
}

#[tokio::test]
async fn a_back_end_that_denies_is_530_and_one_that_does_not_answer_320() {
    let house = house_with(slow(0, false).0, AmqpLimits::default());
    let mut client = opened(&house, "denied").await;
    assert_eq!(
        client.connection_error(ReplyCode::NotAllowed).await,
        "NOT_ALLOWED - back end 'rabbit' refused: login failed"
    );
    let mut client = opened(&house, "stalled").await;
    settled().await;
    tokio::time::pause();
    let text = client.connection_error(ReplyCode::ConnectionForced).await;
    assert_eq!(text, "CONNECTION_FORCED - the back end of the vhost does not answer");
}

/// Time for what was sent to be dealt with.
pub(super) async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lane_that_is_over_closes_its_channel_in_the_back_ends_words() {
    let (backend, gate) = slow(9, true);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.open(2).await;
    let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out";
    gate.ears().1.event(LaneEvent::Closed { code: 406, text: text.into() });
    assert_eq!(client.channel_error(1, ReplyCode::PreconditionFailed).await, text);
    client.quiet(2).await;
    client.open(1).await;
    client.quiet(1).await;
    let text = "INTERNAL_ERROR - the node is going down";
    gate.ears.lock()[1].1.event(LaneEvent::Closed { code: 541, text: text.into() });
    assert_eq!(client.connection_error(ReplyCode::InternalError).await, text, "541 has no channel to it");
}

#[tokio::test]
async fn a_message_that_comes_back_late_comes_before_its_confirm() {
    let (backend, gate) = slow(9, true);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.select_confirms().await;
    client.write(&published(1, "amq.direct", b"nobody", true, &NONE, b"x", 131_072)).await;
    client.quiet(1).await;
    let message = gate.published.lock()[0].clone();
    let (receipts, events) = gate.ears();
    events.event(LaneEvent::Returned { message, code: 312, text: "NO_ROUTE".into() });
    receipts.receipts(&[Receipt { first: 0, count: 1, outcome: Outcome::Unroutable }]);
    let got = client.message().await;
    assert_eq!((&*got.method, &*got.key, &*got.body), ("return 312 NO_ROUTE", &b"nobody"[..], &b"x"[..]));
    client.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
}

#[tokio::test]
async fn a_blocked_client_is_told_and_read_until_it_publishes() {
    let (backend, gate) = slow(9, true);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    let mut untold = house.client_with(131_072, 0, &[]).await;
    untold.open(1).await;
    let mut other = house.channel().await;
    let ears: Vec<_> = gate.ears.lock().clone();
    let tell = |event: LaneEvent| ears[..2].iter().for_each(|(_, events)| events.event(event.clone()));
    tell(LaneEvent::Blocked("low on disk".into()));
    client.expect(0, connection::Blocked { reason: short("low on disk") }).await;
    client.quiet(1).await;
    untold.quiet(1).await;
    for (at, client) in (1..).zip([&mut client, &mut untold]) {
        client.publish(1, "", b"q", b"x").await;
        while gate.published.lock().len() < at {
            tokio::task::yield_now().await;
        }
        client.publish(1, "", b"q", b"not read").await;
    }
    other.quiet(1).await;
    settled().await;
    other.quiet(1).await;
    assert_eq!(gate.published.lock().len(), 2, "what is published behind the first is not read");
    tell(LaneEvent::Unblocked);
    client.expect(0, connection::Unblocked {}).await;
    for client in [&mut client, &mut untold] {
        client.quiet(1).await;
    }
    assert_eq!(gate.published.lock().len(), 4);
}

#[tokio::test]
async fn what_the_back_end_could_not_take_is_nacked_and_only_what_the_client_did_wrong_closes_the_channel() {
    let upstream = |code, text: &str| Refused::Upstream { code, text: text.into() };
    let (backend, gate) = slow(99, true);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.open(2).await;
    client.select_confirms().await;
    // Known at once.
    let outcomes = [
        Outcome::Failed(Refused::Away("rabbit".into())),
        Outcome::Failed(upstream(541, "INTERNAL_ERROR")),
        Outcome::Refused(Refused::Full("queue 'q' is full".into())),
    ];
    for (delivery_tag, outcome) in (1..).zip(outcomes) {
        *gate.outcome.lock() = Some(outcome);
        client.publish(1, "", b"q", b"x").await;
        client.expect(1, basic::Nack { delivery_tag, multiple: false, requeue: false }).await;
        // Without confirms nobody asked, `mandatory` or not.
        client.publish(2, "", b"q", b"x").await;
        client.write(&published(2, "", b"q", true, &NONE, b"x", 131_072)).await;
        client.quiet(2).await;
    }
    // Known later.
    *gate.outcome.lock() = None;
    let outcomes = [
        Outcome::Failed(upstream(541, "INTERNAL_ERROR")),
        Outcome::Refused(Refused::Precondition("user_id is not the account's".into())),
    ];
    for (first, outcome) in (3..).zip(outcomes) {
        client.publish(1, "", b"q", b"x").await;
        client.quiet(1).await;
        gate.ears().0.receipts(&[Receipt { first, count: 1, outcome }]);
        client.expect(1, basic::Nack { delivery_tag: first + 1, multiple: false, requeue: false }).await;
    }
    gate.ears.lock()[1].0.receipts(&[Receipt { first: 0, count: 1, outcome: Outcome::Accepted }]);
    client.quiet(2).await;
    *gate.outcome.lock() = Some(Outcome::Refused(upstream(403, "ACCESS_REFUSED - not for you")));
    client.publish(1, "", b"q", b"x").await;
    assert_eq!(client.channel_error(1, ReplyCode::AccessRefused).await, "ACCESS_REFUSED - not for you");
}

#[tokio::test]
async fn another_brokers_refusal_is_passed_on_as_the_exception_that_its_code_is() {
    let (backend, gate) = slow(99, false);
    let house = house_with(backend, AmqpLimits::default());
    for (code, text) in [
        (ReplyCode::NotFound, "NOT_FOUND - no queue 'q' in vhost 'prod'"),
        (ReplyCode::ResourceLocked, "RESOURCE_LOCKED - upstream"),
        (ReplyCode::NotAllowed, "NOT_ALLOWED - upstream"),
        (ReplyCode::NotImplemented, "NOT_IMPLEMENTED - upstream"),
        (ReplyCode::ChannelError, "CHANNEL_ERROR - upstream"),
    ] {
        *gate.refuses.lock() = Some(Refused::Upstream { code: code.code(), text: text.into() });
        let mut client = house.channel().await;
        client.send(1, declare("q")).await;
        let told = match code.is_hard() {
            true => client.connection_error(code).await,
            false => client.channel_error(1, code).await,
        };
        assert_eq!(told, text);
    }
}

#[tokio::test]
async fn a_stalled_back_end_stops_neither_heartbeats_nor_other_channels() {
    let (backend, gate) = slow(0, false);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.client_with(131_072, 1, &CAPABILITIES).await;
    client.open(1).await;
    client.open(2).await;
    client.send(1, declare("q")).await;
    for _ in 0..3 {
        client.write(&frame::HEARTBEAT).await;
        while client.next().await.expect("the connection lives").kind != FrameKind::Heartbeat {}
        client.quiet(2).await;
    }
    gate.permits.add_permits(1);
    client.skip("DeclareOk").await;
}

#[tokio::test]
async fn a_consumer_that_its_back_end_ends_is_cancelled_where_the_client_wants_to_know() {
    let (backend, gate) = slow(99, false);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.queue("q").await;
    for why in [Ended::Away, Ended::QueueDeleted] {
        client.consume("q", true).await;
        gate.end_last(why);
        client.expect(1, basic::Cancel { consumer_tag: short("c"), no_wait: true }).await;
    }
    let mut untold = house.client_with(131_072, 0, &[]).await;
    untold.open(1).await;
    untold.consume("q", true).await;
    gate.end_last(Ended::Away);
    untold.quiet(1).await;
    *gate.ends_early.lock() = Some(Ended::Away);
    client.consume("q", true).await;
    client.expect(1, basic::Cancel { consumer_tag: short("c"), no_wait: true }).await;
    client.quiet(1).await;
}

#[tokio::test]
async fn a_client_without_heartbeats_is_answered_when_it_closes_however_long_it_was_there() {
    let (backend, gate) = slow(99, false);
    let house = house_with(backend, AmqpLimits::default());
    let close = connection::Close { reply_code: 200, reply_text: short(""), class_id: 0, method_id: 0 };
    let mut client = house.channel().await;
    tokio::time::pause();
    tokio::time::advance(AmqpLimits::default().handshake).await;
    tokio::time::resume();
    client.quiet(1).await;
    client.send(0, close).await;
    client.expect(0, connection::CloseOk {}).await;
    client.is_over().await;
    // A back end that does not let go is not waited for.
    gate.stalls_close.store(true, Ordering::Relaxed);
    let mut client = house.channel().await;
    client.send(0, close).await;
    settled().await;
    tokio::time::pause();
    client.expect(0, connection::CloseOk {}).await;
    client.is_over().await;
}

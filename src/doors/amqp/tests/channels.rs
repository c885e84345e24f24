//! Channels, and what closes them.

use super::*;
use crate::protocol::amqp::{access, tx};

fn close() -> channel::Close<'static> {
    channel::Close { reply_code: 200, reply_text: short("bye"), class_id: 0, method_id: 0 }
}

#[tokio::test]
async fn a_channel_is_opened_closed_and_opened_again() {
    let mut client = house().channel().await;
    client.send(1, close()).await;
    client.expect(1, channel::CloseOk {}).await;
    client.open(1).await;
    client.open(2047).await;
    client
        .send(
            2047,
            access::Request {
                realm: short("/data"),
                exclusive: false,
                passive: true,
                active: true,
                write: true,
                read: true,
            },
        )
        .await;
    client.expect(2047, access::RequestOk { ticket: 1 }).await;
}

#[tokio::test]
async fn opening_twice_or_not_at_all_closes_the_connection() {
    let house = house();
    let mut client = house.channel().await;
    client.send(1, channel::Open {}).await;
    let text = client.connection_error(ReplyCode::ChannelError).await;
    assert_eq!(text, "CHANNEL_ERROR - second 'channel.open' seen");

    let mut client = house.client().await;
    client.send(5, close()).await;
    let text = client.connection_error(ReplyCode::ChannelError).await;
    assert_eq!(text, "CHANNEL_ERROR - expected 'channel.open'");
}

#[tokio::test]
async fn one_channel_more_than_negotiated_is_530() {
    let house = house_with(embedded(), AmqpLimits { channel_max: 2, ..AmqpLimits::default() });
    let mut client = house.raw().await;
    client.log_in(b"\0guest\0guest", &[]).await;
    client.skip("Tune").await;
    client.send(0, connection::TuneOk { channel_max: 2, frame_max: 131_072, heartbeat: 0 }).await;
    client.send(0, connection::Open { virtual_host: short("/") }).await;
    client.expect(0, connection::OpenOk {}).await;
    client.open(1).await;
    client.open(9).await;
    client.send(3, channel::Open {}).await;
    assert_eq!(
        client.connection_error(ReplyCode::NotAllowed).await,
        "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"
    );
}

#[tokio::test]
async fn a_channel_error_closes_that_channel_only_and_discards_until_the_client_agrees() {
    let mut client = house().channel().await;
    client.open(2).await;
    client.send(1, basic::Ack { delivery_tag: 5, multiple: false }).await;
    // All of this is discarded.
    client.send(1, declare("never")).await;
    client.publish(1, "", b"never", b"x").await;
    client.send(1, tx::Select {}).await;
    let got = client.frame().await;
    let Method::Channel(channel::Channel::Close(close)) = got.method() else { panic!("{}", got.shown()) };
    assert_eq!((close.class_id, close.method_id), (60, 80), "the method at fault is named");
    assert_eq!(close.reply_text.as_str(), "PRECONDITION_FAILED - unknown delivery tag 5");
    client.quiet(2).await;
    client.send(1, channel::CloseOk {}).await;
    client.open(1).await;
    client.send(1, queue::Declare { passive: true, ..declare("never") }).await;
    client.channel_error(1, ReplyCode::NotFound).await;
}

#[tokio::test]
async fn flow_can_be_asked_to_go_on_but_not_to_stop() {
    let mut client = house().channel().await;
    client.send(1, channel::Flow { active: true }).await;
    client.expect(1, channel::FlowOk { active: true }).await;
    client.send(1, channel::Flow { active: false }).await;
    assert_eq!(client.connection_error(ReplyCode::NotImplemented).await, "NOT_IMPLEMENTED - active=false");
}

#[tokio::test]
async fn a_method_of_the_servers_own_is_503() {
    let mut client = house().channel().await;
    client.send(1, queue::DeleteOk { message_count: 0 }).await;
    let text = client.connection_error(ReplyCode::CommandInvalid).await;
    assert_eq!(text, "COMMAND_INVALID - unimplemented method");
}

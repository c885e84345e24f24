//! Malformed and forbidden AMQP frames, written by hand.

use linkspan_integration_tests::Server;
use linkspan_integration_tests::amqp_wire::{
    AmqpWire, HEADER, content_header, frame, long, method, short, start_ok,
};
use linkspan_integration_tests::wire::Wire;

use crate::bystander::Bystander;

/// `basic.publish` to the default exchange.
fn publish(key: &str) -> Vec<u8> {
    method(1, 60, 40, &[&[0, 0][..], &short(""), &short(key), &[0]].concat())
}

#[tokio::test]
async fn another_protocol_is_answered_with_our_header_and_closed() {
    let server = Server::start("").await;
    for greeting in [&b"AMQP\x00\x01\x00\x00"[..], b"AMQP\x01\x01\x00\x0a", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut wire = Wire::to(server.amqp()).await;
        wire.send(greeting).await;
        assert_eq!(wire.rest().await, HEADER, "{greeting:?}");
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_the_connection_with_code_and_text() {
    let server = Server::start("[doors.amqp]\nchannel-max = 1\n").await;
    let bystander = Bystander::of(&server).await;
    let mut no_end = frame(1, 1, &[0, 20, 0, 20, 1]);
    *no_end.last_mut().unwrap() = 0;
    let open = |channel: u16| method(channel, 20, 10, &[0]);
    let overrun = [publish("q"), content_header(1, 2), frame(3, 1, b"abc")].concat();
    let rows: [(&str, Vec<u8>, u16, &str); 13] = [
        ("a frame without its end", no_end, 501, "FRAME_ERROR - type 1"),
        (
            "a frame of 200 MiB",
            vec![1, 0, 1, 12, 0x80, 0, 0],
            501,
            "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large",
        ),
        ("a frame of type 9", frame(9, 0, &[]), 501, "FRAME_ERROR"),
        ("a method of no class", method(1, 99, 1, &[]), 540, "NOT_IMPLEMENTED"),
        ("arguments that are cut", method(1, 50, 10, &[0, 0, 9, b'q']), 501, "FRAME_ERROR"),
        (
            "a method on a channel that is not open",
            method(7, 60, 80, &[0; 9]),
            504,
            "CHANNEL_ERROR - expected 'channel.open'",
        ),
        ("a channel opened twice", open(1), 504, "CHANNEL_ERROR - second 'channel.open' seen"),
        (
            "one channel more than channel-max",
            open(9),
            530,
            "NOT_ALLOWED - number of channels opened (1) has reached",
        ),
        ("content that nothing announced", content_header(1, 3), 505, "UNEXPECTED_FRAME"),
        (
            "a method where content has to be",
            [publish("q"), method(1, 20, 20, &[1])].concat(),
            505,
            "UNEXPECTED_FRAME",
        ),
        ("more body than announced", overrun, 501, "FRAME_ERROR"),
        ("content on channel 0", content_header(0, 3), 505, "UNEXPECTED_FRAME"),
        (
            "connection.open again",
            method(0, 10, 40, &[&short("/")[..], &[0, 0]].concat()),
            504,
            "CHANNEL_ERROR",
        ),
    ];
    for (what, bytes, code, start) in rows {
        let mut client = AmqpWire::open(server.amqp()).await;
        client.send(&bytes).await;
        let (channel, got, text) = client.closed().await;
        assert!(channel == 0 && got == code && text.starts_with(start), "{what}: {channel} {got} {text}");
        assert_eq!(client.wire.rest().await, b"", "{what}: and the socket is closed");
    }
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_channel_closes_the_channel_alone() {
    let server = Server::start("[doors.amqp]\nmax-body-size = \"1 MiB\"\n").await;
    let mut client = AmqpWire::open(server.amqp()).await;
    let too_large = [publish("q"), content_header(1, (1 << 20) + 1)].concat();
    let rows: [(&str, Vec<u8>, u16, &str); 3] = [
        (
            "a body over the limit",
            too_large,
            406,
            "PRECONDITION_FAILED - message size 1048577 is larger than configured max size 1048576",
        ),
        (
            "a consumer of no queue",
            method(1, 60, 20, &[&[0, 0][..], &short("none"), &short(""), &[0], &long(&[])].concat()),
            404,
            "NOT_FOUND - no queue 'none' in vhost '/'",
        ),
        (
            "the default exchange deleted",
            method(1, 40, 20, &[&[0, 0][..], &short(""), &[0]].concat()),
            403,
            "ACCESS_REFUSED - operation not permitted on the default exchange",
        ),
    ];
    for (what, bytes, code, text) in rows {
        client.send(&bytes).await;
        assert_eq!(client.closed().await, (1, code, text.to_owned()), "{what}");
        client.send(&method(1, 20, 10, &[0])).await;
        client.expect(20, 11).await;
    }
}

#[tokio::test]
async fn a_bad_login_is_told_why() {
    let server = Server::start("").await;
    let mut client = AmqpWire::greeted(server.amqp()).await;
    client.send(&start_ok("SCRAM", b"")).await;
    let (_, code, text) = client.closed().await;
    assert_eq!(code, 503, "{text}");
    let mut client = AmqpWire::greeted(server.amqp()).await;
    client.send(&start_ok("PLAIN", b"guest")).await;
    let (_, code, text) = client.closed().await;
    assert_eq!(code, 502, "{text}");
    let mut client = AmqpWire::entering(server.amqp(), "guest", "guest", "nowhere").await;
    assert_eq!(client.closed().await, (0, 530, "NOT_ALLOWED - vhost nowhere not found".to_owned()));
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_costs_the_connection() {
    let server = Server::start("[doors.amqp]\nconnect-timeout = \"200ms\"\n").await;
    for part in [0, 4, 8] {
        let mut wire = Wire::to(server.amqp()).await;
        wire.send(&HEADER[..part]).await;
        let answer = wire.rest().await;
        assert_eq!(answer.is_empty(), part < 8, "after {part} bytes");
    }
    AmqpWire::open(server.amqp()).await;
}

#[tokio::test]
async fn a_client_that_misses_its_heartbeats_is_closed() {
    let server = Server::start("").await;
    let mut client = AmqpWire::greeted(server.amqp()).await;
    client.send(&start_ok("PLAIN", b"\0guest\0guest")).await;
    let tune = client.expect(10, 30).await;
    client.send(&method(0, 10, 31, &[&tune[..6], &[0, 1]].concat())).await;
    client.send(&method(0, 10, 40, &[&short("/")[..], &[0, 0]].concat())).await;
    client.expect(10, 41).await;
    let heard = client.wire.rest().await;
    let beats = heard.windows(8).filter(|bytes| *bytes == [8, 0, 0, 0, 0, 0, 0, 0xce]).count();
    assert!(beats >= 1, "the server sent heartbeats itself: {heard:?}");
}

//! Opening, keeping and closing connections.

use super::*;
use crate::protocol::amqp::{TableBuf, connection::Connection as Class};

#[tokio::test]
async fn another_protocol_gets_our_header_and_a_closed_socket() {
    let house = house();
    for greeting in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"AMQP\x00\x01\x00\x00", b"\x10\x0c\x00\x04MQTT"] {
        let mut client = house.raw().await;
        client.write(greeting).await;
        let mut answer = Vec::new();
        client.stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, PROTOCOL_HEADER);
    }
}

#[tokio::test]
async fn the_server_says_what_it_can_do() {
    let mut client = house().raw().await;
    client.write(&PROTOCOL_HEADER).await;
    let got = client.skip("Start").await;
    let Method::Connection(Class::Start(start)) = got.method() else { panic!() };
    assert_eq!((start.version_major, start.version_minor), (0, 9));
    assert_eq!((start.mechanisms, start.locales), (&b"PLAIN AMQPLAIN"[..], &b"en_US"[..]));
    let capabilities = start.server_properties.get("capabilities").unwrap().as_table().unwrap();
    for name in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
    ] {
        assert_eq!(capabilities.get(name).and_then(|value| value.as_bool()), Some(true), "{name}");
    }
    assert_eq!(capabilities.get("direct_reply_to"), None, "what is not there is not claimed");
    client.start_ok("PLAIN", b"\0guest\0guest", &[]).await;
    client.expect(0, connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }).await;
}

#[tokio::test]
async fn amqplain_is_understood_too() {
    let mut client = house().raw().await;
    client.write(&PROTOCOL_HEADER).await;
    client.skip("Start").await;
    let mut response = TableBuf::new();
    response.put("LOGIN", "guest").unwrap().put("PASSWORD", "guest").unwrap();
    client.start_ok("AMQPLAIN", response.as_table().as_bytes(), &[]).await;
    client.skip("Tune").await;
}

#[tokio::test]
async fn a_wrong_password_is_told_only_to_who_wants_to_be_told() {
    let house = house();
    let mut client = house.raw().await;
    client.log_in(b"\0guest\0wrong", &["authentication_failure_close"]).await;
    assert_eq!(
        client.connection_error(ReplyCode::AccessRefused).await,
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker \
         logfile."
    );
    let mut client = house.raw().await;
    client.log_in(b"\0guest\0wrong", &[]).await;
    client.is_over().await;
}

#[tokio::test]
async fn a_mechanism_that_nobody_offered_is_503() {
    let mut client = house().raw().await;
    client.write(&PROTOCOL_HEADER).await;
    client.skip("Start").await;
    client.start_ok("EXTERNAL", b"", &[]).await;
    let text = client.connection_error(ReplyCode::CommandInvalid).await;
    assert_eq!(text, "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'");
}

#[tokio::test]
async fn limits_beyond_the_proposed_ones_are_530() {
    let house = house();
    for (channel_max, frame_max, text) in [
        (2047, 4095, "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        (2047, 131_073, "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
        (2047, 0, "negotiated frame_max = 0 is higher than the maximum allowed value (131072)"),
        (0, 131_072, "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"),
        (2048, 131_072, "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"),
    ] {
        let mut client = house.raw().await;
        client.log_in(b"\0guest\0guest", &[]).await;
        client.skip("Tune").await;
        client.send(0, connection::TuneOk { channel_max, frame_max, heartbeat: 0 }).await;
        assert_eq!(client.connection_error(ReplyCode::NotAllowed).await, format!("NOT_ALLOWED - {text}"));
    }
}

#[tokio::test]
async fn methods_out_of_turn_are_504_and_channels_before_the_opening_505() {
    let house = house();
    let mut client = house.raw().await;
    client.write(&PROTOCOL_HEADER).await;
    client.skip("Start").await;
    client.send(0, connection::Open { virtual_host: short("/") }).await;
    let text = client.connection_error(ReplyCode::ChannelError).await;
    assert_eq!(text, "CHANNEL_ERROR - unexpected method in connection state starting");

    let mut client = house.raw().await;
    client.write(&PROTOCOL_HEADER).await;
    client.skip("Start").await;
    client.send(1, channel::Open {}).await;
    let text = client.connection_error(ReplyCode::UnexpectedFrame).await;
    assert!(text.starts_with("UNEXPECTED_FRAME - type 1"), "{text}");

    let mut client = house.client().await;
    client.send(0, connection::OpenOk {}).await;
    let text = client.connection_error(ReplyCode::ChannelError).await;
    assert_eq!(text, "CHANNEL_ERROR - unexpected method in connection state running");
}

#[tokio::test]
async fn a_new_secret_is_taken() {
    let mut client = house().client().await;
    client.send(0, connection::UpdateSecret { new_secret: b"s", reason: short("expired") }).await;
    client.expect(0, connection::UpdateSecretOk {}).await;
}

#[tokio::test]
async fn the_client_closes_and_what_it_owned_is_gone() {
    let house = house();
    let mut client = house.channel().await;
    client.send(1, queue::Declare { exclusive: true, ..declare("mine") }).await;
    client.skip("DeclareOk").await;
    let close = connection::Close { reply_code: 200, reply_text: short("bye"), class_id: 0, method_id: 0 };
    client.send(0, close).await;
    client.expect(0, connection::CloseOk {}).await;
    client.is_over().await;
    let mut client = house.channel().await;
    client.send(1, queue::Declare { passive: true, ..declare("mine") }).await;
    let text = client.channel_error(1, ReplyCode::NotFound).await;
    assert_eq!(text, "NOT_FOUND - no queue 'mine' in vhost '/'");
}

#[tokio::test]
async fn a_silent_client_gets_heartbeats_and_is_gone_after_two_intervals() {
    let mut client = house().client_with(131_072, 4, &[]).await;
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    let mut beats = 0;
    while let Some(got) = client.next().await {
        assert_eq!((got.kind, got.channel, got.payload.len()), (FrameKind::Heartbeat, 0, 0));
        beats += 1;
    }
    assert_eq!(beats, 3, "one every half interval, until two intervals are over");
    assert!(begin.elapsed() >= Duration::from_secs(8));
}

#[tokio::test]
async fn any_frame_is_a_sign_of_life() {
    let mut client = house().client_with(131_072, 4, &[]).await;
    client.open(1).await;
    tokio::time::pause();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        client.quiet(1).await;
    }
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        client.write(&frame::HEARTBEAT).await;
    }
    client.quiet(1).await;
}

#[tokio::test]
async fn a_client_that_opens_nothing_is_not_waited_for() {
    let mut client = house().raw().await;
    client.write(&PROTOCOL_HEADER).await;
    client.skip("Start").await;
    tokio::time::pause();
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn going_down_is_told() {
    let mut house = house();
    let mut client = house.client().await;
    house.stopper.take().unwrap().stop();
    let text = client.connection_error(ReplyCode::ConnectionForced).await;
    assert_eq!(text, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'");
}

#[tokio::test]
async fn malformed_input_gets_rabbitmqs_code_and_others_notice_nothing() {
    let house = house();
    let mut other = house.channel().await;
    let frame = |kind: u8, channel: u16, payload: &[u8], end: u8| {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame.push(end);
        frame
    };
    let huge = [&[1, 0, 1][..], &200_000u32.to_be_bytes()].concat();
    let rows = [
        (
            frame(1, 1, &[0, 20, 0, 10, 0], 0),
            "FRAME_ERROR - type 1, all octets = <<0,20,0,10,0>>: {invalid_frame_end_marker,0}",
        ),
        (frame(9, 1, b"", 206), "FRAME_ERROR - type 9, all octets = <<>>: unknown_frame"),
        (huge, "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,200000,131064}"),
        (frame(1, 1, &[0, 60, 0, 99], 206), "NOT_IMPLEMENTED - unknown method 99 of class 60"),
        (frame(3, 0, b"x", 206), "UNEXPECTED_FRAME - type 3, all octets = <<>>"),
        (frame(3, 1, b"x", 206), "UNEXPECTED_FRAME - expected method frame, got non method frame instead"),
        (
            frame(1, 0, &[0, 10, 0, 50, 0], 206),
            "FRAME_ERROR - cannot decode all octets = <<0>>: ends inside a field",
        ),
    ];
    for (bytes, text) in rows {
        let mut client = house.client().await;
        client.write(&bytes).await;
        let got = client.frame().await;
        let Method::Connection(Class::Close(close)) = got.method() else { panic!("{}", got.shown()) };
        assert_eq!(close.reply_text.as_str(), text);
        client.send(0, connection::CloseOk {}).await;
        client.is_over().await;
    }
    other.quiet(1).await;
}

#[tokio::test]
async fn random_bytes_never_hang_a_connection() {
    let house = house();
    for seed in 0u32..50 {
        let mut client = house.client().await;
        let noise: Vec<u8> = (0..400u32)
            .map(|i| {
                (seed.wrapping_mul(2_654_435_761).wrapping_add(i.wrapping_mul(i).wrapping_mul(40_503)) >> 13)
                    as u8
            })
            .collect();
        client.write(&noise).await;
        let _ = client.stream.shutdown().await;
        while client.next().await.is_some() {}
    }
}

#[test]
fn the_future_of_a_connection_is_small() {
    async fn pair() -> (crate::doors::listener::Stream, TcpStream) {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listener.address().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (stream, _client) = pair().await;
        let users = Arc::new(Users::new(std::iter::empty()));
        let door = Arc::new(AmqpDoor::new(embedded(), users, Arc::default(), AmqpLimits::default()));
        let (_stopper, stop) = Stop::new();
        let future = crate::doors::Door::serve(door, stream, "127.0.0.1:1".parse().unwrap(), stop);
        let size = size_of_val(&future);
        assert!(size <= 1024, "a task of {size} bytes for every idle connection");
    });
}

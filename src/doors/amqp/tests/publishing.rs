//! `basic.publish`: what is taken, confirmed, returned and refused.

use super::*;
use crate::protocol::amqp::{ArrayBuf, Properties, TableBuf};

fn encoded(properties: Properties<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    properties.encode(&mut out);
    out
}

fn full() -> Vec<u8> {
    let mut headers = TableBuf::new();
    headers.put("n", 1).unwrap().put("n", "twice").unwrap();
    encoded(Properties {
        content_type: Some(bytes(b"text/plain")),
        headers: Some(headers.as_table()),
        delivery_mode: Some(2),
        priority: Some(3),
        correlation_id: Some(bytes(b"c")),
        reply_to: Some(bytes(b"answers")),
        expiration: Some(bytes(b"60000")),
        message_id: Some(bytes(b"m")),
        timestamp: Some(1_700_000_000),
        kind: Some(bytes(b"t")),
        user_id: Some(bytes(b"guest")),
        app_id: Some(bytes(b"a")),
        ..Properties::default()
    })
}

#[tokio::test]
async fn a_message_arrives_as_it_was_sent_however_its_bytes_are_cut() {
    let mut client = house().channel().await;
    client.queue("q").await;
    client.consume("q", true).await;
    let properties = full();
    for size in [0, 1, 100, 5_000, 40_000] {
        let body: Vec<u8> = (0..size).map(|i| i as u8).collect();
        // Frames of 4096 bytes, and cuts everywhere in the first bytes.
        let message = published(1, "", b"q", false, &properties, &body, 4096);
        let step = 1 + message.len() / 2_000;
        for cut in (1..message.len().min(260)).step_by(3 * step).chain([message.len()]) {
            let (first, rest) = message.split_at(cut);
            client.write(first).await;
            tokio::task::yield_now().await;
            client.write(rest).await;
            let got = client.message().await;
            assert_eq!((&got.properties, got.body == body), (&properties, true), "{size} bytes cut at {cut}");
            assert_eq!((&*got.exchange, &*got.key, got.redelivered), ("", &b"q"[..], false));
            assert_eq!((&*got.consumer_tag, &*got.method), ("c", "deliver"));
        }
    }
}

#[tokio::test]
async fn bodies_are_cut_at_the_consumers_frame_max() {
    let house = house();
    let mut client = house.channel().await;
    client.queue("q").await;
    let mut consumer = house.client_with(4096, 0, &[]).await;
    consumer.open(1).await;
    consumer.consume("q", true).await;
    for (size, frames) in [(4088, 1), (4089, 2), (100_000, 25), (1_000_000, 245)] {
        client.publish(1, "", b"q", &vec![7; size]).await;
        let got = consumer.message().await;
        assert!(got.body == vec![7; size]);
        assert_eq!(got.frames, frames, "{size} bytes");
    }
}

#[tokio::test]
async fn messages_of_several_channels_lie_across_each_other() {
    let mut client = house().channel().await;
    client.open(2).await;
    client.queue("q").await;
    client.consume("q", true).await;
    let whole = published(2, "", b"q", false, &NONE, b"whole", 131_072);
    let cut = published(1, "", b"q", false, &NONE, b"cut", 131_072);
    let Decoded::Frame(method) = frame::decode(&cut, 0, &Limits { frame_max: 0, body_max: 9 }).unwrap()
    else {
        panic!()
    };
    let (publish, content) = cut.split_at(method.wire.end());
    client.write(&[publish, &whole, &frame::HEARTBEAT, content].concat()).await;
    assert_eq!(client.bodies(2).await, ["whole", "cut"]);
}

/// The answer that refuses `$SYS.x`.
const RESERVED: &str = "ACCESS_REFUSED - nothing can be published to 'amq.topic' with key '$SYS.x': addresses that begin \
                        with '$' are the server's own";

#[tokio::test]
async fn the_servers_own_addresses_are_refused_with_403_in_every_mode_and_in_order() {
    let mut client = house().channel().await;
    client.queue("q").await;
    let mut headers = TableBuf::new();
    let mut copies = ArrayBuf::new();
    copies.push(crate::protocol::amqp::Value::LongString(b"$SYS.x"));
    headers.put("CC", copies.as_array()).unwrap();
    let copied = encoded(Properties { headers: Some(headers.as_table()), ..Properties::default() });
    let to_queue = |body: &[u8]| published(1, "", b"q", false, &NONE, body, 131_072);
    let refused = published(1, "amq.topic", b"$SYS.x", false, &NONE, b"x", 131_072);
    let in_frames = published(1, "amq.topic", b"$SYS.x", false, &NONE, &[7; 20_000], 4096);
    let as_copy = published(1, "amq.topic", b"a", false, &copied, b"x", 131_072);
    for (at, refused) in (1..).zip([&refused, &in_frames, &as_copy]) {
        client.write(&[to_queue(b"before"), refused.clone(), to_queue(b"behind")].concat()).await;
        assert_eq!(client.channel_error(1, ReplyCode::AccessRefused).await, RESERVED, "{at}");
        client.open(1).await;
        assert_eq!(client.ready("q").await, at, "what came before counts, what came behind does not");
    }
    client.select_confirms().await;
    client.write(&[to_queue(b"before"), refused.clone()].concat()).await;
    client.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    assert_eq!(client.channel_error(1, ReplyCode::AccessRefused).await, RESERVED);
    client.open(1).await;
    client.send(1, crate::protocol::amqp::tx::Select {}).await;
    client.skip("SelectOk").await;
    client.write(&refused).await;
    assert_eq!(client.channel_error(1, ReplyCode::AccessRefused).await, RESERVED);
    client.open(1).await;
    client.publish(1, "amq.direct", b"$SYS.x", b"x").await;
    client.quiet(1).await;
}

#[tokio::test]
async fn confirms_come_in_runs() {
    let mut client = house().channel().await;
    client.queue("q").await;
    client.select_confirms().await;
    let many: Vec<u8> = (0..100).flat_map(|_| published(1, "", b"q", false, &NONE, b"x", 131_072)).collect();
    client.write(&many).await;
    let mut confirmed = 0;
    let mut frames = 0;
    while confirmed < 100 {
        let got = client.frame().await;
        let Method::Basic(Basic::Ack(ack)) = got.method() else { panic!("{}", got.shown()) };
        assert!(ack.delivery_tag > confirmed && (ack.multiple || ack.delivery_tag == confirmed + 1));
        confirmed = ack.delivery_tag;
        frames += 1;
    }
    assert!(frames < 20, "100 confirms took {frames} frames");
    assert_eq!(client.ready("q").await, 100);
}

#[tokio::test]
async fn a_mandatory_message_that_reaches_nobody_comes_back_before_its_confirm() {
    let mut client = house().channel().await;
    client.select_confirms().await;
    for (exchange, key) in [("", &b"nobody"[..]), ("amq.topic", b"a.b"), ("amq.direct", b"k")] {
        client.write(&published(1, exchange, key, true, &full(), b"body", 131_072)).await;
        let got = client.message().await;
        assert_eq!((&*got.method, &*got.exchange, &*got.key), ("return 312 NO_ROUTE", exchange, key));
        assert_eq!((got.body, got.properties), (b"body".to_vec(), full()));
        client.skip("Ack").await;
    }
    let large = vec![1; 100_000];
    client.write(&published(1, "", b"nobody", true, &NONE, &large, 131_072)).await;
    assert!(client.message().await.body == large);
    client.expect(1, basic::Ack { delivery_tag: 4, multiple: false }).await;
    client.publish(1, "", b"nobody", b"dropped").await;
    client.expect(1, basic::Ack { delivery_tag: 5, multiple: false }).await;
}

#[tokio::test]
async fn a_full_queue_that_rejects_is_a_nack() {
    let mut client = house().channel().await;
    let mut arguments = TableBuf::new();
    arguments.put("x-max-length", 1).unwrap().put("x-overflow", "reject-publish").unwrap();
    client.send(1, queue::Declare { arguments: arguments.as_table(), ..declare("q") }).await;
    client.skip("DeclareOk").await;
    client.select_confirms().await;
    client.publish(1, "", b"q", b"1").await;
    client.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    client.publish(1, "", b"q", b"2").await;
    client.expect(1, basic::Nack { delivery_tag: 2, multiple: false, requeue: false }).await;
}

#[tokio::test]
async fn what_came_before_a_publish_that_fails_counts() {
    let mut client = house().channel().await;
    client.open(2).await;
    client.queue("q").await;
    let good = published(1, "", b"q", false, &NONE, b"1", 131_072);
    let bad = published(1, "nope", b"q", false, &NONE, b"2", 131_072);
    client.write(&[&good[..], &good, &bad, &good].concat()).await;
    let text = client.channel_error(1, ReplyCode::NotFound).await;
    assert_eq!(text, "NOT_FOUND - no exchange 'nope' in vhost '/'");
    client.open(1).await;
    assert_eq!(client.ready("q").await, 2, "what came behind it was discarded");
}

#[tokio::test]
async fn properties_that_cannot_be_are_refused() {
    let mut client = house().client().await;
    let expiration = encoded(Properties { expiration: Some(bytes(b"soon")), ..Properties::default() });
    let other = encoded(Properties { user_id: Some(bytes(b"root")), ..Properties::default() });
    for (properties, text) in [
        (expiration, "PRECONDITION_FAILED - invalid expiration 'soon': no_integer"),
        (other, "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'guest'"),
    ] {
        client.open(1).await;
        client.write(&published(1, "", b"q", false, &properties, b"x", 131_072)).await;
        assert_eq!(client.channel_error(1, ReplyCode::PreconditionFailed).await, text);
        client.open(1).await;
        client.write(&published(1, "", b"q", false, &properties, &[0; 9000], 4096)).await;
        assert_eq!(client.channel_error(1, ReplyCode::PreconditionFailed).await, text);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_406_before_it_comes_and_immediate_540() {
    let house = house_with(embedded(), AmqpLimits { body_max: 1000, ..AmqpLimits::default() });
    let mut client = house.channel().await;
    client.publish(1, "", b"q", &[0; 1001]).await;
    assert_eq!(
        client.channel_error(1, ReplyCode::PreconditionFailed).await,
        "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000"
    );
    client.open(1).await;
    let mut out = Vec::new();
    let (exchange, routing_key) = (bytes(b""), bytes(b"q"));
    basic::Publish { exchange, routing_key, mandatory: false, immediate: true }.encode(1, &mut out);
    Content { properties: &NONE, body: b"x" }.encode(1, 131_072, &mut out);
    client.write(&out).await;
    assert_eq!(client.connection_error(ReplyCode::NotImplemented).await, "NOT_IMPLEMENTED - immediate=true");
}

#[tokio::test]
async fn copies_go_to_more_queues_and_blind_ones_are_not_shown() {
    let mut client = house().channel().await;
    for queue in ["a", "b", "c"] {
        client.queue(queue).await;
    }
    let (mut cc, mut bcc) = (ArrayBuf::new(), ArrayBuf::new());
    cc.push("b");
    bcc.push("c");
    let mut headers = TableBuf::new();
    headers.put("CC", cc.as_array()).unwrap().put("BCC", bcc.as_array()).unwrap();
    let properties = encoded(Properties { headers: Some(headers.as_table()), ..Properties::default() });
    for body in [vec![1; 10], vec![2; 50_000]] {
        client.write(&published(1, "", b"a", false, &properties, &body, 131_072)).await;
        for queue in ["a", "b", "c"] {
            client.send(1, basic::Get { queue: short(queue), no_ack: true }).await;
            let got = client.message().await;
            assert!(got.body == body && got.key == b"a");
            let headers = Properties::decode(&got.properties).unwrap().headers.unwrap();
            assert!(headers.get("CC").is_some() && headers.get("BCC").is_none());
        }
    }
}

#[tokio::test]
async fn a_channel_publishes_to_more_addresses_than_it_remembers() {
    let mut client = house().channel().await;
    client.queue("q").await;
    client
        .send(
            1,
            queue::Bind {
                queue: short("q"),
                exchange: short("amq.topic"),
                routing_key: short("#"),
                no_wait: false,
                arguments: Table::EMPTY,
            },
        )
        .await;
    client.expect(1, queue::BindOk {}).await;
    let mut all = Vec::new();
    for i in 0..10_000 {
        all.extend(published(1, "amq.topic", format!("k.{i}").as_bytes(), false, &NONE, b"x", 131_072));
    }
    client.write(&all).await;
    assert_eq!(client.ready("q").await, 10_000);
    client.consume("q", true).await;
    for i in 0..10_000 {
        let got = client.message().await;
        assert_eq!((&*got.exchange, got.key), ("amq.topic", format!("k.{i}").into_bytes()));
    }
}

#[tokio::test]
async fn what_stands_before_a_large_message_goes_where_it_was_sent_when_addresses_are_forgotten() {
    let mut client = house().channel().await;
    client.queue("q").await;
    client.queue("large").await;
    // As many as a channel remembers: the address of the large message is one too many.
    let mut all = Vec::new();
    for i in 0..4095 {
        all.extend(published(1, "", format!("k.{i}").as_bytes(), false, &NONE, b"x", 131_072));
    }
    all.extend(published(1, "", b"q", false, &NONE, b"first", 131_072));
    client.write(&all).await;
    assert_eq!(client.ready("q").await, 1);
    let small = published(1, "", b"q", false, &NONE, b"second", 131_072);
    let large = published(1, "", b"large", false, &NONE, &[7; 40_000], 131_072);
    client.write(&[small, large].concat()).await;
    assert_eq!(client.ready("large").await, 1);
    assert_eq!(client.ready("q").await, 2);
    client.consume("q", true).await;
    assert_eq!(client.bodies(2).await, ["first", "second"]);
}

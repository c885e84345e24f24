//! Bytes that another codec wrote: the Python client pika 1.4.4, with [`connection.open`](connection::Open)'s bits left
//! out, which it sets.

use super::{
    super::{
        Address, Array, Content, Decimal, Delivery, Fetched, Method, Properties, Publish, Returned,
        ShortBytes, ShortString, Table, TableBuf, Value, basic, channel, confirm, connection, exchange,
        header::PROTOCOL_HEADER, queue, tx,
    },
    ROOMY,
};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

fn s(text: &str) -> ShortString<'_> {
    ShortString::new(text).unwrap()
}

fn b(text: &str) -> ShortBytes<'_> {
    ShortBytes::try_from(text).unwrap()
}

fn table<'a>(entries: &[(&str, Value<'a>)]) -> TableBuf {
    let mut table = TableBuf::new();
    for (name, value) in entries {
        table.put(name, *value).unwrap();
    }
    table
}

fn same<'a>(method: impl Into<Method<'a>>, channel: u16, hex: &str) {
    let method = method.into();
    let captured = bytes(hex);
    let mut out = vec![];
    method.encode(channel, &mut out);
    assert_eq!(out, captured, "{}", method.id());
    assert_eq!(Method::decode(&captured[7..captured.len() - 1]), Ok(method));
}

#[test]
#[rustfmt::skip]
fn methods_are_the_bytes_that_pika_writes() {
    let confirms = table(&[("publisher_confirms", Value::Bool(true))]);
    let product = table(&[("product", "RabbitMQ".into()), ("capabilities", confirms.as_table().into())]);
    let client = table(&[("product", "x".into())]);
    let alternate = table(&[("alternate-exchange", "ae".into())]);
    let limits = table(&[("x-max-priority", 10.into()), ("x-message-ttl", 60_000.into())]);
    let priority = table(&[("x-priority", Value::I32(-1))]);

    same(connection::Start { version_major: 0, version_minor: 9, server_properties: product.as_table(), mechanisms: b"PLAIN AMQPLAIN", locales: b"en_US" }, 0, "01000000000061000a000a00090000003c0770726f6475637453000000085261626269744d510c6361706162696c69746965734600000015127075626c69736865725f636f6e6669726d7374010000000e504c41494e20414d51504c41494e00000005656e5f5553ce");
    same(connection::StartOk { client_properties: client.as_table(), mechanism: s("PLAIN"), response: b"\0guest\0guest", locale: s("en_US") }, 0, "01000000000032000a000b0000000e0770726f6475637453000000017805504c41494e0000000c00677565737400677565737405656e5f5553ce");
    same(connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }, 0, "0100000000000c000a001e07ff00020000003cce");
    same(connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }, 0, "0100000000000c000a001f07ff00020000003cce");
    same(connection::OpenOk {}, 0, "01000000000005000a002900ce");
    same(connection::Close { reply_code: 320, reply_text: s("CONNECTION_FORCED - bye"), class_id: 0, method_id: 0 }, 0, "01000000000022000a0032014017434f4e4e454354494f4e5f464f52434544202d2062796500000000ce");
    same(connection::CloseOk {}, 0, "01000000000004000a0033ce");
    same(connection::Blocked { reason: s("low on memory") }, 0, "01000000000012000a003c0d6c6f77206f6e206d656d6f7279ce");
    same(connection::Unblocked {}, 0, "01000000000004000a003dce");
    same(connection::UpdateSecret { new_secret: b"s3cret", reason: s("expiry") }, 0, "01000000000015000a00460000000673336372657406657870697279ce");
    same(channel::Open {}, 1, "010001000000050014000a00ce");
    same(channel::OpenOk {}, 1, "010001000000080014000b00000000ce");
    same(channel::Flow { active: true }, 1, "010001000000050014001401ce");
    same(channel::Close { reply_code: 404, reply_text: s("NOT_FOUND"), class_id: 50, method_id: 10 }, 1, "01000100000014001400280194094e4f545f464f554e440032000ace");
    same(exchange::Declare { exchange: s("logs"), kind: s("topic"), passive: false, durable: true, auto_delete: false, internal: true, no_wait: false, arguments: alternate.as_table() }, 1, "010001000000300028000a0000046c6f677305746f7069630a0000001a12616c7465726e6174652d65786368616e676553000000026165ce");
    same(exchange::Bind { destination: s("d"), source: s("s"), routing_key: s("k.#"), no_wait: false, arguments: Table::EMPTY }, 1, "010001000000130028001e000001640173036b2e230000000000ce");
    same(queue::Declare { queue: s("jobs"), passive: false, durable: true, exclusive: false, auto_delete: true, no_wait: false, arguments: limits.as_table() }, 1, "010001000000370032000a0000046a6f62730a000000270e782d6d61782d7072696f72697479490000000a0d782d6d6573736167652d74746c490000ea60ce");
    same(queue::DeclareOk { queue: s("jobs"), message_count: 3, consumer_count: 2 }, 1, "010001000000110032000b046a6f62730000000300000002ce");
    same(queue::Bind { queue: s("q"), exchange: s("amq.topic"), routing_key: s("a.*.b"), no_wait: false, arguments: Table::EMPTY }, 1, "0100010000001d003200140000017109616d712e746f70696305612e2a2e620000000000ce");
    same(queue::Delete { queue: s("q"), if_unused: false, if_empty: true, no_wait: false }, 1, "01000100000009003200280000017102ce");
    same(queue::Unbind { queue: s("q"), exchange: s("e"), routing_key: s("k"), arguments: Table::EMPTY }, 1, "0100010000001000320032000001710165016b00000000ce");
    same(basic::Qos { prefetch_size: 0, prefetch_count: 10, global: true }, 1, "0100010000000b003c000a00000000000a01ce");
    same(basic::Consume { queue: s("q"), consumer_tag: s("ctag1"), no_local: false, no_ack: true, exclusive: true, no_wait: false, arguments: priority.as_table() }, 1, "01000100000023003c00140000017105637461673106000000100a782d7072696f7269747949ffffffffce");
    same(basic::Cancel { consumer_tag: s("ctag1"), no_wait: true }, 1, "0100010000000b003c001e05637461673101ce");
    same(basic::Get { queue: s("q"), no_ack: true }, 1, "01000100000009003c00460000017101ce");
    same(basic::GetEmpty {}, 1, "01000100000005003c004800ce");
    same(basic::Ack { delivery_tag: 7, multiple: true }, 1, "0100010000000d003c0050000000000000000701ce");
    same(basic::Nack { delivery_tag: 8, multiple: true, requeue: false }, 1, "0100010000000d003c0078000000000000000801ce");
    same(basic::Reject { delivery_tag: 9, requeue: true }, 1, "0100010000000d003c005a000000000000000901ce");
    same(basic::Recover { requeue: true }, 1, "01000100000005003c006e01ce");
    same(confirm::Select { no_wait: true }, 1, "010001000000050055000a01ce");
    same(tx::Commit {}, 1, "01000100000004005a0014ce");
}

#[test]
fn a_connection_is_opened_with_the_bit_that_pika_sets_ignored() {
    let captured = bytes("01000000000008000a0028012f0001ce");
    let open = connection::Open { virtual_host: s("/") };
    assert_eq!(Method::decode(&captured[7..captured.len() - 1]), Ok(open.into()));
    assert_eq!(PROTOCOL_HEADER, *bytes("414d515000000901"));
}

const PUBLISH: &str = "01000100000015003c0028000009616d712e746f70696303612e6201ce02000100000040003c00000000000000000005b900\
     0a746578742f706c61696e0000001b024343410000000c530000000161530000000162016e49000000010205053630303030\
     ce0300010000000568656c6c6fce";

const DELIVER: &str = "01000300000021003c003c056374616731000000000000002a0109616d712e746f70696303612e62ce02000300000040003c\
     00000000000000000005b9000a746578742f706c61696e0000001b024343410000000c530000000161530000000162016e49\
     000000010205053630303030ce0300030000000568656c6c6fce";

const GET_OK: &str = "0100030000001f003c0047000000000000002a0009616d712e746f70696303612e6200000009ce0200030000000e003c0000\
     00000000000000000000ce";

const RETURN: &str = "01000300000015003c00320138084e4f5f524f55544500046a6f6273ce0200030000000e003c000000000000000000000000\
     ce";

#[test]
fn a_publish_becomes_the_delivery_that_pika_writes() {
    let received = bytes(PUBLISH);
    let publish = Publish::recognise(&received, 0, &ROOMY).unwrap();
    assert_eq!((publish.channel, publish.mandatory, publish.immediate), (1, true, false));
    assert_eq!(publish.exchange().of(&received), Some(&b"amq.topic"[..]));
    assert_eq!(publish.routing_key().of(&received), Some(&b"a.b"[..]));
    assert_eq!(publish.body.of(&received), Some(&b"hello"[..]));
    assert_eq!(publish.wire.of(&received), Some(&received[..]));

    let delivery = Delivery {
        channel: 3,
        consumer_tag: b("ctag1"),
        delivery_tag: 42,
        redelivered: true,
        address: publish.address_in(&received).unwrap(),
    };
    let content = Content {
        properties: publish.properties.of(&received).unwrap(),
        body: publish.body.of(&received).unwrap(),
    };
    let mut out = vec![];
    delivery.encode(&content, 131_072, &mut out);
    assert_eq!(out, bytes(DELIVER));
}

#[test]
fn messages_fetched_and_returned_are_the_bytes_that_pika_writes() {
    let content = Content { properties: &[0, 0], body: &[] };
    let (mut buffer, mut out) = (vec![], vec![]);
    let address = Address::encode(b("amq.topic"), b("a.b"), &mut buffer);
    Fetched { channel: 3, delivery_tag: 42, redelivered: false, address, message_count: 9 }
        .encode(&content, 131_072, &mut out);
    assert_eq!(out, bytes(GET_OK));

    out.clear();
    let address = Address::encode(ShortBytes::EMPTY, b("jobs"), &mut buffer);
    Returned { channel: 3, reply_code: 312, reply_text: s("NO_ROUTE"), address }
        .encode(&content, 131_072, &mut out);
    assert_eq!(out, bytes(RETURN));
}

#[test]
fn all_properties_are_the_bytes_that_pika_writes() {
    let headers = table(&[("k", "v".into())]);
    let properties = Properties {
        content_type: Some(b("a")),
        content_encoding: Some(b("b")),
        headers: Some(headers.as_table()),
        delivery_mode: Some(1),
        priority: Some(0),
        correlation_id: Some(b("c")),
        reply_to: Some(b("d")),
        expiration: Some(b("1")),
        message_id: Some(b("e")),
        timestamp: Some(1_700_000_000),
        kind: Some(b("f")),
        user_id: Some(b("g")),
        app_id: Some(b("h")),
        cluster_id: Some(b("i")),
    };
    let captured =
        bytes("fffc0161016200000008016b53000000017601000163016401310165000000006553f1000166016701680169");
    let mut out = vec![];
    properties.encode(&mut out);
    assert_eq!(out, captured);
    assert_eq!(Properties::decode(&captured), Ok(properties));
}

#[test]
fn a_table_that_pika_writes_is_read() {
    let captured = bytes(
        "0000007901747401014949fffffffb016c6c000001000000000001535300000004746578740178780000000200ff01565601\
     4444020000013a015454000000006553f1000141410000001d4900000001530000000374776f460000000b05746872656549\
     000000030146460000000e02696e4600000006036e65727400",
    );
    let table = Table::new(&captured[4..]).unwrap();
    let expected = [
        ("t", Value::Bool(true)),
        ("I", Value::I32(-5)),
        ("l", Value::I64(1 << 40)),
        ("S", "text".into()),
        ("x", Value::Bytes(&[0, 255])),
        ("V", Value::Void),
        ("D", Value::Decimal(Decimal { scale: 2, value: 314 })),
        ("T", Value::Timestamp(1_700_000_000)),
    ];
    for ((name, value), (found_name, found)) in expected.iter().zip(table) {
        assert_eq!((found_name, found), (b(name), *value));
    }
    let Some(Value::Array(array)) = table.get("A") else { panic!("{table:?}") };
    let values: Vec<Value<'_>> = Array::iter(array).collect();
    assert_eq!(values[..2], [Value::I32(1), "two".into()]);
    assert_eq!(values[2].as_table().and_then(|inner| inner.get("three")), Some(Value::I32(3)));
    let inner =
        table.get("F").and_then(Value::as_table).and_then(|outer| outer.get("in")).and_then(Value::as_table);
    assert_eq!(inner.and_then(|inner| inner.get("ner")), Some(Value::Bool(false)));
}

#[test]
fn an_ack_is_a_frame_of_21_bytes() {
    let mut out = vec![];
    basic::Ack { delivery_tag: 1, multiple: false }.encode(1, &mut out);
    assert_eq!(out.len(), 21);
}

//! Received bytes as an AMQP connection reads them. Nothing panics; whatever decodes encodes and decodes to the same
//! again; the short way for publishes agrees with the general one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use linkspan::protocol::amqp::{
    Address, Assembly, Content, ContentHeader, Delivery, Greeting, Limits, Method, MethodId, Part,
    Properties, Publish, ShortBytes, Summary, Table, Value, basic,
    frame::{self, Decoded},
};

const LIMITS: Limits = Limits { frame_max: 4096, body_max: 16_384 };

fuzz_target!(|received: &[u8]| {
    let _ = Greeting::decode(received);
    let mut assembly = Assembly::default();
    let mut at = 0;
    loop {
        if assembly.is_idle()
            && let Some(publish) = Publish::recognise(received, at, &LIMITS)
        {
            short_way(received, at, &publish);
        }
        let Ok(Decoded::Frame(frame)) = frame::decode(received, at, &LIMITS) else { break };
        assert_eq!(frame.payload_span().of(received), Some(frame.payload));
        at = frame.wire.end();
        match assembly.accept(&frame, &LIMITS) {
            Ok(Part::Method(method)) => round_trip(frame.channel, &method),
            Ok(Part::Header { header, .. }) => header_round_trip(frame.channel, &header),
            Ok(Part::Body { .. }) => (),
            Err(error) => assert!(error.reply_text().len() <= 255, "a reply text is a short string"),
        }
    }
    assert!(at <= received.len());
});

fn round_trip(channel: u16, method: &Method<'_>) {
    let mut out = Vec::new();
    method.encode(channel, &mut out);
    assert_eq!(Method::decode(&out[frame::HEAD..out.len() - 1]).as_ref(), Ok(method));
    // Debug walks every table to its leaves.
    let _ = format!("{method:?}");
}

fn header_round_trip(channel: u16, header: &ContentHeader<'_>) {
    let mut out = Vec::new();
    header.encode(channel, &mut out);
    let publish = MethodId { class: 60, method: 40 };
    assert_eq!(ContentHeader::decode(&out[frame::HEAD..out.len() - 1], publish).as_ref(), Ok(header));

    let summary = Summary::scan(header.properties);
    let Ok(properties) = Properties::decode(header.properties) else {
        assert!(summary.is_err(), "the summary takes what the properties refuse");
        return;
    };
    assert_eq!(summary.map(|summary| summary.headers), Ok(properties.headers.is_some()));
    let mut again = Vec::new();
    properties.encode(&mut again);
    assert_eq!(Properties::decode(&again), Ok(properties));
    walk(properties.headers.unwrap_or_default());
}

fn walk(table: Table<'_>) {
    for (_, value) in table {
        if let Value::Table(inner) = value {
            assert_eq!(Table::new(inner.as_bytes()), Ok(inner), "what a checked table holds is checked");
            walk(inner);
        }
    }
}

/// The message that was recognised, written as a delivery, must be what the frames of the publish say.
fn short_way(received: &[u8], start: usize, publish: &Publish) {
    assert_eq!(publish.wire.start as usize, start);
    let address = publish.address.of(received).and_then(Address::new).expect("two short strings");
    let properties = publish.properties.of(received).expect("within the buffer");
    let body = publish.body.of(received).expect("within the buffer");

    let mut assembly = Assembly::default();
    let mut at = start;
    while at < publish.wire.end() {
        let Ok(Decoded::Frame(frame)) = frame::decode(received, at, &LIMITS) else { panic!("not a frame") };
        assert_eq!(frame.channel, publish.channel);
        match assembly.accept(&frame, &LIMITS) {
            Ok(Part::Method(Method::Basic(basic::Basic::Publish(method)))) => {
                assert_eq!(
                    (method.exchange, method.routing_key),
                    (address.exchange(), address.routing_key())
                );
                assert_eq!((method.mandatory, method.immediate), (publish.mandatory, publish.immediate));
            }
            Ok(Part::Header { header, .. }) => assert_eq!(header.properties, properties),
            Ok(Part::Body { chunk, offset: 0, last: true }) => assert_eq!(chunk, body),
            other => panic!("{other:?} in a recognised message"),
        }
        at = frame.wire.end();
    }
    assert!(assembly.is_idle() && at == publish.wire.end());

    let consumer_tag = ShortBytes::EMPTY;
    let delivery = Delivery { channel: 1, consumer_tag, delivery_tag: 1, redelivered: false, address };
    let content = Content { properties, body };
    let mut out = Vec::new();
    delivery.encode(&content, LIMITS.frame_max, &mut out);
    assert_eq!(out.len(), delivery.length(&content, LIMITS.frame_max));
}

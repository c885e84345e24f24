//! Received bytes as an MQTT connection reads them. Nothing panics; however the bytes are split, the packets are the
//! same; whatever decodes encodes and decodes to the same again; the short way for messages agrees with the general one.
//!
//! The first byte of the input says for which version and end the rest is meant, and into which pieces it is split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use linkspan::protocol::mqtt::{
    Connack, Error, Frame, Framing, Packet, PacketType, PublishEncoder, PublishProperties, Publishes, Sender,
    Version, check_topic_filter, check_topic_name,
};

const LIMIT: u32 = 16_384;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, received)) = input.split_first() else { return };
    let version = if choice & 1 == 0 { Version::V311 } else { Version::V5 };
    let sender = if choice & 2 == 0 { Sender::Client } else { Sender::Server };

    let whole = frames(received);
    assert_eq!(frames_in_pieces(received, usize::from(choice >> 2) + 1), whole, "a split changes nothing");

    let mut at = 0;
    for len in whole.0 {
        let Ok(Framing::Complete(frame)) = Framing::read(&received[at..], LIMIT) else {
            panic!("framed before")
        };
        assert_eq!(frame.wire.len(), len);
        packet(&frame, version, sender);
        at += len;
    }
    run(received, version, sender);
    let _ = check_topic_name(received);
    let _ = str::from_utf8(received).map(check_topic_filter);
});

/// The lengths of all whole packets, and what came then: nothing, a part of a packet, or an error.
type Frames = (Vec<usize>, Option<Result<Option<usize>, Error>>);

fn frames(mut received: &[u8]) -> Frames {
    let mut lengths = Vec::new();
    loop {
        match Framing::read(received, LIMIT) {
            Ok(Framing::Complete(frame)) => {
                lengths.push(frame.wire.len());
                received = &received[frame.wire.len()..];
            }
            Ok(Framing::Incomplete { .. }) if received.is_empty() => return (lengths, None),
            Ok(Framing::Incomplete { needed }) => return (lengths, Some(Ok(needed))),
            Err(error) => return (lengths, Some(Err(error))),
        }
    }
}

/// The same, the bytes arriving `size` at a time.
fn frames_in_pieces(received: &[u8], size: usize) -> Frames {
    let mut buffer = Vec::new();
    let mut lengths = Vec::new();
    let mut end = None;
    for piece in received.chunks(size) {
        buffer.extend_from_slice(piece);
        let (whole, then) = frames(&buffer);
        buffer.drain(..whole.iter().sum::<usize>());
        lengths.extend(whole);
        end = then;
        if let Some(Err(_)) = end {
            break;
        }
    }
    (lengths, end)
}

fn packet(frame: &Frame<'_>, version: Version, sender: Sender) {
    let decoded = Packet::decode(frame, version, sender);
    if frame.packet_type == PacketType::Publish {
        let mut run = Publishes::new(frame.wire, version, sender, LIMIT);
        match (&decoded, run.next()) {
            (Ok(Packet::Publish(publish)), Some(Ok(spans))) => {
                assert_eq!(spans.topic.of(frame.wire), publish.topic.as_bytes());
                assert_eq!(spans.payload.of(frame.wire), publish.payload);
                assert_eq!(spans.message_expiry_interval, publish.properties.message_expiry_interval);
                assert_eq!(spans.topic_alias, publish.properties.topic_alias);
                assert_eq!(run.position(), frame.wire.len());
            }
            (Err(slow), Some(Err(fast))) => assert_eq!(*slow, fast),
            other => panic!("two opinions: {other:?}"),
        }
    }
    match decoded {
        Err(error) => refusal(frame, &error),
        Ok(packet) => {
            let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
            round_trip(&packet, version, sender);
        }
    }
}

fn round_trip(packet: &Packet<'_>, version: Version, sender: Sender) {
    let mut out = Vec::new();
    packet.encode(version, &mut out).expect("what was decoded can be said");
    let Ok(Framing::Complete(frame)) = Framing::read(&out, u32::MAX) else {
        panic!("not a packet: {out:02x?}")
    };
    assert_eq!(frame.wire.len(), out.len());
    assert_eq!(Packet::decode(&frame, version, sender).as_ref(), Ok(packet));
    // Debug walks every list to its end.
    let _ = format!("{packet:?}");
}

fn refusal(frame: &Frame<'_>, error: &Error) {
    assert!(error.reason().is_error());
    if frame.packet_type == PacketType::Connect
        && let Some((version, connack)) = Connack::refusal(frame.body(), error)
    {
        round_trip(&Packet::Connack(connack), version, Sender::Server);
    }
}

/// Messages at the front, forwarded as the server does: the receiver must read what the sender wrote.
fn run(received: &[u8], version: Version, sender: Sender) {
    for publish in Publishes::new(received, version, sender, LIMIT) {
        let Ok(publish) = publish else { break };
        let topic = match publish.topic.of(received) {
            b"" => b"aliased",
            topic => topic,
        };
        let encoder = PublishEncoder {
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            packet_id: publish.packet_id,
            properties: publish.properties.of(received),
            properties_are_plain: publish.has_plain_properties(),
            message_expiry_interval: publish.message_expiry_interval,
            ..PublishEncoder::new(version)
        };
        let mut out = Vec::new();
        encoder
            .encode(&mut out, topic, publish.payload.of(received))
            .expect("what was read can be forwarded");
        assert_eq!(encoder.encoded_len(topic.len(), publish.payload.len as usize), Ok(out.len()));

        let mut forwarded = Publishes::new(&out, version, Sender::Server, u32::MAX);
        let Some(Ok(spans)) = forwarded.next() else { panic!("not a message: {out:02x?}") };
        assert_eq!(spans.topic.of(&out), topic);
        assert_eq!(spans.payload.of(&out), publish.payload.of(received));
        assert_eq!((spans.topic_alias, spans.has_subscription_identifiers), (None, false));
        assert_eq!(spans.message_expiry_interval, publish.message_expiry_interval);
        let sent = PublishProperties::from_encoded(publish.properties.of(received)).expect("it was checked");
        let arrived = PublishProperties::from_encoded(spans.properties.of(&out)).expect("it was checked");
        assert_eq!(arrived.user_properties, sent.user_properties);
        assert_eq!(arrived.correlation_data, sent.correlation_data);
        assert_eq!(arrived.response_topic, sent.response_topic);
        assert_eq!(arrived.content_type, sent.content_type);
    }
}

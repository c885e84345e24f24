//! The server's own path for messages: spans out of a read buffer, packets into an outbound one.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::{collection::vec, option, prelude::*};

use super::packets;
use crate::protocol::mqtt::*;

const LIMIT: u32 = 1 << 20;

fn only(bytes: &[u8], version: Version, sender: Sender) -> Result<PublishSpans, Error> {
    Publishes::new(bytes, version, sender, LIMIT).next().expect("a whole PUBLISH")
}

fn swap(byte: u8) -> u8 {
    match byte {
        b'.' => b'/',
        b'/' => b'.',
        other => other,
    }
}

proptest! {
    #[test]
    fn spans_say_what_the_decoded_packet_says(all in vec(packets::publish(Version::V5, Sender::Server), 1..6)) {
        let mut wire = Vec::new();
        for publish in &all {
            Packet::Publish(*publish).encode(Version::V5, &mut wire).unwrap();
        }
        let mut run = Publishes::new(&wire, Version::V5, Sender::Server, LIMIT);
        for publish in &all {
            let spans = run.next().unwrap().unwrap();
            prop_assert_eq!(spans.topic.of(&wire), publish.topic.as_bytes());
            prop_assert_eq!(spans.payload.of(&wire), publish.payload);
            prop_assert_eq!(PublishProperties::from_encoded(spans.properties.of(&wire)), Ok(publish.properties));
            prop_assert_eq!((spans.qos, spans.dup, spans.retain), (publish.qos, publish.dup, publish.retain));
            prop_assert_eq!(spans.packet_id, publish.packet_id);
            let properties = publish.properties;
            prop_assert_eq!(spans.message_expiry_interval, properties.message_expiry_interval);
            prop_assert_eq!(spans.topic_alias, properties.topic_alias);
            let identifiers = properties.subscription_identifiers.iter().count() > 0;
            prop_assert_eq!(spans.has_subscription_identifiers, identifiers);
            let others = properties.payload_format_indicator.is_some()
                || properties.response_topic.is_some()
                || properties.correlation_data.is_some()
                || properties.content_type.is_some()
                || !properties.user_properties.is_empty();
            prop_assert_eq!(spans.has_other_properties, others);
            let mut own = Vec::new();
            Packet::Publish(*publish).encode(Version::V5, &mut own).unwrap();
            prop_assert_eq!(spans.wire.of(&wire), &own[..]);
        }
        prop_assert_eq!(run.next(), None);
        prop_assert_eq!(run.position(), wire.len());
    }

    #[test]
    fn a_forwarded_message_keeps_its_properties_and_gets_the_connections(
        publish in packets::publish(Version::V5, Sender::Server),
        version in prop_oneof![Just(Version::V311), Just(Version::V5)],
        expiry in option::of(any::<u32>()),
        alias in option::of(any::<NonZeroU16>()),
        identifiers in vec((1u32..=VARIABLE_BYTE_INTEGER_MAX).prop_filter_map("0", NonZeroU32::new), 0..3),
    ) {
        let mut list = Vec::new();
        publish.properties.append(&mut list).unwrap();
        let properties = publish.properties;
        let encoder = PublishEncoder {
            version,
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            packet_id: publish.packet_id,
            properties: &list,
            properties_are_plain: properties.message_expiry_interval.is_none()
                && properties.topic_alias.is_none()
                && properties.subscription_identifiers.iter().next().is_none(),
            message_expiry_interval: expiry,
            topic_alias: alias,
            subscription_identifiers: &identifiers,
        };
        let topic = if publish.topic.is_empty() { "t" } else { publish.topic };
        let mut out = vec![9];
        encoder.encode(&mut out, topic.as_bytes(), publish.payload).unwrap();
        prop_assert_eq!(encoder.encoded_len(topic.len(), publish.payload.len()), Ok(out.len() - 1));

        let Packet::Publish(sent) = super::decode(&out[1..], version, Sender::Server).unwrap() else {
            panic!("no PUBLISH")
        };
        let expected = match version {
            Version::V311 => PublishProperties::default(),
            Version::V5 => PublishProperties {
                message_expiry_interval: expiry,
                topic_alias: alias,
                subscription_identifiers: sent.properties.subscription_identifiers,
                ..properties
            },
        };
        prop_assert_eq!(sent, Publish { topic, properties: expected, ..publish });
        if version == Version::V5 {
            prop_assert!(sent.properties.subscription_identifiers.iter().eq(identifiers.iter().copied()));
        }

        let mut head = vec![9];
        encoder.encode_head(&mut head, topic.as_bytes(), |byte| byte, publish.payload.len()).unwrap();
        head.extend_from_slice(publish.payload);
        prop_assert_eq!(&head, &out);

        let swapped: Vec<u8> = topic.bytes().map(swap).collect();
        let mut mapped = vec![9];
        encoder.encode_mapped(&mut mapped, &swapped, swap, publish.payload).unwrap();
        prop_assert_eq!(mapped, out);
    }
}

#[test]
fn the_vector_grows_by_what_the_packet_needs() {
    let mut out = Vec::new();
    PublishEncoder::new(Version::V311).encode(&mut out, b"a/b", &[0; 16]).unwrap();
    assert_eq!((out.len(), out.capacity()), (23, 23));
}

#[test]
fn an_error_of_the_encoder_appends_nothing() {
    let mut out = vec![7];
    let mut encoder = PublishEncoder::new(Version::V5);
    assert_eq!(encoder.encode(&mut out, &[b'a'; 65_536], b""), Err(Error::FieldTooLong(65_536)));
    assert!(matches!(
        encoder.encode_head(&mut out, b"a", |byte| byte, 268_435_455),
        Err(Error::PacketTooLarge { size: 268_435_464, .. })
    ));
    encoder.qos = Qos::AtLeastOnce;
    assert_eq!(encoder.encode(&mut out, b"a", b""), Err(Error::PacketIdentifierZero));
    encoder.qos = Qos::AtMostOnce;
    let identifier = [NonZeroU32::MAX];
    encoder.subscription_identifiers = &identifier;
    assert_eq!(encoder.encode(&mut out, b"a", b""), Err(Error::VariableByteInteger));
    encoder.subscription_identifiers = &[];
    encoder.properties_are_plain = false;
    encoder.properties = &[0x26, 0, 1];
    assert_eq!(encoder.encode(&mut out, b"a", b""), Err(Error::Truncated));
    assert_eq!(out, [7]);
}

#[test]
fn a_run_stops_at_another_packet_and_at_an_error() {
    let bytes = [0x30, 3, 0, 1, b'a', 0xC0, 0, 0x30, 3, 0, 1, b'b'];
    let mut run = Publishes::new(&bytes, Version::V311, Sender::Client, LIMIT);
    assert_eq!(run.by_ref().count(), 1);
    assert_eq!(run.position(), 5);

    let bytes = [0x30, 3, 0, 1, b'a', 0x30, 3, 0, 1, b'#', 0x30, 3, 0, 1, b'b'];
    let mut run = Publishes::new(&bytes, Version::V311, Sender::Client, LIMIT);
    assert!(run.next().unwrap().is_ok());
    assert_eq!(run.next(), Some(Err(Error::TopicNameWildcard)));
    assert_eq!(run.next(), None);
    assert_eq!(run.position(), 5);
}

#[test]
fn a_message_over_the_maximum_packet_size_is_refused_before_it_has_arrived_mqtt_3_2_2_15() {
    let mut run = Publishes::new(&[0x30, 0xFF, 0xFF, 0x7F], Version::V311, Sender::Client, LIMIT);
    assert_eq!(run.next(), Some(Err(Error::PacketTooLarge { size: 2_097_155, maximum: LIMIT })));
}

/// A PUBLISH of QoS 0 to `t` with this list of properties.
fn with_list(list: &[u8]) -> Vec<u8> {
    super::with_header(0x30, &[&[0, 1, b't', list.len() as u8][..], list].concat())
}

#[test]
fn properties_are_checked_in_place() {
    let cases: &[(&[u8], Error)] = &[
        (&[0x01, 2], Error::PropertyValue(PropertyIdentifier::PayloadFormatIndicator)),
        (&[0x01, 0, 0x01, 0], Error::DuplicateProperty(PropertyIdentifier::PayloadFormatIndicator)),
        (&[0x02, 0, 0, 0], Error::Truncated),
        (
            &[0x02, 0, 0, 0, 1, 0x02, 0, 0, 0, 1],
            Error::DuplicateProperty(PropertyIdentifier::MessageExpiryInterval),
        ),
        (&[0x03, 0, 1, 0xFF], Error::Utf8),
        (&[0x03, 0, 1, 0], Error::NullCharacter),
        (&[0x08, 0, 3, b'a', b'/', b'+'], Error::ResponseTopic),
        (&[0x08, 0, 0], Error::ResponseTopic),
        (&[0x08, 0, 1, 0xFF], Error::Utf8),
        (&[0x0B, 1], Error::SubscriptionIdentifierFromClient),
        (&[0x11, 0, 0, 0, 1], Error::PropertyNotAllowed(PropertyIdentifier::SessionExpiryInterval)),
        (&[0x23, 0, 0], Error::TopicAliasZero),
        (&[0x23, 0, 1, 0x23, 0, 1], Error::DuplicateProperty(PropertyIdentifier::TopicAlias)),
        (&[0x26, 0, 1, b'n', 0, 1, 0xFF], Error::Utf8),
        (&[0x26, 0, 1, b'n'], Error::Truncated),
        (&[0x04], Error::UnknownProperty(0x04)),
        (&[0x82, 0x00], Error::UnknownProperty(0x82)),
    ];
    for (list, error) in cases {
        assert_eq!(only(&with_list(list), Version::V5, Sender::Client), Err(*error), "{list:02x?}");
    }
}

#[test]
fn only_a_server_sends_subscription_identifiers_mqtt_3_3_4_6() {
    let bytes = with_list(&[0x0B, 1, 0x0B, 0xFF, 0x7F]);
    let error = only(&bytes, Version::V5, Sender::Client).unwrap_err();
    assert_eq!((error, error.reason()), (Error::SubscriptionIdentifierFromClient, ReasonCode::ProtocolError));
    assert!(only(&bytes, Version::V5, Sender::Server).unwrap().has_subscription_identifiers);
    assert_eq!(
        only(&with_list(&[0x0B, 0]), Version::V5, Sender::Server),
        Err(Error::PropertyValue(PropertyIdentifier::SubscriptionIdentifier))
    );
}

#[test]
fn a_topic_alias_stands_for_an_empty_topic_name_in_5_0_only() {
    let aliased = super::with_header(0x30, &[0, 0, 3, 0x23, 0, 5]);
    let spans = only(&aliased, Version::V5, Sender::Client).unwrap();
    assert_eq!((spans.topic_alias, spans.topic.len), (NonZeroU16::new(5), 0));
    let nameless = super::with_header(0x30, &[0, 0, 0]);
    assert_eq!(only(&nameless, Version::V5, Sender::Client), Err(Error::TopicNameMissing));
    assert_eq!(only(&nameless, Version::V311, Sender::Client), Err(Error::TopicNameMissing));
    assert_eq!(Error::TopicNameMissing.reason(), ReasonCode::ProtocolError);
    assert_eq!(Error::TopicAliasZero.reason(), ReasonCode::TopicAliasInvalid);
}

#[test]
fn a_publish_with_qos_has_a_packet_identifier_that_is_not_zero_mqtt_2_2_1_3() {
    let bytes = super::with_header(0x32, &[0, 1, b't', 0, 0]);
    assert_eq!(only(&bytes, Version::V311, Sender::Client), Err(Error::PacketIdentifierZero));
    let bytes = super::with_header(0x32, &[0, 1, b't', 0]);
    assert_eq!(only(&bytes, Version::V311, Sender::Client), Err(Error::Truncated));
}

#[test]
fn a_topic_name_is_checked_in_place_mqtt_3_3_2_2() {
    for (name, error) in [
        (&b"a/#"[..], Error::TopicNameWildcard),
        (b"+/a/b/c/d/e", Error::TopicNameWildcard),
        ("é/+".as_bytes(), Error::TopicNameWildcard),
        (b"a\0b", Error::NullCharacter),
        (b"\xC3/abcdefgh", Error::Utf8),
    ] {
        let bytes = super::with_header(0x30, &[&[0, name.len() as u8], name].concat());
        assert_eq!(only(&bytes, Version::V311, Sender::Client), Err(error), "{name:02x?}");
    }
    // The length cuts the first é in two.
    let bytes = super::with_header(0x30, "\0\x02mé".as_bytes());
    assert_eq!(only(&bytes, Version::V311, Sender::Client), Err(Error::Utf8));
}

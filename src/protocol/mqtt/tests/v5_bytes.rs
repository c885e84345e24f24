//! The bytes of MQTT 5.0, written by hand after the standard's text and figures.

use std::num::{NonZeroU16, NonZeroU32};

use smallvec::smallvec;

use super::{decode, with_header};
use crate::protocol::mqtt::*;

const TEN: NonZeroU16 = NonZeroU16::new(10).unwrap();

/// A user property: name `k`, value `v`.
const K_V: [u8; 7] = [0x26, 0, 1, b'k', 0, 1, b'v'];

/// The bytes are this packet, both ways.
fn are(bytes: &[u8], sender: Sender, packet: &Packet<'_>) {
    assert_eq!(decode(bytes, Version::V5, sender).as_ref(), Ok(packet), "{bytes:02x?}");
    let mut out = Vec::new();
    packet.encode(Version::V5, &mut out).unwrap();
    assert_eq!(out, bytes, "{packet:?}");
}

fn refused(bytes: &[u8], sender: Sender, error: Error) {
    assert_eq!(decode(bytes, Version::V5, sender), Err(error), "{bytes:02x?}");
}

fn k_v() -> UserProperties<'static> {
    UserProperties::from_encoded(&K_V).unwrap()
}

/// Name, level, flags, keep alive, then the rest.
fn connect(flags: u8, rest: &[u8]) -> Vec<u8> {
    with_header(0x10, &[&[0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 10][..], rest].concat())
}

const CONNECT: Connect<'_> = Connect {
    version: Version::V5,
    clean_start: true,
    keep_alive: 10,
    properties: ConnectProperties {
        session_expiry_interval: None,
        receive_maximum: None,
        maximum_packet_size: None,
        topic_alias_maximum: None,
        request_response_information: None,
        request_problem_information: None,
        authentication_method: None,
        authentication_data: None,
        user_properties: UserProperties::NONE,
    },
    client_identifier: "c",
    will: None,
    user_name: None,
    password: None,
};

#[test]
fn connect_as_in_figure_3_6() {
    // Flags 0xCE as in 3.1.1, five bytes of properties: a session expiry interval of 10 seconds. Then client identifier,
    // will properties (a delay of 1 second), will topic, will payload, user name, password.
    let rest = [
        &[5, 0x11, 0, 0, 0, 10, 0, 1, b'c'][..],
        &[5, 0x18, 0, 0, 0, 1, 0, 3, b'a', b'/', b'b', 0, 1, b'!'],
        &[0, 2, b'm', b'e', 0, 1, 0xFF],
    ]
    .concat();
    let will = Will {
        topic: "a/b",
        payload: b"!",
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: WillProperties { will_delay_interval: Some(1), ..WillProperties::default() },
    };
    let expected = Connect {
        properties: ConnectProperties { session_expiry_interval: Some(10), ..CONNECT.properties },
        will: Some(will),
        user_name: Some("me"),
        password: Some(Secret(&[0xFF])),
        ..CONNECT
    };
    are(&connect(0b1100_1110, &rest), Sender::Client, &Packet::Connect(expected));
}

#[test]
fn connect_with_every_property() {
    let list = [
        &[0x11, 0xFF, 0xFF, 0xFF, 0xFF][..],
        &[0x21, 0, 20],
        &[0x27, 0, 1, 0, 0],
        &[0x22, 0, 7],
        &[0x19, 1],
        &[0x17, 0],
        &[0x15, 0, 5, b'S', b'C', b'R', b'A', b'M'],
        &[0x16, 0, 2, 0xDE, 0xAD],
        &K_V,
    ]
    .concat();
    let rest = [&[list.len() as u8][..], &list, &[0, 1, b'c']].concat();
    let properties = ConnectProperties {
        session_expiry_interval: Some(u32::MAX),
        receive_maximum: NonZeroU16::new(20),
        maximum_packet_size: NonZeroU32::new(65_536),
        topic_alias_maximum: Some(7),
        request_response_information: Some(true),
        request_problem_information: Some(false),
        authentication_method: Some("SCRAM"),
        authentication_data: Some(Secret(&[0xDE, 0xAD])),
        user_properties: k_v(),
    };
    are(&connect(2, &rest), Sender::Client, &Packet::Connect(Connect { properties, ..CONNECT }));
}

#[test]
fn will_with_every_property() {
    let list = [
        &[0x18, 0, 0, 0, 5][..],
        &[0x01, 1],
        &[0x02, 0, 0, 0, 60],
        &[0x03, 0, 1, b'j'],
        &[0x08, 0, 1, b'r'],
        &[0x09, 0, 1, 0x00],
        &K_V,
    ]
    .concat();
    let rest = [&[0, 0, 1, b'c', list.len() as u8][..], &list, &[0, 1, b't', 0, 0]].concat();
    let properties = WillProperties {
        will_delay_interval: Some(5),
        payload_format_indicator: Some(PayloadFormat::Utf8),
        message_expiry_interval: Some(60),
        content_type: Some("j"),
        response_topic: Some("r"),
        correlation_data: Some(&[0]),
        user_properties: k_v(),
    };
    let will = Will { topic: "t", payload: b"", qos: Qos::ExactlyOnce, retain: true, properties };
    let expected = Connect { will: Some(will), ..CONNECT };
    are(&connect(0b0011_0110, &rest), Sender::Client, &Packet::Connect(expected));
}

#[test]
fn a_password_without_a_user_name_is_allowed() {
    let expected = Connect { password: Some(Secret(b"pw")), ..CONNECT };
    let bytes = connect(0b0100_0010, &[0, 0, 1, b'c', 0, 2, b'p', b'w']);
    are(&bytes, Sender::Client, &Packet::Connect(expected));
}

#[test]
fn an_empty_client_identifier_is_allowed_without_a_clean_start() {
    let expected = Connect { clean_start: false, client_identifier: "", ..CONNECT };
    are(&connect(0, &[0, 0, 0]), Sender::Client, &Packet::Connect(expected));
}

#[test]
fn connect_properties_have_values_that_make_sense() {
    use PropertyIdentifier as Id;
    let cases: &[(&[u8], Error)] = &[
        (&[0x21, 0, 0], Error::PropertyValue(Id::ReceiveMaximum)),
        (&[0x27, 0, 0, 0, 0], Error::PropertyValue(Id::MaximumPacketSize)),
        (&[0x17, 2], Error::PropertyValue(Id::RequestProblemInformation)),
        (&[0x19, 2], Error::PropertyValue(Id::RequestResponseInformation)),
        (&[0x16, 0, 0], Error::AuthenticationMethodMissing),
        (&[0x22, 0, 1, 0x22, 0, 1], Error::DuplicateProperty(Id::TopicAliasMaximum)),
        (&[0x23, 0, 1], Error::PropertyNotAllowed(Id::TopicAlias)),
    ];
    for (list, error) in cases {
        let rest = [&[list.len() as u8][..], list, &[0, 1, b'c']].concat();
        refused(&connect(2, &rest), Sender::Client, *error);
    }
    assert_eq!(Error::DuplicateProperty(Id::TopicAlias).reason(), ReasonCode::ProtocolError);
}

#[test]
fn connack_with_every_property() {
    let list = [
        &[0x11, 0, 0, 0, 1][..],
        &[0x21, 0, 9],
        &[0x24, 1],
        &[0x25, 0],
        &[0x27, 0, 0, 0x10, 0],
        &[0x12, 0, 2, b'i', b'd'],
        &[0x22, 0, 3],
        &[0x1F, 0, 2, b'o', b'k'],
        &[0x28, 1],
        &[0x29, 0],
        &[0x2A, 1],
        &[0x13, 0, 30],
        &[0x1A, 0, 1, b'r'],
        &[0x1C, 0, 1, b's'],
        &[0x15, 0, 1, b'm'],
        &[0x16, 0, 1, 7],
        &K_V,
    ]
    .concat();
    let bytes = with_header(0x20, &[&[1, 0, list.len() as u8][..], &list].concat());
    let properties = ConnackProperties {
        session_expiry_interval: Some(1),
        receive_maximum: NonZeroU16::new(9),
        maximum_qos: Some(Qos::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: NonZeroU32::new(4096),
        assigned_client_identifier: Some("id"),
        topic_alias_maximum: Some(3),
        reason_string: Some("ok"),
        wildcard_subscription_available: Some(true),
        subscription_identifier_available: Some(false),
        shared_subscription_available: Some(true),
        server_keep_alive: Some(30),
        response_information: Some("r"),
        server_reference: Some("s"),
        authentication_method: Some("m"),
        authentication_data: Some(Secret(&[7])),
        user_properties: k_v(),
    };
    let expected = Connack { session_present: true, reason: ReasonCode::Success, properties };
    are(&bytes, Sender::Server, &Packet::Connack(expected));
}

#[test]
fn connack_is_checked() {
    let server = Sender::Server;
    refused(&[0x20, 3, 2, 0, 0], server, Error::ConnackFlags); // [MQTT-3.2.2-1]
    refused(&[0x20, 3, 1, 0x87, 0], server, Error::SessionPresent); // [MQTT-3.2.2-6]
    refused(&[0x20, 2, 0, 0], server, Error::Truncated); // [MQTT-2.2.2-1]
    let wrong = Error::PropertyValue(PropertyIdentifier::MaximumQos);
    refused(&[0x20, 5, 0, 0, 2, 0x24, 2], server, wrong);
}

#[test]
fn publish_as_in_figure_3_9() {
    // Topic a/b, packet identifier 10, no properties.
    let expected = Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "a/b",
        packet_id: Some(TEN),
        properties: PublishProperties::default(),
        payload: b"hi",
    };
    let bytes = [0x32, 10, 0, 3, b'a', b'/', b'b', 0, 10, 0, b'h', b'i'];
    are(&bytes, Sender::Client, &Packet::Publish(expected));
}

#[test]
fn publish_with_every_property() {
    let list = [
        &[0x01, 0][..],
        &[0x02, 0, 0, 0x0E, 0x10],
        &[0x23, 0, 4],
        &[0x08, 0, 3, b'r', b'/', b's'],
        &[0x09, 0, 2, 0xC0, 0xDE],
        &[0x03, 0, 4, b'j', b's', b'o', b'n'],
        &[0x0B, 0x01],
        &[0x0B, 0xFF, 0xFF, 0xFF, 0x7F],
        &K_V,
        &[0x26, 0, 1, b'k', 0, 0],
    ]
    .concat();
    let bytes = with_header(0x3B, &[&[0, 1, b't', 0, 10, list.len() as u8][..], &list, &[0xEF]].concat());
    let Ok(Packet::Publish(publish)) = decode(&bytes, Version::V5, Sender::Server) else {
        panic!("a PUBLISH")
    };
    assert_eq!((publish.dup, publish.qos, publish.retain), (true, Qos::AtLeastOnce, true));
    assert_eq!((publish.topic, publish.packet_id, publish.payload), ("t", Some(TEN), &[0xEF][..]));
    let properties = publish.properties;
    assert_eq!(properties.payload_format_indicator, Some(PayloadFormat::Unspecified));
    assert_eq!(properties.message_expiry_interval, Some(3600));
    assert_eq!(properties.topic_alias, NonZeroU16::new(4));
    assert_eq!(properties.response_topic, Some("r/s"));
    assert_eq!(properties.correlation_data, Some(&[0xC0, 0xDE][..]));
    assert_eq!(properties.content_type, Some("json"));
    let identifiers: Vec<_> = properties.subscription_identifiers.iter().map(NonZeroU32::get).collect();
    assert_eq!(identifiers, [1, VARIABLE_BYTE_INTEGER_MAX]);
    assert!(properties.user_properties.iter().eq([("k", "v"), ("k", "")]));
    are(&bytes, Sender::Server, &Packet::Publish(publish));
}

#[test]
fn acknowledgements_have_a_short_and_a_long_form() {
    type Make = fn(Ack<'static>) -> Packet<'static>;
    let make: [(u8, Make, ReasonCode); 4] = [
        (0x40, Packet::Puback, ReasonCode::NoMatchingSubscribers),
        (0x50, Packet::Pubrec, ReasonCode::QuotaExceeded),
        (0x62, Packet::Pubrel, ReasonCode::PacketIdentifierNotFound),
        (0x70, Packet::Pubcomp, ReasonCode::PacketIdentifierNotFound),
    ];
    for (first, packet, reason) in make {
        let code = reason.as_u8();
        for sender in [Sender::Client, Sender::Server] {
            are(&[first, 2, 0, 10], sender, &packet(Ack::new(TEN, ReasonCode::Success)));
            are(&[first, 3, 0, 10, code], sender, &packet(Ack::new(TEN, reason)));
            let full = Ack { reason_string: Some("no"), user_properties: k_v(), ..Ack::new(TEN, reason) };
            let list = [&[0x1F, 0, 2, b'n', b'o'][..], &K_V].concat();
            let bytes = with_header(first, &[&[0, 10, code, 12][..], &list].concat());
            are(&bytes, sender, &packet(full));
            // The long form of what the short form says.
            let long = [first, 4, 0, 10, 0, 0];
            assert_eq!(
                decode(&long, Version::V5, sender).unwrap(),
                packet(Ack::new(TEN, ReasonCode::Success))
            );
            refused(&[first, 2, 0, 0], sender, Error::PacketIdentifierZero);
        }
    }
}

#[test]
fn subscribe_as_in_figure_3_20() {
    // a/b with QoS 1, c/d with QoS 2, no properties.
    let payload = [0, 3, b'a', b'/', b'b', 1, 0, 3, b'c', b'/', b'd', 2];
    let bytes = with_header(0x82, &[&[0, 10, 0][..], &payload].concat());
    let packet = Subscribe {
        packet_id: TEN,
        subscription_identifier: None,
        user_properties: UserProperties::NONE,
        subscriptions: Subscriptions::from_encoded(&payload, Version::V5).unwrap(),
    };
    are(&bytes, Sender::Client, &Packet::Subscribe(packet));
}

#[test]
fn subscribe_with_every_option_and_property() {
    // Retain handling 2, retain as published, no local, QoS 2; then retain handling 1.
    let payload = [0, 1, b'a', 0b0010_1110, 0, 1, b'#', 0b0001_0000];
    let bytes = with_header(0x82, &[&[0, 10, 10, 0x0B, 0x80, 0x01][..], &K_V, &payload].concat());
    let packet = Subscribe {
        packet_id: TEN,
        subscription_identifier: NonZeroU32::new(128),
        user_properties: k_v(),
        subscriptions: Subscriptions::from_encoded(&payload, Version::V5).unwrap(),
    };
    are(&bytes, Sender::Client, &Packet::Subscribe(packet));
    let read: Vec<_> = packet.subscriptions.iter().collect();
    let first = SubscriptionOptions {
        qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let second = SubscriptionOptions { retain_handling: RetainHandling::SendIfNew, ..Default::default() };
    assert_eq!(
        read,
        [Subscription { filter: "a", options: first }, Subscription { filter: "#", options: second }]
    );
}

#[test]
fn subscribe_is_checked() {
    let client = Sender::Client;
    let one = |filter: &[u8], options: u8| {
        with_header(0x82, &[&[0, 10, 0, 0, filter.len() as u8][..], filter, &[options]].concat())
    };
    refused(&[0x82, 3, 0, 10, 0], client, Error::SubscribeEmpty); // [MQTT-3.8.3-2]
    refused(&one(b"a", 0b0100_0000), client, Error::SubscriptionOptions); // [MQTT-3.8.3-5]
    refused(&one(b"a", 0b1000_0000), client, Error::SubscriptionOptions); // [MQTT-3.8.3-5]
    refused(&one(b"a", 0b0000_0011), client, Error::SubscriptionQos);
    refused(&one(b"a", 0b0011_0000), client, Error::RetainHandling);
    refused(&one(b"$share/g/a", 0b0000_0100), client, Error::NoLocalShared); // [MQTT-3.8.3-4]
    refused(&one(b"a/#/b", 0), client, Error::TopicFilterWildcard); // [MQTT-4.7.1-1]
    assert_eq!(Error::TopicFilterWildcard.reason(), ReasonCode::TopicFilterInvalid);
    let zero = with_header(0x82, &[0, 10, 2, 0x0B, 0, 0, 1, b'a', 0]);
    refused(&zero, client, Error::PropertyValue(PropertyIdentifier::SubscriptionIdentifier));
    let twice = with_header(0x82, &[0, 10, 4, 0x0B, 1, 0x0B, 2, 0, 1, b'a', 0]);
    refused(&twice, client, Error::DuplicateProperty(PropertyIdentifier::SubscriptionIdentifier));
}

#[test]
fn suback_with_every_reason_code_and_property() {
    let codes = [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
    let bytes = with_header(0x90, &[&[0, 10, 12, 0x1F, 0, 2, b'n', b'o'][..], &K_V, &codes].concat());
    let packet = Suback {
        packet_id: TEN,
        reason_string: Some("no"),
        user_properties: k_v(),
        reasons: codes.iter().map(|code| ReasonCode::from_u8(*code).unwrap()).collect(),
    };
    are(&bytes, Sender::Server, &Packet::Suback(packet));
    refused(&[0x90, 3, 0, 10, 0], Sender::Server, Error::ReasonCodesEmpty(PacketType::Suback));
}

#[test]
fn unsubscribe_as_in_figure_3_28() {
    let payload = [0, 3, b'a', b'/', b'b', 0, 3, b'c', b'/', b'd'];
    let filters = TopicFilters::from_encoded(&payload).unwrap();
    let bytes = with_header(0xA2, &[&[0, 10, 0][..], &payload].concat());
    let packet = Unsubscribe { packet_id: TEN, user_properties: UserProperties::NONE, filters };
    are(&bytes, Sender::Client, &Packet::Unsubscribe(packet));
    let bytes = with_header(0xA2, &[&[0, 10, 7][..], &K_V, &payload].concat());
    are(&bytes, Sender::Client, &Packet::Unsubscribe(Unsubscribe { user_properties: k_v(), ..packet }));
    refused(&[0xA2, 3, 0, 10, 0], Sender::Client, Error::UnsubscribeEmpty); // [MQTT-3.10.3-2]
}

#[test]
fn unsuback_with_every_reason_code() {
    let codes = [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    let packet = Unsuback {
        packet_id: TEN,
        reason_string: None,
        user_properties: UserProperties::NONE,
        reasons: codes.iter().map(|code| ReasonCode::from_u8(*code).unwrap()).collect(),
    };
    are(&with_header(0xB0, &[&[0, 10, 0][..], &codes].concat()), Sender::Server, &Packet::Unsuback(packet));
    let full = Unsuback {
        packet_id: TEN,
        reason_string: Some("?"),
        user_properties: k_v(),
        reasons: smallvec![ReasonCode::NoSubscriptionExisted],
    };
    let bytes = with_header(0xB0, &[&[0, 10, 11, 0x1F, 0, 1, b'?'][..], &K_V, &[0x11]].concat());
    are(&bytes, Sender::Server, &Packet::Unsuback(full));
    refused(&[0xB0, 3, 0, 10, 0], Sender::Server, Error::ReasonCodesEmpty(PacketType::Unsuback));
}

#[test]
fn pings_are_two_bytes() {
    are(&[0xC0, 0], Sender::Client, &Packet::Pingreq);
    are(&[0xD0, 0], Sender::Server, &Packet::Pingresp);
}

#[test]
fn disconnect_has_three_forms() {
    are(&[0xE0, 0], Sender::Client, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    let will = Disconnect::new(ReasonCode::DisconnectWithWillMessage);
    are(&[0xE0, 1, 0x04], Sender::Client, &Packet::Disconnect(will));
    let full = Disconnect {
        session_expiry_interval: Some(60),
        reason_string: Some("off"),
        user_properties: k_v(),
        ..Disconnect::new(ReasonCode::Success)
    };
    let list = [&[0x11, 0, 0, 0, 60, 0x1F, 0, 3, b'o', b'f', b'f'][..], &K_V].concat();
    let bytes = with_header(0xE0, &[&[0, list.len() as u8][..], &list].concat());
    are(&bytes, Sender::Client, &Packet::Disconnect(full));
    let moved = Disconnect { server_reference: Some("b:1883"), ..Disconnect::new(ReasonCode::ServerMoved) };
    let bytes = with_header(0xE0, b"\x9D\x09\x1C\x00\x06b:1883");
    are(&bytes, Sender::Server, &Packet::Disconnect(moved));
}

#[test]
fn auth_names_its_method() {
    let mut auth = Auth::new(ReasonCode::ContinueAuthentication, Some("m"));
    for sender in [Sender::Client, Sender::Server] {
        are(&[0xF0, 6, 0x18, 4, 0x15, 0, 1, b'm'], sender, &Packet::Auth(auth));
    }
    auth.authentication_data = Some(Secret(&[1, 2]));
    auth.reason_string = Some("r");
    auth.user_properties = k_v();
    let list = [&[0x15, 0, 1, b'm', 0x16, 0, 2, 1, 2, 0x1F, 0, 1, b'r'][..], &K_V].concat();
    let bytes = with_header(0xF0, &[&[0x18, list.len() as u8][..], &list].concat());
    are(&bytes, Sender::Client, &Packet::Auth(auth));
    are(&[0xF0, 0], Sender::Server, &Packet::Auth(Auth::new(ReasonCode::Success, None)));
    refused(&[0xF0, 2, 0x18, 0], Sender::Client, Error::AuthenticationMethodMissing);
    refused(&[0xF0, 6, 0x18, 4, 0x16, 0, 1, 1], Sender::Client, Error::AuthenticationMethodMissing);
}

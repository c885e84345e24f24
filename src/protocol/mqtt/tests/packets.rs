//! Every packet that each end may send, with every field and property. What the packets borrow is leaked: a test run
//! ends soon.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::{collection::vec, option, prelude::*, sample::select};
use smallvec::SmallVec;

use super::super::*;

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => "[a-zA-Z0-9 /]{0,12}", 2 => "[^\u{0}]{0,20}", 1 => "[a-z]{120,200}"]
        .prop_map(|text| &*text.leak())
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 120..400)]
        .prop_map(|bytes| &*bytes.leak())
}

fn secret() -> impl Strategy<Value = Secret<'static>> {
    bytes().prop_map(Secret)
}

fn topic_name() -> impl Strategy<Value = &'static str> {
    "[a-z0-9$/. ]{1,24}|[^\u{0}#+]{1,20}".prop_map(|name| &*name.leak())
}

fn topic_filter() -> impl Strategy<Value = &'static str> {
    "([a-z$.]{0,6}/|\\+/){0,3}([a-z]{1,5}|#|\\+)|[^\u{0}#+]{1,20}".prop_map(|filter| &*filter.leak())
}

fn packet_id() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

fn subscription_identifier() -> impl Strategy<Value = NonZeroU32> {
    (1..=VARIABLE_BYTE_INTEGER_MAX).prop_filter_map("zero", NonZeroU32::new)
}

fn qos() -> impl Strategy<Value = Qos> {
    (0u8..=2).prop_filter_map("a QoS", Qos::from_bits)
}

fn payload_format() -> impl Strategy<Value = PayloadFormat> {
    prop_oneof![Just(PayloadFormat::Unspecified), Just(PayloadFormat::Utf8)]
}

fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..4).prop_map(|pairs| {
        let mut list = Vec::new();
        for (name, value) in pairs {
            UserProperties::append(&mut list, name, value).unwrap();
        }
        UserProperties::from_encoded(list.leak()).unwrap()
    })
}

fn reason(packet_type: PacketType, sender: Sender) -> impl Strategy<Value = ReasonCode> {
    let allowed = |code: &ReasonCode| code.is_allowed_in(packet_type, sender);
    select((0..=u8::MAX).filter_map(ReasonCode::from_u8).filter(allowed).collect::<Vec<_>>())
}

/// Properties exist from 5.0 on.
fn of_v5<T: Clone + std::fmt::Debug + Default + 'static>(
    version: Version,
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    match version {
        Version::V311 => Just(T::default()).boxed(),
        Version::V5 => strategy.boxed(),
    }
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    let properties = (
        option::of(any::<u32>()),
        option::of(payload_format()),
        option::of(any::<u32>()),
        option::of(text()),
        option::of(topic_name()),
        option::of(bytes()),
        user_properties(),
    )
        .prop_map(
            |(delay, format, expiry, content_type, response_topic, correlation_data, user_properties)| {
                WillProperties {
                    will_delay_interval: delay,
                    payload_format_indicator: format,
                    message_expiry_interval: expiry,
                    content_type,
                    response_topic,
                    correlation_data,
                    user_properties,
                }
            },
        );
    (topic_name(), bytes(), qos(), any::<bool>(), of_v5(version, properties)).prop_map(
        |(topic, payload, qos, retain, properties)| Will { topic, payload, qos, retain, properties },
    )
}

fn connect(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let authentication = option::of((text(), option::of(secret())));
    let properties = (
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(any::<NonZeroU32>()),
        option::of(any::<u16>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        authentication,
        user_properties(),
    )
        .prop_map(
            |(expiry, receive, size, alias, response, problem, authentication, user_properties)| {
                ConnectProperties {
                    session_expiry_interval: expiry,
                    receive_maximum: receive,
                    maximum_packet_size: size,
                    topic_alias_maximum: alias,
                    request_response_information: response,
                    request_problem_information: problem,
                    authentication_method: authentication.map(|(method, _)| method),
                    authentication_data: authentication.and_then(|(_, data)| data),
                    user_properties,
                }
            },
        );
    (
        any::<bool>(),
        any::<u16>(),
        of_v5(version, properties),
        text(),
        option::of(will(version)),
        option::of(text()),
        option::of(secret()),
    )
        .prop_map(move |(clean_start, keep_alive, properties, name, will, user_name, password)| {
            let v311 = version == Version::V311;
            Packet::Connect(Connect {
                version,
                clean_start: clean_start || (v311 && name.is_empty()),
                keep_alive,
                properties,
                client_identifier: name,
                will,
                user_name,
                password: if v311 && user_name.is_none() { None } else { password },
            })
        })
}

fn connack_properties() -> impl Strategy<Value = ConnackProperties<'static>> {
    let limits = (
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce)]),
        option::of(any::<NonZeroU32>()),
        option::of(any::<u16>()),
        option::of(any::<u16>()),
    );
    let abilities = (
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
    );
    let texts = (option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    let authentication = option::of((text(), option::of(secret())));
    (limits, abilities, texts, authentication, user_properties()).prop_map(
        |(limits, abilities, texts, authentication, user_properties)| ConnackProperties {
            session_expiry_interval: limits.0,
            receive_maximum: limits.1,
            maximum_qos: limits.2,
            retain_available: abilities.0,
            maximum_packet_size: limits.3,
            assigned_client_identifier: texts.0,
            topic_alias_maximum: limits.4,
            reason_string: texts.1,
            wildcard_subscription_available: abilities.1,
            subscription_identifier_available: abilities.2,
            shared_subscription_available: abilities.3,
            server_keep_alive: limits.5,
            response_information: texts.2,
            server_reference: texts.3,
            authentication_method: authentication.map(|(method, _)| method),
            authentication_data: authentication.and_then(|(_, data)| data),
            user_properties,
        },
    )
}

fn connack(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let reason = match version {
        Version::V311 => (0u8..=5).prop_filter_map("a return code", ReasonCode::from_return_code).boxed(),
        Version::V5 => reason(PacketType::Connack, Sender::Server).boxed(),
    };
    (any::<bool>(), reason, of_v5(version, connack_properties())).prop_map(|(present, reason, properties)| {
        let session_present = present && reason == ReasonCode::Success;
        Packet::Connack(Connack { session_present, reason, properties })
    })
}

fn publish_properties(sender: Sender) -> impl Strategy<Value = PublishProperties<'static>> {
    let identifiers = vec(subscription_identifier(), 0..if sender == Sender::Server { 4 } else { 1 })
        .prop_map(|identifiers| {
            let mut list = Vec::new();
            for identifier in identifiers {
                SubscriptionIdentifiers::append(&mut list, identifier).unwrap();
            }
            PublishProperties::from_encoded(list.leak()).unwrap().subscription_identifiers
        });
    (
        option::of(payload_format()),
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(topic_name()),
        option::of(bytes()),
        user_properties(),
        identifiers,
        option::of(text()),
    )
        .prop_map(|(format, expiry, alias, response, correlation, user, identifiers, content_type)| {
            PublishProperties {
                payload_format_indicator: format,
                message_expiry_interval: expiry,
                topic_alias: alias,
                response_topic: response,
                correlation_data: correlation,
                user_properties: user,
                subscription_identifiers: identifiers,
                content_type,
            }
        })
}

pub(super) fn publish(version: Version, sender: Sender) -> impl Strategy<Value = Publish<'static>> {
    let properties = of_v5(version, publish_properties(sender));
    (
        any::<bool>(),
        qos(),
        any::<bool>(),
        option::weighted(0.9, topic_name()),
        packet_id(),
        properties,
        bytes(),
    )
        .prop_map(|(dup, qos, retain, topic, packet_id, properties, payload)| Publish {
            dup: dup && qos != Qos::AtMostOnce,
            qos,
            retain,
            topic: topic.unwrap_or(if properties.topic_alias.is_some() { "" } else { "t" }),
            packet_id: (qos != Qos::AtMostOnce).then_some(packet_id),
            properties,
            payload,
        })
}

fn ack(version: Version, packet_type: PacketType, sender: Sender) -> impl Strategy<Value = Ack<'static>> {
    let full = (packet_id(), reason(packet_type, sender), option::of(text()), user_properties()).prop_map(
        |(packet_id, reason, reason_string, user_properties)| Ack {
            packet_id,
            reason,
            reason_string,
            user_properties,
        },
    );
    let short = packet_id().prop_map(|packet_id| Ack::new(packet_id, ReasonCode::Success));
    match version {
        Version::V311 => short.boxed(),
        Version::V5 => {
            let bare =
                (packet_id(), reason(packet_type, sender)).prop_map(|(id, reason)| Ack::new(id, reason));
            prop_oneof![full, short, bare].boxed()
        }
    }
}

fn subscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    let options = (qos(), any::<bool>(), any::<bool>(), handling);
    let subscription = (topic_filter(), options).prop_map(move |(filter, options)| {
        let (qos, no_local, retain_as_published, retain_handling) = options;
        let options = match version {
            Version::V311 => SubscriptionOptions { qos, ..SubscriptionOptions::default() },
            Version::V5 => SubscriptionOptions {
                qos,
                no_local: no_local && !filter.starts_with("$share/"),
                retain_as_published,
                retain_handling,
            },
        };
        Subscription { filter, options }
    });
    let subscriptions = vec(subscription, 1..6).prop_map(move |all| {
        let mut payload = Vec::new();
        for subscription in all {
            subscription.append(&mut payload, version).unwrap();
        }
        Subscriptions::from_encoded(payload.leak(), version).unwrap()
    });
    let identifier = of_v5(version, option::of(subscription_identifier()));
    (packet_id(), identifier, of_v5(version, user_properties()), subscriptions).prop_map(
        |(packet_id, subscription_identifier, user_properties, subscriptions)| {
            Packet::Subscribe(Subscribe {
                packet_id,
                subscription_identifier,
                user_properties,
                subscriptions,
            })
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let reason = reason(PacketType::Suback, Sender::Server)
        .prop_filter("3.1.1 has four codes", move |code| {
            version == Version::V5 || !code.is_error() || *code == ReasonCode::UnspecifiedError
        });
    let reasons = vec(reason, 1..12).prop_map(SmallVec::from_vec);
    let reason_string = of_v5(version, option::of(text()));
    (packet_id(), reason_string, of_v5(version, user_properties()), reasons).prop_map(
        |(packet_id, reason_string, user_properties, reasons)| {
            Packet::Suback(Suback { packet_id, reason_string, user_properties, reasons })
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let filters = vec(topic_filter(), 1..6).prop_map(|all| {
        let mut payload = Vec::new();
        for filter in all {
            TopicFilters::append(&mut payload, filter).unwrap();
        }
        TopicFilters::from_encoded(payload.leak()).unwrap()
    });
    (packet_id(), of_v5(version, user_properties()), filters).prop_map(
        |(packet_id, user_properties, filters)| {
            Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters })
        },
    )
}

fn unsuback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let reasons = vec(reason(PacketType::Unsuback, Sender::Server), 1..12).prop_map(SmallVec::from_vec);
    let reason_string = of_v5(version, option::of(text()));
    (packet_id(), reason_string, of_v5(version, user_properties()), of_v5(version, reasons)).prop_map(
        |(packet_id, reason_string, user_properties, reasons)| {
            Packet::Unsuback(Unsuback { packet_id, reason_string, user_properties, reasons })
        },
    )
}

fn disconnect(version: Version, sender: Sender) -> impl Strategy<Value = Packet<'static>> {
    let bare = reason(PacketType::Disconnect, sender).prop_map(Disconnect::new);
    let expiry = option::of(any::<u32>());
    let full = (
        reason(PacketType::Disconnect, sender),
        expiry,
        option::of(text()),
        option::of(text()),
        user_properties(),
    )
        .prop_map(move |(reason, expiry, reason_string, server_reference, user_properties)| Disconnect {
            reason,
            session_expiry_interval: expiry.filter(|_| sender == Sender::Client),
            reason_string,
            server_reference,
            user_properties,
        });
    let disconnect = match version {
        Version::V311 => Just(Disconnect::new(ReasonCode::Success)).boxed(),
        Version::V5 => prop_oneof![bare, full].boxed(),
    };
    disconnect.prop_map(Packet::Disconnect)
}

fn auth(sender: Sender) -> impl Strategy<Value = Packet<'static>> {
    let data = option::of(secret());
    (reason(PacketType::Auth, sender), text(), data, option::of(text()), user_properties()).prop_map(
        |(reason, method, authentication_data, reason_string, user_properties)| {
            Packet::Auth(Auth {
                reason,
                authentication_method: Some(method),
                authentication_data,
                reason_string,
                user_properties,
            })
        },
    )
}

/// Any packet that `sender` may send in this version.
pub(super) fn packet(version: Version, sender: Sender) -> BoxedStrategy<Packet<'static>> {
    let shared = prop_oneof![
        publish(version, sender).prop_map(Packet::Publish),
        ack(version, PacketType::Puback, sender).prop_map(Packet::Puback),
        ack(version, PacketType::Pubrec, sender).prop_map(Packet::Pubrec),
        ack(version, PacketType::Pubrel, sender).prop_map(Packet::Pubrel),
        ack(version, PacketType::Pubcomp, sender).prop_map(Packet::Pubcomp),
    ];
    match (sender, version) {
        (Sender::Client, Version::V311) => prop_oneof![
            5 => shared,
            2 => connect(version),
            1 => subscribe(version),
            1 => unsubscribe(version),
            1 => Just(Packet::Pingreq),
            1 => disconnect(version, sender),
        ]
        .boxed(),
        (Sender::Client, Version::V5) => prop_oneof![
            5 => shared,
            2 => connect(version),
            1 => subscribe(version),
            1 => unsubscribe(version),
            1 => Just(Packet::Pingreq),
            1 => disconnect(version, sender),
            1 => auth(sender),
        ]
        .boxed(),
        (Sender::Server, Version::V311) => prop_oneof![
            5 => shared,
            2 => connack(version),
            1 => suback(version),
            1 => unsuback(version),
            1 => Just(Packet::Pingresp),
        ]
        .boxed(),
        (Sender::Server, Version::V5) => prop_oneof![
            5 => shared,
            2 => connack(version),
            1 => suback(version),
            1 => unsuback(version),
            1 => Just(Packet::Pingresp),
            1 => disconnect(version, sender),
            1 => auth(sender),
        ]
        .boxed(),
    }
}

/// Any packet, with the version and the sender that go with it.
pub(super) fn any_packet() -> impl Strategy<Value = (Version, Sender, Packet<'static>)> {
    let pairs = [Version::V311, Version::V5]
        .into_iter()
        .flat_map(|version| [(version, Sender::Client), (version, Sender::Server)]);
    proptest::strategy::Union::new(pairs.map(|(version, sender)| {
        packet(version, sender).prop_map(move |packet| (version, sender, packet)).boxed()
    }))
}

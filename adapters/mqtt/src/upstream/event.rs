//! What happened on a connection, taken from either version's words.

use bytes::Bytes;
use linkspan_contract::Refused;
use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5 as mqtt5;

use crate::upstream::packet::{Ack, Happened, Incoming};

/// What has happened in the words of MQTT 5; nothing that matters, for most.
pub(crate) fn of_v5(event: v5::Event) -> Option<Happened> {
    use v5::Incoming as In;
    Some(match event {
        v5::Event::Outgoing(out) => return of_outgoing(&out),
        v5::Event::Incoming(In::Publish(publish)) => Happened::Delivered(Incoming {
            packet_id: (publish.pkid != 0).then_some(publish.pkid),
            exactly_once: publish.qos == v5::mqttbytes::QoS::ExactlyOnce,
            repeated: publish.dup,
            topic: publish.topic,
            payload: publish.payload,
            properties: publish.properties.map(Box::new),
            retain: publish.retain,
        }),
        v5::Event::Incoming(In::PubAck(ack)) => Happened::Acked(ack.pkid, of_reason(&ack)),
        v5::Event::Incoming(In::SubAck(answer)) => {
            use mqtt5::SubscribeReasonCode as Code;
            let said = answer.properties.and_then(|said| said.reason_string);
            let granted = match answer.return_codes.first() {
                Some(Code::Success(_)) => Ok(()),
                Some(Code::NotAuthorized) => Err(Refused::AccessRefused(worded("not authorized", said))),
                Some(Code::QuotaExceeded) => Err(Refused::Full(worded("quota exceeded", said))),
                Some(Code::TopicFilterInvalid) => {
                    Err(Refused::FilterInvalid(worded("the topic filter is invalid", said)))
                }
                Some(code) => Err(Refused::Precondition(worded(&format!("{code:?}"), said))),
                None => Err(Refused::Precondition(worded("an empty answer", said))),
            };
            Happened::Granted(answer.pkid, granted)
        }
        v5::Event::Incoming(In::UnsubAck(answer)) => {
            let existed = answer.reasons.first() != Some(&mqtt5::UnsubAckReason::NoSubscriptionExisted);
            Happened::Released(answer.pkid, existed)
        }
        v5::Event::Incoming(_) => return None,
    })
}

fn of_reason(ack: &mqtt5::PubAck) -> Ack {
    use mqtt5::PubAckReason as Reason;
    let said = || ack.properties.as_ref().and_then(|said| said.reason_string.clone());
    match ack.reason {
        Reason::Success => Ack::Taken,
        Reason::NoMatchingSubscribers => Ack::Nobody,
        Reason::NotAuthorized => Ack::Refused(Refused::AccessRefused(worded("not authorized", said()))),
        Reason::QuotaExceeded => Ack::Refused(Refused::Full(worded("quota exceeded", said()))),
        other => Ack::Refused(Refused::Precondition(worded(&format!("{other:?}"), said()))),
    }
}

fn worded(code: &str, said: Option<String>) -> String {
    match said {
        Some(said) => format!("the broker refused it: {code} ({said})"),
        None => format!("the broker refused it: {code}"),
    }
}

/// The same in those of MQTT 3.1.1.
pub(crate) fn of_v311(event: rumqttc::Event) -> Option<Happened> {
    use rumqttc::Packet as In;
    Some(match event {
        rumqttc::Event::Outgoing(out) => return of_outgoing(&out),
        rumqttc::Event::Incoming(In::Publish(publish)) => Happened::Delivered(Incoming {
            packet_id: (publish.pkid != 0).then_some(publish.pkid),
            exactly_once: publish.qos == rumqttc::QoS::ExactlyOnce,
            repeated: publish.dup,
            topic: Bytes::from(publish.topic),
            payload: publish.payload,
            properties: None,
            retain: publish.retain,
        }),
        rumqttc::Event::Incoming(In::PubAck(ack)) => Happened::Acked(ack.pkid, Ack::Taken),
        rumqttc::Event::Incoming(In::SubAck(answer)) => {
            let granted = match answer.return_codes.first() {
                Some(rumqttc::SubscribeReasonCode::Success(_)) => Ok(()),
                _ => Err(Refused::AccessRefused("the broker refused the subscription".into())),
            };
            Happened::Granted(answer.pkid, granted)
        }
        rumqttc::Event::Incoming(In::UnsubAck(answer)) => Happened::Released(answer.pkid, true),
        rumqttc::Event::Incoming(_) => return None,
    })
}

fn of_outgoing(out: &rumqttc::Outgoing) -> Option<Happened> {
    use rumqttc::Outgoing as Out;
    Some(match *out {
        Out::Publish(packet_id) => Happened::Sent(packet_id),
        Out::Subscribe(packet_id) | Out::Unsubscribe(packet_id) => Happened::Asked(packet_id),
        Out::AwaitAck(_) => Happened::OutOfStep,
        _ => return None,
    })
}

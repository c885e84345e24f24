//! MQTT's vocabulary and the contract's, the one in terms of the other. No other place of this door knows both.
//!
//! | file | what |
//! | --- | --- |
//! | [`delivery`] | messages of any form as PUBLISH packets for one client |
//! | [`form`] | PUBLISH packets as others read them |
//! | [`properties`] | MQTT 5 properties and neutral ones |
//!
//! Here: published messages, and what became of them as reason codes.

pub(super) mod delivery;
pub(super) mod form;
pub(super) mod properties;

use std::borrow::Cow;
use std::sync::Arc;

use linkspan_contract::textual::PRIORITY;
use linkspan_contract::{
    BackendError, Ended, Flags, Message, Outcome, Refused, Replay, Settle, Settlement, Span, TargetId,
    WireForm,
};

use super::receipts::Answer;
use crate::protocol::mqtt::{
    PropertyIdentifier, PublishProperties, PublishSpans, Qos, ReasonCode, RetainHandling, Version,
};

/// The forms of PUBLISH packets.
pub fn forms() -> [&'static dyn WireForm; 2] {
    [form::of(Version::V311), form::of(Version::V5)]
}

/// The length of its name, as it stands before the name.
const PRIORITY_LEN: u8 = 13;

const _: () = assert!(PRIORITY.len() == PRIORITY_LEN as usize, "the byte to look for is the name's length");

/// Priority when a consumer of a queue is given a message that has no topic name.
const NOT_A_TOPIC: &str = "address-not-mqtt";

/// The message in a PUBLISH whose spans count from `base` of the batch's bytes.
#[inline(always)]
pub(super) fn message(publish: &PublishSpans, base: u32, target: TargetId) -> Message {
    let span = |span: crate::protocol::mqtt::Span| Span::new(span.offset + base, span.len);
    let durable = publish.qos != Qos::AtMostOnce;
    let mut flags = (Flags::RECEIPT | Flags::DURABLE).when(durable)
        | Flags::EXACTLY_ONCE.when(publish.qos == Qos::ExactlyOnce)
        | Flags::RETAIN.when(publish.retain);
    let mut expiry = 0;
    if publish.properties.len > 0 {
        flags |= Flags::PROPERTIES | Flags::HEADERS.when(publish.has_other_properties);
        if let Some(seconds) = publish.message_expiry_interval {
            flags |= Flags::EXPIRES;
            expiry = u64::from(seconds) * 1000;
        }
    }
    Message {
        target,
        flags,
        priority: 0,
        expiry,
        wire: span(publish.wire),
        address: span(publish.topic),
        properties: span(publish.properties),
        payload: span(publish.payload),
    }
}

/// The same message with its payload in a body of its own: the bytes then are what stands before the payload.
pub(super) fn without_payload(message: Message) -> Message {
    let head = message.payload.start.saturating_sub(message.wire.start);
    Message {
        wire: Span::new(message.wire.start, head),
        payload: Span::new(message.payload.start, 0),
        ..message
    }
}

/// What of the encoded properties the message itself has to know: its priority.
///
/// # Errors
/// When they call the payload UTF-8 text and it is not [MQTT-3.3.2-4].
#[inline]
pub(super) fn priority(list: &[u8], payload: &[u8]) -> Result<Option<u8>, NotText> {
    // Both properties begin with, or hold, a byte that texts do not: most lists need not be read.
    match memchr::memchr2(PropertyIdentifier::PayloadFormatIndicator as u8, PRIORITY_LEN, list) {
        Some(_) => read_priority(list, payload),
        None => Ok(None),
    }
}

/// Whether the encoded properties call the payload UTF-8 text.
pub(super) fn says_text(list: &[u8]) -> bool {
    PublishProperties::from_encoded(list).is_ok_and(|properties| properties::says_utf8(&properties))
}

/// A payload that is not the text that it is said to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct NotText;

#[inline(never)]
fn read_priority(list: &[u8], payload: &[u8]) -> Result<Option<u8>, NotText> {
    let Ok(properties) = PublishProperties::from_encoded(list) else { return Ok(None) };
    if properties::says_utf8(&properties) && std::str::from_utf8(payload).is_err() {
        return Err(NotText);
    }
    Ok(properties::first(&properties, PRIORITY).and_then(|text| text.parse().ok()))
}

/// The same message with a priority.
#[inline]
pub(super) fn prioritized(message: Message, priority: Option<u8>) -> Message {
    match priority {
        Some(priority) => Message { priority, flags: message.flags | Flags::PRIORITY, ..message },
        None => message,
    }
}

/// What a PUBACK or PUBREC says of a published message's outcome.
pub(super) fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Accepted => Answer::SUCCESS,
        Outcome::Unroutable => Answer { reason: ReasonCode::NoMatchingSubscribers, text: None },
        Outcome::Refused(refused) => {
            Answer { reason: publish_reason(refused), text: Some(refused.to_string().into()) }
        }
        Outcome::Failed(refused) => {
            // Whatever the cause, it is no word against the message: it may be sent again.
            let reason = match refused {
                Refused::Full(_) => ReasonCode::QuotaExceeded,
                _ => ReasonCode::UnspecifiedError,
            };
            Answer { reason, text: Some(refused.to_string().into()) }
        }
    }
}

/// Of the reasons that a PUBACK may have (MQTT 5 §3.4.2.1).
fn publish_reason(refused: &Refused) -> ReasonCode {
    match refused {
        Refused::AccessRefused(_) | Refused::Locked(_) | Refused::ExclusiveUse(_) | Refused::Fenced(_) => {
            ReasonCode::NotAuthorized
        }
        Refused::Full(_) | Refused::TooLarge(_) => ReasonCode::QuotaExceeded,
        Refused::AddressInvalid(_) => ReasonCode::TopicNameInvalid,
        Refused::Upstream { code: 403, .. } => ReasonCode::NotAuthorized,
        Refused::Upstream { .. }
        | Refused::NotFound { .. }
        | Refused::Inequivalent { .. }
        | Refused::InUse { .. }
        | Refused::NotEmpty(_)
        | Refused::Precondition(_)
        | Refused::NotImplemented(_)
        | Refused::Late
        | Refused::FilterInvalid(_) => ReasonCode::ImplementationSpecificError,
        Refused::Away(_) => ReasonCode::UnspecifiedError,
    }
}

/// Of the reasons that a SUBACK may have (MQTT 5 §3.9.3).
pub(super) fn subscribe_reason(refused: &Refused) -> ReasonCode {
    match refused {
        Refused::FilterInvalid(_) | Refused::NotFound { .. } => ReasonCode::TopicFilterInvalid,
        Refused::AccessRefused(_) | Refused::Locked(_) | Refused::Fenced(_) => ReasonCode::NotAuthorized,
        Refused::ExclusiveUse(_) | Refused::Full(_) | Refused::TooLarge(_) => ReasonCode::QuotaExceeded,
        Refused::Upstream { code: 403, .. } => ReasonCode::NotAuthorized,
        Refused::Upstream { .. }
        | Refused::Inequivalent { .. }
        | Refused::InUse { .. }
        | Refused::NotEmpty(_)
        | Refused::Precondition(_)
        | Refused::AddressInvalid(_)
        | Refused::Late
        | Refused::NotImplemented(_) => ReasonCode::ImplementationSpecificError,
        Refused::Away(_) => ReasonCode::UnspecifiedError,
    }
}

/// Of the reasons that a CONNACK may have (MQTT 5 §3.2.2.2).
pub(super) fn connect_reason(error: &BackendError) -> ReasonCode {
    match error {
        BackendError::Away { .. } => ReasonCode::ServerUnavailable,
        BackendError::BadIdentifier { .. } => ReasonCode::ClientIdentifierNotValid,
        BackendError::Denied { .. } | BackendError::UnknownVhost(_) => ReasonCode::NotAuthorized,
    }
}

/// What a DISCONNECT says when a subscription has ended without the client's doing (MQTT 5 §3.14.2.1), and the text for
/// people. None when it goes on later.
pub(super) fn ended(why: Ended) -> Option<(ReasonCode, Cow<'static, str>)> {
    let (reason, text) = match why {
        Ended::QueueDeleted => {
            (ReasonCode::AdministrativeAction, "a queue that is subscribed to was deleted".into())
        }
        Ended::Superseded => (ReasonCode::QuotaExceeded, "another consumer holds the queue now".into()),
        Ended::RouteChanged => {
            (ReasonCode::AdministrativeAction, "the routes do not allow a subscription any more".into())
        }
        Ended::LimitExceeded { bytes } => {
            let text = format!("more than the session-limit of {bytes} bytes waited for acknowledgements");
            (ReasonCode::QuotaExceeded, text.into())
        }
        Ended::Away => return None,
    };
    Some((reason, text))
}

/// What a client's PUBACK means for the delivery.
pub(super) fn settlement(reason: ReasonCode) -> Settlement {
    if reason.is_error() { Settlement::Reject(None) } else { Settlement::Accept }
}

/// Who settles what a subscription of this QoS is given.
pub(super) fn settle(qos: Qos) -> Settle {
    match qos {
        Qos::AtMostOnce => Settle::OnDelivery,
        Qos::AtLeastOnce | Qos::ExactlyOnce => Settle::AsPublished,
    }
}

/// Which retained messages a keeper of sessions is to send.
pub(super) fn replay_of(handling: RetainHandling) -> Replay {
    match handling {
        RetainHandling::Send => Replay::Always,
        RetainHandling::SendIfNew => Replay::IfNew,
        RetainHandling::DoNotSend => Replay::Never,
    }
}

/// What becomes of a delivery that cannot be sent to this client.
pub(super) fn undeliverable(why: delivery::Undeliverable) -> Settlement {
    use delivery::Undeliverable as Why;
    match why {
        // As if it had been sent and acknowledged [MQTT-3.1.2-25].
        Why::TooLarge | Why::Expired => Settlement::Accept,
        Why::NotATopic => Settlement::Reject(Some(Arc::from(NOT_A_TOPIC))),
        Why::Malformed => Settlement::Reject(Some(Arc::from("malformed"))),
    }
}

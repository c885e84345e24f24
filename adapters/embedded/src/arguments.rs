//! Argument tables of queues and exchanges: validated, compared and worded as RabbitMQ does.

use std::borrow::Cow;

use linkspan_contract::topology::Argument;
use linkspan_contract::{Refused, Value, What};

/// An argument table that owns its bytes.
pub(crate) type Owned = Box<[(Box<str>, Value<'static>)]>;

/// The same table, owning its bytes.
pub(crate) fn owned(arguments: &[Argument<'_>]) -> Owned {
    arguments.iter().map(|(name, value)| ((*name).into(), value.clone().into_owned())).collect()
}

/// What a queue's arguments ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QueueArguments {
    /// Levels above 0; none: a plain queue.
    pub(crate) max_priority: u8,
    /// Milliseconds that a message may wait.
    pub(crate) message_ttl: Option<u64>,
    /// Milliseconds without use after which the queue goes.
    pub(crate) expires: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) dead_letter_exchange: Option<Box<str>>,
    pub(crate) dead_letter_key: Option<Box<[u8]>>,
    pub(crate) single_active: bool,
    pub(crate) delivery_limit: Option<u32>,
}

/// What happens to the message that makes a queue too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDeadLetter,
}

/// Arguments that two declarations of a queue must agree on.
const QUEUE_EQUIVALENT: [&str; 14] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    DELIVERY_LIMIT,
    "x-queue-master-locator",
];

/// Arguments of quorum queues and streams, which a classic queue refuses.
const FOREIGN: [&str; 11] = [
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-initial-cluster-size",
    "x-max-age",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-quorum-initial-group-size",
    "x-quorum-target-group-size",
    "x-stream-filter-size-bytes",
    "x-stream-max-segment-size-bytes",
    "x-stream-offset",
];

/// How often a message of a work route's queue is given out before it counts as unworkable.
pub(crate) const DELIVERY_LIMIT: &str = "linkspan-delivery-limit";

/// The largest time that RabbitMQ takes, in milliseconds.
const MAX_MILLIS: i64 = u32::MAX as i64;

impl QueueArguments {
    /// True when the client gave the queue a length.
    pub(crate) const fn is_bounded(&self) -> bool {
        self.max_length.is_some() || self.max_bytes.is_some()
    }

    /// Reads a queue's arguments, and how many of them mean nothing here.
    pub(crate) fn read(
        vhost: &str,
        queue: &str,
        arguments: &[Argument<'_>],
    ) -> Result<(Self, usize), Refused> {
        let mut read = Self::default();
        let mut unknown = 0;
        let has_exchange = arguments.iter().any(|(name, _)| *name == "x-dead-letter-exchange");
        for (name, value) in arguments {
            let wrong = |why: String| {
                Refused::Precondition(format!(
                    "invalid arg '{name}' for queue '{queue}' in vhost '{vhost}': {why}"
                ))
            };
            match *name {
                "x-max-priority" => {
                    let levels = whole(value).map_err(wrong)?;
                    read.max_priority = u8::try_from(levels).map_err(|_| match levels {
                        ..0 => wrong(format!("{{value_negative,{levels}}}")),
                        _ => wrong(format!("{{max_value_exceeded,{levels}}}")),
                    })?;
                }
                "x-message-ttl" => read.message_ttl = Some(millis(value).map_err(wrong)?),
                "x-expires" => {
                    let expires = millis(value).map_err(wrong)?;
                    if expires == 0 {
                        return Err(wrong("{value_zero,0}".into()));
                    }
                    read.expires = Some(expires);
                }
                "x-max-length" => read.max_length = Some(natural(value).map_err(wrong)?),
                "x-max-length-bytes" => read.max_bytes = Some(natural(value).map_err(wrong)?),
                "x-overflow" => {
                    read.overflow = match text(value).map_err(wrong)?.as_ref() {
                        b"drop-head" => Overflow::DropHead,
                        b"reject-publish" => Overflow::RejectPublish,
                        b"reject-publish-dlx" => Overflow::RejectPublishDeadLetter,
                        _ => return Err(wrong("invalid_overflow".into())),
                    };
                }
                "x-dead-letter-exchange" => {
                    let exchange = text(value).map_err(wrong)?;
                    read.dead_letter_exchange = Some(String::from_utf8_lossy(&exchange).into());
                }
                "x-dead-letter-routing-key" => {
                    let key = text(value).map_err(wrong)?;
                    if !has_exchange {
                        return Err(wrong("routing_key_but_no_dlx_defined".into()));
                    }
                    read.dead_letter_key = Some(key.into());
                }
                "x-single-active-consumer" => {
                    read.single_active = value
                        .as_bool()
                        .ok_or_else(|| wrong(format!("{{unacceptable_type,{}}}", type_name(value))))?;
                }
                "x-queue-mode" => {
                    let mode = text(value).map_err(wrong)?;
                    if !matches!(mode.as_ref(), b"default" | b"lazy") {
                        let mode = String::from_utf8_lossy(&mode);
                        return Err(wrong(format!("\"unsupported queue mode '{mode}'\"")));
                    }
                }
                "x-queue-version" => {
                    let version = natural(value).map_err(wrong)?;
                    if !matches!(version, 1 | 2) {
                        return Err(wrong(format!("\"unsupported queue version '{version}'\"")));
                    }
                }
                "x-queue-type" => match text(value).map_err(wrong)?.as_ref() {
                    b"classic" => {}
                    kind @ (b"quorum" | b"stream") => {
                        let kind = String::from_utf8_lossy(kind);
                        return Err(wrong(format!(
                            "\"unsupported queue type '{kind}': this back end keeps one copy of a queue, in memory\""
                        )));
                    }
                    kind => {
                        let kind = String::from_utf8_lossy(kind);
                        return Err(wrong(format!("\"unsupported queue type '{kind}'\"")));
                    }
                },
                DELIVERY_LIMIT => {
                    read.delivery_limit = Some(natural(value).map_err(wrong)?.try_into().unwrap_or(u32::MAX));
                }
                foreign if FOREIGN.contains(&foreign) => {
                    return Err(Refused::Precondition(format!(
                        "invalid arg '{name}' for queue '{queue}' in vhost '{vhost}' of queue type \
                         rabbit_classic_queue"
                    )));
                }
                _ => unknown += 1,
            }
        }
        Ok((read, unknown))
    }
}

fn whole(value: &Value<'_>) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("\"expected integer, got {}\"", type_name(value)))
}

fn natural(value: &Value<'_>) -> Result<u64, String> {
    let number = whole(value)?;
    u64::try_from(number).map_err(|_| format!("{{value_negative,{number}}}"))
}

fn millis(value: &Value<'_>) -> Result<u64, String> {
    match whole(value)? {
        number @ ..0 => Err(format!("{{value_negative,{number}}}")),
        number if number > MAX_MILLIS => Err(format!("{{value_too_big,{number}}}")),
        number => Ok(number.unsigned_abs()),
    }
}

fn text<'v>(value: &'v Value<'_>) -> Result<Cow<'v, [u8]>, String> {
    match value {
        Value::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
        Value::LongString(bytes) => Ok(Cow::Borrowed(bytes)),
        other => Err(format!("{{unacceptable_type,{}}}", type_name(other))),
    }
}

/// The text of an argument, when it is one.
pub(crate) fn text_of(arguments: &[Argument<'_>], name: &str) -> Option<Box<str>> {
    let (_, value) = arguments.iter().find(|(argument, _)| *argument == name)?;
    Some(String::from_utf8_lossy(&text(value).ok()?).into())
}

/// RabbitMQ's name of a value's type.
pub(crate) fn type_name(value: &Value<'_>) -> &'static str {
    match value {
        Value::Void => "void",
        Value::Bool(_) => "bool",
        Value::I8(_) => "byte",
        Value::U8(_) => "unsignedbyte",
        Value::I16(_) => "short",
        Value::U16(_) => "unsignedshort",
        Value::I32(_) => "signedint",
        Value::U32(_) => "unsignedint",
        Value::I64(_) => "long",
        Value::F32(_) => "float",
        Value::F64(_) => "double",
        Value::Decimal { .. } => "decimal",
        Value::Text(_) | Value::LongString(_) => "longstr",
        Value::Bytes(_) => "binary",
        Value::Timestamp(_) => "timestamp",
        Value::Array(_) => "array",
        Value::Table(_) => "table",
    }
}

/// True when two values are the same to RabbitMQ: of one class of types, and equal.
pub(crate) fn same(one: &Value<'_>, other: &Value<'_>) -> bool {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one == other,
        (None, None) => match (one, other) {
            (Value::F32(one), Value::F64(other)) | (Value::F64(other), Value::F32(one)) => {
                f64::from(*one).total_cmp(other).is_eq()
            }
            _ => one == other,
        },
        _ => false,
    }
}

fn shown(value: Option<&Value<'_>>) -> String {
    let Some(value) = value else { return "none".into() };
    let kind = type_name(value);
    match value {
        Value::Text(text) => format!("the value '{text}' of type '{kind}'"),
        Value::LongString(bytes) | Value::Bytes(bytes) => {
            format!("the value '{}' of type '{kind}'", String::from_utf8_lossy(bytes))
        }
        Value::Bool(yes) => format!("the value '{yes}' of type '{kind}'"),
        Value::F32(number) => format!("the value '{number:?}' of type '{kind}'"),
        Value::F64(number) => format!("the value '{number:?}' of type '{kind}'"),
        Value::Timestamp(seconds) => format!("the value '{seconds}' of type '{kind}'"),
        other => match other.as_i64() {
            Some(number) => format!("the value '{number}' of type '{kind}'"),
            None => format!("the value '{other:?}' of type '{kind}'"),
        },
    }
}

/// Something declared, to be compared with a second declaration.
#[derive(Clone, Copy)]
pub(crate) struct Declared<'a> {
    pub(crate) what: What,
    pub(crate) name: &'a str,
}

impl Declared<'_> {
    /// Refuses when a plain field differs.
    pub(crate) fn field(&self, argument: &str, received: &str, current: &str) -> Result<(), Refused> {
        if received == current {
            return Ok(());
        }
        Err(self.differs(argument, format!("'{received}'"), format!("'{current}'")))
    }

    /// Refuses when one of the arguments that count for a queue differs.
    pub(crate) fn queue_arguments(&self, received: &[Argument<'_>], current: &Owned) -> Result<(), Refused> {
        QUEUE_EQUIVALENT.iter().try_for_each(|name| self.argument(name, received, current))
    }

    /// Refuses when an argument differs.
    pub(crate) fn argument(
        &self,
        name: &str,
        received: &[Argument<'_>],
        current: &Owned,
    ) -> Result<(), Refused> {
        let received = received.iter().find(|(argument, _)| *argument == name).map(|(_, value)| value);
        let current = current.iter().find(|(argument, _)| **argument == *name).map(|(_, value)| value);
        let alike = match (received, current) {
            (None, None) => true,
            (Some(received), Some(current)) => same(received, current),
            (Some(only), None) | (None, Some(only)) => {
                name == "x-queue-type" && only.as_str() == Some("classic")
            }
        };
        if alike { Ok(()) } else { Err(self.differs(name, shown(received), shown(current))) }
    }

    fn differs(&self, argument: &str, received: String, current: String) -> Refused {
        Refused::Inequivalent {
            what: self.what,
            name: self.name.into(),
            argument: argument.into(),
            received,
            current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, value: Value<'static>) -> String {
        QueueArguments::read("/", "q", &[(name, value)]).unwrap_err().to_string()
    }

    #[test]
    fn wrong_arguments_are_refused_in_rabbitmqs_words() {
        for (name, value, why) in [
            ("x-message-ttl", Value::Text("1".into()), "\"expected integer, got longstr\""),
            ("x-message-ttl", Value::I32(-1), "{value_negative,-1}"),
            ("x-expires", Value::I32(0), "{value_zero,0}"),
            ("x-max-priority", Value::I32(256), "{max_value_exceeded,256}"),
            ("x-overflow", Value::Text("other".into()), "invalid_overflow"),
            ("x-dead-letter-routing-key", Value::Text("k".into()), "routing_key_but_no_dlx_defined"),
            ("x-dead-letter-exchange", Value::Bool(true), "{unacceptable_type,bool}"),
            ("x-queue-type", Value::Text("fast".into()), "\"unsupported queue type 'fast'\""),
        ] {
            let expected = format!("invalid arg '{name}' for queue 'q' in vhost '/': {why}");
            assert_eq!(refusal(name, value), expected);
        }
    }

    #[test]
    fn arguments_that_nobody_knows_are_counted_and_those_of_other_queue_types_refused() {
        let unknown = [("x-ha-policy", Value::Text("all".into())), ("mine", Value::Void)];
        assert_eq!(QueueArguments::read("/", "q", &unknown).unwrap(), (QueueArguments::default(), 2));
        assert!(refusal("x-delivery-limit", Value::I32(5)).ends_with("of queue type rabbit_classic_queue"));
    }

    #[test]
    fn equal_numbers_of_different_width_are_equivalent_and_others_are_told_apart() {
        let declared = Declared { what: What::Queue, name: "q" };
        let current = owned(&[("x-message-ttl", Value::I32(5))]);
        declared.queue_arguments(&[("x-message-ttl", Value::I64(5))], &current).unwrap();
        let text = declared.queue_arguments(&[], &current).unwrap_err().to_string();
        assert_eq!(
            text,
            "inequivalent arg 'x-message-ttl' for queue 'q': received none but current is the value '5' of \
             type 'signedint'"
        );
        let none = owned(&[]);
        declared.queue_arguments(&[("x-queue-type", Value::Text("classic".into()))], &none).unwrap();
    }
}

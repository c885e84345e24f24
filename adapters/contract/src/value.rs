//! A header's value.

use std::borrow::Cow;

/// A typed value of a message header or an argument, with every type of AMQP 0-9-1 as RabbitMQ speaks it. MQTT user
/// properties are [`Value::Text`].
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    Void,
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    /// `value / 10^scale`.
    Decimal {
        scale: u8,
        value: u32,
    },
    /// A long string that is UTF-8.
    Text(Cow<'a, str>),
    /// A long string that is not UTF-8.
    LongString(Cow<'a, [u8]>),
    /// RabbitMQ's byte array (`x`).
    Bytes(Cow<'a, [u8]>),
    /// Seconds since 1970.
    Timestamp(u64),
    Array(Vec<Value<'a>>),
    Table(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl Value<'_> {
    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, when it is a whole one.
    pub fn as_i64(&self) -> Option<i64> {
        Some(match *self {
            Self::I8(n) => n.into(),
            Self::U8(n) => n.into(),
            Self::I16(n) => n.into(),
            Self::U16(n) => n.into(),
            Self::I32(n) => n.into(),
            Self::U32(n) => n.into(),
            Self::I64(n) => n,
            _ => return None,
        })
    }

    /// The truth value, when it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(yes) => Some(*yes),
            _ => None,
        }
    }

    /// The value for who has nothing but texts: numbers in decimal, bytes that are no UTF-8 in hexadecimal, tables and arrays as
    /// JSON.
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::Void => Cow::Borrowed(""),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Bool(_) | Self::F32(_) | Self::F64(_) | Self::Array(_) | Self::Table(_) => {
                Cow::Owned(json(self).to_string())
            }
            Self::Decimal { scale, value } => Cow::Owned(decimal(*scale, *value)),
            Self::LongString(bytes) | Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            },
            Self::Timestamp(seconds) => Cow::Owned(seconds.to_string()),
            number => Cow::Owned(number.as_i64().unwrap_or_default().to_string()),
        }
    }

    /// The same value, owning all its bytes.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Void => Value::Void,
            Self::Bool(v) => Value::Bool(v),
            Self::I8(v) => Value::I8(v),
            Self::U8(v) => Value::U8(v),
            Self::I16(v) => Value::I16(v),
            Self::U16(v) => Value::U16(v),
            Self::I32(v) => Value::I32(v),
            Self::U32(v) => Value::U32(v),
            Self::I64(v) => Value::I64(v),
            Self::F32(v) => Value::F32(v),
            Self::F64(v) => Value::F64(v),
            Self::Decimal { scale, value } => Value::Decimal { scale, value },
            Self::Text(v) => Value::Text(Cow::Owned(v.into_owned())),
            Self::LongString(v) => Value::LongString(Cow::Owned(v.into_owned())),
            Self::Bytes(v) => Value::Bytes(Cow::Owned(v.into_owned())),
            Self::Timestamp(v) => Value::Timestamp(v),
            Self::Array(items) => Value::Array(items.into_iter().map(Value::into_owned).collect()),
            Self::Table(fields) => Value::Table(owned_fields(fields)),
        }
    }
}

/// The same fields, owning all their bytes.
pub fn owned_fields(fields: Vec<(Cow<'_, str>, Value<'_>)>) -> Vec<(Cow<'static, str>, Value<'static>)> {
    fields.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), value.into_owned())).collect()
}

fn json(value: &Value<'_>) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Void => Json::Null,
        Value::Bool(yes) => Json::Bool(*yes),
        Value::F32(number) => f64::from(*number).into(),
        Value::F64(number) => (*number).into(),
        Value::Timestamp(seconds) => (*seconds).into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Table(fields) => {
            Json::Object(fields.iter().map(|(name, value)| (name.to_string(), json(value))).collect())
        }
        other => match other.as_i64() {
            Some(number) => number.into(),
            None => Json::String(other.to_text().into_owned()),
        },
    }
}

fn decimal(scale: u8, value: u32) -> String {
    let (digits, scale) = (value.to_string(), usize::from(scale));
    if scale == 0 {
        return digits;
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, rest) = padded.split_at(padded.len() - scale);
    format!("{whole}.{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_text() {
        for (value, text) in [
            (Value::Void, ""),
            (Value::Bool(true), "true"),
            (Value::I32(-3), "-3"),
            (Value::F64(0.5), "0.5"),
            (Value::Decimal { scale: 2, value: 5 }, "0.05"),
            (Value::Decimal { scale: 0, value: 5 }, "5"),
            (Value::Timestamp(9), "9"),
            (Value::Bytes(b"\xfe\x01"[..].into()), "fe01"),
            (Value::LongString(b"\xff"[..].into()), "ff"),
            (Value::Array(vec![Value::U8(1), Value::Text("a".into())]), "[1,\"a\"]"),
            (Value::Table(vec![("n".into(), Value::I64(1))]), "{\"n\":1}"),
        ] {
            assert_eq!(value.to_text(), text, "{value:?}");
        }
    }
}

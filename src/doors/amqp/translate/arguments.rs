//! Field tables and what they hold.

use std::borrow::Cow;

use linkspan_contract::Value;
use linkspan_contract::topology::Argument;

use crate::protocol::amqp::{self, ArrayBuf, Decimal, ReplyCode, ShortBytes, Table, TableBuf};

use super::super::failure::Failure;

/// The arguments of a declaration, binding or consumer.
///
/// # Errors
/// When a name is not UTF-8: no back end knows such an argument.
pub(in super::super) fn arguments(table: Table<'_>) -> Result<Vec<Argument<'_>>, Failure> {
    let mut arguments = Vec::new();
    for (name, value) in table {
        let Some(text) = name.as_str() else {
            let why = format!("argument name {name:?} is not UTF-8");
            return Err(Failure::new(ReplyCode::PreconditionFailed, &why));
        };
        arguments.push((text, neutral(value)));
    }
    Ok(arguments)
}

/// The headers of a message; names that are not UTF-8 are made so.
pub(super) fn headers(table: Table<'_>) -> Vec<(Cow<'_, str>, Value<'_>)> {
    table
        .into_iter()
        .map(|(name, value)| (String::from_utf8_lossy(name.as_bytes()), neutral(value)))
        .collect()
}

/// A value in the contract's words.
pub(super) fn neutral(value: amqp::Value<'_>) -> Value<'_> {
    match value {
        amqp::Value::Bool(v) => Value::Bool(v),
        amqp::Value::I8(v) => Value::I8(v),
        amqp::Value::U8(v) => Value::U8(v),
        amqp::Value::I16(v) => Value::I16(v),
        amqp::Value::U16(v) => Value::U16(v),
        amqp::Value::I32(v) => Value::I32(v),
        amqp::Value::U32(v) => Value::U32(v),
        amqp::Value::I64(v) => Value::I64(v),
        amqp::Value::F32(v) => Value::F32(v),
        amqp::Value::F64(v) => Value::F64(v),
        amqp::Value::Decimal(v) => Value::Decimal { scale: v.scale, value: v.value },
        amqp::Value::LongString(v) => match std::str::from_utf8(v) {
            Ok(text) => Value::Text(Cow::Borrowed(text)),
            Err(_) => Value::LongString(Cow::Borrowed(v)),
        },
        amqp::Value::Array(items) => Value::Array(items.into_iter().map(neutral).collect()),
        amqp::Value::Timestamp(v) => Value::Timestamp(v),
        amqp::Value::Table(table) => Value::Table(headers(table)),
        amqp::Value::Void => Value::Void,
        amqp::Value::Bytes(v) => Value::Bytes(Cow::Borrowed(v)),
    }
}

/// Appends a header. A name over 255 bytes is cut: no table can hold it.
pub(super) fn put(name: &str, value: &Value<'_>, out: &mut TableBuf) {
    let name = name.get(..name.floor_char_boundary(u8::MAX as usize)).unwrap_or_default();
    let name = ShortBytes::try_from(name).unwrap_or_default();
    with_encodable(value, |value| {
        out.put_bytes(name, value);
    });
}

fn with_encodable(value: &Value<'_>, with: impl FnOnce(amqp::Value<'_>)) {
    let scalar = match value {
        Value::Array(items) => {
            let mut array = ArrayBuf::new();
            for item in items {
                push(item, &mut array);
            }
            return with(amqp::Value::Array(array.as_array()));
        }
        Value::Table(fields) => {
            let mut table = TableBuf::new();
            for (name, value) in fields {
                put(name, value, &mut table);
            }
            return with(amqp::Value::Table(table.as_table()));
        }
        Value::Void => amqp::Value::Void,
        Value::Bool(v) => amqp::Value::Bool(*v),
        Value::I8(v) => amqp::Value::I8(*v),
        Value::U8(v) => amqp::Value::U8(*v),
        Value::I16(v) => amqp::Value::I16(*v),
        Value::U16(v) => amqp::Value::U16(*v),
        Value::I32(v) => amqp::Value::I32(*v),
        Value::U32(v) => amqp::Value::U32(*v),
        Value::I64(v) => amqp::Value::I64(*v),
        Value::F32(v) => amqp::Value::F32(*v),
        Value::F64(v) => amqp::Value::F64(*v),
        Value::Decimal { scale, value } => amqp::Value::Decimal(Decimal { scale: *scale, value: *value }),
        Value::Text(v) => amqp::Value::LongString(v.as_bytes()),
        Value::LongString(v) => amqp::Value::LongString(v),
        Value::Bytes(v) => amqp::Value::Bytes(v),
        Value::Timestamp(v) => amqp::Value::Timestamp(*v),
    };
    with(scalar);
}

/// Apart from the closure that calls it: each would else be a type of its own, without end.
fn push(item: &Value<'_>, array: &mut ArrayBuf) {
    with_encodable(item, |item| {
        array.push(item);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_value_comes_back_as_it_was() {
        let values = [
            Value::Void,
            Value::Bool(true),
            Value::I8(-1),
            Value::U8(1),
            Value::I16(-2),
            Value::U16(2),
            Value::I32(-3),
            Value::U32(3),
            Value::I64(-4),
            Value::F32(0.5),
            Value::F64(0.25),
            Value::Decimal { scale: 2, value: 314 },
            Value::Text("text".into()),
            Value::LongString(b"\xff"[..].into()),
            Value::Bytes(b"\0"[..].into()),
            Value::Timestamp(1),
            Value::Array(vec![Value::I32(1), Value::Text("x".into()), Value::Array(Vec::new())]),
            Value::Table(vec![("k".into(), Value::Bool(false)), ("k".into(), Value::Void)]),
        ];
        let mut table = TableBuf::new();
        for value in &values {
            put("name", value, &mut table);
        }
        let back = headers(Table::new(table.as_table().as_bytes()).unwrap());
        assert_eq!(back.len(), values.len());
        for ((name, got), want) in back.iter().zip(&values) {
            assert_eq!((&**name, got), ("name", want));
        }
    }

    #[test]
    fn an_argument_whose_name_is_no_text_is_refused() {
        let mut table = TableBuf::new();
        table.put_bytes(ShortBytes::new(b"\xff").unwrap(), true);
        let failure = arguments(table.as_table()).unwrap_err();
        assert_eq!(failure.text, "PRECONDITION_FAILED - argument name \"\\xff\" is not UTF-8");
    }
}

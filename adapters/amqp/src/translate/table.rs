//! Values and tables.

use std::borrow::Cow;

use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, ShortString};
use linkspan_contract::{Refused, Value};

/// An argument table for the broker.
///
/// # Errors
/// When a name is longer than 255 bytes.
pub(crate) fn table<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a Value<'a>)>,
) -> Result<FieldTable, Refused> {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name_of(name)?, outward(value)?);
    }
    Ok(table)
}

pub(super) fn name_of(name: &str) -> Result<ShortString, Refused> {
    ShortString::try_new(name).map_err(|_| {
        let len = name.len();
        Refused::Precondition(format!(
            "the name of a header has {len} bytes, and the back end's broker takes 255"
        ))
    })
}

pub(super) fn outward(value: &Value<'_>) -> Result<AMQPValue, Refused> {
    Ok(match value {
        Value::Void => AMQPValue::Void,
        Value::Bool(v) => AMQPValue::Boolean(*v),
        Value::I8(v) => AMQPValue::ShortShortInt(*v),
        Value::U8(v) => AMQPValue::ShortShortUInt(*v),
        Value::I16(v) => AMQPValue::ShortInt(*v),
        Value::U16(v) => AMQPValue::ShortUInt(*v),
        Value::I32(v) => AMQPValue::LongInt(*v),
        Value::U32(v) => AMQPValue::LongUInt(*v),
        Value::I64(v) => AMQPValue::LongLongInt(*v),
        Value::F32(v) => AMQPValue::Float(*v),
        Value::F64(v) => AMQPValue::Double(*v),
        Value::Decimal { scale, value } => {
            AMQPValue::DecimalValue(DecimalValue { scale: *scale, value: *value })
        }
        Value::Text(v) => AMQPValue::LongString(v.as_bytes().into()),
        Value::LongString(v) => AMQPValue::LongString((&**v).into()),
        Value::Bytes(v) => AMQPValue::ByteArray((&**v).into()),
        Value::Timestamp(v) => AMQPValue::Timestamp(*v),
        Value::Array(items) => {
            let items: Vec<AMQPValue> = items.iter().map(outward).collect::<Result<_, _>>()?;
            AMQPValue::FieldArray(FieldArray::from(items))
        }
        Value::Table(fields) => {
            AMQPValue::FieldTable(table(fields.iter().map(|(name, value)| (&**name, value)))?)
        }
    })
}

pub(super) fn inward(value: &AMQPValue) -> Value<'_> {
    match value {
        AMQPValue::Void => Value::Void,
        AMQPValue::Boolean(v) => Value::Bool(*v),
        AMQPValue::ShortShortInt(v) => Value::I8(*v),
        AMQPValue::ShortShortUInt(v) => Value::U8(*v),
        AMQPValue::ShortInt(v) => Value::I16(*v),
        AMQPValue::ShortUInt(v) => Value::U16(*v),
        AMQPValue::LongInt(v) => Value::I32(*v),
        AMQPValue::LongUInt(v) => Value::U32(*v),
        AMQPValue::LongLongInt(v) => Value::I64(*v),
        AMQPValue::Float(v) => Value::F32(*v),
        AMQPValue::Double(v) => Value::F64(*v),
        AMQPValue::DecimalValue(v) => Value::Decimal { scale: v.scale, value: v.value },
        AMQPValue::ShortString(v) => Value::Text(v.as_str().into()),
        AMQPValue::LongString(v) => match std::str::from_utf8(v.as_bytes()) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::LongString(v.as_bytes().into()),
        },
        AMQPValue::ByteArray(v) => Value::Bytes(v.as_slice().into()),
        AMQPValue::Timestamp(v) => Value::Timestamp(*v),
        AMQPValue::FieldArray(items) => Value::Array(items.as_slice().iter().map(inward).collect()),
        AMQPValue::FieldTable(fields) => Value::Table(
            fields
                .inner()
                .iter()
                .map(|(name, value)| (Cow::Borrowed(name.as_str()), inward(value)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_comes_back_as_it_was() {
        let values = vec![
            Value::Void,
            Value::Bool(true),
            Value::I8(-1),
            Value::U8(200),
            Value::I16(-2),
            Value::U16(2),
            Value::I32(-3),
            Value::U32(3),
            Value::I64(-4),
            Value::F32(0.5),
            Value::F64(0.25),
            Value::Decimal { scale: 2, value: 314 },
            Value::Text("text".into()),
            Value::LongString(b"\xfe"[..].into()),
            Value::Bytes(b"\0\xff"[..].into()),
            Value::Timestamp(1),
            Value::Table(vec![("a".into(), Value::Void)]),
        ];
        let all = Value::Array(values);
        assert_eq!(inward(&outward(&all).unwrap()), all);
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_and_not_a_panic() {
        let name = "n".repeat(256);
        assert!(matches!(table([(&*name, &Value::Void)]), Err(Refused::Precondition(_))));
    }
}

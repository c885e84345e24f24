//! Tables, arrays, values, properties.

use proptest::prelude::*;

use super::{
    super::{
        Array, ArrayBuf, Decimal, Expiration, Malformed, Properties, ShortBytes, ShortString, Summary, Table,
        TableBuf, Value, properties::NONE, table::MAX_DEPTH,
    },
    generate,
};

fn rebuild_table(table: Table<'_>) -> TableBuf {
    let mut built = TableBuf::new();
    for (name, value) in table {
        rebuild(value, &mut |value| {
            built.put_bytes(name, value);
        });
    }
    built
}

fn rebuild(value: Value<'_>, put: &mut dyn FnMut(Value<'_>)) {
    match value {
        Value::Table(table) => put(rebuild_table(table).as_table().into()),
        Value::Array(array) => {
            let mut built = ArrayBuf::new();
            for value in array {
                rebuild(value, &mut |value| {
                    built.push(value);
                });
            }
            put(built.as_array().into());
        }
        value => put(value),
    }
}

proptest! {
    #[test]
    fn every_table_taken_apart_and_built_again_is_the_same(entries in generate::table()) {
        let table = Table::new(&entries).unwrap();
        let built = rebuild_table(table);
        prop_assert_eq!(built.as_table().as_bytes(), &entries);
    }

    #[test]
    fn a_table_cut_anywhere_is_refused_or_ends_between_entries(entries in generate::table(), cut: prop::sample::Index) {
        let cut = &entries[..cut.index(entries.len() + 1)];
        match Table::new(cut) {
            Ok(table) => {
                let built = rebuild_table(table);
                prop_assert_eq!(built.as_table().as_bytes(), cut);
            }
            Err(error) => prop_assert_eq!(error, Malformed::TableTruncated),
        }
    }

    #[test]
    fn random_bytes_never_panic_as_a_table(bytes: Vec<u8>) {
        if let Ok(table) = Table::new(&bytes) {
            let built = rebuild_table(table);
            // `L` and odd truth values are written in the usual way, so bytes may differ once, not twice.
            prop_assert_eq!(rebuild_table(built.as_table()), built);
        }
        let _ = Array::new(&bytes).map(|array| format!("{array:?}"));
    }

    #[test]
    fn every_set_of_properties_decodes_and_encodes_to_the_same_bytes(encoded in generate::properties()) {
        let properties = Properties::decode(&encoded).unwrap();
        let mut out = vec![];
        properties.encode(&mut out);
        prop_assert_eq!(&out, &encoded);
        prop_assert_eq!(Properties::decode(&out), Ok(properties));
    }

    #[test]
    fn the_summary_says_what_the_properties_say(encoded in generate::properties()) {
        agree(&encoded);
    }

    #[test]
    fn the_summary_refuses_what_the_properties_refuse(
        mut encoded in generate::properties(), at: prop::sample::Index, octet: u8, keep: prop::sample::Index,
    ) {
        let at = at.index(encoded.len());
        encoded[at] = octet;
        agree(&encoded);
        agree(&encoded[..keep.index(encoded.len())]);
    }

    #[test]
    fn random_bytes_never_panic_as_properties(bytes: Vec<u8>) {
        agree(&bytes);
    }
}

fn agree(encoded: &[u8]) {
    let summary = Summary::scan(encoded);
    match Properties::decode(encoded) {
        Err(error) => assert_eq!(summary, Err(error)),
        Ok(properties) => {
            let copies = |table: Table<'_>| table.get("CC").is_some() || table.get("BCC").is_some();
            let expected = Summary {
                delivery_mode: properties.delivery_mode.unwrap_or(0),
                priority: properties.priority,
                expiration: properties.expiration.map_or(Expiration::Never, |text| Expiration::parse(&text)),
                reply_to: properties.reply_to,
                user_id: properties.user_id,
                headers: properties.headers.is_some(),
                copies: properties.headers.is_some_and(copies),
            };
            assert_eq!(summary, Ok(expected));
        }
    }
}

#[test]
fn expirations_are_milliseconds_that_rabbitmq_takes() {
    for (text, expiration) in [
        ("0", Expiration::After(0)),
        ("60000", Expiration::After(60_000)),
        ("4294967295", Expiration::After(u32::MAX)),
        ("4294967296", Expiration::Invalid),
        ("-1", Expiration::Invalid),
        ("", Expiration::Invalid),
        ("1.5", Expiration::Invalid),
        ("10 s", Expiration::Invalid),
    ] {
        assert_eq!(Expiration::parse(text.as_bytes()), expiration, "{text:?}");
    }
}

#[test]
fn flags_may_go_on_over_more_words_but_not_name_more_properties() {
    let priority = |words: &[u16]| {
        let mut encoded: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        encoded.push(7);
        agree(&encoded);
        Properties::decode(&encoded).map(|properties| properties.priority)
    };
    assert_eq!(priority(&[0x0800]), Ok(Some(7)));
    assert_eq!(priority(&[0x0801, 0x0000]), Ok(Some(7)));
    assert_eq!(priority(&[0x0801, 0x0001, 0x0000]), Ok(Some(7)));
    assert_eq!(priority(&[0x0802]), Err(Malformed::PropertyFlag));
    assert_eq!(priority(&[0x0801, 0x8000]), Err(Malformed::PropertyFlag));
    assert_eq!(Properties::decode(&NONE), Ok(Properties::default()));
}

#[test]
fn tables_nest_to_the_bound_and_no_deeper() {
    for kind in [b'F', b'A'] {
        let nested = |levels: usize| {
            let mut value: Vec<u8> = vec![];
            for level in 0..levels {
                let name: &[u8] = if kind == b'F' || level + 1 == levels { &[0] } else { &[] };
                let inner = if level == 0 {
                    vec![b'V']
                } else {
                    [&[kind][..], &(value.len() as u32).to_be_bytes(), &value].concat()
                };
                value = [name, &inner].concat();
            }
            value
        };
        assert!(Table::new(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(Table::new(&nested(MAX_DEPTH + 1)), Err(Malformed::TableDepth));
        assert_eq!(Table::new(&nested(20_000)), Err(Malformed::TableDepth));
    }
}

#[test]
fn values_are_found_by_name_and_read_by_kind() {
    let mut inner = TableBuf::new();
    inner.put("publisher_confirms", true).unwrap();
    let mut table = TableBuf::new();
    table.put("capabilities", inner.as_table()).unwrap().put("x-max-priority", 10).unwrap();
    table.put("product", "Linkspan").unwrap().put("product", "second").unwrap();
    table.put("scale", Value::Decimal(Decimal { scale: 2, value: 314 })).unwrap();
    let table = table.as_table();
    assert_eq!(table.get("product").and_then(Value::as_str), Some("Linkspan"), "the first of a name counts");
    assert_eq!(table.get("x-max-priority").and_then(Value::as_i64), Some(10));
    let capabilities = table.get("capabilities").and_then(Value::as_table).unwrap();
    assert_eq!(capabilities.get("publisher_confirms").and_then(Value::as_bool), Some(true));
    assert_eq!(table.iter().count(), 5, "duplicates are kept");
    assert!(TableBuf::new().put(&"n".repeat(256), true).is_err());
}

#[test]
fn rabbitmqs_readings_of_odd_values_hold() {
    let entries = [&[1, b'a', b'L'][..], &(-2i64).to_be_bytes(), &[1, b'b', b't', 2]].concat();
    let table = Table::new(&entries).unwrap();
    assert_eq!(table.get("a"), Some(Value::I64(-2)), "L is signed");
    assert_eq!(table.get("b"), Some(Value::Bool(true)), "any octet but 0 is true");
    assert_eq!(Table::new(&[1, b'a', b'q', 0]), Err(Malformed::TableType(b'q')));
}

#[test]
fn short_strings_hold_255_bytes() {
    assert!(ShortBytes::new(&[0; 255]).is_ok() && ShortBytes::new(&[0; 256]).is_err());
    assert!(ShortString::new(&"x".repeat(255)).is_ok() && ShortString::new(&"x".repeat(256)).is_err());
    assert_eq!(ShortString::truncated(&"é".repeat(128)).len(), 254, "cut between characters");
}

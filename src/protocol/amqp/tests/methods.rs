//! Every method of the standard.

use proptest::prelude::*;

use super::{
    super::{Error, Method, MethodId},
    generate::{frame, is_reserved, method, method_of},
    standard::METHODS,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_method_decodes_and_encodes_to_the_same_bytes((row, payload) in method(), channel: u16) {
        let method = Method::decode(&payload).unwrap_or_else(|error| panic!("{} {error:?}", row.2));
        let mut out = vec![];
        method.encode(channel, &mut out);
        prop_assert_eq!(&out, &frame(1, channel, &payload), "{}", row.2);
        prop_assert_eq!(Method::decode(&out[7..out.len() - 1]), Ok(method));
    }

    #[test]
    fn a_method_cut_short_or_with_bytes_left_is_refused_with_its_name((row, payload) in method(), cut: prop::sample::Index) {
        let cut = 4 + cut.index(payload.len() - 3);
        let shorter = Method::decode(&payload[..cut]);
        if cut < payload.len() {
            prop_assert_eq!(shorter.unwrap_err().method(), MethodId { class: row.0, method: row.1 });
        }
        let longer = Method::decode(&[&payload[..], &[0]].concat()).unwrap_err();
        prop_assert_eq!(longer.method(), MethodId { class: row.0, method: row.1 });
        prop_assert_eq!(longer.reply_code().code(), 501);
    }
}

#[test]
fn the_table_of_methods_is_the_standards() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for row in METHODS {
        let payload = method_of(row).new_tree(&mut runner).unwrap().current();
        let method = Method::decode(&payload).unwrap_or_else(|error| panic!("{} {error:?}", row.2));
        assert_eq!(method.id(), MethodId { class: row.0, method: row.1 });
        assert_eq!(method.id().to_string(), row.2);
        assert_eq!(method.has_content(), row.3, "{}", row.2);

        let debug = format!("{method:#?}");
        // Fields of the method's struct are indented by twelve spaces, tables within them further.
        let fields = debug.lines().filter_map(|line| line.strip_prefix("            ")?.split_once(": "));
        let fields: Vec<&str> =
            fields.map(|(name, _)| name).filter(|name| !name.starts_with([' ', '"'])).collect();
        let names = row.4.split_whitespace().map(|field| field.split_once(':').unwrap().0);
        let expected: Vec<String> = names
            .filter(|name| !is_reserved(row, name))
            .map(|name| match name {
                "type" => "kind".into(),
                "nowait" => "no_wait".into(),
                name => name.replace('-', "_"),
            })
            .collect();
        assert_eq!(fields, expected, "{}", row.2);
    }
}

#[test]
fn methods_that_the_standard_does_not_have_are_not_implemented() {
    for class in 0..=300 {
        for method in 0..=300 {
            let id = MethodId { class, method };
            let known = METHODS.iter().any(|row| (row.0, row.1) == (class, method));
            let payload = id.to_be_bytes();
            assert_eq!(Method::decode(&payload) == Err(Error::UnknownMethod { method: id }), !known, "{id}");
        }
    }
}

#[test]
fn reserved_fields_and_unused_bits_are_ignored() {
    let plain = [0, 50, 0, 30, 0, 0, 1, b'q', 0b1];
    let odd = [0, 50, 0, 30, 255, 7, 1, b'q', 0b1111_0001];
    assert_eq!(Method::decode(&odd).unwrap(), Method::decode(&plain).unwrap());
}

#[test]
fn names_must_be_text_except_in_methods_with_content() {
    let declare = [&[0, 50, 0, 30, 0, 0][..], &[2, 0xC3, 0x28], &[0]].concat();
    let error = Method::decode(&declare).unwrap_err();
    assert_eq!(error.reply_text(), "FRAME_ERROR - Malformed UTF-8 in shortstr");
    let publish = [&[0, 60, 0, 40, 0, 0][..], &[0], &[2, 0xC3, 0x28], &[0]].concat();
    assert!(Method::decode(&publish).is_ok());
}

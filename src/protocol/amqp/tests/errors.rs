//! What a peer is told for what it did wrong.

use super::{
    super::{
        Assembly, Error, Frame, FrameKind, Limits, MethodId, Part,
        frame::{self, Decoded},
    },
    ROOMY,
    generate::frame,
};

fn refused(bytes: &[u8]) -> Error {
    match frame::decode(bytes, 0, &ROOMY) {
        Err(error) => error,
        other => panic!("{other:?}"),
    }
}

fn accept<'a>(assembly: &mut Assembly, bytes: &'a [u8], limits: &Limits) -> Result<Part<'a>, Error> {
    match frame::decode(bytes, 0, limits) {
        Ok(Decoded::Frame(frame)) => assembly.accept(&frame, limits),
        other => panic!("{other:?}"),
    }
}

const PUBLISH: MethodId = MethodId { class: 60, method: 40 };

fn publish() -> Vec<u8> {
    frame(1, 1, &[0, 60, 0, 40, 0, 0, 0, 1, b'q', 0])
}

fn header(class: u8, weight: u8, body_size: u64) -> Vec<u8> {
    frame(2, 1, &[&[0, class, 0, weight][..], &body_size.to_be_bytes(), &[0, 0]].concat())
}

#[test]
fn frames_that_do_not_exist_are_frame_errors() {
    for (bytes, text) in [
        (frame(4, 0, &[]), "FRAME_ERROR - type 4, all octets = <<>>: unknown_frame"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "FRAME_ERROR - type 71, all octets = <<>>: {frame_too_large,"),
        (frame(8, 0, &[1]), "FRAME_ERROR - type 8, all octets = <<>>: unknown_frame"),
        (frame(1, 0, &[0, 10]), "FRAME_ERROR - type 1, all octets = <<>>: unknown_frame"),
        (frame(2, 1, &[0, 60, 0, 0]), "FRAME_ERROR - type 2, all octets = <<>>: unknown_frame"),
    ] {
        let error = refused(&bytes);
        assert!(error.reply_text().starts_with(text), "{}", error.reply_text());
        assert_eq!((error.reply_code().code(), error.method()), (501, MethodId::default()));
        assert!(error.loses_framing());
    }
}

#[test]
fn a_wrong_end_octet_is_a_frame_error_that_shows_the_payload() {
    let mut bytes = frame(3, 1, b"hello");
    bytes[12] = 0;
    assert_eq!(
        refused(&bytes).reply_text(),
        "FRAME_ERROR - type 3, all octets = <<\"hello\">>: {invalid_frame_end_marker,0}"
    );
    let mut bytes = frame(1, 1, &[7; 20]);
    bytes[27] = 255;
    assert_eq!(
        refused(&bytes).reply_text(),
        "FRAME_ERROR - type 1, first 16 octets = <<7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7>>: {invalid_frame_end_marker,255}"
    );
}

#[test]
fn heartbeats_belong_to_channel_0_and_content_does_not() {
    assert_eq!(refused(&frame(8, 1, &[])).reply_text(), "UNEXPECTED_FRAME - type 8, all octets = <<>>");
    assert_eq!(refused(&frame(2, 0, &[0; 14])).reply_code().code(), 505);
    assert_eq!(refused(&frame(3, 0, &[0; 14])).reply_code().code(), 505);
    let heartbeat = Frame { kind: FrameKind::Heartbeat, channel: 0, payload: &[], wire: Default::default() };
    assert_eq!(Assembly::Idle.accept(&heartbeat, &ROOMY), Err(Error::ExpectedMethod));
}

#[test]
fn content_comes_in_its_order() {
    let body = frame(3, 1, b"hello");
    let cases: [(&[&[u8]], u16, &str); 8] = [
        (&[&body], 505, "expected method frame, got non method frame instead"),
        (
            &[&publish(), &publish()],
            505,
            "expected content header for class 60, got non content header frame instead",
        ),
        (
            &[&publish(), &body],
            505,
            "expected content header for class 60, got non content header frame instead",
        ),
        (
            &[&publish(), &header(60, 1, 5)],
            505,
            "expected content header for class 60, got non content header frame instead",
        ),
        (
            &[&publish(), &header(50, 0, 5)],
            505,
            "expected content header for class 60, got one for class 50 instead",
        ),
        (
            &[&publish(), &header(60, 0, 5), &publish()],
            505,
            "expected content body, got non content body frame instead",
        ),
        (&[&publish(), &header(60, 0, 4), &body], 501, "content body frame exceeds remaining content size"),
        (&[&publish(), &header(60, 0, 0), &body], 505, "expected method frame, got non method frame instead"),
    ];
    for (frames, code, text) in cases {
        let mut assembly = Assembly::default();
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            accept(&mut assembly, frame, &ROOMY).unwrap();
        }
        let error = accept(&mut assembly, last, &ROOMY).unwrap_err();
        assert_eq!((error.reply_code().code(), error.to_string().as_str()), (code, text));
        assert!(error.reply_code().is_hard() && !error.loses_framing());
        let within_content = error != Error::ExpectedMethod;
        assert_eq!(error.method() == PUBLISH, within_content, "{text}");
    }
}

#[test]
fn a_body_over_the_limit_closes_the_channel_at_its_header() {
    let limits = Limits { frame_max: 4096, body_max: 10 };
    let mut assembly = Assembly::default();
    accept(&mut assembly, &publish(), &limits).unwrap();
    let error = accept(&mut assembly, &header(60, 0, 11), &limits).unwrap_err();
    assert_eq!(
        error.reply_text(),
        "PRECONDITION_FAILED - message size 11 is larger than configured max size 10"
    );
    assert!(!error.reply_code().is_hard());
    assert_eq!((error.method(), assembly), (PUBLISH, Assembly::Idle));
}

#[test]
fn a_body_of_several_frames_says_where_each_belongs() {
    let mut assembly = Assembly::default();
    accept(&mut assembly, &publish(), &ROOMY).unwrap();
    assert!(!assembly.is_idle());
    assert!(matches!(accept(&mut assembly, &header(60, 0, 7), &ROOMY), Ok(Part::Header { last: false, .. })));
    for (chunk, offset, last) in [("abc", 0, false), ("", 3, false), ("de", 3, false), ("fg", 5, true)] {
        let bytes = frame(3, 1, chunk.as_bytes());
        let part = Part::Body { chunk: chunk.as_bytes(), offset, last };
        assert_eq!(accept(&mut assembly, &bytes, &ROOMY), Ok(part));
    }
    assert!(assembly.is_idle());
}

#[test]
fn arguments_that_cannot_be_decoded_name_their_method() {
    let refused = |payload: &[u8]| accept(&mut Assembly::Idle, &frame(1, 1, payload), &ROOMY).unwrap_err();
    let short = refused(&[0, 50, 0, 10, 0, 0, 9]);
    assert_eq!(short.reply_text(), "FRAME_ERROR - cannot decode all octets = <<0,0,9>>: ends inside a field");
    assert_eq!(short.method(), MethodId { class: 50, method: 10 });
    let table = refused(&[0, 50, 0, 10, 0, 0, 0, 0, 0, 0, 0, 3, 1, b'a', b'q']);
    assert_eq!(table.reply_code().code(), 502);
    assert!(table.to_string().ends_with("field table value of unknown type 113"), "{table}");
    let unknown = refused(&[0, 60, 0, 99]);
    assert_eq!(unknown.reply_text(), "NOT_IMPLEMENTED - unknown method 99 of class 60");
    assert_eq!(unknown.method(), MethodId { class: 60, method: 99 });
}

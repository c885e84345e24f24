//! Framing: any split gives the same frames, limits hold, nothing panics.

use proptest::{collection::vec, prelude::*};

use super::{
    super::{
        Assembly, Error, Greeting, Limits, Method, Part, Properties, Publish, Summary,
        frame::{self, Decoded, FrameKind},
    },
    ROOMY,
    generate::{frame, message, mutated, traffic},
};

/// Kind, channel and payload.
type Owned = (FrameKind, u16, Vec<u8>);

/// All whole frames, and the error that ended them.
fn frames(bytes: &[u8], limits: &Limits) -> (Vec<Owned>, Option<Error>) {
    let mut found = vec![];
    let mut at = 0;
    loop {
        match frame::decode(bytes, at, limits) {
            Ok(Decoded::Frame(frame)) => {
                assert_eq!(frame.payload_span().of(bytes), Some(frame.payload));
                found.push((frame.kind, frame.channel, frame.payload.to_vec()));
                at = frame.wire.end();
            }
            Ok(Decoded::Incomplete { needed }) => {
                assert!(needed > bytes.len() - at, "more is needed than is there");
                return (found, None);
            }
            Err(error) => return (found, Some(error)),
        }
    }
}

/// The same, from pieces: a reader that keeps what is not a whole frame and reads on.
fn frames_of_pieces(pieces: &[&[u8]], limits: &Limits) -> (Vec<Owned>, Option<Error>) {
    let mut kept = vec![];
    let mut all = vec![];
    for piece in pieces {
        kept.extend_from_slice(piece);
        let (found, error) = frames(&kept, limits);
        let len: usize = found.iter().map(|(_, _, payload)| payload.len() + 8).sum();
        kept.drain(..len);
        all.extend(found);
        if error.is_some() {
            return (all, error);
        }
    }
    (all, None)
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// What a connection does with received bytes; whatever decodes must encode and decode to the same again.
fn exercise(bytes: &[u8], limits: &Limits) {
    let _ = Greeting::decode(bytes);
    let mut assembly = Assembly::default();
    let mut at = 0;
    while let Ok(Decoded::Frame(frame)) = frame::decode(bytes, at, limits) {
        at = frame.wire.end();
        match assembly.accept(&frame, limits) {
            Ok(Part::Method(method)) => {
                let mut out = vec![];
                method.encode(frame.channel, &mut out);
                assert_eq!(Method::decode(&out[7..out.len() - 1]), Ok(method));
            }
            Ok(Part::Header { header, .. }) => {
                let mut out = vec![];
                header.encode(frame.channel, &mut out);
                assert_eq!(out, bytes[frame.wire.start as usize..at]);
                assert_eq!(
                    Summary::scan(header.properties).is_ok(),
                    Properties::decode(header.properties).is_ok()
                );
            }
            Ok(Part::Body { chunk, .. }) => assert!(chunk.len() as u64 <= limits.body_max),
            Err(error) => assert!(error.reply_text().len() <= 255),
        }
    }
    for at in 0..=bytes.len() {
        let _ = Publish::recognise(bytes, at, limits);
    }
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_frames(bytes in traffic(), cuts in vec(any::<prop::sample::Index>(), 0..12)) {
        let whole = frames(&bytes, &ROOMY);
        prop_assert_eq!(whole.1, None);
        prop_assert_eq!(frames_of_pieces(&pieces(&bytes, &cuts), &ROOMY), whole.clone());
        prop_assert_eq!(frames_of_pieces(&bytes.chunks(1).collect::<Vec<_>>(), &ROOMY), whole);
    }

    #[test]
    fn any_split_of_bad_bytes_gives_the_same_frames_and_error(
        bytes in mutated(), cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        prop_assert_eq!(frames_of_pieces(&pieces(&bytes, &cuts), &ROOMY), frames(&bytes, &ROOMY));
    }

    #[test]
    fn mutated_bytes_never_panic(bytes in mutated()) {
        exercise(&bytes, &ROOMY);
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>, frame_max: u32) {
        exercise(&bytes, &Limits { frame_max, body_max: 64 });
        let _ = Method::decode(&bytes);
    }

    #[test]
    fn a_whole_publish_is_recognised_as_frames_and_assembly_read_it(
        message in message(), before in traffic(), after in traffic(), change in any::<Option<(prop::sample::Index, u8)>>(),
    ) {
        let wire = message.wire();
        let mut bytes = [&before[..], &wire, &after].concat();
        if let Some((at, octet)) = change {
            bytes[before.len() + at.index(wire.len())] = octet;
        }
        let recognised = Publish::recognise(&bytes, before.len(), &ROOMY);
        prop_assert_eq!(recognised, publish_by_parts(&bytes, before.len()));
        if change.is_none() && message.body.len() <= message.cut {
            let publish = recognised.expect("a whole message with one body frame");
            prop_assert_eq!(publish.wire.of(&bytes), Some(&wire[..]));
            prop_assert_eq!(publish.properties.of(&bytes), Some(&message.properties[..]));
            prop_assert_eq!(publish.body.of(&bytes), Some(&message.body[..]));
        }
        for end in before.len()..before.len() + wire.len() {
            let part = Publish::recognise(&bytes[..end], before.len(), &ROOMY);
            prop_assert!(part.is_none() || part == recognised, "recognised although cut at {}", end);
        }
    }
}

/// The slow way to the same answer: frame by frame.
fn publish_by_parts(bytes: &[u8], start: usize) -> Option<Publish> {
    let mut assembly = Assembly::default();
    let mut next = |at: &mut usize| match frame::decode(bytes, *at, &ROOMY) {
        Ok(Decoded::Frame(frame)) => {
            *at = frame.wire.end();
            Some((frame, assembly.accept(&frame, &ROOMY).ok()?))
        }
        _ => None,
    };
    let mut at = start;
    let (method_frame, Part::Method(Method::Basic(super::super::basic::Basic::Publish(publish)))) =
        next(&mut at)?
    else {
        return None;
    };
    let (header_frame, Part::Header { header, last }) = next(&mut at)? else { return None };
    if method_frame.channel != header_frame.channel || method_frame.channel == 0 {
        return None;
    }
    let mut body: &[u8] = &[];
    if !last {
        let (body_frame, Part::Body { chunk, last: true, .. }) = next(&mut at)? else { return None };
        if body_frame.channel != method_frame.channel {
            return None;
        }
        body = chunk;
    }
    let recognised = Publish::recognise(bytes, start, &ROOMY)?;
    let address = recognised.address_in(bytes)?;
    assert_eq!(recognised.channel, method_frame.channel);
    assert_eq!((recognised.mandatory, recognised.immediate), (publish.mandatory, publish.immediate));
    assert_eq!((address.exchange(), address.routing_key()), (publish.exchange, publish.routing_key));
    assert_eq!(recognised.exchange().of(bytes), Some(publish.exchange.as_bytes()));
    assert_eq!(recognised.routing_key().of(bytes), Some(publish.routing_key.as_bytes()));
    assert_eq!(recognised.properties.of(bytes), Some(header.properties));
    assert_eq!(recognised.body.of(bytes), Some(body));
    assert_eq!((recognised.wire.start as usize, recognised.wire.end()), (start, at));
    Some(recognised)
}

#[test]
fn a_frame_over_the_limit_is_refused_as_soon_as_its_head_is_there() {
    let limits = Limits { frame_max: 4096, body_max: 1 << 20 };
    let head = |size: u32| frame::head(FrameKind::Body, 1, size);
    assert_eq!(frame::decode(&head(4088), 0, &limits), Ok(Decoded::Incomplete { needed: 4096 }));
    assert_eq!(
        frame::decode(&head(4096), 0, &limits),
        Ok(Decoded::Incomplete { needed: 4104 }),
        "RabbitMQ's fudge of 8"
    );
    let error = frame::decode(&head(4097), 0, &limits).unwrap_err();
    assert_eq!(error.reply_text(), "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4097,4088}");
    let unbounded = Limits { frame_max: 0, body_max: 0 };
    let needed = u32::MAX as usize + 8;
    assert_eq!(frame::decode(&head(u32::MAX), 0, &unbounded), Ok(Decoded::Incomplete { needed }));
}

#[test]
fn the_size_is_known_after_seven_bytes() {
    let bytes = frame(3, 9, b"hello");
    for len in 0..7 {
        assert_eq!(frame::decode(&bytes[..len], 0, &ROOMY), Ok(Decoded::Incomplete { needed: 8 }));
    }
    for len in 7..13 {
        assert_eq!(frame::decode(&bytes[..len], 0, &ROOMY), Ok(Decoded::Incomplete { needed: 13 }));
    }
    assert!(
        matches!(frame::decode(&bytes, 0, &ROOMY), Ok(Decoded::Frame(frame)) if frame.payload == b"hello")
    );
    assert_eq!(frame::decode(&bytes, 99, &ROOMY), Ok(Decoded::Incomplete { needed: 8 }), "past the end");
}

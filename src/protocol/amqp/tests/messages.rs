//! Messages on their way out.

use proptest::{collection::vec, prelude::*};

use super::{
    super::{
        Address, Assembly, Content, ContentHeader, Delivery, Fetched, Limits, MethodId, Part, Properties,
        Returned, ShortBytes, ShortString, basic,
        frame::{self, Decoded, END, FrameKind},
    },
    generate,
};

fn short() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 0..30), 1 => vec(any::<u8>(), 255)]
}

/// Method frame by the general encoder, then header and body frames one by one.
fn expected(channel: u16, method: Vec<u8>, content: &Content<'_>, frame_max: u32) -> Vec<u8> {
    let size = (content.body.len() as u64).to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &size, content.properties].concat();
    let mut wire = method;
    wire.extend(generate::frame(2, channel, &header));
    for chunk in content.body.chunks(frame_max as usize - 8) {
        wire.extend(generate::frame(3, channel, chunk));
    }
    wire
}

proptest! {
    #[test]
    fn deliveries_are_what_the_general_encoders_write_and_as_long_as_they_say(
        channel in 1..=u16::MAX, tag in short(), delivery_tag: u64, redelivered: bool, message_count: u32,
        exchange in short(), key in short(), properties in generate::properties(),
        body in vec(any::<u8>(), 0..200), frame_max in 9..250u32,
    ) {
        let (exchange, routing_key) = (ShortBytes::new(&exchange).unwrap(), ShortBytes::new(&key).unwrap());
        let consumer_tag = ShortBytes::new(&tag).unwrap();
        let reply_text = ShortString::new("NO_ROUTE").unwrap();
        let mut buffer = vec![1, 2, 3];
        let address = Address::encode(exchange, routing_key, &mut buffer);
        prop_assert_eq!((address.exchange(), address.routing_key()), (exchange, routing_key));
        prop_assert_eq!(Address::new(address.as_bytes()), Some(address));
        let content = Content { properties: &properties, body: &body };

        macro_rules! same {
            ($message:expr, $method:expr) => {
                let (mut out, mut method) = (vec![], vec![]);
                $message.encode(&content, frame_max, &mut out);
                $method.encode(channel, &mut method);
                prop_assert_eq!(&out, &expected(channel, method, &content, frame_max));
                prop_assert_eq!(out.len(), $message.length(&content, frame_max));
                let (mut whole, mut head) = (vec![], vec![]);
                $message.encode(&content, 0, &mut whole);
                prop_assert_eq!(whole.len(), $message.length(&content, 0));
                $message.encode_head(&properties, body.len() as u64, &mut head);
                if !body.is_empty() {
                    head.extend(frame::head(FrameKind::Body, channel, body.len() as u32));
                    head.extend(&body);
                    head.push(END);
                }
                prop_assert_eq!(head, whole);
            };
        }
        same!(
            Delivery { channel, consumer_tag, delivery_tag, redelivered, address },
            basic::Deliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key }
        );
        same!(
            Fetched { channel, delivery_tag, redelivered, address, message_count },
            basic::GetOk { delivery_tag, redelivered, exchange, routing_key, message_count }
        );
        same!(
            Returned { channel, reply_code: 312, reply_text, address },
            basic::Return { reply_code: 312, reply_text, exchange, routing_key }
        );
    }

    #[test]
    fn a_delivery_cut_into_frames_is_put_together_again(
        properties in generate::properties(), body in vec(any::<u8>(), 0..600), frame_max in 600..700u32,
    ) {
        let mut buffer = vec![];
        let address = Address::encode(ShortBytes::EMPTY, ShortBytes::new(b"jobs").unwrap(), &mut buffer);
        let delivery = Delivery { channel: 1, consumer_tag: ShortBytes::EMPTY, delivery_tag: 1, redelivered: false, address };
        let mut out = vec![];
        delivery.encode(&Content { properties: &properties, body: &body }, frame_max, &mut out);

        let limits = Limits { frame_max: 0, body_max: 600 };
        let mut assembly = Assembly::default();
        let (mut at, mut together) = (0, vec![0; body.len()]);
        while let Ok(Decoded::Frame(frame)) = frame::decode(&out, at, &limits) {
            at = frame.wire.end();
            prop_assert!(frame.kind != FrameKind::Body || frame.wire.len <= frame_max);
            match assembly.accept(&frame, &limits).unwrap() {
                Part::Method(method) => prop_assert_eq!(method.id(), basic::Deliver::ID),
                Part::Header { header, .. } => {
                    prop_assert_eq!(Properties::decode(header.properties), Properties::decode(&properties));
                }
                Part::Body { chunk, offset, .. } => {
                    together[offset as usize..][..chunk.len()].copy_from_slice(chunk);
                }
            }
        }
        prop_assert!(assembly.is_idle() && at == out.len());
        prop_assert_eq!(together, body);
    }

    #[test]
    fn random_bytes_are_an_address_only_if_they_are_two_short_strings(bytes: Vec<u8>) {
        if let Some(address) = Address::new(&bytes) {
            let mut out = vec![];
            prop_assert_eq!(Address::encode(address.exchange(), address.routing_key(), &mut out).as_bytes(), &bytes);
        }
    }

    #[test]
    fn content_headers_decode_to_what_was_encoded(body_size: u64, properties in generate::properties(), channel: u16) {
        let header = ContentHeader { class: 60, body_size, properties: &properties };
        let mut out = vec![];
        header.encode(channel, &mut out);
        let publish = MethodId { class: 60, method: 40 };
        prop_assert_eq!(ContentHeader::decode(&out[7..out.len() - 1], publish), Ok(header));
    }
}

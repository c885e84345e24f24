//! The short way out: a message for a consumer, appended to an outbound buffer in one go.

use super::{
    Address, Content, ContentHeader, ShortBytes, ShortString, basic,
    field::Field,
    frame::{self, END, FrameKind, HEAD, OVERHEAD},
};

/// Type, channel, size, class and method of a method frame with `arguments` bytes of arguments.
#[inline]
fn method_head(channel: u16, method: super::MethodId, arguments: usize) -> [u8; HEAD + 4] {
    let mut head = [0; HEAD + 4];
    let (frame_head, id) = head.split_at_mut(HEAD);
    frame_head.copy_from_slice(&frame::head(FrameKind::Method, channel, (4 + arguments) as u32));
    id.copy_from_slice(&method.to_be_bytes());
    head
}

/// Delivery tag and redelivered, as they stand in a row in deliver and get-ok.
#[inline]
fn tag_octets(delivery_tag: u64, redelivered: bool) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = delivery_tag.to_be_bytes();
    [a, b, c, d, e, f, g, h, u8::from(redelivered)]
}

macro_rules! whole_message {
    ($Type:ident) => {
        impl $Type<'_> {
            /// Exactly the bytes that [`encode`](Self::encode) appends.
            #[inline]
            pub fn length(&self, content: &Content<'_>, frame_max: u32) -> usize {
                OVERHEAD + 4 + self.arguments() + content.length(frame_max)
            }

            /// Appends method frame, header frame and body frames. `frame_max` is the consumer's in bytes; 0 is no
            /// bound.
            #[inline]
            pub fn encode(&self, content: &Content<'_>, frame_max: u32, out: &mut Vec<u8>) {
                out.reserve(self.length(content, frame_max));
                self.encode_method(out);
                content.encode(self.channel, frame_max, out);
            }

            /// Appends the method frame and a header frame that announces `body_size` bytes, for a body that is sent
            /// by reference: its frames are the caller's, with [`frame::head`] and [`frame::END`] around each part.
            pub fn encode_head(&self, properties: &[u8], body_size: u64, out: &mut Vec<u8>) {
                self.encode_method(out);
                ContentHeader { class: 60, body_size, properties }.encode(self.channel, out);
            }
        }
    };
}

/// A `basic.deliver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The consumer's channel.
    pub channel: u16,
    /// The consumer.
    pub consumer_tag: ShortBytes<'a>,
    /// Counts up from 1 in the channel.
    pub delivery_tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Exchange and routing key, as the publisher sent them.
    pub address: Address<'a>,
}

whole_message!(Delivery);

impl Delivery<'_> {
    #[inline]
    fn arguments(&self) -> usize {
        1 + self.consumer_tag.len() + 9 + self.address.as_bytes().len()
    }

    #[inline]
    fn encode_method(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&method_head(self.channel, basic::Deliver::ID, self.arguments()));
        self.consumer_tag.write(out);
        out.extend_from_slice(&tag_octets(self.delivery_tag, self.redelivered));
        out.extend_from_slice(self.address.as_bytes());
        out.push(END);
    }
}

/// The deliveries of one consumer, for messages whose content frames are copied as their publisher sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// The method frame up to the address, tag and size being still empty.
    start: Box<[u8]>,
}

impl Forwarding {
    /// Deliveries to the consumer of that tag on `channel`.
    pub fn new(channel: u16, consumer_tag: ShortBytes<'_>) -> Self {
        let delivery =
            Delivery { channel, consumer_tag, delivery_tag: 0, redelivered: false, address: Address::EMPTY };
        let mut start = Vec::new();
        delivery.encode_method(&mut start);
        start.truncate(start.len() - Address::EMPTY.as_bytes().len() - 1);
        Self { start: start.into() }
    }

    /// Appends a delivery. `content` is a header frame and, unless the body is empty, one body frame, as received on
    /// whatever channel; the consumer's frame-max admits them.
    #[inline]
    pub fn encode(
        &self,
        delivery_tag: u64,
        redelivered: bool,
        address: Address<'_>,
        content: &[u8],
        out: &mut Vec<u8>,
    ) {
        let address = address.as_bytes();
        let at = out.len();
        out.reserve(self.start.len() + address.len() + 1 + content.len());
        out.extend_from_slice(&self.start);
        out.extend_from_slice(address);
        out.push(END);
        let content_at = out.len();
        out.extend_from_slice(content);

        let size = (content_at - at - OVERHEAD) as u32;
        let Some(written) = out.get_mut(at..) else { return };
        let Some((&mut [_, c0, c1, ..], _)) = written.split_first_chunk_mut::<HEAD>() else { return };
        put(written, 3, size.to_be_bytes());
        put(written, self.start.len() - TAG_OCTETS, tag_octets(delivery_tag, redelivered));
        let header = content_at - at;
        put(written, header + 1, [c0, c1]);
        let Some([s0, s1, s2, s3]) = written.get(header + 3..).and_then(|size| size.first_chunk()).copied()
        else {
            return;
        };
        let body = header + OVERHEAD + u32::from_be_bytes([s0, s1, s2, s3]) as usize;
        put(written, body + 1, [c0, c1]);
    }
}

/// Delivery tag and redelivered.
const TAG_OCTETS: usize = 9;

/// Overwrites a few octets, when they are there.
#[inline]
fn put<const N: usize>(written: &mut [u8], at: usize, octets: [u8; N]) {
    if let Some(slot) = written.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *slot = octets;
    }
}

/// A `basic.get-ok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched<'a> {
    /// The channel that asked.
    pub channel: u16,
    /// Counts up from 1 in the channel.
    pub delivery_tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Exchange and routing key, as the publisher sent them.
    pub address: Address<'a>,
    /// Messages that are still ready in the queue.
    pub message_count: u32,
}

whole_message!(Fetched);

impl Fetched<'_> {
    #[inline]
    fn arguments(&self) -> usize {
        9 + self.address.as_bytes().len() + 4
    }

    #[inline]
    fn encode_method(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&method_head(self.channel, basic::GetOk::ID, self.arguments()));
        out.extend_from_slice(&tag_octets(self.delivery_tag, self.redelivered));
        out.extend_from_slice(self.address.as_bytes());
        self.message_count.write(out);
        out.push(END);
    }
}

/// A `basic.return`: a message that reached nobody, for its publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returned<'a> {
    /// The channel that published.
    pub channel: u16,
    /// Why; [`ReplyCode::NoRoute`](super::ReplyCode::NoRoute) as a rule.
    pub reply_code: u16,
    /// Why, in RabbitMQ's words: `NO_ROUTE`.
    pub reply_text: ShortString<'a>,
    /// Exchange and routing key, as the publisher sent them.
    pub address: Address<'a>,
}

whole_message!(Returned);

impl Returned<'_> {
    #[inline]
    fn arguments(&self) -> usize {
        2 + 1 + self.reply_text.len() + self.address.as_bytes().len()
    }

    #[inline]
    fn encode_method(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&method_head(self.channel, basic::Return::ID, self.arguments()));
        self.reply_code.write(out);
        self.reply_text.write(out);
        out.extend_from_slice(self.address.as_bytes());
        out.push(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forwarded_is_what_would_be_encoded() {
        let mut address = Vec::new();
        let key = ShortBytes::new(b"a.b").unwrap_or_default();
        let address = Address::encode(ShortBytes::new(b"amq.topic").unwrap_or_default(), key, &mut address);
        let consumer_tag = ShortBytes::new(b"consumer").unwrap_or_default();
        let forwarding = Forwarding::new(0x0102, consumer_tag);
        for (body, properties) in [(&b""[..], &[0, 0][..]), (b"body", &[0x10, 0, 2])] {
            let content = Content { properties, body };
            let mut received = Vec::new();
            content.encode(7, 0, &mut received);
            let (mut forwarded, mut encoded) = (b"before".to_vec(), b"before".to_vec());
            for delivery_tag in [1, u64::MAX] {
                forwarding.encode(delivery_tag, true, address, &received, &mut forwarded);
                Delivery { channel: 0x0102, consumer_tag, delivery_tag, redelivered: true, address }.encode(
                    &content,
                    0,
                    &mut encoded,
                );
            }
            assert_eq!(forwarded, encoded);
        }
    }
}

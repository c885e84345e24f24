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

//! A message's content: properties and body.

use super::{
    ContentHeader,
    content_header::FIXED,
    frame::{self, END, FrameKind, OVERHEAD},
};

/// What follows a method with content, whole and in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// Flags and list of the properties as encoded: the publisher's, copied as they are, or written by
    /// [`Properties::encode`](super::Properties::encode). [`properties::NONE`](super::properties::NONE) is none.
    pub properties: &'a [u8],
    /// The body; body frames are cut at the peer's frame-max.
    pub body: &'a [u8],
}

impl Content<'_> {
    /// Bytes of the header frame and the body frames for a peer whose frame-max is `frame_max`; 0 is no bound.
    #[inline]
    pub fn length(&self, frame_max: u32) -> usize {
        let payload_max = frame::payload_max(frame_max);
        let frames = match self.body.len() {
            0 => 0,
            len if len <= payload_max => 1,
            len => len.div_ceil(payload_max),
        };
        OVERHEAD + FIXED + self.properties.len() + self.body.len() + frames * OVERHEAD
    }

    /// Appends header frame and body frames on `channel`.
    ///
    /// The header frame cannot be cut: properties that exceed `frame_max` go out in a larger frame, as RabbitMQ
    /// sends them.
    #[inline]
    pub fn encode(&self, channel: u16, frame_max: u32, out: &mut Vec<u8>) {
        let body_size = self.body.len() as u64;
        ContentHeader { class: 60, body_size, properties: self.properties }.encode(channel, out);
        let payload_max = frame::payload_max(frame_max);
        if self.body.is_empty() {
            return;
        }
        if self.body.len() <= payload_max {
            return body_frame(channel, self.body, out);
        }
        for chunk in self.body.chunks(payload_max) {
            body_frame(channel, chunk, out);
        }
    }
}

#[inline]
fn body_frame(channel: u16, chunk: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&frame::head(FrameKind::Body, channel, chunk.len() as u32));
    out.extend_from_slice(chunk);
    out.push(END);
}

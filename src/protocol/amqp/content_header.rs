//! Content headers (standard §4.2.6.1).

use super::{
    Error, Malformed, MethodId,
    frame::{self, END, FrameKind},
    reader::Reader,
};

/// What stands between a method with content and the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the method before it, always 60.
    pub class: u16,
    /// Bytes of the body in all its frames.
    pub body_size: u64,
    /// Flags and list of the properties as encoded; [`Properties`](super::Properties) and
    /// [`Summary`](super::Summary) read them, nobody has yet.
    pub properties: &'a [u8],
}

/// Class, weight and body size.
pub(super) const FIXED: usize = 12;

impl<'a> ContentHeader<'a> {
    /// Decodes the payload of a header frame that follows `method`.
    pub fn decode(payload: &'a [u8], method: MethodId) -> Result<Self, Error> {
        let mut reader = Reader::new(payload);
        let mut fixed = || Ok((reader.u16()?, reader.u16()?, reader.u64()?));
        let (class, weight, body_size) = fixed().map_err(|why| Error::Properties { method, why })?;
        if weight != 0 {
            return Err(Error::ExpectedHeader { method });
        }
        if class != method.class {
            return Err(Error::HeaderClass { method, class });
        }
        let properties = reader.rest();
        if properties.len() < 2 {
            return Err(Error::Properties { method, why: Malformed::Truncated });
        }
        Ok(Self { class, body_size, properties })
    }

    /// Appends it as a header frame on `channel`.
    #[inline]
    pub fn encode(&self, channel: u16, out: &mut Vec<u8>) {
        let size = (FIXED + self.properties.len()) as u32;
        let [c0, c1] = self.class.to_be_bytes();
        out.extend_from_slice(&frame::head(FrameKind::Header, channel, size));
        // The two zeros are the weight, which is not used.
        out.extend_from_slice(&[c0, c1, 0, 0]);
        out.extend_from_slice(&self.body_size.to_be_bytes());
        out.extend_from_slice(self.properties);
        out.push(END);
    }
}

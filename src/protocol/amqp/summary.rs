//! What routing and queues ask of a message's properties.

use super::{
    Malformed, ShortBytes,
    field::Field,
    properties::{
        APP_ID, CLUSTER_ID, CONTENT_ENCODING, CONTENT_TYPE, CORRELATION_ID, DELIVERY_MODE, EXPIRATION,
        HEADERS, KIND, MESSAGE_ID, PRIORITY, REPLY_TO, TIMESTAMP, USER_ID, flags,
    },
    reader::Reader,
    table,
};

/// How long a message is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiration {
    /// No such property.
    #[default]
    Never,
    /// Milliseconds, at most `u32::MAX` as in RabbitMQ.
    After(u32),
    /// Not such a number: RabbitMQ answers 406.
    Invalid,
}

impl Expiration {
    /// Reads the text of the property.
    pub fn parse(text: &[u8]) -> Self {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        number.map_or(Self::Invalid, Self::After)
    }
}

/// A few properties, taken from the encoded ones in one pass without allocation; the pass checks them all, so that
/// they may be copied to consumers as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary<'a> {
    /// 2 is persistent, 1 transient; 0 when it is not said, which is transient.
    pub delivery_mode: u8,
    /// The priority, if it is said.
    pub priority: Option<u8>,
    /// How long the message is good.
    pub expiration: Expiration,
    /// Where a reply goes: RabbitMQ rewrites `amq.rabbitmq.reply-to`.
    pub reply_to: Option<ShortBytes<'a>>,
    /// Must be the connection's user: RabbitMQ answers 406 otherwise.
    pub user_id: Option<ShortBytes<'a>>,
    /// Whether there are headers.
    pub headers: bool,
    /// Whether there is a header `CC` or `BCC`: more routing keys.
    pub copies: bool,
}

impl<'a> Summary<'a> {
    /// Scans flags and list of the properties.
    #[inline]
    pub fn scan(encoded: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(encoded);
        let flags = flags(&mut reader)?;
        let mut summary = Self::default();
        if flags != 0 {
            summary.scan_list(flags, &mut reader)?;
        }
        reader.finish()?;
        Ok(summary)
    }

    fn scan_list(&mut self, flags: u16, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        let has = |flag| flags & flag != 0;
        let skip =
            |reader: &mut Reader<'a>, flag| if has(flag) { reader.short().map(|_| ()) } else { Ok(()) };
        skip(reader, CONTENT_TYPE)?;
        skip(reader, CONTENT_ENCODING)?;
        if has(HEADERS) {
            self.headers = true;
            let copies = &mut self.copies;
            table::check(reader.long()?, 1, |name| *copies |= name == b"CC" || name == b"BCC")?;
        }
        if has(DELIVERY_MODE) {
            self.delivery_mode = reader.u8()?;
        }
        if has(PRIORITY) {
            self.priority = Some(reader.u8()?);
        }
        skip(reader, CORRELATION_ID)?;
        if has(REPLY_TO) {
            self.reply_to = Some(ShortBytes::read(reader)?);
        }
        if has(EXPIRATION) {
            self.expiration = Expiration::parse(reader.short()?);
        }
        skip(reader, MESSAGE_ID)?;
        if has(TIMESTAMP) {
            reader.u64()?;
        }
        skip(reader, KIND)?;
        if has(USER_ID) {
            self.user_id = Some(ShortBytes::read(reader)?);
        }
        skip(reader, APP_ID)?;
        skip(reader, CLUSTER_ID)
    }
}

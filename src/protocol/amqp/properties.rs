//! The properties of class `basic` (standard §1.8, §4.2.6.1).

use super::{Malformed, ShortBytes, Table, field::Field, reader::Reader};

/// The encoding of no properties.
pub const NONE: [u8; 2] = [0, 0];

/// Says that another word of flags follows.
const CONTINUED: u16 = 1;

/// The word of flags that is followed by the property list, and where the list begins.
///
/// The standard lets flags go on over several words; class `basic` has no property there, so every further word must
/// be empty.
#[inline]
pub(super) fn flags(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    let flags = reader.u16()?;
    let mut word = flags;
    while word & CONTINUED != 0 {
        word = reader.u16()?;
        if word & !CONTINUED != 0 {
            return Err(Malformed::PropertyFlag);
        }
    }
    if flags & UNDEFINED != 0 {
        return Err(Malformed::PropertyFlag);
    }
    Ok(flags)
}

macro_rules! properties {
    ($($(#[$doc:meta])* $bit:literal $name:ident $FLAG:ident : $type:ty;)+) => {
        $(pub(super) const $FLAG: u16 = 1 << $bit;)+

        /// Flags that no property has.
        const UNDEFINED: u16 = !(CONTINUED $(| $FLAG)+);

        /// All properties of a message, borrowed from the encoded ones.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Properties<'a> {
            $($(#[$doc])* pub $name: Option<$type>,)+
        }

        impl<'a> Properties<'a> {
            /// Decodes flags and list.
            pub fn decode(encoded: &'a [u8]) -> Result<Self, Malformed> {
                let mut reader = Reader::new(encoded);
                let flags = flags(&mut reader)?;
                let properties = Self {
                    $($name: if flags & $FLAG == 0 { None } else { Some(Field::read(&mut reader)?) },)+
                };
                reader.finish()?;
                Ok(properties)
            }

            /// Appends flags and list.
            pub fn encode(&self, out: &mut Vec<u8>) {
                let flags = 0 $(| if self.$name.is_some() { $FLAG } else { 0 })+;
                flags.write(out);
                $(if let Some(value) = self.$name { value.write(out) })+
            }
        }
    };
}

properties! {
    /// The body's media type.
    15 content_type CONTENT_TYPE: ShortBytes<'a>;
    /// The body's encoding, such as `gzip`.
    14 content_encoding CONTENT_ENCODING: ShortBytes<'a>;
    /// The application's own properties, and RabbitMQ's `CC`, `BCC`, `x-death`.
    13 headers HEADERS: Table<'a>;
    /// 1 transient, 2 persistent.
    12 delivery_mode DELIVERY_MODE: u8;
    /// 0 to 255; queues have fewer levels.
    11 priority PRIORITY: u8;
    /// Which request a reply belongs to.
    10 correlation_id CORRELATION_ID: ShortBytes<'a>;
    /// The queue that wants the reply.
    9 reply_to REPLY_TO: ShortBytes<'a>;
    /// How long the message is good: milliseconds as decimal text.
    8 expiration EXPIRATION: ShortBytes<'a>;
    /// The application's name for the message.
    7 message_id MESSAGE_ID: ShortBytes<'a>;
    /// Seconds since 1970.
    6 timestamp TIMESTAMP: u64;
    /// The application's name for the kind of message; the standard's field `type`.
    5 kind KIND: ShortBytes<'a>;
    /// The publisher's user name, which the server checks.
    4 user_id USER_ID: ShortBytes<'a>;
    /// The publishing application.
    3 app_id APP_ID: ShortBytes<'a>;
    /// Deprecated.
    2 cluster_id CLUSTER_ID: ShortBytes<'a>;
}

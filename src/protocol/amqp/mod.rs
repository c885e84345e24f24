//! AMQP 0-9-1 with RabbitMQ's extensions: bytes to frames, methods and messages, and back.
//!
//! The layers, as they lie in a frame:
//!
//! | layer | here |
//! | --- | --- |
//! | protocol header, `AMQP 0 0 9 1` | [`header`] |
//! | frames | [`frame`], [`limits`] |
//! | methods, a file per class | [`method`]: [`connection`], [`channel`], [`access`], [`exchange`], [`queue`], [`basic`], [`confirm`], [`tx`] |
//! | content headers and bodies | [`content_header`], [`content`], [`assembly`] |
//! | the properties of `basic` | [`properties`], [`summary`] |
//! | what fields are made of | [`short_string`], [`short_bytes`], [`table`], [`array`](mod@array), [`value`] |
//! | errors, as `connection.close` and `channel.close` name them | [`error`], [`reply`] |
//!
//! Messages have a short way in and a short way out, without allocation: [`publish`] recognises a whole
//! message in a read buffer, [`delivery`] writes one for a consumer; the [`address`] and the encoded
//! properties are copied from the one to the other as they are.
//!
//! Everything is a function of its arguments: no I/O, no clock.

pub mod access;
pub mod address;
pub mod array;
pub mod assembly;
pub mod basic;
pub mod channel;
pub mod confirm;
pub mod connection;
pub mod content;
pub mod content_header;
pub mod delivery;
pub mod error;
pub mod exchange;
mod field;
pub mod frame;
pub mod header;
pub mod limits;
pub mod method;
pub mod properties;
pub mod publish;
pub mod queue;
mod reader;
pub mod reply;
pub mod short_bytes;
pub mod short_string;
pub mod span;
pub mod summary;
pub mod table;
pub mod tx;
pub mod value;

#[cfg(test)]
mod tests;

pub use address::Address;
pub use array::{Array, ArrayBuf};
pub use assembly::{Assembly, Part};
pub use content::Content;
pub use content_header::ContentHeader;
pub use delivery::{Delivery, Fetched, Forwarding, Returned};
pub use error::{Error, Malformed};
pub use frame::{Frame, FrameKind};
pub use header::Greeting;
pub use limits::Limits;
pub use method::{Method, MethodId};
pub use properties::Properties;
pub use publish::Publish;
pub use reply::ReplyCode;
pub use short_bytes::ShortBytes;
pub use short_string::ShortString;
pub use span::Span;
pub use summary::{Expiration, Summary};
pub use table::{Table, TableBuf};
pub use value::{Decimal, Value};

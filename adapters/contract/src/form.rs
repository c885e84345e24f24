//! How one protocol's encoded messages are read by somebody else.

use std::num::NonZeroU16;

use crate::address::Address;
use crate::message::Message;
use crate::properties::Properties;

/// A protocol's way to write addresses and properties. A sink of the same form sends the bytes on as they are; every
/// other one reads them through this.
pub trait WireForm: Send + Sync {
    /// A number that means this form for ever: it stands in logs on disk.
    fn id(&self) -> u8;

    /// For people.
    fn name(&self) -> &'static str;

    /// Reads a message's address bytes.
    fn address<'a>(&self, encoded: &'a [u8]) -> Address<'a>;

    /// Reads a message's property bytes.
    ///
    /// # Errors
    /// When they are not of this form; a door has checked what a client sent, so this is a defect or a broken file.
    fn properties<'a>(&self, encoded: &'a [u8]) -> Result<Properties<'a>, Malformed>;

    /// The number under which its publisher knows a message that is [published exactly once](crate::Flags::EXACTLY_ONCE),
    /// where the form has one. `bytes` are what the message's spans point into.
    fn identifier(&self, bytes: &[u8], message: &Message) -> Option<NonZeroU16> {
        let _ = (bytes, message);
        None
    }
}

/// Encoded properties that their form cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("properties that are not valid {form}: {what}")]
pub struct Malformed {
    /// The form's name.
    pub form: &'static str,
    /// What is wrong.
    pub what: String,
}

//! Where a message goes: exchange and routing key.

use super::{ShortBytes, field::Field};

/// An exchange and a routing key, encoded one after the other as they stand in `basic.publish`, `basic.deliver`,
/// `basic.get-ok` and `basic.return` alike, so that a delivery copies what the publisher sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address<'a> {
    bytes: &'a [u8],
}

impl<'a> Address<'a> {
    /// The default exchange and the empty key.
    pub const EMPTY: Self = Self { bytes: &[0, 0] };

    /// Two short strings, exactly; `None` when `encoded` is something else.
    #[inline]
    pub fn new(encoded: &'a [u8]) -> Option<Self> {
        let (&exchange_len, rest) = encoded.split_first()?;
        let (&key_len, key) = rest.get(usize::from(exchange_len)..)?.split_first()?;
        (key.len() == usize::from(key_len)).then_some(Self { bytes: encoded })
    }

    /// Encodes exchange and routing key into `out`, whose former content is dropped.
    pub fn encode(exchange: ShortBytes<'_>, routing_key: ShortBytes<'_>, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        exchange.write(out);
        routing_key.write(out);
        Self { bytes: out }
    }

    /// Both short strings as encoded.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The exchange; empty for the default exchange.
    #[inline]
    pub fn exchange(self) -> ShortBytes<'a> {
        self.split().0
    }

    /// The routing key.
    #[inline]
    pub fn routing_key(self) -> ShortBytes<'a> {
        self.split().1
    }

    #[inline]
    fn split(self) -> (ShortBytes<'a>, ShortBytes<'a>) {
        let mut reader = super::reader::Reader::new(self.bytes);
        let exchange = ShortBytes::read(&mut reader).unwrap_or_default();
        (exchange, ShortBytes::read(&mut reader).unwrap_or_default())
    }
}

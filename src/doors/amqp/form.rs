//! How AMQP's bytes are read by those who speak something else.

use linkspan_contract::{Address, Malformed, Properties, Syntax, WireForm};

use crate::protocol::amqp;

use super::translate::{TOPIC_EXCHANGE, properties};

/// The form of messages that came in by AMQP.
///
/// The address is exchange and routing key, each with its length octet; the properties are flags and list. The wire
/// bytes begin with a method frame; behind the address lie one octet of bits, the frame's end, and then the content:
/// a header frame and, unless the payload is empty, one body frame, which a sink of this form copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmqpForm;

/// [`AmqpForm`]'s one value.
pub static AMQP_FORM: AmqpForm = AmqpForm;

/// The number that means this form for ever.
const ID: u8 = 3;

impl WireForm for AmqpForm {
    fn id(&self) -> u8 {
        ID
    }

    fn name(&self) -> &'static str {
        "AMQP 0-9-1"
    }

    fn address<'a>(&self, encoded: &'a [u8]) -> Address<'a> {
        let split = amqp::Address::new(encoded);
        let (exchange, key) =
            split.map(|address| (address.exchange(), address.routing_key())).unwrap_or_default();
        let exchange = exchange.as_bytes();
        let exchange = (exchange != TOPIC_EXCHANGE.as_bytes()).then_some(exchange);
        Address { exchange, path: key.as_bytes(), syntax: Syntax::Key }
    }

    fn properties<'a>(&self, encoded: &'a [u8]) -> Result<Properties<'a>, Malformed> {
        properties::neutral(encoded).map_err(|why| Malformed { form: self.name(), what: why.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_space_has_no_exchange_name() {
        let address = AMQP_FORM.address(b"\x09amq.topic\x03a.b");
        assert_eq!((address.exchange, &*address.topic()), (None, &b"a/b"[..]));
        let address = AMQP_FORM.address(b"\x00\x04jobs");
        assert_eq!((address.exchange, address.path), (Some(&b""[..]), &b"jobs"[..]));
        assert_eq!(AMQP_FORM.address(b"\x09").path, b"", "a broken file is no panic");
    }

    #[test]
    fn malformed_properties_name_the_form() {
        assert_eq!(AMQP_FORM.properties(&[0x80]).unwrap_err().form, "AMQP 0-9-1");
        assert!(AMQP_FORM.properties(&[0, 0]).is_ok());
    }
}

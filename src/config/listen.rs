//! Addresses to listen on: `"127.0.0.1:1883"`. For serde's `with`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

const EXPECTED: &str = "an IP address and a port such as \"127.0.0.1:1883\" or \"[::]:1883\"";

/// Reads an address; `localhost` is the only name, and means 127.0.0.1.
fn parse(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

pub(super) fn serialize<S: Serializer>(address: &SocketAddr, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(address)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    struct Address;
    impl Visitor<'_> for Address {
        type Value = SocketAddr;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<SocketAddr, E> {
            parse(text).ok_or_else(|| match text.is_empty() {
                true => E::custom("\"\" is no address; to turn a door off, write `enabled = false`"),
                false => E::custom(format_args!("{text:?} is no address; expected {EXPECTED}")),
            })
        }
    }
    from.deserialize_any(Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_an_ip_address_and_a_port() {
        for (text, address) in [
            ("127.0.0.1:1883", "127.0.0.1:1883"),
            ("[::1]:0", "[::1]:0"),
            ("localhost:5672", "127.0.0.1:5672"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), address);
        }
        for text in ["", ":1883", "1883", "127.0.0.1", "example.org:1883", "localhost:", "127.0.0.1:65536"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

//! One look at a broker, for who wants to know whether a configuration will work.

mod connection;

use std::fmt;

pub use connection::probe;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The node that answered, `host:port`.
    pub node: String,
    /// What the broker calls itself and its version, when it says so before TLS and passwords.
    pub product: Option<String>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = self.product.as_deref().unwrap_or("an AMQP 0-9-1 broker");
        write!(f, "{product} at {}", self.node)
    }
}

/// Why none of the nodes can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ProbeError(
    /// What is wrong with each node.
    pub Vec<String>,
);

/// The name and version in the `server-properties` of a `connection.start` frame (AMQP 0-9-1 §1.4.2.1).
fn product(start: &[u8]) -> Option<String> {
    let text = |name: &str| {
        let mut field = vec![u8::try_from(name.len()).ok()?];
        field.extend_from_slice(name.as_bytes());
        field.push(b'S');
        let at = start.windows(field.len()).position(|window| window == field)?;
        let rest = start.get(at + field.len()..)?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        String::from_utf8(rest.get(..u32::from_be_bytes(*len) as usize)?.to_vec()).ok()
    };
    match (text("product"), text("version")) {
        (Some(product), Some(version)) => Some(format!("{product} {version}")),
        (product, _) => product,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_says_its_name_first() {
        let start = b"\x01\0\0\0\0\0\x40\0\x0a\0\x0a\0\x09\0\0\0\x30\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8";
        assert_eq!(product(start).as_deref(), Some("RabbitMQ 3.10.8"));
        assert_eq!(product(b"HTTP/1.1 400 Bad Request"), None);
        assert_eq!(product(b"\x07productS\xff\xff\xff\xffx"), None);
    }
}

//! The protocol header, which a client sends first (standard §4.2.2).

use thiserror::Error;

/// The header of 0-9-1. A server that refuses a client sends it before it closes the socket, so that the client
/// learns what is spoken here.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// The header of 0-9, which clients of some age still send. RabbitMQ treats it as 0-9-1.
const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Right so far: wait for the eighth byte.
    Incomplete,
    /// AMQP 0-9-1: eight bytes were read, answer with `connection.start`.
    Welcome,
    /// Something else: answer with [`PROTOCOL_HEADER`] and close.
    Refused(Refusal),
}

/// What a client speaks instead of AMQP 0-9-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A request line of HTTP.
    #[error("this looks like an HTTP request; the HTTP door listens elsewhere")]
    Http,
    /// A TLS handshake.
    #[error("this looks like a TLS handshake; use the TLS listener or connect without TLS")]
    Tls,
    /// Another version of AMQP.
    #[error("AMQP {0} {1} {2} {3} is not spoken here; use a client for AMQP 0-9-1")]
    Version(u8, u8, u8, u8),
    /// Nothing known.
    #[error("this is not AMQP: the first bytes are {0:?}")]
    Unknown([u8; 4]),
}

impl Greeting {
    /// Judges the bytes received so far; bytes behind the header are not looked at. What is certainly wrong is
    /// refused without waiting for eight bytes that may never come.
    pub fn decode(received: &[u8]) -> Self {
        let mut start = [0; 8];
        for (octet, byte) in start.iter_mut().zip(received) {
            *octet = *byte;
        }
        let known = received.len().min(8);
        if [PROTOCOL_HEADER, PROTOCOL_HEADER_0_9]
            .iter()
            .any(|right| right.iter().zip(received).all(|(a, b)| a == b))
        {
            return if known == 8 { Self::Welcome } else { Self::Incomplete };
        }
        let [a, m, q, p, protocol, major, minor, revision] = start;
        match [a, m, q, p] {
            [b'A', b'M', b'Q', b'P'] if known < 8 => Self::Incomplete,
            [b'A', b'M', b'Q', b'P'] => Self::Refused(Refusal::Version(protocol, major, minor, revision)),
            [0x16, 0x03, ..] => Self::Refused(Refusal::Tls),
            [b'G', b'E', b'T', b' ']
            | [b'P', b'O', b'S', b'T']
            | [b'P', b'U', b'T', b' ']
            | [b'H', b'E', b'A', b'D'] => Self::Refused(Refusal::Http),
            other => Self::Refused(Refusal::Unknown(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_headers_that_rabbitmq_takes_are_welcome_at_any_split() {
        for header in [PROTOCOL_HEADER, PROTOCOL_HEADER_0_9] {
            for len in 0..8 {
                assert_eq!(Greeting::decode(&header[..len]), Greeting::Incomplete, "{len} bytes");
            }
            assert_eq!(Greeting::decode(&header), Greeting::Welcome);
            assert_eq!(Greeting::decode(&[&header[..], &[1, 0, 0]].concat()), Greeting::Welcome);
        }
    }

    #[test]
    fn other_protocols_are_told_apart() {
        let refused = |bytes: &[u8]| match Greeting::decode(bytes) {
            Greeting::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(b"AMQP\x00\x01\x00\x00"), Refusal::Version(0, 1, 0, 0));
        assert_eq!(refused(b"AMQP\x03\x01\x00\x00"), Refusal::Version(3, 1, 0, 0));
        assert_eq!(refused(b"AMQP\x00\x00\x09\x02"), Refusal::Version(0, 0, 9, 2));
        assert_eq!(refused(b"GET / HTTP/1.1"), Refusal::Http);
        assert_eq!(refused(b"\x16\x03\x01\x02\x00\x01"), Refusal::Tls);
        assert_eq!(refused(b"\x10\x1d\x00\x04MQTT"), Refusal::Unknown([0x10, 0x1d, 0, 4]));
        assert_eq!(refused(b"\x10"), Refusal::Unknown([0x10, 0, 0, 0]), "without waiting for more");
    }
}

//! Ports that stay a test's own while nobody listens there: a broker that was killed comes back where it was.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixListener};

/// Below the range that the system takes ports from by itself, for connections and for port 0.
const FIRST: u16 = 14_000;
const COUNT: u16 = 18_000;

/// A port of 127.0.0.1 that no other test takes until this is dropped, listened on or not.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// A name that the kernel gives to one process only and takes back when it dies.
    _held: UnixListener,
}

impl Port {
    /// A free port.
    pub fn reserve() -> Self {
        // processes begin at different places, so that they do not queue up at the first
        let start = std::process::id().wrapping_mul(97);
        for step in 0..u32::from(COUNT) {
            let offset = start.wrapping_add(step) % u32::from(COUNT);
            let number = FIRST + u16::try_from(offset).expect("less than COUNT");
            if let Some(port) = Self::take(number) {
                return port;
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT)
    }

    fn take(number: u16) -> Option<Self> {
        let name = Name::from_abstract_name(format!("linkspan-test-port-{number}")).expect("a short name");
        let held = match UnixListener::bind_addr(&name) {
            Ok(held) => held,
            Err(error) if error.kind() == ErrorKind::AddrInUse => return None,
            Err(error) => panic!("a port cannot be reserved: {error}"),
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        free.then_some(Self { number, _held: held })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// It as an address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::Port;

    #[test]
    fn a_reserved_port_is_not_given_again_until_it_is_free() {
        let port = Port::reserve();
        let number = port.number();
        assert!(Port::take(number).is_none(), "it is reserved though nobody listens");
        assert_ne!(Port::reserve().number(), number);
        drop(port);
        assert!(Port::take(number).is_some(), "free again");
    }
}

//! The brokers behind Linkspan, for tests: real ones, to be used, stopped, killed and frozen.
//!
//! [`RabbitMq::shared`], [`Mosquitto::shared`] and, for ledgers, [`Postgres::shared`] are servers that a test leaves as they are, and where it uses names of
//! its own ([`unique`]). [`RabbitMq::own`] and [`Mosquitto::own`] are a test's alone, with which it does what it likes.
//!
//! A shared broker is taken from the first of these that there is, an own one from the second or third:
//!
//! 1. a URL in the environment: `LINKSPAN_TEST_RABBITMQ`, `LINKSPAN_TEST_MOSQUITTO`, `LINKSPAN_TEST_POSTGRES`
//!    (`integration-tests/run` starts one of each for a whole run, since a run is many processes);
//! 2. Docker: the image in `LINKSPAN_TEST_RABBITMQ_IMAGE`, `LINKSPAN_TEST_MOSQUITTO_IMAGE` or
//!    `LINKSPAN_TEST_POSTGRES_IMAGE`, or the stand-in that `docker/stand-ins/build` builds, or the official image;
//! 3. the broker's program on this machine.
//!
//! `LINKSPAN_TEST_BROKERS=docker` or `=path` leaves only that one of the last two. If none can be had, the test fails and
//! says what to do. All of them listen on loopback only, on ports of their own. A broker that a test started ends with
//! the test's process, whatever end that takes: see `leash.sh`.

mod broker;
mod leash;
mod mosquitto;
mod place;
mod port;
mod postgres;
mod rabbitmq;
mod upstream;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU32, Ordering};

pub use broker::Broker;
pub use mosquitto::Mosquitto;
pub use place::reap;
pub use port::Port;
pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;

/// A name that no other test and no other run uses, for queues, topics and client identifiers on shared brokers.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    format!("{name}-{:x}-{:x}", since.as_micros(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Where a URL points: `scheme://[user:password@]host:port[/path]`.
fn endpoint(variable: &str, url: &str) -> SocketAddr {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.to_socket_addrs().map(|mut addresses| addresses.next()) {
        Ok(Some(address)) => address,
        Ok(None) => panic!("{variable}: {host} has no address"),
        Err(error) => panic!("{variable}: `{host}` in {url} is no host:port: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{endpoint, unique};

    #[test]
    fn a_url_of_the_environment_names_host_and_port() {
        let at = endpoint("X", "amqp://guest:guest@127.0.0.1:5673/%2f");
        assert_eq!(at.to_string(), "127.0.0.1:5673");
        assert_eq!(endpoint("X", "mqtt://127.0.0.1:1884").to_string(), "127.0.0.1:1884");
    }

    #[test]
    fn names_are_unique() {
        assert_ne!(unique("q"), unique("q"));
    }
}

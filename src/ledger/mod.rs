//! Small durable state: leases with fencing tokens, and what patterns remember.
//!
//! | file | noun |
//! | --- | --- |
//! | [`embedded`] | [`EmbeddedLedger`]: a file of this instance's own, and [`embedded::store`], the thread that writes it |
//! | [`postgres`] | [`PostgresLedger`]: a PostgreSQL that several instances share |
//! | [`watched`] | [`Watched`]: either of them, and how it was when somebody looked |
//!
//! # Keys
//!
//! `<instance>` is the instance's name in a PostgreSQL, which instances share, and `own` in a file. The last part is a hash of
//! what names the thing; the value is JSON and says all of it.
//!
//! | key or lease | what it is |
//! | --- | --- |
//! | key `hub/<instance>/binding/<hash>` | a client's binding of a queue to the address space, for its copies from other back ends |
//! | key `hub/<instance>/queue/<hash>` | a queue that a route has, or had and that is not known to be gone |
//! | key `hub/<instance>/dead-letters/<hash>` | a queue of dead letters that are carried to their address |
//! | key `repeats/<hash>/<time>-<instance>-<number>` | what a queue at an AMQP broker has taken, many messages in one: no JSON, but 16 bytes that identify each and 8 that say when, little-endian |
//! | lease `work-queue/<back end>/<vhost>/<queue>` | who takes a work queue's messages from an MQTT broker |
//! | lease `exclusive/<instance>/<back end>/<vhost>/<queue>` | who has a queue that one consumer at a time has; no instance in it where instances share the queue |
//! | key `exclusive/<back end>/<vhost>/<queue>` | where each instance has such a queue of its own: the greatest fence that any has given; a number, no JSON |

pub mod embedded;
pub mod postgres;
pub mod watched;

use std::time::Duration;

pub use embedded::{EmbeddedLedger, Found, OpenError};
pub use postgres::PostgresLedger;
pub use watched::Watched;

/// How long a lease lasts that is not renewed. A successor waits that long for an instance that has gone without a word.
pub const LEASE: Duration = Duration::from_secs(15);

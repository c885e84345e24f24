//! Small durable state: leases with fencing tokens, and what patterns remember.
//!
//! | file | noun |
//! | --- | --- |
//! | [`embedded`] | [`EmbeddedLedger`]: a file of this instance's own, and [`embedded::store`], the thread that writes it |
//! | [`postgres`] | [`PostgresLedger`]: a PostgreSQL that several instances share |

pub mod embedded;
pub mod postgres;

use std::time::Duration;

pub use embedded::EmbeddedLedger;
pub use postgres::PostgresLedger;

/// How long a lease lasts that is not renewed. A successor waits that long for an instance that has gone without a word.
pub const LEASE: Duration = Duration::from_secs(15);

//! Small durable state that several Linkspan instances may share.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::health::Health;
use crate::lease::{Fence, Lease, Leases, NotGranted};

/// What a key had at one time: another number each time that it is written, a greater one than any before, also after
/// the key was deleted.
pub type Version = u64;

/// Keeps values under keys, and [`Leases`]. What a method has returned is durable and every instance sees it.
///
/// Keys are read by people: `saga/orders/4711`. They are at most [`LONGEST_KEY`] bytes, values at most
/// [`LARGEST_VALUE`].
#[async_trait]
pub trait Ledger: Leases {
    /// What is there, unless it has expired.
    ///
    /// # Errors
    /// See [`LedgerError`].
    async fn get(&self, key: &str) -> Result<Option<Entry>, LedgerError>;

    /// Writes a value if its [`Conditions`] hold, in one step.
    ///
    /// # Errors
    /// See [`LedgerError`]; nothing was written, but for [`LedgerError::Away`], where it may have been.
    async fn put(&self, key: &str, value: &[u8], terms: Conditions<'_>) -> Result<Version, LedgerError>;

    /// Deletes a key if the [`Conditions`] hold, in one step; whether it was there. [`Conditions::lasts`] means nothing here.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    async fn delete(&self, key: &str, terms: Conditions<'_>) -> Result<bool, LedgerError>;

    /// At most `limit` keys that begin with `prefix` and come after the key `after`, in the order of their bytes.
    ///
    /// # Errors
    /// See [`LedgerError`].
    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, Entry)>, LedgerError>;

    /// Gives the lease that this instance holds under `fence` the next number, and the time of a fresh one: somebody
    /// else acts under it from now on, and what is guarded by the old number is refused.
    ///
    /// # Errors
    /// Who has it, when it was lost; why nobody could be asked.
    async fn advance(&self, name: &str, fence: Fence) -> Result<Lease, NotGranted>;

    /// Whether it can be asked and written to now.
    async fn health(&self) -> Health;
}

/// Bytes that a key has room for.
pub const LONGEST_KEY: usize = 1024;

/// Bytes that a value has room for.
pub const LARGEST_VALUE: usize = 1 << 20;

/// A value that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Since which write.
    pub version: Version,
}

/// Under which conditions something is written, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions<'a> {
    /// What has to be there before.
    pub expected: Expected,
    /// The lease, by name and number, that nobody may have taken since.
    pub guard: Option<(&'a str, Fence)>,
    /// How long the value is there; for ever without. A restart of whoever keeps it takes nothing from that.
    pub lasts: Option<Duration>,
}

/// What has to be under a key for a write to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expected {
    /// Whatever is.
    #[default]
    Anything,
    /// Nothing, or what has expired.
    Nothing,
    /// What that write left.
    Version(Version),
}

/// Why a ledger did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Somebody else has written meanwhile: read again, and decide again.
    #[error("'{key}' was written by somebody else meanwhile")]
    Stale {
        /// Which key.
        key: Box<str>,
    },
    /// The lease that guards the write has another number by now: give up what was done under it.
    #[error("the lease '{lease}' has gone to somebody else")]
    Fenced {
        /// Which lease.
        lease: Box<str>,
    },
    /// The caller's fault: a key or a value is too large, or the key is empty.
    #[error("{0}")]
    Unfit(String),
    /// It cannot be asked now; a write may have been done or not. The same again later may succeed.
    #[error("the ledger is away: {0}")]
    Away(String),
    /// It does not trust what it has on disk, or cannot write there. Nothing more is written until it is opened again.
    #[error("the ledger is damaged or its disk fails: {0}")]
    Broken(String),
}

/// Whether a key and a value fit, for who implements a ledger.
///
/// # Errors
/// [`LedgerError::Unfit`].
pub fn fits(key: &str, value: &[u8]) -> Result<(), LedgerError> {
    let unfit = |why: String| Err(LedgerError::Unfit(why));
    match (key.len(), value.len()) {
        (0, _) => unfit("a key of the ledger has at least one byte".into()),
        (1..=LONGEST_KEY, 0..=LARGEST_VALUE) => Ok(()),
        (1..=LONGEST_KEY, size) => {
            unfit(format!("'{key}' would have {size} bytes, and the ledger takes {LARGEST_VALUE}"))
        }
        (size, _) => {
            unfit(format!("a key of {size} bytes is too long for the ledger, which takes {LONGEST_KEY}"))
        }
    }
}

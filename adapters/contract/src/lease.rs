//! What only one of several Linkspan instances may do at a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

/// A number that grows each time that a lease gets another holder: what was begun under an older one is over.
pub type Fence = u64;

/// Grants leases to one instance, from its start to its end. Whoever holds one takes it again before it
/// [`lasts`](Lease::lasts) no longer, and stops what it did under it when that is refused or the number is another one.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease of that name, or renews it. It keeps its number while the same run of the same instance renews it
    /// in time. An instance that was started again need not wait for what it held before.
    ///
    /// # Errors
    /// Who has it, or why nobody could be asked.
    async fn take(&self, name: &str) -> Result<Lease, NotGranted>;

    /// Gives a lease back, so that another instance need not wait.
    async fn give_back(&self, name: &str, fence: Fence);
}

/// A granted lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Under which number.
    pub fence: Fence,
    /// For how long from the moment of asking.
    pub lasts: Duration,
}

/// Why a lease was not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// Another instance has it.
    #[error("held by Linkspan instance '{0}'")]
    Held(Arc<str>),
    /// Nobody could be asked: the same again later may succeed.
    #[error("the leases cannot be asked for: {0}")]
    Away(String),
}

/// The leases of an instance that is alone: always granted, and never under another number.
#[cfg(feature = "conformance")]
#[derive(Debug, Default)]
pub struct SoleInstance;

#[cfg(feature = "conformance")]
#[async_trait]
impl Leases for SoleInstance {
    async fn take(&self, _name: &str) -> Result<Lease, NotGranted> {
        Ok(Lease { fence: 1, lasts: Duration::from_secs(3600) })
    }

    async fn give_back(&self, _name: &str, _fence: Fence) {}
}

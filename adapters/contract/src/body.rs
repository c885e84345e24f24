//! Payloads too large to be copied along.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::refusal::Refused;

/// The payload of a large message, apart from its other bytes.
#[derive(Clone)]
pub enum Body {
    /// In memory, in a buffer of its own: keep it by reference.
    Shared(Bytes),
    /// Complete, in a file, a log or the claim store: whoever sends it streams it.
    Stored(Arc<dyn StoredPayload>),
}

impl Body {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Shared(bytes) => bytes.len() as u64,
            Self::Stored(stored) => stored.len(),
        }
    }

    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if matches!(self, Self::Shared(_)) { "shared" } else { "stored" };
        write!(f, "{place} body of {} bytes", self.len())
    }
}

/// A complete payload that is not in memory.
#[async_trait]
pub trait StoredPayload: Send + Sync {
    /// Number of bytes.
    fn len(&self) -> u64;

    /// True when there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `max` bytes from `offset` on.
    ///
    /// # Errors
    /// When the store cannot be read; the connection that was sending it has to close.
    async fn read(&self, offset: u64, max: usize) -> std::io::Result<Bytes>;
}

/// Takes a large payload while it arrives; dropping it before [`BodyWriter::finish`] removes what was written.
#[async_trait]
pub trait BodyWriter: Send {
    /// Appends a chunk.
    ///
    /// # Errors
    /// When the place cannot take it: full, or lost.
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Refused>;

    /// The complete payload, safe as the route promises.
    ///
    /// # Errors
    /// When it could not be completed.
    async fn finish(self: Box<Self>) -> Result<Arc<dyn StoredPayload>, Refused>;
}

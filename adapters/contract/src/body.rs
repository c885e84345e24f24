//! Payloads too large to be copied along.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::refusal::Refused;

/// Bytes of a stored payload that are read at a time.
const PIECE: usize = 1 << 20;

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

    /// What it counts while it waits for a client: the bytes that are in memory; of those that are not, a 64th: room on a disk
    /// is not without end either.
    pub fn held(&self) -> u64 {
        match self {
            Self::Shared(bytes) => bytes.len() as u64,
            Self::Stored(stored) => stored.len() / 64,
        }
    }

    /// True when a part of it is known not to be readable any more, and will not be.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Stored(stored) if stored.is_lost())
    }

    /// All of it, in memory: for who cannot send it piece by piece.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn whole(&self) -> io::Result<Bytes> {
        let stored = match self {
            Self::Shared(bytes) => return Ok(bytes.clone()),
            Self::Stored(stored) => stored,
        };
        let mut bytes = BytesMut::with_capacity(usize::try_from(stored.len()).map_err(io::Error::other)?);
        while (bytes.len() as u64) < stored.len() {
            let piece = stored.read(bytes.len() as u64, PIECE).await?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
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
pub trait StoredPayload: Any + Send + Sync {
    /// Number of bytes.
    fn len(&self) -> u64;

    /// True when there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when a part of it is known not to be readable any more, and will not be: it is worth nobody's while to try again.
    fn is_lost(&self) -> bool {
        false
    }

    /// At least one and up to `max` bytes from `offset` on; none at the end.
    ///
    /// # Errors
    /// When the store cannot be read; the connection that was sending it has to close. When that is for good,
    /// [`is_lost`](Self::is_lost) says so from then on.
    async fn read(&self, offset: u64, max: usize) -> io::Result<Bytes>;
}

/// Takes a large payload while it arrives; dropping it before it was finished removes what was written.
pub trait BodyWriter: Send {
    /// Appends a chunk. Never waits: who writes asks [`BodyWriter::poll_ready`] before.
    ///
    /// # Errors
    /// When the place cannot take it: full, or lost; or when it is more than was announced.
    fn write(&mut self, chunk: &[u8]) -> Result<(), Refused>;

    /// Pending while so much is on its way to the place that no more should be read.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The complete payload. It is safe when the message is that is published with it. Not to be called again when it was
    /// ready.
    ///
    /// # Errors
    /// When it could not be completed, or is less than was announced.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<dyn StoredPayload>, Refused>>;
}

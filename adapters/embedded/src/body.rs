//! A large body, put together in memory.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use linkspan_contract::{BodyWriter, Refused, StoredPayload};

/// Takes a body in pieces.
pub(crate) struct MemoryBody {
    bytes: BytesMut,
    size: u64,
}

/// A complete body.
struct Complete(Bytes);

impl MemoryBody {
    /// A body of `size` bytes, which must not be more than `limit`.
    pub(crate) fn new(size: u64, limit: u64) -> Result<Self, Refused> {
        if size > limit {
            return Err(Refused::TooLarge(format!(
                "the body has {size} bytes, and this back end, which keeps messages in memory, takes {limit}"
            )));
        }
        Ok(Self { bytes: BytesMut::new(), size })
    }
}

#[async_trait]
impl BodyWriter for MemoryBody {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Refused> {
        if (self.bytes.len() + chunk.len()) as u64 > self.size {
            return Err(Refused::Precondition(format!(
                "the body is longer than the {} bytes it announced",
                self.size
            )));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Arc<dyn StoredPayload>, Refused> {
        if self.bytes.len() as u64 != self.size {
            let (got, size) = (self.bytes.len(), self.size);
            return Err(Refused::Precondition(format!("the body ended after {got} of {size} bytes")));
        }
        Ok(Arc::new(Complete(self.bytes.freeze())))
    }
}

#[async_trait]
impl StoredPayload for Complete {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let end = start.saturating_add(max).min(self.0.len());
        Ok(self.0.slice(start..end))
    }
}

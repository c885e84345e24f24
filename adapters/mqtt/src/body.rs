//! A large body for the broker, put together in memory: an MQTT packet is sent whole.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use linkspan_contract::{Body, BodyWriter, Refused, StoredPayload};

/// The largest packet of MQTT (§2.1.4), with room for its head.
pub(crate) const LARGEST: u64 = 268_435_455 - 66_000;

/// Takes a body for the broker in pieces.
pub(crate) struct Whole {
    bytes: BytesMut,
    size: u64,
}

impl Whole {
    pub(crate) fn new(size: u64) -> Self {
        Self { bytes: BytesMut::new(), size }
    }
}

/// A complete body.
struct Complete(Bytes);

#[async_trait]
impl BodyWriter for Whole {
    async fn write(&mut self, chunk: &[u8]) -> Result<(), Refused> {
        if (self.bytes.len() + chunk.len()) as u64 > self.size {
            let why = format!("the body is longer than the {} bytes it announced", self.size);
            return Err(Refused::Precondition(why));
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

/// The bytes of a body that is in memory, whoever holds it.
pub(crate) fn in_memory(body: &Body) -> Option<Bytes> {
    let stored = match body {
        Body::Shared(bytes) => return Some(bytes.clone()),
        Body::Stored(stored) => stored,
    };
    let len = usize::try_from(stored.len()).ok()?;
    let read = pin!(stored.read(0, len));
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(bytes)) if bytes.len() == len => Some(bytes),
        Poll::Ready(_) | Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_put_together_and_has_the_length_that_was_announced() {
        let mut body: Box<dyn BodyWriter> = Box::new(Whole::new(5));
        body.write(b"abc").await.unwrap();
        assert!(matches!(body.write(b"def").await, Err(Refused::Precondition(_))));
        body.write(b"de").await.unwrap();
        let stored = body.finish().await.unwrap();
        assert_eq!(in_memory(&Body::Stored(stored)).as_deref(), Some(&b"abcde"[..]));
        let short: Box<dyn BodyWriter> = Box::new(Whole::new(5));
        assert!(matches!(short.finish().await, Err(Refused::Precondition(_))));
    }
}

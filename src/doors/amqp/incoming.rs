//! A published message whose frames did not lie in the read buffer in a row.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use linkspan_contract::{Body, BodyWriter, Refused, Span, StoredPayload};

use crate::protocol::amqp::{Address, ReplyCode, basic};

use super::delivery::BY_REFERENCE;
use super::failure::Failure;
use super::translate::refusal;

/// Memory for bodies that are still coming in, of all connections together.
#[derive(Debug)]
pub(super) struct Budget {
    max: u64,
    used: AtomicU64,
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    size: u64,
}

impl Budget {
    /// A budget of `max` bytes.
    pub(super) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicU64::new(0) })
    }

    fn share(self: &Arc<Self>, size: u64) -> Option<Share> {
        let more = |used: u64| used.checked_add(size).filter(|sum| *sum <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Share { budget: Arc::clone(self), size })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// A message that is being put together.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Give it back if it reaches no queue.
    pub(super) mandatory: bool,
    /// Address, properties and, unless it is large, the payload.
    pub(super) bytes: Vec<u8>,
    /// In `bytes`.
    pub(super) address: Span,
    /// In `bytes`.
    pub(super) properties: Span,
    /// In `bytes`; empty when there is a body.
    pub(super) payload: Span,
    large: Option<Large>,
    /// A body that its place does not take is published as none: the publisher gets a `basic.nack`.
    pub(super) nacks: bool,
}

/// A body that is not in the message's bytes.
enum Large {
    /// It is put together in memory; the share is held until the message is complete.
    Memory { body: Vec<u8>, _share: Share },
    /// It is written where it is kept.
    Place(Box<dyn BodyWriter>),
    /// It is there.
    Complete(Body),
}

/// What was not written: no lane takes it.
struct Unwritten;

#[async_trait]
impl StoredPayload for Unwritten {
    fn len(&self) -> u64 {
        1
    }

    fn is_lost(&self) -> bool {
        true
    }

    async fn read(&self, _: u64, _: usize) -> io::Result<Bytes> {
        Err(io::ErrorKind::InvalidData.into())
    }
}

impl fmt::Debug for Large {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory { .. } => "in memory",
            Self::Place(_) => "on its way to its place",
            Self::Complete(_) => "complete",
        })
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

impl Incoming {
    /// After `basic.publish`.
    pub(super) fn new(publish: &basic::Publish<'_>) -> Self {
        let mut bytes = Vec::new();
        Address::encode(publish.exchange, publish.routing_key, &mut bytes);
        let address = Span::new(0, length(&bytes));
        let (properties, payload) = (Span::default(), Span::default());
        Self { mandatory: publish.mandatory, bytes, address, properties, payload, large: None, nacks: false }
    }

    /// What the content header says.
    pub(super) fn header(&mut self, properties: &[u8]) {
        self.properties = Span::new(length(&self.bytes), length(properties));
        self.bytes.extend_from_slice(properties);
    }

    /// After the content header. Takes the memory that the body needs, unless it has a `place` elsewhere.
    ///
    /// # Errors
    /// When there is none to take now.
    pub(super) fn begin_body(
        &mut self,
        body_size: u64,
        place: Option<Box<dyn BodyWriter>>,
        budget: &Arc<Budget>,
    ) -> Result<(), Failure> {
        if let Some(place) = place {
            self.large = Some(Large::Place(place));
            return Ok(());
        }
        if body_size < BY_REFERENCE as u64 {
            self.payload = Span::new(length(&self.bytes), 0);
            self.bytes.reserve_exact(body_size as usize);
            return Ok(());
        }
        let full = || {
            let text = "too many large messages are on their way in now; the client may retry later";
            Failure::new(ReplyCode::ContentTooLarge, text).caused_by(basic::Publish::ID)
        };
        let share = budget.share(body_size).ok_or_else(full)?;
        let mut body = Vec::new();
        let size = usize::try_from(body_size).map_err(|_| full())?;
        body.try_reserve_exact(size).map_err(|_| full())?;
        self.large = Some(Large::Memory { body, _share: share });
        Ok(())
    }

    /// A part of the body.
    ///
    /// # Errors
    /// When its place does not take it.
    pub(super) fn body(&mut self, chunk: &[u8]) -> Result<(), Refused> {
        match &mut self.large {
            Some(Large::Memory { body, .. }) => body.extend_from_slice(chunk),
            Some(Large::Place(place)) => {
                let written = place.write(chunk);
                return written.or_else(|why| self.give_up(why));
            }
            Some(Large::Complete(_)) => {}
            None => {
                self.bytes.extend_from_slice(chunk);
                self.payload.len += length(chunk);
            }
        }
        Ok(())
    }

    /// Its place does not take it: the rest is read all the same, when the publisher is told later.
    fn give_up(&mut self, why: Refused) -> Result<(), Refused> {
        if !self.nacks || !refusal::is_nack(&why) {
            return Err(why);
        }
        tracing::debug!(%why, "a large message was not taken");
        self.large = Some(Large::Complete(Body::Stored(Arc::new(Unwritten))));
        Ok(())
    }

    /// Pending while more of it should not be read.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.large {
            Some(Large::Place(place)) => place.poll_ready(cx),
            _ => Poll::Ready(()),
        }
    }

    /// True when the body has still to be completed where it is kept.
    pub(super) fn has_place(&self) -> bool {
        matches!(self.large, Some(Large::Place(_)))
    }

    /// Completes the body there.
    ///
    /// # Errors
    /// When that cannot be.
    pub(super) async fn finish(&mut self) -> Result<(), Refused> {
        if let Some(Large::Place(place)) = &mut self.large {
            match poll_fn(|cx| place.poll_finish(cx)).await {
                Ok(stored) => self.large = Some(Large::Complete(Body::Stored(stored))),
                Err(why) => return self.give_up(why),
            }
        }
        Ok(())
    }

    /// The body, when it is a large one. The message is complete.
    pub(super) fn take_body(&mut self) -> Option<Body> {
        match self.large.take()? {
            Large::Memory { body, .. } => Some(Body::Shared(body.into())),
            Large::Complete(body) => Some(body),
            Large::Place(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::amqp::ShortBytes;

    fn incoming() -> Incoming {
        Incoming::new(&basic::Publish {
            exchange: ShortBytes::EMPTY,
            routing_key: ShortBytes::new(b"jobs").unwrap(),
            mandatory: true,
            immediate: false,
        })
    }

    #[test]
    fn a_small_message_lies_in_one_buffer() {
        let budget = Budget::new(0);
        let mut message = incoming();
        message.header(&[0, 0]);
        message.begin_body(4, None, &budget).unwrap();
        message.body(b"ab").unwrap();
        message.body(b"cd").unwrap();
        assert!(message.take_body().is_none());
        assert_eq!(message.address.of(&message.bytes), b"\x00\x04jobs");
        assert_eq!(message.properties.of(&message.bytes), [0, 0]);
        assert_eq!(message.payload.of(&message.bytes), b"abcd");
    }

    /// A place that is full.
    struct Full;

    impl BodyWriter for Full {
        fn write(&mut self, _: &[u8]) -> Result<(), Refused> {
            Err(Refused::Full("no room".into()))
        }

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }

        fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<Arc<dyn StoredPayload>, Refused>> {
            Poll::Ready(Err(Refused::Full("no room".into())))
        }
    }

    #[tokio::test]
    async fn a_body_that_its_place_does_not_take_is_read_to_its_end_where_a_nack_follows() {
        let budget = Budget::new(0);
        let mut message = incoming();
        message.begin_body(100_000, Some(Box::new(Full)), &budget).unwrap();
        assert!(message.body(&[7; 50_000]).is_err(), "its channel is closed");
        for last in [false, true] {
            let mut message = incoming();
            message.nacks = true;
            message.begin_body(100_000, Some(Box::new(Full)), &budget).unwrap();
            if last {
                message.finish().await.unwrap();
            } else {
                message.body(&[7; 50_000]).unwrap();
                message.body(&[7; 50_000]).unwrap();
            }
            assert!(!message.has_place());
            let body = message.take_body().unwrap();
            assert!(body.is_lost() && !body.is_empty() && body.whole().await.is_err());
        }
    }

    #[test]
    fn large_bodies_share_a_budget_and_give_it_back() {
        let size = BY_REFERENCE as u64;
        let budget = Budget::new(size);
        let mut first = incoming();
        first.begin_body(size, None, &budget).unwrap();
        let refused = incoming().begin_body(size, None, &budget).unwrap_err();
        assert_eq!(
            (refused.code, refused.hard),
            (311, false),
            "the channel is closed, the client may try again"
        );
        first.body(&vec![7; BY_REFERENCE]).unwrap();
        assert_eq!(first.take_body().unwrap().len(), size);
        incoming().begin_body(size, None, &budget).unwrap();
        incoming().begin_body(size, None, &budget).unwrap();
    }
}

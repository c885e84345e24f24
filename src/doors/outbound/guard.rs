//! What may be done to an outbound side under its lock.

use std::sync::Arc;

use bytes::Bytes;
use linkspan_contract::StoredPayload;
use parking_lot::MutexGuard;

use super::Inner;
use crate::doors::buffer;
use crate::doors::unsent::{Unsent, Wrap};

/// The lock on an [`Outbound`](super::Outbound).
#[derive(Debug)]
pub struct Guard<'a, S> {
    pub(super) inner: MutexGuard<'a, Inner<S>>,
    pub(super) high: usize,
}

impl<S> Guard<'_, S> {
    /// The door's state.
    pub fn state(&mut self) -> &mut S {
        &mut self.inner.state
    }

    /// The door's state together with the end of the unsent bytes, to append to. Call [`Guard::appended`] after.
    pub fn parts(&mut self) -> (&mut S, &mut Vec<u8>) {
        let inner = &mut *self.inner;
        if inner.unsent.tail.capacity() == 0 {
            inner.unsent.tail = buffer::take();
        }
        (&mut inner.state, &mut inner.unsent.tail)
    }

    /// Counts what was appended to the bytes of [`Guard::parts`]. When the outbound side is closed it is thrown away.
    /// True when the client is above its high mark now.
    pub fn appended(&mut self) -> bool {
        let inner = &mut *self.inner;
        if inner.closed.is_some() {
            inner.unsent = Unsent::default();
            return false;
        }
        inner.unsent.count();
        if inner.unsent.tail.is_empty() {
            // Nothing came after all: an idle connection holds no buffer.
            buffer::give_back(std::mem::take(&mut inner.unsent.tail));
        }
        if inner.backlog() > self.high && !inner.congested {
            inner.congested = true;
            // Nobody flushes a blocked socket: the owner, who waits for it, has to begin to count the time.
            if inner.blocked
                && let Some(owner) = inner.owner.take()
            {
                owner.wake();
            }
        }
        inner.congested
    }

    /// Appends a large piece by reference, behind all that was appended before. Call [`Guard::appended`] after.
    pub fn push_shared(&mut self, bytes: Bytes) {
        self.inner.unsent.push_shared(bytes);
    }

    /// Appends a stored body behind all that was appended before, to be read when its turn comes, with what `wrap` puts
    /// between. Call [`Guard::appended`] after.
    pub fn push_stored(&mut self, body: Arc<dyn StoredPayload>, wrap: Option<Box<dyn Wrap>>) {
        self.inner.unsent.push_stored(body, wrap);
    }

    /// True when nothing more is taken.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.is_some()
    }

    /// Unsent bytes.
    pub fn backlog(&self) -> usize {
        self.inner.backlog()
    }

    /// Those of them that are in memory.
    pub fn held(&self) -> usize {
        self.inner.held()
    }

    /// True when the client is above its mark and has taken nothing for so long that nobody is held up by it: what it
    /// need not have is dropped.
    pub fn is_slow(&self) -> bool {
        self.inner.slow
    }

    /// True when the client is above its high mark, or was and has not yet fallen below the low one.
    pub fn is_congested(&self) -> bool {
        self.inner.congested
    }
}

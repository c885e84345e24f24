//! The way to a client's sink, which may be replaced.

use std::ptr;
use std::sync::Arc;

use linkspan_contract::DeliverySink;

use crate::session::Session;

/// A session and the sink that it had when last looked at.
pub(crate) struct Outlet {
    pub(crate) session: Arc<Session>,
    sink: Arc<dyn DeliverySink>,
    attached: u64,
}

impl Outlet {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        let (attached, sink) = session.sink();
        Self { session, sink, attached }
    }

    /// The number of the client behind it.
    pub(crate) fn client(&self) -> u64 {
        self.session.client
    }

    /// The session's sink of now.
    #[inline]
    pub(crate) fn sink(&mut self) -> &Arc<dyn DeliverySink> {
        if self.session.attached() != self.attached {
            (self.attached, self.sink) = self.session.sink();
        }
        &self.sink
    }
}

/// The sinks that were given something and have not been flushed.
#[derive(Default)]
pub(crate) struct Touched {
    sinks: Vec<Arc<dyn DeliverySink>>,
}

/// How far back a sink is looked for: one that is flushed twice has written nothing twice.
const LOOK_BACK: usize = 16;

/// Room for more sinks than these is not kept between reads.
const KEPT: usize = 8;

impl Touched {
    pub(crate) fn add(&mut self, sink: &Arc<dyn DeliverySink>) {
        let is_it = |other: &Arc<dyn DeliverySink>| ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(sink));
        if !self.sinks.iter().rev().take(LOOK_BACK).any(is_it) {
            self.sinks.push(Arc::clone(sink));
        }
    }

    /// Lets them write.
    pub(crate) fn flush(&mut self) {
        for sink in self.sinks.drain(..) {
            sink.flush();
        }
        if self.sinks.capacity() > KEPT {
            self.sinks = Vec::new();
        }
    }
}

//! What all vhosts of one back end share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linkspan_contract::{Clock, Millis};

use crate::archive::Archive;
use crate::coordinator::Coordinator;
use crate::options::EmbeddedOptions;

/// Name, bounds, clock and numbers.
pub(crate) struct House {
    pub(crate) name: Arc<str>,
    pub(crate) options: EmbeddedOptions,
    pub(crate) coordinator: Arc<Coordinator>,
    /// Keeps what is durable, and what is too much for the memory; none where all is in memory.
    pub(crate) archive: Option<Arc<Archive>>,
    clock: Arc<dyn Clock>,
    numbers: AtomicU64,
    closed: AtomicBool,
}

impl House {
    pub(crate) fn new(
        name: &str,
        options: EmbeddedOptions,
        clock: Arc<dyn Clock>,
        archive: Option<Arc<Archive>>,
    ) -> Self {
        Self {
            name: name.into(),
            options,
            coordinator: Coordinator::new(Arc::clone(&clock)),
            archive,
            clock,
            numbers: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// A number that nothing else of this back end has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.coordinator.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl fmt::Debug for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("House")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

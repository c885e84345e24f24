//! What all vhosts of one back end share.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

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
    /// Some queue knows what was published to it, and drops what comes again.
    deduplicates: AtomicBool,
    clock: Arc<dyn Clock>,
    numbers: AtomicU64,
    /// Who keeps the list of the sessions that begin here; nobody knows before they are recalled.
    owner: OnceLock<Box<str>>,
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
            deduplicates: AtomicBool::new(false),
            clock,
            numbers: AtomicU64::new(0),
            owner: OnceLock::new(),
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

    /// From now on some queue drops what comes again.
    pub(crate) fn begin_to_deduplicate(&self) {
        self.deduplicates.store(true, Ordering::Release);
    }

    /// Whether some queue drops what comes again.
    pub(crate) fn deduplicates(&self) -> bool {
        self.deduplicates.load(Ordering::Acquire)
    }

    /// Sessions that begin from now on are in the list of `owner`.
    pub(crate) fn belong_to(&self, owner: &str) {
        self.owner.get_or_init(|| owner.into());
    }

    pub(crate) fn owner(&self) -> Option<&str> {
        self.owner.get().map(|owner| &**owner)
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

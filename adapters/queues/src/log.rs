//! The durable log: one stream of records for all queues of a back end.
//!
//! A [`Commit`] gathers records without a lock; [`Log::commit`] puts it behind all others, in memory, and says where it
//! ends: its [`Lsn`]. One writer brings everything to the disk that came meanwhile, with one sync for all, and tells the
//! [`Watch`] up to which LSN everything is safe. Nobody else waits for the disk.
//!
//! What the records come to is kept in memory: where each live message lies (about 9 bytes a message), what is noted of
//! it, and where the values lie that are kept under keys. Content is read from the files, in windows
//! ([`Log::read`]).
//!
//! # What a commit may hold
//!
//! - messages of queues, under sequences that their owner gives out;
//! - that messages are gone, were given out, or carry a [`Mark`];
//! - small values under keys of an owner, which are replaced and deleted: whatever changes with messages and must be safe
//!   in the same instant;
//! - parts of bodies that are too large for memory.
//!
//! Queues, owners and bodies are numbers. A queue's number is not used again after [`Commit::drop_queue`].
//!
//! # Rooms
//!
//! | file | noun |
//! | --- | --- |
//! | [`record`], [`segment`] | what lies on the disk |
//! | [`commit`], [`tail`], [`state`] | records on their way to it |
//! | [`catalog`] | what is live: [`index`] and [`block`] of a queue, [`marks`], [`keys`], [`bodies`], [`segments`] |
//! | [`writer`], [`coordinator`], [`compaction`] | who writes, syncs, and makes room |
//! | [`reader`], [`scan`], [`recovery`] | reading: messages, files, everything at the start |
//! | [`inspect`], [`survey`] | looking at a log from outside: its records, what they come to |
//! | [`figures`] | what it has done so far |
//! | [`store`] | files |

mod block;
mod bodies;
mod catalog;
mod commit;
mod compaction;
mod coordinator;
mod error;
mod figures;
mod index;
mod inspect;
mod keys;
mod marks;
mod options;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;
mod segments;
mod state;
mod store;
mod survey;
mod tail;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

pub use commit::Commit;
pub use compaction::{Compacted, compact};
pub use error::LogError;
pub use figures::Figures;
pub use inspect::{Entry, Inspection, inspect, verify};
pub use marks::Mark;
pub use options::{Options, SyncMode};
pub use reader::{Read, Window};
pub use record::{Kind, MAX_PAYLOAD};
pub use recovery::{Damage, Recovery};
pub use segment::VERSION;
pub use store::{Directory, Store, StoreFile};
pub use survey::{Harm, Oldest, Owned, Survey, Surveyed, SurveyedQueue, Takes, survey};
pub use writer::{Turn, Writer};

use coordinator::Coordinator;
use figures::Counters;
use state::State;

/// A log sequence number: a place in the stream of records, in bytes. A commit's is where it ends.
pub type Lsn = u64;

/// Is told what became of commits; from the writer's thread, without any lock of the log. It must not wait.
pub trait Watch: Send + Sync + 'static {
    /// Every commit that ends at `to` or before is safe.
    fn synced(&self, to: Lsn);

    /// Every commit that ends behind `from` and not behind `to` has failed: it is not safe now. The log itself goes on
    /// with it and writes it again once the disk takes it; who has told somebody that it failed and must not have it
    /// come back commits its opposite.
    fn failed(&self, from: Lsn, to: Lsn, why: &str);

    /// The disk takes writes again.
    fn resumed(&self);

    /// Something went wrong that costs no message, such as a file that could not be removed.
    fn trouble(&self, what: &LogError);
}

/// Nobody listens.
impl Watch for () {
    fn synced(&self, _to: Lsn) {}
    fn failed(&self, _from: Lsn, _to: Lsn, _why: &str) {}
    fn resumed(&self) {}
    fn trouble(&self, _what: &LogError) {}
}

/// What the log, its writer and its readers share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes who waits for a sync.
    told: Condvar,
    options: Options,
    store: Arc<dyn Store>,
    watch: Arc<dyn Watch>,
    figures: Counters,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// A queue in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Its number.
    pub queue: u64,
    /// Live messages.
    pub len: u64,
    /// Bytes of their payloads, and of the bodies that they have apart.
    pub bytes: u64,
    /// Above every sequence that the files tell of.
    pub next: u64,
}

/// What the log takes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Files.
    pub segments: u64,
    /// Bytes of records in them.
    pub bytes: u64,
    /// Bytes of those that are live.
    pub live: u64,
    /// Bytes that are not safe yet.
    pub waiting: u64,
}

/// A log. Dropping it writes what waits and ends its writer.
pub struct Log {
    shared: Arc<Shared>,
    coordinator: Mutex<Option<Coordinator>>,
}

impl Log {
    /// Opens the log in a directory, or begins one there.
    ///
    /// # Errors
    /// When another process has the directory, its files are of another version, or the system refuses.
    pub fn open(path: &Path, options: Options, watch: Arc<dyn Watch>) -> Result<(Self, Recovery), LogError> {
        let store = Arc::new(Directory::open(path)?);
        let (log, writer, recovery) = Self::without_thread(store, options, watch)?;
        *log.coordinator.lock() = Some(Coordinator::start(writer, Arc::clone(&log.shared))?);
        Ok((log, recovery))
    }

    /// Opens a log that is written only when [`Writer::turn`] is called.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn without_thread(
        store: Arc<dyn Store>,
        options: Options,
        watch: Arc<dyn Watch>,
    ) -> Result<(Self, Writer, Recovery), LogError> {
        let (mut state, recovery) = recovery::recover(&*store)?;
        for (queue, sequence) in &recovery.lost {
            let mut commit = Commit::new();
            commit.gone(*queue, *sequence..sequence.saturating_add(1));
            state.append(&mut commit, options.segment_size);
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            told: Condvar::new(),
            options,
            store,
            watch,
            figures: Counters::default(),
        });
        let writer = Writer::new(Arc::clone(&shared));
        Ok((Self { shared, coordinator: Mutex::default() }, writer, recovery))
    }

    /// Puts a commit behind all others and empties it. It takes effect for readers at once, and is safe when the
    /// [`Watch`] is told so of the LSN. Never waits.
    ///
    /// # Errors
    /// When the log has no room for what it adds; then the commit is as it was. What makes room is taken always.
    pub fn commit(&self, commit: &mut Commit) -> Result<Lsn, LogError> {
        let mut state = self.shared.lock();
        if state.closing {
            return Err(LogError::Closed);
        }
        if commit.is_empty() {
            return Ok(state.end);
        }
        if let Some(why) = state.failed.as_ref().filter(|_| commit.adds()) {
            return Err(LogError::Failed { why: Arc::clone(why) });
        }
        let end = state.append(commit, self.shared.options.segment_size);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.shared.work.notify_one();
        }
        commit.clear();
        Ok(end)
    }

    /// Waits until a commit is safe. Blocks the thread.
    ///
    /// # Errors
    /// When it has failed.
    pub fn wait(&self, lsn: Lsn) -> Result<(), LogError> {
        let mut state = self.shared.lock();
        loop {
            let (from, to) = state.failure;
            if from < lsn && lsn <= to {
                let why = state.failed.clone().unwrap_or_else(|| "the disk refused it".into());
                return Err(LogError::Failed { why });
            }
            if lsn <= state.synced {
                return Ok(());
            }
            if state.closed {
                return Err(LogError::Closed);
            }
            self.shared.told.wait(&mut state);
        }
    }

    /// Everything before it is safe.
    pub fn synced(&self) -> Lsn {
        self.shared.lock().synced
    }

    /// Bytes that are not safe yet; they are in memory: who adds to them without end has to be slowed down.
    pub fn waiting(&self) -> u64 {
        let state = self.shared.lock();
        state.end.saturating_sub(state.synced)
    }

    /// Why the disk takes nothing, while it does not.
    pub fn failed(&self) -> Option<Arc<str>> {
        self.shared.lock().failed.clone()
    }

    /// Every queue of which the log knows something, in no order.
    pub fn queues(&self) -> Vec<QueueState> {
        let state = self.shared.lock();
        let queues = state.catalog.queues.iter();
        queues
            .map(|(queue, index)| QueueState {
                queue: *queue,
                len: index.len,
                bytes: index.bytes.saturating_add(index.bodies.values().map(|(_, length)| length).sum()),
                next: index.next,
            })
            .collect()
    }

    /// The messages of a queue that were never given out and are not ready at `now`, and from when on they are.
    pub fn held_back(&self, queue: u64, now: u64) -> Vec<(Range<u64>, u64)> {
        let state = self.shared.lock();
        let Some(index) = state.catalog.queues.get(&queue) else { return Vec::new() };
        let marks = index.marks.within(&(0..u64::MAX)).into_iter();
        let waits = |mark: &Mark| mark.attempts == Some(0) && mark.given == 0 && mark.not_before > now;
        marks.filter(|(_, mark)| waits(mark)).map(|(range, mark)| (range, mark.not_before)).collect()
    }

    /// Above every sequence of a queue that the log knows of.
    pub fn next(&self, queue: u64) -> u64 {
        self.shared.lock().catalog.queues.get(&queue).map_or(0, |index| index.next)
    }

    /// Owners that have a value under a key, in no order.
    pub fn owners(&self) -> Vec<u64> {
        self.shared.lock().catalog.keys.owners().collect()
    }

    /// The keys of an owner, in no order.
    pub fn keys(&self, owner: u64) -> Vec<Box<[u8]>> {
        self.shared.lock().catalog.keys.of(owner).map(|(key, _)| key.into()).collect()
    }

    /// The number of a new body, for [`Commit::chunk`] and [`Commit::stored`]. Whoever asks holds it, until
    /// [`release_body`](Self::release_body); a body that neither anybody nor a message holds is gone.
    pub fn body(&self) -> u64 {
        self.shared.lock().catalog.bodies.begin()
    }

    /// Holds a body that a message has, so that it outlives the message: whoever reads it does that first. False when there
    /// is none of that number.
    pub fn hold_body(&self, body: u64) -> bool {
        self.shared.lock().catalog.bodies.hold_known(body)
    }

    /// Lets go of a body.
    pub fn release_body(&self, body: u64) {
        let mut state = self.shared.lock();
        let catalog = &mut state.catalog;
        catalog.bodies.release(body, false, &mut catalog.segments);
    }

    /// What the log takes on the disk.
    pub fn usage(&self) -> Usage {
        let state = self.shared.lock();
        let segments = state.catalog.segments.all();
        Usage {
            segments: segments.len() as u64,
            bytes: segments.iter().map(segment::Segment::size).sum(),
            live: segments.iter().map(|segment| segment.live).sum(),
            waiting: state.end.saturating_sub(state.synced),
        }
    }

    /// What the log has done since it was opened.
    pub fn figures(&self) -> Figures {
        self.shared.figures.read()
    }

    /// Writes what waits and ends the writer; what cannot be written stays unsafe. Blocks the thread.
    pub fn close(&self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        let coordinator = self.coordinator.lock().take();
        if let Some(coordinator) = coordinator {
            coordinator.join();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

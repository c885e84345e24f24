//! What a durable back end has on the disk: the log of its queues, and who waits for it.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use linkspan_contract::{Millis, Receipt, ReceiptSink, WireForm};
use linkspan_queues::log::{Commit, Log, LogError, Lsn, Options, QueueState, Recovery, Window};
use parking_lot::{Mutex, MutexGuard};
use smallvec::{SmallVec, smallvec};

use crate::backlog::Backlog;
use crate::budget::Budget;
use crate::parts::Parts;
use crate::pending::{Pending, Waits};
use crate::postponed::Postponed;
use crate::queue::Queue;
use crate::retained::{self, Bodies};
use crate::vhost::Vhost;

/// The log, and what goes with it.
pub(crate) struct Archive {
    log: Log,
    pending: Arc<Pending>,
    backlog: Backlog,
    forms: Box<[&'static dyn WireForm]>,
    /// What the log had of each queue when it was opened.
    found: Mutex<HashMap<u64, QueueState, RandomState>>,
    /// Numbers of queues that end with the process.
    passing: AtomicU64,
    retained: Mutex<Bodies>,
    /// Bodies of which a part cannot be read, and whether there are any.
    lost: (AtomicBool, Mutex<HashSet<u64, RandomState>>),
    /// Parts of bodies that are in memory.
    pub(crate) parts: Arc<Parts>,
    /// Numbers of shared subscriptions.
    groups: AtomicU64,
    /// What its queues may have in memory.
    pub(crate) budget: Arc<Budget>,
}

/// Queues of the log from this number on end with the process.
pub(crate) const PASSING: u64 = 1 << 62;

/// Numbers from this one on are those of shared subscriptions. They have one from the beginning, and are in the register,
/// which gives its own below, as long as a session that outlives the process shares them.
pub(crate) const GROUPS: u64 = 1 << 52;

/// What a queue has seen, so that it is known when it comes again, has the number of the queue's lowest level and this.
pub(crate) const SEEN: u64 = 1 << 61;

/// Numbers of the log that a queue has: one for each priority. The first is that of the register, times these.
pub(crate) const LEVELS: u64 = 256;

/// Whether a queue with this number in the log is what another one has seen.
pub const fn is_seen(number: u64) -> bool {
    number & SEEN != 0
}

/// The register's number of the queue that has this number in the log, and the priority of what is there.
pub const fn of_log(number: u64) -> (u64, u64) {
    let number = number & !SEEN;
    (number / LEVELS, number % LEVELS)
}

/// The log did not take a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotTaken;

/// Bytes that are not safe yet above which publishers wait.
const HIGH: u64 = 32 << 20;

impl Archive {
    /// Opens the log in a directory, or begins one there. `forms` are those in which messages may have been kept.
    pub(crate) fn open(
        directory: &Path,
        options: Options,
        forms: &[&'static dyn WireForm],
        budget: &Arc<Budget>,
    ) -> Result<(Arc<Self>, Recovery), LogError> {
        let pending = Arc::new(Pending::default());
        let (log, recovery) = Log::open(directory, options, Arc::clone(&pending) as _)?;
        Ok((Self::over(log, pending, forms, budget), recovery))
    }

    /// Over a log that tells `pending`.
    pub(crate) fn over(
        log: Log,
        pending: Arc<Pending>,
        forms: &[&'static dyn WireForm],
        budget: &Arc<Budget>,
    ) -> Arc<Self> {
        pending.begin(log.synced());
        let queues = log.queues().into_iter().filter(|state| state.queue != retained::OWNER);
        let found: HashMap<_, _, RandomState> = queues.map(|state| (state.queue, state)).collect();
        let numbers = found.keys().copied().chain(log.owners()).map(|number| number / LEVELS);
        // What is left of one must not be found by another.
        let last = numbers.filter(|number| (GROUPS..2 * GROUPS).contains(number)).max();
        let archive = Arc::new(Self {
            log,
            pending,
            backlog: Backlog::default(),
            forms: forms.into(),
            found: Mutex::new(found),
            passing: AtomicU64::new(PASSING),
            retained: Mutex::default(),
            lost: Default::default(),
            parts: Arc::default(),
            budget: Arc::clone(budget),
            groups: AtomicU64::new(last.map_or(GROUPS, |last| last + 1)),
        });
        archive.pending.serve(&archive);
        archive
    }

    /// A number for a queue that ends with the process.
    pub(crate) fn passing_number(&self) -> u64 {
        self.passing.fetch_add(LEVELS, Ordering::Relaxed)
    }

    /// A number for a shared subscription.
    pub(crate) fn group_number(&self) -> u64 {
        self.groups.fetch_add(1, Ordering::Relaxed)
    }

    /// A shared subscription has this one.
    pub(crate) fn note_group_number(&self, number: u64) {
        self.groups.fetch_max(number.saturating_add(1), Ordering::Relaxed);
    }

    /// What the log had of a queue when it was opened; asked for once.
    pub(crate) fn found(&self, number: u64) -> Option<QueueState> {
        self.found.lock().remove(&number)
    }

    /// Forgets what the log had of queues that nobody asked for: they were deleted, or ended with their process.
    pub(crate) fn forget_rest(&self, all: bool) {
        let mut commit = Commit::new();
        self.found.lock().retain(|number, _| {
            let gone = all || *number >= PASSING;
            if gone {
                commit.drop_queue(*number);
            }
            !gone
        });
        self.write_behind(&mut commit);
    }

    /// Queues in the log that outlive the process and have messages.
    pub(crate) fn kept(&self) -> usize {
        self.found.lock().values().filter(|state| state.queue < SEEN && state.len > 0).count()
    }

    /// A queue is gone with all its levels.
    pub(crate) fn drop_queue(&self, number: u64, levels: u64) {
        let numbers = number..number.saturating_add(levels);
        let seen = number | SEEN..(number | SEEN) + 1;
        for place in self.backlog.forget(&numbers).into_iter().chain(self.backlog.forget(&seen)) {
            self.pending.keep(place, self.written());
        }
        let mut commit = Commit::new();
        numbers.for_each(|number| commit.drop_queue(number));
        if self.log.next(number | SEEN) > 0 {
            commit.drop_queue(number | SEEN);
        }
        // Short keys fit into a record.
        self.keys(number).iter().for_each(|key| drop(commit.delete(number, key)));
        self.write_behind(&mut commit);
    }

    /// Hands a commit to the log, and tells where it ends there.
    ///
    /// # Errors
    /// When the log takes none now, or others wait for it that come before: the commit is as it was, or empty when the log was
    /// closed.
    pub(crate) fn write(&self, commit: &mut Commit) -> Result<Lsn, NotTaken> {
        if !self.backlog.is_empty() && !self.catch_up() && commit.adds() {
            return Err(NotTaken);
        }
        self.append(commit)
    }

    fn append(&self, commit: &mut Commit) -> Result<Lsn, NotTaken> {
        match self.log.commit(commit) {
            Ok(lsn) => {
                self.pending.written(lsn);
                Ok(lsn)
            }
            Err(LogError::Closed) => {
                commit.clear();
                Err(NotTaken)
            }
            Err(_) => Err(NotTaken),
        }
    }

    /// Puts a commit that the log did not take behind those that wait for it, and empties it; what stands for its place in the
    /// log until that is known. It is not safe before.
    pub(crate) fn put_off(&self, commit: &mut Commit) -> Lsn {
        self.backlog.put(commit, || self.pending.promise())
    }

    /// Hands the log what waits for it; true when nothing waits any more.
    pub(crate) fn catch_up(&self) -> bool {
        for (place, lsn) in self.backlog.hand_over(|commit| self.append(commit)) {
            self.pending.keep(place, lsn);
        }
        self.backlog.is_empty()
    }

    /// True when the log has what was [put off](Self::put_off) under that place, by now.
    pub(crate) fn has_taken(&self, place: Lsn) -> bool {
        self.catch_up() || !self.backlog.has(place)
    }

    /// Hands the log a commit that only makes room: it is always taken.
    pub(crate) fn write_behind(&self, commit: &mut Commit) {
        if !commit.is_empty() {
            // Only one that was closed does not take it, and then nobody asks any more.
            let _ = self.write(commit);
        }
    }

    /// A queue has something to write that the log did not take: it is asked again when the disk takes writes. False when
    /// nobody was told that it does not.
    pub(crate) fn ask_again(&self, queue: &Arc<Queue>) -> bool {
        self.pending.ask_again(queue)
    }

    /// Keeps in mind which dead letters wait until the disk takes writes; gives them back when it does by now.
    pub(crate) fn postpone(&self, vhost: &Arc<Vhost>, letters: Postponed) -> Option<Postponed> {
        self.pending.postpone(vhost, letters)
    }

    /// True while the log takes nothing that needs room.
    pub(crate) fn is_failed(&self) -> bool {
        self.pending.is_failed()
    }

    /// Why, for people.
    pub(crate) fn why(&self) -> String {
        let why = self.pending.why();
        format!("the message cannot be written down now: {}", why.as_deref().unwrap_or("the disk refuses"))
    }

    /// Has `sink` told these receipts when everything before `lsn` is safe; false when it is already.
    pub(crate) fn tell(
        &self,
        lsn: Lsn,
        sink: &Arc<dyn ReceiptSink>,
        runs: impl FnOnce() -> SmallVec<[Receipt; 1]>,
    ) -> bool {
        self.pending.add(lsn, || Waits::Receipts { sink: Arc::clone(sink), runs: runs() })
    }

    /// Has `sink` told a word when everything before `lsn` is safe, however long that takes; false when it is already.
    pub(crate) fn tell_word(&self, lsn: Lsn, sink: &Arc<dyn ReceiptSink>, word: &Receipt) -> bool {
        self.pending.add(lsn, || Waits::Words { sink: Arc::clone(sink), runs: smallvec![word.clone()] })
    }

    /// Has a queue look again when everything before `lsn` is safe, or is not going to be; false when it is already.
    pub(crate) fn release_when_safe(&self, lsn: Lsn, queue: &Arc<Queue>) -> bool {
        self.pending.add(lsn, || Waits::Queue(Arc::downgrade(queue)))
    }

    /// True when everything before `lsn` is safe.
    pub(crate) fn is_safe(&self, lsn: Lsn) -> bool {
        self.pending.is_safe(lsn)
    }

    /// Where what was said last ends, written or not: it is safe when all that was said before is.
    pub(crate) fn said(&self) -> Lsn {
        let waits = (!self.backlog.is_empty()).then(|| self.backlog.last()).flatten();
        waits.unwrap_or_else(|| self.written())
    }

    /// Where what was written last ends.
    pub(crate) fn written(&self) -> Lsn {
        self.pending.last_written()
    }

    /// True when everything before `lsn` is safe, or was told not to be.
    pub(crate) fn is_settled(&self, lsn: Lsn) -> bool {
        self.pending.is_settled(lsn)
    }

    /// Returns when everything before `lsn` is safe.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn safe(&self, lsn: Lsn) -> Result<(), Arc<str>> {
        let (told, hears) = tokio::sync::oneshot::channel();
        if !self.pending.add(lsn, || Waits::Task(told)) {
            return Ok(());
        }
        hears.await.unwrap_or_else(|_| Err("the log was closed".into()))
    }

    /// True when so much waits for the disk that publishers have to.
    #[inline]
    pub(crate) fn is_congested(&self) -> bool {
        self.pending.waiting() > HIGH && !self.is_failed()
    }

    /// Pending while that is so.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.pending.poll(cx, HIGH / 2)
    }

    /// Reads messages of a queue: see [`Log::read`].
    pub(crate) fn read(&self, number: u64, from: u64, count: usize, bytes: u64, window: &mut Window) {
        self.log.read(number, from, count, bytes, window);
    }

    /// Above every sequence of a queue that the log knows of.
    pub(crate) fn next_of(&self, number: u64) -> u64 {
        self.log.next(number)
    }

    /// What a queue has seen is of no use any more.
    pub(crate) fn forget_seen(&self, number: u64) {
        if self.log.next(number) > 0 {
            let mut commit = Commit::new();
            commit.drop_queue(number);
            self.write_behind(&mut commit);
        }
    }

    /// Messages of a queue that wait for their time, and were never given out: see [`Log::held_back`].
    pub(crate) fn held_back(&self, number: u64, now: Millis) -> Vec<(Range<u64>, Millis)> {
        self.log.held_back(number, now)
    }

    /// What is noted under a number.
    pub(crate) fn keys(&self, number: u64) -> Vec<Box<[u8]>> {
        self.log.keys(number)
    }

    /// The value under a key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn value(&self, number: u64, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        self.log.get(number, key)
    }

    /// The bodies that retained messages have.
    pub(crate) fn retained_bodies(&self) -> MutexGuard<'_, Bodies> {
        self.retained.lock()
    }

    /// The number of a new body, held by whoever asked.
    pub(crate) fn body(&self) -> u64 {
        self.log.body()
    }

    /// Holds a body that a message has; false when it is not there.
    pub(crate) fn hold_body(&self, number: u64) -> bool {
        self.log.hold_body(number)
    }

    /// Keeps in mind that a body cannot be read any more.
    pub(crate) fn lose_body(&self, number: u64) {
        if self.lost.1.lock().insert(number) {
            tracing::error!(
                body = number,
                "a body in the log is damaged: the messages that have it are lost"
            );
        }
        self.lost.0.store(true, Ordering::Release);
    }

    /// Whether that is so of a body.
    pub(crate) fn is_lost(&self, number: u64) -> bool {
        self.has_lost() && self.lost.1.lock().contains(&number)
    }

    /// Whether it is so of any.
    #[inline]
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.0.load(Ordering::Acquire)
    }

    /// Lets go of a body.
    pub(crate) fn release_body(&self, number: u64) {
        self.log.release_body(number);
    }

    /// The bytes of a body from `offset` on, up to the end of the part that they are in.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn read_body(&self, number: u64, offset: u64) -> Result<Vec<u8>, LogError> {
        self.log.read_body(number, offset)
    }

    /// The form of that number.
    pub(crate) fn form(&self, id: u8) -> Option<&'static dyn WireForm> {
        self.forms.iter().copied().find(|form| form.id() == id)
    }

    /// Writes what waits, and nothing any more.
    pub(crate) fn close(&self) {
        self.log.close();
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("usage", &self.log.usage()).finish_non_exhaustive()
    }
}

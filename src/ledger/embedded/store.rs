//! The file, and the one thread that writes it: what is asked for while it syncs is done in the next transaction.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use linkspan_contract::ledger::{Conditions, Entry, LedgerError, Version};
use linkspan_contract::{Clock, Fence};
use parking_lot::Mutex;
use redb::{Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, StorageError};
use rustix::fs::Access;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::Found;
use super::error::OpenError;
use super::holder::holder;
use super::tables::{ENTRIES, Tables, entry};

/// Pages that are kept in memory, in bytes. A ledger is small.
const CACHE: usize = 4 << 20;
/// Requests that one transaction holds at most.
const BATCH: usize = 512;
/// How often what has expired is deleted, and how much of it at a time.
const REAP_EVERY: Duration = Duration::from_secs(30);
const REAPED: usize = 1000;

/// Reads the file on tokio's threads for blocking work, and writes it on one of its own.
pub struct Store {
    database: Arc<Database>,
    /// None once it is being closed.
    requests: Option<Sender<Request>>,
    clock: Arc<dyn Clock>,
    writer: Option<JoinHandle<()>>,
    failed: Arc<Mutex<Option<LedgerError>>>,
}

impl Drop for Store {
    /// Waits for the transaction that is under way, so that the file is free for whoever opens it next.
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the ledger's writer died");
        }
    }
}

/// Does its part of a transaction, and says then what to tell who waits.
type Request = Box<dyn FnOnce(&mut Tables<'_>) -> Result<Answer, redb::Error> + Send>;
/// Told once the transaction is durable, or why it never will be.
type Answer = Box<dyn FnOnce(Result<(), LedgerError>) + Send>;

impl Store {
    pub(super) fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        if let Some(folder) = file.parent() {
            let not_made = |why| OpenError::Folder { folder: folder.to_owned(), why };
            std::fs::create_dir_all(folder).map_err(not_made)?;
        }
        let database = Database::builder().set_cache_size(CACHE).create(file);
        Self::over(database.map_err(|error| unfit(file, error))?, file, clock)
    }

    #[cfg(test)]
    pub(super) fn in_memory(clock: Arc<dyn Clock>) -> Self {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().create_with_backend(backend).expect("memory is free");
        Self::over(database, Path::new("memory"), clock).expect("memory does not fail")
    }

    fn over(database: Database, file: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let unreadable =
            |error: redb::Error| OpenError::Unreadable { file: file.to_owned(), why: error.to_string() };
        if let Err(format) = begin(&database, |tables| tables.is_ours()).map_err(unreadable)? {
            return Err(OpenError::Format { file: file.to_owned(), format });
        }
        let database = Arc::new(database);
        let failed = Arc::new(Mutex::new(None));
        let (requests, asked) = channel();
        let (writes, time, fails) = (Arc::clone(&database), Arc::clone(&clock), Arc::clone(&failed));
        let writer = thread::Builder::new()
            .name("ledger".into())
            .spawn(move || {
                if let Err(error) = write(&writes, &asked, &*time) {
                    *fails.lock() = Some(error);
                }
            })
            .map_err(OpenError::Thread)?;
        Ok(Self { database, requests: Some(requests), clock, writer: Some(writer), failed })
    }

    /// Why nothing more is written.
    pub(super) fn failed(&self) -> Option<LedgerError> {
        self.failed.lock().clone()
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Entry>, LedgerError> {
        let (database, key, now) = (Arc::clone(&self.database), key.to_owned(), self.clock.now());
        read(move || {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            Ok(entries.get(key.as_str())?.and_then(|row| entry(row.value(), now)))
        })
        .await
    }

    pub(super) async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, Entry)>, LedgerError> {
        let (database, now) = (Arc::clone(&self.database), self.clock.now());
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        read(move || {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            let from = after.as_deref().unwrap_or_default().max(prefix.as_str());
            let mut found = Vec::new();
            for row in entries.range(from..)? {
                let (key, row) = row?;
                let key = key.value();
                if !key.starts_with(&prefix) || found.len() == limit {
                    break;
                }
                if Some(key) != after.as_deref()
                    && let Some(entry) = entry(row.value(), now)
                {
                    found.push((key.into(), entry));
                }
            }
            Ok(found)
        })
        .await
    }

    pub(super) async fn put(
        &self,
        key: &str,
        value: &[u8],
        terms: Conditions<'_>,
    ) -> Result<Version, LedgerError> {
        let (key, value, owned, now) =
            (key.to_owned(), value.to_vec(), OwnedTerms::of(terms), self.clock.now());
        self.write(move |tables| tables.put(&key, &value, owned.terms(), now)).await?
    }

    pub(super) async fn delete(&self, key: &str, terms: Conditions<'_>) -> Result<bool, LedgerError> {
        let (key, owned, now) = (key.to_owned(), OwnedTerms::of(terms), self.clock.now());
        self.write(move |tables| tables.delete(&key, owned.terms(), now)).await?
    }

    pub(super) async fn next_fence(&self, name: &str) -> Result<Fence, LedgerError> {
        let name = name.to_owned();
        self.write(move |tables| tables.next_fence(&name)).await
    }

    /// Has it done in a transaction, and waits until that is durable.
    async fn write<T: Send + 'static>(
        &self,
        part: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (tell, told) = oneshot::channel();
        let request: Request = Box::new(move |tables| {
            let done = part(tables)?;
            let answer: Answer = Box::new(move |durable| {
                // who asked may have gone
                let _ = tell.send(durable.map(|()| done));
            });
            Ok(answer)
        });
        let gone = || LedgerError::Broken("it failed before; see the log".into());
        self.requests.as_ref().ok_or_else(gone)?.send(request).map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

struct OwnedTerms {
    terms: Conditions<'static>,
    guard: Option<(String, Fence)>,
}

impl OwnedTerms {
    fn of(terms: Conditions<'_>) -> Self {
        let guard = terms.guard.map(|(lease, fence)| (lease.to_owned(), fence));
        Self { terms: Conditions { expected: terms.expected, guard: None, lasts: terms.lasts }, guard }
    }

    fn terms(&self) -> Conditions<'_> {
        Conditions { guard: self.guard.as_ref().map(|(lease, fence)| (lease.as_str(), *fence)), ..self.terms }
    }
}

async fn read<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, redb::Error> + Send + 'static,
) -> Result<T, LedgerError> {
    match spawn_blocking(work).await {
        Ok(read) => read.map_err(|error| broken(&error)),
        Err(error) => Err(LedgerError::Broken(error.to_string())),
    }
}

/// The thread. A transaction that fails ends it: what the disk holds is not known then, and whoever asks is told so
/// until the file is opened again.
fn write(database: &Database, asked: &Receiver<Request>, clock: &dyn Clock) -> Result<(), LedgerError> {
    let mut reaped = Instant::now();
    loop {
        let mut batch = match asked.recv_timeout(REAP_EVERY) {
            Ok(request) => vec![request],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        batch.extend(asked.try_iter().take(BATCH.saturating_sub(1)));
        let reaps = reaped.elapsed() >= REAP_EVERY;
        if reaps {
            reaped = Instant::now();
        }
        let mut answers = Vec::with_capacity(batch.len());
        let done = begin(database, |tables| {
            if reaps {
                tables.reap(clock.now(), REAPED)?;
            }
            for request in batch {
                answers.push(request(tables)?);
            }
            Ok(())
        });
        let durable = done.map_err(|error| broken(&error));
        for answer in answers {
            answer(durable.clone());
        }
        if let Err(error) = durable {
            tracing::error!(%error, "nothing more is written to the ledger; start again when its disk is sound");
            return Err(error);
        }
    }
}

/// One transaction, synced.
fn begin<T>(
    database: &Database,
    work: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let transaction = database.begin_write()?;
    let done = work(&mut Tables::of(&transaction)?)?;
    transaction.commit()?;
    Ok(done)
}

fn broken(error: &redb::Error) -> LedgerError {
    LedgerError::Broken(error.to_string())
}

/// Why a file does not do.
fn unfit(file: &Path, error: DatabaseError) -> OpenError {
    let file = file.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
            let by = std::fs::metadata(&file).ok().and_then(|metadata| holder(&locks, &metadata));
            OpenError::InUse { file, by }
        }
        DatabaseError::Storage(StorageError::Io(why)) if why.kind() != std::io::ErrorKind::InvalidData => {
            OpenError::Denied { file, why }
        }
        error => OpenError::Unreadable { file, why: error.to_string() },
    }
}

/// Looks at a file without changing anything.
pub(super) fn probe(file: &Path) -> Result<Found, OpenError> {
    let denied = |why| OpenError::Denied { file: file.to_owned(), why };
    match std::fs::metadata(file) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            return folder_of(file).map(|()| Found::Nothing);
        }
        Err(why) => return Err(denied(why)),
        // one that was made and not begun, which is begun at the start
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => return Ok(Found::Free),
        Ok(_) => {}
    }
    match ReadOnlyDatabase::open(file) {
        Ok(_) | Err(DatabaseError::RepairAborted) => {}
        Err(error) => match unfit(file, error) {
            OpenError::InUse { by, .. } => return Ok(Found::InUse(by)),
            error => return Err(error),
        },
    }
    std::fs::OpenOptions::new().write(true).open(file).map_err(denied)?;
    Ok(Found::Free)
}

/// Whether a file can be made, and the folders above it that are not there.
fn folder_of(file: &Path) -> Result<(), OpenError> {
    let above = file.ancestors().skip(1).find(|folder| folder.exists());
    let folder = above.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let denied = |why| OpenError::Folder { folder: folder.to_owned(), why };
    if !folder.is_dir() {
        return Err(denied(std::io::ErrorKind::NotADirectory.into()));
    }
    let may = rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK);
    may.map_err(|why| denied(why.into()))
}

//! The one thread that writes the register: what is asked for while it syncs is done in the next transaction.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redb::{Database, ReadableDatabase};

use crate::archive::GROUPS;
use crate::register::RegisterError;
use crate::register::row::{Gone, Row};
use crate::register::store::Store;
use crate::register::tables::{self, Tables};

/// Requests that one transaction holds at most.
const BATCH: usize = 512;
/// How often what has to be written is tried again after a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// Is told once what it is about is durable, or why it is not.
pub(super) type Answer = Box<dyn FnOnce(Result<(), RegisterError>) + Send>;

/// What is asked of the thread.
pub(super) enum Request {
    /// To keep something. When that fails it is as if nobody had asked.
    Put { vhost: Arc<str>, row: Row, answer: Answer },
    /// To keep something no more. It is done when the disk takes it, whatever fails before.
    Gone { vhost: Arc<str>, gone: Vec<Gone> },
    /// To say when everything before is done.
    Settle { answer: Answer },
}

/// The file of now. A file that could not be written is not written any more: what it holds goes into another, which takes
/// its place when that is durable.
pub(super) struct Writer<S> {
    store: S,
    /// None after a failure.
    database: Option<Database>,
    /// What has to go out of the file since the failure: what is gone, and what was refused and may be in it all the
    /// same. Since nothing else is in it, its order does not matter.
    backlog: Vec<(Arc<str>, Gone)>,
    /// The number that the next queue gets.
    next: u64,
}

impl<S: Store> Writer<S> {
    /// A writer of what `found` holds, into a file of its own; without one, when that could not be written.
    pub(super) fn new(store: S, found: Option<&Database>, next: u64) -> Result<Self, RegisterError> {
        let mut writer = Self { store, database: None, backlog: Vec::new(), next };
        match writer.renewed(found) {
            Ok(database) => writer.database = Some(database),
            Err(error @ RegisterError::InUse { .. }) => return Err(error),
            Err(error) if found.is_none() => return Err(error),
            Err(error) => {
                tracing::error!(%error, "nothing durable can be declared until the disk takes it");
            }
        }
        Ok(writer)
    }

    /// Starts the thread; it ends when nobody can ask any more.
    pub(super) fn spawn(self, asked: Receiver<Request>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("register".into()).spawn(move || self.run(&asked))
    }

    fn run(mut self, asked: &Receiver<Request>) {
        loop {
            let first = if self.backlog.is_empty() {
                asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                asked.recv_timeout(AGAIN)
            };
            let mut batch: Vec<Request> = match first {
                Ok(request) => vec![request],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            batch.extend(asked.try_iter().take(BATCH.saturating_sub(1)));
            let done = self.write(&batch);
            for request in batch {
                if let Request::Put { answer, .. } | Request::Settle { answer } = request {
                    answer(done.clone());
                }
            }
        }
        if let Err(error) = self.write(&[]) {
            let count = self.backlog.len();
            tracing::error!(%error, count, "what was deleted last comes back at the next start");
        }
    }

    /// Writes what is asked for, in one transaction.
    fn write(&mut self, batch: &[Request]) -> Result<(), RegisterError> {
        if self.backlog.is_empty() && batch.iter().all(|request| matches!(request, Request::Settle { .. })) {
            return Ok(());
        }
        let done = self.revive().and_then(|()| self.commit(batch));
        if done.is_err() {
            for request in batch {
                if let Request::Gone { vhost, gone } = request {
                    self.backlog.extend(gone.iter().map(|gone| (Arc::clone(vhost), gone.clone())));
                }
            }
        }
        done
    }

    fn commit(&mut self, batch: &[Request]) -> Result<(), RegisterError> {
        let Some(database) = &self.database else { return Err(RegisterError::Closed) };
        let mut put = Vec::new();
        let mut next = self.next;
        let done = transaction(database, |tables| {
            for request in batch {
                match request {
                    Request::Put { vhost, row, .. } => {
                        if tables.put(vhost, row)? {
                            put.push((Arc::clone(vhost), row.gone()));
                        }
                        if let Row::Queue(queue) = row
                            && queue.number < GROUPS
                        {
                            next = next.max(queue.number.saturating_add(1));
                        }
                    }
                    Request::Gone { vhost, gone } => {
                        gone.iter().try_for_each(|gone| tables.remove(vhost, gone))?;
                    }
                    Request::Settle { .. } => {}
                }
            }
            tables.set_next(next)
        });
        // Also after a failure: the file may say so.
        self.next = next;
        done.map_err(|error| {
            let error = RegisterError::failed(self.store.file())(error);
            tracing::error!(%error, "nothing durable can be declared until the disk takes it");
            self.database = None;
            self.backlog.append(&mut put);
            error
        })
    }

    /// After a failure: goes on in another file.
    fn revive(&mut self) -> Result<(), RegisterError> {
        if self.database.is_some() {
            return Ok(());
        }
        let file = self.store.file().to_owned();
        let found = self.store.read()?.map(|bytes| tables::opened(bytes, &file)).transpose()?;
        self.database = Some(self.renewed(found.as_ref())?);
        self.backlog.clear();
        tracing::info!(file = %file.display(), "what is declared is written again");
        Ok(())
    }

    /// Another file with what `found` holds, without the backlog, in the place of the one of now.
    fn renewed(&mut self, found: Option<&Database>) -> Result<Database, RegisterError> {
        let next = self.store.next()?;
        let file = self.store.file();
        let failed = |error: redb::Error| RegisterError::failed(file)(error);
        let database = tables::builder().create_with_backend(next).map_err(|error| failed(error.into()))?;
        transaction(&database, |tables| {
            if let Some(found) = found {
                tables.copy(&found.begin_read()?)?;
            }
            for (vhost, gone) in &self.backlog {
                tables.remove(vhost, gone)?;
            }
            tables.begin()?;
            tables.set_next(self.next)
        })
        .map_err(failed)?;
        self.store.replace()?;
        Ok(database)
    }
}

impl<S> fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("next", &self.next).finish_non_exhaustive()
    }
}

/// One transaction, synced.
fn transaction(
    database: &Database,
    work: impl FnOnce(&mut Tables<'_>) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    work(&mut Tables::of(&transaction)?)?;
    transaction.commit()?;
    Ok(())
}

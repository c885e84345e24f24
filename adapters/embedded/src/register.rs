//! What is declared, in a file: durable exchanges, durable queues with their numbers, and bindings between them.
//!
//! Whatever comes is durable before anybody sees it; whatever goes, goes out of sight first. Everybody's changes lie in
//! the file in the order in which they were asked for, and many that are asked for at a time share a transaction.
//!
//! The file is written by one process at a time. At every start, and whenever it could not be written, what it holds is
//! copied into another, which takes its place when all of it is durable: what a failed write left behind is never built on.

mod coordinator;
mod error;
mod known;
mod records;
mod restore;
mod row;
mod store;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::coordinator::{Answer, Request, Writer};
use self::store::{Directory, Store};

pub use self::error::RegisterError;
pub(crate) use self::known::Known;
pub(crate) use self::records::{Keeping, Records, Turn};
pub(crate) use self::row::{BindingRow, EndRow, ExchangeRow, Gone, QueueRow, Row};

/// Writes what is declared, in a thread of its own.
pub(crate) struct Register {
    /// None once it is closed.
    requests: Mutex<Option<Sender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// The number that the next queue gets.
    next: AtomicU64,
}

impl Register {
    /// Opens the file in a directory that is the caller's own, or makes one; and tells what it holds.
    ///
    /// A file that can be read and not written is no reason not to start: then nothing durable can be declared until it
    /// can.
    ///
    /// # Errors
    /// When another process has the file, it is damaged or of another version, or the system refuses.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Known), RegisterError> {
        Self::over(Directory::new(directory))
    }

    /// Whether a directory has one.
    pub(crate) fn is_in(directory: &Path) -> bool {
        directory.join(store::FILE).exists()
    }

    fn over<S: Store>(mut store: S) -> Result<(Self, Known), RegisterError> {
        let file = store.file().to_owned();
        let found = store.read()?.map(|bytes| tables::opened(bytes, &file)).transpose()?;
        let (known, next) = match &found {
            Some(found) => tables::known(found).map_err(RegisterError::damaged(&file))?,
            None => (Known { whole: true, ..Known::default() }, 1),
        };
        let writer = Writer::new(store, found.as_ref(), next)?;
        let (requests, asked) = channel();
        let writer = writer.spawn(asked).map_err(RegisterError::io("start the writer of", &file))?;
        let register = Self {
            requests: Mutex::new(Some(requests)),
            writer: Mutex::new(Some(writer)),
            next: AtomicU64::new(next),
        };
        Ok((register, known))
    }

    /// A number that no queue had or will have.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Has something kept; `answer` is called by the writer, before it does anything else.
    fn put(&self, vhost: &Arc<str>, row: Row, answer: Answer) {
        self.ask(Request::Put { vhost: Arc::clone(vhost), row, answer });
    }

    /// Has something kept no more. Nobody waits for it.
    fn forget(&self, vhost: &Arc<str>, gone: Vec<Gone>) {
        self.ask(Request::Gone { vhost: Arc::clone(vhost), gone });
    }

    /// Waits until everything that was asked for before is durable.
    pub(crate) async fn settled(&self) -> Result<(), RegisterError> {
        let (tell, told) = oneshot::channel();
        // Who asked may have gone.
        self.ask(Request::Settle { answer: Box::new(|done| drop(tell.send(done))) });
        told.await.map_err(|_| RegisterError::Closed)?
    }

    fn ask(&self, request: Request) {
        let refused = match &*self.requests.lock() {
            Some(requests) => requests.send(request).err().map(|unsent| unsent.0),
            None => Some(request),
        };
        if let Some(Request::Put { answer, .. } | Request::Settle { answer }) = refused {
            answer(Err(RegisterError::Closed));
        }
    }

    /// Takes nothing more, and waits until what was asked for is done and the file is free.
    pub(crate) fn close(&self) {
        drop(self.requests.lock().take());
        let writer = self.writer.lock().take();
        // The last to let go of it may have been an answer.
        if let Some(writer) = writer
            && writer.thread().id() != thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the writer of what is declared died");
        }
    }
}

impl Drop for Register {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register").field("next", &self.next).finish_non_exhaustive()
    }
}

/// What people call a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueName {
    /// Its namespace.
    pub vhost: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
}

/// What each durable queue is called, by its number: for people who look into the directory of a back end, whether or not
/// it is running.
///
/// # Errors
/// When there is a file that cannot be read.
pub fn queue_names(directory: &Path) -> Result<BTreeMap<u64, QueueName>, RegisterError> {
    let known = store::look(directory, |database| Ok(tables::known(database)?.0))?;
    let mut names = BTreeMap::new();
    for (vhost, rows) in known.unwrap_or_default().vhosts {
        for row in rows {
            if let Row::Queue(queue) = row {
                names.insert(queue.number, QueueName { vhost: Arc::clone(&vhost), name: queue.name });
            }
        }
    }
    Ok(names)
}

//! A disk in memory that fails, waits and loses power when it is told to.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;

use super::super::RegisterError;
use super::super::store::{Store, places};

/// Bytes that a real disk writes in one piece, or not at all.
const SECTOR: usize = 512;

/// The disk, and the register's file on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    inner: Arc<Mutex<Inner>>,
    released: Arc<Condvar>,
}

type Shared = Arc<Mutex<Content>>;

#[derive(Debug, Default)]
struct Inner {
    /// The file that has the name, and the one that has it after a loss of power.
    named: Option<Shared>,
    safe_named: Option<Shared>,
    next: Option<Shared>,
    /// Calls that change something, so far; and syncs of files among them.
    calls: u64,
    syncs: u64,
    /// Which of them fails, and all behind it, too.
    fails: Option<(u64, ErrorKind)>,
    fails_on: bool,
    off_from: Option<u64>,
    held: bool,
    /// A sync waits.
    holds: bool,
}

#[derive(Debug, Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    safe: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
}

impl Disk {
    pub(super) fn calls(&self) -> u64 {
        self.inner.lock().calls
    }

    pub(super) fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    /// The call of this number fails, half done; and, when it goes on, all later ones.
    pub(super) fn fail_at(&self, call: u64, kind: ErrorKind, goes_on: bool) {
        let mut inner = self.inner.lock();
        inner.fails = Some((call, kind));
        inner.fails_on = goes_on;
    }

    /// All is well again.
    pub(super) fn mend(&self) {
        self.inner.lock().fails = None;
    }

    /// The machine goes off at the call of this number.
    pub(super) fn off_at(&self, call: u64) {
        self.inner.lock().off_from = Some(call);
    }

    /// Syncs wait from now on, or no more.
    pub(super) fn hold(&self, held: bool) {
        self.inner.lock().held = held;
        self.released.notify_all();
    }

    /// A sync waits now.
    pub(super) fn holds(&self) -> bool {
        self.inner.lock().holds
    }

    /// What is there after the machine went off: all that was synced, and of the rest what `choose` keeps.
    pub(super) fn after_power_loss(&self, mut choose: impl FnMut() -> bool) -> Self {
        let inner = self.inner.lock();
        let named = if choose() { &inner.named } else { &inner.safe_named };
        let named = named.as_ref().map(|content| {
            let content = content.lock();
            let len = if choose() { content.bytes.len() } else { content.safe.len() };
            let mut bytes = content.safe.clone();
            bytes.resize(content.bytes.len().max(len), 0);
            for sector in content.dirty.iter().filter(|sector| **sector * SECTOR < content.bytes.len()) {
                if choose() {
                    let end = (sector * SECTOR + SECTOR).min(content.bytes.len());
                    bytes[sector * SECTOR..end].copy_from_slice(&content.bytes[sector * SECTOR..end]);
                }
            }
            bytes.truncate(len);
            Arc::new(Mutex::new(Content { safe: bytes.clone(), bytes, dirty: BTreeSet::new() }))
        });
        let inner = Inner { safe_named: named.clone(), named, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), released: Arc::default() }
    }

    /// Counts a call; whether it is to fail.
    fn call(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.calls += 1;
        let call = inner.calls;
        if inner.off_from.is_some_and(|from| call >= from) {
            return Err(io::Error::other("the machine is off"));
        }
        match inner.fails {
            Some((at, kind)) if call == at || inner.fails_on && call > at => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn is_off(&self) -> bool {
        let inner = self.inner.lock();
        inner.off_from.is_some_and(|from| inner.calls >= from)
    }
}

impl Store for Disk {
    type File = DiskFile;

    fn file(&self) -> &Path {
        Path::new("disk/topology.redb")
    }

    fn read(&mut self) -> Result<Option<Vec<u8>>, RegisterError> {
        if self.is_off() {
            return Err(RegisterError::io("read", self.file())(ErrorKind::Other.into()));
        }
        Ok(self.inner.lock().named.as_ref().map(|content| content.lock().bytes.clone()))
    }

    fn next(&mut self) -> Result<DiskFile, RegisterError> {
        self.call().map_err(RegisterError::io("make", self.file()))?;
        let content = Shared::default();
        self.inner.lock().next = Some(Arc::clone(&content));
        Ok(DiskFile { disk: self.clone(), content })
    }

    fn replace(&mut self) -> Result<(), RegisterError> {
        self.call().map_err(RegisterError::io("replace", self.file()))?;
        {
            let mut inner = self.inner.lock();
            inner.named = inner.next.take();
        }
        self.call().map_err(RegisterError::io("sync the directory of", self.file()))?;
        let mut inner = self.inner.lock();
        inner.safe_named = inner.named.clone();
        Ok(())
    }
}

/// A file of the disk.
#[derive(Debug)]
pub(super) struct DiskFile {
    disk: Disk,
    content: Shared,
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.content.lock();
        let read = content.bytes.get(places(offset, out.len())?).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(read);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.call()?;
        self.content.lock().bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        {
            let mut inner = self.disk.inner.lock();
            while inner.held {
                inner.holds = true;
                self.disk.released.wait(&mut inner);
            }
            inner.holds = false;
            inner.syncs += 1;
        }
        self.disk.call()?;
        let mut content = self.content.lock();
        content.safe = content.bytes.clone();
        content.dirty.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let done = self.disk.call();
        if self.disk.is_off() {
            return done;
        }
        let data = if done.is_ok() { data } else { &data[..data.len() / 2] };
        let mut content = self.content.lock();
        let range = places(offset, data.len())?;
        content.bytes.get_mut(range.clone()).ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        if !data.is_empty() {
            content.dirty.extend(range.start / SECTOR..=(range.end - 1) / SECTOR);
        }
        done
    }
}

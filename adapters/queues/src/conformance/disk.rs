//! A disk in memory that fails and crashes when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::log::{Store, StoreFile};

/// Bytes that a real disk writes in one piece, or not at all.
const SECTOR: usize = 512;

/// What happens at a point of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Half of it is written, and it says so.
    ShortWrite,
    /// Half of it is written, then there is no room.
    HalfThenFull,
    /// There is no room.
    Full,
    /// The device fails.
    Broken,
}

/// The disk.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Names as the process sees them.
    names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Names that survive.
    safe_names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Calls that change something, so far.
    calls: u64,
    /// What happens at which of them.
    faults: BTreeMap<u64, Fault>,
    /// Every one of them fails from this one on.
    broken_from: Option<(u64, Fault)>,
    /// Every one from this one on does nothing and fails: the machine is off.
    off_from: Option<u64>,
    syncs: u64,
}

#[derive(Debug, Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    safe: Vec<u8>,
    /// Sectors that were written since the last sync that worked.
    dirty: std::collections::BTreeSet<usize>,
}

impl Disk {
    /// Changing calls so far.
    pub fn calls(&self) -> u64 {
        self.inner.lock().calls
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    /// The changing call of this number fails.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.inner.lock().faults.insert(call, fault);
    }

    /// Every changing call from now on fails, until it is none.
    pub fn fail_always(&self, fault: Option<Fault>) {
        let mut inner = self.inner.lock();
        inner.broken_from = fault.map(|fault| (inner.calls, fault));
    }

    /// The machine goes off before the changing call of this number.
    pub fn off_at(&self, call: u64) {
        self.inner.lock().off_from = Some(call);
    }

    /// What is on the disk after the machine went off now: everything that was synced, and of the rest what `choose`
    /// keeps, sector by sector.
    pub fn after_power_loss(&self, mut choose: impl FnMut() -> bool) -> Self {
        let inner = self.inner.lock();
        let mut names = BTreeMap::new();
        // A name that was not made safe may be there all the same.
        let mut all = inner.safe_names.clone();
        for (name, content) in &inner.names {
            if !all.contains_key(name) && choose() {
                all.insert(name.clone(), Arc::clone(content));
            }
        }
        for name in inner.safe_names.keys() {
            if !inner.names.contains_key(name) && choose() {
                all.remove(name);
            }
        }
        for (name, content) in all {
            let content = content.lock();
            let mut bytes = content.safe.clone();
            bytes.resize(content.bytes.len(), 0);
            for sector in &content.dirty {
                let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(content.bytes.len()));
                if from < to && choose() {
                    bytes[from..to].copy_from_slice(&content.bytes[from..to]);
                }
            }
            let kept = Content { safe: bytes.clone(), bytes, dirty: std::collections::BTreeSet::new() };
            names.insert(name, Arc::new(Mutex::new(kept)));
        }
        let inner = Inner { safe_names: names.clone(), names, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// What is on the disk after the process ended now: everything that was written.
    pub fn after_kill(&self) -> Self {
        self.after_power_loss(|| true)
    }

    /// Changes bytes of a file, as a failing disk does.
    pub fn flip(&self, name: &str, offset: u64) {
        let inner = self.inner.lock();
        let mut content = inner.names[name].lock();
        let at = usize::try_from(offset).unwrap();
        content.bytes[at] ^= 0x40;
        content.safe = content.bytes.clone();
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.inner.lock().names[name].lock().bytes.clone()
    }

    /// Puts a file there, safe.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let content = Content { bytes: bytes.into(), safe: bytes.into(), ..Content::default() };
        let content = Arc::new(Mutex::new(content));
        let mut inner = self.inner.lock();
        inner.names.insert(name.into(), Arc::clone(&content));
        inner.safe_names.insert(name.into(), content);
    }
}

impl Inner {
    /// Counts a changing call; what is to happen at it.
    fn call(&mut self) -> io::Result<Option<Fault>> {
        let call = self.calls;
        self.calls += 1;
        if self.off_from.is_some_and(|off| call >= off) {
            return Err(io::Error::other("the machine is off"));
        }
        let always = self.broken_from.filter(|(from, _)| call >= *from).map(|(_, fault)| fault);
        Ok(self.faults.get(&call).copied().or(always))
    }

    fn simple_call(&mut self) -> io::Result<()> {
        match self.call()? {
            None | Some(Fault::ShortWrite) => Ok(()),
            Some(fault) => Err(error(fault)),
        }
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Full | Fault::HalfThenFull => io::Error::from(io::ErrorKind::StorageFull),
        Fault::ShortWrite | Fault::Broken => io::Error::other("input/output error"),
    }
}

impl Store for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn StoreFile>> {
        let mut inner = self.inner.lock();
        inner.simple_call()?;
        let bytes = vec![0; usize::try_from(size).unwrap()];
        let content = Arc::new(Mutex::new(Content { bytes, ..Content::default() }));
        inner.names.insert(name.into(), Arc::clone(&content));
        Ok(Arc::new(DiskFile { content, disk: self.clone() }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let inner = self.inner.lock();
        let content = inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(DiskFile { content: Arc::clone(content), disk: self.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.simple_call()?;
        let content = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.into(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.simple_call()?;
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.simple_call()?;
        inner.safe_names = inner.names.clone();
        Ok(())
    }
}

struct DiskFile {
    content: Arc<Mutex<Content>>,
    disk: Disk,
}

impl StoreFile for DiskFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let at = usize::try_from(offset).unwrap().min(content.bytes.len());
        let read = bytes.len().min(content.bytes.len() - at);
        bytes[..read].copy_from_slice(&content.bytes[at..at + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let fault = self.disk.inner.lock().call()?;
        let many = match fault {
            None => bytes.len(),
            Some(Fault::ShortWrite | Fault::HalfThenFull) => bytes.len().div_ceil(2),
            Some(Fault::Full | Fault::Broken) => 0,
        };
        let mut content = self.content.lock();
        let at = usize::try_from(offset).unwrap();
        if content.bytes.len() < at + many {
            content.bytes.resize(at + many, 0);
        }
        content.bytes[at..at + many].copy_from_slice(&bytes[..many]);
        if many > 0 {
            content.dirty.extend(at / SECTOR..(at + many).div_ceil(SECTOR));
        }
        match fault {
            None | Some(Fault::ShortWrite) => Ok(many),
            Some(fault) => Err(error(fault)),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        let fault = inner.call()?;
        let mut content = self.content.lock();
        if let Some(fault) = fault.filter(|fault| *fault != Fault::ShortWrite) {
            // The system forgets what it could not write: nobody will try again.
            return Err(error(fault));
        }
        inner.syncs += 1;
        content.safe = content.bytes.clone();
        content.dirty.clear();
        Ok(())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.disk.inner.lock().simple_call()?;
        self.content.lock().bytes.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().bytes.len() as u64)
    }
}

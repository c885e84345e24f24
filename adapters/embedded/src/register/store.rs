//! The file under the register: the only place that touches the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::register::{RegisterError, tables};

pub(super) const FILE: &str = "topology.redb";
/// A file that is to take its place.
const NEXT: &str = "topology.redb.next";

/// How often a file that somebody writes is read until it can be understood, and how long apart.
const LOOKS: u32 = 10;
const APART: Duration = Duration::from_millis(50);

/// A file, and another that can take its place in one step.
pub(super) trait Store: Send + 'static {
    /// The other file.
    type File: StorageBackend;

    /// What to call it.
    fn file(&self) -> &Path;

    /// What is in the file; none when there is none. It is this process's alone until it is replaced.
    fn read(&mut self) -> Result<Option<Vec<u8>>, RegisterError>;

    /// Another file, with nothing in it.
    fn next(&mut self) -> Result<Self::File, RegisterError>;

    /// Puts the other file into the place of this one, for good.
    fn replace(&mut self) -> Result<(), RegisterError>;
}

/// Files in a directory of the file system.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    file: PathBuf,
    next: PathBuf,
    /// The file while nobody else has its lock for us.
    held: Option<File>,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: path.join(FILE), next: path.join(NEXT), held: None }
    }
}

fn lock(file: &File, path: &Path) -> Result<(), RegisterError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(RegisterError::InUse { file: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(RegisterError::io("lock", path)(error)),
    }
}

impl Store for Directory {
    type File = FileBackend;

    fn file(&self) -> &Path {
        &self.file
    }

    fn read(&mut self) -> Result<Option<Vec<u8>>, RegisterError> {
        let path = &self.file;
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RegisterError::io("open", path)(error)),
        };
        lock(&file, path)?;
        // Whoever had the lock may have put another file there.
        let is_same = || Ok(file.metadata()?.ino() == fs::metadata(path)?.ino());
        if !is_same().map_err(RegisterError::io("look at", path))? {
            return Err(RegisterError::InUse { file: path.clone() });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(RegisterError::io("read", path))?;
        self.held = Some(file);
        Ok(Some(bytes))
    }

    fn next(&mut self) -> Result<FileBackend, RegisterError> {
        let path = &self.next;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(RegisterError::io("make", path))?;
        lock(&file, path)?;
        file.set_len(0).map_err(RegisterError::io("empty", path))?;
        FileBackend::new(file).map_err(RegisterError::failed(path))
    }

    fn replace(&mut self) -> Result<(), RegisterError> {
        fs::rename(&self.next, &self.file).map_err(RegisterError::io("replace", &self.file))?;
        let sync = || File::open(&self.path)?.sync_all();
        sync().map_err(RegisterError::io("sync the directory of", &self.file))?;
        self.held = None;
        Ok(())
    }
}

/// Reads a file that may be another process's, which may write it meanwhile: what is caught half-written is told by its
/// checksums, and read again.
#[expect(clippy::disallowed_methods, reason = "a command looks, and nothing else runs in it")]
pub(super) fn look<R>(
    directory: &Path,
    what: impl Fn(&redb::Database) -> Result<R, redb::Error>,
) -> Result<Option<R>, RegisterError> {
    let file = directory.join(FILE);
    let mut looks = 0;
    loop {
        let bytes = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(RegisterError::io("read", &file))?,
        };
        let seen = tables::opened(bytes, &file)
            .and_then(|database| what(&database).map_err(RegisterError::damaged(&file)));
        looks += 1;
        match seen {
            Err(RegisterError::Damaged { .. }) if looks < LOOKS => thread::sleep(APART),
            seen => return seen.map(Some),
        }
    }
}

/// What a file holds, in memory: what redb does to it does nothing to the file.
#[derive(Debug)]
pub(super) struct Image {
    bytes: Mutex<Vec<u8>>,
}

impl Image {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes: Mutex::new(bytes) }
    }
}

/// The places of `len` bytes at `offset`.
pub(super) fn places(offset: u64, len: usize) -> io::Result<Range<usize>> {
    let range = usize::try_from(offset).ok().and_then(|from| Some(from..from.checked_add(len)?));
    range.ok_or_else(|| ErrorKind::InvalidInput.into())
}

impl StorageBackend for Image {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock();
        let read = bytes.get(places(offset, out.len())?).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(read);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().resize(places(len, 0)?.start, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock();
        let written = bytes.get_mut(places(offset, data.len())?).ok_or(ErrorKind::UnexpectedEof)?;
        written.copy_from_slice(data);
        Ok(())
    }
}

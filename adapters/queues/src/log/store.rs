//! The files under a log: the only place that touches the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::Errno;

use crate::log::LogError;
use crate::log::segment::Name;

const LOCK: &str = "lock";

/// A directory of files. What is created, renamed or removed is there for good after [`Store::sync`].
pub trait Store: Send + Sync + 'static {
    /// The names of all files.
    ///
    /// # Errors
    /// When the system refuses; as all below.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A new file with room for `size` bytes.
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn StoreFile>>;

    /// A file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>>;

    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names safe.
    fn sync(&self) -> io::Result<()>;

    /// Nothing is read or written any more: somebody else may have it.
    fn release(&self) {}
}

/// A file. What is written is there for good after [`StoreFile::sync`].
pub trait StoreFile: Send + Sync + 'static {
    /// Reads at `offset`; fewer bytes than asked for, as the system likes, 0 at the end.
    ///
    /// # Errors
    /// When the system refuses; as all below.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`; fewer bytes than given, as the system likes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes what is written safe. After an error nobody knows what of it is.
    fn sync(&self) -> io::Result<()>;

    /// Gives back the room behind the first `length` bytes, in which nothing counts.
    fn cut(&self, length: u64) -> io::Result<()>;

    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;

    /// True when there are none.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A directory of the file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held open as long as the directory is ours; none when it is only looked at.
    lock: Option<File>,
}

impl Directory {
    /// A directory of one's own, made when it is not there. The lock goes with the process, however that ends.
    ///
    /// # Errors
    /// When another process has it, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let io = |doing, source| LogError::io(doing, path.display().to_string(), source);
        make(path).map_err(|error| io("cannot make", error))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock = options.open(path.join(LOCK)).map_err(|error| io("cannot open the lock in", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Who has it may not have written its name yet.
                let _ = lock.read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() { "unknown".into() } else { pid.trim().to_owned() };
                return Err(LogError::InUse { dir: path.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(io("cannot lock", error)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|error| io("cannot write the lock in", error))?;
        Ok(Self { path: path.to_owned(), lock: Some(lock) })
    }

    /// A directory to look at, whoever has it. Nothing is to be written through it.
    pub fn look(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: None }
    }

    /// The process that has the directory now, by what it wrote into the lock; none when no process of this machine is
    /// known to the system to have it. Unlike trying the lock, asking is in nobody's way.
    pub fn holder(path: &Path) -> Option<String> {
        let lock = path.join(LOCK);
        let inode = fs::metadata(&lock).ok()?.ino().to_string();
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let is_it = |word: &str| word.rsplit_once(':').is_some_and(|(_, number)| number == inode);
        let held = locks.lines().any(|line| line.contains(" FLOCK ") && line.split_whitespace().any(is_it));
        let pid = fs::read_to_string(lock).unwrap_or_default();
        held.then(|| pid.trim().to_owned())
    }

    /// Whether a directory has, or had, a log in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_log(path: &Path) -> io::Result<bool> {
        let names = Self::look(path).list()?;
        Ok(names.iter().any(|name| name == LOCK || Name::parse(name).is_some()))
    }
}

/// Makes a directory and what leads to it, for good.
fn make(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists()).collect();
    for part in missing.iter().rev() {
        match fs::create_dir(part) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let parent = part.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

impl Store for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn StoreFile>> {
        let mut options = OpenOptions::new();
        let path = self.path.join(name);
        let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, size) {
            // Where room cannot be set aside, it is found out when it is needed.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => {
                drop(file);
                // It is of no use, and its name would be in the way.
                let _ = fs::remove_file(&path);
                return Err(error.into());
            }
        }
        Ok(Arc::new(DirectoryFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(self.lock.is_some()).open(path)?;
        // What is read is read in order; a system that knows no advice does without.
        let _ = fadvise(&file, 0, None, Advice::Sequential);
        Ok(Arc::new(DirectoryFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn release(&self) {
        // The lock goes with the process at the latest.
        let _ = self.lock.as_ref().map(File::unlock);
    }
}

struct DirectoryFile(File);

impl StoreFile for DirectoryFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        if self.len()? > length { self.0.set_len(length) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Syncs, and says how long that took.
pub(crate) fn sync_timed(file: &dyn StoreFile) -> (io::Result<()>, Duration) {
    let begin = Instant::now();
    (file.sync(), begin.elapsed())
}

/// Reads until `bytes` is full or the file ends; how many there were.
pub(crate) fn read_full(file: &dyn StoreFile, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `bytes`.
pub(crate) fn write_full(file: &dyn StoreFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

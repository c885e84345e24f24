//! A log seen from outside while its files are written again as others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use linkspan_queues::log::{Commit, Log, Store, StoreFile, SyncMode, Turn, survey, verify};

use crate::crash::options;
use linkspan_queues::conformance::disk::Disk;

/// A disk one file of which is recycled when it was read so often: it gets another name, and then other bytes, as a log
/// does it.
struct Restless {
    disk: Disk,
    name: String,
    left: Arc<AtomicIsize>,
}

struct Reading {
    file: Arc<dyn StoreFile>,
    /// Its disk, its name, and how often it may be read before it is another's; none for other files.
    recycled: Option<(Disk, String, Arc<AtomicIsize>)>,
}

impl Store for Restless {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn StoreFile>> {
        self.disk.create(name, size)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let recycled =
            (name == self.name).then(|| (self.disk.clone(), self.name.clone(), Arc::clone(&self.left)));
        Ok(Arc::new(Reading { file: self.disk.open(name)?, recycled }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

impl StoreFile for Reading {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some((disk, name, left)) = &self.recycled
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            disk.rename(name, "0000000000000001-0000000000000000.free")?;
            self.file.write_at(&vec![0xa5; usize::try_from(self.file.len()?).unwrap()], 0)?;
        }
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.file.cut(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

fn of_several_files() -> Disk {
    let disk = Disk::default();
    let (log, mut writer, _) =
        Log::without_thread(Arc::new(disk.clone()), options(SyncMode::Group), Arc::new(())).unwrap();
    let mut commit = Commit::new();
    for sequence in 0..40 {
        commit.message(1, sequence, &[1; 100]).unwrap();
        log.commit(&mut commit).unwrap();
        while writer.turn() == Turn::Worked {}
    }
    disk.after_kill()
}

#[test]
fn a_file_that_is_recycled_while_it_is_read_is_gone_and_not_damaged() {
    let files = survey(&of_several_files(), &mut |_, _| {}).unwrap().segments.len();
    assert!(files > 2, "{files}");
    for at in 0..files {
        let mut reads = 0;
        loop {
            reads += 1;
            let disk = of_several_files();
            let name = survey(&disk, &mut |_, _| {}).unwrap().segments[at].file.clone();
            let left = Arc::new(AtomicIsize::new(reads));
            let restless = Restless { disk, name, left: Arc::clone(&left) };
            let found = survey(&restless, &mut |_, _| {}).unwrap();
            let when = format!("file {at} of {files}, at read {reads}");
            assert_eq!((&found.damage[..], &found.torn), (&[][..], &None), "{when}");
            if left.load(Ordering::Relaxed) > 0 {
                assert_eq!(found.queues[0].messages, 40, "it was read to its end: {when}");
                break;
            }
            restless.left.store(reads, Ordering::Relaxed);
            assert_eq!(verify(&restless).unwrap().damage, [], "{when}");
        }
        assert!(reads > 2, "a file is read in several steps");
    }
}

//! The log in a directory of the file system, with its own thread.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use linkspan_queues::log::{
    Commit, Directory, Log, LogError, Lsn, Mark, Options, SyncMode, VERSION, Watch, Window, inspect, verify,
};

use crate::plain::seen;

fn small() -> Options {
    Options { segment_size: 4096, slack: 8192, ..Options::default() }
}

fn open(path: &Path) -> Log {
    let (log, recovery) = Log::open(path, small(), Arc::new(())).unwrap();
    assert_eq!(recovery.damage, []);
    log
}

#[test]
fn who_comes_second_is_told_who_was_first() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let Err(error) = Log::open(dir.path(), small(), Arc::new(())) else { panic!("two have one directory") };
    let LogError::InUse { dir: which, pid } = &error else { panic!("{error}") };
    assert_eq!((which.as_path(), pid), (dir.path(), &std::process::id().to_string()));
    drop(log);
    open(dir.path());
}

#[test]
fn many_commit_at_once_and_everything_is_there_the_next_time() {
    for sync in [SyncMode::Group, SyncMode::Always, SyncMode::Never] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { sync, ..small() };
        let (log, _) = Log::open(dir.path(), options, Arc::new(())).unwrap();
        thread::scope(|scope| {
            for queue in 0..4_u64 {
                let log = &log;
                scope.spawn(move || {
                    let (mut commit, mut window) = (Commit::new(), Window::new());
                    for sequence in 0..200_u64 {
                        commit.message(queue, sequence, &[queue as u8; 64]).unwrap();
                        if sequence % 2 == 1 {
                            commit.gone(queue, sequence - 1..sequence);
                        }
                        let lsn = log.commit(&mut commit).unwrap();
                        if sequence % 50 == 0 {
                            log.wait(lsn).unwrap();
                            assert!(log.synced() >= lsn);
                        }
                        log.read(queue, 0, 500, 1 << 20, &mut window);
                        assert_eq!(window.messages().len() as u64, sequence / 2 + 1);
                        assert!(window.messages().all(|read| read.payload == [queue as u8; 64]));
                    }
                });
            }
        });
        let before = seen(&log);
        assert_eq!(before.0.len(), 400);
        drop(log);
        assert_eq!(seen(&open(dir.path())), before, "{sync:?}");
    }
}

#[test]
fn a_running_log_can_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut commit = Commit::new();
    let mut last = 0;
    for sequence in 0..300 {
        commit.message(1, sequence, &[0; 50]).unwrap();
        last = log.commit(&mut commit).unwrap();
    }
    log.wait(last).unwrap();
    let mut count = 0;
    let look = Directory::look(dir.path());
    let found = inspect(&look, &mut |entry| count += u64::from(entry.queue == 1)).unwrap();
    assert_eq!((count, found.damage.len()), (300, 0));
    assert_eq!(found.segments.len() as u64, log.usage().segments);
    assert!(verify(&look).unwrap().segments.iter().rev().skip(1).all(|segment| segment.ended));
}

#[test]
fn what_is_too_large_is_refused() {
    let mut commit = Commit::new();
    let large = vec![0; linkspan_queues::log::MAX_PAYLOAD + 1];
    assert!(matches!(commit.message(1, 1, &large), Err(LogError::TooLarge { .. })));
    assert!(commit.is_empty());
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/log/fixture/v{VERSION}"))
}

/// What the fixture holds: a record of each kind.
fn fill(log: &Log) {
    let mut commit = Commit::new();
    let mut last = 0;
    for sequence in 0..40 {
        commit.message(1, sequence, format!("message {sequence}").as_bytes()).unwrap();
        last = log.commit(&mut commit).unwrap();
        log.wait(last).unwrap();
    }
    commit.gone(1, 3..10);
    commit.gone(1, 12..14);
    commit.given(1, 20..25);
    commit.mark(1, 30..32, Mark { attempts: Some(2), given: 0, not_before: 1_700_000_000_000 });
    commit.put(5, b"retained/topic", b"value").unwrap();
    commit.put(5, b"deleted", b"value").unwrap();
    commit.delete(5, b"deleted").unwrap();
    let body = log.body();
    commit.chunk(body, 0, b"the first part, ").unwrap();
    commit.chunk(body, 16, b"the second part").unwrap();
    commit.stored(2, 7, (body, 31), b"head").unwrap();
    last = log.commit(&mut commit).unwrap().max(last);
    log.wait(last).unwrap();
    log.release_body(body);
}

#[test]
fn files_of_todays_format_always_open() {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let from_fixture = open(dir.path());
    let other = tempfile::tempdir().unwrap();
    let today = open(other.path());
    fill(&today);
    assert_eq!(seen(&from_fixture), seen(&today));
    let messages = seen(&today).0;
    assert_eq!(messages.len(), 32);
    assert_eq!(messages[&(2, 7)].body.as_deref(), Some(&b"the first part, the second part"[..]));
    assert_eq!(messages[&(1, 24)].mark.given, 1);
}

#[test]
#[ignore = "writes the fixture: once for each version of the format"]
fn write_the_fixture() {
    let path = fixture();
    assert!(!path.exists(), "a fixture is written once and kept: {}", path.display());
    let (log, _) = Log::open(&path, small(), Arc::new(())).unwrap();
    fill(&log);
    drop(log);
    fs::remove_file(path.join("lock")).unwrap();
}

/// Lets go of the log when it is told that something is safe.
struct Last {
    log: Mutex<Option<Arc<Log>>>,
    alone: Mutex<mpsc::Receiver<()>>,
    gone: mpsc::Sender<()>,
}

impl Watch for Last {
    fn synced(&self, _to: Lsn) {
        let log = self.log.lock().unwrap().take();
        if log.is_some() {
            self.alone.lock().unwrap().recv().unwrap();
            drop(log);
            self.gone.send(()).unwrap();
        }
    }

    fn failed(&self, _from: Lsn, _to: Lsn, _why: &str) {}
    fn resumed(&self) {}
    fn trouble(&self, _what: &LogError) {}
}

#[test]
fn a_log_whose_last_owner_lets_go_of_it_in_its_own_writers_thread_ends_and_frees_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (now_alone, alone) = mpsc::channel();
    let (gone, is_gone) = mpsc::channel();
    let last = Arc::new(Last { log: Mutex::default(), alone: Mutex::new(alone), gone });
    let (log, _) = Log::open(directory.path(), Options::default(), Arc::clone(&last) as _).unwrap();
    let log = Arc::new(log);
    *last.log.lock().unwrap() = Some(Arc::clone(&log));
    let mut commit = Commit::new();
    commit.message(1, 0, b"safe").unwrap();
    log.commit(&mut commit).unwrap();
    drop(log);
    now_alone.send(()).unwrap();
    is_gone.recv_timeout(Duration::from_secs(20)).expect("it does not wait for itself");
    let begin = Instant::now();
    let again = loop {
        match Log::open(directory.path(), Options::default(), Arc::new(())) {
            Ok((log, _)) => break log,
            Err(why) => assert!(begin.elapsed() < Duration::from_secs(20), "{why}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(again.queues().len(), 1);
}

#[test]
fn what_makes_room_of_a_commit_can_be_written_before_the_rest() {
    let mut commit = Commit::new();
    commit.message(1, 5, b"adds").unwrap();
    commit.gone(1, 0..2);
    commit.put(1, b"key", b"adds").unwrap();
    commit.gone(1, 3..4);
    commit.delete(1, b"other").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(directory.path(), Options::default(), Arc::new(())).unwrap();
    let mut before = Commit::new();
    (0..5).for_each(|at| before.message(1, at, b"there").unwrap());
    log.commit(&mut before).unwrap();
    log.commit(&mut commit.frees()).unwrap();
    assert_eq!(log.queues().first().map(|queue| queue.len), Some(2), "2 and 4 are there");
    assert!(log.keys(1).is_empty());
    log.commit(&mut commit).unwrap();
    assert_eq!(log.queues().first().map(|queue| queue.len), Some(3), "and 5, behind them");
}

//! A file system that is full for real.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use linkspan_queues::log::{Commit, Log, LogError, Options};

use crate::heard::Heard;
use crate::plain::seen;

/// Names the small file system to the test that runs in it.
const WHERE: &str = "LINKSPAN_SMALL_FILE_SYSTEM";
/// How the shell says that it could not make one.
const NO_MOUNT: i32 = 77;

#[test]
fn a_file_system_that_is_full_costs_nothing_acknowledged_and_service_resumes_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=24m linkspan-test \"$1\" || exit {NO_MOUNT}\n\
         exec \"$2\" --exact full::within_a_small_file_system --ignored --nocapture"
    );
    let mut refusals = String::new();
    // As root; then as somebody who may be root in a namespace of his own.
    for how in [&["--mount"][..], &["--map-root-user", "--mount"]] {
        let mut command = Command::new("unshare");
        command.args(how).args(["sh", "-c", &script, "sh"]).arg(dir.path());
        command.arg(std::env::current_exe().unwrap()).env(WHERE, dir.path());
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => panic!("this test needs `unshare` of util-linux: {error}"),
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("running 1 test") {
            assert!(said.contains("1 passed") && output.status.success(), "{said}\n{complained}");
            return;
        }
        refusals.push_str(&complained);
    }
    panic!(
        "this test mounts a file system of 24 MiB, which the machine does not permit: run it as root, or where users \
         may have namespaces of their own. What was said: {refusals}"
    );
}

/// A client that publishes to a queue of its own and notes what was acknowledged.
struct Publisher {
    queue: u64,
    next: u64,
    acked: BTreeSet<u64>,
}

impl Publisher {
    /// Publishes until the log takes nothing more.
    fn until_refused(&mut self, log: &Log) -> LogError {
        let mut commit = Commit::new();
        loop {
            let first = self.next;
            for _ in 0..10 {
                commit.message(self.queue, self.next, &payload(self.queue, self.next)).unwrap();
                self.next += 1;
            }
            match log.commit(&mut commit).and_then(|lsn| log.wait(lsn)) {
                Ok(()) => self.acked.extend(first..self.next),
                Err(error) => return error,
            }
        }
    }
}

fn payload(queue: u64, sequence: u64) -> Vec<u8> {
    format!("message {sequence} of queue {queue}, ").repeat(40).into_bytes()
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "after 20 s it is not so that {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn fill_up(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[0; 64 << 10]).is_ok() {}
}

#[test]
#[ignore = "run by the test above, in the file system that it makes"]
fn within_a_small_file_system() {
    let dir = PathBuf::from(std::env::var(WHERE).expect("a small file system"));
    let options = Options { segment_size: 1 << 20, slack: 2 << 20, ..Options::default() };
    let heard = Arc::new(Heard::default());
    let path = dir.join("log");
    let (log, _) = Log::open(&path, options.clone(), Arc::clone(&heard) as _).unwrap();
    let mut publishers: Vec<Publisher> =
        (0..3).map(|queue| Publisher { queue, next: 0, acked: BTreeSet::new() }).collect();

    // The log itself fills the disk.
    let publish = |publishers: &mut Vec<Publisher>| {
        thread::scope(|scope| {
            for publisher in publishers {
                scope.spawn(|| {
                    let error = publisher.until_refused(&log);
                    assert!(matches!(error, LogError::Failed { .. }), "{error}");
                    assert!(error.to_string().contains("No space left on device"), "{error}");
                });
            }
        });
    };
    publish(&mut publishers);
    let acked: usize = publishers.iter().map(|publisher| publisher.acked.len()).sum();
    assert!(acked > 8000, "24 MiB hold more than {acked} messages");
    assert!(log.failed().is_some() && heard.resumed() == 0);
    let found = seen(&log).0;
    let is_there =
        |(queue, sequence): (u64, u64)| found[&(queue, sequence)].payload == payload(queue, sequence);
    for publisher in &publishers {
        assert!(publisher.acked.iter().all(|sequence| is_there((publisher.queue, *sequence))));
    }

    // Consumers go on, and make the room that publishers need.
    let mut commit = Commit::new();
    for publisher in &mut publishers {
        let half = publisher.next / 2;
        commit.gone(publisher.queue, 0..half);
        publisher.acked = publisher.acked.split_off(&half);
    }
    let settled = log.commit(&mut commit).expect("settling is taken by a full log");
    eventually("what consumers settled is safe", || log.synced() >= settled);
    eventually("publishers may go on", || log.failed().is_none() && heard.resumed() == 1);

    // Somebody else fills the disk, and cleans up.
    let other = dir.join("other");
    fill_up(&other);
    publish(&mut publishers);
    assert!(log.failed().is_some());
    fs::remove_file(&other).unwrap();
    eventually("publishers may go on", || log.failed().is_none() && heard.resumed() == 2);
    commit.message(9, 0, b"the last").unwrap();
    log.wait(log.commit(&mut commit).unwrap()).unwrap();
    assert!(log.figures().failures >= 2);

    let before = seen(&log);
    drop(log);
    let (log, recovery) = Log::open(&path, options, Arc::new(())).unwrap();
    assert_eq!((recovery.damage, recovery.cut), (vec![], None));
    let after = seen(&log);
    assert!(before == after, "what was there is there, once, and nothing that was settled");
    for publisher in &publishers {
        let there: BTreeSet<u64> =
            after.0.keys().filter(|(queue, _)| *queue == publisher.queue).map(|(_, at)| *at).collect();
        assert!(publisher.acked.is_subset(&there), "nothing acknowledged is missing");
    }
    assert_eq!(after.0[&(9, 0)].payload, b"the last");
}

//! Commits over several queues that the log refuses, on a disk that fails.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use linkspan_contract::conformance::Fixture;
use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::conformance::stage::{Peer, Stage, queue_spec};
use linkspan_contract::neutral::NEUTRAL;
use linkspan_contract::{Backend, SystemClock};
use linkspan_queues::conformance::disk::{Disk, Fault};
use linkspan_queues::log::{Log, LogError, Options, Turn, Watch, Writer};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::archive::Archive;
use crate::embedded::Embedded;
use crate::options::EmbeddedOptions;
use crate::pending::Pending;

/// Hears from the log, and of a failure as late as a busy machine may have it.
#[derive(Default)]
struct Late {
    pending: Arc<Pending>,
    is_late: AtomicBool,
    failures: Mutex<Vec<(Lsn, Lsn, String)>>,
}

impl Late {
    fn hear(&self) {
        self.is_late.store(false, Ordering::SeqCst);
        self.failures.lock().drain(..).for_each(|(from, to, why)| self.pending.failed(from, to, &why));
    }
}

impl Watch for Late {
    fn synced(&self, to: Lsn) {
        self.pending.synced(to);
    }

    fn failed(&self, from: Lsn, to: Lsn, why: &str) {
        match self.is_late.load(Ordering::SeqCst) {
            true => self.failures.lock().push((from, to, why.to_owned())),
            false => self.pending.failed(from, to, why),
        }
    }

    fn resumed(&self) {
        self.pending.resumed();
    }

    fn trouble(&self, what: &LogError) {
        self.pending.trouble(what);
    }
}

/// A machine whose disk fails when it is told to; each back end on it begins with what was written before.
struct Machine {
    directory: TempDir,
    disk: Mutex<Disk>,
    writer: Mutex<Option<Writer>>,
    watch: Mutex<Arc<Late>>,
    /// Queues of which the log has messages, and that nobody knew, at the last start.
    strange: Mutex<usize>,
}

impl Machine {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            disk: Mutex::default(),
            writer: Mutex::default(),
            watch: Mutex::default(),
            strange: Mutex::default(),
        }
    }

    /// Writes what there is; whether the disk took it.
    fn write(&self) -> bool {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().unwrap();
        loop {
            match writer.turn() {
                Turn::Worked => {}
                turn => return turn == Turn::Idle,
            }
        }
    }

    /// The disk fails, of which nobody but the log knows, until [`hear`](Late::hear).
    fn fail(&self, client: &mut Peer<'_>) {
        let before = client.to_queue("before");
        assert_eq!(client.publish(&Letters::confirmed(before, [0])).taken, 1);
        self.watch.lock().is_late.store(true, Ordering::SeqCst);
        self.disk.lock().fail_always(Some(Fault::Full));
        assert!(!self.write());
    }

    fn mend(&self) {
        self.disk.lock().fail_always(None);
        assert!(self.write());
    }

    /// A transaction that publishes `1` to the queue `one` and `2` to the queue `two` comes when the disk has just failed.
    async fn refuses_a_commit(&self, client: &mut Peer<'_>) {
        let targets = ["one", "two"].map(|queue| client.to_queue(queue));
        self.fail(client);
        client.begin().await.unwrap();
        client.publish(&[(targets[0], 1), (targets[1], 2)].into_iter().map(durable).collect());
        let refused = client.commit().await.unwrap_err();
        assert!(matches!(refused, Refused::Full(_)), "{refused:?}");
        client.flush();
        self.watch.lock().hear();
    }
}

fn durable((target, number): (TargetId, u32)) -> Letter {
    Letter::numbered(target, number).flagged(Flags::DURABLE)
}

#[async_trait]
impl Fixture for Machine {
    async fn backend(&self) -> Arc<dyn Backend> {
        let disk = self.disk.lock().after_kill();
        *self.disk.lock() = disk.clone();
        let options = Options { segment_size: 1 << 16, slack: 1 << 18, ..Options::default() };
        let watch = Arc::new(Late::default());
        let (log, writer, _) = Log::without_thread(Arc::new(disk), options, Arc::clone(&watch) as _).unwrap();
        let archive = Archive::over(log, Arc::clone(&watch.pending), &[&NEUTRAL], &Arc::default());
        let (options, clock) = (EmbeddedOptions::default(), Arc::new(SystemClock));
        let directory = self.directory.path();
        let embedded =
            Embedded::over_log("local", options, clock, directory, Arc::clone(&archive), None).unwrap();
        *self.strange.lock() = archive.kept();
        *self.writer.lock() = Some(writer);
        *self.watch.lock() = watch;
        embedded
    }
}

async fn with_queues(client: &mut Peer<'_>) {
    for queue in ["before", "one", "two"] {
        client.queue(queue, &[]).await;
    }
}

async fn ready(client: &mut Peer<'_>, queue: &str) -> u64 {
    client.declare_queue(&queue_spec(queue, &[])).await.unwrap().messages
}

#[tokio::test]
async fn a_queue_that_is_deleted_while_the_disk_refuses_takes_only_its_own_part_of_a_commit() {
    for (deleted, kept, number) in [("one", "two", 2), ("two", "one", 1)] {
        let machine = Machine::new();
        let stage = Stage::new(&machine, "deleted").await;
        let mut client = stage.client().await;
        with_queues(&mut client).await;
        machine.refuses_a_commit(&mut client).await;
        client.delete_queue(deleted, false, false).await.unwrap();
        machine.mend();
        drop(client);
        stage.close().await;

        let stage = Stage::new(&machine, "deleted again").await;
        assert_eq!(*machine.strange.lock(), 0, "the log has something of '{deleted}'");
        let mut client = stage.client().await;
        client.consume(kept, 1, 9).await;
        client.expect_numbers([number]).await;
        assert_eq!((ready(&mut client, deleted).await, ready(&mut client, "before").await), (0, 1));
        stage.close().await;
    }
}

#[tokio::test]
async fn what_is_settled_while_its_commit_waits_for_the_disk_does_not_come_back() {
    let machine = Machine::new();
    let stage = Stage::new(&machine, "settled").await;
    let mut client = stage.client().await;
    with_queues(&mut client).await;
    let mut worker = stage.client().await;
    worker.consume("one", 1, 1).await;
    worker.consume("two", 2, 1).await;
    machine.refuses_a_commit(&mut client).await;
    // It is in its queues, though its publisher was told that it failed.
    for given in worker.expect(2).await {
        worker.accept(&given);
    }
    machine.mend();
    drop((client, worker));
    stage.close().await;

    let stage = Stage::new(&machine, "settled again").await;
    let mut client = stage.client().await;
    for (queue, messages) in [("one", 0), ("two", 0), ("before", 1)] {
        assert_eq!(ready(&mut client, queue).await, messages, "in '{queue}'");
    }
    stage.close().await;
}

#[tokio::test]
async fn a_commit_that_waits_for_the_disk_is_written_when_nothing_else_happens() {
    let machine = Machine::new();
    let stage = Stage::new(&machine, "alone").await;
    let mut client = stage.client().await;
    with_queues(&mut client).await;
    machine.refuses_a_commit(&mut client).await;
    drop(client);
    machine.mend();
    stage.close().await;

    let stage = Stage::new(&machine, "alone again").await;
    let mut client = stage.client().await;
    client.consume("one", 1, 9).await;
    client.expect_numbers([1]).await;
    client.consume("two", 2, 9).await;
    client.expect_numbers([2]).await;
    stage.close().await;
}

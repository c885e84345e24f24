use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linkspan::ledger::{EmbeddedLedger, Found, LEASE, OpenError};
use linkspan_contract::conformance::clocks::SetClock;
use linkspan_contract::conformance::ledger::LedgerFixture;
use linkspan_contract::ledger::{Conditions, Expected, Ledger, LedgerError};
use linkspan_contract::{Clock, Leases, SystemClock, ledger_conformance};
use linkspan_integration_tests::process::Folder;

struct Fixture {
    _folder: Folder,
    clock: Arc<SetClock>,
    ledger: EmbeddedLedger,
}

fn fixture() -> Fixture {
    let folder = Folder::new();
    let clock = Arc::new(SetClock::at(1_800_000_000_000));
    let ledger = open(folder.path(), &clock);
    Fixture { _folder: folder, clock, ledger }
}

fn open(folder: &Path, clock: &Arc<SetClock>) -> EmbeddedLedger {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    EmbeddedLedger::open(&folder.join("deep/down/ledger.redb"), "one", clock).expect("it can be opened")
}

#[async_trait]
impl LedgerFixture for Fixture {
    async fn ledger(&self, instance: &str) -> Arc<dyn Ledger> {
        Arc::new(self.ledger.beside(instance))
    }

    async fn pass(&self, time: Duration) {
        self.clock.pass(time.as_millis() as u64);
    }
}

ledger_conformance!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    fixture()
);

#[tokio::test]
async fn values_versions_and_numbers_of_leases_go_on_after_a_restart() {
    let folder = Folder::new();
    let clock = Arc::new(SetClock::at(5_000));
    let hour = Conditions { lasts: Some(Duration::from_secs(3600)), ..Conditions::default() };
    let ledger = open(folder.path(), &clock);
    let version = ledger.put("a", b"kept", Conditions::default()).await.unwrap();
    ledger.put("b", b"for an hour", hour).await.unwrap();
    let gone = ledger.put("c", b"deleted", Conditions::default()).await.unwrap();
    ledger.delete("c", Conditions::default()).await.unwrap();
    let lease = ledger.take("queue").await.unwrap();
    drop(ledger);

    clock.pass(1_800_000);
    let ledger = open(folder.path(), &clock);
    let entry = ledger.get("a").await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.version), (&b"kept"[..], version));
    assert!(ledger.get("b").await.unwrap().is_some(), "half an hour is left of it");
    assert!(ledger.put("d", b"new", Conditions::default()).await.unwrap() > gone, "versions go on");
    let next = ledger.beside("another").take("queue").await.expect("whoever held it is gone");
    assert!(next.fence > lease.fence, "{} after {}", next.fence, lease.fence);
    let refused = ledger
        .put("a", b"late", Conditions { guard: Some(("queue", lease.fence)), ..Conditions::default() })
        .await;
    assert_eq!(refused, Err(LedgerError::Fenced { lease: "queue".into() }));
    clock.pass(1_800_001);
    assert_eq!(ledger.get("b").await, Ok(None), "the other half has passed");
}

#[tokio::test]
async fn a_clock_that_is_set_back_prolongs_and_one_that_is_set_on_ends_but_no_number_comes_twice() {
    let fixture = fixture();
    let (one, two) = (fixture.ledger("one").await, fixture.ledger("two").await);
    let first = one.take("queue").await.unwrap();
    fixture.clock.set(fixture.clock.now() - 3_600_000);
    assert!(two.take("queue").await.is_err(), "held, if for longer than meant");
    fixture.clock.pass(7_200_000);
    let second = two.take("queue").await.expect("run out");
    assert!(second.fence > first.fence);
    assert_eq!(second.lasts, LEASE);
}

#[tokio::test]
async fn a_second_process_is_refused_and_a_file_that_is_no_ledger_too() {
    let folder = Folder::new();
    let file = folder.path().join("ledger.redb");
    assert_eq!(EmbeddedLedger::probe(&file).unwrap(), Found::Nothing);
    let _first = EmbeddedLedger::open(&file, "one", Arc::new(SystemClock)).unwrap();
    let Err(refused) = EmbeddedLedger::open(&file, "two", Arc::new(SystemClock)) else {
        panic!("two have it")
    };
    let us = format!("in use by process {}", std::process::id());
    let text = refused.to_string();
    assert!(text.contains("ledger.redb") && text.contains(&us), "{text}");
    assert_eq!(EmbeddedLedger::probe(&file).unwrap(), Found::InUse(Some(std::process::id())));

    let other = folder.path().join("other");
    std::fs::write(&other, "no ledger at all\n".repeat(1000)).unwrap();
    let Err(refused) = EmbeddedLedger::open(&other, "one", Arc::new(SystemClock)) else { panic!("opened") };
    assert!(matches!(&refused, OpenError::Unreadable { file, .. } if *file == other), "{refused:?}");
    assert!(EmbeddedLedger::probe(&other).is_err());
    assert_eq!(std::fs::read(&other).unwrap().len(), 17_000, "it is left as it was");
}

/// Not a test of its own: what the next one kills.
#[tokio::test]
async fn a_writer_that_says_what_is_durable() {
    let Ok(file) = std::env::var("LINKSPAN_TEST_LEDGER_FILE") else { return };
    let ledger = EmbeddedLedger::open(Path::new(&file), "one", Arc::new(SystemClock)).unwrap();
    for n in 0_u64.. {
        ledger
            .put(&format!("k/{:04}", n % 500), n.to_string().as_bytes(), Conditions::default())
            .await
            .unwrap();
        writeln!(std::io::stdout(), "durable {n}").unwrap();
    }
}

#[tokio::test]
async fn what_it_said_is_there_after_it_was_killed() {
    let folder = Folder::new();
    let file = folder.path().join("ledger.redb");
    let mut last = None;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::a_writer_that_says_what_is_durable", "--nocapture"])
            .env("LINKSPAN_TEST_LEDGER_FILE", &file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said = lines.filter_map(|line| {
            let (_, n) = line.split_once("durable ")?;
            n.parse::<u64>().ok()
        });
        last = said.by_ref().nth(20 + round * 37);
        child.kill().unwrap();
        // what it said before it died counts as well
        last = said.last().or(last);
        child.wait().unwrap();
        let last = last.expect("it said something");
        let ledger =
            EmbeddedLedger::open(&file, "one", Arc::new(SystemClock)).expect("it opens after a kill");
        let key = format!("k/{:04}", last % 500);
        let entry = ledger.get(&key).await.unwrap().expect("what was durable is there");
        let found: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
        assert!(found >= last, "{key} is {found}, and {last} was said to be durable");
        ledger
            .put(
                "round",
                &[round as u8],
                Conditions { expected: Expected::Anything, ..Conditions::default() },
            )
            .await
            .expect("it goes on");
    }
    assert!(last.is_some());
}

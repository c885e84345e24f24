//! The machine goes off at every write of random runs: what is there afterwards is what was committed up to some commit,
//! and everything that was told to be safe is among it.

use std::sync::Arc;

use linkspan_queues::log::{Commit, Log, Mark, Options, SyncMode, Turn, Writer, verify};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::heard::Heard;
use crate::plain::{Plain, Says, seen};
use linkspan_queues::conformance::disk::{Disk, Fault};

/// Small files, so that a short run goes through many.
pub(crate) fn options(sync: SyncMode) -> Options {
    Options { sync, segment_size: 1500, slack: 2000, spare_files: 1 }
}

/// What a run does.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Says>),
    Turn(u8),
}

fn says() -> impl Strategy<Value = Says> {
    let queue = 0..3_u64;
    let range = || (0..40_u64, 1..12_u64).prop_map(|(first, count)| first..first + count);
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let key = prop::collection::vec(0..3_u8, 1..3);
    prop_oneof![
        6 => (queue.clone(), 0..40_u64, bytes(120)).prop_map(|(queue, sequence, payload)| Says::Message { queue, sequence, payload }),
        2 => (queue.clone(), 0..8_u64, prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..4), bytes(20))
            .prop_map(|(queue, sequence, parts, payload)| Says::Stored { queue, sequence, parts, payload }),
        2 => (queue.clone(), 0..40_u64, (queue.clone(), 0..8_u64), bytes(20))
            .prop_map(|(queue, sequence, of, payload)| Says::Shares { queue, sequence, of, payload }),
        4 => (queue.clone(), range()).prop_map(|(queue, sequences)| Says::Gone { queue, sequences }),
        1 => queue.clone().prop_map(|queue| Says::Gone { queue, sequences: 0..u64::MAX }),
        2 => (queue.clone(), range()).prop_map(|(queue, sequences)| Says::Given { queue, sequences }),
        1 => (queue, range(), prop::option::of(0..5_u32), 0..3_u32, 0..100_u64, any::<bool>())
            .prop_map(|(queue, sequences, attempts, given, not_before, received)| Says::Mark { queue, sequences, mark: Mark { attempts, given, not_before, received } }),
        3 => (0..2_u64, key.clone(), bytes(60)).prop_map(|(owner, key, value)| Says::Put { owner, key, value }),
        2 => (0..2_u64, key).prop_map(|(owner, key)| Says::Delete { owner, key }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop::collection::vec(says(), 1..5).prop_map(Step::Commit),
        2 => (1..6_u8).prop_map(Step::Turn),
    ];
    prop::collection::vec(step, 1..60)
}

/// A run and what it should have come to after each commit.
struct Run {
    log: Log,
    writer: Writer,
    heard: Arc<Heard>,
    /// The model after each commit, with the LSN of the commit's end; the first is that of before.
    history: Vec<(u64, Plain)>,
}

impl Run {
    fn on(disk: &Disk, sync: SyncMode, before: Plain) -> Option<Self> {
        let heard = Arc::new(Heard::default());
        let opened = Log::without_thread(Arc::new(disk.clone()), options(sync), Arc::clone(&heard) as _);
        let (log, writer, _) = opened.ok()?;
        Some(Self { log, writer, heard, history: vec![(0, before)] })
    }

    fn go(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Turn(turns) => {
                    for _ in 0..*turns {
                        if self.writer.turn() == Turn::Idle {
                            break;
                        }
                    }
                }
                Step::Commit(says) => self.commit(says),
            }
        }
    }

    fn commit(&mut self, all: &[Says]) {
        let mut commit = Commit::new();
        let mut model = self.history.last().unwrap().1.clone();
        let bodies: Vec<u64> = all.iter().filter_map(|one| one.say(&self.log, &mut commit)).collect();
        if let Ok(lsn) = self.log.commit(&mut commit) {
            let before = model.clone();
            all.iter().for_each(|one| model.apply(one, &before));
            self.history.push((lsn, model));
        }
        bodies.into_iter().for_each(|body| self.log.release_body(body));
    }

    /// Everything committed can be read, safe or not.
    fn check_now(&self) {
        let (found, expected) = (seen(&self.log), self.history.last().unwrap().1.seen());
        assert_eq!(found.1, expected.1, "the values of a running log");
        for (at, message) in &expected.0 {
            assert_eq!(found.0.get(at), Some(message), "a message of a running log, {at:?}");
        }
        assert_eq!(found.0.len(), expected.0.len(), "nothing else is in a running log");
    }

    /// What is on `disk` is what some commit left, and none that was safe is missing. Yields which.
    fn check_after(&self, disk: &Disk, told: &str) -> Plain {
        let opened = Log::without_thread(Arc::new(disk.clone()), options(SyncMode::Group), Arc::new(()));
        let (log, _, recovery) = opened.unwrap_or_else(|error| panic!("{told}: it opens: {error}"));
        assert_eq!(recovery.damage, [], "{told}: what was not complete is no damage");
        assert_eq!(recovery.lost, []);
        let found = seen(&log);
        let at = self.history.iter().rposition(|(_, model)| model.seen() == found);
        let at = at.unwrap_or_else(|| {
            panic!("{told}: no commit left this: {found:#?}\nhistory: {:#?}", self.history)
        });
        let safe = self.history.iter().rposition(|(lsn, _)| *lsn == 0 || self.heard.is_safe(*lsn)).unwrap();
        assert!(at >= safe, "{told}: commit {safe} was safe, and only {at} of them are there");
        self.history[at].1.clone()
    }
}

/// A number generator that gives the same run for the same seed.
fn coin(mut seed: u64) -> impl FnMut() -> bool {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed & 1 == 1
    }
}

fn cases(count: u32) -> TestRunner {
    let count = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(count);
    TestRunner::new(ProptestConfig {
        cases: count,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

#[test]
fn after_a_power_loss_at_any_write_the_log_is_what_some_commit_left_and_has_all_that_was_safe() {
    for sync in [SyncMode::Group, SyncMode::Always] {
        cases(24)
            .run(&(steps(), any::<u64>()), |(steps, seed)| {
                let whole = Disk::default();
                let mut run = Run::on(&whole, sync, Plain::default()).unwrap();
                run.go(&steps);
                run.check_now();
                for call in 0..=whole.calls() {
                    let disk = Disk::default();
                    disk.off_at(call);
                    let Some(mut run) = Run::on(&disk, sync, Plain::default()) else { continue };
                    run.go(&steps);
                    let lost = disk.after_power_loss(coin(seed.wrapping_add(call) | 1));
                    run.check_after(&lost, &format!("power lost at write {call}"));
                    run.check_after(&disk.after_kill(), &format!("killed at write {call}"));
                }
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn a_log_goes_on_after_a_power_loss_as_if_nothing_had_been() {
    cases(24)
        .run(&(prop::collection::vec((steps(), any::<u16>()), 1..6), any::<u64>()), |(lives, seed)| {
            let mut disk = Disk::default();
            let mut model = Plain::default();
            for (life, (steps, off)) in lives.iter().enumerate() {
                disk.off_at(u64::from(*off) % 60);
                let Some(mut run) = Run::on(&disk, SyncMode::Group, model.clone()) else {
                    disk = disk.after_power_loss(coin(seed.wrapping_add(life as u64) | 1));
                    continue;
                };
                run.go(steps);
                disk = disk.after_power_loss(coin(seed.wrapping_add(life as u64) | 1));
                model = run.check_after(&disk, &format!("life {life}"));
            }
            assert_eq!(verify(&disk).unwrap().damage, []);
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_fails_nothing_is_told_to_be_safe_that_is_not_and_the_log_goes_on() {
    for fault in [Fault::ShortWrite, Fault::HalfThenFull, Fault::Full, Fault::Broken] {
        cases(16)
            .run(&(steps(), steps(), any::<u64>()), |(steps, more, seed)| {
                let whole = Disk::default();
                let mut run = Run::on(&whole, SyncMode::Group, Plain::default()).unwrap();
                run.go(&steps);
                for call in 0..=whole.calls() {
                    let disk = Disk::default();
                    disk.fail_at(call, fault);
                    let Some(mut run) = Run::on(&disk, SyncMode::Group, Plain::default()) else { continue };
                    run.go(&steps);
                    run.check_now();
                    let told = format!("{fault:?} at write {call}");
                    run.check_after(&disk.after_power_loss(coin(seed.wrapping_add(call) | 1)), &told);
                    run.go(&more);
                    run.check_now();
                    run.check_after(&disk.after_power_loss(coin(seed.wrapping_sub(call) | 1)), &told);
                    while run.writer.turn() != Turn::Idle {}
                    run.check_after(&disk.after_power_loss(|| false), &told);
                }
                Ok(())
            })
            .unwrap();
    }
}

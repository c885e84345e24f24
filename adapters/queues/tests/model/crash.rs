//! The machine goes off at every write of a log that keeps a queue's journal: what the queue is rebuilt from is what it
//! was after some operation, and none that was told to be safe is undone.

use std::sync::Arc;

use linkspan_contract::Settle;
use linkspan_queues::conformance::disk::Disk;
use linkspan_queues::log::{Log, Options, SyncMode, Turn, Window, Writer};
use linkspan_queues::{Consumer, Diary, Encode, Limits, Queue, Queued, remembered};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::heard::Heard;
use crate::naive::Kept;
use crate::operation::{Operation, limits, operation};
use crate::{Pair, Recall, told};

const QUEUE: u64 = 3;

/// Bodies are their numbers.
struct Number;

impl Encode<u64> for Number {
    fn encode(&self, body: &u64, out: &mut Vec<u8>) -> Option<(u64, u64)> {
        out.extend_from_slice(&body.to_le_bytes());
        None
    }
}

impl Recall for Diary<Number> {
    fn recall(&self) -> Vec<(Queued<u64>, u64)> {
        panic!("nothing is paged out")
    }
}

/// Small files, so that a short run goes through many.
fn options() -> Options {
    Options { sync: SyncMode::Group, segment_size: 900, slack: 1200, spare_files: 1 }
}

/// A run of operations, each committed; how often the writer has its turn after each.
struct Run {
    pair: Pair<Diary<Number>>,
    log: Log,
    writer: Writer,
    heard: Arc<Heard>,
    /// What a crash should leave after each commit, with its LSN and when that was.
    history: Vec<(u64, u64, Vec<Kept>)>,
}

impl Run {
    fn on(disk: &Disk, limits: &Limits) -> Option<Self> {
        let heard = Arc::new(Heard::default());
        let opened = Log::without_thread(Arc::new(disk.clone()), options(), Arc::clone(&heard) as _);
        let (log, writer, _) = opened.ok()?;
        // What is paged out has to be read from the log, whose calls are counted here.
        let limits = Limits { window: None, ..limits.clone() };
        let pair = Pair::new(limits, Diary::new(QUEUE, Number));
        let history = vec![(0, pair.now, Vec::new())];
        Some(Self { pair, log, writer, heard, history })
    }

    fn go(&mut self, steps: &[(Operation, u8)]) {
        for (operation, turns) in steps {
            self.pair.carry_out(operation.clone());
            self.pair.compare();
            let journal = self.pair.queue.journal_mut();
            assert!(journal.refused.is_none());
            journal.commit.join(&mut journal.dead);
            // What a log that has failed does not take is in the next commit.
            if let Ok(lsn) = self.log.commit(&mut journal.commit) {
                let now = self.pair.now;
                self.history.push((lsn, now, self.pair.naive.kept(now)));
            }
            for _ in 0..*turns {
                if self.writer.turn() == Turn::Idle {
                    break;
                }
            }
        }
    }

    /// What is on `disk` rebuilds the queue as it was after some operation, and none that was safe is missing.
    fn check(&self, disk: &Disk, when: &str) {
        let opened = Log::without_thread(Arc::new(disk.clone()), options(), Arc::new(()));
        let (log, _, recovery) = opened.unwrap_or_else(|error| panic!("{when}: it opens: {error}"));
        assert_eq!((recovery.damage, recovery.lost), (vec![], vec![]), "{when}");
        let levels = 0..=u64::from(self.pair.queue.limits().max_priority);
        let windows: Vec<Window> = levels
            .map(|level| {
                let mut window = Window::new();
                log.read(QUEUE + level, 0, usize::MAX, u64::MAX, &mut window);
                assert!(window.damaged.is_empty());
                window
            })
            .collect();
        let mut found: Vec<(Queued<u64>, u64)> = windows
            .iter()
            .flat_map(Window::messages)
            .map(|read| {
                let (message, not_before) = remembered(&read).expect("a diary wrote it");
                let body = u64::from_le_bytes(message.body.try_into().unwrap());
                let message = message.with(body);
                (message, not_before)
            })
            .collect();
        found.sort_unstable_by_key(|(message, _)| message.position);
        let at = self.history.iter().rposition(|(_, now, kept)| *kept == as_kept(&found, *now));
        let at = at.unwrap_or_else(|| {
            panic!("{when}: after no operation it was so: {found:#?}\n{:#?}", self.history)
        });
        let safe = self.history.iter().rposition(|(lsn, ..)| *lsn == 0 || self.heard.is_safe(*lsn));
        let safe = safe.expect("the beginning is safe");
        assert!(at >= safe, "{when}: {safe} commits were safe, and only {at} of them are there");
        let (_, now, kept) = &self.history[at];
        self.check_rebuilt(&found, *now, kept, when);
    }

    /// A queue that is rebuilt gives out what is kept in the right order, with the right attempts.
    fn check_rebuilt(&self, found: &[(Queued<u64>, u64)], now: u64, kept: &[Kept], when: &str) {
        let max_priority = self.pair.queue.limits().max_priority;
        let mut rebuilt = Queue::new(now, Limits { max_priority, ..Limits::default() });
        // In any order.
        for (message, not_before) in found.iter().rev() {
            rebuilt.restore(now, message.clone(), *not_before);
        }
        rebuilt.add_consumer(Consumer::new(1, 1, Settle::OnDelivery)).unwrap();
        rebuilt.set_paused(1, false);
        let mut out = Vec::new();
        rebuilt.dispatch(now, &mut out);
        let got: Vec<(u64, u64, u32, u8)> = told(&out)
            .into_iter()
            .map(|(.., age, body, attempts, level)| (age, body, attempts, level))
            .collect();
        let mut expected: Vec<&Kept> = kept
            .iter()
            .filter(|message| message.not_before <= now && message.deadline.is_none_or(|at| at > now))
            .collect();
        expected.sort_by_key(|message| (u8::MAX - message.level, message.body));
        let expected: Vec<_> =
            expected.into_iter().map(|m| (now - m.since, m.body, m.attempts, m.level)).collect();
        assert_eq!(got, expected, "{when}: what the rebuilt queue gives out");
    }
}

/// In the model's words.
fn as_kept(found: &[(Queued<u64>, u64)], now: u64) -> Vec<Kept> {
    let kept = found.iter().map(|(message, not_before)| Kept {
        body: message.body,
        size: message.size,
        since: message.since,
        deadline: (message.deadline != linkspan_queues::NEVER).then_some(message.deadline),
        attempts: message.attempts,
        level: message.priority,
        not_before: if *not_before > now { *not_before } else { 0 },
    });
    kept.collect()
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

#[test]
fn after_a_power_loss_at_any_write_a_queue_is_what_it_was_after_some_operation_and_keeps_all_that_was_safe() {
    let count = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32);
    let config = ProptestConfig {
        cases: count,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let steps = prop::collection::vec((operation(), prop_oneof![2 => Just(0), 1 => 1..5_u8]), 1..70);
    TestRunner::new(config)
        .run(&(limits(), steps, any::<u64>()), |(limits, steps, seed)| {
            let whole = Disk::default();
            let mut run = Run::on(&whole, &limits).unwrap();
            run.go(&steps);
            for call in 0..=whole.calls() {
                let disk = Disk::default();
                disk.off_at(call);
                let Some(mut run) = Run::on(&disk, &limits) else { continue };
                run.go(&steps);
                let lost = disk.after_power_loss(coin(seed.wrapping_add(call) | 1));
                run.check(&lost, &format!("power lost at write {call}"));
                run.check(&disk.after_kill(), &format!("killed at write {call}"));
            }
            Ok(())
        })
        .unwrap();
}

//! The course of a run: starts the threads, watches them, ends when everything is accounted for or given up.

use crate::reactor::Reactor;
use crate::shared::{DRAIN, QUIT, RUN, Shared};
use crate::workload::Workload;
use crate::{clock, procfs, sys};
use std::sync::atomic::Ordering::Relaxed;

/// A run ends here whatever is missing.
const LONGEST_NS: u64 = 600_000_000_000;

/// Counters at one moment.
#[derive(Clone, Copy)]
pub struct Snapshot {
    pub at: u64,
    pub published: u64,
    pub delivered: u64,
    pub confirmed: u64,
    pub broker_cpu: f64,
    pub self_cpu: f64,
}

impl Snapshot {
    fn take(w: &Workload, sh: &Shared) -> Snapshot {
        Snapshot {
            at: clock::now(),
            published: sh.sum(|c| &c.published),
            delivered: sh.sum(|c| &c.delivered),
            confirmed: sh.sum(|c| &c.confirmed),
            broker_cpu: procfs::cpu_s(&w.pids),
            self_cpu: sys::self_cpu_seconds(),
        }
    }
}

pub struct Course {
    pub start: Snapshot,
    /// The measuring window: after the warm-up, until the publishers stop.
    pub window: Option<(Snapshot, Snapshot)>,
    pub end: Snapshot,
    /// CPU and steal seconds of the whole machine, during the run.
    pub machine: (f64, f64),
    pub peak_rss: u64,
    pub end_rss: u64,
}

/// Runs to the end; gives the threads' reactors back.
pub fn run(w: &Workload, sh: &Shared, reactors: Vec<Reactor>) -> (Course, Vec<Reactor>) {
    let handles: Vec<_> = reactors.into_iter().map(|r| std::thread::spawn(move || r.run())).collect();
    clock::sleep_ns(w.settle_ms * 1_000_000);
    let machine = procfs::machine();
    let start = Snapshot::take(w, sh);
    let t0 = start.at;
    let warm_end = t0 + (w.warmup * 1e9) as u64;
    let t_end = if w.messages > 0 { u64::MAX } else { warm_end + (w.seconds * 1e9) as u64 };
    sh.t0.store(t0, Relaxed);
    sh.warm_end.store(warm_end, Relaxed);
    sh.t_end.store(t_end, Relaxed);
    sh.phase.store(RUN, Relaxed);

    let (mut from, mut to) = (None, None);
    let mut peak_rss = 0u64;
    let mut watch = Watch { t0, moved: (0, t0), drain_from: 0 };
    for n in 1u64.. {
        let now = clock::now();
        let next = match () {
            () if from.is_none() && now < warm_end => warm_end,
            () if to.is_none() && now < t_end => t_end,
            () => u64::MAX,
        };
        clock::sleep_ns(next.saturating_sub(now).clamp(1, 5_000_000));
        let now = clock::now();
        if from.is_none() && now >= warm_end {
            from = Some(Snapshot::take(w, sh));
        }
        if w.messages == 0 && to.is_none() && now >= t_end {
            to = Some(Snapshot::take(w, sh));
            sh.phase.store(DRAIN, Relaxed);
            watch.drain_from = now;
        }
        if n % 100 == 0 && !w.pids.is_empty() {
            peak_rss = peak_rss.max(procfs::rss(&w.pids));
        }
        let published = sh.sum(|c| &c.published);
        let all_sent = if w.messages > 0 { published >= w.messages } else { to.is_some() };
        if watch.over(w, sh, now, all_sent) {
            break;
        }
    }
    // let the last acknowledgements of the receivers go out
    clock::sleep_ns(30_000_000);
    let end = Snapshot::take(w, sh);
    let after = procfs::machine();
    let end_rss = procfs::rss(&w.pids);
    sh.phase.store(QUIT, Relaxed);
    let reactors = handles.into_iter().map(|h| h.join().expect("a generator thread panicked")).collect();
    let course = Course {
        start,
        window: from.zip(to),
        end,
        machine: (after.0 - machine.0, after.1 - machine.1),
        peak_rss: peak_rss.max(end_rss),
        end_rss,
    };
    (course, reactors)
}

/// Decides when a run is over.
struct Watch {
    t0: u64,
    /// Published, delivered and confirmed together, and when that last moved.
    moved: (u64, u64),
    drain_from: u64,
}

impl Watch {
    fn over(&mut self, w: &Workload, sh: &Shared, now: u64, all_sent: bool) -> bool {
        let delivered = sh.sum(|c| &c.delivered);
        let expected = sh.sum(|c| &c.expected);
        let moved = sh.sum(|c| &c.published) + delivered + sh.sum(|c| &c.confirmed);
        if moved != self.moved.0 {
            self.moved = (moved, now);
        } else if w.max_lag > 0 && now - self.moved.1 > 300_000_000 {
            // lost messages must not stop a lag-limited run
            sh.written_off.store(expected.saturating_sub(delivered), Relaxed);
        }
        if all_sent && self.drain_from == 0 {
            self.drain_from = now;
        }
        let secs = |from: u64| (now - from) as f64 / 1e9;
        let idle = secs(self.moved.1);
        // the publishers' count of what is busy is a millisecond old
        let complete = all_sent
            && sh.sum(|c| &c.pubs_busy) == 0
            && delivered >= expected
            && now - self.drain_from > 3_000_000;
        let given_up = all_sent && (idle > w.stall || secs(self.drain_from) > w.drain);
        let broken = !all_sent && idle > w.stall.max(5.0) && sh.failed();
        complete || given_up || broken || idle > 60.0 || now > self.t0 + LONGEST_NS
    }
}

//! Writers, readers, compaction and somebody who looks on, all at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linkspan_queues::log::{Commit, Directory, Log, Mark, Options, Window, survey};

use crate::heard::Heard;
use crate::plain::seen;

const LASTS: Duration = Duration::from_secs(3);
/// How long a slow machine may take to come to something.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who has nothing to do leaves the processor to others.
const TICK: Duration = Duration::from_millis(2);
/// Each of these is left in its queue.
const PARKED: u64 = 16;
/// Messages that go from one queue to another and back.
const WANDERERS: u64 = 50;
const WANDER: [u64; 2] = [100, 101];

fn payload(queue: u64, sequence: u64) -> Vec<u8> {
    let length = (sequence * 37 + queue * 11) % 700;
    let mut payload = format!("{queue}/{sequence}/").into_bytes();
    payload.resize(payload.len() + usize::try_from(length).unwrap(), b'x');
    payload
}

/// What is told between the threads.
#[derive(Default)]
struct Told {
    over: AtomicBool,
    /// How many messages each queue was given.
    published: [AtomicU64; 2],
    /// How many of them were read.
    consumed: [AtomicU64; 2],
    surveys: AtomicU64,
    looks: AtomicU64,
}

impl Told {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn write(log: &Log, told: &Told, queue: u64) {
    let published = &told.published[usize::try_from(queue).unwrap()];
    let (mut commit, mut sequence) = (Commit::new(), 0);
    while !told.is_over() {
        for _ in 0..1 + sequence % 5 {
            commit.message(queue, sequence, &payload(queue, sequence)).unwrap();
            sequence += 1;
        }
        commit.put(queue, b"published", &sequence.to_le_bytes()).unwrap();
        let lsn = log.commit(&mut commit).unwrap();
        published.store(sequence, Ordering::Release);
        if sequence % 50 == 0 || log.waiting() > 1 << 20 {
            log.wait(lsn).unwrap();
        }
    }
}

fn consume(log: &Log, told: &Told, queue: u64) {
    let at = usize::try_from(queue).unwrap();
    let (mut commit, mut window, mut next) = (Commit::new(), Window::new(), 0);
    loop {
        let over = told.is_over();
        let published = told.published[at].load(Ordering::Acquire);
        log.read(queue, next, 64, 1 << 20, &mut window);
        assert!(window.damaged.is_empty(), "{:?}", window.damaged);
        let begin = next;
        for read in window.messages() {
            assert_eq!(read.sequence, next, "each message of queue {queue} comes once, and in its turn");
            assert!(read.payload == payload(queue, next), "message {next} of queue {queue} is another");
            assert_eq!(read.mark, Mark::default());
            if next % PARKED != 0 {
                commit.gone(queue, next..next + 1);
            }
            next += 1;
        }
        if next == begin {
            assert!(next >= published, "message {next} of queue {queue} is lost");
            if over {
                break;
            }
            thread::sleep(TICK);
            continue;
        }
        commit.given(queue, begin..next);
        log.commit(&mut commit).unwrap();
        told.consumed[at].store(next, Ordering::Release);
    }
}

/// Reads what was left behind, wherever it is by now.
fn look_back(log: &Log, told: &Told) {
    let mut window = Window::new();
    let mut values = [0_u64; 2];
    while !told.is_over() {
        for queue in 0..2_u64 {
            let at = usize::try_from(queue).unwrap();
            let consumed = told.consumed[at].load(Ordering::Acquire) / PARKED;
            let all = consumed.min(200);
            log.read(queue, 0, usize::try_from(all).unwrap(), 1 << 20, &mut window);
            assert!(window.damaged.is_empty(), "{:?}", window.damaged);
            for (number, read) in window.messages().enumerate() {
                assert_eq!(read.sequence, number as u64 * PARKED, "what is parked stays");
                assert!(read.payload == payload(queue, read.sequence));
                assert_eq!(read.mark.given, 1);
            }
            let value = log.get(queue, b"published").unwrap();
            let value = value.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()));
            assert!(value >= values[at], "a value never becomes an older one");
            values[at] = value;
        }
        told.looks.fetch_add(1, Ordering::Relaxed);
        thread::sleep(TICK);
    }
}

/// Takes messages from one queue to the other, each in one commit.
fn wander(log: &Log, told: &Told) {
    let (mut commit, mut at, mut round) = (Commit::new(), 0, 0_u64);
    while !told.is_over() {
        for number in 0..WANDERERS {
            let sequence = round * WANDERERS + number;
            commit.gone(WANDER[at], sequence..sequence + 1);
            commit.message(WANDER[1 - at], sequence + WANDERERS, &payload(9, number)).unwrap();
            log.commit(&mut commit).unwrap();
        }
        (at, round) = (1 - at, round + 1);
        while log.waiting() > 1 << 20 && !told.is_over() {
            thread::sleep(TICK);
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_while_all_work_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_size: 64 << 10, slack: 128 << 10, ..Options::default() };
    let heard = Arc::new(Heard::default());
    let (log, _) = Log::open(dir.path(), options.clone(), Arc::clone(&heard) as _).unwrap();
    let mut commit = Commit::new();
    for number in 0..WANDERERS {
        commit.message(WANDER[0], number, &payload(9, number)).unwrap();
    }
    log.wait(log.commit(&mut commit).unwrap()).unwrap();
    let told = Told::default();
    thread::scope(|scope| {
        let (log, told) = (&log, &told);
        for queue in 0..2 {
            scope.spawn(move || write(log, told, queue));
            scope.spawn(move || consume(log, told, queue));
        }
        scope.spawn(move || look_back(log, told));
        scope.spawn(move || wander(log, told));
        let look = Directory::look(dir.path());
        scope.spawn(move || {
            while !told.is_over() {
                let found = survey(&look, &mut |_, _| {}).unwrap();
                assert_eq!((&found.damage, &found.lost), (&vec![], &vec![]));
                let wanderers = found.queues.iter().filter(|queue| WANDER.contains(&queue.queue));
                let count: u64 = wanderers.map(|queue| queue.messages).sum();
                assert_eq!(count, WANDERERS, "from outside, each commit is seen as a whole");
                told.surveys.fetch_add(1, Ordering::Relaxed);
                thread::sleep(TICK);
            }
        });
        let is_enough = || {
            let figures = log.figures();
            told.published.iter().all(|count| count.load(Ordering::Relaxed) > 500)
                && (figures.emptied > 5 && figures.moved > 0)
                && told.looks.load(Ordering::Relaxed) > 5
                && told.surveys.load(Ordering::Relaxed) > 2
        };
        let begin = Instant::now();
        while begin.elapsed() < LASTS || !is_enough() && begin.elapsed() < PATIENCE {
            thread::sleep(TICK);
        }
        told.over.store(true, Ordering::Relaxed);
        assert!(is_enough(), "all of them come to something: {:?}", log.figures());
    });
    let published = told.published.each_ref().map(|count| count.load(Ordering::Acquire));
    assert_eq!(heard.trouble(), Vec::<String>::new());
    let before = seen(&log);
    let mut counts = BTreeMap::new();
    for (queue, sequence) in before.0.keys() {
        *counts.entry(*queue).or_insert(0_u64) += 1;
        assert!(*queue >= 100 || sequence % PARKED == 0, "{sequence} of queue {queue} was settled");
    }
    for queue in 0..2 {
        assert_eq!(counts[&queue], published[usize::try_from(queue).unwrap()].div_ceil(PARKED));
    }
    drop(log);
    let (log, recovery) = Log::open(dir.path(), options, Arc::new(())).unwrap();
    assert_eq!((recovery.damage, recovery.cut), (vec![], None));
    assert!(seen(&log) == before, "after a restart it is as it was");
}

//! What the durable log costs: `cargo bench -p linkspan-queues --bench log -- DIR [PART]`, with a directory on the disk
//! that is meant; without one nothing is measured. The parts: `one`, `batches`, `many`, `fill`, `reopen`, `small`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot go on stops"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use std::{env, fs};

use linkspan_queues::log::{Commit, Log, Options, Window};

const MIB: u64 = 1 << 20;
/// Bytes that may wait for the disk.
const WAITING: u64 = 32 * MIB;

fn main() {
    let mut words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if words.is_empty() {
        println!("no directory given: nothing is measured");
        return;
    }
    let dir = words.remove(0);
    if let [kind, count, size] = &words[..]
        && kind == "fill-and-wait"
    {
        return fill_and_wait(Path::new(&dir), count.parse().unwrap(), size.parse().unwrap());
    }
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let dir = Path::new(&dir).join("linkspan-log-bench");
    for name in ["one", "batches", "many", "fill", "reopen", "small"].into_iter().filter(|name| wanted(name))
    {
        let _ = fs::remove_dir_all(&dir);
        match name {
            "one" => one(&dir),
            "batches" => batches(&dir),
            "many" => many(&dir),
            "fill" => fill(&dir),
            "reopen" => reopen(&dir),
            _ => small(&dir),
        }
    }
    let _ = fs::remove_dir_all(&dir);
}

fn open(dir: &Path) -> Log {
    Log::open(dir, Options::default(), Arc::new(())).unwrap().0
}

/// One commit of 1 KiB at a time, beside a bare write and `fdatasync` of as much, turn by turn.
fn one(dir: &Path) {
    let log = open(dir);
    let bare = dir.join("bare");
    let mut file = fs::File::create(bare).unwrap();
    let payload = [7_u8; 1024];
    let mut commit = Commit::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for sequence in 0..2000 {
        let begin = Instant::now();
        commit.message(1, sequence, &payload).unwrap();
        log.wait(log.commit(&mut commit).unwrap()).unwrap();
        ours.push(begin.elapsed());
        let begin = Instant::now();
        file.write_all(&payload).unwrap();
        file.sync_data().unwrap();
        theirs.push(begin.elapsed());
    }
    for (what, mut times) in
        [("one commit of 1 KiB at a time", ours), ("a bare write and sync of 1 KiB", theirs)]
    {
        times.sort_unstable();
        println!("{what}: p50 {:?}, p99 {:?}", times[1000], times[1980]);
    }
}

/// Publish, consume and settle 512 messages of 1 KiB, wait for the sync, and again.
fn batches(dir: &Path) {
    let log = open(dir);
    let payload = [7_u8; 1024];
    let (rounds, batch) = (1000_u64, 512_u64);
    let mut commit = Commit::new();
    let (begin, cpu) = (Instant::now(), Cpu::now());
    for round in 0..rounds {
        let first = round * batch;
        for sequence in first..first + batch {
            commit.message(1, sequence, &payload).unwrap();
        }
        log.wait(log.commit(&mut commit).unwrap()).unwrap();
        commit.given(1, first..first + batch);
        log.commit(&mut commit).unwrap();
        commit.gone(1, first..first + batch);
        log.wait(log.commit(&mut commit).unwrap()).unwrap();
    }
    let (count, cpu) = (rounds * batch, cpu.since());
    told("batches of 512 x 1 KiB, published, given, gone", count, begin, &cpu);
}

/// Eight that publish 50 messages of 1 KiB in one commit, wait for the sync, settle them, and again; and the same with one
/// message a commit, each waiting for his own.
fn many(dir: &Path) {
    for (batch, rounds) in [(50_u64, 400_u64), (1, 2000)] {
        let _ = fs::remove_dir_all(dir);
        let log = open(dir);
        let (begin, cpu) = (Instant::now(), Cpu::now());
        std::thread::scope(|scope| {
            for queue in 0..8 {
                let log = &log;
                scope.spawn(move || {
                    let (payload, mut commit) = ([7_u8; 1024], Commit::new());
                    for round in 0..rounds {
                        let sequences = round * batch..(round + 1) * batch;
                        for sequence in sequences.clone() {
                            commit.message(queue, sequence, &payload).unwrap();
                        }
                        log.wait(log.commit(&mut commit).unwrap()).unwrap();
                        commit.given(queue, sequences.clone());
                        commit.gone(queue, sequences);
                        log.commit(&mut commit).unwrap();
                    }
                });
            }
        });
        let cpu = cpu.since();
        let figures = log.figures();
        told(&format!("8 x commits of {batch} x 1 KiB, given, gone"), 8 * rounds * batch, begin, &cpu);
        println!(
            "  {} syncs of {:?} each, {} commits a sync",
            figures.syncs,
            figures.syncing / u32::try_from(figures.syncs).unwrap().max(1),
            8 * rounds / figures.syncs.max(1)
        );
    }
}

fn fill_queue(log: &Log, count: u64, size: usize) {
    let payload = vec![7_u8; size];
    let mut commit = Commit::new();
    let mut last = 0;
    for sequence in 0..count {
        commit.message(1, sequence, &payload).unwrap();
        if commit.size() > 100 << 10 || sequence + 1 == count {
            last = log.commit(&mut commit).unwrap();
            if log.waiting() > WAITING {
                log.wait(last - WAITING / 2).unwrap();
            }
        }
    }
    log.wait(last).unwrap();
}

/// Two million messages of 1 KiB in, out, and what they leave.
fn fill(dir: &Path) {
    let log = open(dir);
    let count = 2_000_000;
    let (begin, cpu) = (Instant::now(), Cpu::now());
    fill_queue(&log, count, 1024);
    told("fill of 1 KiB", count, begin, &cpu.since());
    println!("  {:.0} MiB resident, {} MiB on the disk", resident(), on_disk(dir) / MIB);
    let (begin, cpu) = (Instant::now(), Cpu::now());
    let (mut window, mut commit, mut from, mut last) = (Window::new(), Commit::new(), 0, 0);
    loop {
        log.read(1, from, 4096, MIB, &mut window);
        let Some(end) = window.messages().last().map(|read| read.sequence + 1) else { break };
        assert!(window.messages().all(|read| read.payload.len() == 1024));
        commit.gone(1, from..end);
        last = log.commit(&mut commit).unwrap();
        from = end;
    }
    log.wait(last).unwrap();
    assert_eq!(from, count);
    told("drain of 1 KiB", count, begin, &cpu.since());
    // One file a second turn of an idle writer, at worst.
    let begin = Instant::now();
    while log.usage().segments > 2 && begin.elapsed().as_secs() < 30 {
        std::thread::yield_now();
    }
    println!("  {:.0} MiB resident, {} MiB on the disk", resident(), on_disk(dir) / MIB);
}

/// Killed, and open again.
fn reopen(dir: &Path) {
    for (count, size) in [(2_000_000_u64, 1024_usize), (5_000_000, 100)] {
        let _ = fs::remove_dir_all(dir);
        let mut child = Command::new(env::current_exe().unwrap())
            .arg(dir)
            .args(["fill-and-wait", &count.to_string(), &size.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let before = resident();
        let (begin, cpu) = (Instant::now(), Cpu::now());
        let (log, recovery) = Log::open(dir, Options::default(), Arc::new(())).unwrap();
        told(&format!("reopen after SIGKILL, {size} bytes each"), count, begin, &cpu.since());
        assert_eq!(log.queues()[0].len, count);
        assert!(recovery.damage.is_empty());
        println!("  {:.0} MiB resident more than before", resident() - before);
    }
}

fn fill_and_wait(dir: &Path, count: u64, size: usize) {
    let log = open(dir);
    fill_queue(&log, count, size);
    println!("filled");
    std::thread::park();
}

/// Ten million messages of 16 bytes in one queue.
fn small(dir: &Path) {
    let log = open(dir);
    let (begin, cpu, count) = (Instant::now(), Cpu::now(), 10_000_000);
    fill_queue(&log, count, 16);
    told("fill of 16 bytes", count, begin, &cpu.since());
    println!("  {:.0} MiB resident, {} MiB on the disk", resident(), on_disk(dir) / MIB);
}

fn told(what: &str, count: u64, begin: Instant, cpu: &Cpu) {
    let seconds = begin.elapsed().as_secs_f64();
    let each = |ticks: u64| ticks as f64 * 10_000.0 / count as f64;
    println!(
        "{what}: {count} in {seconds:.2} s, {:.0}/s; CPU {:.3} us each by us, {:.3} us by the system",
        count as f64 / seconds,
        each(cpu.user),
        each(cpu.system)
    );
}

/// CPU time of the process in hundredths of a second.
struct Cpu {
    user: u64,
    system: u64,
}

impl Cpu {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        Self { user: fields[11].parse().unwrap(), system: fields[12].parse().unwrap() }
    }

    fn since(&self) -> Self {
        let now = Self::now();
        Self { user: now.user - self.user, system: now.system - self.system }
    }
}

/// MiB in memory.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn on_disk(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

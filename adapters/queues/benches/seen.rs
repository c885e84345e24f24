//! What it costs to know ten million messages, in time and memory.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use linkspan_queues::Seen;

const MANY: u64 = 10_000_000;

/// Milliseconds in which so many come.
const WINDOW: u64 = 600_000;

/// The n-th identifier: as evenly spread as those of a hash.
fn id(n: u64) -> u128 {
    let mix = |n: u64| {
        let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ n >> 31
    };
    u128::from(mix(n)) << 64 | u128::from(mix(n.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn at(n: u64) -> u64 {
    n.saturating_mul(WINDOW) / MANY
}

fn window(c: &mut Criterion) {
    let mut group = c.benchmark_group("window of ten million");
    group.throughput(Throughput::Elements(1));
    group.measurement_time(Duration::from_secs(10));
    let before = resident();
    let mut seen = Seen::new(WINDOW);
    let mut next = 0;
    let mut enter = |n: u64| {
        let is_new = seen.enter(id(n), at(n));
        seen.recorded(n);
        black_box(seen.let_go(at(n)));
        is_new
    };
    for _ in 0..2 * MANY {
        assert!(enter(next));
        next += 1;
    }
    eprintln!("resident: {} MiB more than before", (resident() - before) >> 20);
    group.bench_function("a new message", |b| {
        b.iter(|| {
            assert!(enter(next));
            next += 1;
        });
    });
    group.bench_function("one that is known", |b| {
        let mut step = 0;
        b.iter(|| {
            step = (step + 7_919) % (MANY / 2);
            assert!(!seen.enter(id(next - 1 - step), at(next)));
        });
    });
    group.finish();
}

criterion_group!(benches, window);
criterion_main!(benches);

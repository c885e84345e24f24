//! What fdatasync costs on a directory's disk.

use crate::args::{Args, die};
use crate::clock;
use crate::json::Json;
use crate::latency::Latency;
use std::io::Write;
use std::os::unix::fs::FileExt;

fn secs(a: u64, b: u64) -> f64 {
    (b - a) as f64 / 1e9
}

/// Appends batches of records to a file and syncs after each.
pub fn run(a: &Args) {
    let dir = a.str("dir", "/tmp").to_string();
    let t: f64 = a.num("seconds", 2.0);
    let size: usize = a.num("size", 1024);
    let json = a.flag("json");
    a.finish();
    let path = format!("{dir}/loadgen.fsync.{}", std::process::id());
    for prealloc in [false, true] {
        for batch in [1usize, 10, 100, 1000, 10000] {
            let mut f = std::fs::File::create(&path).unwrap_or_else(|e| die(&format!("{path}: {e}")));
            let seg: u64 = 64 << 20;
            if prealloc {
                // written, not just reserved: extents of a reserved file still change state on first write
                let z = vec![0u8; 1 << 20];
                for _ in 0..64 {
                    f.write_all(&z).unwrap();
                }
                f.sync_all().unwrap();
            }
            let data = vec![0x5au8; size * batch];
            let mut h = Latency::default();
            let t0 = clock::now();
            let (mut n, mut at) = (0u64, 0u64);
            while secs(t0, clock::now()) < t {
                if at + data.len() as u64 > seg {
                    at = 0;
                }
                f.write_all_at(&data, at).unwrap();
                at += data.len() as u64;
                let s = clock::now();
                f.sync_data().unwrap();
                h.record(clock::now() - s);
                n += 1;
            }
            h.fold();
            let el = secs(t0, clock::now());
            println!(
                "{}",
                if json {
                    let mut j = Json::new();
                    j.s("kind", "fsync").n("prealloc", prealloc as u8 as f64).n("batch", batch as f64);
                    j.n("size", size as f64)
                        .n("syncs_rate", n as f64 / el)
                        .n("records_rate", (n * batch as u64) as f64 / el);
                    j.n("p50_us", h.us(0.5)).n("p99_us", h.us(0.99));
                    j.end()
                } else {
                    format!(
                        "fsync {} batch {batch:5} x {size}B: {:8.0} fdatasync/s {:10.0} records/s {:7.1} MB/s | p50 {:.0} p99 {:.0} us",
                        if prealloc { "overwrite" } else { "append   " },
                        n as f64 / el,
                        (n * batch as u64) as f64 / el,
                        (n * (batch * size) as u64) as f64 / el / 1e6,
                        h.us(0.5),
                        h.us(0.99)
                    )
                }
            );
            drop(f);
            let _ = std::fs::remove_file(&path);
        }
    }
}

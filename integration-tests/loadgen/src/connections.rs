//! Idle connections: how fast they open, what each costs.

use crate::args::Args;
use crate::json::Json;
use crate::{amqp, clock, mqtt, procfs};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

pub fn run(a: &Args) {
    let p = a.str("proto", "mqtt").to_string();
    let addr = a.str("addr", if p == "mqtt" { "127.0.0.1:1883" } else { "127.0.0.1:5672" }).to_string();
    let n: usize = a.num("count", 1000);
    let par: usize = a.num("parallel", 8);
    let hold: f64 = a.num("hold", 2.0);
    let sub = a.flag("subscribe");
    let pids = a.pids();
    let json = a.flag("json");
    let (mo, ao) = (mqtt::Opts::from_args(a, &addr), amqp::Opts::from_args(a, &addr));
    let mut j = Json::labelled(a);
    a.finish();

    let rss0 = procfs::rss(&pids);
    let cpu0 = procfs::cpu_s(&pids);
    let t0 = clock::now();
    let next = AtomicUsize::new(0);
    let run = std::process::id();
    let mut socks: Vec<TcpStream> = vec![];
    let mut errs: Vec<String> = vec![];
    std::thread::scope(|s| {
        let hs: Vec<_> = (0..par)
            .map(|_| {
                s.spawn(|| {
                    let mut v = vec![];
                    let mut e = vec![];
                    loop {
                        let i = next.fetch_add(1, Relaxed);
                        if i >= n {
                            return (v, e);
                        }
                        let r = if p == "mqtt" {
                            mqtt::connect(&mo, &format!("lgc{run}x{i}"), true).and_then(|mut c| {
                                if sub {
                                    mqtt::subscribe(&mut c.s, &[format!("lg/idle/{i}")], 1, mo.v5)?;
                                }
                                Ok(c.s)
                            })
                        } else {
                            amqp::connect(&ao).and_then(|mut c| {
                                c.open_channel(1)?;
                                Ok(c.s)
                            })
                        };
                        match r {
                            Ok(x) => v.push(x),
                            Err(x) => {
                                e.push(x);
                                if e.len() > 20 {
                                    return (v, e);
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        for h in hs {
            let (v, e) = h.join().unwrap();
            socks.extend(v);
            errs.extend(e);
        }
    });
    let open_s = (clock::now() - t0) as f64 / 1e9;
    let cpu1 = procfs::cpu_s(&pids);
    std::thread::sleep(Duration::from_secs_f64(hold));
    let rss1 = procfs::rss(&pids);
    let cpu2 = procfs::cpu_s(&pids);
    // are they all still open?
    let mut alive = 0;
    for s in &socks {
        let _ = s.set_nonblocking(true);
        let mut b = [0u8; 1];
        match s.peek(&mut b) {
            Ok(0) => {}
            Ok(_) => alive += 1,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => alive += 1,
            Err(_) => {}
        }
    }
    let per = if alive > 0 { (rss1 as f64 - rss0 as f64) / alive as f64 } else { 0.0 };
    let human = format!(
        "connections {p} x{n}: opened {} (alive {alive}) in {open_s:.2}s = {:.0}/s | rss {:.1} -> {:.1} MB, {:.1} KB per connection | cpu {:.0} us per connection, idle {:.1}% of a core{}",
        socks.len(),
        socks.len() as f64 / open_s,
        rss0 as f64 / 1048576.0,
        rss1 as f64 / 1048576.0,
        per / 1024.0,
        (cpu1 - cpu0) * 1e6 / socks.len().max(1) as f64,
        (cpu2 - cpu1) / hold.max(0.001) * 100.0,
        errs.first().map(|e| format!(" | {} errors, first: {e}", errs.len())).unwrap_or_default()
    );
    j.s("kind", "connections").s("proto", &p).n("count", n as f64).n("opened", socks.len() as f64);
    j.n("alive", alive as f64).n("open_s", open_s).n("conn_rate", socks.len() as f64 / open_s);
    j.n("rss_before_mb", rss0 as f64 / 1048576.0).n("rss_after_mb", rss1 as f64 / 1048576.0);
    j.n("kb_per_conn", per / 1024.0).n("cpu_us_per_conn", (cpu1 - cpu0) * 1e6 / socks.len().max(1) as f64);
    j.n("idle_util", (cpu2 - cpu1) / hold.max(0.001));
    if json {
        eprintln!("{human}");
        println!("{}", j.end());
    } else {
        println!("{human}");
    }
}

//! Start-up: the time to the first accepted session, and what the idle broker takes.

use crate::args::{Args, die};
use crate::json::Json;
use crate::{amqp, clock, mqtt, procfs, sys};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::time::Duration;

fn secs(a: u64, b: u64) -> f64 {
    (b - a) as f64 / 1e9
}

pub fn run(a: &Args) {
    let p = a.str("proto", "mqtt").to_string();
    let addr = a.str("addr", "127.0.0.1:1883").to_string();
    let timeout: f64 = a.num("timeout", 60.0);
    let settle: f64 = a.num("settle", 2.0);
    let json = a.flag("json");
    let (mo, ao) = (mqtt::Opts::from_args(a, &addr), amqp::Opts::from_args(a, &addr));
    let mut j = Json::labelled(a);
    a.finish();
    if a.rest.is_empty() {
        die("startup needs -- COMMAND");
    }
    if TcpStream::connect(&addr).is_ok() {
        die(&format!("something already listens on {addr}"));
    }
    let t0 = clock::now();
    let mut child = std::process::Command::new(&a.rest[0])
        .args(&a.rest[1..])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|e| die(&format!("{}: {e}", a.rest[0])));
    let pid = child.id();
    let mut first_tcp = 0;
    let ready = loop {
        let now = clock::now();
        if secs(t0, now) > timeout {
            break 0;
        }
        // a bare connect first: it costs the starting broker nothing while the port is closed
        if TcpStream::connect(&addr).is_ok() {
            if first_tcp == 0 {
                first_tcp = clock::now();
            }
            let ok = if p == "mqtt" {
                mqtt::connect(&mo, "lgstart", true).is_ok()
            } else {
                amqp::connect(&ao).is_ok()
            };
            if ok {
                break clock::now();
            }
        }
        clock::sleep_ns(500_000);
    };
    let cpu = procfs::cpu_s(&[pid]);
    std::thread::sleep(Duration::from_secs_f64(settle));
    let rss = procfs::rss(&[pid]) as f64 / 1048576.0;
    let cpu_a = procfs::cpu_s(&[pid]);
    std::thread::sleep(Duration::from_secs(1));
    let idle = procfs::cpu_s(&[pid]) - cpu_a;
    sys::kill_group(pid, libc::SIGTERM);
    for _ in 0..100 {
        if let Ok(Some(_)) = child.try_wait() {
            break;
        }
        clock::sleep_ns(100_000_000);
    }
    sys::kill_group(pid, libc::SIGKILL);
    let _ = child.wait();
    let ms = |t: u64| if t == 0 { -1.0 } else { (t - t0) as f64 / 1e6 };
    let human = format!(
        "startup: port open after {:.1} ms, first session after {:.1} ms, cpu {cpu:.2} s, idle rss {rss:.1} MB, idle cpu {:.1}%",
        ms(first_tcp),
        ms(ready),
        idle * 100.0
    );
    j.s("kind", "startup")
        .s("proto", &p)
        .n("port_ms", ms(first_tcp))
        .n("ready_ms", ms(ready))
        .n("start_cpu_s", cpu);
    j.n("idle_rss_mb", rss).n("idle_util", idle);
    if json {
        eprintln!("{human}");
        println!("{}", j.end());
    } else {
        println!("{human}");
    }
}

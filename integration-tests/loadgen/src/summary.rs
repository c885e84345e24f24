//! What a run says at its end: a line for people, an object for `report`.

use crate::account::Account;
use crate::course::{Course, Snapshot};
use crate::json::Json;
use crate::shared::Shared;
use crate::workload::Workload;

pub struct Summary<'a> {
    w: &'a Workload,
    a: &'a Account,
    c: &'a Course,
    /// Seconds that the rates are about, and the rates per second.
    window: f64,
    pub_rate: f64,
    del_rate: f64,
    conf_rate: f64,
    wall: f64,
    gen_cpu: f64,
    broker_cpu: f64,
    /// Cores used while publishing (the drain excluded).
    gen_util: f64,
    broker_util: f64,
    /// Cores used by anybody else.
    other: f64,
    steal: f64,
}

fn human(v: f64) -> String {
    if v >= 1e6 {
        format!("{:.2}M", v / 1e6)
    } else if v >= 1e4 {
        format!("{:.1}k", v / 1e3)
    } else {
        format!("{v:.0}")
    }
}

impl<'a> Summary<'a> {
    pub fn new(w: &'a Workload, a: &'a Account, c: &'a Course, sh: &Shared) -> Self {
        let secs = |from: u64, to: u64| (to - from) as f64 / 1e9;
        let t0 = c.start.at;
        let (window, pub_rate, del_rate, conf_rate);
        if w.messages > 0 {
            let tx = sh.max(|c| &c.last_tx).max(t0 + 1);
            let rx = sh.max(|c| &c.last_rx).max(t0 + 1);
            window = secs(t0, rx.max(tx));
            pub_rate = a.published as f64 / secs(t0, tx);
            del_rate = a.delivered as f64 / secs(t0, rx);
            conf_rate = a.confirmed as f64 / window;
        } else {
            let (from, to) = c.window.unwrap_or((c.end, c.end));
            window = secs(from.at, to.at).max(1e-9);
            let rate = |n: fn(&Snapshot) -> u64| (n(&to) - n(&from)) as f64 / window;
            pub_rate = rate(|s| s.published);
            del_rate = rate(|s| s.delivered);
            conf_rate = rate(|s| s.confirmed);
        }
        let wall = secs(t0, c.end.at);
        let gen_cpu = c.end.self_cpu - c.start.self_cpu;
        let broker_cpu = c.end.broker_cpu - c.start.broker_cpu;
        let measured = gen_cpu + if w.pids.is_empty() { 0.0 } else { broker_cpu };
        let (gen_util, broker_util) = match &c.window {
            Some((a, b)) => ((b.self_cpu - a.self_cpu) / window, (b.broker_cpu - a.broker_cpu) / window),
            None => (gen_cpu / wall, broker_cpu / wall),
        };
        Summary {
            w,
            a,
            c,
            window,
            pub_rate,
            del_rate,
            conf_rate,
            wall,
            gen_cpu,
            broker_cpu,
            gen_util,
            broker_util,
            other: (c.machine.0 - measured).max(0.0) / wall,
            steal: c.machine.1 / wall,
        }
    }

    /// Messages per CPU second of the broker.
    fn efficiency(&self, n: u64) -> f64 {
        if self.broker_cpu > 0.0 { n as f64 / self.broker_cpu } else { 0.0 }
    }

    pub fn line(&self) -> String {
        let (w, a) = (self.w, self.a);
        let broker = if w.pids.is_empty() {
            String::new()
        } else {
            format!(
                " broker cpu {:.2}s ({:.0}%) {} msg/cpu-s rss {:.0} MB",
                self.broker_cpu,
                self.broker_util * 100.0,
                human(self.efficiency(a.delivered)),
                self.c.peak_rss as f64 / 1048576.0
            )
        };
        let bound = self.gen_util > 0.93 * w.threads as f64;
        format!(
            "{} {}->{} {}B: pub {}/s del {}/s conf {}/s {:.1} MB/s | lat p50 {:.0} p99 {:.0} p99.9 {:.0} max {:.0} us \
             | lost {} dup {} ooo {}{} | gen cpu {:.2}s ({:.0}%){broker} | other {:.0}% steal {:.0}%{}",
            w.kind,
            w.publishers,
            w.receivers,
            w.size,
            human(self.pub_rate),
            human(self.del_rate),
            human(self.conf_rate),
            self.del_rate * w.size as f64 / 1e6,
            a.latency.us(0.5),
            a.latency.us(0.99),
            a.latency.us(0.999),
            a.latency.max_us(),
            a.lost,
            a.duplicates,
            a.out_of_order,
            a.oddities().unwrap_or_default(),
            self.gen_cpu,
            self.gen_util * 100.0,
            self.other * 100.0,
            self.steal * 100.0,
            if bound { " [GENERATOR-BOUND]" } else { "" },
        )
    }

    pub fn json(&self, mut j: Json, setup_s: f64, error: Option<&String>) -> String {
        let (w, a) = (self.w, self.a);
        let mb = |bytes: u64| bytes as f64 / 1048576.0;
        j.s("kind", &w.kind).s("from", w.from.name()).s("to", w.to.name());
        j.n("publishers", w.publishers as f64).n("receivers", w.receivers as f64);
        j.n("topics", w.topics as f64).n("size", w.size as f64);
        j.n("qos", w.qos as f64).n("seconds", self.window).n("wall_s", self.wall).n("setup_s", setup_s);
        j.n("published", a.published as f64)
            .n("delivered", a.delivered as f64)
            .n("expected", a.expected as f64);
        j.n("confirmed", a.confirmed as f64).n("lost", a.lost as f64);
        j.n("dup", a.duplicates as f64).n("ooo", a.out_of_order as f64);
        j.n("redelivered", a.redelivered as f64).n("stray", a.stray as f64).n("bad", a.bad as f64);
        j.n("unconfirmed", a.unconfirmed as f64).n("nacked", a.nacked as f64);
        j.n("disconnects", a.disconnects as f64);
        j.n("pub_rate", self.pub_rate).n("del_rate", self.del_rate).n("conf_rate", self.conf_rate);
        j.n("bytes_rate", self.del_rate * a.bytes as f64 / a.delivered.max(1) as f64);
        for (q, n) in [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p999")] {
            j.n(&format!("lat_{n}_us"), a.latency.us(q));
        }
        j.n("lat_max_us", a.latency.max_us());
        for (q, n) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p999")] {
            if a.confirmed > 0 {
                j.n(&format!("conf_{n}_us"), a.confirm_latency.us(q));
            }
            if w.rate > 0.0 {
                j.n(&format!("sendlag_{n}_us"), a.send_lag.us(q));
            }
        }
        j.n("gen_cpu_s", self.gen_cpu).n("gen_util", self.gen_util);
        if !w.pids.is_empty() {
            j.n("broker_cpu_s", self.broker_cpu).n("broker_util", self.broker_util);
            j.n("eff_delivered_per_cpu_s", self.efficiency(a.delivered));
            j.n("eff_published_per_cpu_s", self.efficiency(a.published));
            j.n("broker_peak_rss_mb", mb(self.c.peak_rss)).n("broker_rss_mb", mb(self.c.end_rss));
        }
        j.n("other_cpu", self.other).n("steal", self.steal);
        if let Some(e) = error {
            j.s("error", e);
        }
        j.end()
    }
}

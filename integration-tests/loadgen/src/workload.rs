//! What a run of `mqtt`, `amqp` or `cross` is asked to do.

use crate::args::{Args, die};
use crate::{amqp, mqtt};
use std::time::SystemTime;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Proto {
    Mqtt,
    Amqp,
}

impl Proto {
    fn parse(s: &str) -> Proto {
        match s {
            "mqtt" => Proto::Mqtt,
            "amqp" => Proto::Amqp,
            _ => die(&format!("unknown protocol {s}")),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Proto::Mqtt => "mqtt",
            Proto::Amqp => "amqp",
        }
    }
}

pub struct Workload {
    pub kind: String,
    pub from: Proto,
    pub to: Proto,
    pub mqtt: mqtt::Opts,
    pub amqp: amqp::Opts,
    pub publishers: usize,
    pub receivers: usize,
    /// Topics, or queues.
    pub topics: usize,
    pub qos: u8,
    /// Payload bytes.
    pub size: usize,
    /// How many to publish in all; 0: as many as `seconds` allow.
    pub messages: u64,
    pub seconds: f64,
    pub warmup: f64,
    /// Messages a second of all publishers; 0: as fast as possible.
    pub rate: f64,
    pub inflight: usize,
    pub confirm: usize,
    pub persistent: bool,
    pub durable: bool,
    pub prefetch: u16,
    pub auto_ack: bool,
    pub ack_batch: u32,
    pub priorities: usize,
    pub retain: bool,
    /// MQTT 5 user properties of each message.
    pub properties: usize,
    pub group: Option<String>,
    pub wildcard: bool,
    pub exchange: String,
    pub threads: usize,
    pub batch_bytes: usize,
    pub batch: usize,
    pub settle_ms: u64,
    pub drain: f64,
    pub stall: f64,
    pub keep: bool,
    pub json: bool,
    pub quiet: bool,
    pub pids: Vec<u32>,
    pub queue_args: Vec<(String, String)>,
    pub max_lag: u64,
    pub poll_us: u64,
    pub spin: bool,
    pub raw_deliver: bool,
    /// Tells this run's messages from those of others.
    pub run: u16,
    /// What its topics, queues and exchanges have in their names: the run, unless a broker is configured for them.
    pub names: u16,
}

impl Workload {
    pub fn parse(kind: &str, a: &Args) -> Workload {
        let (from, to) = match kind {
            "mqtt" => (Proto::Mqtt, Proto::Mqtt),
            "amqp" => (Proto::Amqp, Proto::Amqp),
            _ => (Proto::parse(a.str("from", "mqtt")), Proto::parse(a.str("to", "amqp"))),
        };
        let addr = a.opt("addr");
        let messages: u64 = a.num("messages", 0);
        let seconds: f64 = a.num("seconds", 0.0);
        let persistent = a.flag("persistent");
        let prefetch: u16 = a.num("prefetch", 0);
        let ack_batch: u32 = a.num("ack-batch", 1);
        let rate: f64 = a.num("rate", 0.0);
        let pair = |p: &str| p.split_once('=').map(|(k, v)| (k.to_string(), v.to_string()));
        let run = run_id();
        let w = Workload {
            kind: kind.into(),
            from,
            to,
            mqtt: mqtt::Opts::from_args(a, a.opt("mqtt-addr").or(addr).unwrap_or("127.0.0.1:1883")),
            amqp: amqp::Opts::from_args(a, a.opt("amqp-addr").or(addr).unwrap_or("127.0.0.1:5672")),
            publishers: a.num("publishers", 1),
            receivers: a.num("consumers", a.num("subscribers", 1)),
            topics: a.num("topics", a.num("queues", 1)),
            qos: a.num("qos", 0),
            size: a.num("size", 16).max(16),
            messages,
            seconds: if messages == 0 && seconds == 0.0 { 3.0 } else { seconds },
            warmup: a.num("warmup", if messages > 0 { 0.0 } else { 0.5 }),
            rate,
            inflight: a.num("inflight", 100),
            confirm: a.num("confirm", 0),
            persistent,
            durable: a.flag("durable") || persistent,
            prefetch,
            auto_ack: a.flag("auto-ack"),
            ack_batch: if prefetch > 0 { ack_batch.min(prefetch as u32) } else { ack_batch },
            priorities: a.num("priorities", 0),
            retain: a.flag("retain"),
            properties: a.num("properties", 0),
            group: a.opt("shared").map(Into::into),
            wildcard: a.flag("wildcard"),
            exchange: a.str("exchange", if from != to { "topic" } else { "default" }).into(),
            threads: a.num("threads", 1),
            batch_bytes: a.num("batch-bytes", 65536),
            batch: a.num("batch", 100_000),
            settle_ms: a.num("settle-ms", 200),
            drain: a.num("drain", 15.0),
            stall: a.num("stall", 2.0),
            keep: a.flag("keep"),
            json: a.flag("json"),
            quiet: a.flag("quiet"),
            pids: a.pids(),
            queue_args: a.str("queue-args", "").split(',').filter_map(pair).collect(),
            max_lag: a.num("max-lag", 0),
            poll_us: a.num("poll-us", if rate > 0.0 { 0 } else { 100 }),
            spin: a.flag("spin"),
            raw_deliver: a.flag("raw-deliver"),
            run,
            names: a.num("names", run),
        };
        w.check();
        w
    }

    fn check(&self) {
        if self.fanout() && self.receivers < self.topics {
            die("--exchange fanout needs at least one consumer a queue");
        }
        if self.priorities > 0 && self.from != Proto::Amqp {
            die("--priorities is for AMQP publishers");
        }
        if self.properties > 0 && (self.from != Proto::Mqtt || !self.mqtt.v5) {
            die("--properties is for MQTT 5 publishers: give --v5 too");
        }
        if self.qos > 2 || self.inflight == 0 || self.inflight > 65535 {
            die("bad --qos or --inflight");
        }
        if !["default", "direct", "topic", "fanout"].contains(&self.exchange.as_str()) {
            die(&format!("unknown --exchange {}", self.exchange));
        }
    }

    /// Every queue gets every message.
    pub fn fanout(&self) -> bool {
        self.to == Proto::Amqp && self.exchange == "fanout"
    }

    pub fn topic(&self, t: usize) -> String {
        format!("lg/{:04x}/t{t}", self.names)
    }

    pub fn queue(&self, t: usize) -> String {
        format!("lg.{:04x}.q{t}", self.names)
    }

    /// The exchange that AMQP publishers name.
    pub fn exchange_name(&self) -> String {
        match self.exchange.as_str() {
            _ if self.to == Proto::Mqtt => "amq.topic".into(),
            "direct" => "amq.direct".into(),
            "topic" => "amq.topic".into(),
            "fanout" => format!("lg.{:04x}.x", self.names),
            _ => String::new(),
        }
    }

    /// The routing key of a topic, as AMQP publishers give it and queues are bound by.
    pub fn key(&self, t: usize) -> String {
        if self.to == Proto::Amqp && self.exchange == "default" {
            self.queue(t)
        } else {
            format!("lg.{:04x}.t{t}", self.names)
        }
    }

    /// The MQTT 5 properties of each message; none for 3.1.1.
    pub fn properties(&self) -> Option<usize> {
        self.mqtt.v5.then_some(self.properties)
    }
}

fn run_id() -> u16 {
    let t = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = (t.subsec_nanos() as u64 >> 4) ^ t.as_secs();
    ((std::process::id() as u64 * 40503) ^ seed) as u16
}

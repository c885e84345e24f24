//! Queues, receivers and publishers of a run, connected before the clock starts.

use crate::args::die;
use crate::connection::{Connection, Party};
use crate::consumer::Consumer;
use crate::plan::{Plan, Receiver};
use crate::publisher::{Flow, Publisher};
use crate::reactor::Reactor;
use crate::ring::Ring;
use crate::shared::Shared;
use crate::subscriber::Subscriber;
use crate::workload::{Proto, Workload};
use crate::{amqp, mqtt};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

pub struct Setup<'a> {
    w: &'a Workload,
    plan: &'a Plan,
    admin: Option<amqp::Conn>,
}

/// A publisher's socket, its frames with the offsets of packet id and payload, and how it is held back.
struct Source {
    stream: TcpStream,
    frames: Vec<(Vec<u8>, usize, usize)>,
    flow: Flow,
    window: usize,
}

fn share(total: u64, parts: usize, i: usize) -> u64 {
    total / parts as u64 + (((total % parts as u64) as usize) > i) as u64
}

fn or_die<T>(what: &str, r: Result<T, String>) -> T {
    r.unwrap_or_else(|e| die(&format!("{what}: {e}")))
}

impl<'a> Setup<'a> {
    /// Declares what the run needs.
    pub fn new(w: &'a Workload, plan: &'a Plan) -> Setup<'a> {
        let admin = (w.to == Proto::Amqp).then(|| or_die("admin", Self::declare(w)));
        Setup { w, plan, admin }
    }

    fn declare(w: &Workload) -> Result<amqp::Conn, String> {
        let ex = w.exchange_name();
        let mut c = amqp::connect(&w.amqp)?;
        c.open_channel(1)?;
        if w.fanout() {
            c.declare_exchange(&ex, "fanout", w.durable)?;
        }
        for t in 0..w.topics {
            c.declare_queue(&w.queue(t), w.durable, false, &w.queue_args)?;
            if !ex.is_empty() {
                c.bind(&w.queue(t), &ex, &w.key(t))?;
            }
        }
        Ok(c)
    }

    /// Connects everybody: receivers first. The threads are as many as `sh` has counters.
    pub fn connect(&self, sh: &Arc<Shared>) -> Vec<Reactor> {
        let threads = sh.counters.len();
        let mut reactors: Vec<Reactor> = (0..threads).map(|i| Reactor::new(i, sh.clone())).collect();
        for (s, rx) in self.plan.receivers.iter().enumerate() {
            let r = &mut reactors[(self.w.publishers + s) % threads];
            let domain = r.results.tally.domain(rx.domain, rx.shared, self.plan.streams.len());
            let name = format!("receiver {s}");
            let (stream, party) = or_die(&name, self.receiver(s, rx, domain));
            r.add(Connection::new(stream, party, name));
        }
        for p in 0..self.w.publishers {
            let name = format!("publisher {p}");
            let (stream, party) = or_die(&name, self.publisher(p));
            reactors[p % threads].add(Connection::new(stream, party, name));
        }
        reactors
    }

    fn subscriber_id(&self, s: usize) -> String {
        format!("lg{:04x}s{s}", self.w.run)
    }

    fn receiver(&self, s: usize, rx: &Receiver, domain: usize) -> Result<(TcpStream, Party), String> {
        let w = self.w;
        let last = if rx.shared { vec![0u32; self.plan.streams.len()] } else { vec![] };
        match w.to {
            Proto::Mqtt => {
                let mut c = mqtt::connect(&w.mqtt, &self.subscriber_id(s), !w.persistent)?;
                let group = w.group.as_ref().map_or(String::new(), |g| format!("$share/{g}/"));
                let filters: Vec<String> = if w.wildcard {
                    vec![format!("{group}lg/{:04x}/#", w.names)]
                } else {
                    rx.topics.iter().map(|&t| format!("{group}{}", w.topic(t))).collect()
                };
                mqtt::subscribe(&mut c.s, &filters, w.qos, w.mqtt.v5)?;
                Ok((c.s, Party::Subscriber(Box::new(Subscriber::new(domain, last, w.mqtt.v5)))))
            }
            Proto::Amqp => {
                let mut c = amqp::connect(&w.amqp)?;
                c.open_channel(1)?;
                if w.prefetch > 0 && !w.auto_ack {
                    c.qos(w.prefetch)?;
                }
                for &t in &rx.topics {
                    c.consume(&w.queue(t), &format!("c{t}"), w.auto_ack)?;
                }
                let consumer = Consumer::new(domain, last, w.auto_ack, w.ack_batch, w.raw_deliver);
                Ok((c.s, Party::Consumer(Box::new(consumer))))
            }
        }
    }

    fn publisher(&self, p: usize) -> Result<(TcpStream, Party), String> {
        let w = self.w;
        let src = match w.from {
            Proto::Mqtt => self.mqtt_source(p)?,
            Proto::Amqp => self.amqp_source(p)?,
        };
        let cycle: usize = src.frames.iter().map(|f| f.0.len()).sum();
        let mut rounds = (w.batch_bytes / cycle.max(1)).max(1);
        if src.flow != Flow::Free {
            // no need for more frames than the window
            rounds = rounds.min(src.window.div_ceil(src.frames.len()).max(1));
        }
        let mut ring = Ring::default();
        for _ in 0..rounds {
            for (l, (b, id, at)) in src.frames.iter().enumerate() {
                ring.push(b, *id, *at, l);
            }
        }
        let streams = self.plan.of(p).iter().map(|x| x.0).collect();
        let quota = if w.messages > 0 { share(w.messages, w.publishers, p) } else { u64::MAX };
        let window = if src.flow == Flow::Free { 0 } else { src.window };
        let mut publisher = Publisher::new(src.flow, ring, streams, quota, window, w.batch);
        if w.rate > 0.0 {
            publisher.interval = 1e9 * w.publishers as f64 / w.rate;
            publisher.phase = 1e9 * p as f64 / w.rate;
        }
        let party = match w.from {
            Proto::Mqtt => Party::MqttPublisher(Box::new(publisher)),
            Proto::Amqp => Party::AmqpPublisher(Box::new(publisher)),
        };
        Ok((src.stream, party))
    }

    fn payload(&self) -> Vec<u8> {
        (0..self.w.size).map(|i| b'a' + (i % 26) as u8).collect()
    }

    fn mqtt_source(&self, p: usize) -> Result<Source, String> {
        let (w, payload) = (self.w, self.payload());
        let c = mqtt::connect(&w.mqtt, &format!("lg{:04x}p{p}", w.run), true)?;
        let frame = |topic| mqtt::publish_packet(&w.topic(topic), &payload, w.qos, w.retain, w.properties());
        let frames = self.plan.of(p).iter().map(|x| frame(x.1.topic)).collect();
        let (flow, window) = match w.qos {
            0 => (Flow::Free, w.inflight),
            _ => (Flow::Mqtt, w.inflight.min(c.receive_max as usize)),
        };
        Ok(Source { stream: c.s, frames, flow, window })
    }

    fn amqp_source(&self, p: usize) -> Result<Source, String> {
        let (w, payload) = (self.w, self.payload());
        let mut c = amqp::connect(&w.amqp)?;
        c.open_channel(1)?;
        if w.confirm > 0 {
            c.confirm_select()?;
        }
        let (ex, mode) = (w.exchange_name(), 1 + w.persistent as u8);
        let frames = self.plan.of(p).into_iter().map(|(_, s)| {
            let priority = (w.priorities > 0).then_some(s.priority as u8);
            let (b, at) = amqp::publish_frames(&ex, &w.key(s.topic), &payload, mode, priority, c.frame_max);
            (b, 0, at)
        });
        let frames = frames.collect();
        let flow = if w.confirm > 0 { Flow::Confirm } else { Flow::Free };
        Ok(Source { stream: c.s, frames, flow, window: if w.confirm > 0 { w.confirm } else { w.inflight } })
    }

    /// Removes what the run left in the broker: queues, sessions, retained messages.
    pub fn tidy(self) {
        let w = self.w;
        let persistent_sessions = w.to == Proto::Mqtt && w.persistent;
        for s in 0..if persistent_sessions { w.receivers } else { 0 } {
            let _ = mqtt::connect(&w.mqtt, &self.subscriber_id(s), true);
        }
        if w.from == Proto::Mqtt
            && w.retain
            && let Ok(mut c) = mqtt::connect(&w.mqtt, &format!("lg{:04x}clean", w.run), true)
        {
            for t in 0..w.topics {
                let (b, ..) = mqtt::publish_packet(&w.topic(t), b"", 0, true, w.mqtt.v5.then_some(0));
                let _ = c.s.write_all(&b);
            }
            let _ = c.s.write_all(&[0xe0, 0]);
        }
        if let Some(mut c) = self.admin {
            for t in 0..w.topics {
                let _ = c.delete_queue(&w.queue(t));
            }
            if w.fanout() {
                let _ = c.delete_exchange(&w.exchange_name());
            }
            c.close();
        }
    }
}

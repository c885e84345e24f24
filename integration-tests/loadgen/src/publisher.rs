//! A publisher: what it sends next, and what it has not had acknowledged.

use crate::latency::Latency;
use crate::ring::Ring;
use crate::shared::Shared;
use crate::{amqp, mqtt, stamp};
use std::collections::VecDeque;

#[derive(Clone, Copy, PartialEq)]
pub enum Flow {
    Free,
    /// MQTT QoS 1 or 2 with a window of packet ids.
    Mqtt,
    /// AMQP publisher confirms.
    Confirm,
}

/// What a publisher does after one batch.
pub enum Step {
    Again,
    /// Waits for acknowledgements, for room in the socket, or is finished.
    Idle,
    /// Waits for deliveries (the lag limit).
    Lag,
    /// Open loop: the next one is due then.
    Due(u64),
}

/// Acknowledgements that came back.
#[derive(Default)]
pub struct Confirms {
    pub latency: Latency,
    pub confirmed: u64,
    pub nacked: u64,
}

impl Confirms {
    fn record(&mut self, accepted: bool, waited: u64) {
        if accepted {
            self.confirmed += 1;
            self.latency.record(waited);
        } else {
            self.nacked += 1;
        }
    }
}

pub struct Publisher {
    pub flow: Flow,
    pub ring: Ring,
    pub streams: Vec<u32>,
    pub seqs: Vec<u32>,
    /// Messages still to be sent.
    pub quota: u64,
    pub window: usize,
    /// Open loop: nanoseconds between messages (0: as fast as possible), and when the first one is due.
    pub interval: f64,
    pub phase: f64,
    pub next_due: f64,
    /// Part of the ring that is still to be written.
    pub pending: (usize, usize),
    /// Part of `pending` is already written.
    pub started: bool,
    /// In the reactor's list of publishers to step.
    pub queued: bool,
    pub unconfirmed: usize,
    cur: usize,
    free: VecDeque<u16>,
    sent_at: Vec<u64>,
    state: Vec<u8>,
    base: u64,
    out: VecDeque<u64>,
    batch: usize,
}

/// A batch that was stamped and now waits to be written.
pub struct Filled {
    pub published: u64,
    pub expected: u64,
    pub then: Step,
}

impl Publisher {
    pub fn new(
        flow: Flow,
        ring: Ring,
        streams: Vec<u32>,
        quota: u64,
        window: usize,
        batch: usize,
    ) -> Publisher {
        let w = if flow == Flow::Mqtt { window } else { 0 };
        Publisher {
            flow,
            ring,
            seqs: vec![0; streams.len()],
            streams,
            quota,
            window,
            interval: 0.0,
            phase: 0.0,
            next_due: 0.0,
            cur: 0,
            pending: (0, 0),
            free: (1..=w as u16).collect(),
            sent_at: vec![0; w + 1],
            state: vec![0; w + 1],
            base: 1,
            out: VecDeque::new(),
            unconfirmed: 0,
            batch,
            queued: false,
            started: false,
        }
    }

    /// May begin another batch.
    pub fn ready(&self, stop: bool) -> bool {
        self.pending.0 == self.pending.1 && !stop && self.quota > 0
    }

    /// Nothing more can be sent until acknowledgements come, or ever.
    pub fn blocked(&self) -> bool {
        self.quota == 0 || self.window > 0 && self.unconfirmed >= self.window
    }

    /// Still has something to send or to hear of.
    pub fn busy(&self, stop: bool) -> bool {
        self.quota > 0 && !stop || self.pending.0 < self.pending.1 || self.unconfirmed > 0
    }

    /// Stamps the next batch. `lag` is how many deliveries are outstanding.
    pub fn fill(
        &mut self,
        now: u64,
        sh: &Shared,
        lag: impl FnOnce() -> u64,
        send_lag: &mut Latency,
    ) -> Filled {
        let mut then = Step::Idle;
        let mut n = (self.ring.len() - self.cur).min(self.batch).min(self.quota as usize);
        if self.window > 0 {
            n = n.min(self.window - self.unconfirmed.min(self.window));
        }
        if self.interval > 0.0 && n > 0 {
            let late = now as f64 - self.next_due;
            let due = if late < 0.0 { 0 } else { (late / self.interval) as usize + 1 };
            if due < n {
                n = due;
                then = Step::Due((self.next_due + self.interval * n as f64) as u64);
            }
        }
        if sh.max_lag > 0 && n > 0 {
            let fan = sh.fan[self.streams[0] as usize].max(1) as u64;
            let room = (sh.max_lag.saturating_sub(lag()) / fan) as usize;
            // refill in parts of the allowance: many small writes would make the generator the bottleneck
            if room < n {
                n = if room as u64 * fan * 8 < sh.max_lag { 0 } else { room };
                then = Step::Lag;
            }
        }
        let mut expected = 0u64;
        for k in self.cur..self.cur + n {
            let f = self.ring.frames[k];
            let l = f.stream as usize;
            let ts = if self.interval > 0.0 {
                let d = self.next_due as u64;
                self.next_due += self.interval;
                send_lag.record(now.saturating_sub(d));
                d
            } else {
                now
            };
            let at = f.payload as usize;
            stamp::put(&mut self.ring.bytes[at..at + stamp::LEN], ts, self.seqs[l], self.streams[l], sh.run);
            self.seqs[l] = self.seqs[l].wrapping_add(1);
            expected += sh.fan[self.streams[l] as usize] as u64;
            match self.flow {
                Flow::Free => {}
                Flow::Mqtt => {
                    let id = self.free.pop_front().expect("as many free ids as the window has room");
                    let b = f.packet_id as usize;
                    self.ring.bytes[b..b + 2].copy_from_slice(&id.to_be_bytes());
                    self.sent_at[id as usize] = ts;
                    self.state[id as usize] = 1;
                    self.unconfirmed += 1;
                }
                Flow::Confirm => {
                    self.out.push_back(ts);
                    self.unconfirmed += 1;
                }
            }
        }
        if n > 0 {
            let (first, last) = (self.ring.frames[self.cur], self.ring.frames[self.cur + n - 1]);
            self.started = false;
            self.pending = (first.start as usize, last.end as usize);
            self.quota -= n as u64;
            self.cur = (self.cur + n) % self.ring.len();
        }
        Filled { published: n as u64, expected, then }
    }

    /// Reads what an MQTT broker answers; returns the bytes used.
    pub fn read_mqtt(
        &mut self,
        out: &mut Vec<u8>,
        d: &[u8],
        confirms: &mut Confirms,
        now: u64,
    ) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let b = &d[at..];
            let Some((first, h, n)) = mqtt::header(b) else {
                return Ok(at);
            };
            if b.len() < h + n {
                return Ok(at);
            }
            match first >> 4 {
                t @ (4 | 5 | 7) => {
                    let id = mqtt::be16(&b[h..]) as usize;
                    if id == 0 || id >= self.state.len() {
                        return Err(format!("acknowledges an unknown packet id {id}"));
                    }
                    let refused = n > 2 && b[h + 2] >= 0x80;
                    if t == 5 && !refused {
                        if self.state[id] == 1 {
                            self.state[id] = 2;
                        }
                        out.extend_from_slice(&[0x62, 2, b[h], b[h + 1]]);
                    } else if self.state[id] != 0 {
                        self.state[id] = 0;
                        self.free.push_back(id as u16);
                        self.unconfirmed -= 1;
                        confirms.record(!refused, now.saturating_sub(self.sent_at[id]));
                    }
                }
                13 => {}
                14 => return Err(format!("DISCONNECT {:?}", &b[h..h + n])),
                t => return Err(format!("unexpected packet type {t}")),
            }
            at += h + n;
        }
    }

    /// Reads what an AMQP broker answers; returns the bytes used.
    pub fn read_amqp(
        &mut self,
        out: &mut Vec<u8>,
        d: &[u8],
        confirms: &mut Confirms,
        now: u64,
    ) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let b = &d[at..];
            let Some((ty, n)) = amqp::frame_at(b)? else {
                return Ok(at);
            };
            let m = &b[7..7 + n];
            if ty == 1 {
                match amqp::id(m) {
                    id @ ((60, 80) | (60, 120)) => {
                        let tag = amqp::be64(&m[4..]);
                        self.confirm(tag, m[12] & 1 == 1, id.1 == 80, confirms, now)?;
                    }
                    (10, 50) | (20, 40) => return Err(amqp::close_text(m)),
                    (20, 20) => {
                        let mut w = amqp::W::method(20, 21);
                        w.u8(m[4]);
                        out.extend_from_slice(&w.frame(1, 1));
                    }
                    (10, 60) | (10, 61) => {} // blocked / unblocked: TCP back-pressure follows anyway
                    (c, k) => return Err(format!("unexpected method {c}.{k}")),
                }
            }
            at += n + 8;
        }
    }

    fn confirm(
        &mut self,
        tag: u64,
        multiple: bool,
        accepted: bool,
        confirms: &mut Confirms,
        now: u64,
    ) -> Result<(), String> {
        let unconfirmed = &mut self.unconfirmed;
        let mut one = |ts: &mut u64| {
            if *ts != 0 {
                *unconfirmed -= 1;
                confirms.record(accepted, now.saturating_sub(*ts));
                *ts = 0;
            }
        };
        if tag < self.base && !(multiple && tag == 0) || tag >= self.base + self.out.len() as u64 {
            return Err(format!("confirms an unknown tag {tag}"));
        }
        if multiple {
            let k = if tag == 0 { self.out.len() } else { (tag - self.base + 1) as usize };
            self.out.iter_mut().take(k).for_each(one);
        } else {
            one(&mut self.out[(tag - self.base) as usize]);
        }
        while self.out.front() == Some(&0) {
            self.out.pop_front();
            self.base += 1;
        }
        Ok(())
    }
}

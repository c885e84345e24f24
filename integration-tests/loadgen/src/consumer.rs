//! An AMQP receiver.

use crate::tally::Tally;
use crate::{amqp, stamp};

/// An incomplete batch is acknowledged when the consumer got nothing for this long.
const ACK_AFTER_NS: u64 = 20_000_000;

pub struct Consumer {
    domain: usize,
    last: Vec<u32>,
    auto_ack: bool,
    ack_batch: u32,
    raw: bool,
    tag: u64,
    unacked: u32,
    left: u64,
    size: u64,
    first: [u8; stamp::LEN],
    got: usize,
}

impl Consumer {
    /// `raw`: the deliveries are basic.publish frames of a bare copier.
    pub fn new(domain: usize, last: Vec<u32>, auto_ack: bool, ack_batch: u32, raw: bool) -> Consumer {
        Consumer {
            domain,
            last,
            auto_ack,
            ack_batch,
            raw,
            tag: 0,
            unacked: 0,
            left: 0,
            size: 0,
            first: [0; stamp::LEN],
            got: 0,
        }
    }

    /// Acknowledges an incomplete batch once nothing has come for a while; true when there was one.
    pub fn acknowledge_rest(&mut self, out: &mut Vec<u8>, idle_ns: u64) -> bool {
        let due = self.unacked > 0 && idle_ns > ACK_AFTER_NS;
        if due {
            out.extend_from_slice(&amqp::ack_frame(self.tag, true));
            self.unacked = 0;
        }
        due
    }

    /// Counts what arrived and writes the acknowledgements to `out`; returns the bytes used.
    pub fn read(
        &mut self,
        out: &mut Vec<u8>,
        d: &[u8],
        tally: &mut Tally,
        now: u64,
    ) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let b = &d[at..];
            let Some((ty, n)) = amqp::frame_at(b)? else {
                return Ok(at);
            };
            let m = &b[7..7 + n];
            match ty {
                3 => self.body(m, out, tally, now),
                2 => {
                    self.size = amqp::be64(&m[4..]);
                    self.left = self.size;
                    self.got = 0;
                    if self.size == 0 {
                        tally.bad += 1;
                    }
                }
                1 => match amqp::id(m) {
                    (60, 60) => {
                        let t = 5 + m[4] as usize;
                        self.tag = amqp::be64(&m[t..]);
                        if m[t + 8] & 1 == 1 {
                            tally.redelivered += 1;
                        }
                    }
                    (60, 40) if self.raw => self.tag += 1,
                    (10, 50) | (20, 40) => return Err(amqp::close_text(m)),
                    (60, 30) => return Err("consumer cancelled by the broker".into()),
                    (10, 60) | (10, 61) => {}
                    (c, k) => return Err(format!("unexpected method {c}.{k}")),
                },
                8 => {}
                t => return Err(format!("unexpected frame type {t}")),
            }
            at += n + 8;
        }
    }

    #[inline(always)]
    fn body(&mut self, part: &[u8], out: &mut Vec<u8>, tally: &mut Tally, now: u64) {
        if self.got < stamp::LEN {
            let k = (stamp::LEN - self.got).min(part.len());
            self.first[self.got..self.got + k].copy_from_slice(&part[..k]);
            self.got += k;
        }
        self.left = self.left.saturating_sub(part.len() as u64);
        if self.left > 0 {
            return;
        }
        tally.deliver(self.domain, &mut self.last, &self.first[..self.got], self.size as usize, now);
        if self.auto_ack {
            return;
        }
        self.unacked += 1;
        if self.unacked >= self.ack_batch {
            out.extend_from_slice(&amqp::ack_frame(self.tag, self.ack_batch > 1));
            self.unacked = 0;
        }
    }
}

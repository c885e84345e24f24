//! What one thread's receivers got.

use crate::latency::Latency;
use crate::stamp;
use crate::track::{Arrival, Bits, Seq, Track};

#[derive(Default)]
pub struct Tally {
    /// Domains by their number in the whole run.
    pub domains: Vec<(usize, Track)>,
    pub latency: Latency,
    pub delivered: u64,
    pub bytes: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub redelivered: u64,
    pub stray: u64,
    pub bad: u64,
    pub run: u16,
    /// Bytes that every payload should have.
    pub payload: usize,
}

impl Tally {
    /// This thread's number for a domain of the run.
    pub fn domain(&mut self, global: usize, group: bool, streams: usize) -> usize {
        if let Some(i) = self.domains.iter().position(|d| d.0 == global) {
            return i;
        }
        let t = if group {
            Track::Group(vec![Bits::default(); streams])
        } else {
            Track::Alone(vec![Seq::default(); streams])
        };
        self.domains.push((global, t));
        self.domains.len() - 1
    }

    /// Counts a payload of `len` bytes that begins with `p`. `last` is, in a group, the highest sequence number that
    /// this receiver had of each stream, plus one.
    #[inline(always)]
    pub fn deliver(&mut self, domain: usize, last: &mut [u32], p: &[u8], len: usize, now: u64) {
        if p.len() < stamp::LEN {
            self.bad += 1;
            return;
        }
        let (ts, seq, stream, run) = stamp::get(p);
        if run != self.run {
            self.stray += 1;
            return;
        }
        if len != self.payload {
            self.bad += 1;
        }
        self.delivered += 1;
        self.bytes += len as u64;
        self.latency.record(now.saturating_sub(ts));
        match &mut self.domains[domain].1 {
            Track::Alone(v) => match v.get_mut(stream as usize) {
                Some(s) if seq == s.next => s.next += 1,
                Some(s) => match s.odd(seq) {
                    Arrival::Gap => {}
                    Arrival::Late => self.out_of_order += 1,
                    Arrival::Dup => self.duplicates += 1,
                },
                None => self.stray += 1,
            },
            Track::Group(v) => match v.get_mut(stream as usize) {
                Some(b) => {
                    if b.set(seq) {
                        self.duplicates += 1;
                    } else if seq + 1 < last[stream as usize] {
                        self.out_of_order += 1;
                    } else {
                        last[stream as usize] = seq + 1;
                    }
                }
                None => self.stray += 1,
            },
        }
    }
}

//! An MQTT receiver.

use crate::tally::Tally;
use crate::{mqtt, stamp};

/// A publish whose bytes exceed this is not gathered whole: its tail is skipped as it streams in.
const BIG: usize = 64 << 10;

pub struct Subscriber {
    domain: usize,
    last: Vec<u32>,
    v5: bool,
    /// Bytes of a big publish still to come, and what to count when they have.
    skip: usize,
    big: Big,
}

#[derive(Default, Clone, Copy)]
struct Big {
    stamp: [u8; stamp::LEN],
    len: usize,
    qos: u8,
    packet_id: u16,
}

#[inline(always)]
fn acknowledge(out: &mut Vec<u8>, qos: u8, id: u16) {
    match qos {
        1 => out.extend_from_slice(&[0x40, 2, (id >> 8) as u8, id as u8]),
        2 => out.extend_from_slice(&[0x50, 2, (id >> 8) as u8, id as u8]),
        _ => {}
    }
}

impl Subscriber {
    pub fn new(domain: usize, last: Vec<u32>, v5: bool) -> Subscriber {
        Subscriber { domain, last, v5, skip: 0, big: Big::default() }
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
            if self.skip > 0 {
                let k = self.skip.min(d.len() - at);
                self.skip -= k;
                at += k;
                if self.skip > 0 {
                    return Ok(at);
                }
                let b = self.big;
                tally.deliver(self.domain, &mut self.last, &b.stamp, b.len, now);
                acknowledge(out, b.qos, b.packet_id);
            }
            let b = &d[at..];
            let Some((first, h, n)) = mqtt::header(b) else {
                return Ok(at);
            };
            let total = h + n;
            let whole = b.len() >= total;
            if !whole && (first >> 4 != 3 || total < BIG) {
                return Ok(at);
            }
            match first >> 4 {
                3 => {
                    let qos = (first >> 1) & 3;
                    if b.len() < h + 2 {
                        return Ok(at);
                    }
                    let mut p = h + 2 + mqtt::be16(&b[h..]) as usize;
                    if b.len() < p + 2 + 4 + stamp::LEN && !whole {
                        return Ok(at);
                    }
                    if p + if qos > 0 { 2 } else { 0 } > total {
                        return Err("malformed PUBLISH".into());
                    }
                    let mut id = 0;
                    if qos > 0 {
                        id = mqtt::be16(&b[p..]);
                        p += 2;
                    }
                    if self.v5 {
                        let properties = mqtt::varint(b, &mut p);
                        p += properties;
                    }
                    if p > total || (!whole && b.len() < p + stamp::LEN) {
                        return if whole { Err("malformed PUBLISH".into()) } else { Ok(at) };
                    }
                    if first & 8 != 0 {
                        tally.redelivered += 1;
                    }
                    if whole {
                        tally.deliver(self.domain, &mut self.last, &b[p..total], total - p, now);
                        acknowledge(out, qos, id);
                        at += total;
                    } else {
                        let mut stamp = [0; stamp::LEN];
                        stamp.copy_from_slice(&b[p..p + stamp::LEN]);
                        self.big = Big { stamp, len: total - p, qos, packet_id: id };
                        self.skip = total - b.len();
                        return Ok(d.len());
                    }
                }
                6 => {
                    out.extend_from_slice(&[0x70, 2, b[h], b[h + 1]]);
                    at += total;
                }
                13 => at += total,
                14 => return Err(format!("DISCONNECT {:?}", &b[h..total])),
                t => return Err(format!("unexpected packet type {t}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_big_publish_that_streams_in_is_counted_and_acknowledged_once() {
        let mut payload = vec![b'x'; 200_000];
        stamp::put(&mut payload[..16], 1, 0, 0, 9);
        let (bytes, id, _) = mqtt::publish_packet("t", &payload, 1, false, Some(0));
        let mut tally = Tally { run: 9, payload: payload.len(), ..Tally::default() };
        let domain = tally.domain(0, false, 1);
        let mut s = Subscriber::new(domain, vec![], true);
        let (mut left, mut out) = (vec![], vec![]);
        for part in bytes.chunks(70_000) {
            left.extend_from_slice(part);
            let used = s.read(&mut out, &left, &mut tally, 2).unwrap();
            left.drain(..used);
        }
        assert_eq!((tally.delivered, tally.bad, tally.bytes), (1, 0, 200_000));
        assert_eq!(out, [0x40, 2, bytes[id], bytes[id + 1]]);
    }
}

//! Publisher confirms (RabbitMQ's extension): receipts in any order become as few `basic.ack` and `basic.nack` as can be.

use std::collections::BTreeMap;

use linkspan_contract::Seq;

use crate::protocol::amqp::basic;

/// The confirms of one channel. Delivery tags of publishes count from 1, receipts from 0.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// All before this one are confirmed.
    low: Seq,
    /// Confirmed runs that do not touch `low`: first and the one behind the last.
    apart: BTreeMap<Seq, Seq>,
}

impl Confirms {
    /// Appends the frames that tell the client what became of `count` publishes from `first` on.
    pub(super) fn settle(&mut self, channel: u16, first: Seq, count: u32, accepted: bool, out: &mut Vec<u8>) {
        if count == 0 {
            return;
        }
        let end = first + u64::from(count);
        if first == self.low {
            self.low = end;
            while let Some(next) = self.apart.first_entry().filter(|next| *next.key() <= self.low) {
                self.low = next.remove().max(self.low);
            }
            return frame(channel, end, count > 1, accepted, out);
        }
        // Some before it are not known yet: `multiple` would speak for them too.
        self.apart.insert(first, end);
        for tag in first + 1..=end {
            frame(channel, tag, false, accepted, out);
        }
    }
}

fn frame(channel: u16, delivery_tag: u64, multiple: bool, accepted: bool, out: &mut Vec<u8>) {
    if accepted {
        basic::Ack { delivery_tag, multiple }.encode(channel, out);
    } else {
        basic::Nack { delivery_tag, multiple, requeue: false }.encode(channel, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::amqp::{Method, basic::Basic, frame, limits::Limits};

    fn told(runs: &[(Seq, u32, bool)]) -> Vec<(char, u64, bool)> {
        let (mut confirms, mut out) = (Confirms::default(), Vec::new());
        for (first, count, accepted) in runs {
            confirms.settle(1, *first, *count, *accepted, &mut out);
        }
        let (limits, mut at, mut told) = (Limits { frame_max: 0, body_max: 0 }, 0, Vec::new());
        while let frame::Decoded::Frame(frame) = frame::decode(&out, at, &limits).unwrap() {
            at = frame.wire.end();
            told.push(match Method::decode(frame.payload).unwrap() {
                Method::Basic(Basic::Ack(ack)) => ('a', ack.delivery_tag, ack.multiple),
                Method::Basic(Basic::Nack(nack)) => ('n', nack.delivery_tag, nack.multiple),
                other => panic!("{other:?}"),
            });
        }
        told
    }

    #[test]
    fn a_run_in_order_is_one_frame() {
        assert_eq!(told(&[(0, 1, true)]), [('a', 1, false)]);
        assert_eq!(told(&[(0, 200, true), (200, 50, true)]), [('a', 200, true), ('a', 250, true)]);
        assert_eq!(told(&[(0, 2, true), (2, 1, false)]), [('a', 2, true), ('n', 3, false)]);
    }

    #[test]
    fn what_comes_out_of_order_speaks_for_itself_only() {
        let runs = [(3, 2, true), (0, 2, true), (2, 1, false), (5, 2, true)];
        let want = [('a', 4, false), ('a', 5, false), ('a', 2, true), ('n', 3, false), ('a', 7, true)];
        assert_eq!(told(&runs), want);
    }
}

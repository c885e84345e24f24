//! What a channel's client was given and has not settled.

use std::collections::BTreeMap;

use linkspan_contract::{DeliveryTag, SubscriptionKey};

/// Deliveries that follow each other, by the channel's tags as by the subscription's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The channel's tag of the first.
    pub(super) channel_tag: u64,
    /// How many.
    pub(super) count: u32,
    /// The subscription.
    pub(super) key: SubscriptionKey,
    /// The subscription's tag of the first.
    pub(super) tag: DeliveryTag,
}

impl Run {
    fn end(&self) -> u64 {
        self.channel_tag + u64::from(self.count)
    }

    fn holds(&self, channel_tag: u64) -> bool {
        (self.channel_tag..self.end()).contains(&channel_tag)
    }

    /// Takes `later` in when it goes on where this ends.
    pub(super) fn extend(&mut self, later: &Self) -> bool {
        let follows = self.key == later.key
            && self.end() == later.channel_tag
            && self.tag + u64::from(self.count) == later.tag;
        match self.count.checked_add(later.count) {
            Some(count) if follows => {
                self.count = count;
                true
            }
            _ => false,
        }
    }

    /// The first `n` of it, and the others.
    fn split(self, n: u32) -> (Self, Self) {
        let n = n.min(self.count);
        let rest = Self {
            channel_tag: self.channel_tag + u64::from(n),
            count: self.count - n,
            tag: self.tag + u64::from(n),
            ..self
        };
        (Self { count: n, ..self }, rest)
    }
}

/// A channel's unsettled deliveries in the order of its tags. Settling in order costs a few instructions, out of
/// order the logarithm of the number of gaps.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// The oldest run: what is settled in order comes from here.
    oldest: Option<Run>,
    later: BTreeMap<u64, Run>,
}

impl Unsettled {
    /// Adds deliveries; `run` has higher tags than all before.
    #[inline]
    pub(super) fn push(&mut self, run: Run) {
        let Some(oldest) = &mut self.oldest else {
            self.oldest = Some(run);
            return;
        };
        let extended = match self.later.last_entry() {
            None => oldest.extend(&run),
            Some(mut last) => last.get_mut().extend(&run),
        };
        if !extended {
            self.later.insert(run.channel_tag, run);
        }
    }

    /// Takes the one with this tag.
    #[inline]
    pub(super) fn take(&mut self, channel_tag: u64) -> Option<Run> {
        let oldest = self.oldest?;
        if oldest.holds(channel_tag) {
            let (before, from) = oldest.split((channel_tag - oldest.channel_tag) as u32);
            let (taken, after) = from.split(1);
            match (before.count, after.count) {
                (0, 0) => self.oldest = self.later.pop_first().map(|(_, run)| run),
                (0, _) => self.oldest = Some(after),
                (_, 0) => self.oldest = Some(before),
                (_, _) => {
                    self.oldest = Some(before);
                    self.later.insert(after.channel_tag, after);
                }
            }
            return Some(taken);
        }
        let (&first, &run) = self.later.range(..=channel_tag).next_back()?;
        if !run.holds(channel_tag) {
            return None;
        }
        let (before, from) = run.split((channel_tag - first) as u32);
        let (taken, after) = from.split(1);
        if before.count == 0 {
            self.later.remove(&first);
        } else {
            self.later.insert(first, before);
        }
        if after.count > 0 {
            self.later.insert(after.channel_tag, after);
        }
        Some(taken)
    }

    /// Whether the one with this tag is unsettled.
    pub(super) fn holds(&self, channel_tag: u64) -> bool {
        self.oldest.is_some_and(|run| run.holds(channel_tag))
            || self.later.range(..=channel_tag).next_back().is_some_and(|(_, run)| run.holds(channel_tag))
    }

    /// Takes all up to this tag, oldest first.
    pub(super) fn take_until(&mut self, channel_tag: u64, mut each: impl FnMut(Run)) {
        while let Some(oldest) = self.oldest.filter(|run| run.channel_tag <= channel_tag) {
            if oldest.end() <= channel_tag + 1 {
                self.oldest = self.later.pop_first().map(|(_, run)| run);
                each(oldest);
            } else {
                let (taken, after) = oldest.split((channel_tag + 1 - oldest.channel_tag) as u32);
                self.oldest = Some(after);
                each(taken);
            }
        }
    }

    /// Takes all, oldest first.
    pub(super) fn take_all(&mut self, each: impl FnMut(Run)) {
        self.take_until(u64::MAX - 1, each);
    }

    /// Puts back what was taken: a transaction was rolled back.
    pub(super) fn put_back(&mut self, run: Run) {
        match self.oldest {
            Some(oldest) if run.channel_tag < oldest.channel_tag => {
                self.later.insert(oldest.channel_tag, oldest);
                self.oldest = Some(run);
            }
            Some(_) => {
                self.later.insert(run.channel_tag, run);
            }
            None => self.oldest = Some(run),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Model;

    use proptest::prelude::*;

    use super::*;

    fn run(channel_tag: u64, count: u32, subscription: u32, tag: u64) -> Run {
        Run { channel_tag, count, key: SubscriptionKey { subscription, part: 0 }, tag }
    }

    #[test]
    fn what_is_settled_in_order_is_one_run() {
        let mut unsettled = Unsettled::default();
        unsettled.push(run(1, 10, 7, 100));
        unsettled.push(run(11, 10, 7, 110));
        assert_eq!(unsettled.take(1), Some(run(1, 1, 7, 100)));
        assert_eq!(unsettled.take(1), None, "settled already");
        assert_eq!(unsettled.take(0), None);
        let mut taken = Vec::new();
        unsettled.take_until(15, |run| taken.push(run));
        assert_eq!(taken, [run(2, 14, 7, 101)]);
        unsettled.take_all(|run| taken.push(run));
        assert_eq!(taken.last(), Some(&run(16, 5, 7, 115)));
    }

    #[test]
    fn what_was_rolled_back_can_be_settled_again() {
        let mut unsettled = Unsettled::default();
        unsettled.push(run(1, 3, 1, 1));
        let taken = [unsettled.take(2), unsettled.take(1)];
        taken.into_iter().flatten().for_each(|run| unsettled.put_back(run));
        let mut all = Vec::new();
        unsettled.take_all(|run| all.push((run.channel_tag, run.count)));
        assert_eq!(all, [(1, 1), (2, 1), (3, 1)]);
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_map_does(steps in proptest::collection::vec((0u8..4, 0u64..60, 1u32..5), 1..200)) {
            let mut model: Model<u64, (u32, u64)> = Model::new();
            let mut unsettled = Unsettled::default();
            let (mut next, mut tags) = (1u64, [0u64; 3]);
            for (what, tag, count) in steps {
                match what {
                    0 => {
                        let key = tag as u32 % 3;
                        let first = tags[key as usize];
                        unsettled.push(run(next, count, key, first));
                        for i in 0..u64::from(count) {
                            model.insert(next + i, (key, first + i));
                        }
                        tags[key as usize] += u64::from(count);
                        next += u64::from(count) + tag % 2;
                    }
                    1 | 2 => {
                        prop_assert_eq!(unsettled.holds(tag), model.contains_key(&tag));
                        let taken = unsettled.take(tag).map(|run| (run.count, run.key.subscription, run.tag));
                        prop_assert_eq!(taken, model.remove(&tag).map(|(key, tag)| (1, key, tag)));
                    }
                    _ => {
                        let mut taken = Vec::new();
                        unsettled.take_until(tag, |run| {
                            for i in 0..run.count {
                                let i = u64::from(i);
                                taken.push((run.channel_tag + i, (run.key.subscription, run.tag + i)));
                            }
                        });
                        let rest = model.split_off(&(tag + 1));
                        let want: Vec<_> = std::mem::replace(&mut model, rest).into_iter().collect();
                        prop_assert_eq!(taken, want);
                    }
                }
            }
            let mut left = 0;
            unsettled.take_all(|run| left += u64::from(run.count));
            prop_assert_eq!(left, model.len() as u64);
        }
    }
}

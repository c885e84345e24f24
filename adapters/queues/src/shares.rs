//! Levels of which each has its share while it has messages.

use smallvec::SmallVec;

/// Level *n* has a share of *n* + 1: smooth weighted round robin.
#[derive(Debug)]
pub(crate) struct Shares {
    /// What each level is owed; less than nothing where it is ahead.
    owed: SmallVec<[i64; 16]>,
}

impl Shares {
    pub(crate) fn new(levels: usize) -> Self {
        Self { owed: SmallVec::from_elem(0, levels) }
    }

    /// Whose turn it is among those that have something.
    pub(crate) fn next(&self, has: impl Fn(usize) -> bool) -> Option<usize> {
        let due = (0_i64..).zip(&self.owed).enumerate().filter(|(level, _)| has(*level));
        due.max_by_key(|(_, (weight, owed))| **owed + weight + 1).map(|(level, _)| level)
    }

    /// A level has had its turn. What has nothing is owed nothing.
    pub(crate) fn took(&mut self, taken: usize, has: impl Fn(usize) -> bool) {
        let mut total = 0;
        for (level, (weight, owed)) in (0_i64..).zip(&mut self.owed).enumerate() {
            if has(level) {
                *owed += weight + 1;
                total += weight + 1;
            } else {
                *owed = 0;
            }
        }
        if let Some(owed) = self.owed.get_mut(taken) {
            *owed -= total;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(shares: &mut Shares, count: usize, has: impl Fn(usize) -> bool) -> Vec<usize> {
        let turn = |_| {
            let level = shares.next(&has).unwrap();
            shares.took(level, &has);
            level
        };
        (0..count).map(turn).collect()
    }

    #[test]
    fn each_level_has_its_share_and_none_waits_for_long() {
        let mut shares = Shares::new(4);
        let turns = turns(&mut shares, 100, |_| true);
        let count = |level| turns.iter().filter(|it| **it == level).count();
        assert_eq!([0, 1, 2, 3].map(count), [10, 20, 30, 40]);
        assert_eq!(turns[0], 3);
        assert!(turns.windows(10).all(|ten| ten.contains(&0)), "{turns:?}");
    }

    #[test]
    fn a_level_without_messages_saves_nothing_up() {
        let mut shares = Shares::new(2);
        assert_eq!(turns(&mut shares, 100, |level| level == 0), [0; 100]);
        let mixed = turns(&mut shares, 6, |_| true);
        assert_eq!(mixed.iter().filter(|level| **level == 1).count(), 4);
    }
}

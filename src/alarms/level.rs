//! When an alarm is raised and when it is lowered, as a function of what is measured and of time.

use std::time::Duration;

use tokio::time::Instant;

/// How long things have to be well again before an alarm is lowered: it must not come and go with every burst.
const CALM: Duration = Duration::from_secs(1);

/// How a measurement stands to its limit. Between the two it neither raises nor lowers an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The limit is passed.
    Short,
    /// The limit is not passed, but near.
    Near,
    /// The limit is far enough.
    Well,
}

/// How far from its limit a measurement has to be to be well: a twentieth of it.
pub(super) fn margin(limit: u64) -> u64 {
    limit / 20
}

impl Standing {
    /// Of something that has to stay below its limit.
    pub(super) fn of_used(used: u64, limit: u64) -> Self {
        match used {
            _ if used > limit => Self::Short,
            _ if used < enough_used(limit) => Self::Well,
            _ => Self::Near,
        }
    }

    /// Of something that has to stay at or above its limit.
    pub(super) fn of_free(free: u64, limit: u64) -> Self {
        match free {
            _ if free < limit => Self::Short,
            _ if free >= enough_free(limit) => Self::Well,
            _ => Self::Near,
        }
    }
}

/// Bytes that may be used when an alarm is lowered.
pub(super) fn enough_used(limit: u64) -> u64 {
    limit - margin(limit)
}

/// Bytes that have to be free when an alarm is lowered.
pub(super) fn enough_free(limit: u64) -> u64 {
    limit.saturating_add(margin(limit))
}

/// An alarm's state.
#[derive(Debug, Clone, Default)]
pub(super) struct Level {
    raised: bool,
    /// Since when it could be lowered.
    well: Option<Instant>,
    /// The limit was changed: what was measured against the old one does not count.
    fresh: bool,
}

impl Level {
    /// What was measured says so, `now`; true when the alarm is raised by it, false when it is lowered, none when nothing
    /// changes.
    pub(super) fn step(&mut self, standing: Standing, now: Instant) -> Option<bool> {
        let fresh = std::mem::take(&mut self.fresh);
        if standing != Standing::Well {
            self.well = None;
        }
        let raised = match standing {
            Standing::Short => true,
            Standing::Near => self.raised && !fresh,
            Standing::Well => self.raised && !fresh && now - *self.well.get_or_insert(now) < CALM,
        };
        let changed = raised != self.raised;
        self.raised = raised;
        changed.then_some(raised)
    }

    /// The limit was changed: the next step decides by that alone.
    pub(super) fn renew(&mut self) {
        self.fresh = true;
    }

    /// Whether the alarm is raised.
    pub(super) fn is_raised(&self) -> bool {
        self.raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    /// What each measurement changes, one every half second.
    fn changes(used: &[u64]) -> Vec<Option<bool>> {
        let start = Instant::now();
        let mut level = Level::default();
        let at = |n: usize| start + Duration::from_millis(500) * u32::try_from(n).unwrap();
        used.iter().enumerate().map(|(n, used)| level.step(Standing::of_used(*used, LIMIT), at(n))).collect()
    }

    #[test]
    fn an_alarm_is_raised_above_its_limit_at_once() {
        assert_eq!(changes(&[0, 999, 1000, 1001, 2000]), [None, None, None, Some(true), None]);
    }

    #[test]
    fn an_alarm_is_lowered_after_a_second_well_below_its_limit() {
        assert_eq!(
            changes(&[1001, 949, 949, 949, 949]),
            [Some(true), None, None, Some(false), None],
            "first seen well at 0.5 s, lowered at 1.5 s"
        );
    }

    #[test]
    fn what_is_near_its_limit_neither_raises_nor_lowers() {
        assert_eq!(changes(&[980, 1001, 1000, 980, 950]), [None, Some(true), None, None, None]);
        // The second has to be one without interruption.
        assert_eq!(
            changes(&[1001, 900, 900, 950, 900, 900, 900]),
            [Some(true), None, None, None, None, None, Some(false)]
        );
    }

    #[test]
    fn a_disk_is_short_below_its_limit_and_well_somewhat_above() {
        for (free, standing) in
            [(999, Standing::Short), (1000, Standing::Near), (1049, Standing::Near), (1050, Standing::Well)]
        {
            assert_eq!(Standing::of_free(free, LIMIT), standing, "{free}");
        }
        assert_eq!(Standing::of_free(0, 0), Standing::Well, "no limit is never passed");
        assert_eq!(Standing::of_free(u64::MAX, u64::MAX), Standing::Well, "no overflow");
    }

    #[test]
    fn a_new_limit_decides_at_once() {
        let now = Instant::now();
        let mut level = Level::default();
        assert_eq!(level.step(Standing::Short, now), Some(true));
        assert_eq!(level.step(Standing::Well, now), None);
        level.renew();
        assert_eq!(level.step(Standing::Near, now), Some(false));
        level.renew();
        assert_eq!(level.step(Standing::Short, now), Some(true));
        level.renew();
        assert_eq!(level.step(Standing::Short, now), None, "it was raised and stays so");
        assert!(level.is_raised());
    }
}

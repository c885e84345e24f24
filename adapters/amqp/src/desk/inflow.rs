//! Which levels the broker may have more of, where each has a queue of its own there.
//!
//! The broker lends so many messages of each queue, the window. Once it was asked and has said that a queue has no more, that is
//! so until as many have come as the window had room for when it was asked: what is published there comes at once. After these
//! its window may have been full for a moment, and there may be more. Then, when all of the level that lay here is given out, lower levels wait until something comes or the broker says that
//! it has nothing.

pub(super) mod coordinator;

use linkspan_contract::Millis;

use super::look::MOST;

/// Milliseconds until the broker is asked again for what it has and does not send.
const AGAIN: Millis = 10;

/// How often it is asked for what it does not send, before others are given out.
const PATIENCE: u32 = 100;

/// All levels, the lowest first.
#[derive(Debug)]
pub(super) struct Inflow {
    /// How many messages of each the broker lends; nothing is known of any when that is none.
    window: u32,
    levels: Vec<Level>,
    /// It is not asked before.
    not_before: Millis,
}

#[derive(Debug, Clone, Default)]
struct Level {
    /// The broker may have more of it.
    may_have_more: bool,
    /// It was asked, and its whole window was not lent since.
    is_asked: bool,
    /// How many may come since then before that may have been.
    room: u32,
    /// How often it has said that it has more, and nothing came.
    in_vain: u32,
}

impl Inflow {
    /// That of so many levels beside the lowest.
    pub(super) fn new(highest: u8) -> Self {
        let levels = vec![Level::default(); usize::from(highest) + 1];
        Self { window: 0, levels, not_before: 0 }
    }

    /// The broker lends so many of each level from now on.
    pub(super) fn open(&mut self, window: u32) {
        if self.window == 0 {
            let unknown = Level { may_have_more: true, ..Level::default() };
            self.levels.fill(unknown);
            self.not_before = 0;
        }
        let wider = window.saturating_sub(self.window);
        self.levels.iter_mut().for_each(|level| level.room = level.room.saturating_add(wider));
        self.window = window;
    }

    /// It lends nothing any more.
    pub(super) const fn close(&mut self) {
        self.window = 0;
    }

    /// A message of a level has come, of which so many are lent now.
    pub(super) fn came(&mut self, level: u8, lent: u32) {
        let is_full = lent >= self.window;
        if let Some(level) = self.levels.get_mut(usize::from(level)) {
            level.in_vain = 0;
            level.room = level.room.saturating_sub(1);
            if is_full || level.room == 0 {
                *level = Level { may_have_more: true, ..Level::default() };
            }
        }
    }

    /// Whether a level's turn is to be waited for, of which so many are lent, and so many of them lie here. When all that is
    /// lent is in hand the window grows, as far as it may.
    pub(super) fn is_awaited(&self, level: u8, lent: u32, here: usize) -> bool {
        let may_come = lent < self.window || here > 0 || self.window < MOST;
        self.window == 0 || may_come && self.may_have_more(level)
    }

    /// Whether the broker may have something of a level, whether or not that can come now.
    pub(super) fn may_have(&self, level: u8) -> bool {
        self.window == 0 || self.may_have_more(level)
    }

    fn may_have_more(&self, level: u8) -> bool {
        self.levels.get(usize::from(level)).is_some_and(|level| level.may_have_more)
    }

    /// Whether the broker is to be asked for a level of which nothing lies here.
    pub(super) fn is_unclear(&self, level: u8, lent: u32) -> bool {
        self.window > 0 && lent < self.window && self.may_have_more(level)
    }

    /// When it may be asked.
    pub(super) const fn not_before(&self) -> Millis {
        self.not_before
    }

    /// It is asked for a level of which so many are lent.
    pub(super) fn ask(&mut self, level: u8, lent: u32) {
        let room = self.window.saturating_sub(lent);
        if let Some(level) = self.levels.get_mut(usize::from(level)) {
            (level.is_asked, level.room) = (true, room);
        }
    }

    /// It had so many of a level that it had lent to nobody, and all that it had lent before has come.
    pub(super) fn told(&mut self, now: Millis, level: u8, ready: u32) {
        self.not_before = now.saturating_add(AGAIN);
        let Some(level) = self.levels.get_mut(usize::from(level)) else { return };
        if !std::mem::take(&mut level.is_asked) {
            return;
        }
        level.in_vain += 1;
        level.may_have_more = ready > 0 && level.in_vain < PATIENCE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two levels, of each of which four are lent.
    fn open() -> Inflow {
        let mut inflow = Inflow::new(1);
        assert!(inflow.is_awaited(0, 0, 0), "nothing is known");
        inflow.open(4);
        inflow
    }

    #[test]
    fn a_level_is_waited_for_until_the_broker_says_that_it_has_nothing() {
        let mut inflow = open();
        assert!(inflow.is_unclear(1, 0) && inflow.is_awaited(1, 0, 0));
        inflow.ask(0, 0);
        inflow.ask(1, 0);
        inflow.told(0, 1, 0);
        inflow.told(0, 0, 7);
        assert!(!inflow.is_awaited(1, 0, 0));
        assert!(inflow.is_awaited(0, 0, 0) && inflow.is_unclear(0, 0), "it has more");
        assert_eq!(inflow.not_before(), AGAIN);
        inflow.came(1, 3);
        assert!(!inflow.is_awaited(1, 3, 1), "the window is not full: there is no more");
    }

    #[test]
    fn a_level_may_have_more_when_as_many_have_come_as_it_had_room_for() {
        let mut inflow = open();
        inflow.ask(1, 1);
        inflow.told(0, 1, 0);
        for _ in 0..2 {
            inflow.came(1, 1);
            assert!(!inflow.may_have(1), "workers settle as fast as it comes, and the window was never full");
        }
        inflow.came(1, 1);
        assert!(inflow.may_have(1), "it was, when the broker heard of these later than it sent the last one");
        inflow.ask(1, 0);
        inflow.told(0, 1, 0);
        inflow.open(6);
        for room in (0..6).rev() {
            inflow.came(1, 1);
            assert_eq!(inflow.may_have(1), room == 0);
        }
    }

    #[test]
    fn a_level_whose_window_was_full_may_have_more() {
        let mut inflow = open();
        inflow.ask(1, 0);
        inflow.told(0, 1, 0);
        inflow.came(1, 4);
        assert!(inflow.is_awaited(1, 4, 2) && !inflow.is_unclear(1, 4), "nothing can come");
        assert!(
            inflow.may_have(1) && inflow.is_awaited(1, 4, 0),
            "all of it is in hand, and the window grows"
        );
        assert!(inflow.is_awaited(1, 3, 0) && inflow.is_unclear(1, 3));
        inflow.ask(1, 0);
        inflow.came(1, 4);
        inflow.told(0, 1, 0);
        assert!(inflow.is_unclear(1, 3), "what it said is older");
        inflow.open(MOST);
        inflow.came(1, MOST);
        assert!(!inflow.is_awaited(1, MOST, 0) && inflow.may_have(1), "the window grows no more");
    }

    #[test]
    fn what_the_broker_has_and_does_not_send_is_not_waited_for_forever() {
        let mut inflow = open();
        for _ in 1..PATIENCE {
            inflow.ask(1, 0);
            inflow.told(0, 1, 5);
        }
        assert!(inflow.is_unclear(1, 0));
        inflow.ask(1, 0);
        inflow.told(0, 1, 5);
        assert!(!inflow.is_unclear(1, 0));
    }
}

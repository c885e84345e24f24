//! How it stands at a desk.

use std::task::Context;

use linkspan_contract::Millis;

use super::{Desk, counts, has_others_stand_by};

/// Messages that a desk has at most for those who work there.
pub(super) const MOST: u32 = 1000;

/// Messages that it has at most beside these because they wait for their time.
const MOST_WAITING: usize = 4096;

/// Messages by which it makes more room for these at least.
const ROOM: usize = 32;

/// The same where one consumer tolerates no other, and all goes back before there can be more room.
const ROOM_ALONE: usize = 128;

/// Milliseconds that a desk keeps what it has when nobody works there, where somebody may come back to a seat, or others stand by.
const LINGER: Millis = 1000;

/// The same when somebody has tried some of it: how often would be forgotten, and who died of it often comes back.
const LINGER_TRIED: Millis = 60_000;

/// How it stands at a desk, for its task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// How many deliveries those here may have in hand.
    pub(super) window: u32,
    /// How many messages wait for their time.
    pub(super) waiting: usize,
    /// Something lies here that nobody has in hand, and of which nothing is counted here.
    pub(super) has_spare: bool,
    /// It has one consumer at the broker.
    pub(super) is_alone: bool,
    /// Others stand by meanwhile, and one of them is next when that one goes.
    pub(super) has_others_stand_by: bool,
    /// Messages that have a key in common go to one of them at a time.
    pub(super) is_keyed: bool,
    /// All has to go back together.
    pub(super) is_overdue: bool,
    /// It is known here how often messages were given out.
    pub(super) counts: bool,
    /// Nobody else is to consume from the queue.
    pub(super) is_exclusive: bool,
    /// Somebody has a seat, whatever the window.
    pub(super) is_attended: bool,
    /// Somebody waits for the channel.
    pub(super) asks: bool,
    /// Somebody waits to hear that a settlement is safe.
    pub(super) has_words: bool,
    /// How many messages somebody has in hand.
    pub(super) in_hand: u32,
    /// Somebody has something in hand.
    pub(super) is_in_hand: bool,
    /// Nothing here was given to anybody yet.
    pub(super) is_untried: bool,
    /// The queue was deleted here.
    pub(super) over: bool,
    /// There is a queue at the broker for each level.
    pub(super) has_levels: bool,
    /// When the broker is to be asked whether it has more of some.
    pub(super) asks_at: Option<Millis>,
    /// When something is due.
    pub(super) next: Option<Millis>,
}

impl Desk {
    /// Does what is due, and lets those go on whose sinks have drained.
    pub(super) fn look(&self, cx: &mut Context<'_>) -> Look {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.work.drain(now, cx);
        if state.work.next_tick().is_some_and(|at| at <= now) {
            state.work.tick(now);
        }
        state.speak();
        let is_keyed = state.terms.ordering_key.is_some();
        let stand_by = has_others_stand_by(&state.terms, self.kind);
        let asked = u32::from(now < state.asked_until);
        let look = Look {
            window: state.work.window(u16::MAX).max(asked),
            waiting: state.work.waiting(),
            has_spare: !counts(&state.terms, self.kind) && state.work.has_ready(),
            is_alone: stand_by || state.work.is_exclusive(),
            has_others_stand_by: stand_by,
            is_keyed,
            is_overdue: state.work.is_overdue(),
            counts: counts(&state.terms, self.kind),
            is_exclusive: state.work.is_exclusive(),
            is_attended: state.work.consumers() > 0,
            asks: !state.asking.is_empty(),
            has_words: !state.words.is_empty(),
            in_hand: u32::try_from(state.work.in_hand()).unwrap_or(u32::MAX),
            is_in_hand: state.work.is_in_hand(),
            is_untried: state.work.is_untried(),
            over: state.over,
            has_levels: self.levels.is_some(),
            asks_at: state.work.asks_at(),
            next: state.work.next_tick().into_iter().chain((asked > 0).then_some(state.asked_until)).min(),
        };
        let touched = state.work.touched();
        drop(state);
        touched.iter().for_each(|sink| sink.flush());
        look
    }
}

impl Look {
    /// How long it keeps what it has when nobody works there.
    pub(super) const fn linger(&self) -> Millis {
        match (self.is_keyed, self.counts) {
            (false, true) if !self.is_untried => LINGER_TRIED,
            (false, false) if !self.is_attended => 0,
            _ => LINGER,
        }
    }

    /// How many messages a desk should have.
    pub(super) fn wanted(&self) -> u32 {
        if self.window == 0 {
            return 0;
        }
        if self.has_others_stand_by {
            return MOST;
        }
        let waiting = match self.waiting {
            some if self.is_exclusive => some.next_power_of_two().clamp(ROOM_ALONE, MOST_WAITING),
            0 => 0,
            some => some.next_power_of_two().clamp(ROOM, MOST_WAITING),
        };
        // More of each level than all can have in hand: so something of it lies here as long as the broker may have more.
        let (window, times, most) = match self.has_levels {
            true if self.is_exclusive => (self.window, 2, 2 * MOST),
            true => (self.window.saturating_add(self.in_hand), 2, 2 * MOST),
            false => (self.window, 1, MOST),
        };
        window
            .min(MOST)
            .next_power_of_two()
            .saturating_mul(times)
            .min(most)
            .saturating_add(u32::try_from(waiting).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A desk whose workers may have ten messages in hand.
    const LOOK: Look = Look {
        window: 10,
        waiting: 0,
        has_spare: false,
        is_alone: false,
        has_others_stand_by: false,
        is_keyed: false,
        is_overdue: false,
        counts: false,
        is_exclusive: false,
        is_attended: true,
        asks: false,
        has_words: false,
        in_hand: 0,
        is_in_hand: false,
        is_untried: true,
        over: false,
        has_levels: false,
        asks_at: None,
        next: None,
    };

    #[test]
    fn a_desk_has_what_its_workers_may_have_in_hand_and_room_for_what_waits() {
        assert_eq!((LOOK.wanted(), Look { waiting: 40, ..LOOK }.wanted()), (16, 16 + 64));
        let of_levels = Look { has_levels: true, ..LOOK };
        assert_eq!((of_levels.wanted(), Look { in_hand: 10, ..of_levels }.wanted()), (32, 64));
        assert_eq!(Look { has_others_stand_by: true, ..LOOK }.wanted(), MOST);
    }

    #[test]
    fn what_one_consumer_wants_who_tolerates_no_other_seldom_changes() {
        for has_levels in [false, true] {
            let alone = Look { is_exclusive: true, is_alone: true, has_levels, ..LOOK };
            let wanted = alone.wanted();
            for (in_hand, waiting) in [(1, 0), (10, 0), (10, 1), (0, 128)] {
                assert_eq!(Look { in_hand, waiting, ..alone }.wanted(), wanted, "{in_hand}, {waiting}");
            }
            assert!(Look { waiting: 129, ..alone }.wanted() > wanted);
        }
    }
}

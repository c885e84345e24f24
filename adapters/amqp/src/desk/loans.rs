//! What the broker has lent: messages that it waits to hear about.

use std::collections::BTreeMap;
use std::ops::Range;

use linkspan_contract::{Kept, Millis};
use linkspan_queues::{Gone, Journal, Position, Queued};

/// A message that is lent, by the broker's number, which is its position at the desk too.
pub(super) type Loan = Position;

/// All of them, and since when. The engine's journal: so it is told what becomes of each.
#[derive(Debug, Default)]
pub(super) struct Loans {
    open: BTreeMap<Loan, Lent>,
    /// How many of each level are open.
    of_level: Vec<u32>,
    /// Accepted, or purged; the broker was not told yet.
    accepted: BTreeMap<Loan, Lent>,
    /// Dead; the broker was not told yet.
    dead: BTreeMap<Loan, Lent>,
}

/// Since when, and of which level.
#[derive(Debug, Clone, Copy)]
struct Lent {
    since: Millis,
    level: u8,
}

impl Loans {
    /// The broker has lent one.
    pub(super) fn lend(&mut self, loan: Loan, since: Millis, level: u8) {
        self.open(loan, Lent { since, level });
    }

    fn open(&mut self, loan: Loan, lent: Lent) {
        let at = usize::from(lent.level);
        if self.of_level.len() <= at {
            self.of_level.resize(at + 1, 0);
        }
        if self.open.insert(loan, lent).is_none()
            && let Some(count) = self.of_level.get_mut(at)
        {
            *count += 1;
        }
    }

    fn take(&mut self, loan: Loan) -> Option<Lent> {
        let lent = self.open.remove(&loan)?;
        if let Some(count) = self.of_level.get_mut(usize::from(lent.level)) {
            *count = count.saturating_sub(1);
        }
        Some(lent)
    }

    /// How many of a level are lent.
    pub(super) fn lent(&self, level: u8) -> u32 {
        self.of_level.get(usize::from(level)).copied().unwrap_or(0)
    }

    /// Which was lent first, and when.
    pub(super) fn oldest(&self) -> Option<(Loan, Millis)> {
        self.open.first_key_value().map(|(loan, lent)| (*loan, lent.since))
    }

    /// One is returned that was not dealt with.
    pub(super) fn give_back(&mut self, loan: Loan) {
        self.take(loan);
    }

    /// Those that were accepted since the last time.
    pub(super) fn take_accepted(&mut self) -> impl Iterator<Item = Loan> + use<> {
        std::mem::take(&mut self.accepted).into_keys()
    }

    /// Whether that one died since the last time.
    pub(super) fn take_dead(&mut self, loan: Loan) -> bool {
        self.dead.remove(&loan).is_some()
    }
}

impl Journal<Kept> for Loans {
    /// What a sink did not take is not accepted.
    fn queued(&mut self, message: &Queued<Kept>, _paged: bool) -> bool {
        if let Some(lent) = self.accepted.remove(&message.position) {
            self.open(message.position, lent);
        }
        self.open.contains_key(&message.position)
    }

    fn given(&mut self, _priority: u8, _positions: Range<Position>) {}

    fn returned(&mut self, _message: &Queued<Kept>, _not_before: Millis) {}

    fn received(&mut self, _message: &Queued<Kept>) {}

    fn gone(&mut self, _priority: u8, positions: Range<Position>, how: Gone) {
        for loan in positions {
            let Some(lent) = self.take(loan) else { continue };
            let told = match how {
                Gone::Accepted | Gone::Purged => &mut self.accepted,
                Gone::Dead | Gone::Refused => &mut self.dead,
            };
            told.insert(loan, lent);
        }
    }
}

//! Levels of which each has a queue at the broker.

use linkspan_contract::Millis;

use super::{Inflow, Loan, Work};

impl Work {
    /// The same, with a queue at the broker for each of these levels.
    pub(in crate::desk) fn with_levels(mut self, highest: Option<u8>) -> Self {
        self.inflow = highest.map(Inflow::new);
        self
    }

    /// The broker lends so many messages of each queue from now on.
    pub(in crate::desk) fn open_levels(&mut self, window: u32) {
        if let Some(inflow) = &mut self.inflow {
            inflow.open(window);
        }
    }

    /// The broker lends nothing any more.
    pub(in crate::desk) fn close_levels(&mut self) {
        if let Some(inflow) = &mut self.inflow {
            inflow.close();
        }
    }

    pub(super) fn lend(&mut self, loan: Loan, now: Millis, level: u8) {
        let loans = self.engine.journal_mut();
        loans.lend(loan, now, level);
        let lent = loans.lent(level);
        if let Some(inflow) = &mut self.inflow {
            inflow.came(level, lent);
        }
    }

    /// Has the turns of those waited for of which the broker may have more.
    pub(super) fn await_levels(&mut self) {
        let Some(inflow) = &self.inflow else { return };
        for level in 0..=self.engine.limits().max_priority {
            let (lent, here) = (self.engine.journal().lent(level), self.engine.level_len(level));
            self.engine.await_level(level, inflow.is_awaited(level, lent, here));
        }
    }

    /// Levels of which nothing lies here, and of which it is not known whether the broker has more.
    pub(in crate::desk) fn unclear(&self) -> impl Iterator<Item = u8> + '_ {
        let levels = self
            .inflow
            .iter()
            .flat_map(|inflow| (0..=self.engine.limits().max_priority).map(move |level| (inflow, level)));
        levels
            .filter(|(inflow, level)| {
                self.engine.level_len(*level) == 0
                    && inflow.is_unclear(*level, self.engine.journal().lent(*level))
            })
            .map(|(_, level)| level)
    }

    /// Which levels the broker is to be asked for; when, if that is later.
    pub(in crate::desk) fn ask(&mut self) -> Vec<u8> {
        let levels: Vec<u8> = self.unclear().collect();
        if let Some(inflow) = &mut self.inflow {
            let loans = self.engine.journal();
            levels.iter().for_each(|level| inflow.ask(*level, loans.lent(*level)));
        }
        levels
    }

    /// When the broker is to be asked for levels, if it is.
    pub(in crate::desk) fn asks_at(&self) -> Option<Millis> {
        self.unclear().next()?;
        self.inflow.as_ref().map(Inflow::not_before)
    }

    /// The broker had so many of a level that it had lent to nobody, and all that it had lent before has come.
    pub(in crate::desk) fn told(&mut self, now: Millis, level: u8, ready: u32) {
        if let Some(inflow) = &mut self.inflow {
            inflow.told(now, level, ready);
        }
    }

    /// True when there is nothing, here or at the broker, that could be given out.
    pub(in crate::desk) fn is_known_empty(&self) -> bool {
        let Some(inflow) = &self.inflow else { return false };
        self.engine.is_empty() && !(0..=self.engine.limits().max_priority).any(|it| inflow.may_have(it))
    }
}

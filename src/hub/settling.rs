//! What consumers say of what they were given, on its way to the back ends that gave it.

use linkspan_contract::{Outcome, Receipt, Refused, Settled, Settlement};

use super::lane::HubLane;

impl HubLane {
    /// As [`Lane::settle`](linkspan_contract::Lane::settle).
    pub(super) fn settle_runs(&mut self, runs: &[Settled]) {
        let rejects = |run: &Settled| matches!(run.outcome, Settlement::Reject(None));
        let said = (self.windows > 0 && runs.iter().any(rejects)).then(|| self.as_routes_say(runs));
        let runs = said.as_deref().unwrap_or(runs);
        if let ([only], [_]) = (self.parts.as_mut_slice(), self.ways.as_slice()) {
            only.lane.settle(runs);
        } else {
            for of_one in runs.chunk_by(|one, next| one.key.part == next.key.part) {
                let Some(part) = of_one.first().map(|run| run.key.part) else { continue };
                if self.is_alone(part) {
                    self.settle_alone(of_one);
                    continue;
                }
                match self.way(part) {
                    Ok(lane) => lane.settle(of_one),
                    Err(_) => self.tell_late(of_one),
                }
            }
        }
        if self.windows == 0 {
            return;
        }
        for run in runs.iter().filter(|run| run.outcome.is_last()) {
            let subscription = self.subscriptions.get(&run.key.subscription);
            let window = subscription.and_then(|subscription| subscription.window_of(run.key.part));
            if !window.is_some_and(|window| window.grant_own(run.count)) {
                continue;
            }
            if let Some(tenancy) = self.tenancy(run.key) {
                tenancy.with_lane(|lane| lane.resume());
            } else if let Ok(lane) = self.way(run.key.part) {
                lane.resume();
            }
        }
    }

    /// The same words, where a route does not take an MQTT consumer's error for a rejection as it means what routes say.
    #[cold]
    fn as_routes_say(&self, runs: &[Settled]) -> Vec<Settled> {
        let mut runs = runs.to_vec();
        for run in &mut runs {
            let subscription = self.subscriptions.get(&run.key.subscription);
            if matches!(run.outcome, Settlement::Reject(None))
                && let Some(said) = subscription.and_then(|it| it.instead_of_rejecting())
            {
                run.outcome = said;
            }
        }
        runs
    }

    /// What is settled by a way that is gone is nobody's here any more.
    #[cold]
    pub(super) fn tell_late(&self, runs: &[Settled]) {
        for word in runs.iter().filter_map(|run| run.word) {
            let outcome = Outcome::Refused(Refused::Late);
            self.receipts.receipts(&[Receipt { first: word, count: 1, outcome }]);
        }
    }
}

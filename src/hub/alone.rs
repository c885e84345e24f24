//! Subscriptions of a hub's lane to queues that one consumer at a time has.

use std::sync::Arc;

use linkspan_contract::{
    DeliverySink, Ended, LaneEvent, LaneEvents, Refused, Settled, SubscriptionKey, Value,
};

use super::exclusive::{Place, Terms, coordinator};
use super::lane::HubLane;
use super::subscription::{Alone, Made, Subscription};
use super::tenancy::{Fenced, Over, Tenancy};
use crate::routes::Others;

/// What stands in [`HubLane::ways`] for what no part is behind, but a tenancy.
pub const NO_PART: u16 = u16::MAX;

impl HubLane {
    /// Makes a new subscription to such a queue.
    ///
    /// # Errors
    /// When it cannot have the queue and does not stand by.
    pub(super) async fn subscribe_alone(&mut self, subscription: Box<Subscription>) -> Result<(), Refused> {
        if self.transacts {
            let text =
                "a queue that one consumer at a time has is no part of a transaction: use another channel";
            return Err(Refused::Precondition(text.into()));
        }
        let number = subscription.key.subscription;
        self.count_alone(&subscription);
        self.subscriptions.insert(number, subscription);
        let claimed = self.claim(number, true).await;
        if claimed.is_err() {
            self.forget_alone(number);
        }
        claimed
    }

    /// A subscription of this kind is there.
    pub(super) fn count_alone(&mut self, subscription: &Subscription) {
        self.alone += 1;
        self.windows += u32::from(subscription.has_window());
    }

    /// A subscription of this kind is over.
    pub(super) fn forget_alone(&mut self, number: u32) {
        if let Some(subscription) = self.subscriptions.remove(&number) {
            self.discount_alone(&subscription);
        }
    }

    /// It is not counted any more.
    pub(super) fn discount_alone(&mut self, subscription: &Subscription) {
        self.alone = self.alone.saturating_sub(1);
        self.windows = self.windows.saturating_sub(u32::from(subscription.has_window()));
    }

    /// Asks for the queue of a subscription, unless the client is not there. Who is `new` and does not stand by waits for the
    /// answer.
    async fn claim(&mut self, number: u32, new: bool) -> Result<(), Refused> {
        let Some(subscription) = self.subscriptions.get_mut(&number).filter(|_| !self.is_away) else {
            return Ok(());
        };
        let Some((exclusive, work)) = subscription.exclusive() else { return Ok(()) };
        let (backend, vhost) = (Arc::clone(&work.backend), Arc::clone(&self.scope.client.vhost));
        let place = Place { backend, vhost, queue: Arc::clone(&work.queue) };
        let stands_by = !new || exclusive.others == Others::StandBy;
        let terms = Terms {
            client: Arc::clone(&self.scope.client.identifier),
            priority: subscription.priority(),
            stands_by,
            patience: exclusive.holder_timeout,
        };
        let hub = &self.scope.hub;
        let (application, is_new) = hub.exclusives.apply(&place, &terms, &self.events)?;
        if is_new {
            let (exclusives, ledger) = (Arc::clone(&hub.exclusives), hub.memory.shared_ledger());
            coordinator::preside(exclusives, ledger, place.clone(), hub.names_of(&place));
        }
        let alone = subscription.alone.insert(Box::new(Alone { application, tenancy: None }));
        if stands_by {
            return Ok(());
        }
        let tenancy = alone.application.answer().await?;
        self.begin(number, tenancy).await
    }

    /// Serves a subscription that was offered its queue.
    async fn begin(&mut self, number: u32, tenancy: Arc<Tenancy>) -> Result<(), Refused> {
        let begun = self.serve(number, &tenancy).await;
        match begun {
            Ok(part) => {
                let Some(subscription) = self.subscriptions.get_mut(&number) else { return Ok(()) };
                let client = &self.scope.client.identifier;
                tracing::debug!(%client, fence = tenancy.fence, "has a queue alone");
                subscription.made = vec![Made { part, spot: 0 }];
                if let Some(alone) = &mut subscription.alone {
                    alone.tenancy = Some(tenancy);
                }
                Ok(())
            }
            Err(refused) => {
                tenancy.end(Over::Unfit);
                Err(refused)
            }
        }
    }

    async fn serve(&mut self, number: u32, tenancy: &Arc<Tenancy>) -> Result<u16, Refused> {
        let gone = || Refused::Precondition("the subscription is over".into());
        let is_paused = self.subscriptions.get(&number).is_some_and(|it| self.is_paused(it));
        let subscription = self.subscriptions.get_mut(&number).ok_or_else(gone)?;
        subscription.is_paused = is_paused;
        // What an earlier tenancy was given stays out of this one's window.
        subscription.begin_window();
        let Some((_, work)) = subscription.exclusive() else { return Err(gone()) };
        let backend = Arc::clone(&work.backend);
        let (credit, spots, started) = (subscription.credit(), subscription.spots(), subscription.started);
        let own: Vec<(String, Value<'static>)> = subscription.own_arguments();
        let arguments: Vec<(&str, Value<'_>)> =
            own.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let how = subscription.how(&arguments);
        let part = self.next_way()?;
        let key = SubscriptionKey { subscription: number, part };
        let fenced = Arc::new(Fenced::new(Arc::clone(&self.scope), tenancy));
        let (sink, events) = (Arc::clone(&fenced) as Arc<dyn DeliverySink>, fenced as Arc<dyn LaneEvents>);
        let reached = self.scope.alone(&backend, sink, Arc::clone(&self.receipts), events).await;
        let (mut lane, connection) = reached.map_err(|error| {
            tracing::debug!(%backend, %error, "a back end was not reached");
            Refused::Away(backend.to_string())
        })?;
        for spot in &spots {
            lane.subscribe(&spot.source(), key, &how, credit.clone()).await?;
        }
        if started && !is_paused {
            lane.start(key);
            lane.flush();
        }
        tenancy.serve(lane, connection);
        self.ways.push(NO_PART);
        Ok(part)
    }

    /// The number of the next tenancy, used up when that has a way.
    fn next_way(&self) -> Result<u16, Refused> {
        let full = |_| Refused::Full("a client has its queues 65,536 times at most".into());
        u16::try_from(self.ways.len()).map_err(full)
    }

    /// The queue of a subscription is paused, or goes on: who has it keeps it meanwhile, and what it has in hand.
    async fn follow_pause(&mut self, number: u32) {
        let Some(subscription) = self.subscriptions.get(&number) else { return };
        let is_paused = self.is_paused(subscription);
        if subscription.is_paused == is_paused {
            return;
        }
        let tenancy = subscription.alone.as_ref().and_then(|alone| alone.tenancy.clone());
        let part = subscription.made.first().map(|made| made.part);
        if let Some(subscription) = self.subscriptions.get_mut(&number) {
            subscription.is_paused = is_paused;
        }
        let Some(tenancy) = tenancy else { return };
        let followed = match (is_paused, part) {
            (true, Some(part)) => tenancy.rest(SubscriptionKey { subscription: number, part }).await,
            (true, None) => Ok(()),
            (false, _) => self.go_on(number, &tenancy).await,
        };
        if let Err(refused) = followed {
            tracing::debug!(client = %self.scope.client.identifier, %refused, "does not follow a pause");
            tenancy.end(Over::Unfit);
        }
    }

    /// It is given what is in its queue. What it was given before is still settled under the number of before.
    async fn go_on(&mut self, number: u32, tenancy: &Tenancy) -> Result<(), Refused> {
        let part = self.next_way()?;
        self.ways.push(NO_PART);
        let Some(subscription) = self.subscriptions.get_mut(&number) else { return Ok(()) };
        subscription.made.insert(0, Made { part, spot: 0 });
        let key = SubscriptionKey { subscription: number, part };
        let (credit, spots, started) = (subscription.credit(), subscription.spots(), subscription.started);
        let own = subscription.own_arguments();
        let arguments: Vec<(&str, Value<'_>)> =
            own.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let how = subscription.how(&arguments);
        for spot in &spots {
            tenancy.give(&spot.source(), key, &how, credit.clone(), started).await?;
        }
        Ok(())
    }

    /// Goes through the claims: who was offered its queue is served, and who has lost it waits again, or is over.
    pub(super) async fn claim_again(&mut self) {
        if self.alone == 0 || self.is_away {
            return;
        }
        let numbers: Vec<u32> = self
            .subscriptions
            .iter()
            .filter(|(_, it)| it.exclusive().is_some())
            .map(|(key, _)| *key)
            .collect();
        for number in numbers {
            self.follow_pause(number).await;
            let Some(subscription) = self.subscriptions.get_mut(&number) else { continue };
            let rejects =
                subscription.exclusive().is_some_and(|(exclusive, _)| exclusive.others == Others::Reject);
            let key = subscription.key;
            let Some(alone) = &mut subscription.alone else {
                let _ = self.claim(number, false).await;
                continue;
            };
            let lost = alone.tenancy.as_ref().and_then(|tenancy| tenancy.over());
            match lost {
                None if alone.tenancy.is_some() => continue,
                // A session that is kept is worth more than this one subscription: it waits.
                Some(Over::Silent | Over::Lost) if rejects && self.scope.client.session.is_none() => {
                    tracing::info!(client = %self.scope.client.identifier, "an exclusive consumer is told that it has lost its queue");
                    self.forget_alone(number);
                    self.scope.ended(key, Ended::Superseded);
                    continue;
                }
                // It is offered the queue again when it was heard.
                Some(Over::Silent) if !alone.is_offered_another() => continue,
                _ => alone.tenancy = None,
            }
            if let Some(Ok(tenancy)) = alone.application.offer()
                && tenancy.over().is_none()
                && let Err(refused) = self.begin(number, tenancy).await
            {
                tracing::debug!(client = %self.scope.client.identifier, %refused, "stands by");
            }
        }
    }

    /// Whether the client is there.
    pub(super) fn attend(&mut self, is_there: bool) {
        self.is_away = !is_there;
        if self.alone == 0 {
            return;
        }
        if is_there {
            self.events.event(LaneEvent::Changed);
        } else {
            self.subscriptions.values_mut().for_each(|subscription| subscription.alone = None);
        }
    }

    /// Whether a number in a subscription's key stands for a tenancy, perhaps one that is over.
    pub(super) fn is_alone(&self, way: u16) -> bool {
        self.ways.get(usize::from(way)) == Some(&NO_PART)
    }

    /// What is said of what tenancies gave.
    pub(super) fn settle_alone(&self, runs: &[Settled]) {
        for of_one in runs.chunk_by(|one, next| one.key == next.key) {
            let Some(key) = of_one.first().map(|run| run.key) else { continue };
            if !self.tenancy(key).is_some_and(|tenancy| tenancy.settle(of_one)) {
                Tenancy::ignore(of_one);
                self.tell_late(of_one);
            }
            let subscription = self.subscriptions.get(&key.subscription);
            if let Some(alone) = subscription.and_then(|it| it.alone.as_ref())
                && alone.tenancy.as_ref().is_some_and(|tenancy| tenancy.over() == Some(Over::Silent))
            {
                alone.application.was_heard();
            }
        }
    }

    /// The tenancy that gives under a key.
    pub(super) fn tenancy(&self, key: SubscriptionKey) -> Option<&Arc<Tenancy>> {
        let subscription = self.subscriptions.get(&key.subscription)?;
        subscription.alone.as_ref()?.tenancy.as_ref().filter(|_| subscription.parts().contains(&key.part))
    }

    /// All tenancies.
    pub(super) fn tenancies(&self) -> impl Iterator<Item = &Arc<Tenancy>> {
        let all = (self.alone > 0).then(|| self.subscriptions.values());
        all.into_iter().flatten().filter_map(|it| it.alone.as_ref()?.tenancy.as_ref())
    }
}

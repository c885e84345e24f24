//! Subscriptions of a hub's lane to queues that one consumer at a time has.

use std::sync::Arc;

use linkspan_contract::{DeliverySink, Ended, LaneEvent, NotGranted, Refused, Settled, SubscriptionKey};

use super::exclusive::Place;
use super::lane::HubLane;
use super::part::OfAnother;
use super::subscription::{Alone, Made, Subscription};
use super::tenancy::{Fenced, Tenancy};
use crate::routes::Others;

/// What stands in [`HubLane::ways`] for what no part is behind, but a tenancy.
pub const NO_PART: u16 = u16::MAX;

impl HubLane {
    /// Claims the queue of a subscription: it is made when it is its turn.
    ///
    /// # Errors
    /// When another consumer has the queue and there is no standing by, or it cannot be known.
    pub(super) async fn make_alone(&mut self, subscription: &mut Subscription) -> Result<(), Refused> {
        if self.transacts {
            let text =
                "a queue that one consumer at a time has is no part of a transaction: use another channel";
            return Err(Refused::Precondition(text.into()));
        }
        self.claim(subscription).await?;
        self.alone += 1;
        self.windows += u32::from(subscription.has_window());
        Ok(())
    }

    /// Claims the queue, unless the client is not there.
    async fn claim(&mut self, subscription: &mut Subscription) -> Result<(), Refused> {
        let Some((exclusive, work)) = subscription.exclusive().filter(|_| !self.is_away) else {
            return Ok(());
        };
        let place: Place = (Arc::clone(&self.scope.client.vhost), Arc::clone(&work.queue));
        let exclusives = &self.scope.hub.exclusives;
        let application =
            exclusives.apply(&place, exclusive.others, subscription.priority(), &self.events)?;
        subscription.alone = Some(Box::new(Alone { application, tenancy: None }));
        let taken = self.take_up(subscription, &place).await;
        if taken.is_err() {
            subscription.alone = None;
        }
        taken
    }

    /// Takes the queue when it is this subscription's turn. One that stands by goes on doing so when that is not possible now.
    async fn take_up(&mut self, subscription: &mut Subscription, place: &Place) -> Result<(), Refused> {
        let Some((exclusive, _)) = subscription.exclusive() else { return Ok(()) };
        if !subscription.alone.as_ref().is_some_and(|alone| alone.application.is_chosen()) {
            return Ok(());
        }
        let taken = self.begin_tenancy(subscription, place).await;
        let Some(alone) = &mut subscription.alone else { return Ok(()) };
        match taken {
            Ok((tenancy, part)) => {
                tracing::info!(queue = %place.1, client = %self.scope.client.identifier, fence = tenancy.fence, "has it alone");
                alone.application.hold(&tenancy);
                alone.tenancy = Some(tenancy);
                subscription.made = vec![Made { part, spot: 0 }];
                Ok(())
            }
            Err(refused) if exclusive.others == Others::StandBy => {
                tracing::debug!(queue = %place.1, %refused, "stands by");
                alone.application.step_back();
                Ok(())
            }
            Err(refused) => Err(refused),
        }
    }

    async fn begin_tenancy(
        &mut self,
        subscription: &mut Subscription,
        place: &Place,
    ) -> Result<(Arc<Tenancy>, u16), Refused> {
        let Some((exclusive, work)) = subscription.exclusive() else {
            return Err(Refused::Precondition("the route is another one by now".into()));
        };
        let backend = Arc::clone(&work.backend);
        let fence = self.scope.hub.fence(place).await.map_err(|why| match why {
            NotGranted::Held(_) => Refused::ExclusiveUse(place.1.to_string()),
            NotGranted::Away(why) => Refused::Away(format!("{backend} (the ledger: {why})")),
        })?;
        let tenancy =
            Tenancy::new(Arc::clone(&self.scope.client.identifier), fence, exclusive.holder_timeout);
        // What an earlier tenancy was given stays out of this one's window.
        subscription.begin_window();
        let sink: Arc<dyn DeliverySink> = Arc::new(Fenced::new(Arc::clone(&self.scope), &tenancy));
        let (receipts, events) = (Arc::clone(&self.receipts), Arc::new(OfAnother(Arc::clone(&self.events))));
        let (mut lane, connection) =
            self.scope.alone(&backend, sink, receipts, events).await.map_err(|error| {
                tracing::debug!(%backend, %error, "a back end was not reached");
                Refused::Away(backend.to_string())
            })?;
        let part = self.way_of_no_part()?;
        let key = SubscriptionKey { part, ..subscription.key };
        let arguments = subscription.arguments();
        let how = subscription.how(&arguments);
        for spot in subscription.spots() {
            lane.subscribe(&spot.source(), key, &how, subscription.credit()).await?;
        }
        if subscription.started && !subscription.is_paused {
            lane.start(key);
        }
        tenancy.serve(lane, connection);
        Ok((tenancy, part))
    }

    /// A number for the keys of what a tenancy gives from now on.
    fn way_of_no_part(&mut self) -> Result<u16, Refused> {
        let full = |_| Refused::Full("a client's subscriptions come to 65,536 places at most".into());
        let way = u16::try_from(self.ways.len()).map_err(full)?;
        self.ways.push(NO_PART);
        Ok(way)
    }

    /// The queue of a subscription is paused, or goes on: its holder stays that.
    async fn follow_pause(&mut self, subscription: &mut Subscription) -> Result<(), Refused> {
        let is_paused = self.is_paused(subscription);
        if std::mem::replace(&mut subscription.is_paused, is_paused) == is_paused {
            return Ok(());
        }
        let Some(tenancy) = subscription.alone.as_ref().and_then(|alone| alone.tenancy.clone()) else {
            return Ok(());
        };
        if is_paused {
            let Some(part) = subscription.parts().first().copied() else { return Ok(()) };
            return tenancy.rest(SubscriptionKey { part, ..subscription.key }).await;
        }
        // What it was given before is still settled under the number of before.
        let part = self.way_of_no_part()?;
        let key = SubscriptionKey { part, ..subscription.key };
        subscription.made.insert(0, Made { part, spot: 0 });
        let arguments = subscription.arguments();
        let how = subscription.how(&arguments);
        for spot in subscription.spots() {
            tenancy.give(&spot.source(), key, &how, subscription.credit(), subscription.started).await?;
        }
        Ok(())
    }

    /// Goes through the claims: whose turn has come takes its queue, and who was ousted stands by again, or is over.
    pub(super) async fn claim_again(&mut self) {
        if self.alone == 0 || self.is_away {
            return;
        }
        let keys: Vec<u32> = self.subscriptions.keys().copied().collect();
        for key in keys {
            let Some(mut subscription) = self.subscriptions.remove(&key) else { continue };
            let mut result = Ok(());
            if let Some((_, work)) = subscription.exclusive() {
                let place: Place = (Arc::clone(&self.scope.client.vhost), Arc::clone(&work.queue));
                result = self.follow_pause(&mut subscription).await;
                match &subscription.alone {
                    _ if result.is_err() => {}
                    Some(alone) if alone.tenancy.as_ref().is_some_and(|tenancy| !tenancy.is_over()) => {}
                    Some(alone) if alone.tenancy.is_none() => {
                        result = self.take_up(&mut subscription, &place).await;
                    }
                    _ => {
                        subscription.alone = None;
                        result = self.claim(&mut subscription).await;
                    }
                }
            }
            match result {
                Ok(()) => {
                    self.subscriptions.insert(key, subscription);
                }
                Err(refused) => {
                    tracing::info!(client = %self.scope.client.identifier, %refused, "a consumer has lost its queue");
                    self.forget_alone(&subscription);
                    self.scope.ended(subscription.key, Ended::Superseded);
                }
            }
        }
    }

    /// A subscription of this kind is over.
    pub(super) fn forget_alone(&mut self, subscription: &Subscription) {
        self.alone = self.alone.saturating_sub(1);
        self.windows = self.windows.saturating_sub(u32::from(subscription.has_window()));
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

    /// Whether a number in a subscription's key stands for a tenancy.
    pub(super) fn is_alone(&self, way: u16) -> bool {
        self.alone > 0 && self.ways.get(usize::from(way)) == Some(&NO_PART)
    }

    /// What is said of what tenancies gave.
    pub(super) fn settle_alone(&self, runs: &[Settled]) {
        for of_one in runs.chunk_by(|one, next| one.key == next.key) {
            let Some(key) = of_one.first().map(|run| run.key) else { continue };
            match self.tenancy(key) {
                Some(tenancy) => tenancy.settle(of_one),
                None => Tenancy::ignore(of_one),
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

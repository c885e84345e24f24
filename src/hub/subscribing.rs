//! Subscribing on a hub's lane: on every back end that a subscription comes to, and again when routes change.

use linkspan_contract::backend::Retained;
use linkspan_contract::{Ended, Refused, SubscriptionKey};

use super::lane::HubLane;
use super::subscription::{Made, Spot, Subscription};
use crate::patterns::{Taking, taking};
use crate::routes::RouteTable;

impl HubLane {
    /// Makes `subscription` wherever it comes to and is not made yet, or nowhere.
    pub(super) async fn make(&mut self, subscription: &mut Subscription) -> Result<(), Refused> {
        if subscription.exclusive().is_some() {
            // It asks for its queue when all are resolved.
            self.count_alone(subscription);
            return Ok(());
        }
        for (spot, at) in subscription.spots().iter().zip(0u16..) {
            if subscription.made.iter().any(|made| made.spot == at) {
                continue;
            }
            match self.make_at(spot, None, &subscription.parts(), subscription).await {
                Ok(part) => {
                    // Most subscriptions come to one place.
                    subscription.made.reserve_exact(1);
                    subscription.made.push(Made { part, spot: at });
                }
                Err(refused) => {
                    let parts = subscription.parts();
                    subscription.made.clear();
                    self.unmake(subscription.key, parts).await;
                    return Err(refused);
                }
            }
        }
        self.windows += u32::from(subscription.has_window());
        Ok(())
    }

    /// Makes `subscription` in the place of `before`, which has the same key: where it goes on with other terms, the back
    /// end replaces it under the very key that it has there. When a back end refuses, `before` goes on as it was.
    pub(super) async fn replace(
        &mut self,
        before: &Subscription,
        subscription: &mut Subscription,
    ) -> Result<(), Refused> {
        if !subscription.succeed(before) {
            self.renumber();
        }
        for (spot, at) in subscription.spots().iter().zip(0u16..) {
            match self.make_at(spot, before.at(spot), &subscription.parts(), subscription).await {
                Ok(part) => subscription.made.push(Made { part, spot: at }),
                Err(refused) => {
                    let made = std::mem::take(&mut subscription.made);
                    self.restore(before, &made, &subscription.spots()).await;
                    return Err(refused);
                }
            }
        }
        let parts = subscription.parts();
        let over = before.parts().into_iter().filter(|part| !parts.contains(part)).collect();
        self.unmake(before.key, over).await;
        self.windows += u32::from(subscription.has_window());
        self.windows -= u32::from(before.has_window());
        Ok(())
    }

    /// Makes a subscription in the place of another one that had to end first.
    pub(super) async fn subscribe_anew(
        &mut self,
        mut subscription: Box<Subscription>,
    ) -> Result<(), Refused> {
        if subscription.exclusive().is_some() {
            return self.subscribe_alone(subscription).await;
        }
        self.make(&mut subscription).await?;
        self.subscriptions.insert(subscription.key.subscription, subscription);
        Ok(())
    }

    /// Ends a subscription wherever it is made.
    pub(super) async fn end(&mut self, subscription: Box<Subscription>) -> Result<(), Refused> {
        if subscription.exclusive().is_some() {
            self.discount_alone(&subscription);
            return Ok(());
        }
        self.windows -= u32::from(subscription.has_window());
        let mut result = Ok(());
        for part in subscription.parts() {
            let ended = self.way(part)?.unsubscribe(SubscriptionKey { part, ..subscription.key }).await;
            result = result.and(ended);
        }
        result
    }

    /// Gives `before` back what was `made` in its place, at `spots`.
    async fn restore(&mut self, before: &Subscription, made: &[Made], spots: &[Spot]) {
        let parts = before.parts();
        let (taken, new): (Vec<&Made>, Vec<&Made>) = made.iter().partition(|made| parts.contains(&made.part));
        self.unmake(before.key, new.iter().map(|made| made.part).collect()).await;
        for made in taken {
            let Some(spot) = spots.get(usize::from(made.spot)) else { continue };
            match self.make_at(spot, Some(made.part), &[], before).await {
                Ok(_) if before.started => self.start_on(&[made.part], before.key),
                Ok(_) => {}
                Err(refused) => {
                    tracing::warn!(backend = %spot.backend, %refused, "a subscription was not made again");
                }
            }
        }
    }

    /// Makes `subscription` at `spot`, in the place of what stands in its keys there already, else under a number that is
    /// not among those `taken`. What stands there now.
    async fn make_at(
        &mut self,
        spot: &Spot,
        place: Option<u16>,
        taken: &[u16],
        subscription: &Subscription,
    ) -> Result<u16, Refused> {
        let at = self.reach_to_take(&spot.backend).await?;
        let part = match place {
            Some(part) => part,
            None => self.free_way(at, taken)?,
        };
        let key = SubscriptionKey { part, ..subscription.key };
        let arguments = subscription.arguments();
        let how = subscription.how(&arguments);
        self.way(part)?.subscribe(&spot.source(), key, &how, subscription.credit()).await?;
        Ok(part)
    }

    /// The retained messages that a filter matches and that back ends keep themselves; the hub's own are not among them.
    pub(super) async fn retained_elsewhere(&mut self, filter: &str) -> Result<Vec<Retained>, Refused> {
        let routes = self.scope.hub.routes();
        let Some(table) = routes.vhost(&self.scope.client.vhost) else { return Ok(Vec::new()) };
        let Taking::Watch { places } = taking(table, None, filter)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for place in &places {
            if !self.scope.hub.retains(&place.backend) {
                continue;
            }
            let at = self.reach(&place.backend).await?;
            found.extend(
                self.part(at)?.retained(place.filter.as_deref().unwrap_or(filter)).await?.unwrap_or_default(),
            );
        }
        Ok(found)
    }

    async fn unmake(&mut self, key: SubscriptionKey, parts: Vec<u16>) {
        for part in parts {
            if let Ok(lane) = self.way(part)
                && let Err(refused) = lane.unsubscribe(SubscriptionKey { part, ..key }).await
            {
                tracing::debug!(%refused, "a subscription was not ended cleanly");
            }
        }
    }

    /// Resolves all subscriptions by the routes in force; what did not change is not touched.
    pub(super) async fn resolve_again(&mut self) {
        let routes = self.scope.hub.routes();
        let Some(table) = routes.vhost(&self.scope.client.vhost) else { return };
        let changed: Vec<(u32, Result<Taking, Refused>)> = self
            .subscriptions
            .iter()
            .filter_map(|(key, subscription)| Some((*key, self.changed(subscription, table)?)))
            .collect();
        if !changed.is_empty() {
            self.renumber();
        }
        for (key, taking) in changed {
            let Some(mut subscription) = self.subscriptions.remove(&key) else { continue };
            if subscription.exclusive().is_some() {
                self.discount_alone(&subscription);
                (subscription.alone, subscription.made) = (None, Vec::new());
            } else {
                self.windows -= u32::from(subscription.has_window());
            }
            match self.become_taking(&mut subscription, taking).await {
                Ok(new) => {
                    if subscription.started {
                        self.start_on(&new, subscription.key);
                    }
                    self.subscriptions.insert(key, subscription);
                }
                Err(refused) => {
                    tracing::info!(client = %self.scope.client.identifier, %refused, "a subscription ended with its route");
                    self.scope.ended(subscription.key, Ended::RouteChanged);
                }
            }
        }
    }

    /// What a subscription comes to, when that is something else than before: by other routes, or because its queue is
    /// paused or goes on. The holder of an exclusive one stays that meanwhile.
    fn changed(&self, subscription: &Subscription, table: &RouteTable) -> Option<Result<Taking, Refused>> {
        let changed = subscription.changed(table).transpose();
        let is_exclusive = subscription.exclusive().is_some();
        if changed.is_some() || is_exclusive || self.is_paused(subscription) == subscription.is_paused {
            return changed;
        }
        Some(Ok(subscription.taking().clone()))
    }

    /// Whether the queue of a subscription gives nothing out for now.
    pub(super) fn is_paused(&self, subscription: &Subscription) -> bool {
        let vhost = &self.scope.client.vhost;
        subscription.queue().is_some_and(|queue| self.scope.hub.is_paused(vhost, queue))
    }

    /// Lets a subscription give what the back ends behind `parts` have.
    pub(super) fn start_on(&mut self, parts: &[u16], key: SubscriptionKey) {
        for part in parts {
            if let Ok(lane) = self.way(*part) {
                lane.start(SubscriptionKey { part: *part, ..key });
            }
        }
    }

    /// Makes `subscription` anew, but where it can go on. What stands in its keys elsewhere.
    async fn become_taking(
        &mut self,
        subscription: &mut Subscription,
        taking: Result<Taking, Refused>,
    ) -> Result<Vec<u16>, Refused> {
        let before = subscription.spots();
        let made = std::mem::take(&mut subscription.made);
        let watched = subscription.watches();
        let refused = match taking {
            Ok(taking) => {
                subscription.become_taking(taking);
                subscription.is_paused = self.is_paused(subscription);
                None
            }
            Err(refused) => Some(refused),
        };
        let now = if refused.is_none() { subscription.spots() } else { Vec::new() };
        let mut over = Vec::new();
        for Made { part, spot } in made {
            let spot = before.get(usize::from(spot)).filter(|_| watched);
            let place = spot.and_then(|spot| now.iter().position(|it| it == spot));
            match place.and_then(|place| u16::try_from(place).ok()) {
                Some(spot) => subscription.made.push(Made { part, spot }),
                None => over.push(part),
            }
        }
        self.unmake(subscription.key, over).await;
        if let Some(refused) = refused {
            return Err(refused);
        }
        let kept = subscription.parts();
        self.make(subscription).await?;
        Ok(subscription.parts().into_iter().filter(|part| !kept.contains(part)).collect())
    }
}

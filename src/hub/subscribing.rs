//! Subscribing on a hub's lane: on every back end that a subscription comes to, and again when routes change.

use std::sync::Arc;

use linkspan_contract::{Ended, Refused, SubscriptionKey};

use super::lane::HubLane;
use super::subscription::Subscription;
use crate::patterns::Taking;

impl HubLane {
    /// Makes `subscription` on every back end that it comes to and is not made on yet, or on none.
    pub(super) async fn make(&mut self, subscription: &mut Subscription) -> Result<(), Refused> {
        for backend in subscription.backends() {
            if subscription.parts.iter().any(|part| self.backend_of(*part) == Some(&backend)) {
                continue;
            }
            match self.make_on(&backend, None, subscription).await {
                Ok(part) => subscription.parts.push(part),
                Err(refused) => {
                    let made = std::mem::take(&mut subscription.parts);
                    self.unmake(subscription.key, made).await;
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
        let place = |lane: &Self, backend: &Arc<str>| {
            let on_it = |part: &&u16| lane.backend_of(**part) == Some(backend);
            before.parts.iter().find(on_it).copied().filter(|_| before.goes_on_as(subscription, backend))
        };
        let backends = subscription.backends();
        let places: Vec<Option<u16>> = backends.iter().map(|backend| place(self, backend)).collect();
        for (backend, place) in backends.iter().zip(places) {
            match self.make_on(backend, place, subscription).await {
                Ok(part) => subscription.parts.push(part),
                Err(refused) => {
                    self.restore(before, std::mem::take(&mut subscription.parts)).await;
                    return Err(refused);
                }
            }
        }
        let over = before.parts.iter().copied().filter(|part| !subscription.parts.contains(part)).collect();
        self.unmake(before.key, over).await;
        self.windows += u32::from(subscription.has_window());
        self.windows -= u32::from(before.has_window());
        Ok(())
    }

    /// Gives `before` back what was made in its place.
    async fn restore(&mut self, before: &Subscription, made: Vec<u16>) {
        let (taken, new): (Vec<u16>, Vec<u16>) =
            made.into_iter().partition(|part| before.parts.contains(part));
        self.unmake(before.key, new).await;
        for part in taken {
            let Some(backend) = self.backend_of(part).cloned() else { continue };
            match self.make_on(&backend, Some(part), before).await {
                Ok(_) if before.started => self.start_on(&[part], before.key),
                Ok(_) => {}
                Err(refused) => tracing::warn!(%backend, %refused, "a subscription was not made again"),
            }
        }
    }

    /// Makes `subscription` on `backend`, in the place of what stands in its keys there already. What does now.
    async fn make_on(
        &mut self,
        backend: &Arc<str>,
        place: Option<u16>,
        subscription: &Subscription,
    ) -> Result<u16, Refused> {
        let at = self.reach_to_take(backend).await?;
        let part = place.or_else(|| self.parts.get(usize::from(at)).map(|part| part.way)).unwrap_or(0);
        let key = SubscriptionKey { part, ..subscription.key };
        let arguments = subscription.arguments();
        let how = subscription.how(&arguments);
        self.way(part)?.subscribe(&subscription.source(), key, &how, subscription.credit()).await?;
        Ok(part)
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
            .filter_map(|(key, subscription)| Some((*key, subscription.changed(table).transpose()?)))
            .collect();
        if !changed.is_empty() {
            self.renumber();
        }
        for (key, taking) in changed {
            let Some(mut subscription) = self.subscriptions.remove(&key) else { continue };
            self.windows -= u32::from(subscription.has_window());
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

    /// Lets a subscription give what the back ends behind `parts` have.
    pub(super) fn start_on(&mut self, parts: &[u16], key: SubscriptionKey) {
        for part in parts {
            if let Ok(lane) = self.way(*part) {
                lane.start(SubscriptionKey { part: *part, ..key });
            }
        }
    }

    /// Makes `subscription` anew, but for the back ends where it can go on. What stands in its keys for the others.
    async fn become_taking(
        &mut self,
        subscription: &mut Subscription,
        taking: Result<Taking, Refused>,
    ) -> Result<Vec<u16>, Refused> {
        let parts = std::mem::take(&mut subscription.parts);
        let goes_on = |part: &u16| {
            let backend = self.backend_of(*part);
            taking.as_ref().is_ok_and(|taking| backend.is_some_and(|it| subscription.goes_on_by(taking, it)))
        };
        let (kept, over): (Vec<u16>, Vec<u16>) = parts.into_iter().partition(goes_on);
        self.unmake(subscription.key, over).await;
        subscription.parts.clone_from(&kept);
        subscription.become_taking(taking?);
        self.make(subscription).await?;
        Ok(subscription.parts.iter().copied().filter(|part| !kept.contains(part)).collect())
    }
}

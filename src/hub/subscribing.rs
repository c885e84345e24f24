//! Subscribing on a hub's lane: on every back end that a subscription comes to, and again when routes change.

use linkspan_contract::{Ended, Lane, Refused, SubscriptionKey};

use super::lane::HubLane;
use super::subscription::Subscription;

impl HubLane {
    /// Makes `subscription` on every back end that it comes to, or on none.
    pub(super) async fn make(&mut self, subscription: &mut Subscription) -> Result<(), Refused> {
        for backend in subscription.backends() {
            let made = match self.reach(&backend).await {
                Ok(part) => self.make_on(part, subscription).await.map(|()| part),
                Err(refused) => Err(refused),
            };
            match made {
                Ok(part) => subscription.parts.push(part),
                Err(refused) => {
                    self.unmake(subscription).await;
                    return Err(refused);
                }
            }
        }
        self.windows += u32::from(subscription.window.is_some());
        Ok(())
    }

    async fn make_on(&mut self, part: u16, subscription: &Subscription) -> Result<(), Refused> {
        let key = SubscriptionKey { part, ..subscription.key };
        let arguments = subscription.arguments();
        let how = subscription.how(&arguments);
        self.part(part)?.subscribe(&subscription.source(), key, &how, subscription.credit()).await
    }

    async fn unmake(&mut self, subscription: &mut Subscription) {
        for part in std::mem::take(&mut subscription.parts) {
            let key = SubscriptionKey { part, ..subscription.key };
            if let Ok(lane) = self.part(part)
                && let Err(refused) = lane.unsubscribe(key).await
            {
                tracing::debug!(%refused, "a subscription was not ended cleanly");
            }
        }
    }

    /// Resolves all subscriptions by the routes in force; what did not change is not touched.
    pub(super) async fn resolve_again(&mut self) {
        let routes = self.scope.hub.routes();
        let Some(table) = routes.vhost(&self.scope.client.vhost) else { return };
        let keys: Vec<u32> = self.subscriptions.keys().copied().collect();
        for key in keys {
            let Some(taking) = self.subscriptions.get(&key).map(|subscription| subscription.changed(table))
            else {
                continue;
            };
            if matches!(taking, Ok(None)) {
                continue;
            }
            let Some(mut subscription) = self.subscriptions.remove(&key) else { continue };
            self.windows -= u32::from(subscription.window.is_some());
            self.unmake(&mut subscription).await;
            let made = match taking {
                Ok(Some(taking)) => {
                    subscription.become_taking(taking);
                    self.make(&mut subscription).await
                }
                Ok(None) => Ok(()),
                Err(refused) => Err(refused),
            };
            match made {
                Ok(()) => {
                    let (key, started) = (subscription.key, subscription.started);
                    self.subscriptions.insert(key.subscription, subscription);
                    if started {
                        self.start(key);
                    }
                }
                Err(refused) => {
                    tracing::info!(client = %self.scope.client.identifier, %refused, "a subscription ended with its route");
                    self.scope.ended(subscription.key, Ended::RouteChanged);
                }
            }
        }
    }
}

//! Leases of queues that one consumer has: taken, kept and given back, as they come and go.

use std::sync::{Arc, Weak};
use std::time::Duration;

use linkspan_contract::{Fence, NotGranted};
use tokio::time::{Instant, sleep};

use super::Place;
use crate::hub::Hub;
use crate::hub::tenancy::Tenancy;
use crate::ledger::LEASE;

/// How often it is looked who has fallen silent, and whether another instance has let go.
const LOOK: Duration = Duration::from_millis(200);

/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(LEASE.as_secs() / 4);

/// The lease of a queue.
fn lease(place: &Place) -> String {
    format!("exclusive/{}/{}", place.0, place.1)
}

impl Hub {
    /// Takes the lease of a queue for a new holder, and tells its number.
    ///
    /// # Errors
    /// Who has it, or why nobody could be asked.
    pub(in crate::hub) async fn fence(&self, place: &Place) -> Result<Fence, NotGranted> {
        let (name, ledger) = (lease(place), self.memory.ledger());
        let taken = ledger.take(&name).await?;
        // The instance may have had it for another holder.
        Ok(ledger.advance(&name, taken.fence).await?.fence)
    }

    /// Looks after exclusive consumers as long as `me` is there.
    pub(in crate::hub) fn mind_exclusives(me: Weak<Self>) {
        tokio::spawn(async move {
            let mut renewed = Instant::now();
            let mut before: Vec<(Place, Fence)> = Vec::new();
            loop {
                sleep(LOOK).await;
                let Some(hub) = me.upgrade() else { return };
                if renewed.elapsed() >= RENEW {
                    renewed = Instant::now();
                    for (place, tenancy) in hub.exclusives.held() {
                        hub.renew(&place, &tenancy).await;
                    }
                }
                hub.oust_the_silent();
                hub.ask_for_others().await;
                let held = hub.exclusives.held().into_iter();
                let now: Vec<(Place, Fence)> = held.map(|(place, tenancy)| (place, tenancy.fence)).collect();
                for (place, fence) in before.iter().filter(|(place, _)| !hub.exclusives.has(place)) {
                    // Whoever waits elsewhere need not wait for its end.
                    hub.memory.ledger().give_back(&lease(place), *fence).await;
                }
                before = now;
            }
        });
    }

    fn oust_the_silent(&self) {
        for (place, tenancy) in self.exclusives.held() {
            if tenancy.has_fallen_silent() {
                let (queue, fence) = (&place.1, tenancy.fence);
                tracing::warn!(%queue, fence, "its consumer has fallen silent and loses it");
                metrics::counter!("linkspan_exclusive_ousted_total", "reason" => "silent").increment(1);
                self.exclusives.oust(&place, &tenancy, false);
            }
        }
    }

    /// Renews a lease; its holder goes when another instance has it, or may have it soon.
    async fn renew(&self, place: &Place, tenancy: &Arc<Tenancy>) {
        let (queue, fence) = (&place.1, tenancy.fence);
        match self.memory.ledger().take(&lease(place)).await {
            Ok(taken) if taken.fence == fence => return tenancy.is_renewed(),
            Err(NotGranted::Away(_)) if !tenancy.outlasts(LEASE - 2 * RENEW) => return,
            Ok(_) | Err(NotGranted::Held(_)) => {
                tracing::warn!(%queue, fence, "another instance has its lease, and its consumer loses it");
            }
            Err(NotGranted::Away(why)) => {
                tracing::warn!(%queue, fence, %why, "its lease could not be renewed in time, and its consumer loses it");
            }
        }
        metrics::counter!("linkspan_exclusive_ousted_total", "reason" => "lease").increment(1);
        self.exclusives.oust(place, tenancy, true);
    }

    /// Asks for queues that clients here stand by for and that another instance may have let go.
    async fn ask_for_others(&self) {
        for place in self.exclusives.wanted() {
            if self.memory.ledger().take(&lease(&place)).await.is_ok() {
                self.exclusives.is_here(&place);
            }
        }
    }
}

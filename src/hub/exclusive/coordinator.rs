//! Who presides over a queue that one consumer at a time has: takes its lease, offers it, and ends what is over.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{Fence, Ledger, NotGranted, Refused};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Exclusives, Place};
use crate::hub::tenancy::{Over, Tenancy};
use crate::ledger::LEASE;

/// How often it is asked for a lease that another instance has.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// How long the ledger may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long who is offered a queue may take to make use of it.
const GETTING_READY: Duration = Duration::from_secs(10);

/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(LEASE.as_secs() / 4);

/// How long the leases of exclusive consumers may take to be given back.
const CLOSING: Duration = Duration::from_secs(1);

/// Waits for those who still have a queue, for a while.
pub async fn close(exclusives: &Exclusives) {
    if timeout(CLOSING, exclusives.closed()).await.is_err() {
        tracing::debug!("an exclusive consumer is still there");
    }
}

/// Presides until nobody asks for the queue. `lease` is what the ledger calls it.
pub fn preside(exclusives: Arc<Exclusives>, ledger: Arc<dyn Ledger>, place: Place, lease: String) {
    tokio::spawn(async move {
        let mut fence = None;
        while let Some(changed) = exclusives.changed(&place) {
            let waits = changed.notified();
            tokio::pin!(waits);
            waits.as_mut().enable();
            let Some((number, patience)) = exclusives.next(&place) else {
                // Those who are left, if any, have to be heard first: another instance need not wait for them. Who presides
                // next is not to find the lease of this one.
                if let Some(fence) = fence.take() {
                    ledger.give_back(&lease, fence).await;
                }
                if exclusives.forget(&place) {
                    break;
                }
                waits.await;
                continue;
            };
            let asked = Instant::now();
            let tenancy = match granted(&*ledger, &lease).await {
                Ok((number, lasts)) => {
                    fence = Some(number);
                    Tenancy::new(number, asked + lasts, patience)
                }
                Err(why) => {
                    fence = None;
                    exclusives.refuse(&place, &refusal(&place, &why));
                    let _ = timeout(ASK_AGAIN, waits).await;
                    continue;
                }
            };
            if !exclusives.offer(&place, number, &tenancy) {
                continue;
            }
            watch(&*ledger, &lease, &tenancy).await;
            let over = tenancy.over().unwrap_or(Over::Left);
            // What it had in hand is in the queue again before somebody else has it.
            tenancy.close().await;
            if over == Over::Lost {
                fence = None;
            }
            tell(&place, &tenancy, over);
            exclusives.vacate(&place, number, over);
            if over == Over::Unfit {
                sleep(ASK_AGAIN).await;
            }
        }
        if let Some(fence) = fence {
            // Whoever waits elsewhere need not wait for its end.
            ledger.give_back(&lease, fence).await;
        }
    });
}

/// The next number under a lease, and how long that lasts from the moment of asking.
async fn granted(ledger: &dyn Ledger, lease: &str) -> Result<(Fence, Duration), NotGranted> {
    let asked = async {
        let taken = ledger.take(lease).await?;
        // This instance may have had it for another holder.
        ledger.advance(lease, taken.fence).await
    };
    let advanced = timeout(PATIENCE, asked).await;
    let advanced = advanced.unwrap_or_else(|_| Err(NotGranted::Away("it does not answer".into())))?;
    Ok((advanced.fence, advanced.lasts))
}

fn refusal(place: &Place, why: &NotGranted) -> Refused {
    match why {
        NotGranted::Held(_) => Refused::ExclusiveUse(place.queue.to_string()),
        NotGranted::Away(why) => {
            Refused::Away(format!("{}: the ledger, which says who has a queue alone: {why}", place.backend))
        }
    }
}

/// Keeps the lease, and an eye on the holder, until the tenancy is over.
async fn watch(ledger: &dyn Ledger, lease: &str, tenancy: &Arc<Tenancy>) {
    let begun = Instant::now();
    let mut renew = begun + RENEW;
    loop {
        let ended = timeout_at(renew.min(Instant::now() + tenancy.look()), tenancy.ended()).await;
        if ended.is_ok() {
            return;
        }
        if !tenancy.is_served() && begun.elapsed() >= GETTING_READY {
            return tenancy.end(Over::Unfit);
        }
        if tenancy.has_fallen_silent() {
            return tenancy.end(Over::Silent);
        }
        let asked = Instant::now();
        if asked < renew {
            continue;
        }
        match timeout_at(tenancy.until(), ledger.take(lease)).await {
            Ok(Ok(again)) if again.fence == tenancy.fence => {
                tenancy.extend(asked + again.lasts);
                renew = asked + RENEW;
            }
            Ok(Err(NotGranted::Away(_))) if Instant::now() + ASK_AGAIN < tenancy.until() => {
                renew = Instant::now() + ASK_AGAIN;
            }
            _ => return tenancy.end(Over::Lost),
        }
    }
}

fn tell(place: &Place, tenancy: &Tenancy, over: Over) {
    let (queue, fence) = (&place.queue, tenancy.fence);
    let reason = match over {
        Over::Left => return,
        Over::Silent => "it has fallen silent",
        Over::Lost => "its lease is lost",
        Over::Unfit => "its back end does not serve it",
    };
    tracing::warn!(%queue, fence, reason, "an exclusive consumer has lost its queue");
    metrics::counter!("linkspan_exclusive_ousted_total", "reason" => over.name()).increment(1);
}

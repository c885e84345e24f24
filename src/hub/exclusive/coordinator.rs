//! Who presides over a queue that one consumer at a time has: takes its lease, offers it, and ends what is over.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::ledger::{Conditions, Expected};
use linkspan_contract::{Fence, Ledger, LedgerError, NotGranted, Refused};
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

/// What the ledger calls a queue.
pub struct Names {
    /// Its lease.
    pub lease: String,
    /// The number of its last holder, where several instances, each with a lease of its own, have the queue one after the
    /// other.
    pub last: Option<String>,
}

/// Presides until nobody asks for the queue.
pub fn preside(exclusives: Arc<Exclusives>, ledger: Arc<dyn Ledger>, place: Place, names: Names) {
    tokio::spawn(async move {
        let Names { lease, last } = names;
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
            let tenancy = match granted(&*ledger, &lease, last.as_deref()).await {
                Ok(Granted { leased, number, lasts }) => {
                    fence = Some(leased);
                    Tenancy::new(number, leased, asked + lasts, patience)
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

/// A lease for another holder.
struct Granted {
    /// Under which number the lease is.
    leased: Fence,
    /// Under which number the holder has the queue.
    number: Fence,
    /// For how long from the moment of asking.
    lasts: Duration,
}

/// The next number under a lease; above that of whoever had the queue `last`, where that is written down.
async fn granted(ledger: &dyn Ledger, lease: &str, last: Option<&str>) -> Result<Granted, NotGranted> {
    let asked = async {
        let taken = ledger.take(lease).await?;
        // This instance may have had it for another holder.
        let advanced = ledger.advance(lease, taken.fence).await?;
        let number = match last {
            Some(last) => next(ledger, last, advanced.fence).await?,
            None => advanced.fence,
        };
        Ok(Granted { leased: advanced.fence, number, lasts: advanced.lasts })
    };
    let granted = timeout(PATIENCE, asked).await;
    granted.unwrap_or_else(|_| Err(NotGranted::Away("it does not answer".into())))
}

/// A number that nobody was given before, `least` or more; it is written down under `key`.
async fn next(ledger: &dyn Ledger, key: &str, least: Fence) -> Result<Fence, NotGranted> {
    let away = |why: LedgerError| NotGranted::Away(why.to_string());
    loop {
        let entry = ledger.get(key).await.map_err(away)?;
        let last = entry.as_ref().and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok());
        let number = last.map_or(least, |last: Fence| least.max(last.saturating_add(1)));
        let expected = entry.map_or(Expected::Nothing, |entry| Expected::Version(entry.version));
        let conditions = Conditions { expected, ..Conditions::default() };
        match ledger.put(key, number.to_string().as_bytes(), conditions).await {
            Ok(_) => return Ok(number),
            Err(LedgerError::Stale { .. }) => {}
            Err(why) => return Err(away(why)),
        }
    }
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
            Ok(Ok(again)) if again.fence == tenancy.leased => {
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

#[cfg(test)]
mod tests {
    use linkspan_contract::{Leases, SystemClock};
    use tempfile::TempDir;

    use super::*;
    use crate::ledger::EmbeddedLedger;

    #[tokio::test]
    async fn holders_at_several_instances_have_one_row_of_numbers() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("ledger.redb");
        let one = EmbeddedLedger::open(&file, "one", Arc::new(SystemClock)).unwrap();
        let other = one.beside("other");
        let mut numbers = Vec::new();
        for _ in 0..3 {
            for (ledger, lease) in [(&one, "exclusive/one/q"), (&other, "exclusive/other/q")] {
                let granted = granted(ledger, lease, Some("exclusive/q")).await.unwrap();
                assert_eq!(ledger.take(lease).await.unwrap().fence, granted.leased, "the lease goes on");
                numbers.push(granted.number);
            }
        }
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }

    #[tokio::test]
    async fn a_number_is_never_below_that_of_its_lease() {
        let folder = TempDir::new().unwrap();
        let ledger =
            EmbeddedLedger::open(&folder.path().join("ledger.redb"), "one", Arc::new(SystemClock)).unwrap();
        for _ in 0..3 {
            granted(&ledger, "q", None).await.unwrap();
        }
        let before = granted(&ledger, "q", None).await.unwrap().number;
        let after = granted(&ledger, "q", Some("last")).await.unwrap().number;
        assert!(after > before, "what was given under the lease alone counts: {before}, {after}");
    }
}

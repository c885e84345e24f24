//! A client's word about a lease, on its way to the desk that keeps it.

use linkspan_contract::{Outcome, Refused, Settlement};
use tokio::sync::oneshot;

use super::ask::Ask;
use super::register::Asking;
use crate::doors::http::Shared;
use crate::doors::http::translate::Problem;

/// Settles what a lease is for, and returns when that is safe.
///
/// # Errors
/// When it is over, or another user's; or the back end could not say in time.
pub(super) async fn settle(
    shared: &Shared,
    user: &str,
    name: &str,
    outcome: Settlement,
) -> Result<(), Problem> {
    let (lease, desk) = shared.leases.find(name, user)?;
    let (reply, answer) = oneshot::channel();
    let ask = Ask::Settle { lease, outcome, reply: Some(reply) };
    desk.send(ask).map_err(|_| Problem::lease_over())?;
    match answer.await {
        Ok(Outcome::Accepted | Outcome::Unroutable) => Ok(()),
        Ok(Outcome::Refused(why) | Outcome::Failed(why)) => Err(why.into()),
        Err(_) => Err(Refused::Away("unknown".into()).into()),
    }
}

/// Tells a desk that a request is gone, answered or not.
pub(super) struct Leaving {
    pub(super) desk: Asking,
    pub(super) number: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // A desk that is gone waits for nobody.
        let _ = self.desk.send(Ask::Leave(self.number));
    }
}

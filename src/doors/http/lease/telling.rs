//! What clients are told of their leases and requests, and what becomes of these then.

use linkspan_contract::{Outcome, Refused, Seq, Settlement};
use tokio::sync::oneshot;

use super::ask::{Leased, Wish};
use super::coordinator::Keeper;
use super::shelf::Shelf;
use crate::doors::http::translate::Problem;

/// Who is told what became of a settlement; with the lease, if that goes on.
pub(super) struct Asked {
    pub(super) reply: Option<oneshot::Sender<Outcome>>,
    pub(super) goes_on: Option<u64>,
}

impl Keeper {
    pub(super) fn tell(&mut self, word: Seq, outcome: &Outcome) {
        let Some(Asked { reply, goes_on }) = self.asked.remove(&word) else { return };
        if let Some(lease) = goes_on
            && *outcome != Outcome::Accepted
            && let Some(out) = self.desk.take(lease)
        {
            self.forget(lease);
            out.delivery.settle(Settlement::Release { delay: 0 });
        }
        if let Some(reply) = reply {
            // Who hung up does not want to know.
            let _ = reply.send(outcome.clone());
        }
    }

    pub(super) fn forget(&self, lease: u64) {
        if let Some(register) = self.register.upgrade() {
            register.forget(lease);
        }
    }

    /// The way to the back end is lost, and with it all that is out.
    pub(super) fn lose(&mut self) {
        self.way = None;
        self.consumes = None;
        self.released = None;
        self.shelf = Shelf::default();
        self.asked.clear();
        let ended: Vec<_> = self.desk.end().collect();
        for (lease, _) in ended {
            self.forget(lease);
        }
        let lost = Refused::Away(self.place.queue.to_string());
        self.dismiss(|| Err(lost.clone().into()));
    }

    pub(super) fn dismiss(&mut self, answer: impl Fn() -> Result<Option<Leased>, Problem>) {
        for Wish { reply, .. } in self.desk.dismiss() {
            let _ = reply.send(answer());
        }
    }
}

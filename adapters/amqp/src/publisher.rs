//! A publishing channel, as those see it who publish on it.

mod bell;
pub(crate) mod coordinator;
mod entry;
mod inflight;
mod returned;

use std::sync::Arc;

use linkspan_contract::{Flags, Message, OwnedBatch, Seq};
use smallvec::SmallVec;
use tokio::sync::mpsc;

use crate::gauge::{Gauge, OVERHEAD};
use crate::goal::Goal;
use crate::mailbox::mailbox;
use crate::origin::Origin;
use crate::retained::Safe;

/// The way to a publishing channel's task. The channel is closed when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Publisher {
    commands: mpsc::UnboundedSender<Command>,
    /// What all who share it have under way.
    pub(crate) gauge: Arc<Gauge>,
}

/// What a publishing channel is asked.
pub(crate) enum Command {
    /// Publish.
    Publish(Parcel),
    /// Publish nothing before this lane's messages on its way of before have arrived.
    After(Arc<Origin>),
}

/// The messages of one read.
pub(crate) struct Parcel {
    pub(crate) origin: Arc<Origin>,
    pub(crate) batch: Arc<OwnedBatch>,
    /// Where they go: so many messages each.
    pub(crate) goals: SmallVec<[(u32, Arc<Goal>); 1]>,
    /// The number of the first that wants a receipt.
    pub(crate) first: Seq,
    /// `<instance>:<client>`, for a client that wants nothing of its own back.
    pub(crate) from: Option<Arc<str>>,
    /// Messages that addresses retain, by their places: when they are on the disk.
    pub(crate) safe: SmallVec<[(u32, Safe); 0]>,
}

impl Parcel {
    /// Each message with its goal, and the number under which its receipt is told.
    pub(crate) fn letters(&self) -> impl Iterator<Item = (u32, &Message, &Arc<Goal>, Option<Seq>)> {
        let goals = self.goals.iter().flat_map(|(count, goal)| (0..*count).map(move |_| goal));
        let mut seq = self.first;
        self.batch.messages().iter().zip(goals).zip(0..).map(move |((message, goal), at)| {
            let own = message.flags.has(Flags::RECEIPT).then_some(seq);
            seq += u64::from(own.is_some());
            (at, message, goal, own)
        })
    }

    /// When the message at `at` is on the disk, where its address retains it.
    pub(crate) fn safe_at(&self, at: u32) -> Option<Safe> {
        self.safe.iter().find(|(place, _)| *place == at).map(|(_, safe)| safe.clone())
    }

    /// Bytes that it takes while it is under way.
    pub(crate) fn size(&self) -> u64 {
        let count = u32::try_from(self.batch.messages().len()).unwrap_or(u32::MAX);
        (0..count).map(|at| self.batch.size(at).saturating_add(OVERHEAD)).sum()
    }
}

impl Publisher {
    pub(crate) fn new(high: u64) -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = mailbox();
        (Self { commands, gauge: Arc::new(Gauge::new(high)) }, receiver)
    }

    /// True when this lane's, or all lanes' messages are more than should be under way.
    pub(crate) fn publish(&self, parcel: Parcel) -> bool {
        let count = parcel.batch.messages().len() as u64;
        let size = parcel.size();
        let own = parcel.origin.gauge.add(count, size);
        let all = self.gauge.add(count, size);
        if self.commands.send(Command::Publish(parcel)).is_err() {
            // The task is gone with the back end; nobody waits for what it had.
            self.gauge.sub(count, size);
        }
        own || all
    }

    pub(crate) fn after(&self, origin: &Arc<Origin>) {
        if self.commands.send(Command::After(Arc::clone(origin))).is_err() {
            tracing::debug!("a lane moved to a publishing channel that is gone");
        }
    }
}

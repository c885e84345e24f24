//! Who has taken responsibility for a published message.

use smallvec::SmallVec;

use crate::refusal::Refused;

/// A number for a published message that wants a receipt: counts up from 0 on each lane.
pub type Seq = u64;

/// Numbers from here on are not those of messages: a door gives them to what else it wants to be told is safe, and they
/// mean the same to every lane on the way.
pub const WORDS: Seq = 1 << 62;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is where it has to be.
    Accepted,
    /// No queue and no subscription takes it. To who published it that is a success with a remark.
    Unroutable,
    /// It was not taken and never will be: the publisher's fault or a limit.
    Refused(Refused),
    /// It may or may not have arrived; the publisher may send it again.
    Failed(Refused),
}

/// What [`publish`](crate::Lane::publish) knows at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// How many messages of the batch were dealt with. Fewer than there were when one named an exchange that does not
    /// exist: it has the last of `exceptions`, and those behind it were not looked at.
    pub taken: u32,
    /// The number of the first message of the batch that wants a receipt.
    pub first: Seq,
    /// How many of the taken messages want one: they are numbered `first..first + wanting` in their order.
    pub wanting: u32,
    /// How many of these, from the first on, are known already: accepted unless in `exceptions`. The rest goes to the
    /// [`ReceiptSink`].
    pub done: u32,
    /// Messages that were not simply accepted, by their place in the batch, ascending. Only those flagged `RECEIPT` or
    /// `MANDATORY` are told of.
    pub exceptions: SmallVec<[(u32, Outcome); 0]>,
    /// A sink, queue or upstream is above its mark: poll [`poll_ready`](crate::Lane::poll_ready) before the next read.
    pub congested: bool,
}

/// One outcome for `count` publishes from `first` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The first.
    pub first: Seq,
    /// How many.
    pub count: u32,
    /// What became of them.
    pub outcome: Outcome,
}

/// The door's ear for receipts that [`publish`](crate::Lane::publish) did not know at once; called from any thread,
/// runs come in any order. One may come before the `publish` that it is for has returned: a door counts its messages
/// flagged `RECEIPT` itself, from 0 on each lane, and knows their numbers before it publishes.
pub trait ReceiptSink: Send + Sync {
    /// These are known now.
    fn receipts(&self, runs: &[Receipt]);
}

//! The queue engine: what every work queue of Linkspan is made of, whichever back end it serves.
//!
//! [`Queue`] is pure: time is an argument, it does no I/O and starts nothing. Whoever owns one wraps it in a lock and
//! carries out what it says.
//!
//! # How a back end drives it
//!
//! 1. Publishing a batch: [`Queue::direct`] first; when it answers 0, [`Queue::push`] each message. Then
//!    [`Queue::dispatch`], hand the [`Assignment`]s to the consumers' sinks, and carry out [`Queue::effects`].
//! 2. Settling: [`Queue::settle`] each run, then `dispatch`.
//! 3. A grant of [`Credit`](linkspan_contract::Credit) that woke the back end: [`Queue::resume`] each of the lane's
//!    consumers here, then `dispatch`. A consumer that ran dry is given nothing before it is resumed.
//! 4. A sink that refused to take an assignment: [`Queue::take_back`].
//! 5. At the time that [`Queue::next_tick`] says: [`Queue::tick`], then `dispatch`.
//! 6. A lane that goes: [`Queue::release_lane`], then `dispatch`.
//! 7. Where a journal keeps what is too much for the memory: whenever [`Queue::due`] says so, let it [`Queue::come_in`];
//!    whenever [`Queue::wants`] says so, [`Queue::bring`] it in; then `dispatch`.
//!
//! # Order
//!
//! Messages are ready in the order of (priority level descending, [`Position`]); a message that comes back stands where
//! it stood. Where levels have shares, they take turns instead; messages of one key wait for others of it that somebody
//! has. Consumers of the highest priority that can take come first, equals take turns message by message; who runs
//! dry or is paused leaves the rotation and joins it at its end.
//!
//! # Rooms
//!
//! | file | noun |
//! | --- | --- |
//! | [`queue`] | [`Queue`]: publishing; below it giving out, settling, consumers' coming and going, time |
//! | [`consumer`], [`holder`], [`rotation`] | who consumes, who holds what, whose turn it is |
//! | [`offer`], [`ready`], [`outside`], [`delayed`], [`unsettled`] | a message on its way through |
//! | [`assignment`], [`effect`] | what the engine tells its owner to do |
//! | [`keys`], [`shares`] | what goes to one consumer at a time, and how levels share |
//! | [`seen`] | what was published within a window of time |
//! | [`limits`] | bounds, and what happens at them |
//! | [`journal`] | what a durable log is told, and how a queue is rebuilt from it |
//! | [`diary`] | the journal of a queue that is kept in the log |
//! | [`log`] | the durable log: a library of its own, which knows nothing of the engine |
//! | `conformance` | for tests: a disk that fails when it is told to |

mod assignment;
#[cfg(feature = "conformance")]
pub mod conformance;
mod consumer;
mod delayed;
mod diary;
mod effect;
mod holder;
mod journal;
mod keys;
mod limits;
pub mod log;
mod offer;
mod outside;
mod queue;
mod ready;
mod rotation;
mod seen;
mod shares;
mod unsettled;

pub use assignment::{Assignment, Direct};
pub use consumer::{Consumer, ConsumerId, ExclusiveUse, LaneId, Removed};
pub use diary::{Diary, Encode, remembered};
pub use effect::{DeadReason, Effect};
pub use journal::{Gone, Journal, NoJournal};
pub use keys::Key;
pub use limits::{Limits, Overflow, Window};
pub use offer::{NEVER, Offer, Position, Pushed, Queued};
pub use queue::{Absent, Due, Queue, Tally};
pub use seen::Seen;

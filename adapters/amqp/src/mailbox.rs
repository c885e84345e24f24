//! The way to a task from those who must not wait.

use tokio::sync::mpsc;

/// The two ends. What lies in between is bounded by who sends: a door stops reading above its lane's mark, settles no
/// more than it was given, and asks one thing at a time.
#[allow(clippy::disallowed_methods, reason = "bounded by who sends, who must not wait")]
pub(crate) fn mailbox<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}

//! What becomes of a client's session when its lanes are gone.

use tokio::sync::watch;

/// A session's end, or what stands in for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on as far as anybody knows.
    Open,
    /// This process is done with it, and a later one goes on: what it has at the broker stays there.
    Stays,
    /// It is over, and with it what it had at the broker.
    Over,
}

impl Fate {
    /// Waits for the verdict: true when the session is over.
    pub(crate) async fn is_over(fate: &mut watch::Receiver<Self>) -> bool {
        fate.wait_for(|fate| *fate != Self::Open).await.is_ok_and(|fate| *fate == Self::Over)
    }
}

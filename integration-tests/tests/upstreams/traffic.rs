//! Publishers and consumers that note everything while something is wrong, and what their notes say afterwards.
//!
//! They do what a careful application does: after a loss they connect again, send again in order what was not acknowledged,
//! and acknowledge what they were given. So the same traffic runs through Linkspan and, as a control, at the broker itself.

mod notes;
mod sender;
mod taker;
mod verdict;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use notes::Line;
pub use sender::Sender;
pub use taker::Taker;
pub use verdict::Verdict;

/// How long traffic that should end may take to.
const END: Duration = Duration::from_secs(30);

/// How long nothing new is waited for before what has not come counts as lost.
const LULL: Duration = Duration::from_secs(5);

/// How often notes are looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Senders and those who take what these send.
pub struct Traffic {
    name: &'static str,
    senders: Vec<Sender>,
    takers: Vec<Taker>,
}

impl Traffic {
    /// Traffic that runs already.
    pub fn new(name: &'static str, senders: Vec<Sender>, takers: Vec<Taker>) -> Self {
        Self { name, senders, takers }
    }

    /// Every sender and taker whose line it is.
    fn pairs(&self) -> impl Iterator<Item = (&Sender, &Taker)> {
        let of = |sender: &Sender, taker: &Taker| sender.line == taker.line;
        self.senders.iter().flat_map(move |sender| {
            self.takers.iter().filter(move |taker| of(sender, taker)).map(move |taker| (sender, taker))
        })
    }

    /// Returns how long after `since` everything flows again: what everybody sends is acknowledged, and
    /// all takers are given news.
    pub async fn flows(&self, since: Instant) -> Duration {
        let mut last = self.waiting(since);
        loop {
            let waiting = self.waiting(since);
            if waiting.is_empty() {
                eprintln!("{}: {:?} until all flowed, last {last:?}", self.name, since.elapsed());
                return since.elapsed();
            }
            last = waiting;
            assert!(since.elapsed() < END, "{}: it does not flow again:\n{}", self.name, self.state());
            sleep(LOOK).await;
        }
    }

    /// Whose new messages are not acknowledged, and who is given none.
    fn waiting(&self, since: Instant) -> Vec<String> {
        let senders = self.senders.iter().filter(|sender| !sender.notes().is_acknowledged_after(since));
        let pairs = self.pairs().filter(|(sender, taker)| !taker.notes().has_news_of(&sender.notes(), since));
        let pairs = pairs.map(|(sender, taker)| format!("{} to {}", sender.name, taker.name));
        senders.map(|sender| sender.name.clone()).chain(pairs).collect()
    }

    /// Ends it, and says what was lost, reordered and repeated. `faults` is when something went wrong.
    pub async fn end(self, faults: &[Instant]) -> Verdict {
        self.senders.iter().for_each(Sender::stop);
        let since = Instant::now();
        while !self.senders.iter().all(Sender::is_done) {
            assert!(
                since.elapsed() < END,
                "{}: publishes are never acknowledged:\n{}",
                self.name,
                self.state()
            );
            sleep(LOOK).await;
        }
        let missing = || -> usize {
            self.pairs().map(|(sender, taker)| taker.notes().missing(&sender.notes()).len()).sum()
        };
        let (mut before, mut since) = (missing(), Instant::now());
        while before > 0 && since.elapsed() < LULL {
            sleep(LOOK).await;
            let now = missing();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        // What comes twice may come late.
        sleep(Duration::from_millis(300)).await;
        let mut verdict = Verdict::new(self.name);
        for sender in &self.senders {
            verdict.add_sender(&sender.name, &sender.notes());
        }
        for taker in &self.takers {
            verdict.add_taker(&taker.notes());
        }
        for (sender, taker) in self.pairs() {
            verdict.add_pair(&sender.name, &sender.notes(), &taker.name, &taker.notes(), faults);
        }
        verdict
    }

    fn state(&self) -> String {
        let senders = self.senders.iter().map(|sender| format!("{}: {}", sender.name, sender.notes()));
        let takers = self.takers.iter().map(|taker| format!("{}: {}", taker.name, taker.notes()));
        senders.chain(takers).collect::<Vec<_>>().join("\n")
    }
}

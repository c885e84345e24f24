//! What the notes say.

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

use super::notes::{Sent, Taken};

/// How long an acknowledgement may have been on its way when something went wrong.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// What went wrong with some traffic.
#[derive(Debug)]
pub struct Verdict {
    name: &'static str,
    /// Connections, channels and subscriptions that clients lost.
    pub losses: usize,
    /// Publishes that were refused.
    pub refused: Vec<String>,
    /// What was acknowledged and has not come, and when it was acknowledged.
    lost: Vec<(String, Instant)>,
    /// What came for the first time behind something newer of the same sender.
    pub disorder: Vec<String>,
    /// What came again although both its publish and its delivery had been acknowledged before anything went wrong.
    pub strays: Vec<String>,
    /// What came again, these included.
    pub duplicates: usize,
    /// Messages that were acknowledged.
    pub acknowledged: usize,
}

impl Verdict {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            losses: 0,
            refused: Vec::new(),
            lost: Vec::new(),
            disorder: Vec::new(),
            strays: Vec::new(),
            duplicates: 0,
            acknowledged: 0,
        }
    }

    pub(super) fn add_sender(&mut self, name: &str, sent: &Sent) {
        self.losses += sent.losses;
        self.refused.extend(sent.refused.iter().map(|(number, why)| format!("{name} {number}: {why}")));
        self.acknowledged += sent.acknowledgements();
    }

    pub(super) fn add_taker(&mut self, taken: &Taken) {
        self.losses += taken.losses;
    }

    pub(super) fn add_pair(
        &mut self,
        sender: &str,
        sent: &Sent,
        taker: &str,
        taken: &Taken,
        faults: &[Instant],
    ) {
        for number in taken.missing(sent) {
            let acknowledged = sent.acknowledged(number).expect("what is missing was acknowledged");
            let since = faults.iter().rev().find_map(|fault| acknowledged.checked_duration_since(*fault));
            let what = format!("{sender} {number} to {taker} (acknowledged {since:?} after a fault began)");
            self.lost.push((what, acknowledged));
        }
        let mut highest = None;
        let deliveries = taken.of(sent);
        for (at, (number, when)) in deliveries.iter().enumerate() {
            let Some((_, before)) = deliveries[..at].iter().rev().find(|(earlier, _)| earlier == number)
            else {
                if highest.is_some_and(|highest| highest > *number) {
                    self.disorder.push(format!("{sender} {number} to {taker} behind {highest:?}"));
                }
                highest = highest.max(Some(*number));
                continue;
            };
            self.duplicates += 1;
            let open = |since: Instant| {
                let late = |ack: Instant| ack + ON_ITS_WAY > since;
                sent.acknowledged(*number).is_none_or(late) || late(*before)
            };
            if !faults.iter().any(|fault| fault <= when && open(*fault)) {
                self.strays.push(format!("{sender} {number} to {taker}"));
            }
        }
    }

    /// When what was lost had been acknowledged.
    fn losing(&self) -> Option<RangeInclusive<Instant>> {
        let times = || self.lost.iter().map(|(_, when)| *when);
        Some(times().min()? - ON_ITS_WAY..=times().max()? + ON_ITS_WAY)
    }

    /// The test fails unless all is well but for what the `control` lost at the same time.
    pub fn judge(&self, control: &Self) {
        self.say();
        control.say();
        let losing = control.losing();
        let (forgiven, lost): (Vec<_>, Vec<_>) =
            self.lost.iter().partition(|(_, when)| losing.as_ref().is_some_and(|it| it.contains(when)));
        if !control.lost.is_empty() {
            eprintln!(
                "the broker's own loss: {} without Linkspan; {} with it at the same time, forgiven",
                control.lost.len(),
                forgiven.len()
            );
        }
        self.hold(&lost);
        assert!(control.acknowledged > 0, "there was traffic without Linkspan");
    }

    /// The test fails unless all is well.
    pub fn judge_alone(&self) {
        self.say();
        self.hold(&self.lost.iter().collect::<Vec<_>>());
    }

    fn hold(&self, lost: &[&(String, Instant)]) {
        let lost: Vec<_> = lost.iter().map(|(what, _)| what).collect();
        assert!(lost.is_empty(), "{} acknowledged messages are lost: {}", lost.len(), few(&lost));
        assert!(self.disorder.is_empty(), "out of order: {}", few(&self.disorder));
        assert!(self.strays.is_empty(), "came again for no reason: {}", few(&self.strays));
        assert!(self.refused.is_empty(), "refused: {}", few(&self.refused));
        assert_eq!(self.losses, 0, "clients of Linkspan lose nothing but time");
        assert!(self.acknowledged > 0, "there was traffic");
    }

    fn say(&self) {
        eprintln!(
            "{}: {} acknowledged, {} lost, {} came again, {} connections lost",
            self.name,
            self.acknowledged,
            self.lost.len(),
            self.duplicates,
            self.losses
        );
    }
}

fn few<T: std::fmt::Display>(all: &[T]) -> String {
    let shown: Vec<String> = all.iter().take(10).map(ToString::to_string).collect();
    format!("{}{}", shown.join(", "), if all.len() > 10 { ", …" } else { "" })
}

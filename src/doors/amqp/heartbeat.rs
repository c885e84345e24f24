//! Signs of life (standard §4.2.7), both ways.

use std::time::Duration;

use tokio::time::Instant;

/// The heartbeats of one connection: looked at every half interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat {
    interval: Duration,
    heard: Instant,
}

/// What has to be done at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Send a sign of life.
    Send,
    /// The client missed two: it is gone.
    Lost,
}

impl Heartbeat {
    /// Heartbeats every `seconds`; `None` for 0, which is none at all.
    pub(super) fn new(seconds: u16, now: Instant) -> Option<Self> {
        (seconds > 0).then(|| Self { interval: Duration::from_secs(seconds.into()), heard: now })
    }

    /// How long until the next look.
    pub(super) fn pause(&self) -> Duration {
        self.interval / 2
    }

    /// Bytes came, whatever they were; or we do not read on purpose, which is not the client's silence.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A look, every [`pause`](Self::pause).
    pub(super) fn look(&self, now: Instant) -> Beat {
        if now.saturating_duration_since(self.heard) >= self.interval * 2 { Beat::Lost } else { Beat::Send }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_misses_two_heartbeats_is_lost() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(10, start).unwrap();
        assert_eq!(heartbeat.pause(), Duration::from_secs(5));
        assert_eq!(heartbeat.look(start + Duration::from_secs(15)), Beat::Send);
        heartbeat.heard(start + Duration::from_secs(15));
        assert_eq!(heartbeat.look(start + Duration::from_secs(34)), Beat::Send);
        assert_eq!(heartbeat.look(start + Duration::from_secs(35)), Beat::Lost);
    }

    #[test]
    fn an_interval_of_zero_is_no_heartbeat() {
        assert!(Heartbeat::new(0, Instant::now()).is_none());
    }
}

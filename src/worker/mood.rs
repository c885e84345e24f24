//! How a worker's server has been, and whether it is asked to do anything now.

use std::time::Duration;

use linkspan_contract::Retry;
use tokio::time::Instant;

/// What is known of the server.
pub(super) struct Mood {
    retry: Retry,
    /// How often in a row it was not to be had, or asked for time without saying how much.
    failures: u32,
    /// Nothing is pushed before.
    until: Option<Instant>,
    /// It was not to be had, and nothing is taken from the queue before it is seen again: a message that nobody can be
    /// given is not to be used up.
    is_missed: bool,
    /// How the last push went.
    last: &'static str,
}

impl Mood {
    /// Nothing is known; who is away, or asks for time, is waited for as `retry` says.
    pub(super) fn new(retry: Retry) -> Self {
        Self { retry, failures: 0, until: None, is_missed: false, last: "" }
    }

    /// Whether messages may be pushed.
    pub(super) fn is_well(&self) -> bool {
        self.until.is_none() && !self.is_missed
    }

    /// Whether it is time to see if the server is there.
    pub(super) fn has_to_look(&self) -> bool {
        self.until.is_none() && self.is_missed
    }

    /// When something changes by itself.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// It is `now`.
    pub(super) fn pass(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
    }

    /// The server does what it is there for.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
    }

    /// It asks for time: so much, if it says how much.
    pub(super) fn slow(&mut self, wait: Option<Duration>, now: Instant) {
        // Of several pushes that come back at once only the first one is news.
        if wait.is_none() && self.until.is_none() {
            self.failures = self.failures.saturating_add(1);
        }
        let until = now + wait.unwrap_or_else(|| Duration::from_millis(self.retry.after(self.failures)));
        self.until = Some(self.until.map_or(until, |before| before.max(until)));
    }

    /// It is not to be had.
    pub(super) fn miss(&mut self, now: Instant) {
        self.is_missed = true;
        self.slow(None, now);
    }

    /// It was looked for.
    pub(super) fn looked(&mut self, is_there: bool, now: Instant) {
        match is_there {
            true => self.is_missed = false,
            false => self.miss(now),
        }
    }

    /// Notes how a push went; true when the one before went otherwise. That the first ones go well is no news.
    pub(super) fn goes(&mut self, how: &'static str) -> bool {
        let before = std::mem::replace(&mut self.last, how);
        before != how && !(before.is_empty() && how == "accepted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { delay: 1_000, factor: 200, max: 3_000 };

    fn at(begin: Instant, millis: u64) -> Instant {
        begin + Duration::from_millis(millis)
    }

    #[tokio::test]
    async fn who_asks_for_time_is_given_it_and_the_longest_of_several() {
        let (begin, mut mood) = (Instant::now(), Mood::new(RETRY));
        assert!(mood.is_well());
        mood.slow(Some(Duration::from_secs(7)), begin);
        mood.slow(Some(Duration::from_secs(5)), begin);
        assert_eq!((mood.is_well(), mood.until()), (false, Some(at(begin, 7_000))));
        mood.pass(at(begin, 6_999));
        assert!(!mood.is_well());
        mood.pass(at(begin, 7_000));
        assert!(mood.is_well() && !mood.has_to_look());
    }

    #[tokio::test]
    async fn who_does_not_say_how_much_is_given_more_each_time_until_it_answers() {
        let (begin, mut mood) = (Instant::now(), Mood::new(RETRY));
        for wait in [1_000, 2_000, 3_000, 3_000] {
            mood.slow(None, begin);
            mood.slow(None, begin);
            assert_eq!(mood.until(), Some(at(begin, wait)), "two at once count once");
            mood.pass(at(begin, wait));
        }
        mood.answered();
        mood.slow(None, begin);
        assert_eq!(mood.until(), Some(at(begin, 1_000)));
    }

    #[tokio::test]
    async fn who_is_away_is_looked_for_before_it_is_given_anything() {
        let (begin, mut mood) = (Instant::now(), Mood::new(RETRY));
        mood.miss(begin);
        assert!(!mood.is_well() && !mood.has_to_look());
        mood.pass(at(begin, 1_000));
        assert!(!mood.is_well() && mood.has_to_look());
        mood.looked(false, at(begin, 1_000));
        assert_eq!((mood.has_to_look(), mood.until()), (false, Some(at(begin, 3_000))));
        mood.pass(at(begin, 3_000));
        mood.looked(true, at(begin, 3_000));
        assert!(mood.is_well());
    }

    #[test]
    fn it_is_news_when_pushes_go_otherwise_than_before() {
        let mut mood = Mood::new(RETRY);
        let news =
            ["accepted", "accepted", "failed", "failed", "slowed", "accepted"].map(|how| mood.goes(how));
        assert_eq!(news, [false, false, true, false, true, true]);
    }
}

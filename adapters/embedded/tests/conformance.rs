//! The embedded back end does what every back end has to.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linkspan_contract::conformance::Fixture;
use linkspan_contract::{Backend, Clock, Millis};
use linkspan_embedded::{Embedded, EmbeddedOptions};
use tokio::time::Instant;

/// Tokio's paused time.
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Millis {
        1_700_000_000_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

struct Fresh;

#[async_trait]
impl Fixture for Fresh {
    async fn backend(&self) -> Arc<dyn Backend> {
        let clock = Arc::new(PausedClock(Instant::now()));
        Embedded::open("local", EmbeddedOptions::default(), clock)
    }

    async fn pass(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(10)
    }
}

linkspan_contract::conformance!(
    #[tokio::test(start_paused = true)]
    Fresh
);

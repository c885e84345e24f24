//! How the ledger is, as far as was seen last.

use std::sync::Arc;

use linkspan_contract::{Health, Ledger};
use parking_lot::Mutex;

/// A ledger that is looked at from time to time, so that whoever asks how it is need not wait.
pub struct Watched {
    ledger: Arc<dyn Ledger>,
    /// What it is called in logs.
    name: Box<str>,
    last: Mutex<Option<Health>>,
}

impl Watched {
    /// Nobody has looked yet.
    pub fn new(ledger: Arc<dyn Ledger>, name: impl Into<Box<str>>) -> Self {
        Self { ledger, name: name.into(), last: Mutex::default() }
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// How it was when somebody looked.
    pub fn health(&self) -> Health {
        self.last.lock().clone().unwrap_or_else(|| Health::Away("it has not answered yet".into()))
    }

    /// Looks, and says when it is otherwise than before.
    pub async fn look(&self) {
        let health = self.ledger.health().await;
        let before = self.last.lock().replace(health.clone());
        metrics::gauge!("linkspan_ledger_up").set(if health == Health::Up { 1.0 } else { 0.0 });
        let ledger = &self.name;
        match (health, before) {
            (Health::Up, Some(Health::Up)) | (Health::Away(_), Some(Health::Away(_))) => {}
            (Health::Up, _) => tracing::info!(%ledger, "the ledger is reached"),
            (Health::Away(why), _) => tracing::warn!(
                %ledger,
                %why,
                "the ledger cannot be used: work queues over MQTT brokers wait for it, and what has to be remembered is \
                 written when it is back"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::SystemClock;

    use super::*;
    use crate::ledger::EmbeddedLedger;

    #[tokio::test]
    async fn it_is_away_until_somebody_has_looked() {
        let ledger = EmbeddedLedger::in_memory("one", Arc::new(SystemClock));
        let watched = Watched::new(Arc::new(ledger), "test");
        assert!(matches!(watched.health(), Health::Away(_)));
        watched.look().await;
        assert_eq!(watched.health(), Health::Up);
    }
}

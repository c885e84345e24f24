//! Which queues have one for each of their levels, as the ledger has it: the broker does not tell, and what lies in the queue
//! of a level that a route has no more must not be forgotten.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::Refused;
use linkspan_contract::ledger::{Conditions, Ledger, LedgerError};
use tokio::time::timeout;

/// So many are read at once.
const PAGE: usize = 256;

/// How long the ledger may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The queues of one broker.
#[derive(Clone)]
pub(crate) struct Store {
    ledger: Arc<dyn Ledger>,
    /// What their keys begin with.
    prefix: String,
}

impl Store {
    /// That of the broker of this name.
    pub(crate) fn new(ledger: &Arc<dyn Ledger>, broker: &str) -> Self {
        Self { ledger: Arc::clone(ledger), prefix: format!("levels/{broker}/") }
    }

    /// All of them, and the highest level of each.
    ///
    /// # Errors
    /// When the ledger cannot be asked.
    pub(crate) async fn all(&self) -> Result<Vec<(String, u8)>, Refused> {
        within(self.read()).await
    }

    async fn read(&self) -> Result<Vec<(String, u8)>, LedgerError> {
        let mut all = Vec::new();
        let mut after: Option<Box<str>> = None;
        loop {
            let page = self.ledger.scan(&self.prefix, after.as_deref(), PAGE).await?;
            for (key, entry) in &page {
                let highest = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok());
                if let (Some(queue), Some(highest)) = (key.strip_prefix(&self.prefix), highest) {
                    all.push((queue.to_owned(), highest));
                }
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => return Ok(all),
            }
        }
    }

    /// Writes down that a queue has these.
    ///
    /// # Errors
    /// When it is not written.
    pub(crate) async fn note(&self, queue: &str, highest: u8) -> Result<(), Refused> {
        let (key, text) = (format!("{}{queue}", self.prefix), highest.to_string());
        within(async { self.ledger.put(&key, text.as_bytes(), Conditions::default()).await.map(drop) }).await
    }

    /// A queue has none any more.
    ///
    /// # Errors
    /// When it is not written.
    pub(crate) async fn forget(&self, queue: &str) -> Result<(), Refused> {
        let key = format!("{}{queue}", self.prefix);
        within(async { self.ledger.delete(&key, Conditions::default()).await.map(drop) }).await
    }
}

async fn within<T>(asked: impl Future<Output = Result<T, LedgerError>>) -> Result<T, Refused> {
    let why = match timeout(PATIENCE, asked).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(why)) => why.to_string(),
        Err(_) => "it does not answer".into(),
    };
    Err(Refused::Precondition(format!(
        "the ledger, which has the number of levels of queues at the broker, cannot be used: {why}"
    )))
}

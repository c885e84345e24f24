//! Waits for the end of an era.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Past;

/// How often it is looked whether one is over.
const LOOK: Duration = Duration::from_millis(5);

impl Past {
    /// Returns when it is over; false when it is not within `limit`.
    pub async fn ends(&self, limit: Duration) -> bool {
        let over = async {
            while !self.is_over() {
                sleep(LOOK).await;
            }
        };
        timeout(limit, over).await.is_ok()
    }
}

//! Pausing a queue, until its consumers have let go of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::hub::Hub;
use crate::hub::queue_error::QueueError;

/// How long the consumers of this instance have for letting go.
const GRACE: Duration = Duration::from_secs(1);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(10);

impl Hub {
    /// Has a queue give nothing out until [`Hub::go_on`], here and after a restart. What consumers have in hand stays theirs.
    /// Returns when nobody here is given anything of it any more; whether that is new.
    ///
    /// # Errors
    /// When there is no such queue, or a client has made it.
    pub async fn pause(&self, vhost: &Arc<str>, queue: &str) -> Result<bool, QueueError> {
        let (mut own, counts) = self.look_into(vhost, queue).await?;
        if self.routes().vhost(vhost).is_none_or(|table| table.owner(queue).is_none()) {
            return Err(QueueError::NotOfARoute { queue: queue.into() });
        }
        let is_new = self.set_paused(vhost, queue, true);
        if is_new {
            tracing::info!(%vhost, queue, "the queue is paused");
        }
        self.write_down().await;
        let until = Instant::now() + GRACE;
        let mut consumers = counts.consumers;
        // Those of other instances and of the broker's own clients stay.
        while consumers > 0 && Instant::now() < until {
            sleep(LOOK).await;
            consumers = own.counts(queue).await?.map_or(0, |counts| counts.consumers);
        }
        Ok(is_new)
    }

    /// Lets a paused queue go on; whether it was paused.
    ///
    /// # Errors
    /// When there is no such queue, and it was not paused.
    pub async fn go_on(&self, vhost: &Arc<str>, queue: &str) -> Result<bool, QueueError> {
        if !self.paused.has(vhost, queue) {
            self.look_into(vhost, queue).await?;
        }
        let is_new = self.set_paused(vhost, queue, false);
        if is_new {
            tracing::info!(%vhost, queue, "the queue goes on");
        }
        self.write_down().await;
        Ok(is_new)
    }
}

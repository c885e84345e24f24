//! Lanes of the hub's own: it makes queues, asks for them and deletes them.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{
    Backend, BackendError, Client, Connection, Lane, Nobody, QueueCounts, QueueSpec, Refused,
};
use tokio::time::timeout;

use super::Hub;
use super::routes_error::RoutesError;

/// How long a back end may take to say whether a queue is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it may take to say what one holds.
const COUNTING: Duration = Duration::from_secs(5);

/// A lane of the hub's own, and the scope that it lives in.
pub struct OwnLane {
    /// The lane.
    pub lane: Box<dyn Lane>,
    _connection: Box<dyn Connection>,
}

impl Hub {
    /// Whether the home of a vhost knows no such queue; none when it does not say so in time.
    pub(super) async fn is_gone(&self, vhost: &Arc<str>, queue: &str) -> Option<bool> {
        let routes = self.routes();
        let Some(home) = routes.vhost(vhost).map(|table| table.home()) else { return Some(true) };
        let spec = QueueSpec { passive: true, ..QueueSpec::new(queue) };
        let asked = async { self.lane_on(home, vhost).await.ok()?.lane.declare_queue(&spec).await.err() };
        let refused = timeout(PATIENCE, asked).await.ok()?;
        Some(refused.is_some_and(|refused| refused.is_missing()))
    }

    /// A lane of the hub's own on a back end.
    pub(super) async fn lane_on(&self, backend: &str, vhost: &Arc<str>) -> Result<OwnLane, RoutesError> {
        Ok(OwnLane::open(&**self.backend(backend)?, vhost).await?)
    }
}

impl OwnLane {
    /// A lane on a back end.
    ///
    /// # Errors
    /// When it is away or denies access.
    pub async fn open(backend: &dyn Backend, vhost: &Arc<str>) -> Result<Self, BackendError> {
        let client = Client {
            number: 0,
            identifier: "linkspan".into(),
            user: "linkspan".into(),
            vhost: Arc::clone(vhost),
            session: None,
        };
        let mut connection = backend.connect(&client, Arc::new(Nobody)).await?;
        let lane = connection.lane(Arc::new(Nobody), Arc::new(Nobody)).await?;
        Ok(Self { lane, _connection: connection })
    }

    /// What a queue holds; none when there is no such queue, which may cost the lane.
    ///
    /// # Errors
    /// When the back end does not say.
    pub async fn counts(&mut self, queue: &str) -> Result<Option<QueueCounts>, Refused> {
        let spec = QueueSpec { passive: true, durable: true, ..QueueSpec::new(queue) };
        match timeout(COUNTING, self.lane.declare_queue(&spec)).await {
            Ok(Ok(counts)) => Ok(Some(counts)),
            Ok(Err(refused)) if refused.is_missing() => Ok(None),
            Ok(Err(refused)) => Err(refused),
            Err(_) => Err(Refused::Away(format!("it does not say what '{queue}' holds"))),
        }
    }
}

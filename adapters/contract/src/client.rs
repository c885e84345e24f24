//! Who is behind a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::SessionTerms;

/// A client's scope at a back end: what it declares exclusively lives and dies with it.
#[derive(Debug, Clone)]
pub struct Client {
    /// Unique in this process; no-local and exclusiveness go by it.
    pub number: u64,
    /// MQTT's client identifier, or the name that an AMQP client gave or got.
    pub identifier: Arc<str>,
    /// The user it authenticated as.
    pub user: Arc<str>,
    /// The namespace it works in.
    pub vhost: Arc<str>,
    /// The session that it wants; none is one that ends with its connection.
    pub session: Option<Arc<SessionTerms>>,
}

impl Client {
    /// Whether its unsettled deliveries and subscriptions outlive its connection.
    pub fn keeps_session(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.keep > 0)
    }
}

/// A number for [`Client::number`] that no other client of this process has.
pub fn client_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

//! A way to one queue, and what comes by it.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::deliveries::Next;
use linkspan_contract::{
    Backend, BackendError, Client, Connection, Credit, Deliveries, Lane, Refused, Settle, Source, Subscribe,
    SubscriptionKey, client_number,
};

use super::ear::Ear;

/// A client of a back end, or of the hub, with a lane for one queue.
pub(crate) struct Way {
    deliveries: Deliveries,
    /// Of the last time that the queue was consumed. Each time is another subscription: what is said of what came by an
    /// earlier one, which a back end may have forgotten, must not settle anything of a later one.
    key: SubscriptionKey,
    lane: Box<dyn Lane>,
    _connection: Box<dyn Connection>,
    /// What the back end has told.
    pub(crate) ear: Arc<Ear>,
    window: Arc<Credit>,
}

/// What has happened.
pub(crate) enum Came {
    /// Something came by the queue.
    Next(Next),
    /// The [`Ear`] has heard something.
    Told,
}

impl Way {
    /// A way for the user `user` of a vhost. `window` is how many deliveries may be unsettled.
    ///
    /// # Errors
    /// When the back end does not let it in.
    pub(crate) async fn open(
        backend: &dyn Backend,
        vhost: &Arc<str>,
        name: &str,
        user: Arc<str>,
        window: Arc<Credit>,
    ) -> Result<Self, BackendError> {
        // What waits is bounded by the window.
        let deliveries = Deliveries::working(u64::MAX, Some(Arc::clone(&window)));
        let number = client_number();
        let client = Client {
            number,
            identifier: format!("{name}-{number}").into(),
            user,
            vhost: Arc::clone(vhost),
            session: None,
        };
        let mut connection = backend.connect(&client, deliveries.sink()).await?;
        let ear = Arc::new(Ear::default());
        let lane = connection.lane(Arc::clone(&ear) as _, Arc::clone(&ear) as _).await?;
        let key = SubscriptionKey { subscription: 0, part: 0 };
        Ok(Self { deliveries, key, lane, _connection: connection, ear, window })
    }

    /// Has the queue consumed; what is not settled `within` that time comes again.
    ///
    /// # Errors
    /// When there is no such queue, or it is not to be had.
    pub(crate) async fn consume(&mut self, queue: &str, within: Duration) -> Result<(), Refused> {
        let ack_timeout = Some(millis(within));
        // One client of a lease knows nothing of the next, and no push of another.
        let how = Subscribe { ack_timeout, several: true, ..Subscribe::new(Settle::ByConsumer) };
        self.key.subscription = self.key.subscription.wrapping_add(1);
        let window = Some(Arc::clone(&self.window));
        self.lane.subscribe(&Source::Queue(queue), self.key, &how, window).await?;
        self.lane.start(self.key);
        Ok(())
    }

    /// Has it consumed no more. What is out stays so.
    ///
    /// # Errors
    /// When the back end says no.
    pub(crate) async fn leave(&mut self) -> Result<(), Refused> {
        self.lane.unsubscribe(self.key).await
    }

    /// Carries out what was settled.
    pub(crate) fn settle(&mut self) {
        self.deliveries.settle_into(&mut *self.lane);
    }

    /// Follows routes that were changed, when they were.
    pub(crate) async fn follow(&mut self) {
        if self.ear.take_changed() {
            self.lane.refresh().await;
        }
    }

    /// Returns when something has come or was told; carries out first what was settled.
    pub(crate) async fn listen(&mut self) -> Came {
        tokio::select! {
            biased;
            () = self.ear.rings() => Came::Told,
            next = self.deliveries.next(&mut *self.lane) => Came::Next(next),
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.deliveries.end(&mut *self.lane);
    }
}

/// A duration as back ends are told it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! An ordered way through the back end.

use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::backend::{Fetched, Retained};
use linkspan_contract::{
    Batch, Binding, BodyWriter, Client, Credit, Destination, ExchangeSpec, Lane, Lost, Overflow, Published,
    QueueCounts, QueueSpec, Refused, Settled, Source, Subscribe, SubscriptionKey, TargetId,
};

use crate::claim::Ears;
use crate::exchanges;
use crate::feed::{Feed, Hold};
use crate::house::House;
use crate::passage::passage::Passage;
use crate::publisher::Publisher;
use crate::retained;
use crate::upstream::coordinator;
use crate::upstream::filter;
use crate::upstream::packet::Version;
use crate::upstream::session::{Marks, Session};
use crate::upstream::wish::Wish;

/// One lane: addresses are the broker's, all else is the engine's.
pub(crate) struct MqttLane {
    house: Arc<House>,
    client: Client,
    inner: Box<dyn Lane>,
    publisher: Publisher,
    ears: Arc<Ears>,
    /// What its subscriptions want of the broker.
    wants: HashMap<SubscriptionKey, Vec<Want>, RandomState>,
    /// The client's own session, when it is passed through: what it subscribes to by filters is subscribed to there.
    own: Option<Own>,
}

/// A lane's part of its client's own session.
pub(crate) struct Own {
    passage: Arc<Passage>,
    filters: HashMap<SubscriptionKey, Arc<str>, RandomState>,
}

impl Own {
    pub(crate) fn new(passage: Arc<Passage>) -> Self {
        Self { passage, filters: HashMap::default() }
    }
}

/// A filter that a subscription wants, from before it begins until it ends.
struct Want {
    filter: Arc<str>,
    no_local: bool,
}

impl MqttLane {
    pub(crate) fn new(
        house: Arc<House>,
        client: &Client,
        inner: Box<dyn Lane>,
        ears: Arc<Ears>,
        publisher: Publisher,
        own: Option<Own>,
    ) -> Self {
        Self { house, client: client.clone(), inner, publisher, ears, wants: HashMap::default(), own }
    }

    fn check_feed(&self, queue: &str) -> Result<(), Refused> {
        self.house.feeds.of(&self.client.vhost, queue).map_or(Ok(()), |feed| feed.check())
    }
}

fn release(house: &House, client: u64, wants: impl IntoIterator<Item = Want>) {
    for want in wants {
        house.subscriber.release(&want.filter);
        if want.no_local {
            house.locals.remove(client, 1);
        }
    }
}

/// What the broker calls a subscription.
fn at_broker(source: &Source<'_>, filter: &str) -> Arc<str> {
    match source {
        Source::Group { group, .. } => format!("$share/{group}/{filter}").into(),
        _ => filter.into(),
    }
}

/// Has what `filter` matches brought here for a client.
async fn bring(house: &House, client: &Client, filter: &str, no_local: bool) -> Result<Want, Refused> {
    if no_local && house.dial.version() == Some(Version::V311) {
        return Err(Refused::NotImplemented(format!(
            "back end '{}' speaks MQTT 3.1.1, which does not tell who published a message: no-local cannot be had",
            house.name
        )));
    }
    house.subscriber.want(filter);
    let want = Want { filter: filter.into(), no_local };
    if no_local {
        house.locals.add(client.number, &client.vhost);
    }
    match house.subscriber.settled(filter).await {
        Ok(()) => Ok(want),
        Err(why) => {
            release(house, client.number, [want]);
            Err(why)
        }
    }
}

#[async_trait]
impl Lane for MqttLane {
    fn target(&mut self, to: &Destination<'_>) -> TargetId {
        self.publisher.target(to, &mut *self.inner)
    }

    fn forget(&mut self, targets: &[TargetId]) {
        self.publisher.forget(targets, &mut *self.inner);
    }

    fn publish(&mut self, batch: &Batch<'_>) -> Published {
        self.publisher.publish(batch, &mut *self.inner)
    }

    fn flush(&mut self) {
        self.publisher.flush();
        self.inner.flush();
        if let Some(own) = &self.own {
            own.passage.flush();
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if self.house.is_closed() {
            let backend = self.house.name.to_string();
            return Poll::Ready(Err(Lost { backend, why: "it was closed".into() }));
        }
        let upstream = self.publisher.poll_ready(cx);
        match self.inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => upstream.map(Ok),
            other => other,
        }
    }

    fn settle(&mut self, runs: &[Settled]) {
        if let Some(own) = &self.own {
            own.passage.settle(runs);
        }
        self.inner.settle(runs);
    }

    fn resume(&mut self) {
        self.inner.resume();
        if let Some(own) = &self.own {
            own.passage.give();
        }
    }

    fn body(&mut self, target: TargetId, size: Option<u64>) -> Result<Option<Box<dyn BodyWriter>>, Refused> {
        self.publisher.body(target, size, &mut *self.inner)
    }

    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        let filter = match *source {
            Source::Queue(queue) => {
                self.check_feed(queue)?;
                return self.inner.subscribe(source, key, how, credit).await;
            }
            Source::Session => {
                let Some(own) = &self.own else {
                    return Err(Refused::NotImplemented("the client has no session of its own".into()));
                };
                own.passage.take_under(key, credit);
                return Ok(());
            }
            Source::Filter(filter) | Source::Group { filter, .. } => filter,
        };
        if let Some(own) = &mut self.own {
            if let Source::Group { group, filter } = source
                && let Some(feed) =
                    self.house.feeds.all().into_iter().find(|it| it.is_member_of(group, filter))
            {
                return Err(Refused::AccessRefused(format!(
                    "the group '{group}' feeds the queue '{}' of vhost '{}'; consume from that queue",
                    feed.queue, feed.vhost
                )));
            }
            let filter = at_broker(source, filter);
            own.passage.subscribe(&filter, Wish::of(how)).await?;
            own.filters.insert(key, filter);
            return Ok(());
        }
        let want = bring(&self.house, &self.client, filter, how.no_local).await?;
        if let Err(why) = self.inner.subscribe(source, key, how, credit).await {
            release(&self.house, self.client.number, [want]);
            return Err(why);
        }
        self.wants.entry(key).or_default().push(want);
        Ok(())
    }

    fn start(&mut self, key: SubscriptionKey) {
        if self.own.as_ref().is_some_and(|own| own.passage.start(key)) {
            return;
        }
        self.inner.start(key);
        // What the key stood for before is over now.
        let before = match self.wants.get_mut(&key) {
            Some(wants) => {
                let last = wants.len().saturating_sub(1);
                wants.drain(..last).collect()
            }
            None => Vec::new(),
        };
        release(&self.house, self.client.number, before);
    }

    async fn refresh(&mut self) {
        self.inner.refresh().await;
    }

    async fn unsubscribe_from(&mut self, source: &Source<'_>) -> Result<bool, Refused> {
        match (&self.own, *source) {
            (Some(own), Source::Filter(filter) | Source::Group { filter, .. }) => {
                own.passage.unsubscribe(&at_broker(source, filter)).await
            }
            _ => Ok(false),
        }
    }

    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        if let Some(own) = &mut self.own
            && let Some(filter) = own.filters.remove(&key)
        {
            return own.passage.unsubscribe(&filter).await.map(drop);
        }
        let result = self.inner.unsubscribe(key).await;
        let wants = self.wants.remove(&key).unwrap_or_default();
        release(&self.house, self.client.number, wants);
        result
    }

    async fn fetch(
        &mut self,
        queue: &str,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused> {
        self.check_feed(queue)?;
        self.inner.fetch(queue, key, settled).await
    }

    async fn feed(&mut self, queue: &str, filters: &[&str], except: &[&str]) -> Result<(), Refused> {
        let vhost = &self.client.vhost;
        if filters.is_empty() {
            if let Some(feed) = self.house.feeds.of(vhost, queue) {
                coordinator::end_feed(&self.house, feed).await;
            }
            self.house.feeds.set_burying(vhost, queue, false);
            return self.inner.feed(queue, filters, except).await;
        }
        let feed = self.house.feeds.open(vhost, queue, || {
            let marks = Marks { high: 0, limit: 0, window: 1 };
            let share = Feed::share(vhost, queue).into();
            let session = Session::new(Arc::clone(&self.house.name), Some(share), marks);
            Feed::new(Arc::clone(vhost), queue.into(), session)
        });
        feed.set_filters(filters, except);
        if !feed.is_carried() {
            feed.hold(Hold::Asking);
            coordinator::start_feed(&self.house, &feed);
        }
        for filter in filters {
            feed.session.settled(filter).await?;
        }
        Ok(())
    }

    async fn retained(&mut self, filter: &str) -> Result<Option<Vec<Retained>>, Refused> {
        if self.own.is_some() {
            // The broker sends them to the client's session by itself.
            return Ok(Some(Vec::new()));
        }
        retained::fetch(&self.house, filter).await.map(Some)
    }

    async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        self.inner.recover(requeue).await
    }

    async fn declare_exchange(&mut self, exchange: &ExchangeSpec<'_>) -> Result<(), Refused> {
        exchanges::declared(exchange.name, exchange.passive)?;
        self.inner.declare_exchange(exchange).await
    }

    async fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<(), Refused> {
        self.inner.delete_exchange(name, if_unused).await
    }

    async fn declare_queue(&mut self, queue: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        let counts = self.inner.declare_queue(queue).await?;
        if let Some(terms) = queue.terms {
            let buries = terms.overflow == Overflow::DeadLetter;
            self.house.feeds.set_burying(&self.client.vhost, queue.name, buries);
        }
        Ok(counts)
    }

    async fn delete_queue(&mut self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64, Refused> {
        self.inner.delete_queue(name, if_unused, if_empty).await
    }

    async fn purge_queue(&mut self, name: &str) -> Result<u64, Refused> {
        self.inner.purge_queue(name).await
    }

    async fn bind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        exchanges::bound(binding)?;
        self.inner.bind(binding).await?;
        let Some(filter) = filter::of_binding(binding.key) else { return Ok(()) };
        if let Err(why) = self.house.subscriber.settled(&filter).await {
            self.inner.unbind(binding).await?;
            return Err(why);
        }
        Ok(())
    }

    async fn unbind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.inner.unbind(binding).await
    }

    async fn begin(&mut self) -> Result<(), Refused> {
        Err(Refused::NotImplemented(format!(
            "back end '{}' has no transactions: what is published to an MQTT broker cannot be one step with anything else",
            self.house.name
        )))
    }

    async fn commit(&mut self) -> Result<(), Refused> {
        self.inner.commit().await
    }

    async fn rollback(&mut self) -> Result<(), Refused> {
        self.inner.rollback().await
    }
}

impl Drop for MqttLane {
    fn drop(&mut self) {
        self.ears.close();
        let wants: Vec<Want> = self.wants.drain().flat_map(|(_, wants)| wants).collect();
        release(&self.house, self.client.number, wants);
    }
}

//! One client's connection to the tests' broker, and its lane.

use super::*;

pub(super) struct Scope {
    pub shared: Arc<Shared>,
    pub client: Client,
    pub sink: Arc<dyn DeliverySink>,
}

#[async_trait]
impl Connection for Scope {
    fn attach(&mut self, sink: Arc<dyn DeliverySink>) {
        let mut state = self.shared.state.lock();
        let number = self.client.number;
        let nothing = Batch::new(&[], &[], &neutral::NEUTRAL);
        state.detached += usize::from(sink.deliver(&nothing, &[]) == Delivered::Closed);
        state
            .subscriptions
            .iter_mut()
            .filter(|s| s.client == number)
            .for_each(|s| s.sink = Arc::clone(&sink));
        self.sink = sink;
    }

    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError> {
        let mut state = self.shared.state.lock();
        state.receipts.push(receipts);
        state.events.push(events);
        let (shared, sink) = (Arc::clone(&self.shared), Arc::clone(&self.sink));
        Ok(Box::new(Way { shared, client: self.client.number, sink, targets: Vec::new(), seq: 0 }))
    }

    async fn close(self: Box<Self>) {
        self.shared.state.lock().closed.push(Arc::clone(&self.client.identifier));
    }
}

struct Way {
    shared: Arc<Shared>,
    client: u64,
    sink: Arc<dyn DeliverySink>,
    targets: Vec<Vec<u8>>,
    seq: Seq,
}

impl Way {
    fn publish_one(&self, state: &mut State, batch: &Batch<'_>, at: u32) -> bool {
        let message = batch.message(at).unwrap();
        let owned = batch.keep(at..at + 1);
        let kept = owned.kept(0).unwrap();
        let topic = String::from_utf8(batch.address(message).topic().into_owned()).unwrap();
        assert_eq!(self.targets[message.target.0 as usize], topic.as_bytes(), "the target of another topic");
        state.published.push(Seen {
            topic: topic.clone(),
            payload: kept.payload().unwrap().to_vec(),
            flags: message.flags,
            priority: message.priority,
            expiry: message.expiry,
            properties: batch.properties(message).unwrap().into_owned(),
            by_reference: batch.body.is_some(),
        });
        if message.flags.has(Flags::RETAIN) {
            self.shared.retained.store(batch, at, message);
        }
        let mut taken = false;
        let State { subscriptions, held, .. } = state;
        for subscription in subscriptions {
            let own = subscription.no_local && subscription.client == self.client;
            if subscription.started && !own && subscription.pattern.matches(topic.as_bytes()) {
                subscription.give(&kept, held);
                taken = true;
            }
        }
        taken
    }
}

#[async_trait]
impl Lane for Way {
    fn target(&mut self, to: &Destination<'_>) -> TargetId {
        let Destination::Address { path, .. } = to else { panic!("MQTT publishes to addresses") };
        self.targets.push(path.to_vec());
        TargetId(u32::try_from(self.targets.len() - 1).unwrap())
    }

    fn forget(&mut self, _targets: &[TargetId]) {}

    fn publish(&mut self, batch: &Batch<'_>) -> Published {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        let mut published = Published { first: self.seq, congested: state.congested, ..Published::default() };
        for (at, message) in (0..).zip(batch.messages) {
            let taken = self.publish_one(&mut state, batch, at);
            published.taken += 1;
            if message.flags.has(Flags::RECEIPT) {
                published.wanting += 1;
                let outcome = state.outcome.clone().or((!taken).then_some(Outcome::Unroutable));
                if let Some(outcome) = outcome.filter(|_| !state.hold_receipts) {
                    published.exceptions.push((at, outcome));
                }
            }
        }
        published.done = if state.hold_receipts { 0 } else { published.wanting };
        self.seq += u64::from(published.wanting);
        published
    }

    fn flush(&mut self) {
        self.shared.state.lock().subscriptions.iter().for_each(|subscription| subscription.sink.flush());
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut state = self.shared.state.lock();
        if state.congested {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn settle(&mut self, runs: &[Settled]) {
        let mut state = self.shared.state.lock();
        for run in runs {
            let tags = run.first..run.first + u64::from(run.count);
            state.held.retain(|it| it.client != self.client || it.key != run.key || !tags.contains(&it.tag));
        }
        state.settled.extend_from_slice(runs);
    }

    fn resume(&mut self) {
        let mut state = self.shared.state.lock();
        let State { subscriptions, held, .. } = &mut *state;
        for subscription in subscriptions.iter_mut().filter(|s| s.client == self.client) {
            for kept in std::mem::take(&mut subscription.waiting) {
                subscription.give(&kept, held);
            }
        }
    }

    async fn retained(&mut self, _filter: &str) -> Result<Option<Vec<backend::Retained>>, Refused> {
        let mut silent = self.shared.silent.subscribe();
        silent.wait_for(|silent| !silent).await.unwrap();
        Ok(Some(self.shared.state.lock().kept.clone()))
    }

    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        let mut stalled = self.shared.stalled.subscribe();
        stalled.wait_for(|stalled| !stalled).await.unwrap();
        let mut state = self.shared.state.lock();
        state.subscribed.push(format!("{source:?} {:?} {}", how.settle, credit.is_some()));
        if let Some(refused) = &state.refuse_subscriptions {
            return Err(refused.clone());
        }
        let same = |s: &&mut Subscription| s.client == self.client && s.key == key;
        if let Some(known) = state.subscriptions.iter_mut().find(same) {
            (known.settle, known.no_local, known.credit) = (how.settle, how.no_local, credit);
            return Ok(());
        }
        let filter = match source {
            Source::Session => panic!("no session was offered"),
            Source::Filter(filter) | Source::Group { filter, .. } | Source::Queue(filter) => filter,
        };
        state.subscriptions.push(Subscription {
            client: self.client,
            sink: Arc::clone(&self.sink),
            key,
            pattern: Pattern::from_filter(filter),
            settle: how.settle,
            no_local: how.no_local,
            credit,
            started: false,
            next: 0,
            waiting: Vec::new(),
        });
        Ok(())
    }

    fn start(&mut self, key: SubscriptionKey) {
        let mut state = self.shared.state.lock();
        let client = self.client;
        state
            .subscriptions
            .iter_mut()
            .filter(|s| s.client == client && s.key == key)
            .for_each(|s| s.started = true);
    }

    async fn refresh(&mut self) {
        self.shared.state.lock().refreshed += 1;
    }

    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        let mut state = self.shared.state.lock();
        let client = self.client;
        state.subscriptions.retain(|s| s.client != client || s.key != key);
        state.unsubscribed += 1;
        Ok(())
    }

    async fn fetch(
        &mut self,
        _: &str,
        _: SubscriptionKey,
        _: bool,
    ) -> Result<Option<backend::Fetched>, Refused> {
        panic!("not MQTT's")
    }

    async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        assert!(!requeue, "not MQTT's");
        let state = self.shared.state.lock();
        if state.fail_recovery {
            return Err(Refused::Away("test".into()));
        }
        let of_client = |s: &&Subscription| s.client == self.client;
        let Some(sink) = state.subscriptions.iter().find(of_client).map(|s| Arc::clone(&s.sink)) else {
            return Ok(());
        };
        // The last first: the door knows the order.
        for Held { key, tag, message, .. } in state.held.iter().filter(|it| it.client == self.client).rev() {
            let at = message.at..message.at + 1;
            let pick = Pick {
                at,
                key: *key,
                first: *tag,
                age: 0,
                attempt: 1,
                settled: false,
                standing: Standing::Passing,
            };
            sink.deliver(&message.batch.batch(), &[pick]);
        }
        Ok(())
    }

    async fn declare_exchange(&mut self, _: &ExchangeSpec<'_>) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn delete_exchange(&mut self, _: &str, _: bool) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn declare_queue(&mut self, _: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        panic!("not MQTT's")
    }

    async fn delete_queue(&mut self, _: &str, _: bool, _: bool) -> Result<u64, Refused> {
        panic!("not MQTT's")
    }

    async fn purge_queue(&mut self, _: &str) -> Result<u64, Refused> {
        panic!("not MQTT's")
    }

    async fn bind(&mut self, _: &Binding<'_>) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn unbind(&mut self, _: &Binding<'_>) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn begin(&mut self) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn commit(&mut self) -> Result<(), Refused> {
        panic!("not MQTT's")
    }

    async fn rollback(&mut self) -> Result<(), Refused> {
        panic!("not MQTT's")
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        let client = self.client;
        self.shared.state.lock().subscriptions.retain(|s| s.client != client);
    }
}

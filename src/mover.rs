//! Carries messages from a queue of one back end to another back end, or through the hub to an address: what is taken is
//! settled only after the receipt of where it went. It may come twice, and is never lost in between.

mod away;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::deliveries::Next;
use linkspan_contract::topology::BindingEnd;
use linkspan_contract::{
    Backend, BackendError, Binding, Client, Credit, Deliveries, Ended, Lane, Lost, QueueSpec, Refused,
    Settle, Source, Subscribe, SubscriptionKey, Value, client_number,
};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use away::Away;
pub use away::{Ears, bring};

/// Messages that are on their way at a time.
const WINDOW: u32 = 256;

/// Bytes of them that wait here.
const MARK: u64 = 1 << 20;

/// The pause after a way was lost, and the delay of what a back end could not take for now.
const PAUSE: Duration = Duration::from_millis(500);

/// How often it is looked whether a sluice is open.
const LOOK: Duration = Duration::from_millis(10);

/// How long nothing comes before it is looked whether the queue is empty.
const QUIET: Duration = Duration::from_millis(100);

/// Milliseconds for which a queue that a mover has made for itself outlives its last mover, with what is in it: a week.
const KEPT: i64 = 7 * 24 * 60 * 60 * 1000;

/// A queue of a back end.
#[derive(Clone)]
pub struct Station {
    /// The back end.
    pub backend: Arc<dyn Backend>,
    /// The namespace there.
    pub vhost: Arc<str>,
    /// The queue.
    pub queue: Arc<str>,
}

/// Where messages are carried.
#[derive(Clone)]
pub enum To {
    /// Into a queue, as they are.
    Queue(Station),
    /// To an address, as publishers of their own would: `hub` finds the route.
    Address {
        /// The hub.
        hub: Arc<dyn Backend>,
        /// The address, as a topic.
        topic: Arc<str>,
    },
    /// To where they were published, as they are.
    Addresses {
        /// The back end, or the hub, which finds the routes.
        backend: Arc<dyn Backend>,
        /// The queues of their route there.
        queues: Vec<Arc<str>>,
        /// Nothing is carried while it is not open.
        sluice: Option<Arc<dyn Sluice>>,
    },
}

/// Lets messages through, or not for now.
pub trait Sluice: Send + Sync {
    /// Whether there is somewhere to carry to.
    fn is_up(&self) -> bool;

    /// Whether there is, and the next message may go.
    fn is_open(&self) -> bool;
}

/// When it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never: a queue that is gone will come again.
    Ever,
    /// When nothing waits in the queue.
    Empty,
    /// When the queue holds nothing any more, and nobody has anything of it in hand. Then it is deleted. Where its back end
    /// cannot tell that, never: what workers give back follows.
    Drained,
    /// When there is no queue any more that it carries to. Then its own queue is deleted.
    NobodyWants,
    /// When its own queue is empty, which then is deleted.
    Rest,
    /// At once: its own queue is deleted with what it holds.
    Forgotten,
}

/// One way for messages.
#[derive(Clone)]
pub struct Mover {
    /// What it is called in logs.
    pub name: Arc<str>,
    /// Where it takes from.
    pub from: Station,
    /// It makes that queue itself, bound to the address space by these keys.
    pub bound_by: Option<Vec<Arc<str>>>,
    /// Keys that bound it before, until they are unbound.
    pub unbound: Arc<Mutex<Vec<Arc<str>>>>,
    /// Where it carries to.
    pub to: To,
    /// When it is done.
    pub until: Until,
}

/// A mover at work; dropping it ends it. What it has in hand comes again.
#[derive(Debug)]
pub struct Running(AbortHandle);

impl Running {
    /// True when it is done.
    pub fn is_done(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a way was given up, to be tried anew.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// A back end does not let it in.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A back end refuses what it needs.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A lane is over.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// A back end ended something.
    #[error("the back end {0}")]
    Ended(&'static str),
}

impl Mover {
    /// Carries until it is done. A way that is lost is tried again.
    pub async fn run(self) {
        let mut told = false;
        loop {
            match self.carry().await {
                Ok(()) => {
                    tracing::debug!(mover = %self.name, "done");
                    return;
                }
                Err(stopped) if told || self.sluice().is_some_and(|sluice| !sluice.is_up()) => {
                    tracing::debug!(mover = %self.name, %stopped, "stands still");
                }
                Err(stopped) => {
                    told = true;
                    tracing::warn!(mover = %self.name, %stopped, "stands still and is tried again");
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Carries in a task of its own.
    pub fn start(self) -> Running {
        Running(tokio::spawn(self.run()).abort_handle())
    }

    fn client(&self, vhost: &Arc<str>) -> Client {
        Client {
            number: client_number(),
            identifier: format!("linkspan.{}", self.name).into(),
            user: "linkspan".into(),
            vhost: Arc::clone(vhost),
            session: None,
        }
    }

    /// Whether another one is the same as this.
    pub fn does_the_same_as(&self, other: &Self) -> bool {
        let goes = |to: &To| match to {
            To::Address { topic, .. } => vec![Arc::clone(topic)],
            To::Addresses { queues, .. } => queues.clone(),
            To::Queue(_) => Vec::new(),
        };
        self.bound_by == other.bound_by && self.until == other.until && goes(&self.to) == goes(&other.to)
    }

    /// Takes the place of one that took from the same queue.
    pub fn succeed(&mut self, before: &Self) {
        let unbound = before.unbound.lock().clone();
        let mut over: Vec<_> = before.bound_by.iter().flatten().cloned().chain(unbound).collect();
        over.retain(|key| !self.bound_by.iter().flatten().any(|bound| bound == key));
        over.sort_unstable();
        over.dedup();
        self.unbound = Arc::new(Mutex::new(over));
    }

    async fn carry(&self) -> Result<(), Stopped> {
        while self.sluice().is_some_and(|sluice| !sluice.is_up()) {
            sleep(LOOK).await;
        }
        let credit = Arc::new(Credit::new(WINDOW));
        let mut deliveries = Deliveries::working(MARK, Some(Arc::clone(&credit)));
        let client = self.client(&self.from.vhost);
        let mut connection = self.from.backend.connect(&client, deliveries.sink()).await?;
        let ears = Arc::new(Ears::default());
        let mut lane = connection.lane(Arc::clone(&ears) as _, Arc::clone(&ears) as _).await?;
        if self.until == Until::Forgotten {
            lane.delete_queue(&self.from.queue, false, false).await?;
            return Ok(());
        }
        let mut away = Away::open(self).await?;
        self.make_source(&mut *lane).await?;
        let how = Subscribe::new(Settle::ByConsumer);
        let key = SubscriptionKey::default();
        match lane.subscribe(&Source::Queue(&self.from.queue), key, &how, Some(credit)).await {
            Err(refused) if refused.is_missing() && self.ends_with_its_queue() => return Ok(()),
            other => other?,
        }
        lane.start(key);
        lane.flush();
        let carried = self.carry_from(&mut deliveries, &mut *lane, &mut away, &ears).await;
        // What has arrived must not come again.
        deliveries.settle_into(&mut *lane);
        carried
    }

    async fn carry_from(
        &self,
        deliveries: &mut Deliveries,
        lane: &mut dyn Lane,
        away: &mut Away<'_>,
        ears: &Ears,
    ) -> Result<(), Stopped> {
        let mut looks = Looks::default();
        loop {
            poll_fn(|cx| away.lane.poll_ready(cx)).await?;
            if let Some(delivery) = away.first_again() {
                // One by one: what comes behind it must not overtake it.
                away.take(delivery).await?;
                while !away.pending.is_empty() {
                    let _ = timeout(QUIET, away.ears.said()).await;
                    away.heed()?;
                }
                if away.waits() {
                    sleep(PAUSE).await;
                }
            } else {
                let may_take = !away.waits();
                let next = tokio::select! {
                    biased;
                    () = away.ears.said() => None,
                    next = timeout(QUIET, deliveries.next(lane)), if may_take => Some(next),
                };
                match next {
                    None | Some(Ok(Next::Dropped(_))) => {}
                    Some(Ok(Next::Delivery(delivery))) => {
                        looks = Looks::default();
                        self.pass_sluice(away).await?;
                        away.take(delivery).await?;
                    }
                    Some(Ok(Next::Ended(_, Ended::QueueDeleted))) if self.ends_with_its_queue() => {
                        return Ok(());
                    }
                    Some(Ok(Next::Ended(..))) => return Err(Stopped::Ended("ended the consumer")),
                    Some(Err(_)) => {
                        if away.pending.is_empty() && looks.is_due() && self.is_done(lane).await? {
                            return Ok(());
                        }
                    }
                }
                away.heed()?;
            }
            if std::mem::take(&mut away.nowhere) && self.until == Until::NobodyWants && away.is_gone().await?
            {
                lane.delete_queue(&self.from.queue, false, false).await?;
                return Ok(());
            }
            if ears.is_closed() {
                return Err(Stopped::Ended("closed the way there"));
            }
            deliveries.settle_into(lane);
        }
    }

    fn sluice(&self) -> Option<&dyn Sluice> {
        match &self.to {
            To::Addresses { sluice, .. } => sluice.as_deref(),
            To::Queue(_) | To::Address { .. } => None,
        }
    }

    /// Returns when the next message may go. What waits for a back end that is away waits in the queue, where its time runs.
    async fn pass_sluice(&self, away: &mut Away<'_>) -> Result<(), Stopped> {
        while let Some(sluice) = self.sluice().filter(|sluice| !sluice.is_open()) {
            if !sluice.is_up() && away.pending.is_empty() {
                return Err(Stopped::Ended("is away"));
            }
            let _ = timeout(LOOK, away.ears.said()).await;
            away.heed()?;
        }
        Ok(())
    }

    /// Without its queue it has nothing to do, and nobody will make the queue again.
    const fn ends_with_its_queue(&self) -> bool {
        matches!(self.until, Until::Empty | Until::Drained | Until::Rest)
    }

    async fn make_source(&self, lane: &mut dyn Lane) -> Result<(), Stopped> {
        let Some(keys) = &self.bound_by else { return Ok(()) };
        let queue = &self.from.queue;
        let arguments = [("x-expires", Value::I64(KEPT))];
        match lane
            .declare_queue(&QueueSpec { durable: true, arguments: &arguments, ..QueueSpec::new(queue) })
            .await
        {
            // It was made otherwise, and serves all the same.
            Ok(_) | Err(Refused::Inequivalent { .. } | Refused::Upstream { code: 406, .. }) => {}
            Err(refused) => return Err(refused.into()),
        }
        let to = BindingEnd::Queue(queue);
        for key in keys {
            lane.bind(&Binding { source: "amq.topic", to, key: key.as_bytes(), arguments: &[] }).await?;
        }
        let unbound = self.unbound.lock().clone();
        for key in &unbound {
            lane.unbind(&Binding { source: "amq.topic", to, key: key.as_bytes(), arguments: &[] }).await?;
        }
        self.unbound.lock().clear();
        Ok(())
    }

    /// Makes the queue that it takes from, where that is its own.
    ///
    /// # Errors
    /// When the back end is away or does not let it.
    pub async fn prepare(&self) -> Result<(), Stopped> {
        let nothing = Deliveries::working(0, None);
        let client = self.client(&self.from.vhost);
        let mut connection = self.from.backend.connect(&client, nothing.sink()).await?;
        let ears = Arc::new(Ears::default());
        let mut lane = connection.lane(Arc::clone(&ears) as _, ears as _).await?;
        self.make_source(&mut *lane).await
    }

    async fn is_done(&self, lane: &mut dyn Lane) -> Result<bool, Stopped> {
        if !self.ends_with_its_queue() {
            return Ok(false);
        }
        let spec = QueueSpec { passive: true, ..QueueSpec::new(&self.from.queue) };
        let counts = match lane.declare_queue(&spec).await {
            Ok(counts) => counts,
            Err(refused) if refused.is_missing() => return Ok(true),
            Err(refused) => return Err(refused.into()),
        };
        let empty = counts.messages == 0;
        let delete = match self.until {
            Until::Empty => return Ok(empty),
            Until::Drained => empty && counts.unsettled == Some(0),
            // It is its queue's only consumer, and has nothing in hand.
            _ => empty,
        };
        if delete {
            lane.delete_queue(&self.from.queue, false, false).await?;
        }
        Ok(delete)
    }
}

/// When it is looked whether a queue is empty: often at first.
#[derive(Default)]
struct Looks {
    quiet: u32,
}

impl Looks {
    /// Called when it was quiet again.
    fn is_due(&mut self) -> bool {
        self.quiet = self.quiet.saturating_add(1);
        self.quiet < 10 || self.quiet.is_multiple_of(50)
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::neutral::{Draft, NEUTRAL};
    use linkspan_contract::{Body, Connection, Destination, Flags, Message, Properties, SystemClock};
    use linkspan_embedded::{Embedded, EmbeddedOptions, OnDisk, SyncMode};

    use super::*;

    struct Client1 {
        lane: Box<dyn Lane>,
        deliveries: Deliveries,
        _connection: Box<dyn Connection>,
    }

    async fn client(backend: &Arc<Embedded>) -> Client1 {
        let deliveries = Deliveries::working(1 << 20, None);
        let client = Client {
            number: client_number(),
            identifier: "c".into(),
            user: "guest".into(),
            vhost: "/".into(),
            session: None,
        };
        let mut connection = backend.connect(&client, deliveries.sink()).await.unwrap();
        let ears = Arc::new(Ears::default());
        let lane = connection.lane(ears.clone(), ears).await.unwrap();
        Client1 { lane, deliveries, _connection: connection }
    }

    impl Client1 {
        async fn queue(&mut self, name: &str) {
            self.lane.declare_queue(&QueueSpec { durable: true, ..QueueSpec::new(name) }).await.unwrap();
        }

        fn publish(&mut self, queue: &str, numbers: std::ops::Range<u32>) {
            let target = self.lane.target(&Destination::Queue { name: queue, more: &[] });
            let mut properties = Properties::default();
            properties.headers.push(("x-kept".into(), Value::Bool(true)));
            for number in numbers {
                let head = Message { target, flags: Flags::DURABLE, ..Message::default() };
                let payload = Body::Shared(number.to_string().into());
                let topic = queue.as_bytes();
                let draft = Draft { exchange: Some(b""), topic, properties: &properties, payload, head };
                self.lane.publish(&draft.build().batch());
            }
            self.lane.flush();
        }

        async fn take(&mut self, source: Source<'_>, count: usize) -> Vec<(String, String)> {
            let key = SubscriptionKey::default();
            self.lane.subscribe(&source, key, &Subscribe::new(Settle::OnDelivery), None).await.unwrap();
            self.lane.start(key);
            let mut got = Vec::new();
            while got.len() < count {
                let next = timeout(Duration::from_secs(5), self.deliveries.next(&mut *self.lane));
                let Next::Delivery(delivery) = next.await.expect("a message is due") else { continue };
                assert!(delivery.message.properties().unwrap().header("x-kept").is_some());
                let topic = String::from_utf8(delivery.message.address().topic().into()).unwrap();
                let payload = String::from_utf8(delivery.message.payload().unwrap().into()).unwrap();
                got.push((topic, payload));
            }
            got
        }

        async fn waiting(&mut self, queue: &str) -> u64 {
            let spec = QueueSpec { passive: true, ..QueueSpec::new(queue) };
            let counts = self.lane.declare_queue(&spec).await.unwrap();
            counts.messages + counts.unsettled.unwrap_or(0)
        }
    }

    fn two() -> (Arc<Embedded>, Arc<Embedded>) {
        let open = |name| Embedded::open(name, EmbeddedOptions::default(), Arc::new(SystemClock));
        (open("one"), open("two"))
    }

    fn station(backend: &Arc<Embedded>, queue: &str) -> Station {
        Station { backend: Arc::clone(backend) as _, vhost: "/".into(), queue: queue.into() }
    }

    fn mover(from: Station, to: To, until: Until) -> Mover {
        Mover { name: "test".into(), from, bound_by: None, unbound: Arc::default(), to, until }
    }

    #[tokio::test]
    async fn a_mover_that_makes_its_queue_deletes_it_when_nobody_wants_its_messages_any_more() {
        let (one, two) = two();
        let (mut here, mut there) = (client(&one).await, client(&two).await);
        there.queue("r").await;
        let mut mover = mover(station(&one, "copies"), To::Queue(station(&two, "r")), Until::NobodyWants);
        mover.bound_by = Some(vec!["a.#".into()]);
        let running = tokio::spawn(mover.run());
        let bound = async {
            let spec = QueueSpec { passive: true, ..QueueSpec::new("copies") };
            while here.lane.declare_queue(&spec).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), bound).await.expect("it makes its queue");
        let arguments = [("x-expires", Value::I64(KEPT))];
        let spec = QueueSpec { durable: true, arguments: &arguments, ..QueueSpec::new("copies") };
        here.lane.declare_queue(&spec).await.expect("it does not stay for ever when nobody comes");
        here.publish("copies", 0..2);
        assert_eq!(there.take(Source::Queue("r"), 2).await.len(), 2);
        there.lane.delete_queue("r", false, false).await.unwrap();
        here.publish("copies", 2..3);
        timeout(Duration::from_secs(5), running).await.expect("it ends").unwrap();
        let spec = QueueSpec { passive: true, ..QueueSpec::new("copies") };
        assert!(here.lane.declare_queue(&spec).await.is_err(), "its queue is gone, too");
    }

    #[tokio::test]
    async fn a_queue_is_carried_to_another_back_end_in_order_until_it_is_empty() {
        let (one, two) = two();
        let (mut here, mut there) = (client(&one).await, client(&two).await);
        here.queue("q").await;
        there.queue("r").await;
        here.publish("q", 0..1000);
        let to = To::Queue(station(&two, "r"));
        let mover = mover(station(&one, "q"), to, Until::Drained);
        timeout(Duration::from_secs(10), mover.run()).await.expect("it ends when the queue is empty");
        let spec = QueueSpec { passive: true, ..QueueSpec::new("q") };
        let gone = here.lane.declare_queue(&spec).await;
        assert!(
            matches!(gone, Err(Refused::NotFound { .. })),
            "what was carried is settled, the queue gone: {gone:?}"
        );
        let got = there.take(Source::Queue("r"), 1000).await;
        let numbers: Vec<u32> = got.iter().map(|(_, payload)| payload.parse().unwrap()).collect();
        assert!(numbers.iter().copied().eq(0..1000), "{numbers:?}");
    }

    #[tokio::test]
    async fn what_is_carried_to_an_address_is_published_there_with_its_properties() {
        let (one, two) = two();
        let (mut here, mut there) = (client(&one).await, client(&two).await);
        here.queue("dead").await;
        here.publish("dead", 0..3);
        let to = To::Address { hub: Arc::clone(&two) as _, topic: "failed/jobs".into() };
        let mover = mover(station(&one, "dead"), to, Until::Ever);
        let carrying = tokio::spawn({
            there.queue("watch").await;
            let to_watch = BindingEnd::Queue("watch");
            let binding = Binding { source: "amq.topic", to: to_watch, key: b"failed.#", arguments: &[] };
            there.lane.bind(&binding).await.unwrap();
            mover.run()
        });
        let got = there.take(Source::Queue("watch"), 3).await;
        let expected = ["0", "1", "2"].map(|number| ("failed/jobs".to_owned(), number.to_owned()));
        assert_eq!(got, expected);
        carrying.abort();
    }

    #[tokio::test]
    async fn nothing_is_settled_before_its_receipt_and_all_is_carried_when_the_way_is_back() {
        let (one, two) = two();
        let mut here = client(&one).await;
        here.queue("q").await;
        here.publish("q", 0..10);
        let to = To::Queue(station(&two, "r"));
        let mover = mover(station(&one, "q"), to, Until::Drained);
        let carrying = tokio::spawn(mover.run());
        sleep(Duration::from_millis(50)).await;
        assert_eq!(here.waiting("q").await, 10, "there is no queue to carry them to");
        let mut there = client(&two).await;
        there.queue("r").await;
        timeout(Duration::from_secs(10), carrying).await.expect("it ends when the queue is empty").unwrap();
        let got = there.take(Source::Queue("r"), 10).await;
        let numbers: Vec<u32> = got.iter().map(|(_, payload)| payload.parse().unwrap()).collect();
        assert!(numbers.iter().copied().eq(0..10), "in the order in which they were: {numbers:?}");
    }

    #[tokio::test]
    async fn a_payload_that_lies_in_a_log_is_brought_where_it_is_carried_to() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let directory = folder.path().join(name);
            let on_disk = OnDisk {
                directory,
                sync: SyncMode::Group,
                segment_size: 1 << 20,
                forms: vec![&NEUTRAL],
                budget: Arc::default(),
            };
            Embedded::durable(name, EmbeddedOptions::default(), Arc::new(SystemClock), &on_disk).unwrap()
        };
        let (one, two, (three, _)) = (open("one"), open("two"), two());
        let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let mut here = client(&one).await;
        here.queue("q").await;
        let target = here.lane.target(&Destination::Queue { name: "q", more: &[] });
        let head = Message { target, flags: Flags::DURABLE, ..Message::default() };
        let (payload, properties) = (Body::Shared(sent.clone().into()), Properties::default());
        let draft = Draft { exchange: Some(b""), topic: b"q", properties: &properties, payload, head };
        here.lane.publish(&draft.build().batch());
        let mut there = client(&three).await;
        there.queue("q").await;
        client(&two).await.queue("q").await;
        for (from, to) in [(&one, &two), (&two, &three)] {
            let mover = mover(station(from, "q"), To::Queue(station(to, "q")), Until::Drained);
            timeout(Duration::from_secs(10), mover.run()).await.expect("it ends when the queue is empty");
        }
        let key = SubscriptionKey::default();
        let how = Subscribe::new(Settle::OnDelivery);
        there.lane.subscribe(&Source::Queue("q"), key, &how, None).await.unwrap();
        there.lane.start(key);
        let next = timeout(Duration::from_secs(5), there.deliveries.next(&mut *there.lane));
        let Next::Delivery(delivery) = next.await.expect("a message is due") else { panic!("no message") };
        assert!(delivery.message.payload() == Some(&sent[..]), "in memory, where there is no other place");
    }
}

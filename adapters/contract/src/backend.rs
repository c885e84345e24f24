//! The three scopes of a back end: itself, a client's connection, and the lane.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;

use crate::batch::{Batch, Kept};
use crate::body::BodyWriter;
use crate::capabilities::Capabilities;
use crate::client::Client;
use crate::credit::Credit;
use crate::destination::Destination;
use crate::events::LaneEvents;
use crate::health::Health;
use crate::message::TargetId;
use crate::receipt::{Published, ReceiptSink, Seq};
use crate::refusal::{BackendError, Lost, Refused};
use crate::session::SessionState;
use crate::settlement::{DeliveryTag, Settled};
use crate::sink::{DeliverySink, SubscriptionKey};
use crate::source::{Source, Subscribe};
use crate::topology::{Binding, ExchangeSpec, QueueCounts, QueueSpec};

/// A broker behind Linkspan: one value per `[backends.*]` table. Its methods, and those of [`Connection`], are control
/// plane: never called per message.
#[async_trait]
pub trait Backend: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// Opens the scope of one client. `sink` is the client connection's outbound side. A broker that is away is no reason to
    /// refuse it where a lane can tell that later ([`Refused::Away`]), and what is published can wait.
    ///
    /// # Errors
    /// When the broker denies access, or is away and nothing can be done without it.
    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError>;

    /// What the addresses of a vhost retained in an earlier life, where the hub keeps retained messages and this back end
    /// wrote down which were published to it. Asked for once, before anything is published.
    async fn retained(&self, vhost: &str) -> Vec<Retained> {
        let _ = vhost;
        Vec::new()
    }

    /// The names of the queues that are declared in a vhost, in no order; none when that cannot be listed.
    async fn queues(&self, vhost: &str) -> Option<Vec<Arc<str>>> {
        let _ = vhost;
        None
    }

    /// Lets go what only takes room: what is retained and has expired. Called from time to time.
    fn sweep(&self) {}

    /// Of the sessions that clients of a vhost have here from an earlier life, those go on whose client identifiers `goes_on`
    /// knows; what is left of others is removed, if they were begun under the same `owner`: who keeps the list of sessions,
    /// and none but that one knows which are over, unless it knows none of them, and may have been emptied. Asked for once, before any client of such a session is let in.
    async fn recall_sessions(
        &self,
        vhost: &str,
        owner: &str,
        goes_on: &(dyn for<'a> Fn(&'a str) -> bool + Send + Sync),
    ) {
        let _ = (vhost, owner, goes_on);
    }

    /// Whether it can be used now.
    async fn health(&self) -> Health;

    /// Lets nothing in any more and returns when what was taken is safe.
    async fn close(&self);
}

/// A client's scope: exclusive queues live and die with it. Dropping it closes it at once, which is what a client that
/// vanishes does.
#[async_trait]
pub trait Connection: Send {
    /// Another outbound side for the same client: an MQTT session that outlived its socket.
    fn attach(&mut self, sink: Arc<dyn DeliverySink>);

    /// Opens a lane: one per AMQP channel, one per MQTT session. `receipts` gets what
    /// [`publish`](Lane::publish) did not answer at once.
    ///
    /// # Errors
    /// When the broker is away or has no more lanes to give.
    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError>;

    /// The session that the back end keeps for the client, when it does.
    fn session(&self) -> Option<SessionState> {
        None
    }

    /// From now on the session is to be kept for so many seconds after the connection's end (MQTT 5 §3.14.2.2.2).
    fn keep_session(&mut self, seconds: u32) {
        let _ = seconds;
    }

    /// Whether what is known of the client's session outlives this process: deliveries of its subscriptions to filters are
    /// [lasting](crate::sink::Standing::Lasting), and its lane keeps [notes](Lane::note).
    fn lasts(&self) -> bool {
        false
    }

    /// Closes the scope in good order and returns when what belonged to it is gone: a session's will is not published.
    async fn close(self: Box<Self>);
}

/// A message taken by [`Lane::fetch`].
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The message.
    pub message: Kept,
    /// What it has to be settled under: the key that was asked with, its part filled in.
    pub key: SubscriptionKey,
    /// Its number among those fetched under the same key.
    pub tag: DeliveryTag,
    /// Milliseconds that it waited.
    pub age: u64,
    /// How often it was given out before.
    pub attempt: u32,
    /// Messages still ready in the queue.
    pub remaining: u64,
}

/// A message that the back end keeps for an address: see [`Lane::retained`].
#[derive(Debug, Clone)]
pub struct Retained {
    /// The message.
    pub message: Kept,
    /// Milliseconds to be taken off its expiry.
    pub age: u64,
}

/// An ordered way through a back end, owned by one task. What is published on it keeps its order; its receipts,
/// transaction and unsettled deliveries are its own: when it is dropped they are released.
///
/// The synchronous methods are the data plane: they never block. The asynchronous ones are the control plane, in order
/// with the data plane.
#[async_trait]
pub trait Lane: Send {
    /// A number for a destination; the door keeps it by the destination's bytes. It stays good when the topology
    /// changes: the lane resolves it again on next use. A destination that does not exist is told by `publish`.
    fn target(&mut self, to: &Destination<'_>) -> TargetId;

    /// Numbers that the door's bounded cache has evicted: they may be given out anew.
    fn forget(&mut self, targets: &[TargetId]);

    /// Takes the messages of one read, in order; appends to sinks and queues, writes nothing.
    fn publish(&mut self, batch: &Batch<'_>) -> Published;

    /// Notes that a message which the client published exactly once under this identifier
    /// ([`WireForm::identifier`](crate::WireForm::identifier)) was taken, for as long as the client's session lives or until
    /// [`unnote`](Lane::unnote). True when that is safe already, as it is of a message that a session's own back end took
    /// itself: the note is of one commit with it. Else the [`ReceiptSink`] is told under `word`, a number from
    /// [`WORDS`](crate::receipt::WORDS) on, when it is, however long that takes.
    fn note(&mut self, identifier: NonZeroU16, word: Seq) -> bool {
        let _ = (identifier, word);
        true
    }

    /// Takes such a note back, in the same way. One that is not there is taken back already.
    fn unnote(&mut self, identifier: NonZeroU16, word: Seq) -> bool {
        let _ = (identifier, word);
        true
    }

    /// The identifiers that are noted for the client's session.
    fn noted(&self) -> Vec<NonZeroU16> {
        Vec::new()
    }

    /// Lets the sinks that were touched since the last call write. The door calls it after it has written its own
    /// receipts: who waits for one is served first.
    fn flush(&mut self);

    /// Pending while a sink, queue or upstream that this lane published to is above its mark: the door stops reading.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>>;

    /// Accepts, rejects or releases deliveries. Runs of unknown or settled deliveries are ignored.
    fn settle(&mut self, runs: &[Settled]);

    /// Gives this lane's subscriptions what waits for them: after [`Credit::grant`] said that the back end had run dry,
    /// and after a sink above its mark has drained. Once per read, after `settle`; then `flush`.
    fn resume(&mut self);

    /// Says whether the client is there. While it is not, its session keeps what it has, but a queue that one consumer at a
    /// time has is for somebody else.
    fn attended(&mut self, is_there: bool) {
        let _ = is_there;
    }

    /// A place for a body too large for memory: it is written once, where what is published to `target` is kept, and then
    /// published as [`Body::Stored`](crate::Body::Stored). None when a body of that `size` is better held in memory, or there
    /// is no such place; without a size it is not known yet, and not small. What the door publishes on this lane later waits
    /// until it is finished: nothing overtakes it.
    ///
    /// # Errors
    /// When the place takes nothing now.
    fn body(&mut self, target: TargetId, size: Option<u64>) -> Result<Option<Box<dyn BodyWriter>>, Refused> {
        let _ = (target, size);
        Ok(None)
    }

    /// Makes a subscription of `source` under the door's own `key`. It gives nothing before [`Lane::start`], so that
    /// the door can write its answer first. Without `credit` the sink's mark is the only bound.
    ///
    /// A key that has a subscription of the same source has it replaced, when the new one is started: nothing is lost,
    /// given twice or given out of order on account of that. The tags of the key go on, what it has unsettled can still be settled,
    /// and what waits for the window goes on waiting for it; so `credit` is the one of before, or there is or was none.
    /// When the new one is refused, the old one stays.
    ///
    /// # Errors
    /// When the source does not exist or is not for this client.
    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused>;

    /// From now on the subscription is given what comes, and what waits in its queue.
    fn start(&mut self, key: SubscriptionKey);

    /// Resolves this lane's subscriptions again, after [`LaneEvent::Changed`](crate::LaneEvent::Changed). What did not
    /// change is not touched; what is not possible any more is told by
    /// [`DeliverySink::ended`].
    async fn refresh(&mut self) {}

    /// Ends a subscription. What it was given and has not settled stays unsettled on this lane.
    ///
    /// # Errors
    /// When the broker says no.
    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused>;

    /// Ends a subscription that the client's session has at the broker from an earlier connection, and that has no key
    /// here. False when there was none.
    ///
    /// # Errors
    /// When the broker says no.
    async fn unsubscribe_from(&mut self, source: &Source<'_>) -> Result<bool, Refused> {
        let _ = source;
        Ok(false)
    }

    /// Takes one message of a queue (AMQP's `basic.get`), unsettled under `key` unless `settled`. One key serves all
    /// fetches of a lane.
    ///
    /// # Errors
    /// When the queue does not exist or is not for this client.
    async fn fetch(
        &mut self,
        queue: &str,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused>;

    /// From now on exactly the addresses that one of `filters` (MQTT topic filters) and none of `except` matches lead to
    /// `queue`, also for what is published at a broker behind Linkspan's back; no filters end it. The hub calls it for
    /// the queue of each work route, after it has declared it, with what belongs to more specific routes as `except`;
    /// and with nothing when the queue has no such route any more: what that route said of it
    /// ([`QueueSpec::terms`](crate::QueueSpec::terms)) is over then, too. Where it means nothing, as here, the queues that the
    /// hub names with each publish ([`Destination::Address`]) are all there is; where it does something, these are fed
    /// this way alone.
    ///
    /// # Errors
    /// When the broker says no. One that is away is asked when it is back.
    async fn feed(&mut self, queue: &str, filters: &[&str], except: &[&str]) -> Result<(), Refused> {
        let _ = (queue, filters, except);
        Ok(())
    }

    /// The retained messages of the addresses that `filter` (an MQTT topic filter) matches, for one new subscriber;
    /// `None` when this back end keeps none: the hub does.
    ///
    /// # Errors
    /// When the broker cannot be asked now, or says no.
    async fn retained(&mut self, filter: &str) -> Result<Option<Vec<Retained>>, Refused> {
        let _ = filter;
        Ok(None)
    }

    /// Gives all that this lane has unsettled back to the queues (`requeue`), or once more to the same consumers, under
    /// the same tags (MQTT after a reconnection).
    ///
    /// # Errors
    /// When the back end cannot give to the same consumers.
    async fn recover(&mut self, requeue: bool) -> Result<(), Refused>;

    /// Declares an exchange.
    ///
    /// # Errors
    /// When it exists otherwise, or does not and is passive.
    async fn declare_exchange(&mut self, exchange: &ExchangeSpec<'_>) -> Result<(), Refused>;

    /// Deletes an exchange; one that is not there is no error.
    ///
    /// # Errors
    /// When it is in use and must not be, or is one of the standard's own.
    async fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<(), Refused>;

    /// Declares a queue and tells its name and counts.
    ///
    /// # Errors
    /// When it exists otherwise, is another's, or does not exist and is passive.
    async fn declare_queue(&mut self, queue: &QueueSpec<'_>) -> Result<QueueCounts, Refused>;

    /// Deletes a queue and tells how many messages went with it; one that is not there counts 0. With `if_empty` it
    /// must not hold any, ready or unsettled, as far as the back end knows of these.
    ///
    /// # Errors
    /// When it is in use or not empty and must not be, or is another's.
    async fn delete_queue(&mut self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64, Refused>;

    /// Removes what is ready in a queue and tells how much.
    ///
    /// # Errors
    /// When it does not exist or is another's.
    async fn purge_queue(&mut self, name: &str) -> Result<u64, Refused>;

    /// Makes a binding; one that is there is no error.
    ///
    /// # Errors
    /// When an end does not exist, or a queue is another's.
    async fn bind(&mut self, binding: &Binding<'_>) -> Result<(), Refused>;

    /// Undoes a binding; one that is not there is no error.
    ///
    /// # Errors
    /// When a queue is another's.
    async fn unbind(&mut self, binding: &Binding<'_>) -> Result<(), Refused>;

    /// From now on publishes and settlements wait for [`Lane::commit`], which is one step, or [`Lane::rollback`].
    ///
    /// # Errors
    /// When the back end has no transactions.
    async fn begin(&mut self) -> Result<(), Refused>;

    /// Carries out what waited, as one step; the next transaction begins.
    ///
    /// # Errors
    /// When it could not be carried out: then nothing was.
    async fn commit(&mut self) -> Result<(), Refused>;

    /// Forgets what waited; the next transaction begins.
    ///
    /// # Errors
    /// When there is no transaction.
    async fn rollback(&mut self) -> Result<(), Refused>;
}

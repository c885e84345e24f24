//! The task that keeps the instance's queue.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_core::Stream;
use hashbrown::HashMap;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer, ErrorKind};
use linkspan_contract::address::Syntax;
use linkspan_contract::{Clock, Destination, Refused, TargetId};
use linkspan_embedded::Embedded;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};

use super::way::Way;
use super::{Command, Watch};
use crate::goal::short;
use crate::now::poke;
use crate::options::AmqpOptions;
use crate::translate::{Arrived, Letter, from_of};
use crate::upstream::{Live, Upstream};

/// What the task is made of.
pub(crate) struct Plan {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) options: Arc<AmqpOptions>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where what arrives is published.
    pub(crate) inner: Arc<Embedded>,
    /// The name of this instance.
    pub(crate) instance: Arc<str>,
    /// The namespace of the embedded back end.
    pub(crate) vhost: Arc<str>,
}

/// Deliveries that are under way to this instance.
const WINDOW: u16 = 1000;

/// Deliveries that are published at a time.
const TOGETHER: u32 = 256;

/// Numbers of addresses that are kept.
const TARGETS: usize = 4096;

/// Lanes of publishers who want nothing of their own back.
const LANES: usize = 64;

/// Starts the task.
pub(crate) fn start(plan: Plan) -> Watch {
    let (watch, commands) = Watch::new();
    let queue = format!("linkspan.{}.watch", plan.instance);
    let worker = Worker {
        queue: ShortString::try_new(queue).unwrap_or_default(),
        plan,
        commands,
        bindings: HashMap::default(),
        everybody: None,
        lanes: HashMap::default(),
        scratch: Arrived::default(),
    };
    tokio::spawn(worker.run());
    watch
}

struct Worker {
    plan: Plan,
    commands: UnboundedReceiver<Command>,
    queue: ShortString,
    /// How many filters need each.
    bindings: HashMap<String, usize, RandomState>,
    everybody: Option<Way>,
    lanes: HashMap<u64, Way, RandomState>,
    scratch: Arrived,
}

enum Turn {
    Command(Option<Command>),
    Came(Vec<Delivery>),
    Lost,
}

/// So many deliveries are taken from lapin at a time.
const AT_A_TIME: usize = 512;

impl Worker {
    async fn run(mut self) {
        let mut generation = 0;
        loop {
            let live = tokio::select! {
                live = self.plan.upstream.after(generation) => live,
                command = self.commands.recv() => {
                    if self.while_away(command) { continue } else { return }
                }
            };
            let Some(live) = live else { return };
            generation = live.generation;
            let upstream = Arc::clone(&self.plan.upstream);
            match self.open(&live).await {
                Ok((channel, consumer)) => {
                    upstream.set_watched(true);
                    let goes_on = self.serve(&live, &channel, consumer).await;
                    upstream.set_watched(false);
                    if !goes_on {
                        return;
                    }
                }
                Err(error) => {
                    // Nobody waits for what cannot be had.
                    upstream.set_watched(live.is_connected());
                    // That the connection is lost is told by who keeps it.
                    if live.is_connected() && !matches!(error.kind(), ErrorKind::IOError(_)) {
                        tracing::warn!(backend = &*self.plan.upstream.backend, queue = %self.queue, %error, "the queue of this instance cannot be made: topic filters are sent nothing");
                    }
                }
            }
            if live.is_connected() {
                sleep(self.plan.options.retry_max).await;
                generation = generation.saturating_sub(1);
            }
        }
    }

    /// Notes what is wanted; false at the end.
    fn while_away(&mut self, command: Option<Command>) -> bool {
        match command {
            Some(Command::Bind(key, reply)) => {
                *self.bindings.entry(key).or_insert(0) += 1;
                reply.send(Ok(())).unwrap_or_default();
            }
            Some(Command::Unbind(key)) => {
                self.release(&key);
            }
            Some(Command::Close(reply)) => {
                reply.send(()).unwrap_or_default();
                return false;
            }
            None => return false,
        }
        true
    }

    /// True when nobody needs the binding any more.
    fn release(&mut self, key: &str) -> bool {
        let Some(count) = self.bindings.get_mut(key) else { return false };
        *count = count.saturating_sub(1);
        let over = *count == 0;
        if over {
            self.bindings.remove(key);
        }
        over
    }

    async fn open(&mut self, live: &Live) -> lapin::Result<(Channel, Consumer)> {
        let channel = live.connection.create_channel().await?;
        // What was acknowledged to a publisher must not be lost because this connection was: the queue outlives it, and
        // ends by itself when this process does.
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        let expires = i64::try_from(self.plan.options.instance_expires.as_millis()).unwrap_or(i64::MAX);
        if let Ok(name) = ShortString::try_new("x-expires") {
            arguments.insert(name, AMQPValue::LongLongInt(expires));
        }
        channel.queue_declare(self.queue.clone(), options, arguments).await?;
        for key in self.bindings.keys().cloned().collect::<Vec<_>>() {
            self.bind_on(&channel, &key).await?;
        }
        channel.basic_qos(WINDOW, BasicQosOptions { global: false }).await?;
        let tag = ShortString::try_new("linkspan").unwrap_or_default();
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(self.queue.clone(), tag, options, FieldTable::default()).await?;
        Ok((channel, consumer))
    }

    async fn bind_on(&mut self, channel: &Channel, key: &str) -> lapin::Result<()> {
        let name = |text: &str| ShortString::try_new(text).unwrap_or_default();
        let exchange = name(&self.plan.options.topic_exchange);
        let options = QueueBindOptions::default();
        channel.queue_bind(self.queue.clone(), exchange, name(key), options, FieldTable::default()).await
    }

    /// Publishes what arrives until the channel is lost; false at the end.
    async fn serve(&mut self, live: &Live, channel: &Channel, mut consumer: Consumer) -> bool {
        loop {
            match poll_fn(|cx| self.turn(&mut consumer, cx)).await {
                Turn::Lost => return true,
                Turn::Came(deliveries) => {
                    let last = deliveries.last().map(|delivery| delivery.delivery_tag);
                    self.publish(deliveries).await;
                    if let Some(last) = last {
                        poke(channel.basic_ack(last, BasicAckOptions { multiple: true }));
                    }
                }
                Turn::Command(Some(Command::Bind(key, reply))) => {
                    let bound = self.bind(live, &key).await;
                    reply.send(bound).unwrap_or_default();
                }
                Turn::Command(Some(Command::Unbind(key))) => self.unbind(live, &key).await,
                Turn::Command(Some(Command::Close(reply))) => {
                    let options = QueueDeleteOptions::default();
                    let deleted =
                        timeout(Duration::from_secs(2), channel.queue_delete(self.queue.clone(), options));
                    if !matches!(deleted.await, Ok(Ok(_))) {
                        tracing::debug!(queue = %self.queue, "the queue of this instance stays until it expires");
                    }
                    reply.send(()).unwrap_or_default();
                    return false;
                }
                Turn::Command(None) => return false,
            }
        }
    }

    fn turn(&mut self, consumer: &mut Consumer, cx: &mut Context<'_>) -> Poll<Turn> {
        if let Poll::Ready(command) = self.commands.poll_recv(cx) {
            return Poll::Ready(Turn::Command(command));
        }
        let mut came = Vec::new();
        while came.len() < AT_A_TIME {
            match Pin::new(&mut *consumer).poll_next(cx) {
                Poll::Ready(Some(Ok(delivery))) => came.push(delivery),
                Poll::Ready(_) => return Poll::Ready(Turn::Lost),
                Poll::Pending => break,
            }
        }
        if came.is_empty() { Poll::Pending } else { Poll::Ready(Turn::Came(came)) }
    }

    async fn bind(&mut self, live: &Live, key: &str) -> Result<(), Refused> {
        let count = self.bindings.entry(key.into()).or_insert(0);
        *count += 1;
        if *count > 1 {
            return Ok(());
        }
        let upstream = Arc::clone(&self.plan.upstream);
        let bound = upstream.request_on(live, async |channel| self.bind_on(channel, key).await).await;
        match bound {
            Ok(()) => Ok(()),
            // It is made with the others when the broker is back.
            Err(_) if !live.is_connected() => Ok(()),
            Err(error) => match crate::translate::refused(&error, &self.plan.upstream.backend) {
                // Who asks learns of a loss before lapin says so of the connection.
                Refused::Away(_) => Ok(()),
                why => {
                    self.release(key);
                    Err(why)
                }
            },
        }
    }

    async fn unbind(&mut self, live: &Live, key: &str) {
        if !self.release(key) {
            return;
        }
        let (queue, exchange) =
            (self.queue.clone(), short("exchange", self.plan.options.topic_exchange.as_bytes()));
        let (Ok(exchange), Ok(name)) = (exchange, short("key", key.as_bytes())) else { return };
        let undone = self
            .plan
            .upstream
            .request_on(live, async |channel| {
                channel.queue_unbind(queue, exchange, name, FieldTable::default()).await
            })
            .await;
        if let Err(error) = undone {
            tracing::debug!(%error, key, "a binding was not undone");
        }
    }

    /// Publishes deliveries into the embedded back end, in their order, and waits while it is congested.
    async fn publish(&mut self, deliveries: Vec<Delivery>) {
        let mut of = None;
        for mut delivery in deliveries {
            if delivery.redelivered && *delivery.properties.delivery_mode() != Some(2) {
                // At most once: it may have been given before the connection was lost.
                metrics::counter!("linkspan_messages_dropped_total", "reason" => "connection-lost")
                    .increment(1);
                continue;
            }
            let from = self.from(&delivery);
            if !self.scratch.is_empty()
                && (from != of || self.scratch.is_full(&delivery) || self.scratch.len() >= TOGETHER)
            {
                self.hand_over(of).await;
            }
            of = from;
            let Some(target) = self.target(of, delivery.routing_key.as_str()) else { continue };
            let options = &self.plan.options;
            let now = self.plan.clock.now();
            let letter = Letter { topic_exchange: &options.topic_exchange, unescape: true, now };
            self.scratch.add(&mut delivery, &letter);
            if let Some(message) = self.scratch.last_mut() {
                message.target = target;
            }
        }
        self.hand_over(of).await;
    }

    async fn hand_over(&mut self, of: Option<u64>) {
        if self.scratch.is_empty() {
            return;
        }
        let way = match of {
            Some(client) => self.lanes.get_mut(&client),
            None => self.everybody.as_mut(),
        };
        if let Some(way) = way {
            let published = way.lane.publish(&self.scratch.batch());
            way.lane.flush();
            if published.congested {
                let open = poll_fn(|cx| way.lane.poll_ready(cx)).await;
                if let Err(lost) = open {
                    tracing::debug!(%lost, "what has arrived for topic filters is for nobody");
                }
            }
        }
        self.scratch.clear();
    }

    /// The client of this instance that published it and wants nothing of its own back.
    fn from(&self, delivery: &Delivery) -> Option<u64> {
        let mut from = from_of(&delivery.properties)?.splitn(3, ':');
        let (instance, client) = (from.next()?, from.next()?);
        client.parse().ok().filter(|_| *instance == *self.plan.instance)
    }

    fn target(&mut self, of: Option<u64>, key: &str) -> Option<TargetId> {
        if self.lanes.len() > LANES && of.is_some_and(|client| !self.lanes.contains_key(&client)) {
            self.lanes.clear();
        }
        let plan = &self.plan;
        let way = match of {
            Some(client) => match self.lanes.entry(client) {
                hashbrown::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                hashbrown::hash_map::Entry::Vacant(entry) => entry.insert(Way::new(plan, client)?),
            },
            None => match &mut self.everybody {
                Some(way) => way,
                none => none.insert(Way::new(plan, u64::MAX)?),
            },
        };
        if let Some(target) = way.targets.get(key) {
            return Some(*target);
        }
        if way.targets.len() >= TARGETS {
            let all: Vec<TargetId> = way.targets.drain().map(|(_, target)| target).collect();
            // Those of the batch that is being put together must stay good.
            let used: Vec<TargetId> = self.scratch.batch().messages.iter().map(|it| it.target).collect();
            way.lane.forget(&all.into_iter().filter(|it| !used.contains(it)).collect::<Vec<_>>());
        }
        let path = key.as_bytes();
        let to = Destination::Address { path, syntax: Syntax::Key, more: &[], queues: &[] };
        let target = way.lane.target(&to);
        way.targets.insert(key.into(), target);
        Some(target)
    }
}

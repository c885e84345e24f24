//! What a channel asks of its lane and has to wait for.
//!
//! A request owns what it needs, so that the lane can be moved into its future: a back end that takes long holds up
//! this channel, not the connection.

use std::sync::Arc;

use linkspan_contract::backend::Fetched;
use linkspan_contract::topology::BindingEnd;
use linkspan_contract::{Credit, Lane, Refused, Settle, Source, Subscribe, SubscriptionKey, What};

use crate::protocol::amqp::{
    Method, ReplyCode, ShortString, Table, exchange, exchange::Exchange, queue, queue::Queue,
};

use super::failure::Failure;
use super::incoming::Incoming;
use super::translate::{self, arguments::arguments, refusal};

/// Something for a lane.
#[derive(Debug)]
pub(super) enum Request {
    /// A method of class `exchange` or `queue`.
    Topology {
        /// The payload of its frame.
        payload: Box<[u8]>,
        /// The queue that an empty name means.
        queue: Option<Arc<str>>,
    },
    /// `basic.consume`.
    Consume {
        /// The queue.
        queue: Arc<str>,
        /// The sink's key for it.
        key: SubscriptionKey,
        /// The consumer tag.
        tag: Arc<str>,
        /// The window.
        credit: Option<Arc<Credit>>,
        /// The payload of its frame.
        payload: Box<[u8]>,
    },
    /// `basic.cancel`.
    Cancel {
        /// The sink's key for it.
        key: SubscriptionKey,
        /// The frame of the answer; empty when none is wanted.
        answer: Vec<u8>,
    },
    /// `basic.get`.
    Fetch {
        /// The queue.
        queue: Arc<str>,
        /// The sink's key for what this channel fetches.
        key: SubscriptionKey,
        /// Nobody will settle it.
        settled: bool,
    },
    /// `basic.recover` with requeue, which the client has its answer to already.
    Recover,
    /// `tx.select`.
    Begin,
    /// `tx.commit`.
    Commit,
    /// `tx.rollback`.
    Rollback,
    /// Routes were changed.
    Refresh,
    /// A message has come whose body is kept elsewhere: that is completed.
    Finish(Box<Incoming>),
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// A frame, empty when none is wanted.
    Frame(Vec<u8>),
    /// A queue was declared; the frame is as above.
    Declared(Vec<u8>, Arc<str>),
    /// A consumer is there: answer, then start it.
    Consuming {
        /// The sink's key for it.
        key: SubscriptionKey,
        /// The frame of the answer; empty when none is wanted.
        frame: Vec<u8>,
    },
    /// A consumer is gone; the frame is as above.
    Cancelled(SubscriptionKey, Vec<u8>),
    /// A message, or none.
    Fetched(Option<Fetched>, bool),
    /// The transaction was begun, committed or rolled back.
    Begun,
    /// See [`Answer::Begun`].
    Committed,
    /// See [`Answer::Begun`].
    RolledBack,
    /// The message may be published.
    Finished(Box<Incoming>),
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// The channel's number.
    pub(super) channel: u16,
    /// Its vhost, for texts.
    pub(super) vhost: Arc<str>,
}

impl Request {
    /// Carries it out.
    ///
    /// # Errors
    /// Why the channel, or the connection, has to be closed.
    pub(super) async fn carry_out(self, lane: &mut dyn Lane, origin: &Origin) -> Result<Answer, Failure> {
        let refused = |why: Refused| refusal::refused(&why, &origin.vhost);
        match self {
            Self::Topology { payload, queue } => {
                let method = Method::decode(&payload)?;
                let done = topology(lane, origin, &method, queue.as_deref()).await;
                done.map_err(|failure| failure.caused_by(method.id()))
            }
            Self::Consume { queue, key, tag, credit, payload } => {
                let method = Method::decode(&payload)?;
                let done = consume(lane, origin, &method, &queue, key, &tag, credit).await;
                done.map_err(|failure| failure.caused_by(method.id()))
            }
            Self::Cancel { key, answer } => {
                lane.unsubscribe(key).await.map_err(refused)?;
                Ok(Answer::Cancelled(key, answer))
            }
            Self::Fetch { queue, key, settled } => {
                let fetched = lane.fetch(&queue, key, settled).await.map_err(refused)?;
                Ok(Answer::Fetched(fetched, settled))
            }
            Self::Recover => {
                lane.recover(true).await.map_err(refused)?;
                Ok(Answer::Frame(Vec::new()))
            }
            Self::Finish(mut incoming) => {
                incoming.finish().await.map_err(refused)?;
                Ok(Answer::Finished(incoming))
            }
            Self::Begin => lane.begin().await.map(|()| Answer::Begun).map_err(refused),
            Self::Commit => match lane.commit().await {
                Ok(()) => Ok(Answer::Committed),
                Err(why) if refusal::is_nack(&why) => {
                    Err(Failure::new(ReplyCode::PreconditionFailed, "partial tx completion"))
                }
                Err(why) => Err(refused(why)),
            },
            Self::Rollback => lane.rollback().await.map(|()| Answer::RolledBack).map_err(refused),
            Self::Refresh => {
                lane.refresh().await;
                Ok(Answer::Frame(Vec::new()))
            }
        }
    }
}

async fn consume(
    lane: &mut dyn Lane,
    origin: &Origin,
    method: &Method<'_>,
    queue: &str,
    key: SubscriptionKey,
    tag: &str,
    credit: Option<Arc<Credit>>,
) -> Result<Answer, Failure> {
    use crate::protocol::amqp::basic::{Basic, ConsumeOk};
    let Method::Basic(Basic::Consume(consume)) = method else { return Ok(Answer::Frame(Vec::new())) };
    let arguments = arguments(consume.arguments)?;
    let how = Subscribe {
        settle: if consume.no_ack { Settle::OnDelivery } else { Settle::ByConsumer },
        no_local: consume.no_local,
        exclusive: consume.exclusive,
        several: false,
        priority: priority(consume.arguments, queue, &origin.vhost)?,
        arguments: &arguments,
        ack_timeout: None,
        exactly_once: false,
        wishes: None,
    };
    let source = Source::Queue(queue);
    lane.subscribe(&source, key, &how, credit).await.map_err(|why| refusal::refused(&why, &origin.vhost))?;
    let answer = ConsumeOk { consumer_tag: ShortString::truncated(tag) };
    Ok(Answer::Consuming { key, frame: frame_unless(consume.no_wait, origin, answer) })
}

/// RabbitMQ's `x-priority`.
fn priority(arguments: Table<'_>, queue: &str, vhost: &str) -> Result<i32, Failure> {
    match arguments.get("x-priority") {
        None => Ok(0),
        Some(value) => value.as_i64().and_then(|number| i32::try_from(number).ok()).ok_or_else(|| {
            let text =
                format!("invalid arg 'x-priority' for queue '{queue}' in vhost '{vhost}': not a number");
            Failure::new(ReplyCode::PreconditionFailed, &text)
        }),
    }
}

fn frame_unless<'a>(no_wait: bool, origin: &Origin, method: impl Into<Method<'a>>) -> Vec<u8> {
    let mut frame = Vec::new();
    if !no_wait {
        method.into().encode(origin.channel, &mut frame);
    }
    frame
}

async fn topology(
    lane: &mut dyn Lane,
    origin: &Origin,
    method: &Method<'_>,
    last_queue: Option<&str>,
) -> Result<Answer, Failure> {
    match method {
        Method::Exchange(method) => exchange(lane, origin, method).await,
        Method::Queue(method) => queue(lane, origin, method, last_queue).await,
        _ => Ok(Answer::Frame(Vec::new())),
    }
}

fn access_refused(text: &str) -> Failure {
    Failure::new(ReplyCode::AccessRefused, text)
}

/// A name that may not be the default exchange's.
fn exchange_name(name: ShortString<'_>) -> Result<String, Failure> {
    let name = translate::cleaned(name);
    if name.is_empty() {
        return Err(access_refused("operation not permitted on the default exchange"));
    }
    Ok(name)
}

/// Names that only the server gives.
const RESERVED: &str = "amq.";

async fn exchange(lane: &mut dyn Lane, origin: &Origin, method: &Exchange<'_>) -> Result<Answer, Failure> {
    let refused = |why: Refused| refusal::refused(&why, &origin.vhost);
    let frame = match method {
        Exchange::Declare(declare) => {
            let name = exchange_name(declare.exchange)?;
            let arguments = arguments(declare.arguments)?;
            let spec = translate::exchange_spec(declare, &name, &arguments);
            if name.starts_with(RESERVED) && !spec.passive {
                // One that exists may be declared again.
                let mut asked = spec.clone();
                asked.passive = true;
                match lane.declare_exchange(&asked).await {
                    Err(Refused::NotFound { what: What::Exchange, .. }) => {
                        let text = format!("exchange name '{name}' contains reserved prefix 'amq.*'");
                        return Err(access_refused(&text));
                    }
                    other => other.map_err(refused)?,
                }
            }
            lane.declare_exchange(&spec).await.map_err(refused)?;
            frame_unless(declare.no_wait, origin, exchange::DeclareOk {})
        }
        Exchange::Delete(delete) => {
            let name = exchange_name(delete.exchange)?;
            if name.starts_with(RESERVED) {
                let vhost = &origin.vhost;
                let text = format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed");
                return Err(access_refused(&text));
            }
            lane.delete_exchange(&name, delete.if_unused).await.map_err(refused)?;
            frame_unless(delete.no_wait, origin, exchange::DeleteOk {})
        }
        Exchange::Bind(bind) => {
            let (to, source) = (exchange_name(bind.destination)?, exchange_name(bind.source)?);
            let arguments = arguments(bind.arguments)?;
            let to = BindingEnd::Exchange(&to);
            let binding = translate::binding(&source, to, bind.routing_key.as_str(), &arguments);
            lane.bind(&binding).await.map_err(refused)?;
            frame_unless(bind.no_wait, origin, exchange::BindOk {})
        }
        Exchange::Unbind(unbind) => {
            let (to, source) = (exchange_name(unbind.destination)?, exchange_name(unbind.source)?);
            let arguments = arguments(unbind.arguments)?;
            let to = BindingEnd::Exchange(&to);
            let binding = translate::binding(&source, to, unbind.routing_key.as_str(), &arguments);
            lane.unbind(&binding).await.map_err(refused)?;
            frame_unless(unbind.no_wait, origin, exchange::UnbindOk {})
        }
        _ => return Err(Failure::new(ReplyCode::CommandInvalid, "unimplemented method")),
    };
    Ok(Answer::Frame(frame))
}

/// The queue that `name` means.
fn queue_name(name: ShortString<'_>, last: Option<&str>) -> Result<String, Failure> {
    match (name.is_empty(), last) {
        (false, _) => Ok(translate::cleaned(name)),
        (true, Some(last)) => Ok(last.to_owned()),
        (true, None) => Err(Failure::new(ReplyCode::NotFound, "no previously declared queue")),
    }
}

async fn queue(
    lane: &mut dyn Lane,
    origin: &Origin,
    method: &Queue<'_>,
    last: Option<&str>,
) -> Result<Answer, Failure> {
    let refused = |why: Refused| refusal::refused(&why, &origin.vhost);
    let frame = match method {
        Queue::Declare(declare) => return declare_queue(lane, origin, declare).await,
        Queue::Bind(bind) => {
            let (name, source) = (queue_name(bind.queue, last)?, exchange_name(bind.exchange)?);
            let arguments = arguments(bind.arguments)?;
            // Both empty: the queue's name is the key too.
            let both = bind.queue.is_empty() && bind.routing_key.is_empty();
            let key = if both { &name } else { bind.routing_key.as_str() };
            let binding = translate::binding(&source, BindingEnd::Queue(&name), key, &arguments);
            lane.bind(&binding).await.map_err(refused)?;
            frame_unless(bind.no_wait, origin, queue::BindOk {})
        }
        Queue::Unbind(unbind) => {
            let (name, source) = (queue_name(unbind.queue, last)?, exchange_name(unbind.exchange)?);
            let arguments = arguments(unbind.arguments)?;
            let both = unbind.queue.is_empty() && unbind.routing_key.is_empty();
            let key = if both { &name } else { unbind.routing_key.as_str() };
            let binding = translate::binding(&source, BindingEnd::Queue(&name), key, &arguments);
            lane.unbind(&binding).await.map_err(refused)?;
            frame_unless(false, origin, queue::UnbindOk {})
        }
        Queue::Purge(purge) => {
            let name = queue_name(purge.queue, last)?;
            let message_count = lane.purge_queue(&name).await.map_err(refused)?;
            frame_unless(purge.no_wait, origin, queue::PurgeOk { message_count: clamped(message_count) })
        }
        Queue::Delete(delete) => {
            let name = queue_name(delete.queue, last)?;
            let gone = lane.delete_queue(&name, delete.if_unused, delete.if_empty).await.map_err(refused)?;
            frame_unless(delete.no_wait, origin, queue::DeleteOk { message_count: clamped(gone) })
        }
        _ => return Err(Failure::new(ReplyCode::CommandInvalid, "unimplemented method")),
    };
    Ok(Answer::Frame(frame))
}

async fn declare_queue(
    lane: &mut dyn Lane,
    origin: &Origin,
    declare: &queue::Declare<'_>,
) -> Result<Answer, Failure> {
    let refused = |why: Refused| refusal::refused(&why, &origin.vhost);
    let name = translate::cleaned(declare.queue);
    if declare.passive && name.is_empty() {
        return Err(refused(Refused::NotFound { what: What::Queue, name }));
    }
    if !declare.passive && name.starts_with(RESERVED) {
        return Err(access_refused(&format!("queue name '{name}' contains reserved prefix 'amq.*'")));
    }
    let arguments = arguments(declare.arguments)?;
    let spec = translate::queue_spec(declare, &name, &arguments);
    let counts = lane.declare_queue(&spec).await.map_err(refused)?;
    let answer = queue::DeclareOk {
        queue: ShortString::truncated(&counts.name),
        message_count: clamped(counts.messages),
        consumer_count: counts.consumers,
    };
    let frame = frame_unless(declare.no_wait, origin, answer);
    Ok(Answer::Declared(frame, counts.name.as_str().into()))
}

fn clamped(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

//! One channel as the standard describes it (§2.2.5): what each method means in the state that the channel is in. What
//! has to be done is told; nothing is done here.

use std::sync::Arc;

use crate::protocol::amqp::{
    Method, ReplyCode, ShortString,
    access::{Access, RequestOk},
    basic::{self, Basic},
    channel::{self, Channel as Class},
    confirm::{self, Confirm},
    exchange::Exchange,
    queue::Queue,
    tx::{self, Tx},
};

use super::failure::Failure;
use super::settling::{Acknowledged, Word};

/// How publishes and settlements of a channel are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// Not at all.
    #[default]
    Plain,
    /// Publishes with `basic.ack` (RabbitMQ's `confirm.select`).
    Confirm,
    /// Together, with `tx.commit-ok`.
    Transaction,
}

/// The state of one channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// Its number.
    pub(super) number: u16,
    /// How publishes are answered.
    pub(super) mode: Mode,
    /// Unsettled deliveries of each new consumer; 0 is no bound.
    pub(super) prefetch: u16,
    /// What an empty queue name means.
    pub(super) last_queue: Option<Arc<str>>,
    /// We closed it, and discard all until the client agrees.
    pub(super) closing: bool,
}

/// What a method leads to. An answer that needs nobody was appended already.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The client closed the channel: release everything, then say `channel.close-ok`.
    Close,
    /// The client agrees that the channel is closed.
    Closed,
    /// Settle deliveries.
    Acknowledge(Acknowledged),
    /// Ask the lane for what the method says; names are as in the method.
    Topology,
    /// Make a consumer.
    Consume {
        /// The queue.
        queue: Arc<str>,
        /// The consumer tag; empty: one has to be given.
        tag: Arc<str>,
        /// Nobody settles.
        no_ack: bool,
    },
    /// End a consumer.
    Cancel {
        /// The consumer tag.
        tag: Arc<str>,
        /// The frame of the answer; empty when none is wanted.
        answer: Vec<u8>,
    },
    /// Fetch a message.
    Get {
        /// The queue.
        queue: Arc<str>,
        /// Nobody settles.
        no_ack: bool,
    },
    /// Bound the unsettled deliveries of all consumers together; none: no bound.
    Window(Option<u16>),
    /// Give all that is unsettled back.
    Recover {
        /// The frame of the answer; empty when none is wanted.
        answer: Vec<u8>,
    },
    /// Begin a transaction.
    Begin,
    /// Carry the transaction out.
    Commit,
    /// Undo it.
    Rollback,
}

impl Channel {
    /// A channel that was opened.
    pub(super) fn new(number: u16) -> Self {
        Self { number, ..Self::default() }
    }

    /// What `method`, which has no content, leads to.
    ///
    /// # Errors
    /// Why the channel or the connection is closed.
    pub(super) fn accept(&mut self, method: &Method<'_>, out: &mut Vec<u8>) -> Result<Effect, Failure> {
        if self.closing {
            return Ok(match method {
                Method::Channel(Class::CloseOk(_)) => Effect::Closed,
                Method::Channel(Class::Close(_)) => {
                    channel::CloseOk {}.encode(self.number, out);
                    Effect::None
                }
                _ => Effect::None,
            });
        }
        let effect = match method {
            Method::Channel(method) => self.channel(method, out),
            Method::Basic(method) => self.basic(method, out),
            Method::Exchange(
                Exchange::Declare(_) | Exchange::Delete(_) | Exchange::Bind(_) | Exchange::Unbind(_),
            )
            | Method::Queue(
                Queue::Declare(_) | Queue::Bind(_) | Queue::Unbind(_) | Queue::Purge(_) | Queue::Delete(_),
            ) => Ok(Effect::Topology),
            Method::Confirm(Confirm::Select(select)) => self.confirm(*select, out),
            Method::Tx(method) => self.tx(method, out),
            Method::Access(Access::Request(_)) => {
                RequestOk { ticket: 1 }.encode(self.number, out);
                Ok(Effect::None)
            }
            _ => Err(unimplemented()),
        };
        effect.map_err(|failure| failure.caused_by(method.id()))
    }

    fn channel(&mut self, method: &Class<'_>, out: &mut Vec<u8>) -> Result<Effect, Failure> {
        match method {
            Class::Open(_) => Err(Failure::new(ReplyCode::ChannelError, "second 'channel.open' seen")),
            Class::Close(_) => Ok(Effect::Close),
            Class::Flow(flow) if flow.active => {
                channel::FlowOk { active: true }.encode(self.number, out);
                Ok(Effect::None)
            }
            Class::Flow(_) => Err(Failure::new(ReplyCode::NotImplemented, "active=false")),
            _ => Err(unimplemented()),
        }
    }

    fn basic(&mut self, method: &Basic<'_>, out: &mut Vec<u8>) -> Result<Effect, Failure> {
        let said = |tag, multiple, word| {
            Ok(Effect::Acknowledge(Acknowledged { tag, count: 1, multiple, word, method: method.id() }))
        };
        let word = |requeue| if requeue { Word::Requeue } else { Word::Drop };
        match method {
            Basic::Ack(ack) => said(ack.delivery_tag, ack.multiple, Word::Ack),
            Basic::Nack(nack) => said(nack.delivery_tag, nack.multiple, word(nack.requeue)),
            Basic::Reject(reject) => said(reject.delivery_tag, false, word(reject.requeue)),
            Basic::Qos(qos) => self.qos(qos, out),
            Basic::Consume(consume) => Ok(Effect::Consume {
                queue: self.queue(consume.queue)?,
                tag: consume.consumer_tag.as_str().into(),
                no_ack: consume.no_ack,
            }),
            Basic::Cancel(cancel) => {
                let mut answer = Vec::new();
                if !cancel.no_wait {
                    basic::CancelOk { consumer_tag: cancel.consumer_tag }.encode(self.number, &mut answer);
                }
                Ok(Effect::Cancel { tag: cancel.consumer_tag.as_str().into(), answer })
            }
            Basic::Get(get) => Ok(Effect::Get { queue: self.queue(get.queue)?, no_ack: get.no_ack }),
            Basic::Recover(basic::Recover { requeue: true }) => {
                let mut answer = Vec::new();
                basic::RecoverOk {}.encode(self.number, &mut answer);
                Ok(Effect::Recover { answer })
            }
            Basic::RecoverAsync(basic::RecoverAsync { requeue: true }) => {
                Ok(Effect::Recover { answer: Vec::new() })
            }
            Basic::Recover(_) | Basic::RecoverAsync(_) => {
                Err(Failure::new(ReplyCode::NotImplemented, "requeue=false"))
            }
            _ => Err(unimplemented()),
        }
    }

    fn qos(&mut self, qos: &basic::Qos, out: &mut Vec<u8>) -> Result<Effect, Failure> {
        if qos.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", qos.prefetch_size);
            return Err(Failure::new(ReplyCode::NotImplemented, &text));
        }
        basic::QosOk {}.encode(self.number, out);
        if qos.global {
            return Ok(Effect::Window(Some(qos.prefetch_count).filter(|count| *count > 0)));
        }
        self.prefetch = qos.prefetch_count;
        // RabbitMQ: a bound of each consumer's lifts the channel's.
        Ok(Effect::Window(None))
    }

    fn confirm(&mut self, select: confirm::Select, out: &mut Vec<u8>) -> Result<Effect, Failure> {
        if self.mode == Mode::Transaction {
            return Err(Failure::new(ReplyCode::PreconditionFailed, "cannot switch from tx to confirm mode"));
        }
        self.mode = Mode::Confirm;
        if !select.no_wait {
            confirm::SelectOk {}.encode(self.number, out);
        }
        Ok(Effect::None)
    }

    fn tx(&mut self, method: &Tx, out: &mut Vec<u8>) -> Result<Effect, Failure> {
        match (method, self.mode) {
            (Tx::Select(_), Mode::Plain) => Ok(Effect::Begin),
            (Tx::Select(_), Mode::Transaction) => {
                tx::SelectOk {}.encode(self.number, out);
                Ok(Effect::None)
            }
            (Tx::Select(_), Mode::Confirm) => {
                Err(Failure::new(ReplyCode::PreconditionFailed, "cannot switch from confirm to tx mode"))
            }
            (Tx::Commit(_), Mode::Transaction) => Ok(Effect::Commit),
            (Tx::Rollback(_), Mode::Transaction) => Ok(Effect::Rollback),
            (Tx::Commit(_) | Tx::Rollback(_), _) => {
                Err(Failure::new(ReplyCode::PreconditionFailed, "channel is not transactional"))
            }
            _ => Err(unimplemented()),
        }
    }

    /// The queue that `name` means.
    fn queue(&self, name: ShortString<'_>) -> Result<Arc<str>, Failure> {
        match &self.last_queue {
            _ if !name.is_empty() => Ok(name.as_str().into()),
            Some(last) => Ok(Arc::clone(last)),
            None => Err(Failure::new(ReplyCode::NotFound, "no previously declared queue")),
        }
    }
}

fn unimplemented() -> Failure {
    Failure::new(ReplyCode::CommandInvalid, "unimplemented method")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::amqp::{Table, queue};

    fn done(channel: &mut Channel, method: impl Into<Method<'static>>) -> Result<Effect, String> {
        channel.accept(&method.into(), &mut Vec::new()).map_err(|failure| failure.text)
    }

    fn name(text: &'static str) -> ShortString<'static> {
        ShortString::new(text).unwrap()
    }

    #[test]
    fn errors_have_rabbitmqs_texts_and_name_the_method() {
        let mut channel = Channel::new(1);
        let rows: [(Method<'static>, &str); 9] = [
            (channel::Open {}.into(), "CHANNEL_ERROR - second 'channel.open' seen"),
            (channel::Flow { active: false }.into(), "NOT_IMPLEMENTED - active=false"),
            (
                basic::Qos { prefetch_size: 9, prefetch_count: 0, global: false }.into(),
                "NOT_IMPLEMENTED - prefetch_size!=0 (9)",
            ),
            (basic::Recover { requeue: false }.into(), "NOT_IMPLEMENTED - requeue=false"),
            (basic::Get { queue: name(""), no_ack: true }.into(), "NOT_FOUND - no previously declared queue"),
            (tx::Commit {}.into(), "PRECONDITION_FAILED - channel is not transactional"),
            (tx::Rollback {}.into(), "PRECONDITION_FAILED - channel is not transactional"),
            (channel::CloseOk {}.into(), "COMMAND_INVALID - unimplemented method"),
            (queue::DeleteOk { message_count: 1 }.into(), "COMMAND_INVALID - unimplemented method"),
        ];
        for (method, text) in rows {
            let failure = channel.accept(&method, &mut Vec::new()).unwrap_err();
            assert_eq!((failure.text.as_str(), failure.method), (text, method.id()));
        }
    }

    #[test]
    fn confirms_and_transactions_exclude_each_other() {
        let mut channel = Channel::new(1);
        assert_eq!(done(&mut channel, confirm::Select { no_wait: false }), Ok(Effect::None));
        let text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
        assert_eq!(done(&mut channel, tx::Select {}), Err(text.into()));
        let mut channel = Channel::new(1);
        assert_eq!(done(&mut channel, tx::Select {}), Ok(Effect::Begin));
        channel.mode = Mode::Transaction;
        let text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
        assert_eq!(done(&mut channel, confirm::Select { no_wait: true }), Err(text.into()));
        assert_eq!(done(&mut channel, tx::Commit {}), Ok(Effect::Commit));
    }

    #[test]
    fn an_empty_queue_name_is_the_last_declared_one() {
        let mut channel = Channel::new(1);
        channel.last_queue = Some("jobs".into());
        let consume = basic::Consume {
            queue: name(""),
            consumer_tag: name("t"),
            no_local: false,
            no_ack: true,
            exclusive: false,
            no_wait: false,
            arguments: Table::EMPTY,
        };
        let want = Effect::Consume { queue: "jobs".into(), tag: "t".into(), no_ack: true };
        assert_eq!(done(&mut channel, consume), Ok(want));
    }

    #[test]
    fn a_bound_of_each_consumer_lifts_the_channels() {
        let mut channel = Channel::new(1);
        let qos = |prefetch_count, global| basic::Qos { prefetch_size: 0, prefetch_count, global };
        assert_eq!(done(&mut channel, qos(10, true)), Ok(Effect::Window(Some(10))));
        assert_eq!(channel.prefetch, 0);
        assert_eq!(done(&mut channel, qos(5, false)), Ok(Effect::Window(None)));
        assert_eq!(channel.prefetch, 5);
        assert_eq!(done(&mut channel, qos(0, true)), Ok(Effect::Window(None)));
    }

    #[test]
    fn a_closing_channel_discards_all_but_the_closing() {
        let mut channel = Channel::new(7);
        channel.closing = true;
        assert_eq!(done(&mut channel, basic::Recover { requeue: false }), Ok(Effect::None));
        let mut out = Vec::new();
        let close = channel::Close { reply_code: 200, reply_text: name(""), class_id: 0, method_id: 0 };
        assert_eq!(channel.accept(&close.into(), &mut out), Ok(Effect::None));
        assert!(!out.is_empty(), "both sides closed at the same time: the client's close is answered");
        assert_eq!(done(&mut channel, channel::CloseOk {}), Ok(Effect::Closed));
    }
}

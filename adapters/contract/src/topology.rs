//! What AMQP clients declare: exchanges, queues and bindings.

use std::sync::Arc;

use crate::terms::Terms;
use crate::value::Value;

/// A field of an argument table.
pub type Argument<'a> = (&'a str, Value<'a>);

/// How an exchange routes (AMQP 0-9-1 §3.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ExchangeKind {
    Direct,
    Fanout,
    Topic,
    Headers,
    /// A type that only the broker behind knows.
    Other(String),
}

impl ExchangeKind {
    /// Reads the name that a client gave.
    pub fn named(name: &str) -> Self {
        match name {
            "direct" => Self::Direct,
            "fanout" => Self::Fanout,
            "topic" => Self::Topic,
            "headers" => Self::Headers,
            other => Self::Other(other.into()),
        }
    }

    /// The name that a client gives.
    pub fn name(&self) -> &str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::Other(name) => name,
        }
    }
}

/// An exchange to be declared.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Only tell whether it exists.
    pub passive: bool,
    /// Outlives a restart.
    pub durable: bool,
    /// Goes when its last binding goes.
    pub auto_delete: bool,
    /// Takes messages from other exchanges only.
    pub internal: bool,
    /// The client's arguments.
    pub arguments: &'a [Argument<'a>],
}

/// A queue to be declared.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSpec<'a> {
    /// Its name; empty: the back end chooses one.
    pub name: &'a str,
    /// Only tell whether it exists, and its counts.
    pub passive: bool,
    /// Outlives a restart.
    pub durable: bool,
    /// Of this client alone, and gone with it.
    pub exclusive: bool,
    /// Goes when its last consumer goes.
    pub auto_delete: bool,
    /// The client's arguments.
    pub arguments: &'a [Argument<'a>],
    /// What the route says that owns it. Where it is a back end's own to keep them, terms are no part of what two
    /// declarations must agree on: the last ones count.
    pub terms: Option<&'a Arc<Terms>>,
}

impl<'a> QueueSpec<'a> {
    /// A queue of that name with nothing else.
    pub const fn new(name: &'a str) -> Self {
        Self {
            name,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: &[],
            terms: None,
        }
    }
}

/// What is known of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Its name.
    pub name: String,
    /// Messages ready to be given out.
    pub messages: u64,
    /// Messages that it holds beside these: given out and not settled, or released and waiting for their delay to end.
    /// None when the back end has no way to know.
    pub unsettled: Option<u64>,
    /// Consumers.
    pub consumers: u32,
}

impl QueueCounts {
    /// The counts of a back end that does not know what is unsettled.
    pub fn new(name: impl Into<String>, messages: u64, consumers: u32) -> Self {
        Self { name: name.into(), messages, unsettled: None, consumers }
    }
}

/// What a binding leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum BindingEnd<'a> {
    Queue(&'a str),
    Exchange(&'a str),
}

/// A binding to be made or undone.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding<'a> {
    /// The exchange that messages come from.
    pub source: &'a str,
    /// Where they go.
    pub to: BindingEnd<'a>,
    /// Routing key or pattern.
    pub key: &'a [u8],
    /// The client's arguments: a headers exchange matches by them.
    pub arguments: &'a [Argument<'a>],
}

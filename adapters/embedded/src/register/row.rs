//! What is kept of each thing that is declared.

use std::sync::Arc;

use linkspan_contract::ExchangeKind;

use crate::arguments::Owned;

/// A durable exchange.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExchangeRow {
    pub(crate) name: Arc<str>,
    pub(crate) kind: ExchangeKind,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    /// As declared; the alternate exchange is one of them.
    pub(crate) arguments: Owned,
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueueRow {
    pub(crate) name: Arc<str>,
    /// Its own, and never another's.
    pub(crate) number: u64,
    pub(crate) auto_delete: bool,
    /// As declared, with their types.
    pub(crate) arguments: Owned,
}

/// Where a kept binding leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndRow {
    Queue(Arc<str>),
    Exchange(Arc<str>),
}

/// A binding whose both ends are durable.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BindingRow {
    pub(crate) source: Arc<str>,
    pub(crate) to: EndRow,
    pub(crate) key: Box<[u8]>,
    pub(crate) arguments: Owned,
}

/// Something that is to be kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    Exchange(ExchangeRow),
    Queue(QueueRow),
    Binding(BindingRow),
}

/// Something that is to be kept no more. With an exchange or a queue go its bindings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Gone {
    Exchange(Arc<str>),
    Queue(Arc<str>),
    Binding(BindingRow),
}

impl Row {
    /// What undoes it.
    pub(super) fn gone(&self) -> Gone {
        match self {
            Self::Exchange(exchange) => Gone::Exchange(Arc::clone(&exchange.name)),
            Self::Queue(queue) => Gone::Queue(Arc::clone(&queue.name)),
            Self::Binding(binding) => Gone::Binding(binding.clone()),
        }
    }
}

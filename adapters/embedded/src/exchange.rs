//! An exchange and its bindings.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::address::Pattern;
use linkspan_contract::{ExchangeKind, Properties};

use crate::arguments::Owned;
use crate::headers;
use crate::queue::Queue;
use crate::subscription::Subscription;
use crate::tree::Tree;

/// Where a binding leads.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Queue(Arc<Queue>),
    Exchange(Arc<str>),
    Subscriber(Arc<Subscription>),
}

impl End {
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Queue(one), Self::Queue(other)) => Arc::ptr_eq(one, other),
            (Self::Exchange(one), Self::Exchange(other)) => one == other,
            (Self::Subscriber(one), Self::Subscriber(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// A binding as its source exchange knows it.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    /// The routing key or pattern, in AMQP's spelling.
    pub(crate) key: Box<[u8]>,
    pub(crate) arguments: Owned,
    pub(crate) to: End,
}

impl Binding {
    fn is(&self, other: &Self) -> bool {
        self.to.is(&other.to) && self.key == other.key && self.arguments == other.arguments
    }
}

/// A binding as its destination knows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bound {
    pub(crate) exchange: Arc<str>,
    pub(crate) key: Box<[u8]>,
    pub(crate) arguments: Owned,
}

#[derive(Debug)]
enum Table {
    Direct(HashMap<Box<[u8]>, Vec<Binding>, RandomState>),
    Fanout(Vec<Binding>),
    Topic(Tree<Binding>),
    Headers(Vec<Binding>),
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) name: Arc<str>,
    pub(crate) kind: ExchangeKind,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: Owned,
    /// Takes what this exchange leads nowhere.
    pub(crate) alternate: Option<Box<str>>,
    /// The bindings that lead here.
    pub(crate) bound: Vec<Bound>,
    table: Table,
    bindings: usize,
}

impl Exchange {
    /// An exchange of a kind that this back end has.
    pub(crate) fn new(name: Arc<str>, kind: ExchangeKind) -> Option<Self> {
        let table = match kind {
            ExchangeKind::Direct => Table::Direct(HashMap::default()),
            ExchangeKind::Fanout => Table::Fanout(Vec::new()),
            ExchangeKind::Topic => Table::Topic(Tree::new()),
            ExchangeKind::Headers => Table::Headers(Vec::new()),
            ExchangeKind::Other(_) => return None,
        };
        Some(Self {
            name,
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Owned::default(),
            alternate: None,
            bound: Vec::new(),
            table,
            bindings: 0,
        })
    }

    pub(crate) fn is_used(&self) -> bool {
        self.bindings > 0
    }

    /// True when it is to go, as it leads nowhere.
    pub(crate) fn is_left(&self) -> bool {
        self.auto_delete && !self.is_used()
    }

    /// Adds a binding; false when it is there.
    pub(crate) fn bind(&mut self, binding: Binding) -> bool {
        if self.has(&binding) {
            return false;
        }
        match &mut self.table {
            Table::Topic(tree) => tree.insert(&Pattern::from_binding(&binding.key), binding),
            Table::Direct(keys) => keys.entry(binding.key.clone()).or_default().push(binding),
            Table::Fanout(list) | Table::Headers(list) => list.push(binding),
        }
        self.bindings += 1;
        true
    }

    /// True when there is such a binding.
    pub(crate) fn has(&self, binding: &Binding) -> bool {
        match &self.table {
            Table::Topic(tree) => {
                tree.under(&Pattern::from_binding(&binding.key)).any(|other| other.is(binding))
            }
            Table::Direct(keys) => {
                keys.get(&binding.key).into_iter().flatten().any(|other| other.is(binding))
            }
            Table::Fanout(list) | Table::Headers(list) => list.iter().any(|other| other.is(binding)),
        }
    }

    /// Removes a binding; none when it was not there.
    pub(crate) fn unbind(&mut self, binding: &Binding) -> Option<Binding> {
        let found = match &mut self.table {
            Table::Topic(tree) => {
                tree.remove(&Pattern::from_binding(&binding.key), |other| other.is(binding))
            }
            Table::Direct(keys) => {
                let list = keys.get_mut(&binding.key)?;
                let found = take(list, binding);
                if list.is_empty() {
                    keys.remove(&binding.key);
                }
                found
            }
            Table::Fanout(list) | Table::Headers(list) => take(list, binding),
        };
        self.bindings -= usize::from(found.is_some());
        found
    }

    /// Adds a subscription by an MQTT topic filter: only topic exchanges have such.
    pub(crate) fn subscribe(&mut self, filter: &Pattern, to: End) {
        if let Table::Topic(tree) = &mut self.table {
            tree.insert(filter, Binding { key: Box::default(), arguments: Owned::default(), to });
            self.bindings += 1;
        }
    }

    pub(crate) fn unsubscribe(&mut self, filter: &Pattern, to: &End) {
        if let Table::Topic(tree) = &mut self.table
            && tree.remove(filter, |other| other.to.is(to)).is_some()
        {
            self.bindings -= 1;
        }
    }

    /// All bindings, in no order.
    pub(crate) fn each_binding(&self, mut each: impl FnMut(&Binding)) {
        match &self.table {
            Table::Direct(keys) => keys.values().flatten().for_each(&mut each),
            Table::Fanout(list) | Table::Headers(list) => list.iter().for_each(&mut each),
            Table::Topic(tree) => tree.iter().for_each(&mut each),
        }
    }

    /// True when where a message goes depends on its headers.
    pub(crate) fn reads_headers(&self) -> bool {
        matches!(self.table, Table::Headers(_))
    }

    /// Where a message goes: `key` and `topic` are the same in both spellings.
    pub(crate) fn route<'a>(
        &'a self,
        key: &[u8],
        topic: &[u8],
        properties: Option<&Properties<'_>>,
        mut found: impl FnMut(&'a End),
    ) {
        match &self.table {
            Table::Direct(keys) => {
                keys.get(key).into_iter().flatten().for_each(|binding| found(&binding.to));
            }
            Table::Fanout(list) => list.iter().for_each(|binding| found(&binding.to)),
            Table::Topic(tree) => tree.matches(topic, |binding| found(&binding.to)),
            Table::Headers(list) => {
                let none = Properties::default();
                let properties = properties.unwrap_or(&none);
                list.iter()
                    .filter(|binding| headers::matches(&binding.arguments, properties))
                    .for_each(|binding| found(&binding.to));
            }
        }
    }
}

fn take(list: &mut Vec<Binding>, binding: &Binding) -> Option<Binding> {
    let place = list.iter().position(|other| other.is(binding))?;
    Some(list.swap_remove(place))
}

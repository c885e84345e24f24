//! A vhost's exchanges, queues and bindings, and where they lead a message.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::address::{Pattern, Syntax, respelled};
use linkspan_contract::{Destination, ExchangeKind, Properties, Refused, What};

use crate::embedded::BindingWatch;
use crate::exchange::{Binding, Bound, End, Exchange};
use crate::queue::Queue;
use crate::register::{BindingRow, EndRow, Gone};
use crate::subscription::Subscription;

/// The topic exchange that is the vhost's address space.
pub(crate) const ADDRESS_SPACE: &str = "amq.topic";

/// The exchanges that every vhost has.
const PREDECLARED: [(&str, ExchangeKind); 5] = [
    ("amq.direct", ExchangeKind::Direct),
    ("amq.fanout", ExchangeKind::Fanout),
    (ADDRESS_SPACE, ExchangeKind::Topic),
    ("amq.headers", ExchangeKind::Headers),
    ("amq.match", ExchangeKind::Headers),
];

/// What is declared in a vhost.
pub(crate) struct Topology {
    vhost: Arc<str>,
    watch: Option<Arc<dyn BindingWatch>>,
    /// What of it is kept and has gone; none where nothing is kept.
    gone: Option<Vec<Gone>>,
    exchanges: HashMap<Arc<str>, Exchange, RandomState>,
    queues: HashMap<Arc<str>, Declared, RandomState>,
    groups: HashMap<(Box<str>, Box<str>), Arc<Queue>, RandomState>,
    /// Sessions' queues, which no binding leads to.
    inboxes: HashMap<Arc<str>, Arc<Queue>, RandomState>,
}

#[derive(Debug)]
struct Declared {
    queue: Arc<Queue>,
    bound: Vec<Bound>,
}

/// Where a message goes.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) queues: Vec<Arc<Queue>>,
    pub(crate) subscribers: Vec<Arc<Subscription>>,
    /// A headers exchange was met: each message goes its own way.
    pub(crate) by_message: bool,
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology").field("vhost", &self.vhost).finish_non_exhaustive()
    }
}

/// A path as routing key and as topic.
type Spelled<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl Topology {
    /// A topology with nothing declared. `keeps`: what is durable is to outlive it.
    pub(crate) fn new(vhost: Arc<str>, watch: Option<Arc<dyn BindingWatch>>, keeps: bool) -> Self {
        let exchanges = PREDECLARED
            .into_iter()
            .filter_map(|(name, kind)| {
                let name: Arc<str> = name.into();
                Some((name.clone(), Exchange::new(name, kind)?))
            })
            .collect();
        let gone = keeps.then(Vec::new);
        Self {
            vhost,
            watch,
            gone,
            exchanges,
            queues: HashMap::default(),
            groups: HashMap::default(),
            inboxes: HashMap::default(),
        }
    }

    /// What is not to be kept any more since this was asked last.
    pub(crate) fn take_gone(&mut self) -> Vec<Gone> {
        self.gone.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// True when such a binding is kept: both its ends are here and kept themselves.
    pub(crate) fn keeps(&self, source: &str, binding: &Binding) -> bool {
        self.gone.is_some()
            && self.exchange(source).is_some_and(|exchange| exchange.durable)
            && match &binding.to {
                End::Queue(queue) => {
                    let is_here = |current| Arc::ptr_eq(current, queue);
                    queue.traits().number.is_some() && self.queue(&queue.name).is_some_and(is_here)
                }
                End::Exchange(name) => self.exchange(name).is_some_and(|exchange| exchange.durable),
                End::Subscriber(_) => false,
            }
    }

    /// Something that is kept is not to be any more.
    pub(crate) fn forget_kept(&mut self, what: Gone) {
        if let Some(gone) = &mut self.gone {
            gone.push(what);
        }
    }

    pub(crate) fn exchange(&self, name: &str) -> Option<&Exchange> {
        self.exchanges.get(name)
    }

    pub(crate) fn queue(&self, name: &str) -> Option<&Arc<Queue>> {
        self.queues.get(name).map(|declared| &declared.queue)
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.values().map(|declared| &declared.queue)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.groups.values()
    }

    pub(crate) fn add_exchange(&mut self, exchange: Exchange) {
        self.exchanges.insert(exchange.name.clone(), exchange);
    }

    pub(crate) fn add_queue(&mut self, queue: Arc<Queue>) {
        self.queues.insert(queue.name.clone(), Declared { queue, bound: Vec::new() });
    }

    /// The queue that the members of a shared subscription share.
    pub(crate) fn group(&self, group: &str, filter: &str) -> Option<&Arc<Queue>> {
        self.groups.get(&(Box::from(group), Box::from(filter)))
    }

    pub(crate) fn add_group(&mut self, group: &str, filter: &str, queue: &Arc<Queue>) {
        self.groups.insert((group.into(), filter.into()), Arc::clone(queue));
        if let Some(space) = self.exchanges.get_mut(ADDRESS_SPACE) {
            space.subscribe(&Pattern::from_filter(filter), End::Queue(Arc::clone(queue)));
        }
    }

    pub(crate) fn inbox(&self, name: &str) -> Option<&Arc<Queue>> {
        self.inboxes.get(name)
    }

    pub(crate) fn inboxes(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.inboxes.values()
    }

    pub(crate) fn add_inbox(&mut self, inbox: Arc<Queue>) {
        self.inboxes.insert(Arc::clone(&inbox.name), inbox);
    }

    /// Takes out a session's queue.
    pub(crate) fn remove_inbox(&mut self, name: &str) -> Option<Arc<Queue>> {
        let inbox = self.inboxes.remove(name)?;
        self.forget_kept(Gone::Queue(Arc::clone(&inbox.name)));
        Some(inbox)
    }

    /// Takes out a shared subscription's queue.
    pub(crate) fn remove_group(&mut self, group: &str, filter: &str, queue: &Arc<Queue>) {
        let place = (Box::from(group), Box::from(filter));
        if self.groups.get(&place).is_some_and(|current| Arc::ptr_eq(current, queue)) {
            self.groups.remove(&place);
            if queue.is_kept() {
                self.forget_kept(Gone::Queue(Arc::clone(&queue.name)));
            }
            if let Some(space) = self.exchanges.get_mut(ADDRESS_SPACE) {
                space.unsubscribe(&Pattern::from_filter(filter), &End::Queue(Arc::clone(queue)));
            }
        }
    }

    pub(crate) fn subscribe(&mut self, subscription: &Arc<Subscription>) {
        if let Some(space) = self.exchanges.get_mut(ADDRESS_SPACE) {
            space.subscribe(&subscription.filter, End::Subscriber(Arc::clone(subscription)));
        }
    }

    pub(crate) fn unsubscribe(&mut self, subscription: &Arc<Subscription>) {
        if let Some(space) = self.exchanges.get_mut(ADDRESS_SPACE) {
            space.unsubscribe(&subscription.filter, &End::Subscriber(Arc::clone(subscription)));
        }
    }

    /// Makes a binding whose ends exist.
    pub(crate) fn bind(&mut self, source: &str, binding: Binding) {
        let Some(exchange) = self.exchanges.get_mut(source) else { return };
        let bound = Bound {
            exchange: exchange.name.clone(),
            key: binding.key.clone(),
            arguments: binding.arguments.clone(),
        };
        let to = binding.to.clone();
        if !exchange.bind(binding) {
            return;
        }
        if let Some(watch) = self.watch.as_ref().filter(|_| source == ADDRESS_SPACE) {
            watch.bound(&bound.key);
        }
        if let Some(list) = self.bound_of(&to) {
            list.push(bound);
        }
    }

    /// Undoes a binding; an auto-delete exchange that led nowhere else goes.
    pub(crate) fn unbind(&mut self, source: &str, binding: &Binding) {
        let Some(exchange) = self.exchanges.get_mut(source) else { return };
        let name = Arc::clone(&exchange.name);
        if let Some(undone) = exchange.unbind(binding) {
            if self.keeps(source, &undone)
                && let Some(row) = row(name, undone)
            {
                self.forget_kept(Gone::Binding(row));
            }
            self.tell_unbound(source, &binding.key);
            if let Some(list) = self.bound_of(&binding.to)
                && let Some(place) = list.iter().position(|bound| {
                    *bound.exchange == *source
                        && bound.key == binding.key
                        && bound.arguments == binding.arguments
                })
            {
                list.swap_remove(place);
            }
            if self.exchange(source).is_some_and(Exchange::is_left) {
                self.remove_exchange(source);
            }
        }
    }

    fn bound_of(&mut self, end: &End) -> Option<&mut Vec<Bound>> {
        match end {
            End::Queue(queue) => self.queues.get_mut(&queue.name).map(|declared| &mut declared.bound),
            End::Exchange(name) => self.exchanges.get_mut(name).map(|exchange| &mut exchange.bound),
            End::Subscriber(_) => None,
        }
    }

    /// Removes an exchange and its bindings, and what goes with them.
    pub(crate) fn remove_exchange(&mut self, name: &str) {
        self.remove_exchanges(vec![name.into()]);
    }

    /// The chain of auto-delete exchanges that go with one another may be long: it is walked, not descended.
    fn remove_exchanges(&mut self, mut names: Vec<Arc<str>>) {
        while let Some(name) = names.pop() {
            let Some(exchange) = self.exchanges.remove(&name) else { continue };
            if exchange.durable {
                self.forget_kept(Gone::Exchange(Arc::clone(&name)));
            }
            exchange.each_binding(|binding| {
                if let Some(list) = self.bound_of(&binding.to) {
                    list.retain(|bound| bound.exchange != name);
                }
            });
            names.extend(self.forget(exchange.bound, End::Exchange(exchange.name)));
        }
    }

    /// Removes a queue and its bindings, and the exchanges that go with them.
    pub(crate) fn remove_queue(&mut self, queue: &Arc<Queue>) {
        if !self.queue(&queue.name).is_some_and(|current| Arc::ptr_eq(current, queue)) {
            return;
        }
        if let Some(declared) = self.queues.remove(&queue.name) {
            if queue.traits().number.is_some() {
                self.forget_kept(Gone::Queue(Arc::clone(&queue.name)));
            }
            let left = self.forget(declared.bound, End::Queue(declared.queue));
            self.remove_exchanges(left);
        }
    }

    /// Undoes the bindings to what is gone; yields the auto-delete exchanges that lead nowhere any more.
    fn forget(&mut self, bound: Vec<Bound>, to: End) -> Vec<Arc<str>> {
        let mut left = Vec::new();
        for Bound { exchange: name, key, arguments } in bound {
            let binding = Binding { key, arguments, to: to.clone() };
            let Some(exchange) = self.exchanges.get_mut(&name) else { continue };
            if exchange.unbind(&binding).is_some() {
                if exchange.is_left() {
                    left.push(Arc::clone(&name));
                }
                self.tell_unbound(&name, &binding.key);
            }
        }
        left
    }

    fn tell_unbound(&self, source: &str, key: &[u8]) {
        if let Some(watch) = self.watch.as_ref().filter(|_| source == ADDRESS_SPACE) {
            watch.unbound(key);
        }
    }

    /// Where a client's message to `to` goes. `properties` are those of the message; without them a headers exchange
    /// makes the answer depend on the message.
    pub(crate) fn route(
        &self,
        to: &Destination<'_>,
        properties: Option<&Properties<'_>>,
    ) -> Result<Routes, Refused> {
        if let Destination::Exchange { name, .. } = *to
            && self.exchange(name).is_some_and(|exchange| exchange.internal)
        {
            let vhost = &self.vhost;
            return Err(Refused::AccessRefused(format!(
                "cannot publish to internal exchange '{name}' in vhost '{vhost}'"
            )));
        }
        self.route_inside(to, properties)
    }

    /// Where a message goes that the back end itself publishes.
    pub(crate) fn route_inside(
        &self,
        to: &Destination<'_>,
        properties: Option<&Properties<'_>>,
    ) -> Result<Routes, Refused> {
        let mut routes = Routes::default();
        match *to {
            Destination::Queue { name, more } => {
                routes.queues.extend(self.queue(name).cloned());
                for key in more {
                    let name = std::str::from_utf8(key).ok();
                    routes.queues.extend(name.and_then(|name| self.queue(name)).cloned());
                }
            }
            Destination::Exchange { name, key, more } => {
                let exchange = self
                    .exchange(name)
                    .ok_or_else(|| Refused::NotFound { what: What::Exchange, name: name.into() })?;
                self.walk(exchange, key, more, Syntax::Key, properties, &mut routes);
            }
            Destination::Address { path, syntax, more, queues } => {
                if let Some(space) = self.exchange(ADDRESS_SPACE) {
                    self.walk(space, path, more, syntax, properties, &mut routes);
                }
                routes.queues.extend(queues.iter().filter_map(|name| self.queue(name)).cloned());
            }
        }
        if routes.queues.len() > 1 {
            routes.queues.sort_unstable_by_key(Arc::as_ptr);
            routes.queues.dedup_by(|one, other| Arc::ptr_eq(one, other));
        }
        if routes.subscribers.len() > 1 && !matches!(to, Destination::Address { more: [], .. }) {
            routes.subscribers.sort_unstable_by_key(Arc::as_ptr);
            routes.subscribers.dedup_by(|one, other| Arc::ptr_eq(one, other));
        }
        Ok(routes)
    }

    /// Follows the exchanges from `first` on, each once, as their bindings and alternates lead.
    fn walk<'a>(
        &'a self,
        first: &'a Exchange,
        path: &[u8],
        more: &[&[u8]],
        syntax: Syntax,
        properties: Option<&Properties<'_>>,
        routes: &mut Routes,
    ) {
        let spelled: Vec<Spelled<'_>> = std::iter::once(&path)
            .chain(more)
            .map(|path| (respelled(path, syntax, Syntax::Key), respelled(path, syntax, Syntax::Topic)))
            .collect();
        let mut seen: Vec<&'a str> = vec![&first.name];
        let mut waiting = vec![first];
        while let Some(exchange) = waiting.pop() {
            if exchange.reads_headers() && properties.is_none() {
                routes.by_message = true;
                return;
            }
            let mut leads = false;
            let mut next: Vec<&'a str> = Vec::new();
            for (key, topic) in &spelled {
                exchange.route(key, topic, properties, |end| {
                    leads = true;
                    match end {
                        End::Queue(queue) => routes.queues.push(Arc::clone(queue)),
                        End::Subscriber(subscriber) => routes.subscribers.push(Arc::clone(subscriber)),
                        End::Exchange(name) => next.push(name),
                    }
                });
            }
            if !leads {
                next.extend(exchange.alternate.as_deref());
            }
            for name in next {
                if let Some(exchange) = self.exchange(name)
                    && !seen.contains(&name)
                {
                    seen.push(name);
                    waiting.push(exchange);
                }
            }
        }
    }
}

/// What is kept of a binding.
pub(crate) fn row(source: Arc<str>, binding: Binding) -> Option<BindingRow> {
    let Binding { key, arguments, to } = binding;
    let to = match to {
        End::Queue(queue) => EndRow::Queue(Arc::clone(&queue.name)),
        End::Exchange(name) => EndRow::Exchange(name),
        End::Subscriber(_) => return None,
    };
    Some(BindingRow { source, to, key, arguments })
}

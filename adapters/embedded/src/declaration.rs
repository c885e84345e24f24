//! Declaring, deleting and binding, with the checks and words of RabbitMQ.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use linkspan_contract::topology::{Binding, BindingEnd};
use linkspan_contract::{ExchangeKind, ExchangeSpec, QueueCounts, QueueSpec, Refused, What};

use crate::arguments::{Declared, QueueArguments, owned, text_of};
use crate::exchange::{self, End, Exchange};
use crate::group::GROUP;
use crate::headers;
use crate::inbox::INBOX;
use crate::queue::{Queue, QueueTraits, Remains};
use crate::register::{ExchangeRow, Keeping, QueueRow, Records, Row, Turn};
use crate::topology::{self, Topology};
use crate::vhost::Vhost;

/// Names that only the standard and this back end give.
const RESERVED: &str = "amq.";

/// A queue's counts, and the queue itself when this declaration made it.
pub(crate) type Made = (QueueCounts, Option<Arc<Queue>>);

/// What a declaration comes to.
enum Declaring {
    Now(Made),
    Kept(Keeping<Made>),
}

impl Vhost {
    pub(crate) async fn declare_exchange(self: &Arc<Self>, spec: &ExchangeSpec<'_>) -> Result<(), Refused> {
        if spec.name.is_empty() && !spec.passive {
            return Err(default_exchange());
        }
        if spec.passive {
            let exists = spec.name.is_empty() || self.look().exchange(spec.name).is_some();
            return if exists { Ok(()) } else { Err(no_exchange(spec.name)) };
        }
        if let Some(exchange) = self.look().exchange(spec.name) {
            return same_exchange(exchange, spec);
        }
        if spec.name.starts_with(RESERVED) {
            return Err(reserved(What::Exchange, spec.name));
        }
        let new = new_exchange(spec)?;
        let turn = self.turn(spec.name).await;
        match self.keep_exchange(spec, new, turn)? {
            Some(keeping) => keeping.kept().await,
            None => Ok(()),
        }
    }

    /// Has an exchange kept that others see when it is durable; one that is not to be kept, they see at once.
    fn keep_exchange(
        self: &Arc<Self>,
        spec: &ExchangeSpec<'_>,
        new: Exchange,
        turn: Option<Turn>,
    ) -> Result<Option<Keeping<()>>, Refused> {
        let records = self.records().filter(|_| spec.durable);
        let Some(records) = records else {
            return self.change(|topology| match topology.exchange(spec.name) {
                Some(exchange) => same_exchange(exchange, spec).map(|()| None),
                None => {
                    topology.add_exchange(new);
                    Ok(None)
                }
            });
        };
        let topology = self.look();
        if let Some(exchange) = topology.exchange(spec.name) {
            return same_exchange(exchange, spec).map(|()| None);
        }
        let row = ExchangeRow {
            name: Arc::clone(&new.name),
            kind: new.kind.clone(),
            auto_delete: new.auto_delete,
            internal: new.internal,
            arguments: new.arguments.clone(),
        };
        let vhost = Arc::clone(self);
        Ok(Some(records.put(Row::Exchange(row), move || {
            vhost.change(|topology| topology.add_exchange(new));
            drop(turn);
        })))
    }

    /// Waits until nobody else declares this name; where nothing is kept, nobody has to.
    pub(crate) async fn turn(&self, name: &str) -> Option<Turn> {
        match self.records() {
            Some(records) => records.turn(name).await,
            None => None,
        }
    }

    pub(crate) async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<(), Refused> {
        if name.is_empty() {
            return Err(default_exchange());
        }
        if name.starts_with(RESERVED) {
            let vhost = &self.name;
            return Err(Refused::AccessRefused(format!(
                "deletion of system exchange '{name}' in vhost '{vhost}' not allowed"
            )));
        }
        let (deleted, went) = self.undo(|topology| {
            let used = topology.exchange(name).is_some_and(Exchange::is_used);
            if if_unused && used {
                return Err(Refused::InUse { what: What::Exchange, name: name.into() });
            }
            let found = topology.exchange(name).is_some();
            topology.remove_exchange(name);
            Ok(found)
        });
        self.settled(went.or_before(deleted?)).await
    }

    /// A queue has no route any more.
    pub(crate) fn lose_route(&self, queue: &str) {
        let queue = self.look().queue(queue).cloned();
        if let Some(queue) = queue {
            queue.lose_route(self.house.now());
            self.change(|_| ());
        }
    }

    /// Declares a queue; the queue itself comes along when this declaration made it. What its route says of it counts
    /// also when it was there.
    pub(crate) async fn declare_queue(
        self: &Arc<Self>,
        spec: &QueueSpec<'_>,
        client: u64,
    ) -> Result<Made, Refused> {
        let made = self.declare_bare(spec, client).await?;
        if let Some(terms) = spec.terms {
            self.queue(&made.0.name, client)?.set_terms(terms, self.house.now());
            // Lanes look again at what becomes of what they publish.
            self.change(|_| ());
        }
        Ok(made)
    }

    async fn declare_bare(self: &Arc<Self>, spec: &QueueSpec<'_>, client: u64) -> Result<Made, Refused> {
        let now = self.house.now();
        if spec.passive {
            let queue = self.queue(spec.name, client)?;
            return Ok((queue.declared(now), None));
        }
        if spec.name.starts_with(RESERVED) {
            return Err(reserved(What::Queue, spec.name));
        }
        for (prefix, whose) in [(INBOX, "a session"), (GROUP, "a shared subscription")] {
            if spec.name.starts_with(prefix) {
                let name = spec.name;
                return Err(Refused::AccessRefused(format!("queue name '{name}' is that of {whose}")));
            }
        }
        if !spec.name.is_empty()
            && let Some(queue) = self.look().queue(spec.name)
        {
            same_queue(queue, spec, client)?;
            return Ok((queue.declared(now), None));
        }
        let name: Arc<str> = if spec.name.is_empty() { generated().into() } else { spec.name.into() };
        let (arguments, unknown) = QueueArguments::read(&self.name, &name, spec.arguments)?;
        if unknown > 0 {
            metrics::counter!("linkspan_queue_arguments_ignored_total").increment(unknown as u64);
        }
        let turn = self.turn(&name).await;
        match self.keep_queue(spec, client, &name, arguments, turn)? {
            Declaring::Kept(keeping) => keeping.kept().await,
            Declaring::Now(made) => Ok(made),
        }
    }

    /// Has a queue kept that others see when it is durable; one that is not to be kept, they see at once. An exclusive
    /// queue is not: after a restart it would be nobody's.
    fn keep_queue(
        self: &Arc<Self>,
        spec: &QueueSpec<'_>,
        client: u64,
        name: &Arc<str>,
        arguments: QueueArguments,
        turn: Option<Turn>,
    ) -> Result<Declaring, Refused> {
        let records = self.records().filter(|_| spec.durable && !spec.exclusive);
        let traits = QueueTraits {
            durable: spec.durable,
            owner: spec.exclusive.then_some(client),
            auto_delete: spec.auto_delete,
            declared: owned(spec.arguments),
            number: records.map(Records::number),
            group: None,
        };
        let Some((records, number)) = records.zip(traits.number) else {
            let now = self.house.now();
            let new = Queue::new(Arc::clone(name), self, traits, &arguments, now);
            let made = self.change(|topology| match topology.queue(name) {
                Some(queue) => same_queue(queue, spec, client).map(|()| (queue.declared(now), None)),
                None => {
                    topology.add_queue(Arc::clone(&new));
                    Ok((new.declared(now), Some(Arc::clone(&new))))
                }
            })?;
            if let Some(queue) = &made.1 {
                queue.watch();
            }
            return Ok(Declaring::Now(made));
        };
        let topology = self.look();
        if let Some(queue) = topology.queue(name) {
            same_queue(queue, spec, client)?;
            return Ok(Declaring::Now((queue.declared(self.house.now()), None)));
        }
        let row = QueueRow {
            name: Arc::clone(name),
            number,
            auto_delete: spec.auto_delete,
            arguments: traits.declared.clone(),
        };
        let (vhost, name) = (Arc::clone(self), Arc::clone(name));
        Ok(Declaring::Kept(records.put(Row::Queue(row), move || {
            let now = vhost.house.now();
            let new = Queue::new(name, &vhost, traits, &arguments, now);
            vhost.change(|topology| topology.add_queue(Arc::clone(&new)));
            drop(turn);
            new.watch();
            (new.declared(now), Some(new))
        })))
    }

    pub(crate) async fn delete_queue(
        &self,
        name: &str,
        if_unused: bool,
        if_empty: bool,
        client: u64,
    ) -> Result<u64, Refused> {
        let (deleted, went) = self.undo(|topology| {
            let Some(queue) = topology.queue(name).cloned() else { return Ok(None) };
            queue.check_owner(client)?;
            let remains = queue.end_if(if_unused, if_empty)?;
            topology.remove_queue(&queue);
            Ok(Some(remains))
        });
        let remains = deleted?;
        let went = went.or_before(remains.is_some());
        let ready = remains.map_or(0, Remains::tell);
        self.settled(went).await?;
        Ok(ready)
    }

    pub(crate) async fn bind(self: &Arc<Self>, binding: &Binding<'_>, client: u64) -> Result<(), Refused> {
        loop {
            if let Some(keeping) = self.keep_binding(binding, client)? {
                return keeping.kept().await?;
            }
            let bound = self.change(|topology| {
                let (source, new) = ends(topology, binding, client)?;
                // Its ends may have become such as are kept since the look.
                let is_new = !topology.exchange(source).is_some_and(|exchange| exchange.has(&new));
                if is_new && topology.keeps(source, &new) {
                    return Ok(false);
                }
                topology.bind(source, new);
                Ok(true)
            })?;
            if bound {
                return Ok(());
            }
        }
    }

    /// Has a binding kept that takes effect when it is durable; none when it is not to be kept, or is already.
    fn keep_binding(
        self: &Arc<Self>,
        binding: &Binding<'_>,
        client: u64,
    ) -> Result<Option<Keeping<Result<(), Refused>>>, Refused> {
        let Some(records) = self.records() else { return Ok(None) };
        let topology = self.look();
        let (source, new) = ends(&topology, binding, client)?;
        let Some(exchange) = topology.exchange(source) else { return Ok(None) };
        if !topology.keeps(source, &new) || exchange.has(&new) {
            return Ok(None);
        }
        let source = Arc::clone(&exchange.name);
        let Some(row) = topology::row(Arc::clone(&source), new.clone()) else { return Ok(None) };
        let vhost = Arc::clone(self);
        Ok(Some(records.put(Row::Binding(row), move || {
            vhost.change(|topology| {
                // An end that went since has taken what was kept of the binding along.
                if topology.exchange(&source).is_none() || !topology.keeps(&source, &new) {
                    return Err(gone(topology, &source, &new));
                }
                topology.bind(&source, new);
                Ok(())
            })
        })))
    }

    pub(crate) async fn unbind(&self, binding: &Binding<'_>, client: u64) -> Result<(), Refused> {
        let (undone, went) = self.undo(|topology| match ends(topology, binding, client) {
            Ok((source, binding)) => {
                let found = topology.exchange(source).is_some_and(|exchange| exchange.has(&binding));
                topology.unbind(source, &binding);
                Ok(found)
            }
            Err(Refused::NotFound { .. }) => Ok(false),
            Err(why) => Err(why),
        });
        self.settled(went.or_before(undone?)).await
    }
}

/// The end of a binding that went while it was being made.
fn gone(topology: &Topology, source: &str, binding: &exchange::Binding) -> Refused {
    match &binding.to {
        End::Queue(queue) if topology.exchange(source).is_some_and(|exchange| exchange.durable) => {
            no_queue(&queue.name)
        }
        End::Exchange(name) if !topology.exchange(name).is_some_and(|exchange| exchange.durable) => {
            no_exchange(name)
        }
        _ => no_exchange(source),
    }
}

/// Looks the ends of a binding up.
fn ends<'b>(
    topology: &Topology,
    binding: &Binding<'b>,
    client: u64,
) -> Result<(&'b str, exchange::Binding), Refused> {
    if binding.source.is_empty() || binding.to == BindingEnd::Exchange("") {
        return Err(default_exchange());
    }
    let to = match binding.to {
        BindingEnd::Queue(name) => {
            let queue = topology.queue(name).ok_or_else(|| no_queue(name))?;
            queue.check_owner(client)?;
            End::Queue(Arc::clone(queue))
        }
        BindingEnd::Exchange(name) => {
            let exchange = topology.exchange(name).ok_or_else(|| no_exchange(name))?;
            End::Exchange(Arc::clone(&exchange.name))
        }
    };
    let source = topology.exchange(binding.source).ok_or_else(|| no_exchange(binding.source))?;
    if source.reads_headers() {
        headers::check(binding.arguments)?;
    }
    let arguments = owned(binding.arguments);
    Ok((binding.source, exchange::Binding { key: binding.key.into(), arguments, to }))
}

/// An exchange as it was declared, or will be.
pub(crate) fn new_exchange(spec: &ExchangeSpec<'_>) -> Result<Exchange, Refused> {
    let alternate = match spec.arguments.iter().find(|(name, _)| *name == "alternate-exchange") {
        None => None,
        Some((_, value)) => Some(text_of(spec.arguments, "alternate-exchange").ok_or_else(|| {
            let kind = crate::arguments::type_name(value);
            Refused::Precondition(format!(
                "invalid type '{kind}' for arg 'alternate-exchange' in exchange '{}'",
                spec.name
            ))
        })?),
    };
    let mut exchange = Exchange::new(spec.name.into(), spec.kind.clone())
        .ok_or_else(|| Refused::Precondition(format!("unknown exchange type '{}'", spec.kind.name())))?;
    exchange.durable = spec.durable;
    exchange.auto_delete = spec.auto_delete;
    exchange.internal = spec.internal;
    exchange.arguments = owned(spec.arguments);
    exchange.alternate = alternate;
    Ok(exchange)
}

fn same_exchange(exchange: &Exchange, spec: &ExchangeSpec<'_>) -> Result<(), Refused> {
    let declared = Declared { what: What::Exchange, name: spec.name };
    let flag = |argument, received: bool, current: bool| {
        declared.field(argument, &received.to_string(), &current.to_string())
    };
    let kind = |kind: &ExchangeKind| kind.name().to_owned();
    declared.field("type", &kind(&spec.kind), &kind(&exchange.kind))?;
    flag("durable", spec.durable, exchange.durable)?;
    flag("auto_delete", spec.auto_delete, exchange.auto_delete)?;
    flag("internal", spec.internal, exchange.internal)?;
    declared.argument("alternate-exchange", spec.arguments, &exchange.arguments)
}

fn same_queue(queue: &Queue, spec: &QueueSpec<'_>, client: u64) -> Result<(), Refused> {
    let traits = queue.traits();
    if traits.owner != spec.exclusive.then_some(client) {
        return Err(Refused::Locked(spec.name.into()));
    }
    let declared = Declared { what: What::Queue, name: spec.name };
    declared.field("durable", &spec.durable.to_string(), &traits.durable.to_string())?;
    declared.field("auto_delete", &spec.auto_delete.to_string(), &traits.auto_delete.to_string())?;
    declared.queue_arguments(spec.arguments, &traits.declared)
}

fn default_exchange() -> Refused {
    Refused::AccessRefused("operation not permitted on the default exchange".into())
}

fn no_queue(name: &str) -> Refused {
    Refused::NotFound { what: What::Queue, name: name.into() }
}

fn no_exchange(name: &str) -> Refused {
    Refused::NotFound { what: What::Exchange, name: name.into() }
}

fn reserved(what: What, name: &str) -> Refused {
    Refused::AccessRefused(format!("{what} name '{name}' contains reserved prefix 'amq.*'"))
}

/// A name for a queue whose client gave none, not to be guessed.
fn generated() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let random = || u128::from(RandomState::new().build_hasher().finish());
    let bits = random() << 64 | random();
    let letter = |at: u32| {
        let place = usize::try_from(bits >> (6 * at) & 63).unwrap_or_default();
        char::from(ALPHABET.get(place).copied().unwrap_or(b'A'))
    };
    "amq.gen-".chars().chain((0..22).map(letter)).collect()
}

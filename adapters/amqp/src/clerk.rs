//! What clients declare, carried out at the broker, and who owns what.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use lapin::types::{FieldTable, ShortString};
use lapin::{ExchangeKind as Kind, options};
use linkspan_contract::{
    Binding, ExchangeKind, ExchangeSpec, QueueCounts, QueueSpec, Refused, Value, What, topology::BindingEnd,
};
use parking_lot::Mutex;

use crate::declared::{Bound, Declared, Exchange, Queue};
use crate::goal::short;
use crate::levels::Levels;
use crate::queue_arguments::{QueueArguments, is_of_limit, is_quorum, kind, queue_arguments};
use crate::random;
use crate::translate::table;
use crate::upstream::Upstream;
use crate::work_queue::WorkQueues;

/// Which queues are one client's alone, by the clients' numbers. The broker knows only which of Linkspan's connections
/// they belong to.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    queues: Mutex<HashMap<String, u64, RandomState>>,
}

impl Owners {
    /// # Errors
    /// When the queue is another's.
    pub(crate) fn check(&self, queue: &str, client: u64) -> Result<(), Refused> {
        match self.queues.lock().get(queue) {
            Some(owner) if *owner != client => Err(Refused::Locked(queue.into())),
            _ => Ok(()),
        }
    }

    pub(crate) fn leave(&self, client: u64) {
        self.queues.lock().retain(|_, owner| *owner != client);
    }
}

/// One client's requests.
pub(crate) struct Clerk {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) declared: Arc<Declared>,
    pub(crate) owners: Arc<Owners>,
    pub(crate) work_queues: Arc<WorkQueues>,
    pub(crate) client: u64,
}

impl Clerk {
    pub(crate) async fn declare_exchange(&self, spec: &ExchangeSpec<'_>) -> Result<(), Refused> {
        let name = short("the exchange", spec.name.as_bytes())?;
        let kind = match &spec.kind {
            ExchangeKind::Direct => Kind::Direct,
            ExchangeKind::Fanout => Kind::Fanout,
            ExchangeKind::Topic => Kind::Topic,
            ExchangeKind::Headers => Kind::Headers,
            ExchangeKind::Other(name) => {
                Kind::Custom(short("the exchange type", name.as_bytes())?.to_string())
            }
        };
        let options = options::ExchangeDeclareOptions {
            passive: spec.passive,
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            internal: spec.internal,
            nowait: false,
        };
        let arguments = arguments(spec.arguments)?;
        let exchange = Exchange { name, kind, options, arguments };
        let Exchange { name, kind, arguments, .. } = exchange.clone();
        self.upstream.request(async |it| it.exchange_declare(name, kind, options, arguments).await).await?;
        if !spec.passive {
            self.declared.add_exchange(exchange);
        }
        Ok(())
    }

    pub(crate) async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<(), Refused> {
        let exchange = short("the exchange", name.as_bytes())?;
        let options = options::ExchangeDeleteOptions { if_unused, nowait: false };
        self.upstream.request(async |it| it.exchange_delete(exchange, options).await).await?;
        self.declared.remove_exchange(name);
        Ok(())
    }

    pub(crate) async fn declare_queue(&self, spec: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        // The broker's own names cannot be declared again after a loss.
        let name = if spec.name.is_empty() {
            short("the queue", format!("linkspan.gen-{}", random::name()).as_bytes())?
        } else {
            short("the queue", spec.name.as_bytes())?
        };
        self.owners.check(name.as_str(), self.client)?;
        let levels = match spec.terms {
            Some(_) => self.levels_of(&name, spec).await?,
            None => self.work_queues.known_levels(name.as_str()).await,
        };
        let options = options::QueueDeclareOptions {
            passive: spec.passive,
            durable: spec.durable,
            exclusive: spec.exclusive,
            auto_delete: spec.auto_delete,
            nowait: false,
        };
        let QueueArguments { wanted, limited } = queue_arguments(spec)?;
        let mut queue = Queue { name: name.clone(), options, arguments: wanted };
        let mut told = self.declare(&queue).await;
        if let Err(why) = &told
            && let Some(limited) = limited.filter(|_| is_of_limit(why))
        {
            queue.arguments = limited;
            told = self.declare(&queue).await;
            if told.is_ok() {
                tracing::warn!(
                    queue = %name,
                    "the broker has this quorum queue with a limit of deliveries (RabbitMQ 4: 20 unless it says another) and \
                     counts what came back though nobody was given it; a queue that is declared anew has none"
                );
            }
        }
        let told = told?;
        if let (Some(levels), Some(_), Some(store)) = (&levels, spec.terms, self.work_queues.store()) {
            store.note(name.as_str(), levels.highest()).await?;
        }
        let mut upper: u64 = 0;
        for name in levels.iter().flat_map(|levels| levels.queues()).skip(1) {
            let told = self.declare(&Queue { name: name.clone(), ..queue.clone() }).await?;
            upper = upper.saturating_add(told.message_count().into());
        }
        if !spec.passive {
            self.declared.add_queue(queue);
            if let Some(terms) = spec.terms {
                self.work_queues.note(name.as_str(), terms, kind(spec), levels);
            }
            if spec.exclusive {
                self.owners.queues.lock().insert(name.to_string(), self.client);
            }
        }
        let mut counts =
            QueueCounts::new(told.name().as_str(), told.message_count().into(), told.consumer_count());
        counts.messages = counts.messages.saturating_add(upper);
        if let Some(desk) = self.work_queues.desk_there(name.as_str()) {
            desk.count(&mut counts);
        }
        Ok(counts)
    }

    async fn declare(&self, queue: &Queue) -> Result<lapin::Queue, Refused> {
        let asked = queue.clone();
        self.upstream
            .request(async |it| it.queue_declare(asked.name, asked.options, asked.arguments).await)
            .await
    }

    /// The queues that a route's queue is to have for its levels, where it is to have some.
    ///
    /// # Errors
    /// When it has another number of them at the broker.
    async fn levels_of(
        &self,
        name: &ShortString,
        spec: &QueueSpec<'_>,
    ) -> Result<Option<Arc<Levels>>, Refused> {
        self.work_queues.recall().await?;
        let levels = Levels::of(spec, is_quorum(spec))?.map(Arc::new);
        let Some(before) = self.work_queues.levels(name.as_str()) else { return Ok(levels) };
        let is_same = levels.as_ref().is_some_and(|levels| levels.highest() == before.highest());
        if is_same {
            return Ok(levels);
        }
        let options = options::QueueDeclareOptions { passive: true, ..Default::default() };
        let highest = before.queue(before.highest()).clone();
        match self.declare(&Queue { name: highest, options, arguments: FieldTable::default() }).await {
            Err(why) if why.is_missing() => {
                if let (None, Some(store)) = (&levels, self.work_queues.store()) {
                    store.forget(name.as_str()).await?;
                }
                Ok(levels)
            }
            Err(why) => Err(why),
            Ok(_) => Err(Refused::Inequivalent {
                what: What::Queue,
                name: name.to_string(),
                argument: "x-max-priority".into(),
                received: levels.map_or_else(|| "none".into(), |levels| levels.highest().to_string()),
                current: format!("{}, by a queue for each level", before.highest()),
            }),
        }
    }

    /// All queues of which a queue of that name is made.
    async fn parts(&self, name: &str) -> Result<Vec<ShortString>, Refused> {
        self.owners.check(name, self.client)?;
        match self.work_queues.known_levels(name).await {
            Some(levels) => Ok(levels.queues().cloned().collect()),
            None => Ok(vec![short("the queue", name.as_bytes())?]),
        }
    }

    pub(crate) async fn delete_queue(
        &self,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<u64, Refused> {
        let options = options::QueueDeleteOptions { if_unused, if_empty, nowait: false };
        let mut count: u64 = 0;
        // The one that has its name goes last: as long as it is there the queue is.
        for part in self.parts(name).await?.into_iter().rev() {
            let deleted = self.upstream.request(async |it| it.queue_delete(part, options).await).await?;
            count = count.saturating_add(deleted.into());
        }
        if let Some(store) = self.work_queues.store().filter(|_| self.work_queues.levels(name).is_some()) {
            store.forget(name).await?;
        }
        self.declared.remove_queue(name);
        self.owners.queues.lock().remove(name);
        self.work_queues.forget(name);
        Ok(count)
    }

    pub(crate) async fn purge_queue(&self, name: &str) -> Result<u64, Refused> {
        let options = options::QueuePurgeOptions::default();
        let mut count: u64 = 0;
        for part in self.parts(name).await? {
            let purged = self.upstream.request(async |it| it.queue_purge(part, options).await).await?;
            count = count.saturating_add(purged.into());
        }
        let here = self.work_queues.desk_there(name).map_or(0, |desk| desk.purge());
        Ok(here.saturating_add(count))
    }

    pub(crate) async fn bind(&self, binding: &Binding<'_>) -> Result<(), Refused> {
        let bound = self.bound(binding)?;
        let asked = bound.clone();
        self.upstream.request(async |it| asked.bind(it).await).await?;
        self.declared.add_binding(bound);
        Ok(())
    }

    pub(crate) async fn unbind(&self, binding: &Binding<'_>) -> Result<(), Refused> {
        let bound = self.bound(binding)?;
        let asked = bound.clone();
        self.upstream.request(async |it| asked.unbind(it).await).await?;
        self.declared.remove_binding(&bound);
        Ok(())
    }

    fn bound(&self, binding: &Binding<'_>) -> Result<Bound, Refused> {
        let (to, to_queue) = match binding.to {
            BindingEnd::Queue(queue) => {
                self.owners.check(queue, self.client)?;
                (short("the queue", queue.as_bytes())?, true)
            }
            BindingEnd::Exchange(exchange) => (short("the exchange", exchange.as_bytes())?, false),
        };
        Ok(Bound {
            source: short("the exchange", binding.source.as_bytes())?,
            to,
            to_queue,
            key: short("the binding key", binding.key)?,
            arguments: arguments(binding.arguments)?,
        })
    }
}

fn arguments(fields: &[(&str, Value<'_>)]) -> Result<FieldTable, Refused> {
    table(fields.iter().map(|(name, value)| (*name, value)))
}

/// Deletes queues of a client that has left.
pub(crate) async fn delete_left(upstream: Arc<Upstream>, queues: Vec<ShortString>) {
    for queue in queues {
        let options = options::QueueDeleteOptions::default();
        let asked = queue.clone();
        if let Err(why) = upstream.request(async |it| it.queue_delete(asked, options).await).await {
            // When its connection is lost the broker deletes it by itself.
            tracing::debug!(%queue, %why, "the queue of a client that has left was not deleted");
        }
    }
}

/// Deletes a queue that nobody consumes from any more.
pub(crate) async fn delete_unused(upstream: &Upstream, queue: ShortString) {
    let options = options::QueueDeleteOptions { if_unused: true, if_empty: false, nowait: false };
    let asked = queue.clone();
    if let Err(why) = upstream.request(async |it| it.queue_delete(asked, options).await).await {
        tracing::debug!(%queue, %why, "a queue without members here was not deleted");
    }
}

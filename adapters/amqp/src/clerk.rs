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
            None => self.levels_there(&name).await?,
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
        let before = spec.terms.and_then(|_| self.work_queues.levels(name.as_str()));
        if let (Some(levels), Some(_), Some(store)) = (&levels, spec.terms, self.work_queues.store()) {
            // What is there is not forgotten before it is deleted.
            let most = levels.highest().max(highest_of(before.as_deref()));
            store.note(name.as_str(), most).await?;
        }
        let mut upper: u64 = 0;
        for name in levels.iter().flat_map(|levels| levels.queues()).skip(1) {
            let queue = Queue { name: name.clone(), ..queue.clone() };
            match self.declare(&queue).await {
                Ok(told) => upper = upper.saturating_add(told.message_count().into()),
                Err(why) if spec.passive && why.is_missing() => continue,
                Err(why) => return Err(why),
            }
            if !spec.passive {
                self.declared.add_queue(queue);
            }
        }
        if !spec.passive {
            self.declared.add_queue(queue);
            if let Some(terms) = spec.terms {
                self.work_queues.note(name.as_str(), terms, kind(spec), levels.clone());
            }
            if let Some(before) = before {
                // Nothing more is published to those that go.
                self.delete_surplus(&before, levels.as_deref(), is_quorum(spec)).await?;
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
    /// When it has other ones, and messages or consumers in the way.
    async fn levels_of(
        &self,
        name: &ShortString,
        spec: &QueueSpec<'_>,
    ) -> Result<Option<Arc<Levels>>, Refused> {
        self.work_queues.recall().await?;
        let levels = Levels::of(spec, is_quorum(spec))?.map(Arc::new);
        let Some(before) = self.work_queues.levels(name.as_str()) else { return Ok(levels) };
        let (highest, mut held) = (highest_of(levels.as_deref()), Vec::new());
        if highest == before.highest() {
            return Ok(levels);
        }
        // What lies in a level that is no more nobody is given; and who works at those of before does not know of new ones.
        let grows = highest > before.highest();
        for queue in before.above(if grows { 0 } else { highest }) {
            if let Some((messages, consumers)) = self.counts_of(queue).await?
                && (consumers > 0 || messages > 0 && !grows)
            {
                held.push(format!("'{queue}' has {messages} messages and {consumers} consumers"));
            }
        }
        if held.is_empty() {
            return Ok(levels);
        }
        Err(Refused::Inequivalent {
            what: What::Queue,
            name: name.to_string(),
            argument: "x-max-priority".into(),
            received: levels.map_or_else(|| "none".into(), |levels| levels.highest().to_string()),
            current: format!("{}, by a queue for each level, of which {}", before.highest(), held.join(", ")),
        })
    }

    /// Deletes the queues of levels that there are no more, which were empty a moment ago, and has the ledger forget them. Those
    /// of quorum queues stay: RabbitMQ does not delete them on the condition that they are empty still.
    async fn delete_surplus(
        &self,
        before: &Levels,
        now: Option<&Levels>,
        is_quorum: bool,
    ) -> Result<(), Refused> {
        let options = options::QueueDeleteOptions { if_unused: true, if_empty: true, nowait: false };
        let highest = highest_of(now);
        for queue in before.above(highest).filter(|_| !is_quorum) {
            self.upstream.request(async |it| it.queue_delete(queue.clone(), options).await).await?;
        }
        let name = before.queue(0).as_str();
        match self.work_queues.store() {
            Some(store) if highest == 0 => store.forget(name).await,
            Some(store) if highest < before.highest() => store.note(name, highest).await,
            _ => Ok(()),
        }
    }

    /// How many messages and consumers a queue has at the broker, if it is there.
    async fn counts_of(&self, queue: &ShortString) -> Result<Option<(u32, u32)>, Refused> {
        let options = options::QueueDeclareOptions { passive: true, ..Default::default() };
        let asked = Queue { name: queue.clone(), options, arguments: FieldTable::default() };
        match self.declare(&asked).await {
            Ok(told) => Ok(Some((told.message_count(), told.consumer_count()))),
            Err(why) if why.is_missing() => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// The queues that a queue has for its levels about which no route says anything now.
    async fn levels_there(&self, name: &ShortString) -> Result<Option<Arc<Levels>>, Refused> {
        let Some(levels) = self.work_queues.known_levels(name.as_str()).await else { return Ok(None) };
        if self.work_queues.has_route(name.as_str()) || self.counts_of(name).await?.is_some() {
            return Ok(Some(levels));
        }
        self.forget_gone(name.as_str()).await?;
        Ok(self.work_queues.levels(name.as_str()))
    }

    /// A queue is not there: if no route has it, it is forgotten with its levels, unless one of these has messages.
    ///
    /// # Errors
    /// What the broker says, or the ledger.
    async fn forget_gone(&self, name: &str) -> Result<(), Refused> {
        let Some(levels) = self.work_queues.levels(name) else {
            self.work_queues.has_none(name);
            return Ok(());
        };
        if self.work_queues.has_route(name) {
            return Ok(());
        }
        for queue in levels.above(0) {
            if self.counts_of(queue).await?.is_some_and(|(messages, _)| messages > 0) {
                return Ok(());
            }
        }
        if let Some(store) = self.work_queues.store() {
            store.forget(name).await?;
        }
        self.work_queues.forget(name);
        Ok(())
    }

    /// Has a queue forgotten of which the broker said that there is none.
    pub(crate) async fn note_missing<T>(&self, queue: &str, said: &Result<T, Refused>) {
        if let Err(Refused::NotFound { .. }) = said
            && let Err(why) = self.forget_gone(queue).await
        {
            tracing::debug!(queue, %why, "the levels of a queue that is gone are known still");
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
        let parts = self.parts(name).await?;
        if parts.len() > 1 && (if_unused || if_empty) {
            self.check_parts(name, &parts, if_unused, if_empty).await?;
        }
        let mut count: u64 = 0;
        // The one that has its name goes last: as long as it is there the queue is.
        for part in parts.iter().rev() {
            let deleted =
                self.upstream.request(async |it| it.queue_delete(part.clone(), options).await).await?;
            count = count.saturating_add(deleted.into());
            self.declared.remove_queue(part.as_str());
        }
        if let Some(store) = self.work_queues.store().filter(|_| self.work_queues.levels(name).is_some()) {
            store.forget(name).await?;
        }
        self.owners.queues.lock().remove(name);
        self.work_queues.forget(name);
        Ok(count)
    }

    /// Whether all of a queue may go: nothing of it is to go before that is known.
    async fn check_parts(
        &self,
        name: &str,
        parts: &[ShortString],
        if_unused: bool,
        if_empty: bool,
    ) -> Result<(), Refused> {
        for part in parts {
            let Some((messages, consumers)) = self.counts_of(part).await? else { continue };
            if if_unused && consumers > 0 {
                return Err(Refused::InUse { what: What::Queue, name: name.to_owned() });
            }
            if if_empty && messages > 0 {
                return Err(Refused::NotEmpty(name.to_owned()));
            }
        }
        Ok(())
    }

    pub(crate) async fn purge_queue(&self, name: &str) -> Result<u64, Refused> {
        let options = options::QueuePurgeOptions::default();
        let mut count: u64 = 0;
        for part in self.parts(name).await? {
            let asked = part.clone();
            match self.upstream.request(async |it| it.queue_purge(asked, options).await).await {
                Ok(purged) => count = count.saturating_add(purged.into()),
                Err(why) if why.is_missing() && part.as_str() != name => {}
                Err(why) => return Err(why),
            }
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

/// The highest level; none has the lowest alone.
fn highest_of(levels: Option<&Levels>) -> u8 {
    levels.map_or(0, Levels::highest)
}

/// Deletes queues of a client that has left.
pub(crate) async fn delete_left(
    upstream: Arc<Upstream>,
    work_queues: Arc<WorkQueues>,
    queues: Vec<ShortString>,
) {
    for queue in queues {
        let options = options::QueueDeleteOptions::default();
        let asked = queue.clone();
        if let Err(why) = upstream.request(async |it| it.queue_delete(asked, options).await).await {
            // When its connection is lost the broker deletes it by itself.
            tracing::debug!(%queue, %why, "the queue of a client that has left was not deleted");
        }
        work_queues.has_none(queue.as_str());
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

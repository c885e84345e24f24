//! The connections to the broker, and what all clients share.

use std::sync::Arc;

use lapin::types::ShortString;
use linkspan_contract::Clock;
use linkspan_embedded::Embedded;

use crate::clerk::Owners;
use crate::desk::Desk;
use crate::desk::coordinator::{self, Plan};
use crate::group::Groups;
use crate::options::AmqpOptions;
use crate::publisher::Publisher;
use crate::retained::Retained;
use crate::upstream::Upstream;
use crate::watch::Watch;
use crate::work_queue::WorkQueues;

/// What a client needs of its back end.
pub(crate) struct Fleet {
    pub(crate) name: Arc<str>,
    /// The name of this instance at the broker.
    pub(crate) instance: Arc<str>,
    pub(crate) options: Arc<AmqpOptions>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Connections that messages are published on, each with the channel that lanes share.
    pub(crate) publishing: Vec<(Arc<Upstream>, Publisher)>,
    /// Connections that everything else is done on.
    pub(crate) consuming: Vec<Arc<Upstream>>,
    pub(crate) owners: Arc<Owners>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) work_queues: Arc<WorkQueues>,
    /// Where topic filters are matched.
    pub(crate) inner: Arc<Embedded>,
    /// The namespace there.
    pub(crate) vhost: Arc<str>,
    pub(crate) watch: Watch,
    /// What addresses retain; none where that is in memory alone.
    pub(crate) retained: Option<Retained>,
}

impl Fleet {
    /// The connections for a new client: those that are there, else any, and of these those that fewest use.
    pub(crate) fn pick(&self) -> Option<(Arc<Upstream>, Arc<Upstream>, Publisher)> {
        let consuming = self.consuming.iter().min_by_key(|it| (it.is_down(), it.load()))?;
        let place = self.consuming.iter().position(|it| Arc::ptr_eq(it, consuming)).unwrap_or(0);
        let (publishing, publisher) = self.publishing.get(place).or_else(|| self.publishing.first())?;
        Some((Arc::clone(consuming), Arc::clone(publishing), publisher.clone()))
    }

    /// Where messages of the queue of that name are worked, when that is not at the broker. Who is `several` always works at a
    /// desk.
    pub(crate) async fn desk(&self, queue: &str, several: bool) -> Option<Arc<Desk>> {
        self.work_queues.known_levels(queue).await;
        self.work_queues.desk(queue, several, |terms, kind, levels| {
            let name = ShortString::try_new(queue).unwrap_or_default();
            let (clock, topic_exchange) = (Arc::clone(&self.clock), &self.options.topic_exchange);
            let of_route = (Arc::clone(terms), kind, levels);
            let desk = Arc::new(Desk::new(name, &self.name, topic_exchange, clock, of_route));
            // Each stays where it is; there are few.
            let place = usize::try_from(self.work_queues.number()).unwrap_or(0);
            let upstream = place.checked_rem(self.consuming.len()).and_then(|at| self.consuming.get(at));
            if let Some(upstream) = upstream {
                let (desk, upstream, clock) =
                    (Arc::clone(&desk), Arc::clone(upstream), Arc::clone(&self.clock));
                let work_queues = Arc::downgrade(&self.work_queues);
                coordinator::start(Plan { desk, upstream, clock, work_queues });
            }
            desk
        })
    }

    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.publishing.iter().map(|(upstream, _)| upstream).chain(&self.consuming)
    }
}

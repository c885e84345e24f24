//! What there is, for who operates it: queues with what they hold, and routes.

use std::sync::Arc;

use futures_util::future::join_all;
use linkspan_contract::QueueCounts;
use serde::Serialize;

use super::Hub;
use super::exclusive::Place;
use super::own_lane::OwnLane;
use super::queue_error::QueueError;
use crate::config::nearest;
use crate::routes::{Route, RouteTable};

/// What the names of queues begin with that are Linkspan's own.
const OWN: &str = "linkspan.";

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueState {
    /// Its name.
    pub name: Box<str>,
    /// The namespace.
    pub vhost: Box<str>,
    /// The back end that has it.
    pub backend: Box<str>,
    /// The pattern of its route; none when a client made it.
    pub pattern: Option<&'static str>,
    /// The match of its route.
    pub r#match: Option<Box<str>>,
    /// Messages that could be given out.
    pub ready: Option<u64>,
    /// Messages that it holds beside these, where its back end tells.
    pub unsettled: Option<u64>,
    /// Consumers that are given messages.
    pub consumers: Option<u32>,
    /// Whether it gives nothing out for now.
    pub paused: bool,
    /// Who has it alone, when somebody here does.
    pub holder: Option<HolderState>,
    /// The address of its dead letters.
    pub dead_letter: Option<Box<str>>,
    /// The queue that keeps them there.
    pub dead_letter_queue: Option<Box<str>>,
    /// Why its counts are not known.
    pub unknown: Option<String>,
}

/// Who has a queue alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HolderState {
    /// The client's identifier.
    pub client: Box<str>,
    /// Under which number.
    pub fence: u64,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteState {
    /// The addresses that it is for; none: all that no other one is for.
    pub r#match: Option<Box<str>>,
    /// The pattern that they follow.
    pub pattern: &'static str,
    /// The back end that holds them.
    pub backend: Box<str>,
    /// The queues that it owns.
    pub queues: Vec<Box<str>>,
    /// How an AMQP broker keeps them.
    pub queue_type: Option<&'static str>,
    /// What it says of its queues, for people.
    pub terms: Vec<String>,
    /// The address of its dead letters.
    pub dead_letter: Option<Box<str>>,
    /// Whether what is published is kept here while the back end is away.
    pub spooled: bool,
}

/// The routes of a vhost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoutesState {
    /// The namespace.
    pub vhost: Box<str>,
    /// In the order of the configuration; the last is for all else.
    pub routes: Vec<RouteState>,
    /// The same as a table, as at the start and from `linkspan check`.
    pub text: String,
}

impl RouteState {
    fn of(route: &Route) -> Self {
        Self {
            r#match: Some(route.filter.as_str().into()),
            pattern: route.pattern.name(),
            backend: (*route.backend).into(),
            queues: route.queues.iter().map(|queue| Box::from(&**queue)).collect(),
            queue_type: route.queue_type.map(|kind| kind.name()),
            terms: route.said(),
            dead_letter: route.dead_letter.clone(),
            spooled: route.spool.is_some(),
        }
    }
}

/// The queue that keeps the dead letters of a route.
pub(super) fn dead_letter_queue_of<'t>(
    table: &'t RouteTable,
    route: &Route,
) -> Option<(&'t Arc<Route>, &'t Arc<str>)> {
    let keeper = table.find(route.dead_letter.as_deref()?.as_bytes())?;
    Some((keeper, keeper.queues.first()?))
}

impl Hub {
    /// The routes of a vhost.
    pub fn routes_state(&self, vhost: &Arc<str>) -> RoutesState {
        let routes = self.routes();
        let mut state = RoutesState { vhost: (**vhost).into(), routes: Vec::new(), text: String::new() };
        if let Some(table) = routes.vhost(vhost) {
            state.routes.extend(table.iter().map(|route| RouteState::of(route)));
            state.routes.push(RouteState {
                r#match: None,
                pattern: crate::routes::Pattern::PublishSubscribe.name(),
                backend: (**table.home()).into(),
                queues: Vec::new(),
                queue_type: None,
                terms: Vec::new(),
                dead_letter: None,
                spooled: false,
            });
            state.text = format!("{table}\n");
        }
        state
    }

    /// All queues of a vhost that are known: those of routes in the order of these, then those that clients made, by name,
    /// where the home back end can list them.
    pub async fn queue_states(&self, vhost: &Arc<str>) -> Vec<QueueState> {
        let routes = self.routes();
        let Some(table) = routes.vhost(vhost) else { return Vec::new() };
        let owned = table
            .iter()
            .flat_map(|route| route.queues.iter().map(move |queue| self.state_of(table, queue, Some(route))));
        let mut states: Vec<_> = owned.collect();
        for queue in self.client_queues(table).await {
            states.push(self.state_of(table, &queue, None));
        }
        let mut backends: Vec<Arc<str>> = states.iter().map(|state| Arc::from(&*state.backend)).collect();
        backends.sort_unstable();
        backends.dedup();
        let counting = backends.iter().map(|backend| {
            let of_backend = states.iter().filter(|state| *state.backend == **backend);
            let names: Vec<Arc<str>> = of_backend.map(|state| Arc::from(&*state.name)).collect();
            async move { (backend, self.count(backend, vhost, &names).await) }
        });
        for (backend, counts) in join_all(counting).await {
            let of_backend = states.iter_mut().filter(|state| *state.backend == **backend);
            of_backend.zip(counts).for_each(|(state, counts)| state.is_counted(counts));
        }
        // One that its client has deleted meanwhile is none.
        states.retain(|state| state.pattern.is_some() || state.ready.is_some() || state.unknown.is_some());
        states
    }

    /// One queue of a vhost.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn queue_state(&self, vhost: &Arc<str>, queue: &str) -> Result<QueueState, QueueError> {
        let routes = self.routes();
        let Some(table) = routes.vhost(vhost) else {
            return Err(linkspan_contract::BackendError::UnknownVhost(vhost.to_string()).into());
        };
        let route = table.owner(queue);
        let mut state = self.state_of(table, queue, route);
        match self.look_into(vhost, queue).await {
            Ok((_, counts)) => state.is_counted(Ok(Some(counts))),
            Err(error @ QueueError::NotFound { .. }) => return Err(error),
            Err(error) if route.is_some() => state.unknown = Some(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(state)
    }

    /// Removes what is ready in a queue and tells how much.
    ///
    /// # Errors
    /// When there is no such queue, or its back end says no.
    pub async fn purge(&self, vhost: &Arc<str>, queue: &str) -> Result<u64, QueueError> {
        let (mut own, _) = self.look_into(vhost, queue).await?;
        let purged = own.lane.purge_queue(queue).await?;
        tracing::info!(%vhost, queue, purged, "the queue is purged");
        Ok(purged)
    }

    /// A lane of the hub's own on the back end that has a queue, and what that holds.
    pub(super) async fn look_into(
        &self,
        vhost: &Arc<str>,
        queue: &str,
    ) -> Result<(OwnLane, QueueCounts), QueueError> {
        let routes = self.routes();
        let Some(table) = routes.vhost(vhost) else {
            return Err(linkspan_contract::BackendError::UnknownVhost(vhost.to_string()).into());
        };
        let backend = table.owner(queue).map_or(table.home(), |route| &route.backend);
        let mut own = OwnLane::open(&**self.backend(backend)?, vhost).await?;
        match own.counts(queue).await? {
            Some(counts) => Ok((own, counts)),
            None => {
                let owned: Vec<Arc<str>> =
                    table.iter().flat_map(|route| route.queues.iter().cloned()).collect();
                let all: Vec<Arc<str>> = owned.into_iter().chain(self.client_queues(table).await).collect();
                let near = nearest(queue, all.iter().map(|name| &**name)).map(Arc::from);
                Err(QueueError::NotFound { vhost: Arc::clone(vhost), queue: queue.into(), near })
            }
        }
    }

    /// The queues that clients have made, by name, as far as the home back end can list them.
    async fn client_queues(&self, table: &RouteTable) -> Vec<Arc<str>> {
        let Ok(home) = self.backend(table.home()) else { return Vec::new() };
        let mut names = home.queues(table.vhost()).await.unwrap_or_default();
        names.retain(|name| table.owner(name).is_none() && !name.starts_with(OWN));
        names.sort_unstable();
        names
    }

    fn state_of(&self, table: &RouteTable, queue: &str, route: Option<&Arc<Route>>) -> QueueState {
        let vhost = table.vhost();
        let keeper = route.and_then(|route| dead_letter_queue_of(table, route));
        let backend = route.map_or(table.home(), |route| &route.backend);
        let place = Place { backend: Arc::clone(backend), vhost: Arc::clone(vhost), queue: queue.into() };
        QueueState {
            name: queue.into(),
            vhost: (**vhost).into(),
            backend: (**backend).into(),
            pattern: route.map(|route| route.pattern.name()),
            r#match: route.map(|route| route.filter.as_str().into()),
            ready: None,
            unsettled: None,
            consumers: None,
            paused: self.is_paused(vhost, queue),
            holder: self
                .exclusives
                .holder(&place)
                .map(|(client, fence)| HolderState { client: (*client).into(), fence }),
            dead_letter: route.and_then(|route| route.dead_letter.clone()),
            dead_letter_queue: keeper.map(|(_, queue)| Box::from(&**queue)),
            unknown: None,
        }
    }

    /// What queues of a back end hold, in their order. One that does not answer is not asked further.
    async fn count(
        &self,
        backend: &Arc<str>,
        vhost: &Arc<str>,
        names: &[Arc<str>],
    ) -> Vec<Result<Option<QueueCounts>, String>> {
        let mut found = Vec::with_capacity(names.len());
        let mut own: Option<OwnLane> = None;
        let mut away: Option<String> = None;
        for name in names {
            if let Some(why) = &away {
                found.push(Err(why.clone()));
                continue;
            }
            let counts = async {
                let mut lane = match own.take() {
                    Some(lane) => lane,
                    None => OwnLane::open(&**self.backend(backend)?, vhost).await?,
                };
                let counts = lane.counts(name).await?;
                own = counts.is_some().then_some(lane);
                Ok::<_, QueueError>(counts)
            };
            let counts = counts.await;
            if let Err(error) = &counts
                && matches!(
                    error,
                    QueueError::Backend(_) | QueueError::Refused(linkspan_contract::Refused::Away(_))
                )
            {
                away = Some(error.to_string());
            }
            found.push(counts.map_err(|error| error.to_string()));
        }
        found
    }
}

impl QueueState {
    fn is_counted(&mut self, counts: Result<Option<QueueCounts>, String>) {
        match counts {
            Ok(Some(counts)) => {
                self.ready = Some(counts.messages);
                self.unsettled = counts.unsettled;
                self.consumers = Some(counts.consumers);
            }
            Ok(None) if self.pattern.is_some() => self.unknown = Some("it is not made yet".into()),
            Ok(None) => {}
            Err(why) => self.unknown = Some(why),
        }
    }
}

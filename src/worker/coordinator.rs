//! Workers at work: from a queue to pushes, and from answers to settlements.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use linkspan_contract::deliveries::Next;
use linkspan_contract::receipt::WORDS;
use linkspan_contract::{BackendError, Credit, Delivery, Ended, Refused, Retry, Seq, Settlement};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Links, PushError};
use super::mood::Mood;
use super::target::Target;
use super::verdict::Verdict;
use crate::config::Worker;
use crate::doors::http::{Came, Payload, Way, headers};
use crate::doors::{Stop, Stopper};
use crate::hub::Hub;

/// How much longer than a push takes a message is the worker's alone.
const MARGIN: Duration = Duration::from_secs(10);

/// The pause before a queue that cannot be consumed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a back end may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long is waited when neither the worker nor the queue's route says so: longer each time.
const USUAL: Retry = Retry { delay: 1_000, factor: 200, max: 60_000 };

/// All workers that are at work.
pub struct Crew {
    hub: Arc<Hub>,
    working: Mutex<Vec<Working>>,
}

/// One of them; dropping it tells it to end.
struct Working {
    target: Arc<Target>,
    stopper: Stopper,
    task: JoinHandle<()>,
}

impl Crew {
    /// Nobody yet.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, working: Mutex::default() }
    }

    /// From now on these work: those that did already go on, others end when what they have pushed is answered.
    pub fn follow(&self, targets: Vec<Target>) {
        let mut working = self.working.lock();
        working.retain(|one| targets.iter().any(|target| target.is_same(&one.target)));
        for target in targets {
            if working.iter().any(|one| target.is_same(&one.target)) {
                continue;
            }
            let (stopper, stop) = Stop::new();
            let target = Arc::new(target);
            let links = Arc::new(Links::new(Arc::clone(&target)));
            let hand = Hand { hub: Arc::clone(&self.hub), target: Arc::clone(&target), links };
            let task = tokio::spawn(hand.run(stop));
            working.push(Working { target, stopper, task });
        }
    }

    /// Ends all, and returns when what they had pushed is answered, or after `within`: what is not comes again.
    pub async fn end(&self, within: Duration) {
        let working = std::mem::take(&mut *self.working.lock());
        let until = Instant::now() + within;
        working.iter().for_each(|one| one.stopper.stop());
        for Working { target, mut task, .. } in working {
            let left = until.saturating_duration_since(Instant::now());
            if timeout(left, &mut task).await.is_err() {
                tracing::warn!(queue = %target.worker.queue, "a push was not answered in {within:?}; its message comes again");
                task.abort();
            }
        }
    }
}

/// What a server said to a push.
type Answer = Result<(StatusCode, Verdict), PushError>;

/// A push under way, and what is pushed.
type Push = Pin<Box<dyn Future<Output = (Delivery, Answer)> + Send>>;

/// Whether a server is there again.
type Reach = Pin<Box<dyn Future<Output = Result<(), PushError>> + Send>>;

/// Why a way to the queue was given up, to be tried anew.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the back end does not answer")]
    Silent,
    #[error("the way to the back end was lost")]
    Lost,
    #[error("the queue was deleted")]
    Deleted,
    #[error("another consumer holds the queue now")]
    Superseded,
    #[error("routes were changed")]
    Rerouted,
    #[error("the back end is away")]
    Away,
}

impl From<Ended> for Stopped {
    fn from(why: Ended) -> Self {
        match why {
            Ended::QueueDeleted => Self::Deleted,
            Ended::Superseded => Self::Superseded,
            Ended::RouteChanged => Self::Rerouted,
            Ended::Away | Ended::LimitExceeded { .. } => Self::Away,
        }
    }
}

enum Happened {
    Stopped,
    Answered(Option<(Delivery, Answer)>),
    Came(Came),
    Reached(Result<(), PushError>),
    Time,
}

/// A worker on its feet.
struct Hand {
    hub: Arc<Hub>,
    target: Arc<Target>,
    links: Arc<Links>,
}

impl Hand {
    async fn run(self, stop: Stop) {
        let Worker { queue, vhost, .. } = &self.target.worker;
        let place = self.target.worker.place();
        let mut told = None;
        while !stop.is_wanted() {
            let mut shift = Shift::new(&self, told.is_some());
            let Err(why) = shift.work(&stop).await else { return };
            let why = why.to_string();
            if shift.is_at_work || told.as_ref() != Some(&why) {
                tracing::warn!(%queue, %vhost, place, why, "a worker has no queue, and tries again each second");
            }
            told = Some(why);
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.wanted() => return,
            }
        }
    }

    /// How long a message waits that was given out `attempts` times and not taken: the queue itself knows where its route
    /// says so.
    fn wait(&self, attempts: u32) -> u64 {
        let Worker { queue, vhost, retry, .. } = &self.target.worker;
        if let Some(retry) = retry {
            return retry.after(attempts);
        }
        let routes = self.hub.routes();
        let route = routes.vhost(vhost).and_then(|of_vhost| of_vhost.owner(queue));
        let is_said = route.is_some_and(|route| route.terms.retry.is_some());
        if is_said { 0 } else { USUAL.after(attempts) }
    }

    fn push(&self, delivery: Delivery) -> Push {
        let message = delivery.message.clone();
        let mut headers = headers(&message, delivery.age, delivery.attempt);
        for (name, value) in &self.target.worker.headers {
            headers.insert(name, value.clone());
        }
        let mut request = Request::new(Body::from_stream(Payload::new(message, || {})));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path.clone();
        *request.headers_mut() = headers;
        let links = Arc::clone(&self.links);
        Box::pin(async move {
            let answer = links.push(request).await;
            let now = SystemTime::now();
            let answer = answer.map(|(status, headers)| (status, Verdict::of(status, &headers, now)));
            (delivery, answer)
        })
    }

    fn reach(&self) -> Reach {
        let links = Arc::clone(&self.links);
        Box::pin(async move { links.reach().await })
    }
}

/// A worker from the moment that it has a way to its queue until that is lost.
struct Shift<'a> {
    hand: &'a Hand,
    mood: Mood,
    /// What goes back as soon as the queue is not consumed any more: before, this worker would be given it again.
    held: Vec<(Delivery, Settlement)>,
    stopping: bool,
    next_word: Seq,
    /// How many settlements are not known to be safe, of those whose word is waited for.
    awaited: u64,
    /// Whether it has the queue, or had.
    is_at_work: bool,
    /// Whether it was said that it has not.
    was_told: bool,
}

impl<'a> Shift<'a> {
    fn new(hand: &'a Hand, was_told: bool) -> Self {
        Self {
            hand,
            mood: Mood::new(hand.target.worker.retry.unwrap_or(USUAL)),
            held: Vec::new(),
            stopping: false,
            next_word: WORDS,
            awaited: 0,
            is_at_work: false,
            was_told,
        }
    }

    /// Pushes until it is told to stop.
    async fn work(&mut self, stop: &Stop) -> Result<(), Stopped> {
        let mut stopped = stop.wanted();
        let mut way = tokio::select! {
            way = self.open() => way?,
            () = &mut stopped => return Ok(()),
        };
        let mut pushes: FuturesUnordered<Push> = FuturesUnordered::new();
        let mut reach: Option<Reach> = None;
        let mut consumes = false;
        let mut ended = None;
        loop {
            way.follow().await;
            let words: u64 = way.ear.words().iter().map(|told| u64::from(told.count)).sum();
            self.awaited = self.awaited.saturating_sub(words);
            if way.ear.is_over() {
                return Err(Stopped::Lost);
            }
            self.mood.pass(Instant::now());
            let may_take = !self.stopping && ended.is_none() && self.mood.is_well();
            if may_take && !consumes {
                self.consume(&mut way).await?;
                consumes = true;
            } else if consumes && !may_take {
                // Others are not to wait for what it would be sent meanwhile.
                way.leave().await?;
                consumes = false;
            }
            if !consumes {
                let held = std::mem::take(&mut self.held);
                held.into_iter().for_each(|(delivery, outcome)| self.settle(delivery, outcome));
            }
            if pushes.is_empty() {
                way.settle();
                if let Some(why) = ended {
                    return Err(Stopped::from(why));
                }
                if self.stopping && self.awaited == 0 {
                    return Ok(());
                }
            }
            if !self.stopping && reach.is_none() && self.mood.has_to_look() {
                reach = Some(self.hand.reach());
            }
            let due = self.mood.until();
            let happened = tokio::select! {
                biased;
                () = &mut stopped, if !self.stopping => Happened::Stopped,
                answered = pushes.next(), if !pushes.is_empty() => Happened::Answered(answered),
                came = way.listen() => Happened::Came(came),
                reached = reached(&mut reach) => Happened::Reached(reached),
                () = until(due) => Happened::Time,
            };
            match happened {
                Happened::Stopped => self.stopping = true,
                Happened::Answered(Some((delivery, answer))) => self.judge(delivery, &answer),
                // It came behind the end of the consumer, and is nobody's to push now.
                Happened::Came(Came::Next(Next::Delivery(delivery))) if !consumes => {
                    delivery.settle(Settlement::Undo);
                }
                Happened::Came(Came::Next(Next::Delivery(delivery))) => pushes.push(self.hand.push(delivery)),
                Happened::Came(Came::Next(Next::Ended(_, why))) => {
                    // What is pushed already may still be settled.
                    consumes = false;
                    ended = Some(why);
                }
                Happened::Reached(reached) => {
                    reach = None;
                    self.mood.looked(reached.is_ok(), Instant::now());
                }
                Happened::Came(Came::Next(Next::Dropped(_)) | Came::Told)
                | Happened::Answered(None)
                | Happened::Time => {}
            }
        }
    }

    async fn open(&self) -> Result<Way, Stopped> {
        let Worker { vhost, concurrency, .. } = &self.hand.target.worker;
        let window = Arc::new(Credit::new(concurrency.get().into()));
        let opened = Way::open(&*self.hand.hub, vhost, "worker", "worker".into(), window);
        Ok(timeout(PATIENCE, opened).await.map_err(|_| Stopped::Silent)??)
    }

    async fn consume(&mut self, way: &mut Way) -> Result<(), Stopped> {
        let Worker { queue, vhost, timeout: push, .. } = &self.hand.target.worker;
        let begun = way.consume(queue, push.saturating_add(MARGIN));
        timeout(PATIENCE, begun).await.map_err(|_| Stopped::Silent)??;
        if self.was_told && !self.is_at_work {
            tracing::info!(%queue, %vhost, "a worker has its queue");
        }
        self.is_at_work = true;
        Ok(())
    }

    /// Settles what was pushed, and stands still if need be.
    fn judge(&mut self, delivery: Delivery, answer: &Answer) {
        let Worker { queue, .. } = &self.hand.target.worker;
        let now = Instant::now();
        let is_lost = delivery.message.body().is_some_and(|body| body.is_lost());
        let counted = match answer {
            Ok((_, Verdict::Accept)) => "accepted",
            Ok((_, Verdict::Reject)) => "rejected",
            Ok((_, Verdict::Again)) => "failed",
            Ok((_, Verdict::Later(_))) => "slowed",
            Err(PushError::Unreachable(_)) => "unreachable",
            Err(_) if is_lost => "rejected",
            Err(_) => "failed",
        };
        metrics::counter!("linkspan_worker_pushes_total", "queue" => queue.to_string(), "outcome" => counted)
            .increment(1);
        self.say(counted, answer);
        match answer {
            Ok((_, Verdict::Later(wait))) => self.mood.slow(*wait, now),
            Err(PushError::Unreachable(_)) => self.mood.miss(now),
            Ok(_) => self.mood.answered(),
            Err(_) => {}
        }
        let outcome = match (counted, answer) {
            ("accepted", _) => Settlement::Accept,
            ("rejected", _) => Settlement::Reject(None),
            ("failed", _) => {
                Settlement::Release { delay: self.hand.wait(delivery.attempt.saturating_add(1)) }
            }
            ("unreachable", _) => return self.held.push((delivery, Settlement::Undo)),
            _ => return self.held.push((delivery, Settlement::Release { delay: 0 })),
        };
        self.settle(delivery, outcome);
    }

    /// For people: when it changes how pushes go.
    fn say(&mut self, counted: &'static str, answer: &Answer) {
        let changed = self.mood.goes(counted);
        let Worker { queue, .. } = &self.hand.target.worker;
        let place = self.hand.target.worker.place();
        let answer = match answer {
            Ok((status, _)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        match counted {
            _ if !changed => tracing::debug!(%queue, place, answer, "a push {counted}"),
            "accepted" => tracing::info!(%queue, place, "a worker's server takes messages"),
            "rejected" => {
                tracing::warn!(%queue, place, answer, "a worker's server rejects a message: it is a dead letter")
            }
            "failed" => tracing::warn!(%queue, place, answer, "a push failed; its message comes again"),
            "slowed" => {
                tracing::warn!(%queue, place, answer, "a worker stands still: its server asks for time")
            }
            _ => tracing::warn!(%queue, place, answer, "a worker stands still: its server is not to be had"),
        }
    }

    /// While it stops, it waits for the word that what it said last is safe.
    fn settle(&mut self, delivery: Delivery, outcome: Settlement) {
        if !self.stopping {
            return delivery.settle(outcome);
        }
        let word = self.next_word;
        self.next_word = self.next_word.saturating_add(1);
        self.awaited = self.awaited.saturating_add(1);
        delivery.settle_under(outcome, word);
    }
}

async fn reached(reach: &mut Option<Reach>) -> Result<(), PushError> {
    match reach {
        Some(reach) => reach.await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

//! A desk at work: it takes messages from a queue for those who wait, and settles what they say. One task serves all
//! clients of a queue.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use linkspan_contract::deliveries::Next;
use linkspan_contract::neutral::NEUTRAL;
use linkspan_contract::receipt::WORDS;
use linkspan_contract::{Credit, Delivery, Kept, Outcome, OwnedBatch, Refused, Seq, Settlement};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::ask::{Ask, Counted, Grip, Leased, Wish};
use super::desk::{Desk, Over};
use super::register::{Place, Register, Seat};
use super::request::Leaving;
use super::shelf::Shelf;
use super::telling::Asked;
use crate::doors::Stop;
use crate::doors::http::Shared;
use crate::doors::http::translate::Problem;
use crate::doors::http::way::{Came, Way, millis};
use crate::hub::Hub;

/// How long a lease lasts when neither its request nor the queue's route says so.
const USUAL: Duration = Duration::from_secs(30);

/// How long a queue is still consumed when nobody waits any more: the same client asks again soon, and what a broker has
/// sent ahead is kept from others meanwhile.
const LINGER: Duration = Duration::from_millis(250);

/// The same where one consumer at a time has the queue: it is to stay the one while it works.
const HOLD: Duration = Duration::from_secs(30);

/// How long the way to an unused queue is kept.
const KEPT: Duration = Duration::from_secs(10);

/// How long a back end may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long who does not wait waits all the same: a broker has to be asked.
const MOMENT: Duration = Duration::from_millis(250);

/// How often a request looks for another desk when its own has just closed.
const TRIES: usize = 3;

/// Waits for a message of a queue; none when nothing came in time.
///
/// # Errors
/// When there are too many leases, or the queue cannot be consumed.
pub(super) async fn take(
    shared: &Shared,
    user: &Arc<str>,
    queue: &str,
    wait: Duration,
    lasts: Option<Duration>,
) -> Result<Option<Leased>, Problem> {
    let until = Instant::now() + wait.max(MOMENT);
    let is_alone = route_of(&shared.hub, &shared.vhost, queue, |route| route.exclusive.is_some());
    let user_alone = is_alone.unwrap_or(false).then(|| Arc::clone(user));
    let place = Place { queue: queue.into(), user: user_alone };
    for _ in 0..TRIES {
        let seat = shared.leases.sit(user)?;
        let desk = shared.leases.desk(&place, |asks, me| {
            tokio::spawn(Keeper::new(shared, place.clone(), asks, me).run());
        });
        let (reply, answer) = oneshot::channel();
        let number = shared.leases.arrive();
        let wish = Wish { user: Arc::clone(user), lasts, seat, reply, counted: Counted::new() };
        if desk.send(Ask::Wait { number, wish, until }).is_err() {
            continue;
        }
        let _leaving = Leaving { desk, number };
        if let Ok(answer) = answer.await {
            return answer;
        }
    }
    Err(Refused::Away(queue.into()).into())
}

/// What `of` says of the route that owns a queue.
fn route_of<T>(hub: &Hub, vhost: &str, queue: &str, of: impl FnOnce(&crate::hub::Route) -> T) -> Option<T> {
    let routes = hub.routes();
    routes.vhost(vhost)?.owner(queue).map(|route| of(route))
}

/// What is out: the delivery, and its place among the leases.
pub(super) struct Out {
    pub(super) delivery: Delivery,
    _seat: Seat,
}

enum Happened {
    Stopped,
    Asked(Option<Ask>),
    Came(Came),
    Time,
}

pub(super) struct Keeper {
    pub(super) hub: Arc<Hub>,
    pub(super) vhost: Arc<str>,
    pub(super) register: Weak<Register>,
    pub(super) place: Place,
    pub(super) asks: mpsc::UnboundedReceiver<Ask>,
    pub(super) me: mpsc::WeakUnboundedSender<Ask>,
    pub(super) stop: Stop,
    pub(super) desk: Desk<Wish, Out>,
    pub(super) credit: Arc<Credit>,
    pub(super) way: Option<Way>,
    /// How long a delivery lasts by itself, while the queue is consumed.
    pub(super) consumes: Option<Duration>,
    pub(super) asked: HashMap<Seq, Asked>,
    pub(super) next_word: Seq,
    /// What came when nobody waited for it any more.
    pub(super) shelf: Shelf,
    /// Since when nobody waits.
    pub(super) idle: Option<Instant>,
    /// What was released waits until then at the latest; a back end may have it wait at the way by which it was given.
    pub(super) released: Option<Instant>,
    /// Stands in the place of messages that their clients have.
    pub(super) nothing: Kept,
}

impl Keeper {
    fn new(
        shared: &Shared,
        place: Place,
        asks: mpsc::UnboundedReceiver<Ask>,
        me: mpsc::WeakUnboundedSender<Ask>,
    ) -> Self {
        let nothing = OwnedBatch::new(Box::default(), Box::default(), None, &NEUTRAL);
        Self {
            hub: Arc::clone(&shared.hub),
            vhost: Arc::clone(&shared.vhost),
            register: Arc::downgrade(&shared.leases),
            place,
            asks,
            me,
            stop: shared.stop.clone(),
            desk: Desk::new(),
            credit: Arc::new(Credit::new(0)),
            way: None,
            consumes: None,
            asked: HashMap::new(),
            next_word: WORDS,
            shelf: Shelf::default(),
            idle: None,
            released: None,
            nothing: Kept { batch: nothing, at: 0 },
        }
    }

    async fn run(mut self) {
        let mut stopped = self.stop.wanted();
        let mut stopping = false;
        loop {
            self.heed().await;
            let now = Instant::now();
            while let Some(over) = self.desk.fall_due(now) {
                self.end(over);
            }
            if stopping {
                self.dismiss(|| Ok(None));
            }
            if self.desk.waiting() > 0
                && let Err(problem) = self.consume().await
            {
                self.dismiss(|| Err(problem.clone()));
            }
            let due = self.rest(Instant::now(), stopping).await;
            if self.way.is_none() && self.desk.waiting() == 0 && self.closes() {
                return;
            }
            self.credit.set_limit(self.desk.window().saturating_add(self.shelf.len()));
            let due = due.into_iter().chain(self.desk.next_due()).min();
            let happened = tokio::select! {
                biased;
                () = &mut stopped, if !stopping => Happened::Stopped,
                ask = self.asks.recv() => Happened::Asked(ask),
                came = listen(&mut self.way) => Happened::Came(came),
                () = until(due) => Happened::Time,
            };
            match happened {
                Happened::Stopped => stopping = true,
                Happened::Asked(None) => return,
                Happened::Asked(Some(ask)) => self.answer(ask),
                Happened::Came(Came::Next(Next::Delivery(delivery))) => {
                    let waited = !self.shelf.is_empty();
                    self.shelve(delivery, waited);
                }
                Happened::Came(Came::Next(Next::Ended(_, why))) => {
                    self.consumes = None;
                    self.shelf.clear();
                    self.dismiss(|| Err(Problem::ended(why)));
                }
                Happened::Came(Came::Next(Next::Dropped(_)) | Came::Told) | Happened::Time => {}
            }
        }
    }

    /// Deals with what the back end has told.
    async fn heed(&mut self) {
        let Some(way) = &mut self.way else { return };
        // Who does not answer in time is asked again when it tells of the next change.
        let _ = timeout(PATIENCE, way.follow()).await;
        let ear = Arc::clone(&way.ear);
        for told in ear.words() {
            for word in told.first..told.first.saturating_add(told.count.into()) {
                self.tell(word, &told.outcome);
            }
        }
        if ear.is_over() {
            self.lose();
        }
    }

    fn end(&mut self, over: Over<Wish, Out>) {
        match over {
            Over::Waiting(wish) => drop(wish.reply.send(Ok(None))),
            Over::Lease(lease, out) => {
                self.forget(lease);
                metrics::counter!("linkspan_leases_over_total", "how" => "ran-out").increment(1);
                // If the back end has it back by itself, this only makes room in the window.
                out.delivery.settle(Settlement::Release { delay: 0 });
            }
        }
    }

    /// Has the queue consumed.
    async fn consume(&mut self) -> Result<(), Problem> {
        if self.consumes.is_some() {
            return Ok(());
        }
        let begun = timeout(PATIENCE, self.begin()).await;
        begun.unwrap_or_else(|_| Err(Refused::Away(self.place.queue.to_string()).into()))
    }

    async fn begin(&mut self) -> Result<(), Problem> {
        let usual = route_of(&self.hub, &self.vhost, &self.place.queue, |route| route.terms.ack_timeout);
        let usual = usual.flatten().map_or(USUAL, Duration::from_millis);
        let way = match &mut self.way {
            Some(way) => way,
            None => {
                let window = Arc::clone(&self.credit);
                let user = self.place.user.clone().unwrap_or_else(|| "http".into());
                self.way.insert(Way::open(&*self.hub, &self.vhost, "http-leases", user, window).await?)
            }
        };
        way.consume(&self.place.queue, usual).await?;
        self.consumes = Some(usual);
        Ok(())
    }

    /// Lets go of what is not used any more; says when to look again.
    async fn rest(&mut self, now: Instant, stopping: bool) -> Option<Instant> {
        if self.desk.waiting() > 0 {
            self.idle = None;
            return None;
        }
        let since = *self.idle.get_or_insert(now);
        let is_unused = self.desk.out() == 0 && self.asked.is_empty();
        let linger = since + LINGER;
        if now < linger && !stopping && self.consumes.is_some() {
            return Some(linger);
        }
        if self.consumes.is_some() {
            let end = match &self.place.user {
                None => linger,
                Some(_) if is_unused => since + HOLD,
                Some(_) => {
                    self.shelf.clear();
                    return None;
                }
            };
            if now < end && !stopping {
                self.shelf.clear();
                return Some(end);
            }
            self.consumes = None;
            let way = self.way.as_mut()?;
            match timeout(PATIENCE, way.leave()).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => {
                    tracing::debug!(queue = %self.place.queue, %why, "a queue is not consumed any more")
                }
                Err(_) => {
                    tracing::debug!(queue = %self.place.queue, "the back end does not say that it has stopped")
                }
            }
        }
        self.shelf.clear();
        let way = self.way.as_mut()?;
        way.settle();
        if !is_unused {
            return None;
        }
        let end = self.released.map_or(since + KEPT, |released| released.max(since + KEPT));
        if now < end && !stopping {
            return Some(end);
        }
        self.way = None;
        self.released = None;
        None
    }

    /// Whether this desk is not needed any more.
    fn closes(&self) -> bool {
        self.register.upgrade().is_none_or(|register| register.close(&self.place, &self.asks))
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Wait { number, wish, until } => {
                self.desk.wait(number, wish, until);
                self.serve(true);
            }
            Ask::Leave(number) => drop(self.desk.leave(number)),
            Ask::Unread { lease, message } => {
                if let Some(Out { mut delivery, .. }) = self.desk.take(lease) {
                    self.forget(lease);
                    delivery.message = message;
                    self.shelve(delivery, true);
                }
            }
            Ask::Settle { lease, outcome, reply } => self.settle(lease, outcome, reply),
        }
    }

    fn settle(&mut self, lease: u64, outcome: Settlement, reply: Option<oneshot::Sender<Outcome>>) {
        let word = self.next_word;
        self.next_word = self.next_word.saturating_add(1);
        if let Settlement::Release { delay } = outcome {
            let until = Instant::now().checked_add(Duration::from_millis(delay));
            self.released = self.released.max(until);
        }
        let found = if let Settlement::Extend(by) = outcome {
            let until = Instant::now() + Duration::from_millis(by);
            self.desk
                .extend(lease, until)
                .map(|out| out.delivery.extend(by, Some(word)))
                .map(|()| Some(lease))
        } else {
            self.desk.take(lease).map(|out| {
                self.forget(lease);
                let how = match &outcome {
                    Settlement::Accept => "accepted",
                    Settlement::Reject(_) => "rejected",
                    _ => "released",
                };
                metrics::counter!("linkspan_leases_over_total", "how" => how).increment(1);
                out.delivery.settle_under(outcome, word);
                None
            })
        };
        match (found, reply) {
            (Some(goes_on), reply) => drop(self.asked.insert(word, Asked { reply, goes_on })),
            (None, Some(reply)) => drop(reply.send(Outcome::Refused(Refused::Late))),
            (None, None) => {}
        }
    }

    /// A message has come, or come back; its lease begins when it is given out, if it has `waited`.
    fn shelve(&mut self, delivery: Delivery, waited: bool) {
        self.shelf.put(delivery);
        match self.consumes {
            Some(_) => self.serve(waited),
            // It was on its way when the queue was left.
            None => self.shelf.clear(),
        }
    }

    /// Gives what is here to those who wait. It may have `waited` for them, whose leases begin now.
    fn serve(&mut self, waited: bool) {
        while let Some(delivery) = self.shelf.take() {
            if let Some(delivery) = self.hand_out(delivery, waited) {
                return self.shelf.put(delivery);
            }
        }
    }

    /// Gives a message to who has waited longest; yields it when nobody waits any more.
    fn hand_out(&mut self, mut delivery: Delivery, waited: bool) -> Option<Delivery> {
        let usual = self.consumes.unwrap_or(USUAL);
        while let Some(wish) = self.desk.next() {
            let Wish { user, lasts, seat, reply, counted } = wish;
            drop(counted);
            if reply.is_closed() {
                continue;
            }
            let (Some(register), Some(me)) = (self.register.upgrade(), self.me.upgrade()) else {
                return Some(delivery);
            };
            let name = register.issue(&user, me.clone());
            let lasts = lasts.unwrap_or(usual);
            if waited || lasts != usual {
                delivery.extend(millis(lasts), None);
            }
            let message = std::mem::replace(&mut delivery.message, self.nothing.clone());
            let (age, attempt) = (delivery.age, delivery.attempt);
            self.desk.give(name.number, Out { delivery, _seat: seat }, Instant::now() + lasts);
            let grip = Grip::on(name.number, message, me);
            let leased = Leased { name, age, attempt, lasts, grip };
            match reply.send(Ok(Some(leased))) {
                Ok(()) => {
                    metrics::counter!("linkspan_messages_out_total", "door" => "http").increment(1);
                    return None;
                }
                Err(unread) => {
                    register.forget(name.number);
                    delivery = self.desk.take(name.number)?.delivery;
                    if let Ok(Some(mut leased)) = unread {
                        leased.grip.open();
                        delivery.message = leased.grip.begin()?;
                    }
                }
            }
        }
        Some(delivery)
    }
}

/// What comes by the way, if there is one.
async fn listen(way: &mut Option<Way>) -> Came {
    match way {
        Some(way) => way.listen().await,
        None => std::future::pending().await,
    }
}

fn until(due: Option<Instant>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match due {
        Some(due) => Box::pin(sleep_until(due)),
        None => Box::pin(std::future::pending()),
    }
}

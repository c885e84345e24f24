//! What a client subscribes to: from SUBSCRIBE to SUBACK, and the retained messages behind it.

use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use linkspan_contract::address::is_topic;
use linkspan_contract::backend::Retained;
use linkspan_contract::{Credit, Flags, Lane, Refused, Settle, Source, SubscriptionKey, Wishes};
use smallvec::SmallVec;

use super::deliveries::{Deliveries, Subscribed};
use super::ending::Ending;
use super::filters::{Filters, Held};
use super::record::Line;
use super::selector::select;
use super::session::Session;
use super::translate::delivery::Terms;
use super::translate::{replay_of, settle, subscribe_reason};
use crate::doors::outbound::Guard;
use crate::protocol::mqtt::{
    Packet, Qos, ReasonCode, RetainHandling, Suback, Subscribe, SubscriptionOptions, Unsuback, Unsubscribe,
    UserProperties,
};

/// What a client asks the back end for.
#[derive(Debug)]
pub(super) enum Request {
    /// SUBSCRIBE
    Subscribe {
        packet_id: NonZeroU16,
        identifier: Option<NonZeroU32>,
        entries: Vec<(Box<str>, SubscriptionOptions)>,
    },
    /// UNSUBSCRIBE
    Unsubscribe { packet_id: NonZeroU16, filters: Vec<Box<str>> },
}

/// What a client is subscribed to.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) held: Filters,
    /// The number of the next one: no other has it again, for what is unacknowledged may outlive its subscription.
    pub(super) next: u32,
    /// Retained messages that wait until the client has room; most never do.
    #[allow(clippy::box_collection, reason = "idle clients hold one word instead of four")]
    waiting: Option<Box<VecDeque<Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    retained: Retained,
    number: u32,
    qos: Qos,
    /// A back end keeps it, not the hub.
    elsewhere: bool,
}

/// A subscription that was just made, or changed.
#[derive(Debug)]
struct Made {
    filter: Box<str>,
    subscribed: Subscribed,
    qos: Qos,
    /// It has still to be started.
    start: bool,
    /// The retained messages that match are sent.
    replay: bool,
}

/// Why a filter was not subscribed to.
struct Failure {
    reason: ReasonCode,
    text: String,
}

impl Subscriptions {
    /// Makes a subscription that was written down, to be started.
    pub(super) async fn take_up(
        &mut self,
        line: &Line,
        qos: Qos,
        levels: usize,
        lane: &mut dyn Lane,
        credit: Option<Arc<Credit>>,
    ) -> Result<Held, Refused> {
        let source = select(&line.filter, levels).map_err(|why| Refused::FilterInvalid(why.to_string()))?;
        let mut how = linkspan_contract::Subscribe::new(settle(qos));
        (how.no_local, how.exactly_once) = (line.no_local, qos == Qos::ExactlyOnce);
        lane.subscribe(&source, key(line.number), &how, credit).await?;
        let held = Held {
            number: line.number,
            qos,
            no_local: line.no_local,
            retain_as_published: line.retain_as_published,
            identifier: line.identifier,
        };
        self.held.insert(line.filter.clone(), held);
        Ok(held)
    }

    /// Retained messages for a subscription are not sent any more.
    fn forget_waiting(&mut self, number: u32) {
        if let Some(queue) = &mut self.waiting {
            queue.retain(|waiting| waiting.number != number);
        }
        self.waiting.take_if(|queue| queue.is_empty());
    }
}

impl Request {
    /// That of a SUBSCRIBE.
    pub(super) fn subscribe(subscribe: &Subscribe<'_>) -> Self {
        Self::Subscribe {
            packet_id: subscribe.packet_id,
            identifier: subscribe.subscription_identifier,
            entries: subscribe
                .subscriptions
                .iter()
                .map(|subscription| (subscription.filter.into(), subscription.options))
                .collect(),
        }
    }

    /// That of an UNSUBSCRIBE.
    pub(super) fn unsubscribe(unsubscribe: &Unsubscribe<'_>) -> Self {
        let filters = unsubscribe.filters.iter().map(Box::from).collect();
        Self::Unsubscribe { packet_id: unsubscribe.packet_id, filters }
    }
}

pub(super) const fn key(number: u32) -> SubscriptionKey {
    SubscriptionKey { subscription: number, part: 0 }
}

impl Session {
    /// Has what the back end's session is given delivered from [`Session::begin`] on.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn take_up(&mut self) -> Result<(), Refused> {
        let number = self.subscriptions.next;
        let how = linkspan_contract::Subscribe::new(Settle::AsPublished);
        let credit = Some(Arc::clone(&self.credit));
        self.lane.subscribe(&Source::Session, key(number), &how, credit).await?;
        self.subscriptions.next += 1;
        let subscribed =
            Subscribed { number, identifier: None, exactly_once: false, retain_as_published: true };
        self.sink.outbound.lock().state().subscribe(subscribed);
        Ok(())
    }

    /// The client is welcomed: what its session was given meanwhile may follow.
    pub(super) fn begin(&mut self) {
        self.lane.start(key(0));
        self.lane.flush();
    }

    /// Carries a request out and answers it.
    ///
    /// # Errors
    /// When the answer is larger than the client takes.
    pub(super) async fn carry_out(&mut self, request: Request) -> Result<(), Ending> {
        match request {
            Request::Subscribe { packet_id, identifier, entries } => {
                self.subscribe(packet_id, identifier, entries).await?;
            }
            Request::Unsubscribe { packet_id, filters } => self.unsubscribe(packet_id, &filters).await?,
        }
        self.sink.outbound.flush();
        self.lane.flush();
        Ok(())
    }

    async fn subscribe(
        &mut self,
        packet_id: NonZeroU16,
        identifier: Option<NonZeroU32>,
        entries: Vec<(Box<str>, SubscriptionOptions)>,
    ) -> Result<(), Ending> {
        let mut reasons = SmallVec::new();
        let mut text = String::new();
        let mut made = Vec::with_capacity(entries.len());
        for (filter, options) in entries {
            match self.make(filter, options, identifier).await {
                Ok(one) => {
                    reasons.push(granted(one.qos));
                    made.push(one);
                }
                Err(failure) => {
                    reasons.push(failure.reason);
                    text.push_str(if text.is_empty() { "" } else { "; " });
                    text.push_str(&failure.text);
                }
            }
        }
        self.write_down().await?;
        let reason_string =
            Some(&*text).filter(|text| !text.is_empty() && self.agreement.problem_information);
        let suback = Suback { packet_id, reason_string, user_properties: UserProperties::NONE, reasons };
        self.answer(&Packet::Suback(suback), |deliveries| {
            made.iter().for_each(|one| deliveries.subscribe(one.subscribed));
        })?;
        for one in made {
            // The client may have its SUBACK by now: what is published from then on is its.
            if one.replay {
                // Before it starts: what it is given from then on is newer than what is asked for.
                self.sink.outbound.lock().state().overtaking().ask(one.subscribed.number);
            }
            if one.start {
                self.lane.start(key(one.subscribed.number));
            }
            if one.replay {
                let elsewhere = self.retained_elsewhere(&one.filter).await;
                self.replay_for(&one, elsewhere);
            }
        }
        Ok(())
    }

    /// Appends an answer under one lock with what comes into force with it.
    fn answer(&self, packet: &Packet<'_>, into_force: impl FnOnce(&mut Deliveries)) -> Result<(), Ending> {
        let mut guard = self.sink.outbound.lock();
        let (deliveries, out) = guard.parts();
        let result = packet.encode_within(self.agreement.maximum, self.agreement.version, out);
        into_force(deliveries);
        guard.appended();
        result.map_err(Ending::from)
    }

    /// Makes a subscription that gives nothing yet, or says how an old one changes. One that takes another's place has
    /// its number: no message is lost in between [MQTT-3.8.4-4], and none is sent twice.
    async fn make(
        &mut self,
        filter: Box<str>,
        options: SubscriptionOptions,
        identifier: Option<NonZeroU32>,
    ) -> Result<Made, Failure> {
        let source = select(&filter, self.limits.filter_levels).map_err(|unselectable| Failure {
            reason: ReasonCode::TopicFilterInvalid,
            text: unselectable.to_string(),
        })?;
        // Where the session is the back end's, QoS 2 ends here.
        let qos = if self.kept { options.qos.min(Qos::AtLeastOnce) } else { options.qos };
        let before = self.subscriptions.held.get(&filter);
        let copies = matches!(source, Source::Filter(_));
        let replay = copies
            && match options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => before.is_none(),
                RetainHandling::DoNotSend => false,
            };
        let held = |number| Held {
            number,
            qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            identifier,
        };
        if let Some(before) = before
            && !self.kept
            && before.qos == qos
            && before.no_local == options.no_local
        {
            let held = held(before.number);
            self.subscriptions.held.insert(filter.clone(), held);
            return Ok(Made { filter, subscribed: held.subscribed(), qos, start: false, replay });
        }
        if before.is_none() && self.subscriptions.held.len() >= self.limits.subscriptions {
            let text = format!("a connection may have {} subscriptions", self.limits.subscriptions);
            return Err(Failure { reason: ReasonCode::QuotaExceeded, text });
        }
        if before.is_none() && !self.may_be_written_down(&filter) {
            let text =
                "the subscriptions of a session that is kept are more than its record has room for".into();
            return Err(Failure { reason: ReasonCode::QuotaExceeded, text });
        }
        let number = before.map_or(self.subscriptions.next, |held| held.number);
        let mut how = linkspan_contract::Subscribe::new(settle(qos));
        (how.no_local, how.exactly_once) = (options.no_local, qos == Qos::ExactlyOnce);
        how.wishes = self.kept.then(|| Wishes {
            retain_as_published: options.retain_as_published,
            replay: replay_of(options.retain_handling),
            identifier,
        });
        let credit = (qos != Qos::AtMostOnce).then(|| Arc::clone(&self.credit));
        self.lane.subscribe(&source, key(number), &how, credit).await.map_err(|refused| Failure {
            reason: subscribe_reason(&refused),
            text: format!("'{filter}': {refused}"),
        })?;
        self.subscriptions.next += u32::from(before.is_none());
        let held = held(number);
        self.subscriptions.held.insert(filter.clone(), held);
        Ok(Made { filter, subscribed: held.subscribed(), qos, start: true, replay })
    }

    async fn end_subscription(&mut self, number: u32) {
        if let Err(refused) = self.lane.unsubscribe(key(number)).await {
            tracing::debug!(%refused, "a subscription was not ended cleanly");
        }
        self.sink.outbound.lock().state().unsubscribe(number);
    }

    async fn unsubscribe(&mut self, packet_id: NonZeroU16, filters: &[Box<str>]) -> Result<(), Ending> {
        let mut reasons = SmallVec::new();
        for filter in filters {
            reasons.push(match self.subscriptions.held.remove(filter) {
                Some(held) => {
                    self.end_subscription(held.number).await;
                    ReasonCode::Success
                }
                None if self.kept => self.unsubscribe_unknown(filter).await,
                None => ReasonCode::NoSubscriptionExisted,
            });
        }
        self.write_down().await?;
        let user_properties = UserProperties::NONE;
        let unsuback = Unsuback { packet_id, reason_string: None, user_properties, reasons };
        self.answer(&Packet::Unsuback(unsuback), |_| {})
    }

    /// A filter that only the keeper of the session may know, from an earlier connection.
    async fn unsubscribe_unknown(&mut self, filter: &str) -> ReasonCode {
        let Ok(source) = select(filter, self.limits.filter_levels) else {
            return ReasonCode::NoSubscriptionExisted;
        };
        match self.lane.unsubscribe_from(&source).await {
            Ok(true) => ReasonCode::Success,
            Ok(false) => ReasonCode::NoSubscriptionExisted,
            Err(refused) => subscribe_reason(&refused),
        }
    }

    /// What back ends keep that a new subscription matches.
    async fn retained_elsewhere(&mut self, filter: &str) -> Vec<Retained> {
        match self.lane.retained(filter).await {
            Ok(found) => found.unwrap_or_default(),
            Err(refused) => {
                tracing::warn!(filter, %refused, "retained messages were not to be had for a new subscriber");
                metrics::counter!("linkspan_retained_missed_total").increment(1);
                Vec::new()
            }
        }
    }

    /// Sends the retained messages that a new subscription matches, as far as the client has room: the hub's own, and
    /// those found `elsewhere`.
    ///
    /// They are read under the sink's lock. The hub retains a message before it delivers it, so that what is read here is
    /// at least as new as everything that was delivered before: a stale value never follows a newer one.
    fn replay_for(&mut self, made: &Made, elsewhere: Vec<Retained>) {
        let sink = Arc::clone(&self.sink);
        let mut guard = sink.outbound.lock();
        let (number, qos) = (made.subscribed.number, made.qos);
        // What a subscription that was replaced had still to send is among what this one sends.
        self.subscriptions.forget_waiting(number);
        let overtaking = guard.state().overtaking();
        overtaking.forget(number);
        let before = elsewhere.len();
        let elsewhere: Vec<Retained> =
            elsewhere.into_iter().filter(|it| !overtaking.is_late(&it.message.address().topic())).collect();
        overtaking.answered();
        let late = before.saturating_sub(elsewhere.len());
        if late > 0 {
            metrics::counter!("linkspan_retained_overtaken_total").increment(late as u64);
        }
        let mut found = self
            .retained
            .matching(&made.filter)
            .into_iter()
            .map(|retained| Waiting { retained, number, qos, elsewhere: false })
            .chain(elsewhere.into_iter().map(|retained| Waiting { retained, number, qos, elsewhere: true }))
            .peekable();
        if self.subscriptions.waiting.is_none() {
            while found.next_if(|waiting| self.replay_one(&mut guard, waiting)).is_some() {}
        }
        if found.peek().is_some() {
            let waiting = self.subscriptions.waiting.get_or_insert_default();
            for one in found {
                if one.elsewhere {
                    let topic = one.retained.message.address().topic();
                    guard.state().overtaking().wait(number, &topic);
                }
                waiting.push_back(one);
            }
        }
        guard.state().end_overtaking();
    }

    /// Sends retained messages that had to wait, each as it is now, as far as the client has room.
    pub(super) fn replay(&mut self) {
        let Some(mut queue) = self.subscriptions.waiting.take() else { return };
        let sink = Arc::clone(&self.sink);
        while let Some(mut waiting) = queue.pop_front() {
            let mut guard = sink.outbound.lock();
            if waiting.elsewhere {
                let topic = waiting.retained.message.address().topic();
                if !guard.state().overtaking().is_newest(waiting.number, &topic) {
                    metrics::counter!("linkspan_retained_overtaken_total").increment(1);
                    continue;
                }
            } else {
                let address = waiting.retained.message.address().topic().into_owned();
                let now = std::str::from_utf8(&address)
                    .ok()
                    .filter(|topic| is_topic(topic.as_bytes()))
                    .and_then(|topic| self.retained.matching(topic).pop());
                let Some(now) = now else { continue };
                waiting.retained = now;
            }
            if !self.replay_one(&mut guard, &waiting) {
                queue.push_front(waiting);
                self.subscriptions.waiting = Some(queue);
                return;
            }
            if waiting.elsewhere {
                let topic = waiting.retained.message.address().topic();
                guard.state().overtaking().sent(waiting.number, &topic);
            }
        }
        self.sink.outbound.lock().state().end_overtaking();
    }

    /// Sends one retained message; false when the client has no room.
    fn replay_one(&self, guard: &mut Guard<'_, Deliveries>, waiting: &Waiting) -> bool {
        if guard.is_congested() {
            return false;
        }
        let Some(subscribed) = guard.state().find(waiting.number) else { return true };
        let message = waiting.retained.message.message();
        let acknowledged = waiting.qos != Qos::AtMostOnce && message.flags.has(Flags::DURABLE);
        if acknowledged && self.credit.take(1) == 0 {
            return false;
        }
        let terms = Terms {
            acknowledged,
            exactly_once: waiting.qos == Qos::ExactlyOnce,
            again: false,
            retain_as_published: true,
            retained: true,
            age: waiting.retained.age,
            identifier: subscribed.identifier,
        };
        if !self.sink.append_retained(guard, &waiting.retained.message, terms) && acknowledged {
            self.credit.give_back(1);
        }
        true
    }
}

/// What a SUBACK says of a subscription that was made.
const fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}

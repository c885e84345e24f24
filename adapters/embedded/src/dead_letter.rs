//! What a queue could not get worked: published once more, with a record of its death in RabbitMQ's words.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use linkspan_contract::address::{Syntax, respelled};
use linkspan_contract::neutral::Draft;
use linkspan_contract::{
    Body, Deaths, Destination, Flags, Kept, Message, Millis, OwnedBatch, Properties, Value,
};
use linkspan_queues::log::Commit;
use linkspan_queues::{DeadReason, Effect, Position, Queued};

use crate::outlet::Touched;
use crate::parcel::Parcel;
use crate::postponed::Postponed;
use crate::queue::{Queue, Said};
use crate::topology::ADDRESS_SPACE;
use crate::vhost::Vhost;

/// Where a queue's dead letters go.
#[derive(Debug)]
pub(crate) struct Grave {
    pub(crate) exchange: Box<str>,
    /// In place of the message's own routing keys.
    pub(crate) key: Option<Box<[u8]>>,
}

/// Dead messages on their way; publishing one may make others.
#[derive(Default)]
pub(crate) struct DeadLetters {
    waiting: VecDeque<DeadLetter>,
    /// Written when all are published: that they are gone from where they died.
    gone: Commit,
    /// Instead of that, as long as others cannot be: those that could, by their numbers and positions in the log.
    done: Vec<(u64, Position)>,
}

struct DeadLetter {
    from: Arc<Queue>,
    message: Queued<Parcel>,
    reason: DeadReason,
}

type Headers<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

impl DeadLetters {
    /// Carries out what a queue's engine says; dead messages wait for [`bury`](Self::bury).
    pub(crate) fn carry_out(&mut self, from: &Arc<Queue>, vhost: &Vhost, said: Said) {
        let Said { effects, mut dead, .. } = said;
        self.gone.join(&mut dead);
        for effect in effects {
            match effect {
                Effect::Dead { message, reason } => {
                    self.waiting.push_back(DeadLetter { from: Arc::clone(from), message, reason });
                }
                Effect::Overdue { count, .. } => {
                    metrics::counter!("linkspan_deliveries_overdue_total").increment(count.into());
                }
                Effect::Active(_) => {}
                // Somebody may have come since.
                Effect::Unused => vhost.leave(from),
            }
        }
    }

    /// One that is in the log where it died.
    pub(crate) fn add(&mut self, from: &Arc<Queue>, message: Queued<Parcel>, reason: DeadReason) {
        if let Some(number) = from.log_number(message.priority) {
            self.gone.gone(number, message.position..message.position.saturating_add(1));
        }
        self.waiting.push_back(DeadLetter { from: Arc::clone(from), message, reason });
    }

    /// Publishes them where their queues' arguments say; without such a place they are gone.
    pub(crate) fn bury(mut self, vhost: &Arc<Vhost>, now: Millis, touched: &mut Touched) {
        let mut postponed = Postponed::default();
        while let Some(letter) = self.waiting.pop_front() {
            // What is in the log stays there until it is where it goes.
            let kept = vhost.house.archive.as_ref().filter(|_| letter.message.logged);
            if let Some(grave) = letter.from.grave() {
                let done = !kept.is_some_and(|archive| archive.is_failed())
                    && letter.publish(vhost, grave, now, touched, &mut self);
                if !done && kept.is_some() {
                    let Queued { priority, position, .. } = letter.message;
                    postponed.add(&letter.from, priority, position, &letter.reason);
                    continue;
                }
                if !done {
                    lost("unwritable");
                }
            }
            if kept.is_some() {
                let Queued { priority, position, .. } = letter.message;
                self.done.extend(letter.from.log_number(priority).map(|number| (number, position)));
            }
            metrics::counter!("linkspan_messages_dead_total", "reason" => letter.reason.name()).increment(1);
        }
        let Some(archive) = &vhost.house.archive else { return };
        if !postponed.is_empty() {
            self.gone.clear();
            for (number, position) in self.done {
                self.gone.gone(number, position..position.saturating_add(1));
            }
        }
        archive.write_behind(&mut self.gone);
        if !postponed.is_empty()
            && let Some(again) = archive.postpone(vhost, postponed)
        {
            // The disk takes writes by now.
            vhost.house.coordinator.bury(vhost, again, now);
        }
    }
}

impl DeadLetter {
    /// False when a queue to which it goes cannot write it down now.
    fn publish(
        &self,
        vhost: &Arc<Vhost>,
        grave: &Grave,
        now: Millis,
        touched: &mut Touched,
        more_dead: &mut DeadLetters,
    ) -> bool {
        let kept = &self.message.body.clone().kept();
        let address = kept.address();
        let own_key = address.key();
        let exchange = address.exchange.map_or_else(
            || Cow::Borrowed(ADDRESS_SPACE),
            |exchange| Cow::Owned(String::from_utf8_lossy(exchange).into_owned()),
        );
        let mut properties = kept.properties().unwrap_or_default();
        let copies = copies(&properties.headers);
        let keys: Vec<&[u8]> =
            std::iter::once(&*own_key).chain(copies.iter().map(|copy| copy.as_bytes())).collect();
        let expiration = properties.expiration.take();
        record(
            &mut properties.headers,
            &Death {
                queue: &self.from.name,
                reason: self.reason.told(),
                seconds: now / 1000,
                exchange: &exchange,
                keys: &keys,
                expiration: expiration.as_deref(),
            },
        );
        if grave.key.is_some() {
            properties.headers.retain(|(name, _)| name != "CC");
        }
        let keys: Vec<&[u8]> = grave.key.as_deref().map_or(keys, |key| vec![key]);
        let Some((key, more)) = keys.split_first() else { return true };
        let letter = letter(kept, &grave.exchange, key, &properties);
        let name = &*grave.exchange;
        let destination = match (name, std::str::from_utf8(key)) {
            ("", Ok(queue)) => Destination::Queue { name: queue, more },
            _ => Destination::Exchange { name, key, more },
        };
        let Ok(routes) = vhost.look().route_inside(&destination, Some(&properties)) else {
            tracing::debug!(queue = %self.from.name, exchange = name, "dead letters are lost: there is no such exchange");
            lost("dead-letter-exchange-missing");
            return true;
        };
        let Some(one) = letter.kept(0) else { return true };
        let mut written = true;
        for queue in routes.queues {
            if is_cycle(&queue.name, &properties.headers) {
                tracing::debug!(queue = %queue.name, "a dead letter is lost: it would go round for ever");
                lost("dead-letter-cycle");
                continue;
            }
            let said = queue.put(one.clone().into(), now, touched);
            written &= !said.unwritable;
            more_dead.carry_out(&queue, vhost, said);
        }
        for subscription in routes.subscribers {
            let said = subscription.give(&letter, now, touched);
            if let Some(inbox) = subscription.session.inbox() {
                more_dead.carry_out(inbox, vhost, said);
            }
        }
        written
    }
}

fn lost(reason: &'static str) {
    metrics::counter!("linkspan_messages_dropped_total", "reason" => reason).increment(1);
}

/// The message as it goes on.
fn letter(kept: &Kept, exchange: &str, key: &[u8], properties: &Properties<'_>) -> Arc<OwnedBatch> {
    let message = kept.message();
    let payload = match (&kept.batch.batch().body, kept.payload()) {
        (Some(body), _) => (*body).clone(),
        (None, payload) => Body::Shared(Bytes::copy_from_slice(payload.unwrap_or_default())),
    };
    let lost = Flags::RECEIPT | Flags::MANDATORY | Flags::EXPIRES | Flags::RETAIN | Flags::REWRITE;
    let head =
        Message { flags: message.flags.without(lost), priority: message.priority, ..Message::default() };
    let topic = respelled(key, Syntax::Key, Syntax::Topic);
    let exchange = (exchange != ADDRESS_SPACE).then_some(exchange.as_bytes());
    Draft { exchange, topic: &topic, properties, payload, head }.build()
}

/// One entry of `x-death`.
struct Death<'a> {
    queue: &'a str,
    reason: &'a str,
    seconds: u64,
    exchange: &'a str,
    keys: &'a [&'a [u8]],
    expiration: Option<&'a str>,
}

fn text(text: &str) -> Value<'static> {
    Value::Text(Cow::Owned(text.to_owned()))
}

fn field<'v>(entry: &'v Value<'_>, name: &str) -> Option<&'v str> {
    let Value::Table(fields) = entry else { return None };
    fields.iter().find(|(field, _)| field == name)?.1.as_str()
}

/// Writes a death into the headers: the newest first, one entry for each queue and reason.
fn record(headers: &mut Headers<'_>, death: &Death<'_>) {
    let mut deaths = match headers.iter_mut().find(|(name, _)| name == "x-death") {
        Some((_, Value::Array(deaths))) => std::mem::take(deaths),
        _ => Vec::new(),
    };
    let is_it = |entry: &Value<'_>| {
        field(entry, "queue") == Some(death.queue) && field(entry, "reason") == Some(death.reason)
    };
    let entry = match deaths.iter().position(is_it) {
        Some(place) => {
            let mut entry = deaths.remove(place);
            if let Value::Table(fields) = &mut entry {
                for (name, value) in fields {
                    if name == "count" {
                        *value = Value::I64(value.as_i64().unwrap_or(0).saturating_add(1));
                    }
                }
            }
            entry
        }
        None => {
            let keys = death.keys.iter().map(|key| text(&String::from_utf8_lossy(key))).collect();
            let mut fields = vec![
                ("count".into(), Value::I64(1)),
                ("reason".into(), text(death.reason)),
                ("queue".into(), text(death.queue)),
                ("time".into(), Value::Timestamp(death.seconds)),
                ("exchange".into(), text(death.exchange)),
                ("routing-keys".into(), Value::Array(keys)),
            ];
            if let Some(expiration) = death.expiration {
                fields.push(("original-expiration".into(), text(expiration)));
            }
            Value::Table(fields)
        }
    };
    deaths.insert(0, entry);
    set(headers, "x-death", Value::Array(deaths));
    let facts = [("exchange", death.exchange), ("queue", death.queue), ("reason", death.reason)];
    for (fact, value) in facts {
        let first = format!("x-first-death-{fact}");
        if !headers.iter().any(|(name, _)| *name == first) {
            headers.push((first.into(), text(value)));
        }
        set(headers, &format!("x-last-death-{fact}"), text(value));
    }
    if let Some(told) = Deaths::of(headers) {
        Deaths { time: death.seconds, ..told }.write(headers);
    }
}

fn set<'a>(headers: &mut Headers<'a>, name: &str, value: Value<'a>) {
    match headers.iter_mut().find(|(header, _)| header == name) {
        Some((_, current)) => *current = value,
        None => headers.push((Cow::Owned(name.to_owned()), value)),
    }
}

/// The further routing keys that the publisher gave.
fn copies(headers: &Headers<'_>) -> Vec<String> {
    let Some((_, Value::Array(keys))) = headers.iter().find(|(name, _)| name == "CC") else {
        return Vec::new();
    };
    keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

/// True when the message has been dead in this queue before, and nobody rejected it on the way since: it would go round
/// for ever.
fn is_cycle(queue: &str, headers: &Headers<'_>) -> bool {
    let Some((_, Value::Array(deaths))) = headers.iter().find(|(name, _)| name == "x-death") else {
        return false;
    };
    let Some(place) = deaths.iter().position(|death| field(death, "queue") == Some(queue)) else {
        return false;
    };
    deaths.iter().take(place + 1).all(|death| field(death, "reason") != Some("rejected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn died<'a>(queue: &'a str, reason: &'a str) -> Death<'a> {
        Death { queue, reason, seconds: 7, exchange: "e", keys: &[b"k"], expiration: None }
    }

    #[test]
    fn the_newest_death_stands_first_and_a_repeated_one_is_counted() {
        let mut headers = Headers::new();
        record(&mut headers, &died("a", "rejected"));
        record(&mut headers, &died("b", "expired"));
        record(&mut headers, &died("a", "rejected"));
        let Value::Array(deaths) = &headers[0].1 else { panic!("x-death is a list") };
        let told: Vec<_> =
            deaths.iter().map(|death| (field(death, "queue"), field(death, "reason"))).collect();
        assert_eq!(told, [(Some("a"), Some("rejected")), (Some("b"), Some("expired"))]);
        let Value::Table(fields) = &deaths[0] else { panic!("an entry is a table") };
        assert_eq!(fields[0], ("count".into(), Value::I64(2)));
        let first = headers.iter().find(|(name, _)| name == "x-first-death-queue").unwrap();
        let last = headers.iter().find(|(name, _)| name == "x-last-death-queue").unwrap();
        assert_eq!((first.1.as_str(), last.1.as_str()), (Some("a"), Some("a")));
        let told = Deaths::told(&headers).unwrap();
        assert_eq!((&*told.reason, told.count, told.time), ("rejected", 3, 7));
        assert_eq!((&*told.first.queue, &*told.last.queue), ("a", "a"));
    }

    #[test]
    fn a_message_goes_round_only_when_somebody_rejected_it_on_the_way() {
        let mut headers = Headers::new();
        record(&mut headers, &died("work", "expired"));
        assert!(is_cycle("work", &headers));
        assert!(!is_cycle("other", &headers));
        record(&mut headers, &died("retry", "rejected"));
        assert!(!is_cycle("work", &headers));
    }
}

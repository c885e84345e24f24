//! What a dead letter tells of its deaths.
//!
//! Who has a message dead writes RabbitMQ's `x-death` and, for who does not want to read that, the headers below: texts and
//! numbers, so that they are the same for clients of every protocol. A broker that has it dead by itself writes `x-death`
//! alone; its adapter adds the others when the message is given out.

use std::borrow::Cow;

use crate::address::{Syntax, respelled};
use crate::value::Value;

/// RabbitMQ's list of deaths, the newest first.
pub const DEATHS: &str = "x-death";

/// What all headers begin with that tell of deaths in Linkspan's words.
pub const PREFIX: &str = "linkspan-dead-";

/// Why it died last: `rejected`, `expired`, `max-deliveries`, `max-length`, `address-not-mqtt`, `claim-missing`.
pub const REASON: &str = "linkspan-dead-reason";

/// How often it has died, in all.
pub const COUNT: &str = "linkspan-dead-count";

/// When it died last, in seconds since 1970.
pub const TIME: &str = "linkspan-dead-time";

/// The queue in which it died first.
pub const FIRST_QUEUE: &str = "linkspan-dead-first-queue";

/// The address that it had then, when it had one.
pub const FIRST_ADDRESS: &str = "linkspan-dead-first-address";

/// The queue in which it died last.
pub const LAST_QUEUE: &str = "linkspan-dead-last-queue";

/// The address that it had then, when it had one.
pub const LAST_ADDRESS: &str = "linkspan-dead-last-address";

/// How often it was moved back to the queue in which it had died.
pub const REPLAYS: &str = "linkspan-dead-replays";

/// The exchange that is the address space, as `x-death` names it.
const ADDRESS_SPACE: &str = "amq.topic";

/// The headers of a message.
pub type Headers<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// Where a message died.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The queue.
    pub queue: String,
    /// The address that it had there, as a topic; none when it was published to an exchange or a queue by name.
    pub address: Option<String>,
}

impl Origin {
    /// Learns the address from what was told of the same place before.
    fn learn(&mut self, before: Self) {
        if self.queue == before.queue {
            self.address = self.address.take().or(before.address);
        }
    }
}

/// What is told of a message's deaths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deaths {
    /// Why it died last.
    pub reason: String,
    /// How often it has died.
    pub count: u64,
    /// When it died last, in seconds since 1970, as far as that is told: `x-death` has the first time for each queue and
    /// reason.
    pub time: u64,
    /// Where it died first.
    pub first: Origin,
    /// Where it died last.
    pub last: Origin,
}

/// The word for a reason that `x-death` has.
fn word(reason: &str) -> &str {
    match reason {
        "maxlen" => "max-length",
        "delivery_limit" => "max-deliveries",
        other => other,
    }
}

fn field<'v, 'a>(entry: &'v Value<'a>, name: &str) -> Option<&'v Value<'a>> {
    let Value::Table(fields) = entry else { return None };
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
}

fn text<'v>(entry: &'v Value<'_>, name: &str) -> Option<&'v str> {
    field(entry, name)?.as_str()
}

fn header<'v, 'a>(headers: &'v [(Cow<'a, str>, Value<'a>)], name: &str) -> Option<&'v Value<'a>> {
    headers.iter().find(|(header, _)| header == name).map(|(_, value)| value)
}

fn number(value: &Value<'_>) -> Option<u64> {
    match value {
        Value::Timestamp(seconds) => Some(*seconds),
        Value::Text(text) => text.parse().ok(),
        other => other.as_i64().and_then(|number| u64::try_from(number).ok()),
    }
}

/// The entries of `x-death`, the newest first. They are told from forged ones by their types: clients that are no AMQP
/// clients have texts only.
pub fn entries<'v, 'a>(headers: &'v [(Cow<'a, str>, Value<'a>)]) -> Option<&'v [Value<'a>]> {
    let list = headers.iter().filter(|(name, _)| name == DEATHS).find_map(|(_, value)| match value {
        Value::Array(deaths) if deaths.iter().all(|death| matches!(death, Value::Table(_))) => Some(deaths),
        _ => None,
    });
    list.map(Vec::as_slice).filter(|deaths| !deaths.is_empty())
}

fn origin(entry: &Value<'_>) -> Origin {
    let key = match field(entry, "routing-keys") {
        Some(Value::Array(keys)) => keys.first().and_then(Value::as_str),
        _ => None,
    };
    let key = key.filter(|_| text(entry, "exchange") == Some(ADDRESS_SPACE));
    let topic = |key: &str| {
        let topic = respelled(key.as_bytes(), Syntax::Key, Syntax::Topic);
        String::from_utf8_lossy(&topic).into_owned()
    };
    Origin { queue: text(entry, "queue").unwrap_or_default().to_owned(), address: key.map(topic) }
}

impl Deaths {
    /// What `x-death` tells.
    pub fn of(headers: &[(Cow<'_, str>, Value<'_>)]) -> Option<Self> {
        let deaths = entries(headers)?;
        let last = deaths.first()?;
        let reason = word(text(last, "reason")?).to_owned();
        let count = |death| field(death, "count").and_then(number).unwrap_or(1);
        let of_first = |name: &str| header(headers, &format!("x-first-death-{name}")).and_then(Value::as_str);
        let is_first = |death: &&Value<'_>| {
            let (queue, reason) = (of_first("queue"), of_first("reason"));
            queue.is_some() && text(death, "queue") == queue && text(death, "reason") == reason
        };
        let first = deaths.iter().find(is_first).or(deaths.last())?;
        Some(Self {
            reason,
            count: deaths.iter().map(count).fold(0, u64::saturating_add),
            time: field(last, "time").and_then(number).unwrap_or(0),
            first: origin(first),
            last: origin(last),
        })
    }

    /// What a message tells: by `x-death`, else, where it came a way that has texts only, by the headers of this file.
    pub fn told(headers: &[(Cow<'_, str>, Value<'_>)]) -> Option<Self> {
        let written = || {
            let word = |name| header(headers, name).and_then(Value::as_str).map(str::to_owned);
            let count = |name| header(headers, name).and_then(number);
            Some(Self {
                reason: word(REASON)?,
                count: count(COUNT).unwrap_or(1),
                time: count(TIME).unwrap_or(0),
                first: Origin { queue: word(FIRST_QUEUE)?, address: word(FIRST_ADDRESS) },
                last: Origin { queue: word(LAST_QUEUE)?, address: word(LAST_ADDRESS) },
            })
        };
        let Some(mut told) = Self::of(headers) else { return written() };
        let Some(before) = written() else { return Some(told) };
        // A queue that was published to by name hides the address, which is told there alone.
        told.first.learn(before.first);
        if before.count == told.count {
            // It is of the same death, and so is the last time.
            told.last.learn(before.last);
            told.time = told.time.max(before.time);
        }
        Some(told)
    }

    /// The address that a message has which has died since its headers were written last, where `x-death` has but the name of
    /// a queue: that is where it died.
    pub fn learn(&mut self, headers: &[(Cow<'_, str>, Value<'_>)], address: &str) {
        if header(headers, COUNT).and_then(number) == Some(self.count) {
            return;
        }
        let origins =
            if self.count == 1 { &mut [&mut self.first, &mut self.last][..] } else { &mut [&mut self.last] };
        for origin in origins {
            origin.address.get_or_insert_with(|| address.to_owned());
        }
    }

    /// Writes it into the headers of a message, in the place of what they told before.
    pub fn write(&self, headers: &mut Headers<'_>) {
        headers.retain(|(name, _)| !name.starts_with(PREFIX) || name == REPLAYS);
        let mut put = |name: &'static str, value: Value<'static>| headers.push((Cow::Borrowed(name), value));
        let text = |text: &str| Value::Text(Cow::Owned(text.to_owned()));
        let number = |number: u64| Value::I64(i64::try_from(number).unwrap_or(i64::MAX));
        put(REASON, text(&self.reason));
        put(COUNT, number(self.count));
        put(TIME, number(self.time));
        put(FIRST_QUEUE, text(&self.first.queue));
        if let Some(address) = &self.first.address {
            put(FIRST_ADDRESS, text(address));
        }
        put(LAST_QUEUE, text(&self.last.queue));
        if let Some(address) = &self.last.address {
            put(LAST_ADDRESS, text(address));
        }
    }
}

/// How often a message was moved back to the queue in which it had died.
pub fn replays(headers: &[(Cow<'_, str>, Value<'_>)]) -> u64 {
    header(headers, REPLAYS).and_then(number).unwrap_or(0)
}

/// Notes that it is moved back once more.
pub fn replay(headers: &mut Headers<'_>) {
    let count = replays(headers).saturating_add(1);
    headers.retain(|(name, _)| name != REPLAYS);
    headers.push((Cow::Borrowed(REPLAYS), Value::I64(i64::try_from(count).unwrap_or(i64::MAX))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txt(text: &'static str) -> Value<'static> {
        Value::Text(text.into())
    }

    fn death(queue: &'static str, reason: &'static str, count: i64, key: &'static str) -> Value<'static> {
        Value::Table(vec![
            ("count".into(), Value::I64(count)),
            ("reason".into(), txt(reason)),
            ("queue".into(), txt(queue)),
            ("time".into(), Value::Timestamp(7)),
            ("exchange".into(), txt("amq.topic")),
            ("routing-keys".into(), Value::Array(vec![txt(key)])),
        ])
    }

    fn headers() -> Headers<'static> {
        let deaths = vec![death("late", "delivery_limit", 1, "c.d"), death("jobs", "maxlen", 2, "a.b")];
        vec![
            (DEATHS.into(), Value::Array(deaths)),
            ("x-first-death-queue".into(), txt("jobs")),
            ("x-first-death-reason".into(), txt("maxlen")),
        ]
    }

    #[test]
    fn what_rabbitmq_writes_is_told_in_words_of_ours() {
        let told = Deaths::of(&headers()).unwrap();
        let origin =
            |queue: &str, address: &str| Origin { queue: queue.into(), address: Some(address.into()) };
        let (first, last) = (origin("jobs", "a/b"), origin("late", "c/d"));
        assert_eq!(told, Deaths { reason: "max-deliveries".into(), count: 3, time: 7, first, last });
        let mut written = headers();
        told.write(&mut written);
        told.write(&mut written);
        let ours = written.iter().filter(|(name, _)| name.starts_with(PREFIX)).count();
        assert_eq!(ours, 7, "what was told before is replaced");
        // A way that has texts only.
        let texts = |(name, value): &(Cow<'static, str>, Value<'static>)| {
            let value = value.as_str().map(str::to_owned).or_else(|| Some(value.as_i64()?.to_string()))?;
            Some((name.clone(), Value::Text(value.into())))
        };
        let texts: Headers<'_> = written.iter().filter_map(texts).collect();
        assert_eq!(Deaths::told(&texts), Some(told));
    }

    /// As RabbitMQ tells of a queue that was published to by name.
    fn by_name(count: i64) -> Headers<'static> {
        let mut death = death("jobs", "rejected", count, "jobs");
        if let Value::Table(fields) = &mut death {
            fields.retain(|(name, _)| name != "exchange");
        }
        vec![(DEATHS.into(), Value::Array(vec![death]))]
    }

    #[test]
    fn an_address_that_a_queue_s_name_hides_is_learnt_and_kept_by_the_same_death_alone() {
        let mut headers = by_name(1);
        let mut told = Deaths::told(&headers).unwrap();
        assert_eq!((&told.first.address, &told.last.address), (&None, &None));
        told.learn(&headers, "a/b");
        told.write(&mut headers);
        let mut again = Deaths::told(&headers).unwrap();
        again.learn(&headers, "dead/letters");
        assert_eq!(again, told, "once it is carried to the dead letters it has their address");
        assert_eq!(
            (again.first.address.as_deref(), again.last.address.as_deref()),
            (Some("a/b"), Some("a/b"))
        );
        // It was replayed to another address, and has died once more.
        headers.retain(|(name, _)| name != DEATHS);
        headers.extend(by_name(2));
        let mut second = Deaths::told(&headers).unwrap();
        assert_eq!((second.first.address.as_deref(), &second.last.address), (Some("a/b"), &None));
        second.learn(&headers, "c/d");
        assert_eq!(
            (second.first.address.as_deref(), second.last.address.as_deref()),
            (Some("a/b"), Some("c/d"))
        );
    }

    #[test]
    fn what_is_forged_is_not_believed() {
        for forged in [txt("jobs"), Value::Array(vec![txt("jobs")]), Value::Array(Vec::new())] {
            assert_eq!(Deaths::of(&[(DEATHS.into(), forged)]), None);
        }
    }

    #[test]
    fn a_replay_is_counted_and_outlives_the_next_death() {
        let mut headers = headers();
        replay(&mut headers);
        replay(&mut headers);
        assert_eq!(replays(&headers), 2);
        Deaths::of(&headers).unwrap().write(&mut headers);
        assert_eq!(replays(&headers), 2);
    }
}

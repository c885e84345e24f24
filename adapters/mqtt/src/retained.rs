//! The messages that the broker keeps, asked for by a session that lives no longer than the question.
//!
//! How the end is known: behind the filter the session subscribes to a topic that nobody else knows, and publishes a
//! marker there. The topic begins with `$`, so that nobody's `#` matches it [MQTT-4.7.2-1]. A broker gives a session its
//! messages of one QoS in order, so all that it keeps for the filter comes before the marker. Where the marker is not allowed (an access list), or the broker dropped it with what was too much for its
//! queue, a while of silence is the end.

use std::time::Duration;

use bytes::Bytes;
use linkspan_contract::Refused;
use linkspan_contract::address::Pattern;
use linkspan_contract::backend::Retained;

use crate::house::{House, random};
use crate::translate;
use crate::upstream::connection::{Connection, Sender};
use crate::upstream::failure::Failure;
use crate::upstream::packet::{Ack, Happened, Outgoing};

/// Silence that is an end where there is no marker.
const SILENCE: Duration = Duration::from_millis(500);

/// What the broker keeps for the addresses that `filter` matches.
///
/// # Errors
/// When it cannot be asked, or says no.
pub(crate) async fn fetch(house: &House, filter: &str) -> Result<Vec<Retained>, Refused> {
    let away = |why: Failure| {
        tracing::debug!(backend = %house.name, %filter, %why, "retained messages cannot be asked for");
        Refused::Away(house.name.to_string())
    };
    let _asking = house.asking.acquire().await.map_err(|_| Refused::Away(house.name.to_string()))?;
    let number = random();
    let marker = format!("$linkspan/marker/{number:016x}");
    let how = house.introduction(format!("{}.ret.{number:016x}", house.options.instance));
    let (mut connection, sender, welcome) = house.dial.open(&how).await.map_err(away)?;
    if !welcome.retains {
        return Ok(Vec::new());
    }
    let mut question = Question::new(filter, &marker);
    ask(&sender, filter, &marker).map_err(away)?;
    let deadline = house
        .now()
        .saturating_add(u64::try_from(house.options.retained_timeout.as_millis()).unwrap_or(u64::MAX));
    let mut happened = Vec::new();
    loop {
        let left = Duration::from_millis(deadline.saturating_sub(house.now()));
        let wait = if question.has_no_marker { left.min(SILENCE) } else { left };
        let came = connection.poll_within(&mut happened, wait).await;
        for one in happened.drain(..) {
            question.hear(one)?;
        }
        if question.is_over() {
            break;
        }
        match came {
            Ok(true) => {}
            Ok(false) if question.has_no_marker => break,
            Ok(false) => {
                let answered = question.is_granted;
                tracing::warn!(backend = %house.name, %filter, answered, "retained messages did not come to an end in time");
                return if answered {
                    Ok(question.found)
                } else {
                    Err(Refused::Away(house.name.to_string()))
                };
            }
            Err(why) => return Err(away(why)),
        }
    }
    leave(&mut connection, &sender).await;
    Ok(question.found)
}

fn ask(sender: &Sender, filter: &str, marker: &str) -> Result<(), Failure> {
    let mark = Outgoing {
        topic: marker.into(),
        payload: Bytes::new(),
        properties: None,
        acknowledged: true,
        retain: false,
        expires: None,
    };
    let asked = sender
        .subscribe(filter, None, true)
        .and_then(|()| sender.subscribe(marker, None, true))
        .and_then(|()| sender.publish(&mark, 0));
    asked.map_err(|_| Failure::Lost("the connection takes nothing".into()))
}

async fn leave(connection: &mut Connection, sender: &Sender) {
    if sender.disconnect().is_ok() {
        // What it says to that does not matter.
        let _ = connection.poll_within(&mut Vec::new(), SILENCE).await;
    }
}

/// What was asked, and what of the answer has come.
struct Question {
    pattern: Pattern,
    marker: String,
    found: Vec<Retained>,
    /// Packet identifiers of the two SUBSCRIBEs, in order.
    asked: Vec<u16>,
    is_granted: bool,
    has_no_marker: bool,
    marker_came: bool,
}

impl Question {
    fn new(filter: &str, marker: &str) -> Self {
        Self {
            pattern: Pattern::from_filter(filter),
            marker: marker.into(),
            found: Vec::new(),
            asked: Vec::new(),
            is_granted: false,
            has_no_marker: false,
            marker_came: false,
        }
    }

    fn is_over(&self) -> bool {
        self.is_granted && self.marker_came
    }

    fn hear(&mut self, happened: Happened) -> Result<(), Refused> {
        match happened {
            Happened::Asked(packet_id) => self.asked.push(packet_id),
            Happened::Granted(packet_id, answer) if self.asked.first() == Some(&packet_id) => {
                answer?;
                self.is_granted = true;
            }
            Happened::Granted(_, answer) => self.has_no_marker |= answer.is_err(),
            Happened::Acked(_, ack) => self.has_no_marker |= ack != Ack::Taken,
            Happened::Delivered(message) if *message.topic == *self.marker.as_bytes() => {
                self.marker_came = true
            }
            Happened::Delivered(message) if message.retain && self.pattern.matches(&message.topic) => {
                // What is published in the meantime is not kept, and comes to who is subscribed.
                let message = translate::kept(&message);
                self.found.extend(message.map(|message| Retained { message, age: 0 }));
            }
            Happened::Delivered(_) | Happened::Sent(_) | Happened::Released(..) | Happened::OutOfStep => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::packet::Incoming;

    fn message(topic: &str, retain: bool) -> Happened {
        Happened::Delivered(Incoming {
            topic: Bytes::copy_from_slice(topic.as_bytes()),
            payload: Bytes::from_static(b"x"),
            properties: None,
            packet_id: Some(1),
            exactly_once: false,
            repeated: false,
            retain,
        })
    }

    #[test]
    fn what_is_kept_comes_before_the_marker_and_what_is_published_meanwhile_is_left_aside() {
        let mut question = Question::new("a/#", "m");
        for happened in [
            Happened::Asked(1),
            Happened::Asked(2),
            Happened::Granted(1, Ok(())),
            message("a/1", true),
            message("a/1", false),
            Happened::Granted(2, Ok(())),
            message("a/2", true),
            Happened::Acked(3, Ack::Taken),
        ] {
            question.hear(happened).unwrap();
            assert!(!question.is_over());
        }
        question.hear(message("m", false)).unwrap();
        assert!(question.is_over() && !question.has_no_marker);
        assert_eq!(question.found.len(), 2);
    }

    #[test]
    fn a_refused_filter_is_an_error_and_a_refused_marker_is_not() {
        let why = Refused::AccessRefused("no".into());
        let mut question = Question::new("a", "m");
        question.hear(Happened::Asked(1)).unwrap();
        assert_eq!(question.hear(Happened::Granted(1, Err(why.clone()))), Err(why.clone()));
        let mut question = Question::new("a", "m");
        question.hear(Happened::Asked(1)).unwrap();
        question.hear(Happened::Asked(2)).unwrap();
        question.hear(Happened::Granted(2, Err(why))).unwrap();
        assert!(question.has_no_marker);
    }
}

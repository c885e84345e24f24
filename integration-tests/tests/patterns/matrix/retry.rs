//! What comes back waits before it is given out again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use linkspan_integration_tests::{Asking, Dialect};

use super::cell::Place;
use super::numbers::{Numbers, numbered};
use super::stage::{LULL, Stage};

pub const COURSE: &str = "Each of 60 messages is given back the first time, and comes again, not before `retry` says. MQTT \
    3.1.1 has no word for giving back: there `ack-timeout` takes them from a consumer that hangs.";

const MESSAGES: u32 = 60;

/// What the route says.
const DELAY: Duration = Duration::from_millis(600);

/// Clocks are read at different moments, and no timer is exact.
const SLACK: Duration = Duration::from_millis(50);

/// How long one is listened to.
const TURN: Duration = Duration::from_millis(50);

pub fn route(place: &Place, to: Dialect) -> String {
    let Place { address, queue } = place;
    let (timeout, delay) =
        (if to == Dialect::Mqtt3 { "ack-timeout = \"1s\"\n" } else { "" }, DELAY.as_millis());
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\nwindow = {MESSAGES}\n\
         negative-puback = \"redeliver\"\nretry = {{ delay = \"{delay}ms\", factor = 1 }}\n{timeout}"
    )
}

pub async fn check(stage: &Stage) {
    let asking = Asking { in_hand: u16::try_from(MESSAGES).ok(), ..Asking::default() };
    stage.publisher("publisher").await.publish(&stage.place.address, numbered(0..MESSAGES)).await;
    let mut given_back = HashMap::new();
    let mut first = stage.worker("first", asking).await;
    let mut hung = Vec::new();
    let mut second = None;
    if stage.cell.to == Dialect::Mqtt3 {
        for _ in 0..MESSAGES {
            let received = first.next().await;
            given_back.insert(received.number(), Instant::now());
            hung.push(received);
        }
        second = Some(stage.worker("second", asking).await);
    }
    let consumer = second.as_mut().unwrap_or(&mut first);
    let mut numbers = Numbers::below(MESSAGES);
    while !numbers.all() {
        let Some(received) = consumer.next_within(TURN).await else {
            numbers.nothing("the consumer again");
            continue;
        };
        let number = received.number();
        match given_back.get(&number) {
            None => {
                given_back.insert(number, Instant::now());
                received.release().await;
            }
            Some(at) => {
                let waited = at.elapsed();
                assert!(waited >= DELAY - SLACK, "{number} comes again after {waited:?}");
                numbers.came(number);
                received.settle().await;
            }
        }
    }
    assert!(
        stage.cell.to == Dialect::Mqtt3 || consumer.next_within(LULL).await.is_none(),
        "one comes a third time"
    );
}

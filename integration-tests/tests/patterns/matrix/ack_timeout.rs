//! What a consumer does not settle in time goes to another one, and what the first one says then is ignored.

use std::time::Duration;

use linkspan_integration_tests::{Asking, Outgoing};

use super::cell::Place;
use super::numbers::{Numbers, numbered};
use super::stage::Stage;

pub const COURSE: &str = "A consumer hangs with five of 60 messages in hand; `ack-timeout` gives them to another one, which \
    works all. What the first one says of them then is ignored (HTTP: 410) and does it no harm: it goes on to be given \
    messages.";

const MESSAGES: u32 = 60;

/// Messages that the consumer hangs with.
const HELD: u16 = 5;

/// How long each is listened to when it may be another's turn.
const TURN: Duration = Duration::from_millis(50);

pub fn route(place: &Place) -> String {
    let Place { address, queue } = place;
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\nwindow = {HELD}\n\
         ack-timeout = \"1500ms\"\n"
    )
}

pub async fn check(stage: &Stage) {
    let asking = Asking { in_hand: Some(HELD), ..Asking::default() };
    let mut publisher = stage.publisher("publisher").await;
    publisher.publish(&stage.place.address, numbered(0..MESSAGES)).await;
    let mut hung = stage.worker("hung", asking).await;
    let mut held = Vec::new();
    for _ in 0..HELD {
        held.push(hung.next().await);
    }
    let mut other = stage.worker("other", asking).await;
    let mut numbers = Numbers::below(MESSAGES);
    while !numbers.all() {
        match other.next_within(TURN).await {
            Some(received) => {
                numbers.came(received.number());
                received.settle().await;
            }
            None => numbers.nothing("the other consumer"),
        }
    }
    other.kill().await;
    for received in held {
        received.settle_too_late().await;
    }
    publisher.publish(&stage.place.address, [Outgoing::text(MESSAGES)]).await;
    loop {
        // What the other one had settled last may have been on the wire.
        let received = hung.next().await;
        let number = received.number();
        received.settle().await;
        if number == MESSAGES {
            break;
        }
    }
}

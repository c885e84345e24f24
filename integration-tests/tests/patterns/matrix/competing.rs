//! Workers share a queue whose messages wait before there is any worker; one is killed with messages in hand, and another
//! one joins.

use std::collections::HashMap;
use std::time::Duration;

use linkspan_integration_tests::Asking;

use super::cell::Place;
use super::numbers::{Numbers, numbered};
use super::stage::Stage;

pub const COURSE: &str = "150 messages wait before any worker comes. Three share them; one is killed with messages in hand, \
    which the others are given; a fourth joins. Each message is worked, by one, and each worker has its share.";

const MESSAGES: u32 = 150;

/// How long a lease lasts that nobody ends.
const LEASE: Duration = Duration::from_secs(4);

/// How long each is listened to when it may be another's turn.
const TURN: Duration = Duration::from_millis(20);

pub fn route(place: &Place) -> String {
    let Place { address, queue } = place;
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\nwindow = 8\n"
    )
}

pub async fn check(stage: &Stage) {
    stage.publisher("publisher").await.publish(&stage.place.address, numbered(0..MESSAGES)).await;
    let worker =
        async |name: &str| stage.worker(name, Asking { lease: Some(LEASE), ..Asking::default() }).await;
    let (mut one, mut two, mut doomed) = (worker("one").await, worker("two").await, worker("doomed").await);
    let mut worked: HashMap<u32, Vec<&'static str>> = HashMap::new();
    let mut numbers = Numbers::below(MESSAGES);
    for _ in 0..10 {
        for (name, worker) in [("one", &mut one), ("two", &mut two), ("doomed", &mut doomed)] {
            let received = worker.next().await;
            numbers.came(received.number());
            worked.entry(received.number()).or_default().push(name);
            received.settle().await;
        }
    }
    // Given and not settled: somebody else has to get these. It is the killed one's last settlements that may have been on
    // the wire.
    let in_hand = [doomed.next().await.number(), doomed.next().await.number()];
    doomed.kill().await;
    let mut four = worker("four").await;
    while !numbers.all() {
        let mut is_idle = true;
        for (name, worker) in [("one", &mut one), ("two", &mut two), ("four", &mut four)] {
            if let Some(received) = worker.next_within(TURN).await {
                numbers.came(received.number());
                worked.entry(received.number()).or_default().push(name);
                received.settle().await;
                is_idle = false;
            }
        }
        if is_idle {
            numbers.nothing("anybody");
        }
    }
    for number in in_hand {
        assert!(worked[&number].iter().any(|name| *name != "doomed"), "{number} died with its worker");
    }
    for (number, by) in &worked {
        assert!(by.len() == 1 || by[0] == "doomed", "{number} was given to {by:?}");
    }
    for survivor in ["one", "two", "four"] {
        let share = worked.values().filter(|by| by.contains(&survivor)).count();
        assert!(share >= MESSAGES as usize / 15, "{survivor} had only {share} of {MESSAGES}");
    }
}

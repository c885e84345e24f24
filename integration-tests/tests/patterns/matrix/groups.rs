//! Each queue of a route gets each message, and the members of a group share its queue.

use std::time::Duration;

use linkspan_integration_tests::{Asking, Taking};

use super::cell::Place;
use super::numbers::{Numbers, numbered};
use super::stage::{LULL, Stage};

pub const COURSE: &str = "Two groups of two members each: each group is given all of 80 messages, its members share them, and \
    no message comes twice to a group.";

const MESSAGES: u32 = 80;

/// How long each is listened to when it may be another's turn.
const TURN: Duration = Duration::from_millis(20);

pub fn route(place: &Place) -> String {
    let Place { address, queue } = place;
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"competing-consumers\"\nqueue = [\"{queue}-a\", \"{queue}-b\"]\n\
         window = 8\n"
    )
}

pub async fn check(stage: &Stage) {
    let mut groups = Vec::new();
    for group in ["a", "b"] {
        let queue = format!("{}-{group}", stage.place.queue);
        let mut members = Vec::new();
        for member in ["one", "two"] {
            let name = format!("{group}-{member}");
            members.push(stage.consumer(&name, Taking::Queue(&queue), Asking::default()).await);
        }
        groups.push((group, members));
    }
    stage.publisher("publisher").await.publish(&stage.place.address, numbered(0..MESSAGES)).await;
    for (group, members) in &mut groups {
        let mut numbers = Numbers::below(MESSAGES);
        let mut shares = [0, 0];
        while !numbers.all() {
            let mut is_idle = true;
            for (member, share) in members.iter_mut().zip(&mut shares) {
                if let Some(received) = member.next_within(TURN).await {
                    let number = received.number();
                    assert!(numbers.came(number), "group {group} is given {number} twice");
                    received.settle().await;
                    *share += 1;
                    is_idle = false;
                }
            }
            if is_idle {
                numbers.nothing(&format!("group {group}"));
            }
        }
        assert!(shares.iter().all(|share| *share > 0), "group {group} is shared so: {shares:?}");
        for member in members {
            assert!(member.next_within(LULL / 2).await.is_none(), "group {group} is given a message twice");
        }
    }
}

//! What is urgent comes first.

use linkspan_integration_tests::{Asking, Dialect, Outgoing, Taking};

use super::cell::Place;
use super::stage::{LULL, Stage};

pub const COURSE: &str = "150 messages of ten levels wait before a consumer comes, which is given them by level, the highest \
    first, and in order within a level. MQTT 3.1.1 has no priorities: there a level of the address says it.";

const MESSAGES: u32 = 150;

/// Levels of the queue.
const LEVELS: u32 = 10;

pub fn route(place: &Place) -> String {
    let Place { address, queue } = place;
    format!(
        "[[route]]\nmatch = \"{address}/+\"\npattern = \"priority-queue\"\nqueue = \"{queue}\"\nlevels = {LEVELS}\n\
         priority-from = \"level:3\"\n"
    )
}

pub async fn check(stage: &Stage) {
    let level = |number: u32| (number * 7) % LEVELS;
    let messages = (0..MESSAGES).map(|number| match stage.cell.from {
        Dialect::Mqtt3 => (format!("{}/{}", stage.place.address, level(number)), Outgoing::text(number)),
        _ => {
            let priority = Some(u8::try_from(level(number)).expect("a level"));
            (format!("{}/any", stage.place.address), Outgoing { priority, ..Outgoing::text(number) })
        }
    });
    stage.publisher("publisher").await.publish_each(messages).await;
    stage.ready(MESSAGES as usize).await;
    let mut expected: Vec<u32> = (0..MESSAGES).collect();
    expected.sort_by_key(|number| std::cmp::Reverse(level(*number)));
    let queue = Taking::Queue(&stage.place.queue);
    let mut consumer =
        stage.consumer("consumer", queue, Asking { in_hand: Some(4), ..Asking::default() }).await;
    for (at, expected) in expected.into_iter().enumerate() {
        let received = consumer.next().await;
        let number = received.number();
        assert_eq!(
            number,
            expected,
            "message {at} is one of level {}, not of level {}",
            level(number),
            level(expected)
        );
        received.settle().await;
    }
    assert!(consumer.next_within(LULL).await.is_none(), "nothing comes twice");
}

//! What is published again is dropped.

use linkspan_integration_tests::{Asking, Dialect, Outgoing};

use super::cell::Place;
use super::stage::{LULL, Stage};

pub const COURSE: &str = "60 messages are published twice, the second time by another connection and with another payload; \
    each comes once, the first one. MQTT 3.1.1 has no message ids: there the payload tells.";

const MESSAGES: u32 = 60;

pub fn route(place: &Place, from: Dialect) -> String {
    let Place { address, queue } = place;
    let by = if from == Dialect::Mqtt3 { "payload" } else { "message-id" };
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\n\
         deduplicate = {{ by = \"{by}\", window = \"10m\" }}\n"
    )
}

pub async fn check(stage: &Stage) {
    let messages = |add: u32| {
        (0..MESSAGES).map(move |number| match stage.cell.from {
            Dialect::Mqtt3 => Outgoing::text(number),
            _ => {
                let message_id = Some(format!("id-{number}"));
                Outgoing { message_id, ..Outgoing::text(number + add) }
            }
        })
    };
    let address = stage.place.address.as_str();
    stage.publisher("first").await.publish(address, messages(0)).await;
    // At a broker another connection may overtake.
    stage.ready(MESSAGES as usize).await;
    stage.publisher("second").await.publish(address, messages(1000)).await;
    let mut consumer = stage.worker("consumer", Asking::default()).await;
    for expected in 0..MESSAGES {
        let received = consumer.next().await;
        assert_eq!(received.number(), expected, "lost, or there although it was there before");
        received.settle().await;
    }
    assert!(consumer.next_within(LULL).await.is_none(), "what was published again comes again");
}

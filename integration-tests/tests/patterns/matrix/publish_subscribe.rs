//! Each of several watchers gets each message, in order.

use linkspan_integration_tests::{Asking, Taking};

use super::cell::Place;
use super::numbers::numbered;
use super::stage::{LULL, Stage};

pub const COURSE: &str = "Two watchers are each given all of 100 messages, in order, each once.";

const MESSAGES: u32 = 100;

pub fn route(place: &Place) -> String {
    format!("[[route]]\nmatch = \"{}\"\npattern = \"publish-subscribe\"\n", place.address)
}

pub async fn check(stage: &Stage) {
    let address = stage.place.address.as_str();
    let watching = Taking::Watch(address);
    let mut watchers = [
        stage.consumer("one", watching, Asking::default()).await,
        stage.consumer("two", watching, Asking::default()).await,
    ];
    let mut publisher = stage.publisher("publisher").await;
    publisher.publish(address, numbered(0..MESSAGES)).await;
    for (at, watcher) in watchers.iter_mut().enumerate() {
        for expected in 0..MESSAGES {
            let received = watcher.next().await;
            assert_eq!(received.number(), expected, "watcher {at} is given another message, or out of order");
            received.settle().await;
        }
        assert!(watcher.next_within(LULL).await.is_none(), "watcher {at} is given a message twice");
    }
}

//! One consumer has the queue; a second one waits, and takes over when the first is killed.

use linkspan_integration_tests::{Asking, Consumer, Dialect};

use super::cell::Place;
use super::numbers::numbered;
use super::stage::{LULL, Stage};

pub const COURSE: &str = "A second consumer stands by and is given nothing. The first works 20 of 60 messages and is killed \
    with messages in hand; the second goes on behind what was settled, in order, under a greater fence. Over HTTP a dead \
    client is found by `holder-timeout`.";

const MESSAGES: u32 = 60;

/// Messages that the first one works.
const WORKED: u32 = 20;

pub fn route(place: &Place, to: Dialect) -> String {
    let Place { address, queue } = place;
    let timeout = if to == Dialect::Http { "holder-timeout = \"4s\"\n" } else { "" };
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"exclusive-consumer\"\nqueue = \"{queue}\"\nothers = \"standby\"\n\
         window = 5\n{timeout}"
    )
}

pub async fn check(stage: &Stage) {
    let asking = Asking { in_hand: Some(5), ..Asking::default() };
    let mut holder = stage.worker("holder", asking).await;
    let mut successor = stage.worker("successor", Asking { guest: true, ..asking }).await;
    stage.publisher("publisher").await.publish(&stage.place.address, numbered(0..MESSAGES)).await;
    let fence = work(&mut holder, 0..WORKED).await;
    let in_hand = holder.next().await;
    assert_eq!(in_hand.number(), WORKED, "lost, twice or out of order");
    assert!(successor.next_within(LULL).await.is_none(), "who stands by is given nothing");
    holder.kill().await;
    let mut first = successor.next().await;
    // What the first one had settled last may have been on the wire.
    while first.number() < WORKED {
        first.settle().await;
        first = successor.next().await;
    }
    assert_eq!(first.number(), WORKED, "the successor goes on behind what was settled");
    let greater = fence_of(&first);
    first.settle().await;
    assert_eq!(work(&mut successor, WORKED + 1..MESSAGES).await, greater, "one holder has one fence");
    assert_eq!(fence.is_some(), stage.cell.to != Dialect::Mqtt3, "there is a fence where there is a place");
    assert!(fence.is_none() || greater > fence, "the successor's fence is greater: {greater:?}, {fence:?}");
    assert!(successor.next_within(LULL).await.is_none(), "nothing comes twice");
    drop(in_hand);
}

/// Has `consumer` work these messages, in order; its fence.
async fn work(consumer: &mut Consumer, numbers: std::ops::Range<u32>) -> Option<u64> {
    let mut fence = None;
    for expected in numbers {
        let received = consumer.next().await;
        assert_eq!(received.number(), expected, "lost, twice or out of order");
        fence = fence_of(&received);
        received.settle().await;
    }
    fence
}

fn fence_of(received: &linkspan_integration_tests::Received) -> Option<u64> {
    received.property("linkspan-fence").map(|fence| fence.parse().expect("a number"))
}

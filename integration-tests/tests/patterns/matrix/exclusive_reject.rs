//! One consumer has the queue, and a second one is refused in the words of its protocol.

use linkspan_integration_tests::{Asking, Dialect};

use super::cell::Place;
use super::numbers::numbered;
use super::stage::Stage;

pub const COURSE: &str = "A second consumer is refused in the words of its protocol (SUBACK 0x80 and 0x97, AMQP 403, HTTP \
    409). The first is given all of 60 messages, each publisher's in order, under one fence, where its protocol has a place \
    for that.";

/// Messages of each of two publishers.
const EACH: u32 = 30;

pub fn route(place: &Place) -> String {
    let Place { address, queue } = place;
    format!("[[route]]\nmatch = \"{address}\"\npattern = \"exclusive-consumer\"\nqueue = \"{queue}\"\n")
}

pub async fn check(stage: &Stage) {
    let mut holder = stage.worker("holder", Asking::default()).await;
    let guest = Asking { guest: true, ..Asking::default() };
    let refused = stage.ask("second", stage.work(), guest).await.err().expect("a second consumer is refused");
    let code = match stage.cell.to {
        Dialect::Mqtt3 => 0x80,
        Dialect::Mqtt5 => 0x97,
        Dialect::Amqp => 403,
        Dialect::Http => 409,
    };
    assert_eq!(refused.code, code, "{refused:?}");
    let (mut left, mut right) = (stage.publisher("left").await, stage.publisher("right").await);
    let address = stage.place.address.as_str();
    tokio::join!(
        left.publish(address, numbered(0..EACH)),
        right.publish(address, numbered(1000..1000 + EACH))
    );
    let (mut next_left, mut next_right, mut fence) = (0, 1000, None);
    for _ in 0..2 * EACH {
        let received = holder.next().await;
        let next = if received.number() < 1000 { &mut next_left } else { &mut next_right };
        assert_eq!(received.number(), *next, "lost, twice or out of order");
        *next += 1;
        let mine = received.property("linkspan-fence").map(str::to_owned);
        assert_eq!(mine.is_some(), stage.cell.to != Dialect::Mqtt3, "the fence: {:?}", received.properties);
        assert_eq!(*fence.get_or_insert_with(|| mine.clone()), mine, "one holder has one fence");
        received.settle().await;
    }
    let refused = stage.ask("third", stage.work(), guest).await.err().expect("a third consumer is refused");
    assert_eq!(refused.code, code, "{refused:?}");
}

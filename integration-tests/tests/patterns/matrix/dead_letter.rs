//! What nobody can work goes elsewhere.

use std::time::Duration;

use linkspan_integration_tests::{Asking, Consumer, Dialect, Taking};

use super::cell::Place;
use super::numbers::{Numbers, numbered};
use super::stage::{LULL, Stage};

pub const COURSE: &str = "Of 60 messages the consumer accepts every other one and rejects the rest; exactly those are in the \
    queue of dead letters, with the reason, where the protocol has properties. MQTT 3.1.1 has no word for rejecting: there \
    two consumers die with them in hand, and `max-deliveries` is 2.";

const MESSAGES: u32 = 60;

/// How long a settlement may be on its way before the connection is cut.
const ON_THE_WIRE: Duration = Duration::from_millis(300);

pub fn route(place: &Place, to: Dialect) -> String {
    let Place { address, queue } = place;
    let most = if to == Dialect::Mqtt3 { "max-deliveries = 2\n" } else { "" };
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\nwindow = {MESSAGES}\n\
         {most}dead-letter = {{ address = \"{address}/dead\", queue = \"{queue}-dead\" }}\n"
    )
}

/// Whether a consumer has no use for that message.
fn is_bad(number: u32) -> bool {
    number % 2 == 1
}

pub async fn check(stage: &Stage) {
    stage.publisher("publisher").await.publish(&stage.place.address, numbered(0..MESSAGES)).await;
    // It is there until all is over: what it says may be on its way for some time.
    let mut rejecting = None;
    match stage.cell.to {
        Dialect::Mqtt3 => {
            for name in ["first", "second"] {
                die_in_vain(stage.worker(name, Asking::default()).await).await;
            }
        }
        _ => {
            let worker = rejecting.insert(stage.worker("worker", Asking::default()).await);
            for _ in 0..MESSAGES {
                let received = worker.next().await;
                if is_bad(received.number()) {
                    received.reject().await;
                } else {
                    received.settle().await;
                }
            }
        }
    }
    let dead = format!("{}-dead", stage.place.queue);
    let mut undertaker = stage.consumer("undertaker", Taking::Queue(&dead), Asking::default()).await;
    let mut numbers = Numbers::of((0..MESSAGES).filter(|number| is_bad(*number)));
    while !numbers.all() {
        let received = undertaker.next().await;
        let number = received.number();
        assert!(numbers.came(number), "{number} is no dead letter, or is one twice");
        if stage.cell.to != Dialect::Mqtt3 {
            let reason = received.property("linkspan-dead-reason");
            assert_eq!(reason, Some("rejected"), "{number}: {:?}", received.properties);
            let queue = received.property("linkspan-dead-last-queue");
            assert_eq!(queue, Some(stage.place.queue.as_str()), "{number}: {:?}", received.properties);
        }
        received.settle().await;
    }
    assert!(undertaker.next_within(LULL).await.is_none(), "there is a dead letter that is none");
    drop(rejecting);
}

/// Accepts what is good, and dies with all the rest in hand.
async fn die_in_vain(mut worker: Consumer) {
    let mut bad = Vec::new();
    while bad.len() < MESSAGES as usize / 2 {
        let received = worker.next().await;
        if is_bad(received.number()) {
            bad.push(received);
        } else {
            received.settle().await;
        }
    }
    tokio::time::sleep(ON_THE_WIRE).await;
    worker.kill().await;
}

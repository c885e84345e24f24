//! Messages that the broker closes a channel for.

use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::conformance::stage::Stage;
use linkspan_contract::{
    Address, Batch, Destination, Flags, Malformed, Outcome, Properties, Refused, Syntax, Value, WireForm,
    neutral::NEUTRAL,
};

use super::Linked;

/// Messages of the broker's own protocol, whose headers pass as they are.
struct Native;

impl WireForm for Native {
    fn id(&self) -> u8 {
        NEUTRAL.id()
    }

    fn name(&self) -> &'static str {
        "AMQP 0-9-1"
    }

    fn address<'a>(&self, encoded: &'a [u8]) -> Address<'a> {
        NEUTRAL.address(encoded)
    }

    fn properties<'a>(&self, encoded: &'a [u8]) -> Result<Properties<'a>, Malformed> {
        NEUTRAL.properties(encoded)
    }
}

static NATIVE: Native = Native;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_says_closes_nobodys_channel() {
    let linked = Linked::with(|options| options.body_limit = 1000).await;
    let stage = Stage::new(&linked, "poison").await;
    let queue = stage.name("q");
    let (mut evil, mut good) = (stage.client().await, stage.client().await);
    good.queue(&queue, &[]).await;
    let (from_evil, from_good) = (evil.to_queue(&queue), good.to_queue(&queue));
    let long = evil.to_topic(&"x".repeat(300));
    let plain = |number| Letter::numbered(from_evil, number).confirmed();
    let mut claims = plain(2);
    claims.properties.user_id = Some("root".into());
    let mut large = plain(4);
    large.payload = vec![b'x'; 2000];
    let letters: Letters = [
        plain(0).header("CC", Value::I32(7)),
        plain(1).header("BCC", Value::Text("elsewhere".into())),
        claims,
        plain(3).expiring(0x0FFF_FFFF_F000),
        large,
        Letter::numbered(long, 5).confirmed(),
        plain(6),
    ]
    .into_iter()
    .collect();
    let refused = evil.confirm(&letters).await;
    let places: Vec<u32> = refused.iter().map(|(place, _)| *place).collect();
    let mut sorted = places.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [4, 5], "{refused:?}");
    assert_eq!(good.confirm(&Letters::confirmed(from_good, [7])).await, []);
    good.consume(&queue, 1, 0).await;
    let given = good.expect_numbers([0, 1, 2, 3, 6, 7]).await;
    assert!(given[0].properties.header("CC").is_none() && given[0].properties.header("mqtt.CC").is_some());
    good.delete_queue(&queue, false, false).await.expect("the queue is deleted");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_culprit_of_a_closed_channel_is_found_and_the_others_are_sent_again_in_their_order() {
    let linked = Linked::with(|options| options.connections = 1).await;
    let stage = Stage::new(&linked, "culprit").await;
    let queue = stage.name("q");
    let (mut evil, mut good) = (stage.client().await, stage.client().await);
    good.queue(&queue, &[]).await;
    let (from_evil, from_good) = (evil.to_queue(&queue), good.to_queue(&queue));
    let poisoned: Letters = (1000..1100)
        .map(|number| {
            let letter = Letter::numbered(from_evil, number).confirmed();
            if number == 1050 { letter.header("CC", Value::I32(7)) } else { letter }
        })
        .collect();
    let before = good.publish(&Letters::confirmed(from_good, 0..50));
    let batch = Batch { form: &NATIVE, ..poisoned.batch() };
    let published = evil.publish_batch(&batch);
    let after = good.publish(&Letters::confirmed(from_good, 50..100));
    let told = evil.receipts(published.first..published.first + 100).await;
    let refused: Vec<_> = told.iter().filter(|it| it.outcome != Outcome::Accepted).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!((refused[0].first, refused[0].count), (50, 1));
    assert!(matches!(refused[0].outcome, Outcome::Refused(Refused::Precondition(_))), "{refused:?}");
    let told = good.receipts(before.first..after.first + 50).await;
    assert!(told.iter().all(|it| it.outcome == Outcome::Accepted), "{told:?}");
    good.consume(&queue, 1, 0).await;
    stage.settle_down().await;
    let mut seen = std::collections::HashSet::new();
    let numbers: Vec<u32> = good
        .recorder()
        .take_all()
        .iter()
        .filter_map(|it| it.payload.parse().ok())
        .filter(|number| seen.insert(*number))
        .collect();
    let (evils, goods): (Vec<u32>, Vec<u32>) = numbers.iter().partition(|number| **number >= 1000);
    assert_eq!(goods, (0..100).collect::<Vec<_>>());
    assert_eq!(evils, (1000..1100).filter(|number| *number != 1050).collect::<Vec<_>>());
    assert!(good.events().is_empty(), "it knows nothing of it");
    good.delete_queue(&queue, false, false).await.expect("the queue is deleted");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_the_brokers_protocol_is_told_by_the_end_of_its_lane() {
    let linked = Linked::new().await;
    let stage = Stage::new(&linked, "native").await;
    let mut client = stage.client().await;
    let path = "x".repeat(300);
    let target = client.target(&Destination::Address {
        path: path.as_bytes(),
        syntax: Syntax::Key,
        more: &[],
        queues: &[],
    });
    let letters: Letters = [Letter::numbered(target, 1).flagged(Flags::DURABLE)].into_iter().collect();
    client.publish_batch(&Batch { form: &NATIVE, ..letters.batch() });
    stage.settle_down().await;
    let events = client.events();
    assert!(
        matches!(&events[..], [linkspan_contract::LaneEvent::Closed { code: 406, .. }]),
        "one end: {events:?}"
    );
    stage.close().await;
}

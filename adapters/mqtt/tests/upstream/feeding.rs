//! Work queues that the broker feeds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linkspan_contract::{
    Destination, Fence, Lease, Leases, NotGranted, Refused, Settle, Settled, Settlement, Source, Subscribe,
    Syntax, SystemClock,
};
use linkspan_integration_tests::{Cable, Mosquitto};
use linkspan_mqtt::MqttBackend;
use rumqttc::{AsyncClient, MqttOptions as DeviceOptions, QoS};

use crate::stage::{PATIENCE, Peer, by, key, name, options, reached, wait_for, without_repetitions};

/// A device that knows nothing of Linkspan.
async fn device(broker: &Mosquitto, topic: &str, numbers: std::ops::Range<u32>) {
    let at = broker.address();
    let mut options = DeviceOptions::new(name("device"), at.ip().to_string(), at.port());
    options.set_inflight(20);
    let (client, mut events) = AsyncClient::new(options, 10_000);
    let count = numbers.len();
    for number in numbers {
        client.publish(topic, QoS::AtLeastOnce, false, number.to_string()).await.expect("a device publishes");
    }
    let mut acknowledged = 0;
    while acknowledged < count {
        let event = events.poll().await.expect("a device is connected");
        acknowledged += usize::from(matches!(event, rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_devices_publish_at_the_broker_is_work_and_watchers_get_copies() {
    let broker = Mosquitto::shared().await;
    let backend = reached(options(broker.url())).await;
    let (queue, root) = (name("q/with+odd#letters"), name("jobs"));
    let mut hub = Peer::of(&*backend).await;
    hub.queue(&queue).await;
    hub.lane.feed(&queue, &[&format!("{root}/+")], &[]).await.expect("a queue is fed");
    let (mut one, mut two, mut watcher) =
        (Peer::of(&*backend).await, Peer::of(&*backend).await, Peer::of(&*backend).await);
    one.consume(&queue, 1).await;
    two.consume(&queue, 1).await;
    watcher.watch(&format!("{root}/#"), 1, Settle::OnDelivery).await;
    device(broker, &format!("{root}/1"), 0..100).await;
    assert_eq!(watcher.numbers_until(99).await, (0..100).collect::<Vec<_>>());
    // A client here publishes to the same address: the broker brings it, and nobody else does.
    let path = format!("{root}/2");
    let target = watcher.lane.target(&Destination::Address {
        path: path.as_bytes(),
        syntax: Syntax::Topic,
        more: &[],
        queues: &[queue.as_str().into()],
    });
    watcher.publish(target, 100..200);
    assert_eq!(watcher.confirmed().await, []);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut all = Vec::new();
    for worker in [&one, &two] {
        let given = worker.recorder.take_all();
        assert!(given.len() >= 50, "they share: {}", given.len());
        all.extend(given.iter().map(|it| it.payload.parse::<u32>().unwrap()));
    }
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>(), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_devices_publish_while_linkspan_is_away_waits_at_the_broker() {
    let broker = Mosquitto::shared().await;
    let cable = Cable::to(broker.address()).await;
    let (queue, topic) = (name("q"), name("jobs"));
    let backend = reached(options(&by(&cable))).await;
    let mut hub = Peer::of(&*backend).await;
    hub.queue(&queue).await;
    hub.lane.feed(&queue, &[&topic], &[]).await.expect("a queue is fed");
    device(broker, &topic, 0..50).await;
    hub.consume(&queue, 1).await;
    assert_eq!(hub.numbers_until(49).await, (0..50).collect::<Vec<_>>());
    // The acknowledgements have to get there.
    tokio::time::sleep(Duration::from_millis(200)).await;
    cable.cut().await;
    wait_for(&backend, false).await;
    device(broker, &topic, 50..1050).await;
    cable.heal().await;
    let numbers = hub.numbers_until(1049).await;
    assert_eq!(without_repetitions(&numbers), (50..1050).collect::<Vec<_>>());
    assert_eq!(numbers.len(), 1000, "what was acknowledged does not come again");
    // Another life under the same client identifier takes the session over, with what waits in it.
    drop(hub);
    drop(backend);
    device(broker, &topic, 1050..1100).await;
    let backend = reached(options(broker.url())).await;
    let mut hub = Peer::of(&*backend).await;
    hub.queue(&queue).await;
    hub.lane.feed(&queue, &[&topic], &[]).await.expect("a queue is fed");
    hub.consume(&queue, 1).await;
    let numbers = hub.numbers_until(1099).await;
    assert!(numbers.ends_with(&(1050..1100).collect::<Vec<_>>()), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_fed_over_ten_cuts_without_loss_and_in_order() {
    let broker = Mosquitto::shared().await;
    let cable = Cable::to(broker.address()).await;
    let (queue, topic) = (name("q"), name("jobs"));
    let backend = reached(options(&by(&cable))).await;
    let mut hub = Peer::of(&*backend).await;
    hub.queue(&queue).await;
    hub.lane.feed(&queue, &[&topic], &[]).await.expect("a queue is fed");
    hub.consume(&queue, 1).await;
    let publishing = device(broker, &topic, 0..3000);
    let cutting = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            cable.reset();
        }
    };
    tokio::join!(publishing, cutting);
    let mut numbers = hub.numbers_until(2999).await;
    while without_repetitions(&numbers).len() < 3000 {
        numbers.extend(hub.numbers_until(2999).await);
    }
    assert_eq!(without_repetitions(&numbers), (0..3000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_leaves_messages_at_the_broker() {
    let broker = Mosquitto::shared().await;
    let small = linkspan_embedded::EmbeddedOptions { queue_limit: 4000, ..Default::default() };
    let backend = reached(linkspan_mqtt::MqttOptions { queues: small, ..options(broker.url()) }).await;
    let (queue, topic) = (name("q"), name("jobs"));
    let mut hub = Peer::of(&*backend).await;
    hub.queue(&queue).await;
    hub.lane.feed(&queue, &[&topic], &[]).await.expect("a queue is fed");
    device(broker, &topic, 0..1000).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let there = backend.queues().iter().map(|it| it.ready).sum::<u64>();
    assert!(there > 0 && there < 500, "the queue takes 4,000 bytes, and has {there} messages");
    let mut numbers = Vec::new();
    hub.consume(&queue, 1).await;
    while numbers.len() < 1000 {
        let given = hub.recorder.expect(1, PATIENCE).await;
        for one in given {
            numbers.push(one.payload.parse::<u32>().unwrap());
            let settled =
                Settled { key: key(1), first: one.tag, count: 1, outcome: Settlement::Accept, word: None };
            hub.lane.settle(&[settled]);
        }
        hub.lane.resume();
        hub.lane.flush();
    }
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>(), "in order, each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_not_fed_any_more_is_left_alone() {
    let broker = Mosquitto::shared().await;
    let backend = reached(options(broker.url())).await;
    let (queue, one, two) = (name("q"), name("one"), name("two"));
    let mut hub = Peer::of(&*backend).await;
    hub.queue(&queue).await;
    hub.consume(&queue, 1).await;
    hub.lane.feed(&queue, &[&one], &[]).await.expect("a queue is fed");
    hub.lane.feed(&queue, &[&two], &[]).await.expect("a queue is fed by another filter");
    tokio::time::sleep(Duration::from_millis(200)).await;
    device(broker, &one, 0..5).await;
    device(broker, &two, 5..10).await;
    assert_eq!(hub.numbers_until(9).await, (5..10).collect::<Vec<_>>());
    hub.lane.feed(&queue, &[], &[]).await.expect("a queue is fed no more");
    // The broker hears of it a little later; what was taken before and not acknowledged yet may come twice.
    let mut number = 10;
    loop {
        device(broker, &two, number..number + 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let came = hub.recorder.take_all();
        if came.iter().all(|it| it.payload != number.to_string()) {
            break;
        }
        number += 1;
        assert!(number < 40, "the queue is still fed: {came:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_a_more_specific_route_is_acknowledged_and_not_queued() {
    let broker = Mosquitto::shared().await;
    let backend = reached(options(broker.url())).await;
    let (queue, root) = (name("q"), name("jobs"));
    let (all, log) = (format!("{root}/#"), format!("{root}/log"));
    let mut hub = Peer::of(&*backend).await;
    hub.queue(&queue).await;
    hub.lane.feed(&queue, &[&all], &[&log]).await.expect("a queue is fed");
    let mut watcher = Peer::of(&*backend).await;
    watcher.watch(&log, 1, Settle::OnDelivery).await;
    hub.consume(&queue, 1).await;
    device(broker, &log, 0..1000).await;
    device(broker, &format!("{root}/1"), 1000..1005).await;
    assert_eq!(hub.numbers_until(1004).await, (1000..1005).collect::<Vec<_>>());
    assert_eq!(watcher.numbers_until(999).await.len(), 1000, "who is subscribed gets it");
    // The other route has gone.
    hub.lane.feed(&queue, &[&all], &[]).await.expect("a queue is fed");
    device(broker, &log, 1005..1010).await;
    assert_eq!(hub.numbers_until(1009).await, (1005..1010).collect::<Vec<_>>());
}

/// Leases that somebody else has.
struct Elsewhere;

#[async_trait]
impl Leases for Elsewhere {
    async fn take(&self, _name: &str) -> Result<Lease, NotGranted> {
        Err(NotGranted::Held("berlin-2".into()))
    }

    async fn give_back(&self, _name: &str, _fence: Fence) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_lease_another_instance_has_is_refused_with_its_name() {
    let broker = Mosquitto::shared().await;
    let backend =
        MqttBackend::open("broker", options(broker.url()), Arc::new(SystemClock), Arc::new(Elsewhere))
            .unwrap();
    wait_for(&backend, true).await;
    let (queue, topic) = (name("q"), name("t"));
    let mut hub = Peer::of(&*backend).await;
    hub.queue(&queue).await;
    hub.lane.feed(&queue, &[&topic], &[]).await.expect("it is noted");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let how = Subscribe::new(Settle::ByConsumer);
    let refused = hub.lane.subscribe(&Source::Queue(&queue), key(1), &how, None).await;
    let Err(Refused::AccessRefused(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("held by Linkspan instance 'berlin-2'"), "{why}");
    assert!(hub.lane.fetch(&queue, key(2), true).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_claim_one_queue_do_not_throw_each_other_out_for_ever() {
    let broker = Mosquitto::shared().await;
    let (queue, topic) = (name("q"), name("t"));
    let mut peers = Vec::new();
    for _ in 0..2 {
        let backend = reached(options(broker.url())).await;
        let mut hub = Peer::of(&*backend).await;
        hub.queue(&queue).await;
        hub.lane.feed(&queue, &[&topic], &[]).await.expect("a queue is fed");
        peers.push((backend, hub));
    }
    let how = Subscribe::new(Settle::ByConsumer);
    let mut loser = None;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (at, (_, hub)) in peers.iter_mut().enumerate() {
            if let Err(refused) = hub.lane.subscribe(&Source::Queue(&queue), key(1), &how, None).await {
                loser = Some((at, refused));
            }
        }
        if loser.is_some() {
            break;
        }
    }
    let Some((at, Refused::AccessRefused(why))) = loser else { panic!("one was to give in: {loser:?}") };
    assert!(why.contains("took over"), "{why}");
    let (_, winner) = &mut peers[1 - at];
    winner.consume(&queue, 1).await;
    device(broker, &topic, 0..10).await;
    assert_eq!(winner.numbers_until(9).await, (0..10).collect::<Vec<_>>());
    // Who gave in tries again when it is told to, as a reload of the configuration does.
    let (_, loser) = &mut peers[at];
    loser.lane.feed(&queue, &[&topic], &[]).await.expect("a queue is fed");
    loser.consume(&queue, 7).await;
}

//! All three back ends behind one client.

use std::collections::HashMap;
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::http::get;
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Cable, Mosquitto, RabbitMq, Server, soon, within};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::mpsc;

use crate::LULL;
use crate::back_ends::{LOCAL, all, home_is, mosquitto_at, news, rabbit_at, work};

const TEN: usize = 10;

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

async fn durable_queue(client: &Amqp, name: &str) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
}

/// A subscriber of everything that takes so many at a time, and acknowledges when it is told to.
async fn subscriber_of_everything(server: &Server) -> (AsyncClient, mpsc::Receiver<Publish>) {
    let mut options = Mqtt5::options(server.mqtt(), "everything");
    options.set_manual_acks(true);
    let mut properties = ConnectProperties::new();
    properties.receive_maximum = Some(TEN as u16);
    options.set_connect_properties(properties);
    let (client, mut events) = AsyncClient::new(options, 100);
    client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    let (sender, publishes) = mpsc::channel(1000);
    let granted = async {
        loop {
            if let Event::Incoming(Packet::SubAck(ack)) = events.poll().await.unwrap() {
                assert_eq!(ack.return_codes, [SubscribeReasonCode::Success(QoS::AtLeastOnce)]);
                return;
            }
        }
    };
    soon("a SUBACK", granted).await;
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if let Event::Incoming(Packet::Publish(publish)) = event
                && sender.send(publish).await.is_err()
            {
                return;
            }
        }
    });
    (client, publishes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_of_everything_has_no_more_in_hand_than_it_takes_and_no_back_end_starves() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let places = [("local", unique("l")), ("rabbit", unique("r")), ("mosquitto", unique("m"))];
    let routes = places.iter().map(|(backend, place)| news(&format!("{place}/#"), backend));
    let server =
        Server::start(&format!("{}{}", all(rabbitmq, mosquitto, "local"), routes.collect::<String>())).await;
    let (client, mut publishes) = subscriber_of_everything(&server).await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    const EACH: usize = 60;
    for n in 0..EACH {
        for (_, place) in &places {
            publisher.publish(&format!("{place}/{n}"), &n.to_string()).await;
        }
    }

    let mut in_hand = Vec::new();
    while in_hand.len() < TEN {
        in_hand.push(soon("messages for its window", publishes.recv()).await.unwrap());
    }
    assert!(within(LULL, publishes.recv()).await.is_none(), "there is an eleventh in its hands");

    let mut came: HashMap<String, Vec<usize>> = HashMap::new();
    let mut total = 0;
    let mut first_half = HashMap::new();
    while total < EACH * places.len() {
        let publish = in_hand.remove(0);
        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
        let (place, n) = topic.split_once('/').unwrap();
        came.entry(place.to_owned()).or_default().push(n.parse().unwrap());
        total += 1;
        if total == EACH * places.len() / 2 {
            first_half = came.iter().map(|(place, all)| (place.clone(), all.len())).collect();
        }
        client.ack(&publish).await.unwrap();
        let rest = EACH * places.len() - total - in_hand.len();
        if rest > 0 {
            in_hand.push(soon("one for the one acknowledged", publishes.recv()).await.unwrap());
        }
        assert!(in_hand.len() + publishes.len() <= TEN, "more than ten in its hands");
    }
    for (backend, place) in &places {
        assert_eq!(came[place], (0..EACH).collect::<Vec<_>>(), "all from {backend}, in order");
        let share = first_half.get(place).copied().unwrap_or(0);
        assert!(share >= EACH / 6, "{backend} had {share} of the first {}", EACH * places.len() / 2);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_with_a_global_prefetch_of_ten_consumes_and_gets_from_two() {
    consume_and_get_from_two(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_has_worked_for_one_back_end_starves_neither_when_it_works_for_two() {
    consume_and_get_from_two(1).await;
    consume_and_get_from_two(2).await;
}

/// With so many acknowledgements before there is a second consumer, which is RabbitMQ's.
async fn consume_and_get_from_two(before: usize) {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let (one, two) = (unique("one"), unique("two"));
    let routes = format!("{}{}", work(&one, &one, "rabbit"), work(&two, &two, "mosquitto"));
    let server = Server::start(&format!("{}{routes}", all(rabbitmq, mosquitto, "rabbit"))).await;
    let client = Amqp::confirming(server.amqp()).await;
    const EACH: usize = 40;
    for n in 0..EACH {
        for queue in [&one, &two] {
            let confirmed =
                client.publish_as("amq.topic", queue, &format!("{queue} {n}"), persistent()).await;
            assert_eq!(confirmed, Confirmation::Ack(None));
        }
    }
    let work_is_there = async {
        while client.counts(&two).await.0 < EACH as u32 {
            tokio::task::yield_now().await;
        }
    };
    soon("the queue is fed", work_is_there).await;

    let channel = client.connection.create_channel().await.unwrap();
    channel.basic_qos(TEN as u16, BasicQosOptions { global: true }).await.unwrap();
    let consume = async |queue: &str| {
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        channel.basic_consume(queue.into(), queue.into(), options, none).await.unwrap()
    };
    let mut second = consume(&two).await;
    let mut in_hand = Vec::new();
    let mut came: HashMap<String, usize> = HashMap::new();
    if before > 0 {
        while in_hand.len() < TEN {
            in_hand.push(soon("deliveries for the prefetch", second.next()).await.unwrap().unwrap());
        }
    }
    for _ in 0..before {
        in_hand.remove(0).ack(BasicAckOptions::default()).await.unwrap();
        *came.entry(two.clone()).or_default() += 1;
        in_hand.push(soon("one for the one acknowledged", second.next()).await.unwrap().unwrap());
    }
    let mut consumers = consume(&one).await.or(second);
    while in_hand.len() < TEN {
        in_hand.push(soon("deliveries for the prefetch", consumers.next()).await.unwrap().unwrap());
    }
    assert!(within(LULL, consumers.next()).await.is_none(), "there is an eleventh in its hands");

    // the window is full: basic.get is another way in, and takes from both
    for queue in [&one, &two] {
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap();
        let got = got.expect("there is more work than the window");
        assert!(text(&got.delivery.data).starts_with(queue.as_str()));
        got.delivery.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
    }

    let mut half = HashMap::new();
    for total in before + 1..=2 * EACH {
        let delivery = in_hand.remove(0);
        let payload = text(&delivery.data);
        *came.entry(payload.split_once(' ').unwrap().0.to_owned()).or_default() += 1;
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        if total == EACH {
            half = came.clone();
        }
        if total + in_hand.len() < 2 * EACH {
            in_hand.push(soon("one for the one acknowledged", consumers.next()).await.unwrap().unwrap());
        }
    }
    assert!(within(LULL, consumers.next()).await.is_none(), "something came twice");
    for queue in [&one, &two] {
        assert_eq!(came[queue], EACH, "all of {queue}");
        assert!(half.get(queue).copied().unwrap_or(0) >= EACH / 6, "{queue} starved: {half:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_on_rabbitmq_gets_what_devices_publish_at_mosquitto() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let (sensors, queue) = (unique("sensors"), unique("readings"));
    let route = news(&format!("{sensors}/#"), "mosquitto");
    let server = Server::start(&format!("{}{route}", all(rabbitmq, mosquitto, "rabbit"))).await;
    let client = Amqp::connect(server.amqp()).await;
    durable_queue(&client, &queue).await;
    client.bind(&queue, "amq.topic", &format!("{sensors}.#")).await;

    // at once: a binding that was confirmed is in force
    let mut device = Mqtt5::connect(mosquitto.address(), &unique("device")).await;
    const READINGS: usize = 100;
    for n in 0..READINGS {
        device.publish(&format!("{sensors}/7/temperature"), &n.to_string()).await;
    }
    let at_rabbitmq = Amqp::connect(rabbitmq.address()).await;
    let all_there = async {
        while at_rabbitmq.counts(&queue).await.0 < READINGS as u32 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the queue at RabbitMQ has them", all_there).await;
    let expected: Vec<String> = (0..READINGS).map(|n| n.to_string()).collect();
    assert_eq!(client.drain(&queue).await, expected);

    client.channel.queue_delete(queue.as_str().into(), Default::default()).await.unwrap();
    device.publish(&format!("{sensors}/7/temperature"), "nobody's").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_of_rabbitmq_reach_an_address_on_mosquitto_though_the_link_is_cut_in_between() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let cable = Cable::to(mosquitto.address()).await;
    let (jobs, failed) = (unique("jobs"), unique("failed"));
    let configuration = format!(
        "{LOCAL}{}{}{}{}dead-letter = \"{failed}/jobs\"\n{}",
        rabbit_at(rabbitmq.url()),
        mosquitto_at(&format!("mqtt://{}", cable.address())),
        home_is("rabbit"),
        work(&jobs, &jobs, "rabbit"),
        news(&format!("{failed}/#"), "mosquitto"),
    );
    let server = Server::start(&configuration).await;
    let mut watcher = Mqtt5::connect(mosquitto.address(), &unique("watcher")).await;
    watcher.subscribe(&format!("{failed}/#")).await;
    let client = Amqp::confirming(server.amqp()).await;
    const JOBS: usize = 90;
    for n in 0..JOBS {
        client.publish_as("amq.topic", &jobs, &n.to_string(), persistent()).await;
    }
    for n in 0..JOBS {
        let job = client.channel.basic_get(jobs.as_str().into(), BasicGetOptions::default()).await.unwrap();
        let job = job.expect("a job").delivery;
        job.nack(BasicNackOptions { requeue: false, multiple: false }).await.unwrap();
        match n {
            30 => cable.cut().await,
            60 => cable.heal().await,
            _ => {}
        }
    }
    let mut came = Vec::new();
    while !(0..JOBS).all(|n| came.contains(&n)) {
        came.push(watcher.next_text().await.parse().unwrap());
    }
    let mut first = Vec::new();
    for n in &came {
        if !first.contains(n) {
            first.push(*n);
        }
    }
    assert_eq!(first, (0..JOBS).collect::<Vec<_>>(), "in the order in which they were given up");
    let dead = format!("linkspan.dead.{jobs}");
    let at_rabbitmq = Amqp::connect(rabbitmq.address()).await;
    let settled = async {
        while at_rabbitmq.counts(&dead).await.0 > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("what has arrived is settled", settled).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_moves_a_queue_to_another_back_end_when_it_is_empty_or_may_be_drained() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let jobs = unique("jobs");
    let on = |backend: &str, more: &str| {
        format!("{}{}{more}", all(rabbitmq, mosquitto, "local"), work(&jobs, &jobs, backend))
    };
    let server = Server::start(&on("local", "")).await;
    let client = Amqp::confirming(server.amqp()).await;
    let mut worker = Mqtt5::connect(server.mqtt(), "worker").await;
    for (from, to) in
        [("local", "rabbit"), ("rabbit", "mosquitto"), ("mosquitto", "local"), ("local", "mosquitto")]
    {
        for n in 0..5 {
            client.publish_as("amq.topic", &jobs, &format!("{from} {n}"), persistent()).await;
        }
        let fed = async {
            while client.counts(&jobs).await.0 < 5 {
                tokio::task::yield_now().await;
            }
        };
        soon("the queue has them", fed).await;
        let refused =
            server.broker().reload(server.config(&on(to, ""))).await.expect_err("five would be stranded");
        let refused = refused.to_string();
        assert!(refused.contains(&jobs) && refused.contains("5 messages"), "{refused}");

        let drained = server.broker().reload(server.config(&on(to, "drain = true\n"))).await;
        drained.unwrap_or_else(|error| panic!("from {from} to {to}: {error}"));
        client.publish_as("amq.topic", &jobs, "new", persistent()).await;
        let expected: Vec<String> = (0..5).map(|n| format!("{from} {n}")).chain(["new".to_owned()]).collect();
        let mut came = Vec::new();
        let all = async {
            while came.len() < expected.len() {
                came.extend(client.get(&jobs).await);
            }
        };
        soon("what was drained, and then what is new", all).await;
        assert_eq!(came, expected, "from {from} to {to}");

        // empty, it moves without that, and those who work there go with it
        server.broker().reload(server.config(&on(from, ""))).await.unwrap();
        assert_eq!(worker.subscribe(&jobs).await, SubscribeReasonCode::Success(QoS::AtLeastOnce));
        server.broker().reload(server.config(&on(to, ""))).await.unwrap();
        client.publish_as("amq.topic", &jobs, "moved", persistent()).await;
        assert_eq!(worker.next_text().await, "moved", "from {from} to {to}");
        worker.unsubscribe(&jobs).await;
    }
    // RabbitMQ does not tell what workers have in hand: what was emptied there stays, for people to delete
    let at_rabbitmq = Amqp::connect(rabbitmq.address()).await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let stays = at_rabbitmq.channel.queue_declare(jobs.as_str().into(), options, FieldTable::default()).await;
    let stays = stays.expect("the queue that lost its route stays at RabbitMQ");
    assert_eq!(stays.message_count(), 0, "all of it has moved");
    let options = QueueDeleteOptions { if_unused: true, if_empty: true, ..QueueDeleteOptions::default() };
    let deleted = at_rabbitmq.channel.queue_delete(jobs.as_str().into(), options).await;
    assert_eq!(deleted.expect("nobody uses it"), 0);
    server.stop().await;
}

/// Returns when `/readyz` says so.
async fn ready(server: &Server) {
    let ready = async {
        while get(server.http(), "/readyz", &[]).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("every back end is there", ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_of_everything_comes_while_one_back_end_is_away() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    for (away, since_start) in
        [("mosquitto", true), ("mosquitto", false), ("rabbit", true), ("rabbit", false)]
    {
        let (to_rabbitmq, to_mosquitto) =
            (Cable::to(rabbitmq.address()).await, Cable::to(mosquitto.address()).await);
        let cable = if away == "rabbit" { &to_rabbitmq } else { &to_mosquitto };
        let places = [("local", unique("l")), ("rabbit", unique("r")), ("mosquitto", unique("m"))];
        let routes = places.iter().map(|(backend, place)| news(&format!("{place}/#"), backend));
        let configuration = format!(
            "{LOCAL}{}{}{}{}",
            rabbit_at(&rabbitmq.url_by(to_rabbitmq.address())),
            mosquitto_at(&format!("mqtt://{}", to_mosquitto.address())),
            home_is("local"),
            routes.collect::<String>()
        );
        if since_start {
            cable.cut().await;
        }
        let server = Server::start(&configuration).await;
        if !since_start {
            ready(&server).await;
            cable.cut().await;
        }
        let mut subscriber = Mqtt5::connect(server.mqtt(), "everything").await;
        let granted = subscriber.subscribe("#").await;
        assert_eq!(granted, SubscribeReasonCode::Success(QoS::AtLeastOnce), "{away} away");
        let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
        for (backend, place) in places.iter().filter(|(backend, _)| *backend != away) {
            publisher.publish(&format!("{place}/a"), backend).await;
            assert_eq!(subscriber.next_text().await, *backend, "{away} away");
        }
        assert_eq!(get(server.http(), "/readyz", &[]).await.status, 503, "{away} away");

        cable.heal().await;
        ready(&server).await;
        let place = &places.iter().find(|(backend, _)| *backend == away).unwrap().1;
        publisher.publish(&format!("{place}/a"), "back").await;
        assert_eq!(subscriber.next_text().await, "back", "{away} is back");
        server.stop().await;
    }
}

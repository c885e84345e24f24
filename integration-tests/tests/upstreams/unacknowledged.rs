//! What the client of a kept session has and has not acknowledged, where RabbitMQ is the home: it comes again, marked as a
//! duplicate.

use std::net::SocketAddr;
use std::time::Duration;

use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt_wire::{MqttWire, V5, connect, packet, text};
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::wire::Wire;
use linkspan_integration_tests::{RabbitMq, soon, within};

use crate::LULL;
use crate::kept_sessions::{Place, publisher};

/// PUBLISH at QoS 1, and the same with DUP.
const FIRST: u8 = 0x32;
const AGAIN: u8 = 0x3a;

/// A client whose session is kept for an hour, written by hand; it acknowledges what the test says.
struct Device {
    wire: MqttWire,
    present: bool,
}

impl Device {
    /// It comes again until its back end is there.
    async fn come(door: SocketAddr, name: &str) -> Self {
        let list = [0x11, 0, 0, 0x0e, 0x10];
        let rest = [&[5][..], &list, &text(name)].concat();
        let come = async {
            loop {
                let mut wire = MqttWire { wire: Wire::to(door).await };
                wire.send(&connect(V5, 0, 0, &rest)).await;
                let (first, body) = wire.next().await;
                if first == 0x20 && body[1] == 0 {
                    return Self { wire, present: body[0] == 1 };
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon("the client is let in", come).await
    }

    async fn subscribe(&mut self, topic: &str) {
        self.wire.send(&packet(0x82, &[&[0, 1, 0][..], &text(topic), &[1]].concat())).await;
        assert_eq!(self.wire.next().await, (0x90, vec![0, 1, 0, 1]), "[MQTT-3.8.4-1]");
    }

    /// The next message: first byte, packet identifier, payload.
    async fn next(&mut self) -> (u8, [u8; 2], String) {
        let (first, body) = self.wire.next().await;
        let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        // No properties.
        (first, [body[at], body[at + 1]], String::from_utf8_lossy(&body[at + 3..]).into_owned())
    }

    async fn acknowledge(&mut self, [high, low]: [u8; 2]) {
        self.wire.send(&[0x40, 2, high, low]).await;
    }

    /// Says DISCONNECT, and is let go.
    async fn leave(mut self) {
        self.wire.send(&[0xe0, 0]).await;
        self.wire.wire.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_had_and_did_not_acknowledge_comes_again_as_a_duplicate_also_behind_a_kill_mqtt_3_3_1_1()
 {
    let rabbitmq = RabbitMq::shared().await;
    let place = Place::before(rabbitmq);
    let (name, topic) = (unique("device"), unique("t"));
    let mut process = place.start();
    let mut others = publisher(&mut process).await;
    let mut device = Device::come(process.door("mqtt"), &name).await;
    device.subscribe(&topic).await;
    let mut had = Vec::new();
    for n in 0..3 {
        others.publish(&topic, &n.to_string()).await;
        let (first, identifier, payload) = device.next().await;
        assert_eq!((first, payload), (FIRST, n.to_string()));
        had.push(identifier);
    }
    drop(device);
    let mut device = Device::come(process.door("mqtt"), &name).await;
    assert!(device.present, "[MQTT-3.2.2-3]");
    for (n, identifier) in had.iter().enumerate() {
        assert_eq!(device.next().await, (AGAIN, *identifier, n.to_string()), "[MQTT-4.4.0-1]");
    }
    process.kill();
    drop(device);
    let mut process = place.start();
    let mut device = Device::come(process.door("mqtt"), &name).await;
    assert!(device.present, "[MQTT-3.2.2-3]");
    for n in 0..3 {
        let (first, identifier, payload) = device.next().await;
        assert_eq!((first, payload), (AGAIN, n.to_string()), "in its order");
        device.acknowledge(identifier).await;
    }
    let mut others = publisher(&mut process).await;
    others.publish(&topic, "new").await;
    let (first, identifier, payload) = device.next().await;
    assert_eq!((first, payload.as_str()), (FIRST, "new"));
    device.acknowledge(identifier).await;
    device.wire.ping().await;
    drop(device);
    let mut device = Device::come(process.door("mqtt"), &name).await;
    device.wire.ping().await;
    process.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_acknowledges_later_than_rabbitmq_waits_loses_nothing() {
    let rabbitmq = RabbitMq::own_with("consumer_timeout = 4000", &[]).await;
    // As a rule it looks once a minute.
    rabbitmq.ctl("eval 'application:set_env(rabbit, channel_tick_interval, 500).'").await;
    let place = Place::before(&rabbitmq);
    let (name, topic) = (unique("device"), unique("t"));
    let mut process = place.start();
    let mut others = publisher(&mut process).await;
    let mut device = Device::come(process.door("mqtt"), &name).await;
    device.subscribe(&topic).await;
    others.publish(&topic, "0").await;
    let (first, late, payload) = device.next().await;
    assert_eq!((first, payload.as_str()), (FIRST, "0"));
    // RabbitMQ closes the channel, and gives it again on the next one.
    let (first, identifier, payload) = device.next().await;
    assert_eq!((first, payload.as_str()), (AGAIN, "0"));
    assert_ne!(identifier, late, "the first one is still in use");
    others.publish(&topic, "1").await;
    let (first, behind, payload) = device.next().await;
    assert_eq!((first, payload.as_str()), (FIRST, "1"));
    for identifier in [late, identifier, behind] {
        device.acknowledge(identifier).await;
    }
    // Who is away with something is given it again, too.
    others.publish(&topic, "2").await;
    assert_eq!(device.next().await.2, "2");
    drop(device);
    tokio::time::sleep(Duration::from_secs(7)).await;
    others.publish(&topic, "3").await;
    let mut device = Device::come(process.door("mqtt"), &name).await;
    assert!(device.present, "[MQTT-3.2.2-3]");
    // What it acknowledges first may have come by the channel that is closed: then it comes once more.
    let mut before = Vec::new();
    loop {
        let (first, identifier, payload) = device.next().await;
        device.acknowledge(identifier).await;
        if payload == "3" {
            assert_eq!(first, FIRST);
            break;
        }
        before.push((first, payload));
    }
    assert!(!before.is_empty() && before.iter().all(|it| *it == (AGAIN, "2".to_owned())), "{before:?}");
    assert!(within(LULL, device.wire.next()).await.is_none(), "and nothing else");
    device.leave().await;
    let client = Amqp::connect(rabbitmq.address()).await;
    let left = async {
        while client.counts(&place.queue_of(&name)).await != (0, 0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("all is settled, and nobody consumes", left).await;
    process.kill();
}

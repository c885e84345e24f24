//! Many clients in front of a RabbitMQ: how few connections they need there, and that each gets what is its own.
//!
//! `LINKSPAN_TEST_CROWD=2000,10000` makes it 2,000 AMQP and 10,000 MQTT clients. That takes 12,000 sockets here and as many
//! in Linkspan: `ulimit -n 20000` first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use linkspan_integration_tests::amqp_wire::{AmqpWire, content_header, frame, long, method, short};
use linkspan_integration_tests::mqtt_wire::{MqttWire, V5, packet, publish};
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::{Process, RabbitMq};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::back_ends::rabbit_at;

/// Connections that RabbitMQ has to have fewer of.
const FEW: usize = 20;

/// Clients that come, or publish, at the same time.
const ABREAST: usize = 64;

/// AMQP and MQTT clients.
fn sizes() -> (usize, usize) {
    let Ok(text) = std::env::var("LINKSPAN_TEST_CROWD") else { return (100, 500) };
    let numbers =
        text.split_once(',').and_then(|(amqp, mqtt)| Some((amqp.parse().ok()?, mqtt.parse().ok()?)));
    numbers.unwrap_or_else(|| {
        panic!("LINKSPAN_TEST_CROWD={text}: it is the number of AMQP and of MQTT clients, `2000,10000`")
    })
}

/// A client that takes what is published to its own address.
enum Member {
    Amqp(AmqpWire),
    Mqtt(MqttWire),
}

impl Member {
    async fn by_amqp(door: SocketAddr, number: usize) -> Self {
        let mut wire = AmqpWire::open(door).await;
        let no_table = long(&[]);
        wire.send(&method(1, 50, 10, &[&[0, 0][..], &short(""), &[4], &no_table].concat())).await;
        let declared = wire.expect(50, 11).await;
        let queue = &declared[..=usize::from(declared[0])];
        let key = short(&format!("crowd.{number}"));
        let bind = [&[0, 0][..], queue, &short("amq.topic"), &key, &[0], &no_table].concat();
        wire.send(&method(1, 50, 20, &bind)).await;
        wire.expect(50, 21).await;
        wire.send(&method(1, 60, 20, &[&[0, 0][..], queue, &short(""), &[2], &no_table].concat())).await;
        wire.expect(60, 21).await;
        wire.send(&method(1, 85, 10, &[0])).await;
        wire.expect(85, 11).await;
        Self::Amqp(wire)
    }

    async fn by_mqtt(door: SocketAddr, number: usize) -> Self {
        let mut wire = MqttWire::connect(door, V5, &format!("crowd-{number}")).await;
        assert_eq!(wire.subscribe(V5, &format!("crowd/{number}")).await, 1, "QoS 1 is granted");
        Self::Mqtt(wire)
    }

    /// Publishes one message to another one's address, and takes the one for its own: its payload.
    async fn exchange(&mut self, to: usize, payload: &str) -> String {
        match self {
            Self::Amqp(wire) => {
                let target =
                    [&[0, 0][..], &short("amq.topic"), &short(&format!("crowd.{to}")), &[0]].concat();
                let header = content_header(1, payload.len() as u64);
                wire.send(&[method(1, 60, 40, &target), header, frame(3, 1, payload.as_bytes())].concat())
                    .await;
                let (mut got, mut is_confirmed) = (None, false);
                while got.is_none() || !is_confirmed {
                    let next = wire.next().await;
                    match next.kind {
                        // basic.ack
                        1 if next.payload.starts_with(&[0, 60, 0, 80]) => is_confirmed = true,
                        // basic.deliver and its header
                        1 if next.payload.starts_with(&[0, 60, 0, 60]) => {}
                        2 => {}
                        3 => assert_eq!(got.replace(next.payload), None, "one message, once"),
                        _ => panic!("{next:?}"),
                    }
                }
                String::from_utf8(got.unwrap()).unwrap()
            }
            Self::Mqtt(wire) => {
                let rest = [&[0, 1, 0][..], payload.as_bytes()].concat();
                wire.send(&publish(2, &format!("crowd/{to}"), &rest)).await;
                let (mut got, mut is_acknowledged) = (None, false);
                while got.is_none() || !is_acknowledged {
                    let (first, body) = wire.next().await;
                    match first >> 4 {
                        4 => {
                            assert!(matches!(&body[..], [0, 1] | [0, 1, 0, ..]), "PUBACK: {body:?}");
                            is_acknowledged = true;
                        }
                        3 => {
                            let mut at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                            // what AMQP clients publish without delivery mode 2 is QoS 0
                            if first & 6 != 0 {
                                wire.send(&packet(0x40, &body[at..at + 2])).await;
                                at += 2;
                            }
                            let payload = body[at + 1 + usize::from(body[at])..].to_vec();
                            assert_eq!(got.replace(payload), None, "one message, once");
                        }
                        _ => panic!("{first:#x} {body:?}"),
                    }
                }
                String::from_utf8(got.unwrap()).unwrap()
            }
        }
    }
}

/// TCP connections to a server of this machine, as the system counts them (proc(5), `/proc/net/tcp`).
fn connections_to(server: SocketAddr) -> usize {
    let remote = format!(":{:04X}", server.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|it| it.ends_with(&remote)) && fields.next() == Some("01")
    };
    table.lines().filter(is_one).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_clients_share_fewer_than_twenty_connections_to_the_broker() {
    let (amqp_clients, mqtt_clients) = sizes();
    let all = amqp_clients + mqtt_clients;
    let rabbitmq = RabbitMq::own().await;
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", &rabbit_at(rabbitmq.url()));
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let (amqp, mqtt) = (process.door("amqp"), process.door("mqtt"));
    process.line_with(&["the back end is connected"]);
    let before = process.memory();

    let began = Instant::now();
    let gate = Arc::new(Semaphore::new(ABREAST));
    let mut coming = JoinSet::new();
    for number in 0..all {
        let gate = Arc::clone(&gate);
        coming.spawn(async move {
            let _turn = gate.acquire().await.unwrap();
            let member = match number < amqp_clients {
                true => Member::by_amqp(amqp, number).await,
                false => Member::by_mqtt(mqtt, number).await,
            };
            (number, member)
        });
    }
    let members = coming.join_all().await;
    let (came, memory) = (began.elapsed(), process.memory());
    eprintln!(
        "{amqp_clients} AMQP and {mqtt_clients} MQTT clients came in {came:.1?}, over {} connections to RabbitMQ; Linkspan has \
         {} MiB, {} MiB before",
        connections_to(rabbitmq.address()),
        memory >> 20,
        before >> 20
    );
    let few = format!("[ $(wc -l < connections) -gt 0 ] && [ $(wc -l < connections) -lt {FEW} ]");
    rabbitmq.ctl(&format!("-s list_connections name > connections && {few}")).await;

    let began = Instant::now();
    let mut exchanging = JoinSet::new();
    for (number, mut member) in members {
        exchanging.spawn(async move {
            // from one protocol to the other, for as many as can
            let to = (number + amqp_clients) % all;
            let from = (number + all - amqp_clients) % all;
            let got = member.exchange(to, &number.to_string()).await;
            assert_eq!(got, from.to_string(), "client {number} gets its own message");
            member
        });
    }
    let members = exchanging.join_all().await;
    eprintln!(
        "{all} messages were delivered in {:.1?}; Linkspan has {} MiB",
        began.elapsed(),
        process.memory() >> 20
    );
    assert_eq!(members.len(), all);
    let troubles: Vec<String> = process
        .listen(crate::LULL)
        .iter()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .cloned()
        .collect();
    assert!(troubles.is_empty(), "{troubles:#?}");
}

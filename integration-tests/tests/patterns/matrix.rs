//! Every publisher's protocol × every consumer's × every pattern × every back end, by third parties' clients.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Consumer, Dialect, Mosquitto, Publisher, RabbitMq, Server, Taking};

/// What holds the messages.
enum BackEnd {
    Embedded,
    RabbitMq(&'static RabbitMq),
    Mosquitto(&'static Mosquitto),
}

impl BackEnd {
    fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::RabbitMq(_) => "RabbitMQ",
            Self::Mosquitto(_) => "Mosquitto",
        }
    }

    /// The `[backends.*]` table.
    fn table(&self) -> String {
        match self {
            Self::Embedded => "[backends.local]\nkind = \"embedded\"\n".to_owned(),
            Self::RabbitMq(broker) => {
                let address = broker.address();
                format!("[backends.rabbit]\nkind = \"amqp\"\nurl = \"amqp://guest:guest@{address}/%2f\"\n")
            }
            Self::Mosquitto(broker) => {
                let address = broker.address();
                format!("[backends.mosquitto]\nkind = \"mqtt\"\nurl = \"mqtt://{address}\"\n")
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    PublishSubscribe,
    CompetingConsumers,
}

impl Pattern {
    const ALL: [Self; 2] = [Self::PublishSubscribe, Self::CompetingConsumers];
}

/// Messages in each cell.
const MESSAGES: u32 = 1_000;

/// How long a cell may wait for a message that need not come.
const LULL: Duration = Duration::from_millis(20);

fn payloads() -> impl Iterator<Item = Vec<u8>> {
    (0..MESSAGES).map(|n| n.to_string().into_bytes())
}

fn number(payload: &[u8]) -> u32 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_crosses_from_every_protocol_to_every_other_on_the_embedded_back_end() {
    every_cell_of(&BackEnd::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_crosses_from_every_protocol_to_every_other_on_rabbitmq() {
    every_cell_of(&BackEnd::RabbitMq(RabbitMq::shared().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_crosses_from_every_protocol_to_every_other_on_mosquitto() {
    every_cell_of(&BackEnd::Mosquitto(Mosquitto::shared().await)).await;
}

async fn every_cell_of(back_end: &BackEnd) {
    let mut cells = 0;
    for pattern in Pattern::ALL {
        for publisher in Dialect::ALL {
            for consumer in Dialect::ALL {
                eprintln!("{publisher} -> {consumer}, {pattern:?} on {}", back_end.name());
                match pattern {
                    Pattern::PublishSubscribe => publish_subscribe(back_end, publisher, consumer).await,
                    Pattern::CompetingConsumers => competing_consumers(back_end, publisher, consumer).await,
                }
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 18, "no cell is excused");
}

/// Three consumers get all messages each, in order.
async fn publish_subscribe(back_end: &BackEnd, from: Dialect, to: Dialect) {
    let server = Server::start(&back_end.table()).await;
    let address = format!("news/{}", unique("today"));
    let mut consumers = Vec::new();
    for n in 0..3 {
        let name = format!("watcher-{n}");
        consumers.push(Consumer::connect(to, server.door(to), &name, Taking::Watch(&address)).await);
    }
    let mut publisher = Publisher::connect(from, server.door(from), "publisher").await;
    let publishing = publisher.publish(&address, payloads());
    let consuming = async {
        for (at, consumer) in consumers.iter_mut().enumerate() {
            for expected in 0..MESSAGES {
                let received = consumer.next().await;
                assert_eq!(
                    number(&received.payload),
                    expected,
                    "consumer {at} got another message, or out of order"
                );
                received.settle().await;
            }
        }
    };
    tokio::join!(publishing, consuming);
    for consumer in &mut consumers {
        assert!(consumer.next_within(LULL).await.is_none(), "a message came twice");
    }
    server.stop().await;
}

/// The messages wait before any consumer was ever seen; one consumer is killed with messages in hand, another joins.
async fn competing_consumers(back_end: &BackEnd, from: Dialect, to: Dialect) {
    let (address, queue) = (format!("images/{}", unique("resize")), unique("image-resize"));
    let route =
        format!("[[route]]\nmatch = \"{address}\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\n");
    let server = Server::start(&format!("{}{route}", back_end.table())).await;
    Publisher::connect(from, server.door(from), "publisher").await.publish(&address, payloads()).await;

    let worker = async |name: &str| {
        let work = Taking::Work { queue: &queue, address: &address };
        Consumer::connect(to, server.door(to), name, work).await
    };
    let mut tally = Tally::default();
    let (mut first, mut second, mut doomed) =
        (worker("one").await, worker("two").await, worker("three").await);
    for _ in 0..100 {
        for (name, consumer) in [("one", &mut first), ("two", &mut second), ("three", &mut doomed)] {
            let received = consumer.next().await;
            tally.settled(name, number(&received.payload));
            received.settle().await;
        }
    }
    // Received and not settled: somebody else has to get them. It is the killed one's last settlements that may have
    // been on the wire.
    let in_hand: Vec<u32> =
        [doomed.next().await, doomed.next().await].iter().map(|it| number(&it.payload)).collect();
    doomed.kill().await;
    let mut fourth = worker("four").await;
    while tally.by_message.len() < MESSAGES as usize {
        let mut idle = true;
        for (name, consumer) in [("one", &mut first), ("two", &mut second), ("four", &mut fourth)] {
            if let Some(received) = consumer.next_within(LULL).await {
                tally.settled(name, number(&received.payload));
                received.settle().await;
                idle = false;
            }
        }
        tally.check_progress(idle);
    }

    for message in in_hand {
        let settled_by = &tally.by_message[&message];
        assert!(settled_by.iter().any(|name| *name != "three"), "message {message} died with its consumer");
    }
    for (message, settled_by) in &tally.by_message {
        let twice = settled_by.len() > 1;
        assert!(!twice || settled_by[0] == "three", "message {message} was given to {settled_by:?}");
    }
    for survivor in ["one", "two", "four"] {
        let share = tally.by_message.values().filter(|names| names.contains(&survivor)).count();
        assert!(share >= MESSAGES as usize / 10, "{survivor} got only {share} of {MESSAGES}");
    }
    server.stop().await;
}

/// Who settled what.
#[derive(Default)]
struct Tally {
    by_message: HashMap<u32, Vec<&'static str>>,
    idle: u32,
}

impl Tally {
    fn settled(&mut self, by: &'static str, message: u32) {
        self.by_message.entry(message).or_default().push(by);
    }

    fn check_progress(&mut self, idle: bool) {
        self.idle = if idle { self.idle + 1 } else { 0 };
        if self.idle > 500 {
            let all: HashSet<u32> = (0..MESSAGES).collect();
            let settled: HashSet<u32> = self.by_message.keys().copied().collect();
            let mut lost: Vec<_> = all.difference(&settled).collect();
            lost.sort();
            panic!("these messages reach nobody: {lost:?}");
        }
    }
}

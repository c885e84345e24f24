//! What lies behind: a RabbitMQ and a Mosquitto, over cables that break at any moment. What is published on a route to one
//! of them waits in a spool meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, Consumer};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Cable, Mosquitto, RabbitMq};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::life::Life;
use super::notes::Notes;

/// How long what waits in spools may take in the last life.
const ARRIVING: Duration = Duration::from_secs(60);

/// The lines that go there.
pub const LINES: [&str; 2] = ["to-rabbit", "to-mosquitto"];

/// Both, and who watches what arrives there.
pub struct Brokers {
    cables: [Cable; 2],
    is_cut: Mutex<[bool; 2]>,
    topics: [&'static str; 2],
    pub configuration: String,
    notes: Arc<Mutex<Notes>>,
    /// Ends with this.
    _watchers: JoinSet<()>,
}

impl Brokers {
    /// Starts what is not there yet, and watches.
    pub async fn watched(notes: &Arc<Mutex<Notes>>) -> Self {
        let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
        let cables = [Cable::to(rabbitmq.address()).await, Cable::to(mosquitto.address()).await];
        // Others use the same brokers.
        let topics = LINES.map(|line| -> &'static str { unique(line).leak() });
        let urls = [rabbitmq.url_by(cables[0].address()), mosquitto.url_by(cables[1].address())];
        let mut configuration = String::new();
        for ((name, kind), url) in [("rabbit", "amqp"), ("mosquitto", "mqtt")].into_iter().zip(urls) {
            configuration += &format!("[backends.{name}]\nkind = \"{kind}\"\nurl = \"{url}\"\n");
        }
        for (name, topic) in ["rabbit", "mosquitto"].into_iter().zip(topics) {
            configuration += &format!(
                "[[route]]\nmatch = \"{topic}\"\npattern = \"publish-subscribe\"\nbackend = \"{name}\"\nspool = \"64 MiB\"\n"
            );
        }
        let mut watchers = JoinSet::new();
        LINES.iter().for_each(|line| notes.lock().unwrap().leads_away(line));
        let [of_rabbit, of_mosquitto] = LINES;
        // A machine that is very busy must not cost the watchers their connections.
        let uri = format!("{}?heartbeat=0", rabbitmq.url());
        let amqp = Connection::connect(&uri, ConnectionProperties::default()).await.expect("RabbitMQ lives");
        let mut deliveries = consume(&amqp, topics[0]).await.expect("a queue of RabbitMQ");
        let noted = Arc::clone(notes);
        watchers.spawn(async move {
            let _connection = amqp;
            while let Some(delivery) = deliveries.next().await {
                let delivery = delivery.expect("RabbitMQ lives");
                noted.lock().unwrap().arrived(of_rabbit, &delivery.data);
            }
        });
        let mut options = Mqtt5::options(mosquitto.address(), &unique("watcher"));
        options.set_keep_alive(Duration::from_secs(3600));
        let (client, mut events) = AsyncClient::new(options, 10);
        client.subscribe(topics[1], QoS::AtLeastOnce).await.expect("room for a packet");
        while !matches!(events.poll().await.expect("Mosquitto lives"), Event::Incoming(Packet::SubAck(_))) {}
        let noted = Arc::clone(notes);
        watchers.spawn(async move {
            let _client = client;
            loop {
                if let Event::Incoming(Packet::Publish(message)) =
                    events.poll().await.expect("Mosquitto lives")
                {
                    noted.lock().unwrap().arrived(of_mosquitto, &message.payload);
                }
            }
        });
        let is_cut = Mutex::default();
        Self { cables, is_cut, topics, configuration, notes: Arc::clone(notes), _watchers: watchers }
    }

    /// Where a line is published.
    pub fn topic(&self, at: usize) -> &'static str {
        self.topics[at]
    }

    fn broke(&self, at: usize) {
        self.notes.lock().unwrap().breaks(LINES[at]);
    }

    /// Linkspan was killed.
    pub fn killed(&self) {
        (0..LINES.len()).for_each(|at| self.broke(at));
    }

    /// Cuts, resets and heals until it is dropped.
    pub async fn trouble(&self, life: &Life) {
        loop {
            sleep(Duration::from_millis(20 + life.below(400))).await;
            let at = usize::try_from(life.below(2)).unwrap_or(0);
            let was_cut = self.is_cut.lock().unwrap()[at];
            if was_cut {
                self.is_cut.lock().unwrap()[at] = false;
                self.cables[at].heal().await;
                continue;
            }
            self.broke(at);
            if life.below(3) == 0 {
                self.cables[at].reset();
            } else {
                self.is_cut.lock().unwrap()[at] = true;
                self.cables[at].cut().await;
            }
        }
    }

    /// Heals both, and returns when everything has arrived that was acknowledged, or no more comes.
    pub async fn await_all(&self) {
        for cable in &self.cables {
            cable.heal().await;
        }
        let until = Instant::now() + ARRIVING;
        let is_missing = || LINES.iter().any(|line| self.notes.lock().unwrap().missing(line) > 0);
        while is_missing() && Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What comes under a topic of RabbitMQ.
async fn consume(connection: &Connection, topic: &str) -> lapin::Result<Consumer> {
    let channel = connection.create_channel().await?;
    let (own, none) =
        (QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() }, FieldTable::default());
    let queue = channel.queue_declare("".into(), own, none.clone()).await?;
    let (exchange, bound) = ("amq.topic".into(), QueueBindOptions::default());
    channel.queue_bind(queue.name().clone(), exchange, topic.into(), bound, none.clone()).await?;
    let taken = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue.name().clone(), "".into(), taken, none).await
}

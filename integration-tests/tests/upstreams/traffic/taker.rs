//! Who consumes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, Consumer};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::soon;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::notes::{Line, Taken};

/// Deliveries that it has in hand at most.
const PREFETCH: u16 = 20;

/// The time between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);

/// How long an attempt to connect may take, and an acknowledgement on its way out.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a consumer is given nothing before it takes its connection for dead, well beyond what any fault lasts. A client
/// library may not tell a consumer of the end of its connection.
const SILENCE: Duration = Duration::from_secs(12);

/// For how long a broker keeps a session whose client is away, in seconds.
const KEPT: u32 = 3600;

/// A consumer that acknowledges what it is given.
pub struct Taker {
    /// What it is called.
    pub name: String,
    /// What it takes.
    pub line: Line,
    taken: Arc<Mutex<Taken>>,
    task: JoinHandle<()>,
}

/// What a taker's task works with.
struct Hands {
    taken: Arc<Mutex<Taken>>,
    /// It consumes.
    ready: watch::Sender<bool>,
}

impl Hands {
    fn take(&self, payload: &[u8]) {
        self.taken.lock().expect("a taker lives").add(payload);
    }

    fn ready(&self) {
        self.ready.send_replace(true);
    }

    fn lost(&self) {
        self.taken.lock().expect("a taker lives").losses += 1;
    }
}

impl Taker {
    async fn start<F>(name: &str, line: &Line, work: impl FnOnce(Hands) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let taken = Arc::new(Mutex::new(Taken::default()));
        let (ready, mut is_ready) = watch::channel(false);
        let hands = Hands { taken: Arc::clone(&taken), ready };
        let task = tokio::spawn(work(hands));
        let taker = Self { name: name.into(), line: line.clone(), taken, task };
        let ready = soon(name, is_ready.wait_for(|ready| *ready)).await;
        ready.expect("the taker lives");
        taker
    }

    /// By MQTT 5 at QoS 1, in a session that outlives its connection where the server has such.
    pub async fn mqtt(name: &str, at: SocketAddr, line: &Line) -> Self {
        let (client, topic) = (name.to_owned(), line.topic().to_owned());
        Self::start(name, line, async move |hands| by_mqtt(hands, at, client, topic).await).await
    }

    /// By AMQP from a durable queue of that name, bound to the line.
    pub async fn bound(name: &str, url: &str, line: &Line, queue: &str) -> Self {
        let (url, queue, key) = (url.to_owned(), queue.to_owned(), line.key());
        Self::start(name, line, async move |hands| by_amqp(hands, url, queue, Some(key)).await).await
    }

    /// By AMQP from a work queue that is there.
    pub async fn worker(name: &str, url: &str, line: &Line, queue: &str) -> Self {
        let (url, queue) = (url.to_owned(), queue.to_owned());
        Self::start(name, line, async move |hands| by_amqp(hands, url, queue, None).await).await
    }

    /// What it has noted.
    pub fn notes(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("the taker lives")
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn by_mqtt(hands: Hands, at: SocketAddr, name: String, topic: String) {
    loop {
        let mut options = Mqtt5::options(at, &name);
        options.set_clean_start(false).set_session_expiry_interval(Some(KEPT));
        let (client, mut events) = AsyncClient::new(options, 100);
        let mut welcome = timeout(CONNECT, events.poll()).await;
        let mut connected = false;
        while let Ok(Ok(event)) = welcome {
            match event {
                Event::Incoming(Packet::ConnAck(ack)) => {
                    connected = true;
                    if !ack.session_present {
                        client.subscribe(&topic, QoS::AtLeastOnce).await.expect("the client lives");
                    }
                }
                Event::Incoming(Packet::SubAck(_)) => hands.ready(),
                Event::Incoming(Packet::Publish(publish)) => hands.take(&publish.payload),
                _ => {}
            }
            welcome = Ok(events.poll().await);
        }
        if connected {
            hands.lost();
        }
        sleep(RETRY).await;
    }
}

async fn by_amqp(hands: Hands, url: String, queue: String, bound_by: Option<String>) {
    loop {
        let consuming = consume(&url, &queue, bound_by.as_deref());
        if let Ok(Ok((connection, consumer))) = timeout(CONNECT, consuming).await {
            over_amqp(&hands, &connection, consumer).await;
            hands.lost();
        }
        sleep(RETRY).await;
    }
}

/// Consumes the queue over a connection of its own.
async fn consume(url: &str, queue: &str, bound_by: Option<&str>) -> lapin::Result<(Connection, Consumer)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    if let Some(key) = bound_by {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.into(), "amq.topic".into(), key.into(), options, none).await?;
    }
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(queue.into(), "".into(), options, none).await?;
    Ok((connection, consumer))
}

/// Returns when the consumer is lost.
async fn over_amqp(hands: &Hands, connection: &Connection, mut consumer: Consumer) {
    hands.ready();
    let mut heard = Instant::now();
    while connection.status().connected() && heard.elapsed() < SILENCE {
        let Ok(given) = timeout(RETRY, consumer.next()).await else { continue };
        let Some(Ok(delivery)) = given else { return };
        heard = Instant::now();
        hands.take(&delivery.data);
        let Ok(Ok(_)) = timeout(CONNECT, delivery.ack(BasicAckOptions::default())).await else { return };
    }
}

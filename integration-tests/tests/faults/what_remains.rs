//! What a message or queue was promised holds in the next life too: time that remains, places in the order, counts, limits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicRejectOptions, ExchangeDeclareOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, ExchangeKind};
use linkspan_integration_tests::amqp::{Amqp, refusal, text};
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::{soon, within};
use tokio::time::{Instant, sleep, sleep_until};

/// How long nothing has to come where nothing may come.
const QUIET: Duration = Duration::from_millis(500);

/// A server, and a client of it.
struct Life {
    process: Process,
    amqp: Amqp,
}

impl Life {
    async fn begin(folder: &Folder) -> Self {
        let mut process = Process::start(folder.path(), &[]);
        let amqp = Amqp::confirming(process.door("amqp")).await;
        Self { process, amqp }
    }

    /// Kills the server, and begins another life after `pause`.
    async fn again(self, folder: &Folder, pause: Duration) -> Self {
        self.process.kill();
        sleep(pause).await;
        Self::begin(folder).await
    }

    async fn declare(&self, queue: &str, arguments: &[(&str, AMQPValue)]) {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        self.amqp.channel.queue_declare(queue.into(), durable, table).await.expect("declare-ok");
    }

    /// Publishes a durable message.
    async fn publish(&self, queue: &str, payload: &str, properties: BasicProperties) -> Confirmation {
        self.amqp.publish_as("", queue, payload, properties.with_delivery_mode(2)).await
    }

    async fn accepted(&self, queue: &str, payload: &str, properties: BasicProperties) {
        let confirmed = self.publish(queue, payload, properties).await;
        assert!(matches!(confirmed, Confirmation::Ack(None)), "{payload}: {confirmed:?}");
    }

    /// The next message, to be settled.
    async fn get(&self, queue: &str) -> Option<Delivery> {
        let message = self.amqp.channel.basic_get(queue.into(), BasicGetOptions::default()).await;
        message.expect("get-ok or get-empty").map(|message| message.delivery)
    }

    /// Returns when so many messages are in a queue.
    async fn await_count(&self, queue: &str, count: u32) {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        soon(&format!("{count} in {queue}"), async {
            loop {
                let there =
                    self.amqp.channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
                if there.expect("the queue is there").message_count() == count {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// The next message of a queue to which one comes; it is settled.
    async fn await_one(&self, queue: &str) -> Delivery {
        let options = BasicGetOptions { no_ack: true };
        soon(&format!("a message in {queue}"), async {
            loop {
                let message = self.amqp.channel.basic_get(queue.into(), options).await;
                match message.expect("get-ok or get-empty") {
                    Some(message) => return message.delivery,
                    None => sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await
    }
}

fn plain() -> BasicProperties {
    BasicProperties::default()
}

fn word(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn number(number: i32) -> AMQPValue {
    AMQPValue::LongInt(number)
}

/// Dead letters go to a queue.
fn grave(queue: &str) -> [(&'static str, AMQPValue); 2] {
    [("x-dead-letter-exchange", word("")), ("x-dead-letter-routing-key", word(queue))]
}

/// Reason and second of the last death.
fn death(letter: &Delivery) -> (String, u64) {
    let headers = letter.properties.headers().as_ref().expect("headers");
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { panic!("no x-death") };
    let Some(AMQPValue::FieldTable(last)) = deaths.as_slice().first() else { panic!("an empty x-death") };
    let Some(AMQPValue::LongString(reason)) = last.inner().get("reason") else { panic!("no reason") };
    let Some(AMQPValue::Timestamp(when)) = last.inner().get("time") else { panic!("no time") };
    (reason.to_string(), *when)
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

#[tokio::test]
async fn what_remains_of_an_expiry_is_not_begun_anew() {
    let folder = Folder::new();
    let life = Life::begin(&folder).await;
    life.declare("graves", &[]).await;
    life.declare("short", &grave("graves")).await;
    life.declare("long", &grave("graves")).await;
    life.declare(
        "by-queue",
        &[("x-message-ttl", number(4_000)), grave("graves")[0].clone(), grave("graves")[1].clone()],
    )
    .await;
    life.declare("never", &grave("graves")).await;
    let since = seconds();
    life.accepted("short", "short", plain().with_expiration("1000".into())).await;
    life.accepted("long", "long", plain().with_expiration("4000".into())).await;
    life.accepted("by-queue", "by-queue", plain()).await;
    life.accepted("never", "never", plain().with_expiration("600000".into())).await;
    let life = life.again(&folder, Duration::from_millis(2500)).await;
    let first = life.await_one("graves").await;
    assert_eq!((text(&first.data).as_str(), death(&first).0.as_str()), ("short", "expired"));
    let mut late = Vec::new();
    for _ in 0..2 {
        let letter = life.await_one("graves").await;
        let (reason, when) = death(&letter);
        assert_eq!(reason, "expired");
        let lived = when - since;
        assert!((3..=6).contains(&lived), "{} lived {lived} s of 4", text(&letter.data));
        late.push(text(&letter.data));
    }
    late.sort();
    assert_eq!(late, ["by-queue", "long"]);
    assert_eq!(life.amqp.drain("never").await, ["never"]);
    assert_eq!(life.amqp.drain("graves").await, Vec::<String>::new());
}

#[tokio::test]
async fn priorities_keep_their_order() {
    let folder = Folder::new();
    let life = Life::begin(&folder).await;
    life.declare("ranked", &[("x-max-priority", number(9))]).await;
    let mut sent: Vec<(u8, usize)> = Vec::new();
    for at in 0..60_usize {
        let priority = u8::try_from(at * 7 % 10).unwrap();
        life.accepted("ranked", &format!("{priority} {at}"), plain().with_priority(priority)).await;
        sent.push((priority, at));
    }
    sent.sort_by_key(|(priority, at)| (std::cmp::Reverse(*priority), *at));
    let expected: Vec<String> = sent.iter().map(|(priority, at)| format!("{priority} {at}")).collect();
    let life = life.again(&folder, Duration::ZERO).await;
    life.accepted("ranked", "9 behind the others", plain().with_priority(9)).await;
    let mut found = life.amqp.drain("ranked").await;
    let late = found.iter().position(|text| text == "9 behind the others").expect("it is there");
    assert_eq!(late, 6, "behind the six of its priority from before: {found:?}");
    found.remove(late);
    assert_eq!(found, expected);
}

#[tokio::test]
async fn deliveries_are_counted_over_lives() {
    let folder = Folder::new();
    let mut life = Life::begin(&folder).await;
    life.declare("graves", &[]).await;
    let [exchange, key] = grave("graves");
    // The argument that work routes give their queues.
    life.declare("counted", &[("linkspan-delivery-limit", number(2)), exchange, key]).await;
    life.accepted("counted", "deadly", plain()).await;
    for delivery in 1..=3 {
        let found = life.get("counted").await.unwrap_or_else(|| panic!("no delivery {delivery}"));
        assert_eq!(found.redelivered, delivery > 1, "delivery {delivery}");
        if delivery == 2 {
            // Lost with the server while it is in a consumer's hands.
            life.accepted("graves", "everything before a confirm is safe", plain()).await;
            life = life.again(&folder, Duration::ZERO).await;
        } else {
            found.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
        }
    }
    assert!(life.get("counted").await.is_none(), "a fourth delivery");
    assert_eq!(life.amqp.drain("graves").await, ["everything before a confirm is safe", "deadly"]);
}

#[tokio::test]
async fn what_is_in_a_consumers_hands_comes_again_and_says_so() {
    let folder = Folder::new();
    let life = Life::begin(&folder).await;
    life.declare("work", &[]).await;
    for payload in ["first", "second"] {
        life.accepted("work", payload, plain()).await;
    }
    let first = life.get("work").await.expect("a message");
    assert!(!first.redelivered);
    life.accepted("work", "third", plain()).await;
    let life = life.again(&folder, Duration::ZERO).await;
    for (payload, redelivered) in [("first", true), ("second", false), ("third", false)] {
        let found = life.get("work").await.expect("a message");
        assert_eq!((text(&found.data).as_str(), found.redelivered), (payload, redelivered));
    }
}

#[tokio::test]
async fn lengths_are_kept_and_overflow_goes_where_it_went() {
    // Bodies alone count, as in RabbitMQ.
    let long = |at: usize| format!("{at:010}");
    let folder = Folder::new();
    let life = Life::begin(&folder).await;
    life.declare("graves", &[]).await;
    let [exchange, key] = grave("graves");
    life.declare("newest", &[("x-max-length", number(3)), exchange, key]).await;
    life.declare("oldest", &[("x-max-length", number(2)), ("x-overflow", word("reject-publish"))]).await;
    life.declare("bytes", &[("x-max-length-bytes", number(30))]).await;
    for at in 0..4 {
        life.accepted("newest", &format!("newest {at}"), plain()).await;
        life.accepted("bytes", &long(at), plain()).await;
    }
    for at in 0..2 {
        life.accepted("oldest", &format!("oldest {at}"), plain()).await;
    }
    let life = life.again(&folder, Duration::ZERO).await;
    life.accepted("newest", "newest 4", plain()).await;
    life.accepted("bytes", &long(4), plain()).await;
    let refused = life.publish("oldest", "oldest 2", plain()).await;
    assert!(matches!(refused, Confirmation::Nack(_)), "a full queue says {refused:?}");
    assert_eq!(life.amqp.drain("newest").await, ["newest 2", "newest 3", "newest 4"]);
    assert_eq!(life.amqp.drain("oldest").await, ["oldest 0", "oldest 1"]);
    assert_eq!(life.amqp.drain("bytes").await, [long(2), long(3), long(4)]);
    assert_eq!(life.amqp.drain("graves").await, ["newest 0", "newest 1"]);
}

#[tokio::test]
async fn a_rejected_message_finds_its_grave_in_the_next_life() {
    let folder = Folder::new();
    let life = Life::begin(&folder).await;
    life.declare("graves", &[]).await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let fanout = ExchangeKind::Fanout;
    life.amqp.channel.exchange_declare("dead".into(), fanout, durable, FieldTable::default()).await.unwrap();
    life.amqp.bind("graves", "dead", "").await;
    life.declare("work", &[("x-dead-letter-exchange", word("dead"))]).await;
    life.accepted("work", "unloved", plain()).await;
    let life = life.again(&folder, Duration::ZERO).await;
    let found = life.get("work").await.expect("a message");
    found.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    // No word says that a rejection is safe; what is published once its dead letter is there comes behind it in the log.
    life.await_count("graves", 1).await;
    life.accepted("work", "later", plain()).await;
    let life = life.again(&folder, Duration::ZERO).await;
    let letter = life.await_one("graves").await;
    assert_eq!((text(&letter.data).as_str(), death(&letter).0.as_str()), ("unloved", "rejected"));
    assert_eq!(life.amqp.drain("work").await, ["later"]);
    assert_eq!(life.amqp.drain("graves").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_unused_queue_goes_in_its_time_also_behind_a_restart() {
    let folder = Folder::new();
    let life = Life::begin(&folder).await;
    life.declare("unused", &[("x-expires", number(2_000))]).await;
    life.accepted("unused", "nobody wants it", plain()).await;
    let life = life.again(&folder, Duration::ZERO).await;
    let begun = Instant::now();
    let mut amqp = life.amqp;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    soon("the queue goes", async {
        for look in 1.. {
            // To look at it is to use it.
            sleep_until(begun + Duration::from_millis(3000) * look).await;
            let found = amqp.channel.queue_declare("unused".into(), passive, FieldTable::default()).await;
            match found {
                Ok(_) => amqp.reopen().await,
                Err(error) => {
                    assert_eq!(refusal(&error).0, 404);
                    return;
                }
            }
        }
    })
    .await;
    amqp.reopen().await;
    let life = Life { amqp, ..life }.again(&folder, Duration::ZERO).await;
    life.declare("unused", &[]).await;
    assert_eq!(life.amqp.drain("unused").await, Vec::<String>::new(), "its messages went with it");
}

#[tokio::test]
async fn a_single_active_consumer_is_alone_in_the_next_life_too() {
    let folder = Folder::new();
    let life = Life::begin(&folder).await;
    life.declare("sole", &[("x-single-active-consumer", AMQPValue::Boolean(true))]).await;
    life.accepted("sole", "before", plain()).await;
    let life = life.again(&folder, Duration::ZERO).await;
    let consume = async |tag: &'static str| {
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        life.amqp.channel.basic_consume("sole".into(), tag.into(), options, none).await.expect("consume-ok")
    };
    let (mut active, mut standby) = (consume("active").await, consume("standby").await);
    life.accepted("sole", "after", plain()).await;
    for payload in ["before", "after"] {
        let found = soon("a delivery", active.next()).await.expect("it consumes").expect("a delivery");
        assert_eq!(text(&found.data), payload);
    }
    assert!(within(QUIET, standby.next()).await.is_none(), "the second consumer is given something");
}

//! Who publishes.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm};
use linkspan_integration_tests::mqtt5::Mqtt5;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};

use super::notes::{Line, Sent};

/// Messages that may be unacknowledged at a time.
const WINDOW: usize = 20;

/// What has happened and was not looked at yet, at most.
const TOLD: usize = 1000;

/// The time between two messages.
const PACE: Duration = Duration::from_millis(4);

/// The time between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);

/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);

/// A publisher of numbered messages with acknowledgements.
pub struct Sender {
    /// What it is called.
    pub name: String,
    /// Where its messages go.
    pub line: Line,
    sent: Arc<Mutex<Sent>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What a sender's task works with.
struct Desk {
    sent: Arc<Mutex<Sent>>,
    stop: watch::Receiver<bool>,
    /// What is not acknowledged, in its order.
    unacknowledged: VecDeque<usize>,
}

impl Desk {
    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().expect("a sender lives")
    }

    fn next(&mut self) -> usize {
        let number = self.sent().next();
        self.unacknowledged.push_back(number);
        number
    }

    fn payload(&self, number: usize) -> Vec<u8> {
        self.sent().payload(number)
    }

    fn acknowledge(&mut self, number: usize) {
        self.unacknowledged.retain(|it| *it != number);
        self.sent().acknowledge(number);
    }

    fn refuse(&mut self, number: usize, why: String) {
        self.unacknowledged.retain(|it| *it != number);
        self.sent().refused.push((number, why));
    }

    fn has_room(&self) -> bool {
        !*self.stop.borrow() && self.unacknowledged.len() < WINDOW
    }

    fn is_done(&self) -> bool {
        *self.stop.borrow() && self.unacknowledged.is_empty()
    }

    /// A connection is over, which is a loss when there was something to do.
    fn over(&self) {
        self.sent().losses += usize::from(!self.is_done());
    }
}

impl Sender {
    fn start<F>(name: &str, line: &Line, work: impl FnOnce(Desk) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let sent = Arc::new(Mutex::new(Sent::new(name)));
        let (stop, stopped) = watch::channel(false);
        let desk = Desk { sent: Arc::clone(&sent), stop: stopped, unacknowledged: VecDeque::new() };
        Self { name: name.into(), line: line.clone(), sent, stop, task: tokio::spawn(work(desk)) }
    }

    /// By MQTT 5 at QoS 1.
    pub fn mqtt(name: &str, at: SocketAddr, line: &Line) -> Self {
        let (client, topic) = (name.to_owned(), line.topic().to_owned());
        Self::start(name, line, async move |desk| by_mqtt(desk, at, client, topic).await)
    }

    /// By AMQP, persistent and with confirms.
    pub fn amqp(name: &str, url: &str, line: &Line) -> Self {
        let (url, key) = (url.to_owned(), line.key());
        Self::start(name, line, async move |desk| by_amqp(desk, url, key).await)
    }

    /// What it has noted.
    pub fn notes(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().expect("the sender lives")
    }

    /// It sends nothing new.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// It is stopped, and all that it sent was answered.
    pub fn is_done(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn by_mqtt(mut desk: Desk, at: SocketAddr, name: String, topic: String) {
    while !desk.is_done() {
        let (client, mut events) = AsyncClient::new(Mqtt5::options(at, &name), 100);
        let (told, mut happened) = mpsc::channel(TOLD);
        let driver = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if told.send(event).await.is_err() {
                    return;
                }
            }
        });
        let welcome = timeout(CONNECT, happened.recv()).await;
        if let Ok(Some(Event::Incoming(Packet::ConnAck(_)))) = welcome {
            over_mqtt(&mut desk, &client, &mut happened, &topic).await;
            desk.over();
        }
        driver.abort();
        sleep(RETRY).await;
    }
}

/// Returns when the connection is lost, or there is nothing to do.
async fn over_mqtt(desk: &mut Desk, client: &AsyncClient, happened: &mut mpsc::Receiver<Event>, topic: &str) {
    let publish = async |number: usize, payload: Vec<u8>| {
        client.publish(topic, QoS::AtLeastOnce, false, payload).await.map(|()| number)
    };
    let mut unnamed = VecDeque::new();
    let mut named = HashMap::new();
    for number in desk.unacknowledged.clone() {
        let Ok(number) = publish(number, desk.payload(number)).await else { return };
        unnamed.push_back(number);
    }
    let mut pace = interval(PACE);
    while !desk.is_done() {
        tokio::select! {
            event = happened.recv() => match event {
                Some(Event::Outgoing(Outgoing::Publish(id))) => {
                    named.insert(id, unnamed.pop_front().expect("what is sent was given to be sent"));
                }
                Some(Event::Incoming(Packet::PubAck(ack))) => {
                    let number = named.remove(&ack.pkid).expect("what is acknowledged was sent");
                    match ack.reason {
                        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => desk.acknowledge(number),
                        reason => desk.refuse(number, format!("{reason:?}")),
                    }
                }
                Some(_) => {}
                None => return,
            },
            _ = pace.tick(), if desk.has_room() => {
                let number = desk.next();
                let Ok(number) = publish(number, desk.payload(number)).await else { return };
                unnamed.push_back(number);
            }
            _ = sleep(RETRY) => {}
        }
    }
}

async fn by_amqp(mut desk: Desk, url: String, key: String) {
    while !desk.is_done() {
        let connecting = async {
            let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            lapin::Result::Ok((connection, channel))
        };
        if let Ok(Ok((_connection, channel))) = timeout(CONNECT, connecting).await {
            over_amqp(&mut desk, &channel, &key).await;
            desk.over();
        }
        sleep(RETRY).await;
    }
}

/// Returns when the channel is lost, or there is nothing to do.
async fn over_amqp(desk: &mut Desk, channel: &Channel, key: &str) {
    let publish = async |payload: Vec<u8>| -> lapin::Result<PublisherConfirm> {
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        channel.basic_publish("amq.topic".into(), key.into(), options, &payload, persistent).await
    };
    let mut unconfirmed = VecDeque::new();
    for number in desk.unacknowledged.clone() {
        let Ok(confirm) = publish(desk.payload(number)).await else { return };
        unconfirmed.push_back((number, Box::pin(confirm)));
    }
    let mut pace = interval(PACE);
    while !desk.is_done() {
        let first = async {
            match unconfirmed.front_mut() {
                Some((number, confirm)) => (*number, confirm.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            (number, confirmed) = first => {
                unconfirmed.pop_front();
                match confirmed {
                    Ok(Confirmation::Ack(_)) => desk.acknowledge(number),
                    Ok(other) => desk.refuse(number, format!("{other:?}")),
                    Err(_) => return,
                }
            }
            _ = pace.tick(), if desk.has_room() => {
                let number = desk.next();
                let Ok(confirm) = publish(desk.payload(number)).await else { return };
                unconfirmed.push_back((number, Box::pin(confirm)));
            }
            _ = sleep(RETRY) => {}
        }
    }
}

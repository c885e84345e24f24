//! One MQTT connection to the broker: a rumqttc event loop that is used until it ends, and never again.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5 as mqtt5;
use rumqttc::v5::mqttbytes::v5::{Filter, PublishProperties, RetainForwardRule};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport, v5};
use rustls::ClientConfig;

use crate::options::Place;
use crate::upstream::event;
use crate::upstream::failure::Failure;
use crate::upstream::packet::{Happened, Outgoing, Version, Welcome};
use crate::upstream::will::Will;
use crate::upstream::wish::Wish;

/// How a session introduces itself.
#[derive(Clone)]
pub(crate) struct Introduction {
    pub(crate) place: Place,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) identifier: String,
    /// The broker forgets what it knew of the session.
    pub(crate) fresh: bool,
    /// Seconds that it keeps the session; 0: not at all.
    pub(crate) session_expiry: u32,
    /// Who acknowledges what comes: the caller, else this connection at once.
    pub(crate) manual: bool,
    /// Messages that it may send without an acknowledgement, and that it may be sent.
    pub(crate) receive_maximum: u16,
    pub(crate) window: u16,
    pub(crate) max_packet_size: u32,
    pub(crate) keep_alive: u16,
    pub(crate) timeout: Duration,
    /// What the broker publishes when the connection ends without a good-bye.
    pub(crate) will: Option<Arc<Will>>,
    /// Packet identifiers of messages of QoS 2 that the broker may end and that began on an earlier connection.
    pub(crate) begun: Vec<u16>,
}

/// A connection that is polled.
pub(crate) enum Connection {
    V5 { events: Box<v5::EventLoop>, identifier: String, keep_alive: Duration },
    V311 { events: Box<rumqttc::EventLoop>, keep_alive: Duration },
}

/// The side of a connection that is spoken into. What it takes is sent in its order.
#[derive(Clone)]
pub(crate) enum Sender {
    V5(v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

/// How long the broker may take to close after a good-bye.
const FAREWELL: Duration = Duration::from_secs(1);

/// The connection takes nothing more: it is over, or hopelessly behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Connection {
    /// Connects, and waits for the broker's word.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn open(
        how: &Introduction,
        version: Version,
    ) -> Result<(Self, Sender, Welcome), Failure> {
        let opened = async {
            match version {
                Version::V5 => Self::open_v5(how).await,
                Version::V311 => Self::open_v311(how).await,
            }
        };
        let opened = tokio::time::timeout(how.timeout, opened).await;
        opened.unwrap_or(Err(Failure::Silent(how.timeout)))
    }

    async fn open_v5(how: &Introduction) -> Result<(Self, Sender, Welcome), Failure> {
        let mut options =
            v5::MqttOptions::new(how.identifier.clone(), how.place.host.clone(), how.place.port);
        let keep_alive = Duration::from_secs(how.keep_alive.into());
        options
            .set_keep_alive(keep_alive)
            .set_clean_start(how.fresh)
            .set_connection_timeout(seconds(how.timeout))
            .set_manual_acks(how.manual)
            .set_receive_maximum(Some(how.receive_maximum))
            .set_session_expiry_interval(Some(how.session_expiry))
            .set_max_packet_size(Some(how.max_packet_size))
            .set_outgoing_inflight_upper_limit(how.window);
        if let Some((user, password)) = &how.place.credentials {
            options.set_credentials(user.clone(), password.clone());
        }
        if let Some(tls) = &how.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
        }
        if let Some(will) = &how.will {
            options.set_last_will(will.v5());
        }
        options.set_network_options(network(how));
        let (client, mut events) = v5::AsyncClient::new(options, capacity(how));
        let timeout = how.timeout;
        let first = events.poll().await;
        let first = first.map_err(|error| Failure::of_v5(error, true, timeout, &how.identifier))?;
        let v5::Event::Incoming(v5::Incoming::ConnAck(answer)) = first else {
            return Err(unexpected(&first));
        };
        let said = answer.properties.as_ref();
        if said.and_then(|said| said.max_qos) == Some(0) {
            return Err(Failure::Denied(
                "it takes messages of QoS 0 only, which it never acknowledges".into(),
            ));
        }
        let has = |flag: Option<u8>| flag != Some(0);
        let welcome = Welcome {
            version: Version::V5,
            resumed: answer.session_present,
            receive_maximum: said.and_then(|said| said.receive_max).unwrap_or(u16::MAX),
            max_packet_size: said.and_then(|said| said.max_packet_size),
            session_expiry: said.and_then(|said| said.session_expiry_interval).unwrap_or(how.session_expiry),
            identifies: has(said.and_then(|said| said.subscription_identifiers_available)),
            retains: has(said.and_then(|said| said.retain_available)),
            shares: has(said.and_then(|said| said.shared_subscription_available)),
        };
        for packet_id in how.begun.iter().copied().filter(|_| answer.session_present) {
            let qos = v5::mqttbytes::QoS::ExactlyOnce;
            let begun = mqtt5::Publish { pkid: packet_id, qos, ..mqtt5::Publish::default() };
            if events.state.handle_incoming_packet(v5::Incoming::Publish(begun)).is_ok() {
                // It did not come now.
                events.state.events.pop_back();
            }
        }
        let identifier = how.identifier.clone();
        Ok((Self::V5 { events: Box::new(events), identifier, keep_alive }, Sender::V5(client), welcome))
    }

    async fn open_v311(how: &Introduction) -> Result<(Self, Sender, Welcome), Failure> {
        let place = &how.place;
        let mut options = rumqttc::MqttOptions::new(how.identifier.clone(), place.host.clone(), place.port);
        let keep_alive = Duration::from_secs(how.keep_alive.into());
        let largest = usize::try_from(how.max_packet_size).unwrap_or(usize::MAX);
        options
            .set_keep_alive(keep_alive)
            .set_clean_session(how.fresh)
            .set_manual_acks(how.manual)
            .set_inflight(how.window)
            .set_max_packet_size(largest, usize::MAX);
        if let Some((user, password)) = &place.credentials {
            options.set_credentials(user.clone(), password.clone());
        }
        if let Some(tls) = &how.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
        }
        if let Some(will) = &how.will {
            options.set_last_will(will.v311());
        }
        let (client, mut events) = rumqttc::AsyncClient::new(options, capacity(how));
        events.set_network_options(network(how));
        let timeout = how.timeout;
        let first = events.poll().await.map_err(|error| Failure::of_v311(error, true, timeout))?;
        let rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(answer)) = first else {
            return Err(unexpected(&first));
        };
        let welcome = Welcome {
            version: Version::V311,
            resumed: answer.session_present,
            receive_maximum: u16::MAX,
            max_packet_size: None,
            session_expiry: if how.fresh { 0 } else { u32::MAX },
            identifies: false,
            retains: true,
            shares: true,
        };
        for packet_id in how.begun.iter().copied().filter(|_| answer.session_present) {
            let mut begun = rumqttc::Publish::new("", rumqttc::QoS::ExactlyOnce, Vec::new());
            begun.pkid = packet_id;
            if events.state.handle_incoming_packet(rumqttc::Packet::Publish(begun)).is_ok() {
                // It did not come now.
                events.state.events.pop_back();
            }
        }
        Ok((Self::V311 { events: Box::new(events), keep_alive }, Sender::V311(client), welcome))
    }

    /// Waits until something happens and tells all that has. It must not be called again after an error, but what
    /// happened before that is told with it.
    ///
    /// # Errors
    /// Why the connection is over.
    pub(crate) async fn poll(&mut self, happened: &mut Vec<Happened>) -> Result<(), Failure> {
        match self {
            Self::V5 { events, identifier, keep_alive } => {
                let result = tokio::time::timeout(patience(*keep_alive), events.poll()).await;
                let (first, end) = match result {
                    Ok(Ok(event)) => (Some(event), Ok(())),
                    Ok(Err(error)) => (None, Err(Failure::of_v5(error, false, Duration::ZERO, identifier))),
                    Err(_) => (None, Err(stuck())),
                };
                happened
                    .extend(first.into_iter().chain(events.state.events.drain(..)).filter_map(event::of_v5));
                end
            }
            Self::V311 { events, keep_alive } => {
                let result = tokio::time::timeout(patience(*keep_alive), events.poll()).await;
                let (first, end) = match result {
                    Ok(Ok(event)) => (Some(event), Ok(())),
                    Ok(Err(error)) => (None, Err(Failure::of_v311(error, false, Duration::ZERO))),
                    Err(_) => (None, Err(stuck())),
                };
                happened.extend(
                    first.into_iter().chain(events.state.events.drain(..)).filter_map(event::of_v311),
                );
                end
            }
        }
    }
}

impl Connection {
    /// The same, for so long at most; false when nothing happened. It ends the connection's use.
    pub(crate) async fn poll_within(
        &mut self,
        happened: &mut Vec<Happened>,
        wait: Duration,
    ) -> Result<bool, Failure> {
        match tokio::time::timeout(wait, self.poll(happened)).await {
            Ok(result) => result.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Says good-bye, and waits for a while until the broker has closed.
    pub(crate) async fn leave(mut self, sender: &Sender) {
        if sender.disconnect().is_ok() {
            let ending = async { while self.poll(&mut Vec::new()).await.is_ok() {} };
            // What it says to that does not matter, nor whether it says anything.
            let _ = tokio::time::timeout(FAREWELL, ending).await;
        }
    }
}

impl Sender {
    /// Sends a message.
    ///
    /// # Errors
    /// When the connection takes nothing more.
    pub(crate) fn publish(&self, message: &Outgoing, now: u64) -> Result<(), Full> {
        let payload = message.payload.clone();
        let qos = u8::from(message.acknowledged);
        match self {
            Self::V5(client) => {
                let mut properties: PublishProperties =
                    message.properties.as_deref().cloned().unwrap_or_default();
                if let Some(end) = message.expires {
                    let seconds = end.saturating_sub(now).div_ceil(1000).max(1);
                    properties.message_expiry_interval = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
                }
                let qos =
                    if qos == 1 { v5::mqttbytes::QoS::AtLeastOnce } else { v5::mqttbytes::QoS::AtMostOnce };
                let topic = message.topic.to_string();
                client
                    .try_publish_with_properties(topic, qos, message.retain, payload, properties)
                    .map_err(|_| Full)
            }
            Self::V311(client) => {
                let qos = if qos == 1 { rumqttc::QoS::AtLeastOnce } else { rumqttc::QoS::AtMostOnce };
                client
                    .try_publish(message.topic.to_string(), qos, message.retain, Vec::from(payload))
                    .map_err(|_| Full)
            }
        }
    }

    /// Subscribes at QoS 1; `id` where the broker tells copies apart, `retained` when retained messages are to come.
    ///
    /// # Errors
    /// When the connection takes nothing more.
    pub(crate) fn subscribe(&self, filter: &str, id: Option<u32>, retained: bool) -> Result<(), Full> {
        match self {
            Self::V5(client) => {
                let mut wish = Filter::new(filter, v5::mqttbytes::QoS::AtLeastOnce);
                wish.retain_forward_rule =
                    if retained { RetainForwardRule::OnEverySubscribe } else { RetainForwardRule::Never };
                // Then the flag says which were kept.
                wish.preserve_retain = !retained;
                let id = id.and_then(|id| usize::try_from(id).ok());
                let properties = mqtt5::SubscribeProperties { id, user_properties: Vec::new() };
                client.try_subscribe_many_with_properties([wish], properties).map_err(|_| Full)
            }
            Self::V311(client) => client.try_subscribe(filter, rumqttc::QoS::AtLeastOnce).map_err(|_| Full),
        }
    }

    /// Subscribes as a client wishes.
    ///
    /// # Errors
    /// When the connection takes nothing more.
    pub(crate) fn subscribe_as(&self, filter: &str, wish: &Wish, identifies: bool) -> Result<(), Full> {
        match self {
            Self::V5(client) => {
                let id = wish.identifier.filter(|_| identifies);
                let id = id.and_then(|id| usize::try_from(id.get()).ok());
                let properties = mqtt5::SubscribeProperties { id, user_properties: Vec::new() };
                client.try_subscribe_many_with_properties([wish.v5(filter)], properties).map_err(|_| Full)
            }
            Self::V311(client) => client.try_subscribe(filter, wish.v311()).map_err(|_| Full),
        }
    }

    pub(crate) fn unsubscribe(&self, filter: &str) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_unsubscribe(filter).map_err(|_| Full),
            Self::V311(client) => client.try_unsubscribe(filter).map_err(|_| Full),
        }
    }

    /// Acknowledges a message of QoS 1, or the first time one of QoS 2.
    pub(crate) fn acknowledge(&self, packet_id: u16, exactly_once: bool) -> Result<(), Full> {
        match self {
            Self::V5(client) => {
                use v5::mqttbytes::QoS;
                let of = mqtt5::Publish {
                    pkid: packet_id,
                    qos: if exactly_once { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
                    ..mqtt5::Publish::default()
                };
                client.try_ack(&of).map_err(|_| Full)
            }
            Self::V311(client) => {
                use rumqttc::QoS;
                let qos = if exactly_once { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                let mut of = rumqttc::Publish::new("", qos, Vec::new());
                of.pkid = packet_id;
                client.try_ack(&of).map_err(|_| Full)
            }
        }
    }

    /// Says good-bye behind what was said before.
    pub(crate) fn disconnect(&self) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_disconnect().map_err(|_| Full),
            Self::V311(client) => client.try_disconnect().map_err(|_| Full),
        }
    }
}

fn network(how: &Introduction) -> NetworkOptions {
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(seconds(how.timeout));
    network.set_tcp_nodelay(true);
    network
}

/// rumqttc counts whole seconds: never fewer than are wanted.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(1)
}

/// Room for all messages of the window, all acknowledgements and what is subscribed to.
fn capacity(how: &Introduction) -> usize {
    usize::from(how.window) + usize::from(how.receive_maximum) + 65_536
}

/// A sign of life comes once in the time of keep-alive: what is silent for longer does not even take our own.
fn patience(keep_alive: Duration) -> Duration {
    keep_alive.saturating_mul(5) / 2
}

fn stuck() -> Failure {
    Failure::Lost("the broker neither takes nor says anything any more".into())
}

fn unexpected(what: &dyn std::fmt::Debug) -> Failure {
    Failure::Foreign { asked: "MQTT", why: format!("it began with {what:?}") }
}

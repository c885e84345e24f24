//! `[doors.mqtt]`, `[doors.amqp]`, `[doors.http]`: where clients come in, and how much each may ask for.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::KeyPath;
use super::report::Report;
use super::{Problem, duration, listen, size};

/// The three doors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Doors {
    /// MQTT 3.1.1 and 5.0.
    pub mqtt: MqttDoor,
    /// AMQP 0-9-1.
    pub amqp: AmqpDoor,
    /// HTTP.
    pub http: HttpDoor,
}

/// `[doors.mqtt]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MqttDoor {
    /// False turns the door off.
    pub enabled: bool,
    /// Address and port; port 0 takes a free one.
    #[serde(with = "listen")]
    pub listen: SocketAddr,
    /// The vhost that MQTT clients are in.
    pub vhost: String,
    /// Connections beyond this are closed at once.
    pub max_connections: NonZeroU32,
    /// Bytes of the largest packet taken from a client, its fixed header included: Maximum Packet Size
    /// [MQTT-3.2.2-15].
    #[serde(with = "size")]
    pub max_packet_size: u64,
    /// QoS 1 and 2 messages that a client may have unacknowledged: Receive Maximum (MQTT 5 §3.2.2.3.3).
    pub receive_maximum: NonZeroU16,
    /// Topic aliases that an MQTT 5 client may use; 0 for none: Topic Alias Maximum (§3.2.2.3.8).
    pub topic_alias_maximum: u16,
    /// Longest keep-alive; an MQTT 5 client that asks for more or none is told this one: Server Keep Alive
    /// (§3.2.2.3.14). Zero: whatever the client asks for.
    #[serde(with = "duration")]
    pub max_keep_alive: Duration,
    /// From the accepted connection to the complete CONNECT.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Longest time that a session is kept without its client (MQTT 5 §3.2.2.3.2). Zero: every session ends with its
    /// connection.
    #[serde(with = "duration")]
    pub max_session_expiry: Duration,
    /// Sessions that may outlive their connections, those that are connected among them; who wants one more is refused.
    pub max_sessions: NonZeroU32,
}

/// `[doors.amqp]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct AmqpDoor {
    /// False turns the door off.
    pub enabled: bool,
    /// Address and port; port 0 takes a free one.
    #[serde(with = "listen")]
    pub listen: SocketAddr,
    /// Connections beyond this are closed at once.
    pub max_connections: NonZeroU32,
    /// Bytes of the largest frame, offered in connection.tune; at least 4096 (AMQP 0-9-1 §4.2.3).
    #[serde(with = "size")]
    pub max_frame_size: u64,
    /// Bytes of the largest message body; more closes the channel with 406.
    #[serde(with = "size")]
    pub max_body_size: u64,
    /// Channels of one connection, offered in connection.tune.
    pub channel_max: NonZeroU16,
    /// Offered in connection.tune, in whole seconds; zero for none.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// From the accepted connection to connection.open.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
}

/// `[doors.http]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HttpDoor {
    /// False turns the door off.
    pub enabled: bool,
    /// Address and port; port 0 takes a free one.
    #[serde(with = "listen")]
    pub listen: SocketAddr,
    /// The vhost that HTTP clients are in.
    pub vhost: String,
    /// Connections beyond this are closed at once.
    pub max_connections: NonZeroU32,
    /// Bytes of the largest request body; more is answered with 413.
    #[serde(with = "size")]
    pub max_body_size: u64,
    /// How long a client may take to send a request's head.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// Messages on lease and requests that wait for one; more are answered with 429.
    pub max_leases: NonZeroU32,
    /// Those of one user.
    pub max_leases_per_user: NonZeroU32,
    /// Longest time that a lease may be asked for, or extended by.
    #[serde(with = "duration")]
    pub max_lease: Duration,
    /// Longest time that a request may wait for a message.
    #[serde(with = "duration")]
    pub max_wait: Duration,
}

const fn nonzero(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number - 1)
}

const fn nonzero_u16(number: u16) -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(number - 1)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Default for MqttDoor {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: loopback(1883),
            vhost: "/".into(),
            max_connections: nonzero(100_000),
            max_packet_size: 16 << 20,
            receive_maximum: nonzero_u16(1024),
            topic_alias_maximum: 32,
            max_keep_alive: Duration::ZERO,
            connect_timeout: Duration::from_secs(10),
            max_session_expiry: Duration::from_secs(7 * 24 * 3600),
            max_sessions: nonzero(100_000),
        }
    }
}

impl Default for AmqpDoor {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: loopback(5672),
            max_connections: nonzero(100_000),
            max_frame_size: 128 << 10,
            max_body_size: 16 << 20,
            channel_max: nonzero_u16(2047),
            heartbeat: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for HttpDoor {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: loopback(8080),
            vhost: "/".into(),
            max_connections: nonzero(10_000),
            max_body_size: 16 << 20,
            head_timeout: Duration::from_secs(30),
            max_leases: nonzero(10_000),
            max_leases_per_user: nonzero(1_000),
            max_lease: Duration::from_secs(3600),
            max_wait: Duration::from_secs(60),
        }
    }
}

impl Doors {
    /// The doors that are open: name and address.
    pub fn open(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let doors = [
            ("mqtt", self.mqtt.enabled, self.mqtt.listen),
            ("amqp", self.amqp.enabled, self.amqp.listen),
            ("http", self.http.enabled, self.http.listen),
        ];
        doors.into_iter().filter(|(_, enabled, _)| *enabled).map(|(name, _, address)| (name, address))
    }

    /// Ranges that a standard sets, addresses, and who may come in. `vhosts` and `has_users` are the configuration's.
    pub(super) fn check<'a>(
        &self,
        has_users: bool,
        vhosts: impl Iterator<Item = &'a str> + Clone,
        report: &mut Report<'_>,
    ) {
        const MAX_PACKET: u64 = 268_435_460;
        let at = |door: &str, key: &str| KeyPath::of(["doors", door, key]);
        let mut within = |key: KeyPath, bytes: u64, least: u64, most: u64| {
            if !(least..=most).contains(&bytes) {
                let (bytes, least, most) = (size::show(bytes), size::show(least), size::show(most));
                report.bad_value(&key, format!("{bytes} is out of range; expected {least} to {most}"));
            }
        };
        within(at("mqtt", "max-packet-size"), self.mqtt.max_packet_size, 1 << 10, MAX_PACKET);
        within(at("amqp", "max-frame-size"), self.amqp.max_frame_size, 4 << 10, 1 << 30);
        within(at("amqp", "max-body-size"), self.amqp.max_body_size, 1 << 10, 1 << 40);
        within(at("http", "max-body-size"), self.http.max_body_size, 1 << 10, 1 << 40);
        for (key, duration) in [
            (at("mqtt", "max-keep-alive"), self.mqtt.max_keep_alive),
            (at("amqp", "heartbeat"), self.amqp.heartbeat),
        ] {
            if duration.subsec_nanos() != 0 || duration.as_secs() > u64::from(u16::MAX) {
                let duration = duration::show(duration);
                report.bad_value(
                    &key,
                    format!("{duration} is out of range; expected whole seconds, \"0s\" to \"65535s\""),
                );
            }
        }
        if self.mqtt.max_session_expiry.subsec_nanos() != 0 {
            let duration = duration::show(self.mqtt.max_session_expiry);
            let key = at("mqtt", "max-session-expiry");
            report.bad_value(&key, format!("{duration} is out of range; expected whole seconds"));
        }
        if self.http.max_lease.is_zero() {
            let text = "0s would let nobody have a message; expected a duration such as \"1h\"";
            report.bad_value(&at("http", "max-lease"), text);
        }
        for (key, timeout) in [
            (at("mqtt", "connect-timeout"), self.mqtt.connect_timeout),
            (at("amqp", "connect-timeout"), self.amqp.connect_timeout),
        ] {
            if timeout.is_zero() {
                report.bad_value(&key, "0s leaves no time to connect; expected \"1s\" or more");
            }
        }
        for (door, enabled, vhost) in
            [("mqtt", self.mqtt.enabled, &self.mqtt.vhost), ("http", self.http.enabled, &self.http.vhost)]
        {
            if enabled && !vhosts.clone().any(|known| known == &**vhost) {
                report.unknown(&at(door, "vhost"), "vhost", vhost, vhosts.clone());
            }
        }
        self.check_addresses(has_users, report);
    }

    fn check_addresses(&self, has_users: bool, report: &mut Report<'_>) {
        let mut taken: Vec<(&'static str, SocketAddr)> = Vec::new();
        for (door, address) in self.open() {
            let key = KeyPath::of(["doors", door, "listen"]);
            if !has_users && !address.ip().to_canonical().is_loopback() {
                report.wrong(&key, Problem::OpenDoor(address));
            }
            if let Some((other, _)) = taken.iter().find(|(_, a)| *a == address && address.port() != 0) {
                let other_key = KeyPath::of(["doors", other, "listen"]);
                // The one to change is the one that somebody wrote.
                let (key, other_key) = if report.is_set(&key) { (key, other_key) } else { (other_key, key) };
                report.wrong(&key, Problem::AddressTaken { address, other_key });
            }
            taken.push((door, address));
        }
    }
}

//! From CONNECT to CONNACK: what a client asks for and what it is given.

use std::hash::{BuildHasher, RandomState};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use linkspan_contract::session::FOREVER;
use linkspan_contract::{BackendError, SessionTerms};

use super::limits::Limits;
use super::translate::connect_reason;
use super::translate::delivery::Receiver;
use super::will::Testament;
use crate::identity::{Credentials, Denied};
use crate::protocol::mqtt::{
    Connack, ConnackProperties, Connect, Error, Framing, Packet, ReasonCode, Secret, Version,
};

/// What the two sides have agreed on.
#[derive(Debug, Clone)]
pub(super) struct Agreement {
    /// The standard that the client follows.
    pub version: Version,
    /// Names the session.
    pub identifier: Arc<str>,
    /// Bytes of the largest packet that the client takes.
    pub maximum: u32,
    /// Deliveries that it may have unacknowledged.
    pub window: u32,
    /// Whether it wants to know why something failed, in other packets than CONNACK and DISCONNECT
    /// [MQTT-3.1.2-29].
    pub problem_information: bool,
    /// Seconds of its keep-alive; 0 for none.
    pub keep_alive: u16,
    /// Left behind.
    pub will: Option<Box<Testament>>,
    /// It wants no session from before.
    fresh: bool,
    /// Seconds that its session is to outlive the connection.
    keep: u32,
    assigned: bool,
    keep_alive_changed: bool,
}

/// A client that is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TurnedAway {
    /// Of those that a CONNACK may have.
    pub reason: ReasonCode,
    /// For people.
    pub text: String,
}

/// Who a client says it is.
pub(super) fn credentials<'a>(connect: &Connect<'a>) -> Credentials<'a> {
    match (connect.user_name, connect.password) {
        (None, None) => Credentials::Anonymous,
        (user, password) => Credentials::Password {
            user: user.unwrap_or_default(),
            password: password.map_or(&[], |Secret(bytes)| bytes),
        },
    }
}

impl Agreement {
    /// What a client that asks for `connect` is given; `number` is the connection's.
    ///
    /// # Errors
    /// Why it is turned away.
    pub(super) fn reach(connect: &Connect<'_>, limits: &Limits, number: u64) -> Result<Self, TurnedAway> {
        let asked = &connect.properties;
        if asked.authentication_method.is_some() {
            return Err(TurnedAway::new(
                ReasonCode::BadAuthenticationMethod,
                "extended authentication is not offered: use user name and password",
            ));
        }
        let will = match &connect.will {
            Some(will) => Some(Box::new(Testament::new(will, connect.version).map_err(|error| {
                TurnedAway::new(error.reason(), format!("the will cannot be kept: {error}"))
            })?)),
            None => None,
        };
        let keep_alive = match (connect.version, connect.keep_alive, limits.keep_alive) {
            (Version::V5, asked, longest) if longest > 0 && (asked == 0 || asked > longest) => longest,
            (_, asked, _) => asked,
        };
        let window = asked.receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(limits.window.get());
        let assigned = connect.client_identifier.is_empty();
        Ok(Self {
            version: connect.version,
            identifier: if assigned { made_up(number) } else { connect.client_identifier.into() },
            maximum: asked.maximum_packet_size.map_or(Framing::MAXIMUM_PACKET_SIZE, NonZeroU32::get),
            window: window.into(),
            problem_information: asked.request_problem_information.unwrap_or(true),
            keep_alive,
            will,
            fresh: connect.clean_start,
            keep: match connect.version {
                Version::V5 => asked.session_expiry_interval.unwrap_or(0),
                // Clean session says both what is found and what is left (3.1.1 §3.1.2.4).
                Version::V311 if connect.clean_start => 0,
                Version::V311 => FOREVER,
            },
            assigned,
            keep_alive_changed: keep_alive != connect.keep_alive,
        })
    }

    /// What a back end that keeps sessions is asked for.
    pub(super) fn terms(&self) -> SessionTerms {
        SessionTerms {
            at_broker: true,
            fresh: self.fresh,
            keep: self.keep,
            window: u16::try_from(self.window).unwrap_or(u16::MAX),
            will: self.will.as_ref().and_then(|will| will.testament(self.version)),
        }
    }

    /// The CONNACK that says so: whether there is a session from before, and for how many seconds it is kept.
    ///
    /// # Errors
    /// When it is larger than the client takes.
    pub(super) fn welcome(&self, limits: &Limits, present: bool, kept: u32) -> Result<Vec<u8>, TurnedAway> {
        let properties = ConnackProperties {
            session_expiry_interval: (kept != self.keep).then_some(kept),
            receive_maximum: Some(limits.receive_maximum).filter(|maximum| maximum.get() < u16::MAX),
            maximum_packet_size: NonZeroU32::new(limits.packet)
                .filter(|maximum| maximum.get() < Framing::MAXIMUM_PACKET_SIZE),
            assigned_client_identifier: self.assigned.then_some(&*self.identifier),
            topic_alias_maximum: Some(limits.topic_aliases).filter(|maximum| *maximum > 0),
            wildcard_subscription_available: Some(true),
            subscription_identifier_available: Some(true),
            shared_subscription_available: Some(true),
            server_keep_alive: self.keep_alive_changed.then_some(self.keep_alive),
            ..ConnackProperties::default()
        };
        let connack = Connack { session_present: present, reason: ReasonCode::Success, properties };
        let mut bytes = Vec::new();
        Packet::Connack(connack).encode_within(self.maximum, self.version, &mut bytes).map_err(|error| {
            TurnedAway::new(ReasonCode::PacketTooLarge, format!("the client takes no CONNACK: {error}"))
        })?;
        Ok(bytes)
    }

    /// Whether the client wants no session from before.
    pub(super) const fn fresh(&self) -> bool {
        self.fresh
    }

    /// Seconds for which it wants its session to be kept.
    pub(super) const fn keep(&self) -> u32 {
        self.keep
    }

    /// How it is sent messages.
    pub(super) const fn receiver(&self) -> Receiver {
        Receiver { version: self.version, maximum: self.maximum }
    }

    /// Whether a DISCONNECT may give the session a time to live: not when the CONNECT gave it none (§3.14.2.2.2).
    pub(super) const fn may_keep_session(&self) -> bool {
        self.keep > 0
    }
}

/// A client identifier for a client that has none; hard to guess, so that nobody takes it over.
fn made_up(number: u64) -> Arc<str> {
    format!("linkspan-{number}-{:016x}", RandomState::new().hash_one(number)).into()
}

impl TurnedAway {
    /// For a reason and a text of one's own.
    pub(super) fn new(reason: ReasonCode, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// The CONNACK that says so; empty when the standard has the connection closed without one.
    pub(super) fn refusal(&self, version: Version) -> Vec<u8> {
        let properties =
            ConnackProperties { reason_string: Some(&self.text), ..ConnackProperties::default() };
        let connack = Connack { session_present: false, reason: self.reason, properties };
        let mut bytes = Vec::new();
        // MQTT 3.1.1 has few return codes; without one the connection closes [MQTT-3.2.2-6].
        let _ = Packet::Connack(connack).encode(version, &mut bytes);
        bytes
    }
}

/// The answer to a CONNECT that is none; `body` is what stands behind its fixed header. Empty when there is no answer.
pub(super) fn refusal_of(body: &[u8], error: &Error) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some((version, mut connack)) = Connack::refusal(body, error) {
        let text = error.to_string();
        connack.properties.reason_string = Some(&text);
        let _ = Packet::Connack(connack).encode(version, &mut bytes);
    }
    bytes
}

impl From<Denied> for TurnedAway {
    fn from(denied: Denied) -> Self {
        let reason = match denied {
            Denied::BadCredentials => ReasonCode::BadUserNameOrPassword,
            Denied::NoCredentials | Denied::NotLocal => ReasonCode::NotAuthorized,
            Denied::NotVerified => ReasonCode::ServerUnavailable,
        };
        Self::new(reason, denied.to_string())
    }
}

impl From<BackendError> for TurnedAway {
    fn from(error: BackendError) -> Self {
        Self::new(connect_reason(&error), error.to_string())
    }
}

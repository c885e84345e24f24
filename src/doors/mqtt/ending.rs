//! Why a connection ends, and what the client is told.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::sync::Arc;

use linkspan_contract::{Ended, Lost};

use super::translate;
use crate::doors::outbound::Closed;
use crate::protocol::mqtt::{Disconnect, Error, Packet, ReasonCode, Version};

/// Why a connection ends. All but one way to leave have the will published (MQTT 5 §3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ending {
    /// The client has said DISCONNECT.
    #[error("the client left ({0:?})")]
    Left(ReasonCode),
    /// The client broke the standard within one packet.
    #[error(transparent)]
    Malformed(#[from] Error),
    /// The client broke the standard, or a limit, by what went before.
    #[error("{text}")]
    Violated {
        /// Of those that a DISCONNECT may have.
        reason: ReasonCode,
        /// What was wrong, with the statement.
        text: &'static str,
    },
    /// A message was refused, and MQTT 3.1.1 has no word for that.
    #[error("a message was refused: {0}")]
    Refused(Box<str>),
    /// Nothing was received for one and a half times the keep-alive [MQTT-3.1.2-22].
    #[error("nothing was received for one and a half times the keep-alive")]
    Silent,
    /// Another connection has the client identifier now.
    #[error("another connection took the client identifier over")]
    TakenOver,
    /// The back end ended a subscription.
    #[error("{1}")]
    Unsubscribed(ReasonCode, Cow<'static, str>),
    /// The way to the back end is lost.
    #[error("the back end is lost: {0}")]
    Lost(Arc<str>),
    /// What the client asked for could not be written down, so that it would not outlive a restart.
    #[error("the session could not be written down: {0}")]
    NotWritten(Box<str>),
    /// Linkspan goes down.
    #[error("Linkspan is shutting down")]
    ShuttingDown,
    /// The client closed the connection, or it broke.
    #[error("the connection was closed by the client{}", .0.map(|kind| format!(": {kind}")).unwrap_or_default())]
    Gone(Option<ErrorKind>),
}

impl Ending {
    /// A violation that takes more than one packet to see.
    pub(super) const fn violated(reason: ReasonCode, text: &'static str) -> Self {
        Self::Violated { reason, text }
    }

    /// How the back end ended a subscription; none when the subscription goes on later.
    pub(super) fn unsubscribed(why: Ended) -> Option<Self> {
        translate::ended(why).map(|(reason, text)| Self::Unsubscribed(reason, text))
    }

    /// What a DISCONNECT says; none when nobody is there to read it.
    pub(super) fn reason(&self) -> Option<ReasonCode> {
        Some(match self {
            Self::Left(_) | Self::Gone(_) => return None,
            Self::Malformed(error) => error.reason(),
            Self::Violated { reason, .. } | Self::Unsubscribed(reason, _) => *reason,
            Self::Refused(_) => ReasonCode::QuotaExceeded,
            Self::Silent => ReasonCode::KeepAliveTimeout,
            Self::TakenOver => ReasonCode::SessionTakenOver,
            Self::Lost(_) | Self::NotWritten(_) => ReasonCode::ServerBusy,
            Self::ShuttingDown => ReasonCode::ServerShuttingDown,
        })
    }

    /// Whether the client is at fault.
    pub(super) const fn is_violation(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::Violated { .. })
    }

    /// Whether the will is published [MQTT-3.1.2-8]: always, but when the client has left by the front door
    /// [MQTT-3.14.4-3].
    pub(super) fn leaves_will(&self) -> bool {
        *self != Self::Left(ReasonCode::Success)
    }

    /// The DISCONNECT; empty for MQTT 3.1.1, which has none from a server.
    pub(super) fn farewell(&self, version: Version, maximum: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let (Version::V5, Some(reason)) = (version, self.reason()) {
            let text = self.to_string();
            let disconnect = Disconnect { reason_string: Some(&text), ..Disconnect::new(reason) };
            // One that the client would not take is not sent: the connection closes all the same.
            let _ = Packet::Disconnect(disconnect).encode_within(maximum, version, &mut bytes);
        }
        bytes
    }
}

impl From<Lost> for Ending {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost.to_string().into())
    }
}

impl From<Closed> for Ending {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Here => Self::Gone(None),
            Closed::Broken(kind) => Self::Gone(Some(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_farewell_is_one_that_a_server_may_say() {
        use crate::protocol::mqtt::{PacketType, Sender};
        let endings = [
            Ending::Malformed(Error::TrailingBytes),
            Ending::violated(ReasonCode::ReceiveMaximumExceeded, "x"),
            Ending::Refused("x".into()),
            Ending::Silent,
            Ending::TakenOver,
            Ending::unsubscribed(Ended::QueueDeleted).unwrap(),
            Ending::unsubscribed(Ended::Superseded).unwrap(),
            Ending::unsubscribed(Ended::RouteChanged).unwrap(),
            Ending::unsubscribed(Ended::LimitExceeded { bytes: 1 }).unwrap(),
            Ending::Lost("x".into()),
            Ending::NotWritten("x".into()),
            Ending::ShuttingDown,
        ];
        for ending in endings {
            let reason = ending.reason().unwrap();
            assert!(reason.is_allowed_in(PacketType::Disconnect, Sender::Server), "{ending:?}: {reason:?}");
            assert!(ending.leaves_will());
            assert!(
                ending.farewell(Version::V311, u32::MAX).is_empty(),
                "3.1.1 has no DISCONNECT from a server"
            );
            assert_eq!(ending.farewell(Version::V5, 4).len(), 3, "the text is left out when it is too long");
        }
    }

    #[test]
    fn only_a_normal_disconnect_drops_the_will_mqtt_3_14_4_3() {
        assert!(!Ending::Left(ReasonCode::Success).leaves_will());
        assert!(Ending::Left(ReasonCode::DisconnectWithWillMessage).leaves_will());
        assert!(Ending::Gone(None).leaves_will());
    }
}

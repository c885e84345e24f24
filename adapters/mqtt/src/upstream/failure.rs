//! Why there is no connection, in words for people.

use std::io;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};
use rumqttc::{TlsError, v5};

/// Why a connection ended or never was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody listens there, or the way is not there.
    #[error("{0}")]
    Unreachable(String),
    /// It took the connection and said nothing.
    #[error("it does not answer: no CONNACK within {}", time(*.0))]
    Silent(Duration),
    /// The user or password is wrong, or this client is not allowed.
    #[error("it refuses the connection: {0}")]
    Denied(String),
    /// It takes no client of that identifier.
    #[error("it does not take the client identifier: {0}")]
    BadIdentifier(String),
    /// The certificates do not fit.
    #[error("TLS: {0}")]
    Tls(String),
    /// What answers speaks no MQTT that we speak.
    #[error("it does not speak {asked}: {why}")]
    Foreign {
        /// What was spoken to it.
        asked: &'static str,
        /// What it did.
        why: String,
    },
    /// Another client came with the same client identifier.
    #[error("another client of the broker took over the client identifier '{0}'")]
    TakenOver(String),
    /// A message of QoS 2 whose beginning another connection has seen is ended by the broker: what is used here to speak
    /// MQTT takes that for a violation unless it is told before.
    #[error("the broker ends a message that is not known, packet identifier {0}")]
    Unsolicited(u16),
    /// The broker closed the connection and did not say why.
    #[error("the broker closed the connection without a reason")]
    Closed,
    /// The connection was there, and broke.
    #[error("{0}")]
    Lost(String),
}

impl Failure {
    /// True when the broker may speak MQTT 3.1.1 all the same.
    pub(crate) fn may_be_older(&self) -> bool {
        matches!(self, Self::Foreign { .. })
    }

    /// Nothing new after `known`: the same again, or what comes of a connection that was lost.
    pub(crate) fn follows(&self, known: &Self) -> bool {
        let is_loss = |it: &Self| matches!(it, Self::Lost(_) | Self::Closed);
        let is_gap = is_loss(self) || matches!(self, Self::Unreachable(_));
        if self.is_muffled(known) {
            return true;
        }
        std::mem::discriminant(self) == std::mem::discriminant(known) || (is_loss(known) && is_gap)
    }

    /// What the broker says of a certificate, which is `known`, is lost at times when it hangs up.
    pub(crate) fn is_muffled(&self, known: &Self) -> bool {
        matches!((known, self), (Self::Tls(_), Self::Foreign { .. }))
    }

    pub(crate) fn of_v5(
        error: v5::ConnectionError,
        before_welcome: bool,
        timeout: Duration,
        identifier: &str,
    ) -> Self {
        use v5::{ConnectionError as E, StateError as S};
        const ASKED: &str = "MQTT 5";
        match error {
            E::Timeout(_) => Self::Silent(timeout),
            E::Tls(error) => Self::of_tls(error),
            E::Io(error) => Self::of_io(&error),
            E::ConnectionRefused(code) => Self::of_code(code, ASKED),
            E::NotConnAck(packet) => {
                Self::Foreign { asked: ASKED, why: format!("it answered with {packet:?}") }
            }
            E::MqttState(S::ServerDisconnect { reason_code, reason_string }) => {
                if reason_code == DisconnectReasonCode::SessionTakenOver {
                    return Self::TakenOver(identifier.into());
                }
                let text = reason_string.map(|text| format!(" ({text})")).unwrap_or_default();
                Self::Lost(format!(
                    "the broker closed the connection: {}{text}",
                    spaced(&format!("{reason_code:?}"))
                ))
            }
            E::MqttState(S::ConnectionAborted) if before_welcome => {
                Self::Foreign { asked: ASKED, why: "it closed the connection instead of an answer".into() }
            }
            E::MqttState(S::ConnectionAborted) => Self::Closed,
            E::MqttState(S::Unsolicited(packet_id)) => Self::Unsolicited(packet_id),
            E::MqttState(S::Io(error)) => Self::of_io(&error),
            E::MqttState(S::Deserialization(v5::mqttbytes::Error::Io(error))) if before_welcome => {
                Self::of_first_read(&error, ASKED)
            }
            E::MqttState(S::Deserialization(error)) if before_welcome => {
                Self::Foreign { asked: ASKED, why: format!("its answer is none: {error}") }
            }
            E::MqttState(S::AwaitPingResp) => Self::Lost("the broker gives no sign of life".into()),
            other => Self::Lost(other.to_string()),
        }
    }

    pub(crate) fn of_v311(error: rumqttc::ConnectionError, before_welcome: bool, timeout: Duration) -> Self {
        use rumqttc::{ConnectionError as E, StateError as S};
        const ASKED: &str = "MQTT 3.1.1";
        match error {
            E::NetworkTimeout => Self::Silent(timeout),
            E::FlushTimeout => Self::Lost("the broker takes nothing any more".into()),
            E::Tls(error) => Self::of_tls(error),
            E::Io(error) => Self::of_io(&error),
            E::ConnectionRefused(code) => {
                use rumqttc::ConnectReturnCode as C;
                match code {
                    C::BadUserNamePassword => Self::Denied("bad user name or password".into()),
                    C::NotAuthorized => Self::Denied("not authorized".into()),
                    C::BadClientId => Self::BadIdentifier("bad client id".into()),
                    C::ServiceUnavailable => {
                        Self::Unreachable("it lets nobody in now: service unavailable".into())
                    }
                    C::RefusedProtocolVersion => {
                        Self::Foreign { asked: ASKED, why: "it refused this version".into() }
                    }
                    other => Self::Denied(spaced(&format!("{other:?}"))),
                }
            }
            E::NotConnAck(packet) => {
                Self::Foreign { asked: ASKED, why: format!("it answered with {packet:?}") }
            }
            E::MqttState(S::ConnectionAborted) if before_welcome => {
                Self::Foreign { asked: ASKED, why: "it closed the connection instead of an answer".into() }
            }
            E::MqttState(S::ConnectionAborted) => Self::Closed,
            E::MqttState(S::Unsolicited(packet_id)) => Self::Unsolicited(packet_id),
            E::MqttState(S::Io(error)) => Self::of_io(&error),
            E::MqttState(S::Deserialization(rumqttc::mqttbytes::Error::Io(error))) if before_welcome => {
                Self::of_first_read(&error, ASKED)
            }
            E::MqttState(S::Deserialization(error)) if before_welcome => {
                Self::Foreign { asked: ASKED, why: format!("its answer is none: {error}") }
            }
            E::MqttState(S::AwaitPingResp) => Self::Lost("the broker gives no sign of life".into()),
            other => Self::Lost(other.to_string()),
        }
    }

    fn of_code(code: ConnectReturnCode, asked: &'static str) -> Self {
        use ConnectReturnCode as C;
        match code {
            C::BadUserNamePassword => Self::Denied("bad user name or password".into()),
            C::NotAuthorized => Self::Denied("not authorized".into()),
            C::UnsupportedProtocolVersion | C::RefusedProtocolVersion => {
                Self::Foreign { asked, why: "it refused this version".into() }
            }
            C::ClientIdentifierNotValid | C::BadClientId => Self::BadIdentifier(spaced(&format!("{code:?}"))),
            C::ServerUnavailable | C::ServiceUnavailable | C::ServerBusy => {
                Self::Unreachable(format!("it lets nobody in now: {}", spaced(&format!("{code:?}"))))
            }
            other => Self::Denied(spaced(&format!("{other:?}"))),
        }
    }

    /// TLS 1.3 is agreed on before the server has looked at a client's certificate: what it says of that comes in place of
    /// an answer.
    fn of_first_read(error: &io::Error, asked: &'static str) -> Self {
        if error.kind() == io::ErrorKind::InvalidData {
            return Self::Tls(advised(error));
        }
        Self::Foreign { asked, why: "it closed the connection instead of an answer".into() }
    }

    fn of_tls(error: TlsError) -> Self {
        match error {
            TlsError::Io(error) => match error.get_ref() {
                Some(_) if error.kind() == io::ErrorKind::InvalidData => Self::Tls(advised(&error)),
                _ => Self::Tls(format!("the handshake broke off ({error}): does it speak TLS there?")),
            },
            other => Self::Tls(other.to_string()),
        }
    }

    fn of_io(error: &io::Error) -> Self {
        // A certificate that does not fit comes as an error of this kind.
        if error.kind() == io::ErrorKind::InvalidData {
            return Self::Tls(advised(error));
        }
        Self::Unreachable(error.to_string())
    }
}

/// With what to do.
fn advised(error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Wrong, Error as E};
    let hint = match error.get_ref().and_then(|inner| inner.downcast_ref::<E>()) {
        Some(E::InvalidCertificate(Wrong::UnknownIssuer)) => {
            "who signed its certificate is not trusted here: name that authority in `ca`"
        }
        Some(E::InvalidCertificate(Wrong::NotValidForName | Wrong::NotValidForNameContext { .. })) => {
            "its certificate is for another host: write that name in `url`"
        }
        Some(E::AlertReceived(Alert::CertificateRequired)) => {
            "it wants a certificate: give `certificate` and `key`"
        }
        Some(E::AlertReceived(_)) => "it does not accept Linkspan's `certificate`, or the lack of one",
        Some(E::InvalidMessage(_)) => "it speaks no TLS there",
        _ => return error.to_string(),
    };
    format!("{hint} ({error})")
}

/// Whole seconds as such.
fn time(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{} ms", time.as_millis()),
    }
}

/// `NotAuthorized` as `not authorized`.
fn spaced(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn silence_is_told_with_its_length() {
        let told = |millis| Failure::Silent(Duration::from_millis(millis)).to_string();
        assert_eq!(told(5000), "it does not answer: no CONNACK within 5 s");
        assert_eq!(told(250), "it does not answer: no CONNACK within 250 ms");
    }

    #[test]
    fn a_refusal_is_told_in_words() {
        let error = v5::ConnectionError::ConnectionRefused(ConnectReturnCode::QuotaExceeded);
        let failure = Failure::of_v5(error, true, TIMEOUT, "x");
        assert_eq!(failure.to_string(), "it refuses the connection: quota exceeded");
        assert!(!failure.may_be_older());
    }

    #[test]
    fn only_what_speaks_no_mqtt_5_may_be_older() {
        let closed = || v5::ConnectionError::MqttState(v5::StateError::ConnectionAborted);
        assert!(Failure::of_v5(closed(), true, TIMEOUT, "x").may_be_older());
        assert!(!Failure::of_v5(closed(), false, TIMEOUT, "x").may_be_older());
    }
}

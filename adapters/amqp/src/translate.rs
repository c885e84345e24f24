//! Between the contract's words and lapin's: the firewall of what goes out, what comes in, and what the broker refuses.

mod death;
mod incoming;
mod outgoing;
mod refusal;
mod table;

pub(crate) use incoming::{Arrived, Letter, attempt, from_of};
pub(crate) use outgoing::{Sender, channel_error, outgoing, too_large, with_time_of};
pub(crate) use refusal::{closed, is_deleted, refused};
pub(crate) use table::table;

/// Headers of Linkspan's own, which no consumer of Linkspan sees.
mod header {
    /// `<instance>:<client>` of a publisher that wants nothing of its own back.
    pub(crate) const FROM: &str = "linkspan-from";
    /// Milliseconds since 1970 when a message that expires was published.
    pub(crate) const AT: &str = "linkspan-at";
    /// The routing key of the address that a message in a queue was published to, when it was put there by name.
    pub(crate) const ADDRESS: &str = "linkspan-address";
    /// A user identifier that the broker would not believe.
    pub(crate) const USER: &str = "linkspan-user-id";
    /// MQTT's payload format indicator.
    pub(crate) const PAYLOAD_FORMAT: &str = "x-payload-format";
    /// MQTT's retain flag.
    pub(crate) const RETAIN: &str = "x-retain";
    /// A content type of more than 255 bytes.
    pub(crate) const CONTENT_TYPE: &str = "x-content-type";
    /// Correlation data that is no short text.
    pub(crate) const CORRELATION: &str = "x-correlation-id";
    /// A topic to answer to of more than 255 bytes.
    pub(crate) const REPLY_TO: &str = "x-reply-to";
    /// Headers in their order, with their duplicates.
    pub(crate) const LIST: &str = "x-mqtt-user-properties";
    /// What stands before a name that means something to the broker or to Linkspan.
    pub(crate) const ESCAPE: &str = "mqtt.";
    /// The form whose headers pass as they are.
    pub(crate) const NATIVE_FORM: &str = "AMQP 0-9-1";

    /// True when a client of another protocol must not set a header of this name.
    pub(crate) fn is_guarded(name: &str) -> bool {
        matches!(name, "CC" | "BCC")
            || ["x-", "linkspan-", "saga-", ESCAPE].iter().any(|prefix| name.starts_with(prefix))
    }
}

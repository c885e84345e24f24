//! The codec of MQTT 3.1.1 and 5.0, both directions, without I/O.
//!
//! A connection reads like this: [`Publishes`] takes the messages at the front of the read buffer in place; for what
//! stands there next, [`Framing::read`] finds the packet and [`Packet::decode`] takes it apart, borrowing from the buffer.
//! [`PublishEncoder`] writes messages, [`AckKind::success`] their receipts, [`Packet::encode`] everything. What breaks the
//! standard is an [`Error`], which names the statement and knows the [`ReasonCode`] to answer with; to a CONNECT,
//! [`Connack::refusal`] is the answer.
//!
//! What needs more than one packet to judge (a second CONNECT, an alias above the maximum, a packet identifier in use) is
//! the session's to judge.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod header;
mod identifier;
mod packet;
mod property;
mod publish;
mod publish_encoder;
mod publish_properties;
mod publish_spans;
mod qos;
mod reader;
mod reason;
mod secret;
mod sender;
mod suback;
mod subscribe;
mod subscription_identifier;
#[cfg(test)]
mod tests;
mod text;
mod topic;
mod unsuback;
mod unsubscribe;
mod user_property;
mod varint;
mod version;
mod will;
mod writer;

pub use ack::{Ack, AckKind};
pub use auth::Auth;
pub use connack::{Connack, ConnackProperties};
pub use connect::{Connect, ConnectProperties, protocol_version};
pub use disconnect::Disconnect;
pub use error::Error;
pub use header::{Frame, Framing, PacketType};
pub use identifier::PropertyIdentifier;
pub use packet::Packet;
pub use property::PayloadFormat;
pub use publish::Publish;
pub use publish_encoder::PublishEncoder;
pub use publish_properties::PublishProperties;
pub use publish_spans::{PublishSpans, Publishes, Span};
pub use qos::Qos;
pub use reason::ReasonCode;
pub use secret::Secret;
pub use sender::Sender;
pub use suback::Suback;
pub use subscribe::{RetainHandling, Subscribe, Subscription, SubscriptionOptions, Subscriptions};
pub use subscription_identifier::SubscriptionIdentifiers;
pub use topic::{check_topic_filter, check_topic_name};
pub use unsuback::Unsuback;
pub use unsubscribe::{TopicFilters, Unsubscribe};
pub use user_property::UserProperties;
pub use varint::VARIABLE_BYTE_INTEGER_MAX;
pub use version::Version;
pub use will::{Will, WillProperties};

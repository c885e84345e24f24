//! What a back end of Linkspan is: the wall between doors and brokers.
//!
//! A door (MQTT, AMQP 0-9-1, HTTP) speaks to the hub, and the hub to back ends, in the words of this crate; an adapter
//! (embedded, `amqp`, `mqtt`) implements them. Nothing here knows a protocol.
//!
//! # The life of a message
//!
//! 1. A door reads its socket once, decodes what is there **in place** and hands a [`Batch`] of [`Message`]s, spans into
//!    the read buffer, to its [`Lane`] with one synchronous [`Lane::publish`].
//! 2. The back end picks who gets what and calls each consumer connection's [`DeliverySink`] once per batch with
//!    [`Pick`]s; the sink appends to its own outbound bytes. What must wait is copied once ([`Batch::keep`]) into a
//!    queue.
//! 3. [`Published`] says what is safe at once; what is not (a log, a remote broker) comes later, in runs, to the
//!    [`ReceiptSink`].
//! 4. The door appends its acknowledgements, then calls [`Lane::flush`]: only now do the touched sinks write.
//! 5. The consumer's door gathers acknowledgements of one read into [`Settled`] runs, [`Lane::settle`]s them with one
//!    call, grants [`Credit`] once and, where the back end had run dry, [`Lane::resume`]s it.
//!
//! # Rooms
//!
//! | file | noun |
//! | --- | --- |
//! | [`backend`] | [`Backend`], [`Connection`], [`Lane`]: the three scopes |
//! | [`batch`], [`message`], [`body`] | what is published: lent, kept, or too large for memory |
//! | [`form`], [`neutral`], [`properties`], [`value`], [`textual`] | how encoded properties are read by somebody who speaks another protocol, or has only texts |
//! | [`address`] | one address space, two spellings: `a/b/c` and `a.b.c` |
//! | [`destination`], [`source`], [`topology`] | where messages go, where they come from, what AMQP clients declare |
//! | [`terms`], [`attribute`] | how a route wants its queues, and what it reads from messages |
//! | [`sink`], [`nobody`], [`credit`], [`settlement`] | the way out: delivering, and to no one; windows, accepting |
//! | [`receipt`] | the way back: who has taken responsibility |
//! | [`lease`], [`ledger`] | what only one of several instances may do, and what they remember together |
//! | [`deliveries`] | the pull side, for HTTP and what else waits for one message at a time |
//! | [`capabilities`], [`health`], [`events`], [`refusal`], [`client`], [`session`], [`clock`] | what a back end can do, how it is, what it says, what it refuses, to whom, and when |

pub mod address;
pub mod attribute;
pub mod backend;
pub mod batch;
pub mod body;
pub mod capabilities;
pub mod client;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod credit;
pub mod death;
pub mod deliveries;
pub mod destination;
pub mod events;
pub mod form;
pub mod health;
pub mod lease;
pub mod ledger;
pub mod message;
pub mod neutral;
pub mod nobody;
pub mod properties;
pub mod receipt;
pub mod refusal;
pub mod session;
pub mod settlement;
pub mod sink;
pub mod source;
pub mod terms;
pub mod textual;
pub mod topology;
pub mod value;

pub use address::{Address, Syntax};
pub use attribute::Attribute;
pub use backend::{Backend, Connection, Lane};
pub use batch::{Batch, Kept, OwnedBatch};
pub use body::{Body, BodyWriter, StoredPayload};
pub use capabilities::{Capabilities, Support};
pub use client::{Client, client_number};
pub use clock::{Clock, Millis, SystemClock};
pub use credit::Credit;
pub use death::Deaths;
pub use deliveries::{Deliveries, Delivery};
pub use destination::Destination;
pub use events::{LaneEvent, LaneEvents};
pub use form::{Malformed, WireForm};
pub use health::Health;
#[cfg(feature = "conformance")]
pub use lease::SoleInstance;
pub use lease::{Fence, Lease, Leases, NotGranted};
pub use ledger::{Ledger, LedgerError};
pub use message::{Flags, Message, Span, TargetId};
pub use neutral::Neutral;
pub use nobody::Nobody;
pub use properties::Properties;
pub use receipt::{Outcome, Published, Receipt, ReceiptSink, Seq};
pub use refusal::{BackendError, Lost, Refused, What};
pub use session::{SessionState, SessionTerms, Testament};
pub use settlement::{DeliveryTag, Settled, Settlement};
pub use sink::{Delivered, DeliverySink, Ended, Pick, Standing, SubscriptionKey};
pub use source::{Replay, Settle, Source, Subscribe, Wishes};
pub use terms::{Deduplicate, LONGEST_DELAY, Overflow, Priorities, Retry, Terms};
pub use topology::{Binding, ExchangeKind, ExchangeSpec, QueueCounts, QueueSpec};
pub use value::Value;

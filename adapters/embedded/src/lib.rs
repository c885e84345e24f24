//! The in-process back end of Linkspan: what a broker does, with nothing behind it.
//!
//! # A message's way
//!
//! A lane's [`publisher`] goes through a batch run by run: consecutive messages with one target share its [`plan`],
//! which names the subscriptions and queues they go to. A subscription's copies go **straight to the client's sink**,
//! one call per batch and connection; a [`queue`] whose consumers settle nothing does the same, every other one keeps
//! the run once ([`keeper`]) and lets the engine of `linkspan-queues` give it out. A plan is good as long as the
//! vhost's epoch: who binds or subscribes makes plans stale, and each is made anew when it is next used, from the
//! [`topology`].
//!
//! # Locks
//!
//! Topology before queues, these before sessions, these before sinks; no lock is held while another thread is waited
//! for. Who publishes where what comes again is dropped does so alone, and waits for that with no lock at all. Two queues, or two sessions, are locked together by a [`commit`] alone, in the order of their addresses. A publish
//! takes the topology's lock only to make a plan. What is to be kept of the topology is sent to the [`register`]'s writer
//! under its lock, so that both have the same order; the writer takes that lock when it has written.
//!
//! # Rooms
//!
//! | file | noun |
//! | --- | --- |
//! | [`embedded`], [`options`], [`open_error`], [`house`] | the back end, its bounds, why it cannot be, what its vhosts share |
//! | [`connection`], [`lane`], [`transaction`], [`commit`], [`body`] | a client's scope, and its ways through |
//! | [`publisher`], [`inward`], [`plan`], [`repeats`], [`again`], [`slots`], [`keeper`], [`scratch`] | the way in |
//! | [`consumers`], [`working`], [`fetches`], [`session`], [`inbox`], [`window`], [`subscription`], [`outlet`] | the way out |
//! | [`queue`], [`group`], [`parcel`], [`dead_letter`], [`postponed`], [`coordinator`] | queues, those that shared subscriptions are, what is in them, what dies in them, and time |
//! | [`archive`], [`backlog`], [`pending`], [`written`], [`parts`], [`retained`], [`notes`] | what is on the disk, what it did not take yet, who waits for it, how a message is written, parts of large bodies that are in memory, what addresses retain, and what sessions have published at QoS 2 |
//! | [`gate`], [`brake`], [`budget`] | who is held, and by what; what queues have in memory together |
//! | [`vhost`], [`topology`], [`exchange`], [`tree`], [`headers`], [`declaration`], [`arguments`] | what clients declare |
//! | [`register`] | what is declared, on the disk |

mod again;
mod archive;
mod arguments;
mod backlog;
mod body;
mod brake;
mod budget;
mod commit;
mod connection;
mod consumers;
mod coordinator;
mod dead_letter;
mod declaration;
mod embedded;
mod exchange;
mod fetches;
mod gate;
mod group;
mod headers;
mod house;
mod inbox;
mod inward;
mod keeper;
mod lane;
mod notes;
mod open_error;
mod options;
mod outlet;
mod parcel;
mod parts;
mod pending;
mod plan;
mod postponed;
mod publisher;
mod queue;
mod register;
mod repeats;
mod retained;
mod scratch;
mod session;
mod slots;
mod subscription;
mod topology;
mod transaction;
mod tree;
mod vhost;
mod window;
mod working;
mod written;

pub use archive::{is_seen, of_log};
pub use budget::Budget;
pub use embedded::{BindingWatch, CAPABILITIES, DURABLE, Embedded, QueueDepth};
pub use linkspan_queues::log::SyncMode;
pub use open_error::OpenError;
pub use options::{EmbeddedOptions, OnDisk};
pub use register::{QueueName, RegisterError, queue_names};
pub use retained::OWNER as RETAINED;

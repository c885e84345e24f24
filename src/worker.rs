//! Pushes the messages of queues to URLs: each is POSTed, and settled by what the server there answers.
//!
//! A worker is a client of the hub, as doors are. A `target` is where it pushes to, its `connection`s are kept and used again,
//! a `verdict` is what an answer means, the `mood` is how the server has been, and the `coordinator` takes messages, keeps as many
//! on their way as it may, and stands still while the server asks for that or is not to be had.

mod connection;
mod coordinator;
mod mood;
mod target;
mod verdict;

pub use coordinator::Crew;
pub use target::{Target, Unusable};

//! Which end of a connection a packet comes from.

/// The end that sent a packet: the standard allows each of the two different packets, properties and reason codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The end that opened the connection.
    Client,
    /// The end that accepted it.
    Server,
}

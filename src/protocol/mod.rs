//! Bytes to packets and back, without I/O: [`mqtt`] and [`amqp`].

pub mod amqp;
pub mod mqtt;

//! One socket of the generator and the party behind it.

use crate::consumer::Consumer;
use crate::publisher::{Publisher, Step};
use crate::results::Results;
use crate::subscriber::Subscriber;
use std::io::{ErrorKind, IoSlice, Write};
use std::net::TcpStream;

pub enum Party {
    MqttPublisher(Box<Publisher>),
    AmqpPublisher(Box<Publisher>),
    Subscriber(Box<Subscriber>),
    Consumer(Box<Consumer>),
}

impl Party {
    pub fn publisher(&mut self) -> Option<&mut Publisher> {
        match self {
            Party::MqttPublisher(p) | Party::AmqpPublisher(p) => Some(p),
            _ => None,
        }
    }
}

pub struct Connection {
    pub stream: TcpStream,
    pub party: Party,
    pub name: String,
    /// Bytes of an incomplete frame.
    pub left: Vec<u8>,
    /// Control packets that wait to be written.
    pub out: Vec<u8>,
    pub writable: bool,
    pub dead: bool,
    pub last_rx: u64,
}

impl Connection {
    pub fn new(stream: TcpStream, party: Party, name: String) -> Connection {
        Connection { stream, party, name, left: vec![], out: vec![], writable: true, dead: false, last_rx: 0 }
    }

    /// Still has something to send or to hear of.
    pub fn busy(&mut self, stop: bool) -> bool {
        let unwritten = !self.out.is_empty();
        self.party.publisher().is_some_and(|p| p.busy(stop) || unwritten)
    }

    /// Writes the publisher's pending batch and control packets; `then` is what it would wait for. `sent` says that
    /// something was written that may have been the last.
    pub fn write_batch(&mut self, then: Step, stop: bool) -> Result<(Step, bool), String> {
        let (Party::MqttPublisher(p) | Party::AmqpPublisher(p)) = &mut self.party else {
            return Ok((Step::Idle, false));
        };
        // control packets go between frames: before a batch not begun, after a half-written one
        let fresh = !p.started;
        let batch = &p.ring.bytes[p.pending.0..p.pending.1];
        if batch.is_empty() && self.out.is_empty() {
            return Ok((then, false));
        }
        let total = batch.len() + self.out.len();
        let r = if self.out.is_empty() {
            self.stream.write(batch)
        } else if fresh {
            self.stream.write_vectored(&[IoSlice::new(&self.out), IoSlice::new(batch)])
        } else {
            self.stream.write_vectored(&[IoSlice::new(batch), IoSlice::new(&self.out)])
        };
        let n = match r {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => return Err(format!("{}: write: {e}", self.name)),
        };
        let (of_batch, of_out) = if fresh {
            let a = n.min(self.out.len());
            (n - a, a)
        } else {
            let a = n.min(batch.len());
            (a, n - a)
        };
        p.pending.0 += of_batch;
        p.started |= of_batch > 0;
        let last = p.quota == 0 || stop;
        self.out.drain(..of_out);
        self.writable = n == total;
        let step = match then {
            _ if n == total && p.blocked() => Step::Idle,
            Step::Due(_) => then,
            _ if n < total => Step::Idle,
            Step::Idle => Step::Again,
            _ => then,
        };
        Ok((step, last))
    }

    /// Sends a receiver's acknowledgements.
    pub fn write_acks(&mut self) -> Result<(), String> {
        if self.out.is_empty() || !self.writable || self.dead {
            return Ok(());
        }
        match self.stream.write(&self.out) {
            Ok(n) => {
                self.writable = n == self.out.len();
                self.out.drain(..n);
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(())
            }
            Err(e) => Err(format!("{}: write: {e}", self.name)),
        }
    }

    /// Takes the bytes read; returns how many were used.
    pub fn take(&mut self, d: &[u8], r: &mut Results, now: u64) -> Result<usize, String> {
        self.last_rx = now;
        match &mut self.party {
            Party::Subscriber(s) => s.read(&mut self.out, d, &mut r.tally, now),
            Party::Consumer(s) => s.read(&mut self.out, d, &mut r.tally, now),
            Party::MqttPublisher(p) => p.read_mqtt(&mut self.out, d, &mut r.confirms, now),
            Party::AmqpPublisher(p) => p.read_amqp(&mut self.out, d, &mut r.confirms, now),
        }
        .map_err(|e| format!("{}: {e}", self.name))
    }
}

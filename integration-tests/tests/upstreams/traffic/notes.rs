//! What senders and takers note.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

/// What goes from some senders to some takers: an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line(pub Arc<str>);

impl From<&str> for Line {
    fn from(address: &str) -> Self {
        Self(address.into())
    }
}

impl Line {
    /// The address as an MQTT topic.
    pub fn topic(&self) -> &str {
        &self.0
    }

    /// The address as an AMQP routing key.
    pub fn key(&self) -> String {
        self.0.replace('/', ".")
    }
}

/// What a sender knows of what it has sent: each message has a number, from 0 on.
#[derive(Debug)]
pub struct Sent {
    sender: String,
    messages: Vec<Message>,
    /// Connections that were lost.
    pub losses: usize,
    /// Messages that were answered with a refusal, and what it was.
    pub refused: Vec<(usize, String)>,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    sent: Instant,
    acknowledged: Option<Instant>,
}

impl Sent {
    /// Nothing was sent.
    pub fn new(sender: &str) -> Self {
        Self { sender: sender.into(), messages: Vec::new(), losses: 0, refused: Vec::new() }
    }

    /// The number of a message that is being sent for the first time.
    pub fn next(&mut self) -> usize {
        self.messages.push(Message { sent: Instant::now(), acknowledged: None });
        self.messages.len() - 1
    }

    /// The payload of a message.
    pub fn payload(&self, number: usize) -> Vec<u8> {
        format!("{} {number}", self.sender).into_bytes()
    }

    /// It was acknowledged.
    pub fn acknowledge(&mut self, number: usize) {
        self.messages[number].acknowledged.get_or_insert_with(Instant::now);
    }

    /// When it was.
    pub fn acknowledged(&self, number: usize) -> Option<Instant> {
        self.messages.get(number)?.acknowledged
    }

    /// How many were.
    pub fn acknowledgements(&self) -> usize {
        self.messages.iter().filter(|message| message.acknowledged.is_some()).count()
    }

    /// A message that was first sent after `since` is acknowledged.
    pub fn is_acknowledged_after(&self, since: Instant) -> bool {
        self.messages.iter().rev().any(|it| it.sent >= since && it.acknowledged.is_some())
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, acknowledged) = (self.messages.len(), self.acknowledgements());
        write!(f, "{all} sent, {acknowledged} acknowledged, {} losses", self.losses)?;
        self.refused.iter().try_for_each(|(number, why)| write!(f, ", {number} refused: {why}"))
    }
}

/// What a taker was given, by sender, in its order.
#[derive(Debug, Default)]
pub struct Taken {
    by_sender: HashMap<String, Vec<(usize, Instant)>>,
    /// Connections or subscriptions that were lost.
    pub losses: usize,
}

impl Taken {
    /// It was given this.
    pub fn add(&mut self, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        let Some((sender, number)) = text.split_once(' ') else { return };
        let number = number.parse().expect("a sender's number");
        self.by_sender.entry(sender.to_owned()).or_default().push((number, Instant::now()));
    }

    /// What it was given of a sender.
    pub fn of(&self, sent: &Sent) -> &[(usize, Instant)] {
        self.by_sender.get(&sent.sender).map_or(&[], Vec::as_slice)
    }

    /// It has been given news of a sender since then: something newer than all before, though perhaps not yet the newest.
    pub fn has_news_of(&self, sent: &Sent, since: Instant) -> bool {
        let (before, after): (Vec<_>, Vec<_>) = self.of(sent).iter().partition(|(_, when)| *when < since);
        let newest = |all: &[&(usize, Instant)]| all.iter().map(|(number, _)| *number).max();
        newest(&after) > newest(&before)
    }

    /// What is acknowledged and was not given to it.
    pub fn missing(&self, sent: &Sent) -> Vec<usize> {
        let mut there = vec![false; sent.messages.len()];
        self.of(sent).iter().for_each(|(number, _)| there[*number] = true);
        let all = sent.messages.iter().zip(there).enumerate();
        all.filter(|(_, (message, there))| !there && message.acknowledged.is_some())
            .map(|(at, _)| at)
            .collect()
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} losses", self.losses)?;
        for (sender, taken) in &self.by_sender {
            write!(f, ", {} of {sender} (last {:?})", taken.len(), taken.last().map(|(number, _)| number))?;
        }
        Ok(())
    }
}

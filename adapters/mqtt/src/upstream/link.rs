//! The connection that a session has, and what was asked on it about filters.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::upstream::connection::Sender;
use crate::upstream::cover::Step;
use crate::upstream::packet::Welcome;

/// The connection that there is.
pub(crate) struct Link {
    pub(crate) sender: Sender,
    pub(crate) welcome: Welcome,
    /// What was asked and has no packet identifier yet, and what has one.
    asked: VecDeque<Step>,
    numbered: HashMap<u16, Step, RandomState>,
}

/// The connection cannot be used any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

impl Link {
    pub(crate) fn new(sender: Sender, welcome: Welcome) -> Self {
        Self { sender, welcome, asked: VecDeque::new(), numbered: HashMap::default() }
    }

    /// Says what is to be said about a filter, which is shared under that name.
    pub(crate) fn ask(&mut self, step: Step, share: Option<&str>) {
        let named = |filter: &str| match share {
            Some(share) => format!("$share/{share}/{filter}"),
            None => filter.into(),
        };
        let said = match &step {
            Step::Subscribe { id, filter } => {
                self.sender.subscribe(&named(filter), self.welcome.identifies.then_some(*id), false)
            }
            Step::Unsubscribe { filter, .. } => self.sender.unsubscribe(&named(filter)),
        };
        // What a connection does not take it takes no more of; the next one is asked everything again.
        if said.is_ok() {
            self.asked.push_back(step);
        }
    }

    /// The oldest question has got a packet identifier.
    pub(crate) fn numbered(&mut self, packet_id: u16) -> Result<(), Broken> {
        let step = self.asked.pop_front().ok_or(Broken)?;
        self.numbered.insert(packet_id, step);
        Ok(())
    }

    /// What the broker has answered.
    pub(crate) fn answered(&mut self, packet_id: u16) -> Result<Step, Broken> {
        self.numbered.remove(&packet_id).ok_or(Broken)
    }

    /// The broker has answered all that it was asked.
    pub(crate) fn is_answered(&self) -> bool {
        self.asked.is_empty() && self.numbered.is_empty()
    }
}

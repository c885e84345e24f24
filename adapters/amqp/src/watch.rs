//! What topic filters of this instance's clients are sent: one queue of the broker's, bound to all that they match.
//!
//! What arrives there is published into an embedded back end, whose sinks are the clients' own: it matches again, keeps
//! each session's window, and drops nothing but for who is too slow.

pub(crate) mod coordinator;
mod way;

use linkspan_contract::Refused;
use tokio::sync::{mpsc, oneshot};

use crate::mailbox::mailbox;

/// The way to the task that keeps the instance's queue.
#[derive(Clone)]
pub(crate) struct Watch {
    commands: mpsc::UnboundedSender<Command>,
}

/// What it is asked.
pub(crate) enum Command {
    /// One more filter needs this binding.
    Bind(String, oneshot::Sender<Result<(), Refused>>),
    /// One less.
    Unbind(String),
    /// Delete the queue: nobody needs it any more.
    Close(oneshot::Sender<()>),
}

impl Watch {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = mailbox();
        (Self { commands }, receiver)
    }

    /// Has what `key` matches sent to this instance. When the broker is away it will be, once it is back.
    ///
    /// # Errors
    /// What the broker said.
    pub(crate) async fn bind(&self, key: &str) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Bind(key.into(), reply)).is_err() {
            return Err(Refused::Away("it was closed".into()));
        }
        answer.await.unwrap_or(Ok(()))
    }

    /// Undoes a [`Watch::bind`].
    pub(crate) fn unbind(&self, key: &str) {
        if self.commands.send(Command::Unbind(key.into())).is_err() {
            tracing::debug!("a filter was given up after the end");
        }
    }

    /// Returns when the queue is deleted, as far as the broker can be reached.
    pub(crate) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).is_ok() && answer.await.is_err() {
            tracing::debug!("the instance's queue stays until the broker lets it expire");
        }
    }
}

/// The binding key that matches all that an MQTT topic filter does, and perhaps more: it is matched again here.
pub(crate) fn binding_key(filter: &str) -> String {
    let mut key = String::with_capacity(filter.len());
    for (place, level) in filter.split('/').enumerate() {
        let before = key.len();
        if place > 0 {
            key.push('.');
        }
        match level {
            "+" => key.push('*'),
            // A level that holds a `.` is a word with a `/`.
            level => key.extend(level.chars().map(|letter| if letter == '.' { '/' } else { letter })),
        }
        if key.len() > LONGEST {
            key.truncate(before);
            key.push_str(if before == 0 { "#" } else { ".#" });
            break;
        }
    }
    key
}

/// The longest key is 255 bytes; room is left for the wildcard that stands for the rest.
const LONGEST: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_becomes_a_binding_that_is_at_least_as_wide() {
        for (filter, key) in [
            ("a/+/c", "a.*.c"),
            ("a/#", "a.#"),
            ("#", "#"),
            ("a.b/c", "a/b.c"),
            ("/a//", ".a.."),
            ("a/*/b", "a.*.b"),
        ] {
            assert_eq!(binding_key(filter), key, "{filter}");
        }
        let long = format!("a/{}/b", "x".repeat(300));
        assert_eq!(binding_key(&long), "a.#");
        assert_eq!(binding_key(&"x".repeat(300)), "#");
        assert!(binding_key(&"x/".repeat(300)).len() <= 255);
    }
}

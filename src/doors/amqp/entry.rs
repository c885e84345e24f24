//! How a connection is opened: the handshake's steps, and what it waits for between them.

use std::sync::Arc;

use linkspan_contract::{Client, client_number};

use crate::protocol::amqp::{
    FrameKind, ReplyCode,
    connection::{self as class},
    frame::{self, Decoded},
};

use super::connection::{Connection, Outcome, Phase};
use super::failure::Failure;
use super::handshake::Step;
use super::inbound::Understood;
use super::translate::refusal;

impl Connection {
    pub(super) fn shake_hands(&mut self, received: &[u8]) -> Result<Understood, Failure> {
        let mut used = 0;
        while self.waited.is_none() {
            let Phase::Handshake(handshake) = &mut self.phase else { break };
            let mut answer = Vec::new();
            if handshake.awaits_greeting() {
                let greeted = handshake.greet(received.get(used..).unwrap_or_default(), &mut answer);
                self.sink.send(|out| out.extend_from_slice(&answer));
                match greeted {
                    Ok(true) => used += 8,
                    Ok(false) => return Ok(Understood { used, needed: 8, wish: None }),
                    Err(refusal) => {
                        self.over(refusal.to_string());
                        break;
                    }
                }
                continue;
            }
            let (frame, end) = match frame::decode(received, used, &handshake.limits())? {
                Decoded::Incomplete { needed } => return Ok(Understood { used, needed, wish: None }),
                Decoded::Frame(frame) => (frame, frame.wire.end()),
            };
            used = end;
            if frame.kind == FrameKind::Heartbeat {
                continue;
            }
            let step = handshake.accept(&frame, &self.door.limits, &mut answer);
            self.sink.send(|out| out.extend_from_slice(&answer));
            match step? {
                Step::Wait => {}
                Step::Authenticate { user, password } => self.authenticate(user, password),
                Step::Enter { vhost } => self.enter(&vhost)?,
                Step::Closed => {
                    self.over("the client closed the connection".to_owned());
                    break;
                }
            }
        }
        Ok(Understood { used, needed: 0, wish: None })
    }

    pub(super) fn enter(&mut self, vhost: &str) -> Result<(), Failure> {
        let (Phase::Handshake(handshake), Some(identity)) = (&self.phase, &self.user) else { return Ok(()) };
        if !identity.may_enter(vhost) {
            let text = format!("access to vhost '{vhost}' refused for user '{}'", identity.user);
            return Err(Failure::new(ReplyCode::NotAllowed, &text).caused_by(class::Open::ID));
        }
        let vhost: Arc<str> = vhost.into();
        self.name = match &handshake.client().name {
            Some(name) => name.as_str().into(),
            None => self.peer.to_string().into(),
        };
        let client = Client {
            number: client_number(),
            identifier: Arc::clone(&self.name),
            user: Arc::clone(&identity.user),
            vhost: Arc::clone(&vhost),
            session: None,
        };
        let (backend, sink) = (Arc::clone(&self.door.backend), Arc::clone(&self.sink));
        self.waited =
            Some(Box::pin(async move { Outcome::Entered(backend.connect(&client, sink).await, vhost) }));
        Ok(())
    }

    pub(super) fn resolved(&mut self, outcome: Outcome) {
        match (outcome, &mut self.phase) {
            (Outcome::Verified(Ok(identity)), Phase::Handshake(handshake)) => {
                self.user = Some(identity);
                let mut answer = Vec::new();
                handshake.authenticated(&self.door.limits, &mut answer);
                self.sink.send(|out| out.extend_from_slice(&answer));
            }
            (Outcome::Verified(Err(denied)), Phase::Handshake(handshake)) => {
                tracing::warn!(peer = %self.peer, %denied, "AMQP login refused");
                match handshake.denied() {
                    Some(failure) => self.fail(failure),
                    None => self.over(denied.to_string()),
                }
            }
            (Outcome::Entered(Ok(scope), vhost), Phase::Handshake(_)) => self.run(scope, vhost),
            (Outcome::Entered(Err(error), _), Phase::Handshake(_)) => {
                self.fail(refusal::unopened(&error).caused_by(class::Open::ID));
            }
            (Outcome::Left, _) => self.left(),
            _ => {}
        }
        // What came behind is looked at now.
        if self.waited.is_none() && self.filled == 0 && !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            let alarm = self.door.alarms.is_on();
            self.understand(&rest, alarm);
        }
        match &mut self.phase {
            Phase::Running(channels) => channels.flush(),
            _ => self.sink.flush(),
        }
    }
}

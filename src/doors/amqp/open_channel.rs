//! One channel with its lane, and what it is in the middle of.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use linkspan_contract::{Credit, Lane};

use crate::protocol::amqp::Assembly;

use super::channel::Channel;
use super::confirm::Confirms;
use super::failure::Failure;
use super::incoming::Incoming;
use super::publisher::Publisher;
use super::request::Answer;
use super::settling::{Acknowledged, Settling};
use super::unsettled::Run;

/// A lane that carries out a request.
pub(super) type Busy = Pin<Box<dyn Future<Output = (Box<dyn Lane>, Result<Answer, Failure>)> + Send>>;

/// A channel with its lane.
pub(super) struct OpenChannel {
    pub(super) state: Channel,
    /// Which of the channels that had this number.
    pub(super) serial: u64,
    /// Its place in the sink.
    pub(super) place: usize,
    /// None while it is in a future, before it is opened and after the channel failed.
    pub(super) lane: Option<Box<dyn Lane>>,
    pub(super) busy: Option<Busy>,
    /// Frames that came while the lane was away.
    pub(super) waiting: Vec<u8>,
    pub(super) assembly: Assembly,
    pub(super) incoming: Option<Box<Incoming>>,
    pub(super) publisher: Publisher,
    pub(super) confirms: Confirms,
    /// The window of all its consumers together.
    pub(super) window: Option<Arc<Credit>>,
    /// Its bound, also before there is one to bound.
    pub(super) window_limit: Option<u16>,
    /// What the client said in this read about deliveries.
    pub(super) said: Vec<Acknowledged>,
    /// What a rollback makes unsettled again.
    pub(super) held: Vec<Run>,
    /// What windows get when a recovery is done.
    pub(super) recovering: Option<Settling>,
    /// Something was published, settled or started since the last flush.
    pub(super) dirty: bool,
    /// What it published to is above its mark.
    pub(super) congested: bool,
    /// Its back end takes nothing for now.
    pub(super) blocked: bool,
    /// Routes were changed while the lane was away.
    pub(super) refresh: bool,
}

impl OpenChannel {
    /// A channel whose lane is still to be opened; `place` is its place in the sink.
    pub(super) fn new(state: Channel, serial: u64, place: usize) -> Self {
        Self {
            state,
            serial,
            place,
            lane: None,
            busy: None,
            waiting: Vec::new(),
            assembly: Assembly::Idle,
            incoming: None,
            publisher: Publisher::default(),
            confirms: Confirms::default(),
            window: None,
            window_limit: None,
            said: Vec::new(),
            held: Vec::new(),
            recovering: None,
            dirty: false,
            congested: false,
            blocked: false,
            refresh: false,
        }
    }

    /// What is left of a channel that we closed, until the client agrees.
    pub(super) fn closing(of: &Self) -> Self {
        let state = Channel { closing: true, ..Channel::new(of.state.number) };
        Self::new(state, of.serial, usize::MAX)
    }

    /// Whether frames have to wait: the lane is away and will be back.
    pub(super) fn is_away(&self) -> bool {
        self.lane.is_none() && !self.state.closing
    }

    /// The window of its consumers together.
    pub(super) fn window(&mut self) -> Arc<Credit> {
        let limit = self.window_limit.map_or(u32::MAX, u32::from);
        Arc::clone(self.window.get_or_insert_with(|| Arc::new(Credit::new(limit))))
    }
}

//! What comes from the broker for addresses: into the address space here.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::neutral::NEUTRAL;
use linkspan_contract::{
    Backend, Batch, Body, Client, Connection, Destination, Lane, Message, Nobody, Syntax, TargetId,
};

use crate::house::House;
use crate::translate::{self, APART_FROM};
use crate::upstream::packet::Incoming;

/// Publishes in the embedded engine what the broker delivered.
pub(crate) struct Inlet {
    house: Arc<House>,
    /// What is in front of a client's number in an origin of this instance.
    origin: String,
    /// As of this change of vhosts and clients.
    epoch: u64,
    vhosts: Vec<Mouth>,
    /// For what is published by clients that must not get it back.
    own: HashMap<u64, Mouth, RandomState>,
    bytes: Vec<u8>,
    messages: Vec<Message>,
    topics: Vec<Bytes>,
}

/// A lane into one vhost.
struct Mouth {
    vhost: Arc<str>,
    /// Its lane is over with it.
    _connection: Box<dyn Connection>,
    lane: Box<dyn Lane>,
    targets: HashMap<Bytes, TargetId, RandomState>,
}

/// Topics whose targets are remembered.
const TOPICS: usize = 4096;

/// Room that is not kept between reads.
const ROOM: usize = 1 << 20;

impl Inlet {
    pub(crate) fn new(house: Arc<House>) -> Self {
        let origin = format!("{}/", house.options.instance);
        Self {
            house,
            origin,
            epoch: u64::MAX,
            vhosts: Vec::new(),
            own: HashMap::default(),
            bytes: Vec::new(),
            messages: Vec::new(),
            topics: Vec::new(),
        }
    }

    /// Gives all of them to who is subscribed, in order. True when who is subscribed has enough for now: then
    /// [`Inlet::ready`] tells until when.
    pub(crate) async fn take(&mut self, delivered: &mut Vec<Incoming>) -> bool {
        self.follow().await;
        let mut congested = false;
        let mut publisher = None;
        for message in delivered.drain(..) {
            let by = self.client_of(&message).filter(|client| self.own.contains_key(client));
            let apart = message.payload.len() >= APART_FROM;
            if by != publisher || apart {
                congested |= self.publish(publisher, None);
                publisher = by;
            }
            translate::append(&message, TargetId::default(), &mut self.bytes, &mut self.messages);
            self.topics.push(message.topic);
            if apart {
                congested |= self.publish(publisher, Some(&Body::Shared(message.payload)));
            }
        }
        congested | self.publish(publisher, None)
    }

    /// Waits until nobody who is subscribed has more than enough.
    pub(crate) async fn ready(&mut self) {
        let mut mouths: Vec<&mut Mouth> = self.vhosts.iter_mut().chain(self.own.values_mut()).collect();
        poll_fn(|cx| {
            let mut all = Poll::Ready(());
            for mouth in &mut mouths {
                if mouth.lane.poll_ready(cx).is_pending() {
                    all = Poll::Pending;
                }
            }
            all
        })
        .await;
    }

    fn client_of(&self, message: &Incoming) -> Option<u64> {
        if self.own.is_empty() {
            return None;
        }
        translate::origin(message)?.strip_prefix(&self.origin)?.split('/').next()?.parse().ok()
    }

    /// Publishes what was gathered: everywhere as nobody's, but in the publisher's own vhost as its.
    fn publish(&mut self, publisher: Option<u64>, body: Option<&Body>) -> bool {
        if self.messages.is_empty() {
            return false;
        }
        let mut congested = false;
        let mut own = publisher.and_then(|client| self.own.get_mut(&client));
        for mouth in &mut self.vhosts {
            let mouth = match &mut own {
                Some(own) if own.vhost == mouth.vhost => own,
                _ => mouth,
            };
            congested |= mouth.publish(&self.bytes, &mut self.messages, &self.topics, body);
        }
        self.bytes.clear();
        self.bytes.shrink_to(ROOM);
        self.messages.clear();
        self.topics.clear();
        congested
    }

    /// Opens lanes for vhosts and clients that are new, and closes those of who is gone.
    async fn follow(&mut self) {
        let locals = &self.house.locals;
        let epoch = locals.epoch();
        if self.epoch == epoch {
            return;
        }
        self.epoch = epoch;
        for vhost in locals.vhosts() {
            if !self.vhosts.iter().any(|mouth| mouth.vhost == vhost) {
                self.vhosts.extend(Mouth::open(&self.house, &vhost, NOBODY).await);
            }
        }
        self.own.retain(|client, _| locals.vhost_of(*client).is_some());
        for (client, vhost) in locals.clients() {
            if !self.own.contains_key(&client)
                && let Some(mouth) = Mouth::open(&self.house, &vhost, client).await
            {
                self.own.insert(client, mouth);
            }
        }
    }
}

/// The number of no client.
const NOBODY: u64 = u64::MAX;

impl Mouth {
    async fn open(house: &House, vhost: &Arc<str>, number: u64) -> Option<Self> {
        let client = Client {
            number,
            identifier: "linkspan".into(),
            user: "linkspan".into(),
            vhost: Arc::clone(vhost),
            session: None,
        };
        let mut connection = house.inner.connect(&client, Arc::new(Nobody)).await.ok()?;
        let lane = connection.lane(Arc::new(Nobody), Arc::new(Nobody)).await.ok()?;
        Some(Self { vhost: Arc::clone(vhost), _connection: connection, lane, targets: HashMap::default() })
    }

    fn publish(
        &mut self,
        bytes: &[u8],
        messages: &mut [Message],
        topics: &[Bytes],
        body: Option<&Body>,
    ) -> bool {
        for (message, topic) in messages.iter_mut().zip(topics) {
            message.target = self.target(topic);
        }
        let batch = Batch { body, ..Batch::new(bytes, messages, &NEUTRAL) };
        let published = self.lane.publish(&batch);
        self.lane.flush();
        published.congested
    }

    fn target(&mut self, topic: &Bytes) -> TargetId {
        if let Some(target) = self.targets.get(topic) {
            return *target;
        }
        if self.targets.len() >= TOPICS {
            let all: Vec<TargetId> = self.targets.drain().map(|(_, target)| target).collect();
            self.lane.forget(&all);
        }
        let to = Destination::Address { path: topic, syntax: Syntax::Topic, more: &[], queues: &[] };
        let target = self.lane.target(&to);
        // Its own bytes: the packet's would be held.
        self.targets.insert(Bytes::copy_from_slice(topic), target);
        target
    }
}

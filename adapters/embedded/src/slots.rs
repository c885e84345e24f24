//! The sessions and queues that a lane publishes to, and what was picked for each.

use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{Flags, Pick, Standing, TargetId};

use crate::outlet::Outlet;
use crate::parcel::Parcel;
use crate::plan::{Member, Plan};
use crate::queue::Queue;
use crate::scratch::{NO_LIST, Scratch};
use crate::session::Session;
use crate::subscription::Subscription;
use crate::topology::Routes;

/// The sessions and queues that this lane's targets lead to, numbered, so that picks are appended without hashing.
#[derive(Default)]
pub(crate) struct Slots {
    pub(crate) sessions: Vec<SessionSlot>,
    pub(crate) queues: Vec<QueueSlot>,
    places: HashMap<usize, u32, RandomState>,
}

pub(crate) struct SessionSlot {
    pub(crate) outlet: Outlet,
    /// Its list of picks during a publish.
    pub(crate) list: u32,
    /// The client settles some of them.
    pub(crate) unsettled: bool,
}

pub(crate) struct QueueSlot {
    pub(crate) queue: Arc<Queue>,
    /// The subscription by which it is published to, when it is a session's.
    pub(crate) via: u32,
    /// Its list of ranges during a publish.
    pub(crate) list: u32,
}

/// In place of a target's number: the subscription was found for one message alone.
pub(crate) const FOUND: u64 = u32::MAX as u64;

impl Slots {
    pub(crate) fn clear(&mut self) {
        self.sessions.clear();
        self.queues.clear();
        self.places.clear();
    }

    pub(crate) fn session(&mut self, session: &Arc<Session>) -> u32 {
        let sessions = &mut self.sessions;
        *self.places.entry(Arc::as_ptr(session).addr()).or_insert_with(|| {
            sessions.push(SessionSlot {
                outlet: Outlet::new(Arc::clone(session)),
                list: NO_LIST,
                unsettled: false,
            });
            u32::try_from(sessions.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(crate) fn queue(&mut self, queue: &Arc<Queue>) -> u32 {
        let queues = &mut self.queues;
        *self.places.entry(Arc::as_ptr(queue).addr()).or_insert_with(|| {
            queues.push(QueueSlot { queue: Arc::clone(queue), via: Parcel::NO_SUBSCRIPTION, list: NO_LIST });
            u32::try_from(queues.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// A member that gets a copy; what its client settles goes into the session's queue, where there is one.
    pub(crate) fn member(&mut self, subscription: Arc<Subscription>) -> Member {
        let inbox = subscription.session.inbox().map(|inbox| {
            let queues = &mut self.queues;
            *self.places.entry(Arc::as_ptr(&subscription).addr()).or_insert_with(|| {
                let via = subscription.via();
                queues.push(QueueSlot { queue: Arc::clone(inbox), via, list: NO_LIST });
                u32::try_from(queues.len() - 1).unwrap_or(u32::MAX)
            })
        });
        Member::new(self.session(&subscription.session), inbox, subscription)
    }

    /// Adds a run to the lists of all that get it; false when nobody does.
    #[inline]
    pub(crate) fn append(
        &mut self,
        plan: &Plan,
        target: TargetId,
        at: Range<u32>,
        flags: Flags,
        scratch: &mut Scratch,
    ) -> bool {
        self.append_beside(&[], plan, target, at, flags, scratch)
    }

    /// The same, but for some of the queues.
    #[inline]
    pub(crate) fn append_beside(
        &mut self,
        known: &[u32],
        plan: &Plan,
        target: TargetId,
        at: Range<u32>,
        flags: Flags,
        scratch: &mut Scratch,
    ) -> bool {
        for (place, member) in (0..).zip(&plan.members) {
            match member.inbox.filter(|_| !member.is_settled(flags)) {
                Some(inbox) => self.append_range(inbox, at.clone(), scratch),
                None => {
                    let whose = u64::from(target.0) << 32 | place;
                    self.append_pick(member, whose, at.clone(), flags, scratch);
                }
            }
        }
        for slot in plan.queues.iter().filter(|slot| !known.contains(slot)) {
            self.append_range(*slot, at.clone(), scratch);
        }
        !(plan.members.is_empty() && plan.queues.is_empty())
    }

    /// The same for one message that went its own way.
    pub(crate) fn append_found(
        &mut self,
        routes: Routes,
        client: u64,
        place: u32,
        flags: Flags,
        scratch: &mut Scratch,
    ) -> bool {
        let at = place..place.saturating_add(1);
        let mut any = !routes.queues.is_empty();
        for queue in &routes.queues {
            let slot = self.queue(queue);
            self.append_range(slot, at.clone(), scratch);
        }
        for subscription in routes.subscribers {
            if subscription.no_local && subscription.session.client == client {
                continue;
            }
            any = true;
            let member = self.member(subscription);
            if let Some(inbox) = member.inbox.filter(|_| !member.is_settled(flags)) {
                self.append_range(inbox, at.clone(), scratch);
                continue;
            }
            let whose = FOUND << 32 | scratch.found.len() as u64;
            self.append_pick(&member, whose, at.clone(), flags, scratch);
            scratch.found.push(member.subscription);
        }
        any
    }

    #[inline]
    fn append_pick(
        &mut self,
        member: &Member,
        whose: u64,
        at: Range<u32>,
        flags: Flags,
        scratch: &mut Scratch,
    ) {
        let Some(slot) = self.sessions.get_mut(member.slot as usize) else { return };
        if slot.list == NO_LIST {
            slot.list = scratch.picks.open();
            scratch.sessions.push(member.slot);
        }
        let Some(picks) = scratch.picks.get_mut(slot.list) else { return };
        let settled = member.is_settled(flags);
        slot.unsettled |= !settled;
        match picks.last_mut() {
            Some(last) if last.at.end == at.start && last.key == member.key && last.settled == settled => {
                last.at.end = at.end;
            }
            _ => picks.push(Pick {
                at,
                key: member.key,
                first: whose,
                age: 0,
                attempt: 0,
                settled,
                standing: Standing::Passing,
            }),
        }
    }

    #[inline]
    fn append_range(&mut self, slot: u32, at: Range<u32>, scratch: &mut Scratch) {
        let place = slot;
        let Some(slot) = self.queues.get_mut(slot as usize) else { return };
        if slot.list == NO_LIST {
            slot.list = scratch.ranges.open();
            scratch.queues.push(place);
        }
        let Some(ranges) = scratch.ranges.get_mut(slot.list) else { return };
        match ranges.last_mut() {
            Some(last) if last.end == at.start => last.end = at.end,
            _ => ranges.push(at),
        }
    }
}

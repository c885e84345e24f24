//! Giving out where it is not the head alone that counts: levels have shares, or are waited for, or messages have keys.

use linkspan_contract::{Millis, Settle};

use super::Queue;
use crate::assignment::Assignment;
use crate::effect::DeadReason;
use crate::journal::{Gone, Journal, Run};
use crate::keys::{Key, Keys, Parked, Whose};
use crate::offer::{NEVER, Queued};
use crate::shares::Shares;

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// As [`give_out`](Self::give_out).
    pub(super) fn give_out_carefully(&mut self, now: Millis, most: usize, out: &mut Vec<Assignment<B>>) {
        let (mut given, mut gone) = (Run::default(), Run::default());
        while out.len() < most
            && !self.held
            && self.has_head()
            && let Some(level) = self.head_level()
            && let Some(head) = self.ready.first_of(level)
        {
            let (durable, key) = (head.durable, head.key);
            if head.is_expired(now) {
                self.expire_head(level);
                continue;
            }
            let Some(first) = self.rotation.first() else { break };
            let at = match self.whose(head) {
                Whose::Anybody => first,
                Whose::Of(at) if self.is_listed(at) => at,
                Whose::Of(at) if self.park_head(level, Some(at), false) => continue,
                Whose::Nobody if self.park_head(level, None, false) => continue,
                Whose::AfterParked if self.unpark(key) => continue,
                Whose::Of(_) | Whose::Nobody | Whose::AfterParked => break,
            };
            let Some(holder) = self.holders.get_mut(at) else { break };
            let Some(wants) = holder.wants.as_mut() else { break };
            let settled = match wants.settle {
                Settle::OnDelivery => true,
                Settle::AsPublished => !durable,
                Settle::ByConsumer => false,
            };
            if let Some(credit) = wants.credit.as_ref().filter(|_| !settled)
                && credit.take(1) == 0
            {
                wants.listed = false;
                self.rotation.remove(wants.priority, at);
                continue;
            }
            let Some(message) = self.ready.pop_of(level) else { break };
            let tag = if settled {
                0
            } else {
                self.unsettled += 1;
                let due = holder.due(now);
                self.wake = self.wake.min(due);
                holder.unsettled.add(message.clone(), due)
            };
            let consumer = holder.id;
            if J::RECORDS && message.logged {
                let run = if settled { &mut gone } else { &mut given };
                match run.join(message.priority, message.position) {
                    Some((priority, range)) if settled => self.journal.gone(priority, range, Gone::Accepted),
                    Some((priority, range)) => self.journal.given(priority, range),
                    None => {}
                }
            }
            if !settled {
                self.gave(key, at);
            }
            out.push(Assignment { consumer, tag, settled, age: message.age(now), message });
            self.had_turn(level);
            self.unpark(key);
            if self.rotation.is_first(at) {
                self.rotation.turn(1);
            }
        }
        if let Some((priority, range)) = given.end() {
            self.journal.given(priority, range);
        }
        if let Some((priority, range)) = gone.end() {
            self.journal.gone(priority, range, Gone::Accepted);
        }
    }

    /// Who may be given the first of a level.
    fn whose(&self, head: &Queued<B>) -> Whose {
        let Some(keys) = &self.keys else { return Whose::Anybody };
        match keys.whose(head.key, head.priority, head.position) {
            Whose::Of(at) if self.holders.get(at).is_some_and(|holder| holder.several) => Whose::Nobody,
            whose => whose,
        }
    }

    fn is_listed(&self, at: usize) -> bool {
        let wants = self.holders.get(at).and_then(|holder| holder.wants.as_ref());
        wants.is_some_and(|wants| wants.listed)
    }

    /// Takes the next message that who is at this place, if anybody is yet, may have.
    pub(super) fn pop_for(&mut self, now: Millis, at: Option<usize>) -> Option<Queued<B>> {
        let mut passed = Vec::new();
        let found = self.find_for(now, at, &mut passed);
        // Who may have these can take them: nothing else will have them looked at again.
        for key in passed {
            self.unpark(key);
        }
        found
    }

    /// The same; also yields the keys of those that it has `passed` over and somebody can take.
    fn find_for(&mut self, now: Millis, at: Option<usize>, passed: &mut Vec<Key>) -> Option<Queued<B>> {
        while self.has_head()
            && let Some(level) = self.head_level()
        {
            let head = self.ready.first_of(level)?;
            if head.is_expired(now) {
                self.expire_head(level);
                continue;
            }
            let key = head.key;
            let holder = match self.whose(head) {
                Whose::Anybody => return self.take_head(level),
                Whose::Of(holder) if at == Some(holder) => return self.take_head(level),
                Whose::Of(holder) => Some(holder),
                Whose::AfterParked if self.unpark(key) => continue,
                Whose::Nobody | Whose::AfterParked => None,
            };
            let is_wanted = holder.is_some_and(|holder| self.is_listed(holder));
            if is_wanted && !passed.contains(&key) {
                passed.push(key);
            }
            if !self.park_head(level, holder, is_wanted) {
                return None;
            }
        }
        None
    }

    fn take_head(&mut self, level: usize) -> Option<Queued<B>> {
        let message = self.ready.pop_of(level)?;
        self.had_turn(level);
        self.unpark(message.key);
        Some(message)
    }

    fn had_turn(&mut self, level: usize) {
        if let Some(mut shares) = self.shares.take() {
            shares.took(level, |other| other == level || self.has_turn(other));
            self.shares = Some(shares);
        }
    }

    fn expire_head(&mut self, level: usize) {
        if let Some(message) = self.ready.pop_of(level) {
            let key = message.key;
            self.bury(message, DeadReason::Expired);
            self.unpark(key);
        }
    }

    /// Has the first of a level wait for others of its key; false when too many do. What `is_wanted` by who may have it stays
    /// in memory: else it would be brought in again at once, and passed over again.
    fn park_head(&mut self, level: usize, holder: Option<usize>, is_wanted: bool) -> bool {
        let Some(keys) = self.keys.as_mut().filter(|keys| !keys.is_full()) else { return false };
        let Some(message) = self.ready.pop_of(level) else { return false };
        self.wake = self.wake.min(message.deadline);
        // A journal keeps what many others wait with.
        let is_kept = !is_wanted
            && J::RECORDS
            && message.logged
            && self.limits.window.is_some_and(|window| keys.is_beyond(window));
        let parked = if is_kept { Parked::stub(&message) } else { Parked::Whole(message) };
        keys.park(parked, holder);
        true
    }

    /// What waits for others of a key is looked at again, one at a time: the next one when that has been given out. True
    /// when there is one.
    pub(super) fn unpark(&mut self, key: Key) -> bool {
        let next = self.keys.as_mut().filter(|_| key != 0).and_then(|keys| keys.next(key));
        let is_there = next.is_some();
        next.into_iter().for_each(|parked| self.look_again(parked));
        is_there
    }

    /// The same of any one that waits for others of its key.
    pub(super) fn unpark_one(&mut self) -> bool {
        let next = self.keys.as_mut().and_then(|keys| keys.pop_any());
        let is_there = next.is_some();
        next.into_iter().for_each(|parked| self.look_again(parked));
        is_there
    }

    pub(super) fn unpark_all(&mut self) {
        while self.unpark_one() {}
    }

    /// What was parked is to be looked at again, when it is in memory.
    fn look_again(&mut self, parked: Parked<B>) {
        match parked {
            Parked::Whole(message) => self.make_ready(message),
            Parked::Stub { stub, .. } => self.delayed.want(stub),
        }
    }

    /// Who is at this place can take more.
    pub(super) fn unstick(&mut self, at: usize) {
        if let Some(keys) = &mut self.keys {
            for key in keys.unstick(at) {
                self.unpark(key);
            }
        }
    }

    pub(super) fn gave(&mut self, key: Key, at: usize) {
        if let Some(keys) = &mut self.keys {
            keys.gave(key, at);
        }
    }

    /// Somebody has one less of a key.
    pub(super) fn took_back(&mut self, key: Key) {
        if let Some(keys) = self.keys.as_mut().filter(|_| key != 0) {
            keys.took_back(key);
        }
    }

    /// The same of those that were settled.
    #[inline]
    pub(super) fn free_keys(&mut self) {
        while let Some(key) = self.freed.pop() {
            self.took_back(key);
            // Where no more could be parked, the head itself waited.
            let was_full = self.keys.as_ref().is_some_and(|keys| keys.is_full());
            self.is_freed |= self.unpark(key) || was_full;
        }
    }

    /// True when, since this was last asked, something was accepted for which others of its key had waited: they go to
    /// whoever can take them, by [`dispatch`](Self::dispatch).
    pub const fn take_freed(&mut self) -> bool {
        std::mem::replace(&mut self.is_freed, false)
    }

    /// Others of its key need not wait for it any more.
    pub(super) fn has_waited(&mut self, message: &Queued<B>) {
        if let Some(keys) = self.keys.as_mut().filter(|_| message.attempts > 0 && message.key != 0) {
            keys.waited(message.key, message.position);
        }
    }

    /// Lets those go that wait for others of their keys and are over; tells when the next one is.
    pub(super) fn expire_parked(&mut self, now: Millis) -> Millis {
        while let Some(parked) = self.keys.as_mut().and_then(|keys| keys.pop_expired(now)) {
            match parked {
                Parked::Whole(message) => self.bury(message, DeadReason::Expired),
                // It is found to be over when it is in memory.
                Parked::Stub { stub, .. } => self.delayed.want(stub),
            }
        }
        self.keys.as_ref().and_then(|keys| keys.next_deadline()).unwrap_or(NEVER)
    }

    /// Keys, and shares, from now on or no more.
    pub(super) fn set_care(&mut self) {
        if self.limits.weighted != self.shares.is_some() {
            let shares = || Box::new(Shares::new(self.ready.levels()));
            self.shares = self.limits.weighted.then(shares);
        }
        if !self.limits.keyed {
            self.unpark_all();
            self.keys = None;
        } else if self.keys.is_none() {
            self.keys = Some(Box::new(Keys::new()));
        }
        self.careful = self.limits.keyed || self.limits.weighted || self.awaited.highest().is_some();
    }

    /// Says anew what the keys of messages are: others are meant from now on, or they were not known when the messages were
    /// restored. Of what waits for its time, and only the journal has, they are read when it comes in.
    pub fn tell_keys(&mut self, key: impl Fn(&B) -> Key) {
        self.unpark_all();
        if self.keys.is_none() {
            return;
        }
        let mut keys = Keys::new();
        self.holders.each(|at, holder| {
            holder.unsettled.each(|message| {
                message.key = key(&message.body);
                keys.gave(message.key, at);
            });
        });
        self.ready.each(|message| message.key = key(&message.body));
        self.delayed.each(|message, _| {
            message.key = key(&message.body);
            if message.attempts > 0 {
                keys.wait(message.key, message.position);
            }
        });
        self.keys = Some(Box::new(keys));
    }
}

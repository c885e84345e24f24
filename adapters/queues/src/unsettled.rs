//! What somebody was given and has not settled.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use linkspan_contract::sink::SPAN;
use linkspan_contract::{DeliveryTag, Millis};

use crate::offer::{NEVER, Position, Queued};
use crate::ready::ROOM_KEPT;

/// Deliveries by their tags, ascending. Settled ones leave holes; those at the front go at once, those inside when they
/// outnumber the rest, so that one delivery held for hours does not hold the room of all behind it.
#[derive(Debug)]
pub(crate) struct Unsettled<B> {
    slots: VecDeque<Slot<B>>,
    next: DeliveryTag,
    live: usize,
    /// No delivery before this tag has an original deadline ahead of it: these are in the order of the tags, as all
    /// were given the same time.
    due_from: DeliveryTag,
    /// Deadlines that were set anew; an entry counts when its slot says the same.
    extended: BinaryHeap<Reverse<(Millis, DeliveryTag)>>,
}

#[derive(Debug)]
struct Slot<B> {
    tag: DeliveryTag,
    due: Millis,
    extended: bool,
    message: Option<Queued<B>>,
}

impl<B> Unsettled<B> {
    pub(crate) const fn new() -> Self {
        Self { slots: VecDeque::new(), next: 1, live: 0, due_from: 1, extended: BinaryHeap::new() }
    }

    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// The tag of the next delivery.
    pub(crate) const fn next(&self) -> DeliveryTag {
        self.next
    }

    /// Tags go on at `first`, unless they are beyond it.
    pub(crate) fn skip(&mut self, first: DeliveryTag) {
        self.next = self.next.max(first);
    }

    /// Whether the tag of a position has to wait until the oldest delivery is settled.
    pub(crate) fn is_far_behind(&self, position: Position) -> bool {
        self.slots.front().is_some_and(|oldest| position.saturating_add(1).saturating_sub(oldest.tag) >= SPAN)
    }

    /// The consumer has those of the run that are there; says how many.
    pub(crate) fn receive(
        &mut self,
        first: DeliveryTag,
        count: u32,
        mut each: impl FnMut(&Queued<B>),
    ) -> u32 {
        let end = first.saturating_add(count.into());
        let from = self.place(first);
        let mut known = 0;
        for message in self
            .slots
            .range_mut(from..)
            .take_while(|slot| slot.tag < end)
            .filter_map(|slot| slot.message.as_mut())
        {
            known += 1;
            message.received = true;
            each(message);
        }
        known
    }

    /// Adds a delivery and yields its tag.
    #[inline]
    pub(crate) fn add(&mut self, message: Queued<B>, due: Millis) -> DeliveryTag {
        let tag = self.next;
        self.next += 1;
        self.live += 1;
        self.slots.push_back(Slot { tag, due, extended: false, message: Some(message) });
        tag
    }

    /// Adds a delivery under a tag of the caller's, which none has that is there.
    pub(crate) fn add_at(&mut self, tag: DeliveryTag, message: Queued<B>, due: Millis) -> DeliveryTag {
        let slot = Slot { tag, due, extended: false, message: Some(message) };
        if tag >= self.next {
            self.slots.push_back(slot);
            self.next = tag.saturating_add(1);
        } else {
            // One that came back: its deadline is behind those of later tags, which are in order by themselves.
            let place = self.slots.partition_point(|other| other.tag < tag);
            match self.slots.get_mut(place) {
                Some(hole) if hole.tag == tag => *hole = slot,
                _ => self.slots.insert(place, slot),
            }
            self.due_from = self.due_from.min(tag);
        }
        self.live += 1;
        tag
    }

    /// Takes those of the run that are there, in order, and says how many.
    #[inline]
    pub(crate) fn take(&mut self, first: DeliveryTag, count: u32, mut each: impl FnMut(Queued<B>)) -> u32 {
        let end = first.saturating_add(count.into());
        let from = self.place(first);
        let mut known = 0;
        if from == 0 {
            while let Some(slot) = self.slots.pop_front_if(|slot| slot.tag < end) {
                if let Some(message) = slot.message {
                    known += 1;
                    each(message);
                }
            }
        } else {
            for slot in self.slots.range_mut(from..) {
                if slot.tag >= end {
                    break;
                }
                if let Some(message) = slot.message.take() {
                    known += 1;
                    each(message);
                }
            }
        }
        self.live = self.live.saturating_sub(known as usize);
        self.tidy();
        known
    }

    /// Takes all, in order.
    pub(crate) fn take_all(&mut self, each: impl FnMut(Queued<B>)) -> usize {
        let live = std::mem::take(&mut self.live);
        self.slots.drain(..).filter_map(|slot| slot.message).for_each(each);
        self.tidy();
        live
    }

    /// Takes those that are `wanted`, in order, and says how many.
    pub(crate) fn take_if(
        &mut self,
        wanted: impl Fn(&Queued<B>) -> bool,
        mut each: impl FnMut(Queued<B>),
    ) -> u32 {
        let mut known = 0;
        for slot in &mut self.slots {
            if let Some(message) = slot.message.take_if(|message| wanted(message)) {
                known += 1;
                each(message);
            }
        }
        self.live = self.live.saturating_sub(known as usize);
        self.tidy();
        known
    }

    /// Takes those whose deadline has come, and says how many.
    pub(crate) fn take_due(&mut self, now: Millis, mut each: impl FnMut(Queued<B>)) -> u32 {
        let mut known = 0;
        while let Some(&Reverse((due, tag))) = self.extended.peek()
            && due <= now
        {
            self.extended.pop();
            let place = self.place(tag);
            if let Some(slot) = self.slots.get_mut(place)
                && (slot.tag, slot.due, slot.extended) == (tag, due, true)
                && let Some(message) = slot.message.take()
            {
                known += 1;
                each(message);
            }
        }
        let from = self.place(self.due_from);
        self.due_from = self.next;
        for slot in self.slots.range_mut(from..) {
            if slot.extended || slot.message.is_none() {
                continue;
            }
            if slot.due > now {
                self.due_from = slot.tag;
                break;
            }
            if let Some(message) = slot.message.take() {
                known += 1;
                each(message);
            }
        }
        self.live = self.live.saturating_sub(known as usize);
        self.tidy();
        known
    }

    /// The next deadline, or one before it.
    pub(crate) fn next_due(&self) -> Millis {
        let original = self
            .slots
            .range(self.place(self.due_from)..)
            .find(|slot| !slot.extended && slot.message.is_some())
            .map_or(NEVER, |slot| slot.due);
        self.extended.peek().map_or(original, |Reverse((due, _))| original.min(*due))
    }

    /// Sets the deadline of those of the run that are there, and says how many.
    pub(crate) fn extend(&mut self, first: DeliveryTag, count: u32, due: Millis) -> u32 {
        let end = first.saturating_add(count.into());
        let from = self.place(first);
        let mut known = 0;
        for slot in self.slots.range_mut(from..) {
            if slot.tag >= end {
                break;
            }
            if slot.message.is_some() {
                known += 1;
                slot.due = due;
                slot.extended = true;
                self.extended.push(Reverse((due, slot.tag)));
            }
        }
        if self.extended.len() > 64 + 2 * self.live {
            let counting = self.slots.iter().filter(|slot| slot.extended && slot.message.is_some());
            self.extended = counting.map(|slot| Reverse((slot.due, slot.tag))).collect();
        }
        known
    }

    /// What comes is given another time than what is here, which keeps its deadlines.
    pub(crate) fn keep_deadlines(&mut self) {
        let from = self.place(self.due_from);
        for slot in self.slots.range_mut(from..).filter(|slot| !slot.extended && slot.message.is_some()) {
            slot.extended = true;
            if slot.due != NEVER {
                self.extended.push(Reverse((slot.due, slot.tag)));
            }
        }
        self.due_from = self.next;
    }

    /// How many of the run are there.
    pub(crate) fn count(&self, first: DeliveryTag, count: u32) -> u32 {
        let end = first.saturating_add(count.into());
        let run = self.slots.range(self.place(first)..).take_while(|slot| slot.tag < end);
        u32::try_from(run.filter(|slot| slot.message.is_some()).count()).unwrap_or(u32::MAX)
    }

    /// Gives all out once more that their consumer does not have, with `due` as their deadline.
    pub(crate) fn repeat(&mut self, due: Millis, mut each: impl FnMut(DeliveryTag, &Queued<B>)) {
        self.extended.clear();
        self.due_from = self.slots.front().map_or(self.next, |slot| slot.tag);
        for slot in &mut self.slots {
            slot.due = due;
            slot.extended = false;
            if let Some(message) = slot.message.as_mut().filter(|message| !message.received) {
                message.attempts = message.attempts.saturating_add(1);
                each(slot.tag, message);
            }
        }
    }

    /// All of them, in order.
    pub(crate) fn each(&mut self, each: impl FnMut(&mut Queued<B>)) {
        self.slots.iter_mut().filter_map(|slot| slot.message.as_mut()).for_each(each);
    }

    /// How many slots there are.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.slots.len()
    }

    /// How many deadlines are kept beside the slots.
    #[cfg(test)]
    pub(crate) fn deadlines(&self) -> usize {
        self.extended.len()
    }

    /// The place of the first slot that is not before `tag`.
    #[inline]
    fn place(&self, tag: DeliveryTag) -> usize {
        let Some(front) = self.slots.front() else { return 0 };
        if tag <= front.tag {
            return 0;
        }
        let guess = usize::try_from(tag - front.tag).unwrap_or(usize::MAX);
        match self.slots.get(guess) {
            Some(slot) if slot.tag == tag => guess,
            _ => self.slots.partition_point(|slot| slot.tag < tag),
        }
    }

    #[inline]
    fn tidy(&mut self) {
        while self.slots.pop_front_if(|slot| slot.message.is_none()).is_some() {}
        if self.slots.is_empty() {
            if self.slots.capacity() > ROOM_KEPT {
                self.slots.shrink_to(ROOM_KEPT);
            }
            self.extended.clear();
        } else if self.slots.len() > 64 + 2 * self.live {
            self.slots.retain(|slot| slot.message.is_some());
        }
    }
}

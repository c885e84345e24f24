//! Which filters are subscribed to at the broker for those that somebody here wants, and which copy of a message counts.
//!
//! A filter that another one covers is not subscribed to. Where two overlap, a broker sends a copy for each. With
//! subscription identifiers (MQTT 5) each filter has its own, and of the filters that match a message **the oldest
//! counts**: a copy for a younger one alone is left aside. Without them (MQTT 3.1.1) copies cannot be told apart, so
//! filters that overlap are replaced by one that covers both. What replaces a filter is acknowledged before that filter
//! is given up: nothing is lost; without identifiers a message may come twice in between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::Refused;
use linkspan_contract::address::{Level, Pattern};

use crate::upstream::copies::{Content, Copies};
use crate::upstream::filter;
use crate::upstream::subscription::{Id, State, Subscription};

/// What is to be said to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Subscribe { id: Id, filter: Arc<str> },
    Unsubscribe { id: Id, filter: Arc<str> },
}

/// Where a wanted filter stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// What it matches comes.
    Ready,
    /// The broker has not answered yet.
    Asked,
    /// The broker said no.
    Refused(Refused),
}

/// The wanted filters and what is subscribed to for them.
#[derive(Debug)]
pub(crate) struct Cover {
    /// Filters that overlap are told apart.
    identifies: bool,
    wanted: HashMap<Arc<str>, Wanted, RandomState>,
    upstream: BTreeMap<Id, Subscription>,
    next: Id,
    /// What was given up last: messages for it may still be under way.
    retired: VecDeque<Id>,
    copies: Copies,
}

#[derive(Debug)]
struct Wanted {
    count: usize,
    pattern: Pattern,
    refused: Option<Refused>,
    /// What brings it, when last looked at.
    by: Option<Id>,
}

/// Filters that were given up and are remembered.
const RETIRED: usize = 64;

/// The largest identifier (MQTT 5 §3.8.2.1.2).
const LARGEST: Id = 268_435_455;

impl Cover {
    pub(crate) fn new() -> Self {
        Self {
            identifies: true,
            wanted: HashMap::default(),
            upstream: BTreeMap::new(),
            next: 0,
            retired: VecDeque::new(),
            copies: Copies::default(),
        }
    }

    /// Somebody wants what `filter` matches.
    pub(crate) fn want(&mut self, filter: &str) -> Vec<Step> {
        if let Some(wanted) = self.wanted.get_mut(filter) {
            wanted.count += 1;
            return if wanted.refused.take().is_some() { self.subscribe_for(filter) } else { Vec::new() };
        }
        let pattern = Pattern::from_filter(filter);
        self.wanted.insert(filter.into(), Wanted { count: 1, pattern, refused: None, by: None });
        self.subscribe_for(filter)
    }

    /// One of those who wanted it does not any more.
    pub(crate) fn release(&mut self, filter: &str) -> Vec<Step> {
        let Some(wanted) = self.wanted.get_mut(filter) else { return Vec::new() };
        wanted.count = wanted.count.saturating_sub(1);
        if wanted.count > 0 {
            return Vec::new();
        }
        let Some(wanted) = self.wanted.remove(filter) else { return Vec::new() };
        let serving =
            |up: &&Id| self.upstream.get(up).is_some_and(|up| filter::covers(&up.pattern, &wanted.pattern));
        let ids: Vec<Id> = self.upstream.keys().filter(serving).copied().collect();
        ids.into_iter().flat_map(|id| self.give_up(id)).collect()
    }

    /// Where `filter`, which is wanted, stands.
    pub(crate) fn standing(&mut self, filter: &str) -> Standing {
        let Some(wanted) = self.wanted.get_mut(filter) else { return Standing::Ready };
        if let Some(why) = &wanted.refused {
            return Standing::Refused(why.clone());
        }
        let known = wanted.by.and_then(|by| self.upstream.get(&by)).filter(|up| up.stays());
        if let Some(known) = known {
            return if known.state == State::Active { Standing::Ready } else { Standing::Asked };
        }
        let brings =
            |up: &Subscription| up.state != State::Leaving && filter::covers(&up.pattern, &wanted.pattern);
        let mut all = self.upstream.iter().filter(|(_, up)| brings(up));
        let active = all.clone().find(|(_, up)| up.state == State::Active);
        wanted.by = active.or_else(|| all.next()).map(|(id, _)| *id);
        if active.is_some() { Standing::Ready } else { Standing::Asked }
    }

    /// True when the broker has answered all that it was asked.
    pub(crate) fn is_answered(&self) -> bool {
        self.upstream.values().all(|up| up.state != State::Asked)
    }

    /// A connection begins; `resumed` when the broker knows the session. What has to be said again.
    pub(crate) fn connected(&mut self, resumed: bool, identifies: bool) -> Vec<Step> {
        if resumed && identifies == self.identifies {
            let steps = self.upstream.iter().filter_map(|(id, up)| {
                let filter = Arc::clone(&up.filter);
                match up.state {
                    State::Asked => Some(Step::Subscribe { id: *id, filter }),
                    State::Leaving => Some(Step::Unsubscribe { id: *id, filter }),
                    State::Active | State::Retired => None,
                }
            });
            return steps.collect();
        }
        self.identifies = identifies;
        self.upstream.clear();
        self.retired.clear();
        self.copies.clear();
        let mut filters: Vec<Arc<str>> = self.wanted.keys().cloned().collect();
        // Wider ones first: they cover others.
        filters
            .sort_by_key(|filter| (!filter.ends_with('#'), filter.matches('/').count(), Arc::clone(filter)));
        filters.into_iter().flat_map(|filter| self.subscribe_for(&filter)).collect()
    }

    /// What the broker has granted, to be asked for once more.
    pub(crate) fn again(&self) -> Vec<Step> {
        let active = self.upstream.iter().filter(|(_, up)| up.state == State::Active);
        active.map(|(id, up)| Step::Subscribe { id: *id, filter: Arc::clone(&up.filter) }).collect()
    }

    /// The broker has answered a SUBSCRIBE.
    pub(crate) fn subscribed(&mut self, id: Id, answer: Result<(), Refused>) -> Vec<Step> {
        let Some(up) = self.upstream.get_mut(&id) else { return Vec::new() };
        let replaces = std::mem::take(&mut up.replaces);
        match answer {
            Ok(()) => {
                if up.state == State::Asked {
                    up.state = State::Active;
                }
                replaces.into_iter().flat_map(|old| self.leave(old)).collect()
            }
            Err(why) => self.refused(id, &why, replaces),
        }
    }

    /// The broker has answered an UNSUBSCRIBE.
    pub(crate) fn unsubscribed(&mut self, id: Id) {
        let Some(up) = self.upstream.get_mut(&id).filter(|up| up.state == State::Leaving) else { return };
        up.state = State::Retired;
        self.retired.push_back(id);
        if self.retired.len() > RETIRED
            && let Some(oldest) = self.retired.pop_front()
        {
            self.forget(oldest);
        }
    }

    /// Whether the copy of a message to `topic` that came for the filters `ids` counts.
    ///
    /// A broker may answer ahead of messages that wait for the session. So one for a filter that was given up counts
    /// when no other copy of it did, and the first of several does.
    pub(crate) fn counts(&mut self, topic: &[u8], ids: &[usize], content: impl FnOnce() -> Content) -> bool {
        if !self.identifies || ids.is_empty() {
            return true;
        }
        let mut first = None;
        for id in ids.iter().filter_map(|id| Id::try_from(*id).ok()) {
            let Some(up) = self.upstream.get_mut(&id) else { continue };
            up.seen = true;
            if up.state == State::Asked {
                up.state = State::Active;
            }
            first = Some(first.map_or(id, |first: Id| first.min(id)));
        }
        let Some(id) = first else { return false };
        let Some(up) = self.upstream.get(&id) else { return false };
        if up.elders.is_empty() && up.juniors.is_empty() {
            return true;
        }
        let Content { hash, is_unique } = content();
        if self.copies.came_before(hash, id, ids) {
            return false;
        }
        let matching = |other: &Id| {
            let other = self.upstream.get(other)?;
            other.pattern.matches(topic).then_some(other)
        };
        let acts = |up: &Subscription| matches!(up.state, State::Active | State::Leaving);
        if up.elders.iter().filter_map(matching).any(acts) {
            return false;
        }
        let may_come = |other: &Id| {
            matching(other).is_some_and(|up| up.state != State::Asked && (is_unique || up.seen))
                && !ids.contains(&(*other as usize))
        };
        let others: Vec<Id> =
            up.elders.iter().chain(&up.juniors).filter(|it| may_come(it)).copied().collect();
        self.copies.note(hash, id, others);
        true
    }

    /// Sees to it that what a wanted filter matches comes.
    fn subscribe_for(&mut self, filter: &str) -> Vec<Step> {
        let Some(mut pattern) = self.wanted.get(filter).map(|wanted| wanted.pattern.clone()) else {
            return Vec::new();
        };
        if self.is_covered(&pattern, None) || self.revives(filter).is_some() {
            return Vec::new();
        }
        let mut replaces = Vec::new();
        if !self.identifies {
            // Until it meets none of the others.
            while let Some((id, up)) = self
                .upstream
                .iter()
                .find(|(id, up)| !replaces.contains(*id) && up.stays() && filter::meet(&up.pattern, &pattern))
            {
                pattern = filter::joined(&up.pattern, &pattern);
                replaces.push(*id);
            }
        }
        let mut steps = Vec::new();
        for old in &replaces {
            if let Some(up) = self.upstream.get_mut(old) {
                up.replaced = true;
            }
        }
        steps.push(self.subscribe(pattern, replaces));
        steps
    }

    /// Keeps a filter that was about to go: a broker has one entry for each, which its end would end.
    fn revives(&mut self, filter: &str) -> Option<Id> {
        let same = |up: &Subscription| {
            up.replaced && matches!(up.state, State::Asked | State::Active) && *up.filter == *filter
        };
        let (id, up) = self.upstream.iter_mut().find(|(_, up)| same(up))?;
        up.replaced = false;
        let id = *id;
        for other in self.upstream.values_mut() {
            other.replaces.retain(|old| *old != id);
        }
        Some(id)
    }

    fn subscribe(&mut self, pattern: Pattern, replaces: Vec<Id>) -> Step {
        self.next = if self.next >= LARGEST { 1 } else { self.next + 1 };
        while self.upstream.contains_key(&self.next) {
            self.next += 1;
        }
        let id = self.next;
        let filter: Arc<str> = filter::text(&pattern).into();
        let meets = |up: &Subscription| filter::meet(&up.pattern, &pattern);
        let elders: Vec<Id> = self.upstream.iter().filter(|(_, up)| meets(up)).map(|(id, _)| *id).collect();
        for elder in &elders {
            if let Some(elder) = self.upstream.get_mut(elder) {
                elder.juniors.push(id);
            }
        }
        let step = Step::Subscribe { id, filter: Arc::clone(&filter) };
        let up = Subscription {
            filter,
            pattern,
            state: State::Asked,
            replaced: false,
            seen: false,
            elders,
            juniors: Vec::new(),
            replaces,
        };
        self.upstream.insert(id, up);
        step
    }

    /// A filter that served one that is not wanted any more goes, unless others need it.
    fn give_up(&mut self, id: Id) -> Vec<Step> {
        let Some(up) = self.upstream.get(&id).filter(|up| up.stays()) else { return Vec::new() };
        let is_literal = up.pattern.levels.iter().all(|level| matches!(level, Level::Literal(_)));
        let needs =
            |wanted: &Wanted| wanted.refused.is_none() && filter::covers(&up.pattern, &wanted.pattern);
        let mut needy: Vec<Arc<str>> = if is_literal {
            self.wanted.get(&up.filter).map(|_| Arc::clone(&up.filter)).into_iter().collect()
        } else {
            let needy = self.wanted.iter().filter(|(_, wanted)| needs(wanted));
            needy.map(|(filter, _)| Arc::clone(filter)).collect()
        };
        let others = |filter: &Arc<str>| {
            self.wanted.get(filter).is_some_and(|wanted| self.is_covered(&wanted.pattern, Some(id)))
        };
        needy.retain(|filter| !others(filter));
        if needy.is_empty() {
            return self.leave(id);
        }
        // Without identifiers a narrower filter beside it would make copies that cannot be told: it stays.
        if !self.identifies || needy.contains(&up.filter) {
            return Vec::new();
        }
        if let Some(up) = self.upstream.get_mut(&id) {
            up.replaced = true;
        }
        needy.sort_by_key(|filter| (!filter.ends_with('#'), filter.matches('/').count(), Arc::clone(filter)));
        let mut steps = Vec::new();
        let mut last = None;
        for filter in needy {
            let Some(pattern) = self.wanted.get(&filter).map(|wanted| wanted.pattern.clone()) else {
                continue;
            };
            if self.is_covered(&pattern, Some(id)) {
                continue;
            }
            if let Some(revived) = self.revives(&filter) {
                let asked = self.upstream.get(&revived).is_some_and(|up| up.state == State::Asked);
                last = last.max(asked.then_some(revived));
                continue;
            }
            let step = self.subscribe(pattern, Vec::new());
            if let Step::Subscribe { id, .. } = &step {
                last = last.max(Some(*id));
            }
            steps.push(step);
        }
        // Answers come in the order of the questions: the last one speaks for all.
        match last.and_then(|last| self.upstream.get_mut(&last)) {
            Some(last) => last.replaces.push(id),
            None => steps.extend(self.leave(id)),
        }
        steps
    }

    fn leave(&mut self, id: Id) -> Vec<Step> {
        let Some(up) =
            self.upstream.get_mut(&id).filter(|up| matches!(up.state, State::Asked | State::Active))
        else {
            return Vec::new();
        };
        up.state = State::Leaving;
        vec![Step::Unsubscribe { id, filter: Arc::clone(&up.filter) }]
    }

    fn is_covered(&self, pattern: &Pattern, but: Option<Id>) -> bool {
        let mut others = self.upstream.iter().filter(|(id, up)| Some(**id) != but && up.stays());
        others.any(|(_, up)| filter::covers(&up.pattern, pattern))
    }

    /// The broker does not grant a filter: who wants it is told; the others try without it.
    fn refused(&mut self, id: Id, why: &Refused, replaces: Vec<Id>) -> Vec<Step> {
        let Some(up) = self.forget(id) else { return Vec::new() };
        for old in replaces {
            if let Some(old) = self.upstream.get_mut(&old) {
                old.replaced = false;
            }
        }
        let mut steps = Vec::new();
        let served: Vec<Arc<str>> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| wanted.refused.is_none() && filter::covers(&up.pattern, &wanted.pattern))
            .map(|(filter, _)| Arc::clone(filter))
            .collect();
        for filter in served {
            let Some(wanted) = self.wanted.get_mut(&filter) else { continue };
            if filter == up.filter {
                wanted.refused = Some(why.clone());
                continue;
            }
            let pattern = wanted.pattern.clone();
            if !self.is_covered(&pattern, None) && self.revives(&filter).is_none() {
                steps.push(self.subscribe(pattern, Vec::new()));
            }
        }
        steps
    }

    fn forget(&mut self, id: Id) -> Option<Subscription> {
        let gone = self.upstream.remove(&id)?;
        for elder in &gone.elders {
            if let Some(elder) = self.upstream.get_mut(elder) {
                elder.juniors.retain(|other| *other != id);
            }
        }
        for junior in &gone.juniors {
            if let Some(junior) = self.upstream.get_mut(junior) {
                junior.elders.retain(|other| *other != id);
            }
        }
        Some(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribes(steps: &[Step]) -> Vec<(Id, &str)> {
        let of = |step| match step {
            &Step::Subscribe { id, ref filter } => (id, &**filter),
            other => panic!("only subscriptions were due: {other:?}"),
        };
        steps.iter().map(of).collect()
    }

    fn unsubscribes(steps: &[Step]) -> Vec<(Id, &str)> {
        let of = |step| match step {
            &Step::Unsubscribe { id, ref filter } => (id, &**filter),
            other => panic!("only endings were due: {other:?}"),
        };
        steps.iter().map(of).collect()
    }

    fn told(hash: u64) -> Content {
        Content { hash, is_unique: true }
    }

    fn connected(identifies: bool) -> Cover {
        let mut cover = Cover::new();
        cover.connected(false, identifies);
        cover
    }

    /// Wants a filter and has every step granted at once; tells the identifiers.
    fn granted(cover: &mut Cover, filter: &str) -> Vec<Id> {
        let mut steps = cover.want(filter);
        let mut made = Vec::new();
        while let Some(step) = steps.pop() {
            match step {
                Step::Subscribe { id, .. } => {
                    made.push(id);
                    steps.extend(cover.subscribed(id, Ok(())));
                }
                Step::Unsubscribe { id, .. } => cover.unsubscribed(id),
            }
        }
        made
    }

    #[test]
    fn a_filter_is_subscribed_to_once_and_goes_with_the_last_who_wants_it() {
        let mut cover = connected(true);
        assert_eq!(subscribes(&cover.want("a/+")), [(1, "a/+")]);
        assert_eq!(cover.standing("a/+"), Standing::Asked);
        assert_eq!(cover.want("a/+"), []);
        cover.subscribed(1, Ok(()));
        assert_eq!(cover.standing("a/+"), Standing::Ready);
        assert_eq!(cover.release("a/+"), []);
        assert_eq!(unsubscribes(&cover.release("a/+")), [(1, "a/+")]);
        cover.unsubscribed(1);
        assert!(!cover.upstream.values().any(|up| up.state != State::Retired));
    }

    #[test]
    fn what_a_wider_filter_brings_is_not_asked_for_and_taken_over_before_that_one_goes() {
        let mut cover = connected(true);
        granted(&mut cover, "#");
        assert_eq!(cover.want("a/b"), []);
        assert_eq!(cover.standing("a/b"), Standing::Ready);
        let steps = cover.release("#");
        assert_eq!(subscribes(&steps), [(2, "a/b")]);
        assert!(cover.counts(b"a/b", &[1], || told(7)), "the wider one counts as long as it is there");
        assert!(!cover.counts(b"a/b", &[2], || told(7)));
        assert_eq!(unsubscribes(&cover.subscribed(2, Ok(()))), [(1, "#")]);
        cover.unsubscribed(1);
        assert!(cover.counts(b"a/b", &[2], || told(8)));
    }

    #[test]
    fn of_overlapping_filters_the_oldest_counts_merged_or_not() {
        let mut cover = connected(true);
        granted(&mut cover, "a/+");
        granted(&mut cover, "+/b");
        for (ids, counts) in [(&[1][..], true), (&[2], false), (&[2, 1], true), (&[1, 2], true)] {
            assert_eq!(cover.counts(b"a/b", ids, || told(1)), counts, "{ids:?}");
        }
        assert!(cover.counts(b"x/b", &[2], || told(1)) && cover.counts(b"a/x", &[1], || told(1)));
        assert!(!cover.counts(b"a/b", &[9], || told(1)), "a filter that was given up");
    }

    #[test]
    fn a_message_whose_copies_are_parted_by_the_end_of_the_older_filter_counts_once() {
        let mut cover = connected(true);
        granted(&mut cover, "a/+");
        granted(&mut cover, "+/b");
        assert!(cover.counts(b"a/b", &[1], || told(5)));
        assert_eq!(unsubscribes(&cover.release("a/+")), [(1, "a/+")]);
        cover.unsubscribed(1);
        assert!(!cover.counts(b"a/b", &[2], || told(5)), "its copy for the older filter came before");
        assert!(cover.counts(b"a/b", &[2], || told(5)), "the same again is another message");
        assert!(cover.counts(b"a/b", &[2], || told(6)));
    }

    #[test]
    fn without_identifiers_no_two_filters_overlap() {
        let mut cover = connected(false);
        granted(&mut cover, "a/+");
        let steps = cover.want("+/b");
        assert_eq!(subscribes(&steps), [(2, "+/+")]);
        assert_eq!(unsubscribes(&cover.subscribed(2, Ok(()))), [(1, "a/+")]);
        cover.unsubscribed(1);
        assert_eq!(cover.release("a/+"), [], "it stays as long as one needs it");
        assert_eq!(unsubscribes(&cover.release("+/b")), [(2, "+/+")]);
    }

    #[test]
    fn a_refusal_reaches_who_asked_and_nobody_else() {
        let mut cover = connected(true);
        cover.want("a/#");
        cover.want("a/b");
        let why = Refused::AccessRefused("no".into());
        assert_eq!(subscribes(&cover.subscribed(1, Err(why.clone()))), [(2, "a/b")]);
        assert_eq!(cover.standing("a/#"), Standing::Refused(why));
        cover.subscribed(2, Ok(()));
        assert_eq!(cover.standing("a/b"), Standing::Ready);
        assert_eq!(subscribes(&cover.want("a/#")), [(3, "a/#")], "who comes later asks again");
    }

    #[test]
    fn a_new_session_gets_all_filters_and_a_resumed_one_what_was_not_answered() {
        let mut cover = connected(true);
        granted(&mut cover, "a/+");
        cover.want("b");
        cover.want("c/#");
        assert_eq!(subscribes(&cover.connected(true, true)), [(2, "b"), (3, "c/#")]);
        let all = cover.connected(false, true);
        let mut filters: Vec<_> = subscribes(&all).into_iter().map(|(_, filter)| filter).collect();
        filters.sort_unstable();
        assert_eq!(filters, ["a/+", "b", "c/#"]);
        assert!(subscribes(&all).iter().all(|(id, _)| *id > 3), "under new identifiers");
    }

    #[test]
    fn a_filter_wanted_again_while_it_is_given_up_is_subscribed_to_again() {
        let mut cover = connected(true);
        granted(&mut cover, "a");
        cover.release("a");
        assert_eq!(subscribes(&cover.want("a")), [(2, "a")]);
        cover.unsubscribed(1);
        cover.subscribed(2, Ok(()));
        assert!(cover.counts(b"a", &[2], || told(1)));
    }

    /// A broker that keeps one entry per filter and sends one copy for each that matches, or one for all.
    struct Broker {
        entries: BTreeMap<Arc<str>, Id>,
    }

    impl Broker {
        fn does(&mut self, step: &Step) {
            match step {
                Step::Subscribe { id, filter } => drop(self.entries.insert(Arc::clone(filter), *id)),
                Step::Unsubscribe { filter, .. } => drop(self.entries.remove(filter)),
            }
        }

        fn copies(&self, topic: &str) -> Vec<usize> {
            let matching =
                |(filter, _): &(&Arc<str>, &Id)| Pattern::from_filter(filter).matches(topic.as_bytes());
            self.entries.iter().filter(matching).map(|(_, id)| *id as usize).collect()
        }
    }

    #[test]
    fn a_message_under_way_for_a_filter_that_is_given_up_counts_when_nothing_else_brought_it() {
        let mut cover = connected(true);
        granted(&mut cover, "a/+");
        let steps = cover.want("#");
        assert_eq!(subscribes(&steps), [(2, "#")]);
        cover.subscribed(2, Ok(()));
        cover.want("a/b");
        assert_eq!(unsubscribes(&cover.release("a/b")), [(1, "a/+")], "the wider one brings it");
        cover.unsubscribed(1);
        assert!(cover.counts(b"a/b", &[1], || told(1)), "it was published before the wider one was there");
        assert!(cover.counts(b"a/b", &[1], || told(2)) && !cover.counts(b"a/b", &[2], || told(2)));
        assert!(cover.counts(b"a/b", &[2], || told(3)) && !cover.counts(b"a/b", &[1], || told(3)));
        assert!(cover.counts(b"a/b", &[2], || told(4)));
    }

    #[test]
    fn whatever_is_wanted_and_given_up_each_message_counts_once_as_long_as_somebody_wants_it() {
        let filters = ["#", "a/#", "a/+", "+/b", "a/b", "+/+", "b/#", "c"];
        let topics = ["a/b", "a/x", "b/b", "c", "b/b/c"];
        for seed in 0..500_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |below: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random % below as u64) as usize
            };
            let mut cover = connected(true);
            let mut broker = Broker { entries: BTreeMap::new() };
            let mut asked: VecDeque<Step> = VecDeque::new();
            // What waits for the session: the broker answers ahead of it.
            let mut wire: VecDeque<(&str, usize, u64)> = VecDeque::new();
            let mut wanted: Vec<&str> = Vec::new();
            let (mut due, mut counts) = (Vec::new(), HashMap::<u64, usize, RandomState>::default());
            let lasting = ["a/+", "+/b"][next(2)];
            asked.extend(cover.want(lasting));
            for content in 0..300 {
                match next(6) {
                    0 => {
                        let filter = filters[next(filters.len())];
                        wanted.push(filter);
                        asked.extend(cover.want(filter));
                    }
                    1 if !wanted.is_empty() => {
                        let filter = wanted.swap_remove(next(wanted.len()));
                        asked.extend(cover.release(filter));
                    }
                    2 => {
                        let Some(step) = asked.pop_front() else { continue };
                        broker.does(&step);
                        match step {
                            Step::Subscribe { id, .. } => asked.extend(cover.subscribed(id, Ok(()))),
                            Step::Unsubscribe { id, .. } => cover.unsubscribed(id),
                        }
                    }
                    3 => {
                        for _ in 0..next(8) {
                            let Some((topic, id, content)) = wire.pop_front() else { break };
                            let counted = cover.counts(topic.as_bytes(), &[id], || told(content));
                            *counts.entry(content).or_default() += usize::from(counted);
                        }
                    }
                    _ => {
                        let topic = topics[next(topics.len())];
                        let matches = Pattern::from_filter(lasting).matches(topic.as_bytes());
                        if matches && cover.standing(lasting) == Standing::Ready {
                            due.push(content);
                        }
                        wire.extend(broker.copies(topic).into_iter().map(|id| (topic, id, content)));
                    }
                }
            }
            for (topic, id, content) in wire {
                let counted = cover.counts(topic.as_bytes(), &[id], || told(content));
                *counts.entry(content).or_default() += usize::from(counted);
            }
            let twice = counts.iter().find(|(_, count)| **count > 1);
            assert_eq!(twice, None, "seed {seed}: a message counted more than once");
            let lost = due.iter().find(|content| counts.get(*content).copied() != Some(1));
            assert_eq!(lost, None, "seed {seed}: a message for {lasting} did not count");
        }
    }
}

//! What a client's session wants of its queue: subscriptions to topic filters, which are matched again here, because one
//! message may be for several of them.

use std::collections::VecDeque;
use std::sync::Arc;

use linkspan_contract::address::Pattern;
use linkspan_contract::{Kept, Settle, SubscriptionKey};

use crate::inbox::Inbox;

/// A subscription of a session to a topic filter.
#[derive(Debug)]
pub(crate) struct Interest {
    pub(crate) key: SubscriptionKey,
    pub(crate) binding: String,
    pattern: Pattern,
    terms: Terms,
    /// What takes the place of `terms` when it is started.
    next: Option<Terms>,
    started: bool,
}

/// How it is given what it matches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) settle: Settle,
    pub(crate) no_local: bool,
}

impl Interest {
    pub(crate) fn new(key: SubscriptionKey, filter: &str, binding: String, terms: Terms) -> Self {
        Self { key, binding, pattern: Pattern::from_filter(filter), terms, next: None, started: false }
    }

    pub(super) fn start(&mut self) {
        self.started = true;
        self.terms = self.next.take().unwrap_or(self.terms);
    }

    /// It goes on as `other` says when it is started again.
    pub(super) fn succeed(&mut self, other: &Self) {
        self.next = Some(other.terms);
    }
}

/// All of them, and the message that is being given out.
pub(crate) struct Attendance {
    pub(super) inbox: Arc<Inbox>,
    pub(super) interests: Vec<Interest>,
    pub(super) letter: Option<Letter>,
}

/// A message on its way to the subscriptions that it is for.
pub(super) struct Letter {
    pub(super) message: Kept,
    /// The broker's number.
    pub(super) upstream: u64,
    pub(super) attempt: u32,
    /// Who has still to be given it, and who of them settles nothing.
    pub(super) copies: VecDeque<(SubscriptionKey, bool)>,
    /// Nobody settles it.
    pub(super) settled: bool,
}

impl Attendance {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox, interests: Vec::new(), letter: None }
    }

    pub(super) fn interest(&mut self, key: SubscriptionKey) -> Option<&mut Interest> {
        self.interests.iter_mut().find(|interest| interest.key == key)
    }

    /// Who is to be given a message to `topic`, and whether that settles it; none while one of them is not started.
    /// `own`: the client published it.
    pub(super) fn copies(
        &self,
        topic: &[u8],
        own: bool,
        durable: bool,
    ) -> Option<VecDeque<(SubscriptionKey, bool)>> {
        let mut copies = VecDeque::new();
        for interest in self.interests.iter().filter(|it| it.pattern.matches(topic)) {
            if !interest.started {
                return None;
            }
            if own && interest.terms.no_local {
                continue;
            }
            let settled = match interest.terms.settle {
                Settle::OnDelivery => true,
                Settle::ByConsumer => false,
                Settle::AsPublished => !durable,
            };
            copies.push_back((interest.key, settled));
        }
        Some(copies)
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::{Client, SessionTerms};

    use super::*;
    use crate::options::AmqpOptions;

    fn key(subscription: u32) -> SubscriptionKey {
        SubscriptionKey { subscription, part: 0 }
    }

    fn attendance(filters: &[(&str, Settle, bool)]) -> Attendance {
        let terms = SessionTerms { at_broker: false, fresh: true, keep: 60, window: 1, will: None };
        let client = Client {
            number: 1,
            identifier: "c".into(),
            user: "u".into(),
            vhost: "/".into(),
            session: Some(Arc::new(terms)),
        };
        let inbox = Inbox::of(&client, "rabbit", &AmqpOptions::at(Vec::new())).unwrap().unwrap();
        let mut attendance = Attendance::new(inbox);
        for (number, (filter, settle, no_local)) in (1..).zip(filters) {
            let terms = Terms { settle: *settle, no_local: *no_local };
            let mut interest = Interest::new(key(number), filter, String::new(), terms);
            interest.start();
            attendance.interests.push(interest);
        }
        attendance
    }

    #[test]
    fn each_subscription_that_matches_gets_a_copy_on_its_own_terms_mqtt_3_3_4_2() {
        let attendance = attendance(&[
            ("a/#", Settle::AsPublished, false),
            ("a/+", Settle::OnDelivery, false),
            ("b", Settle::AsPublished, false),
        ]);
        assert_eq!(attendance.copies(b"a/x", false, true).unwrap(), [(key(1), false), (key(2), true)]);
        assert_eq!(attendance.copies(b"a/x", false, false).unwrap(), [(key(1), true), (key(2), true)]);
        assert!(attendance.copies(b"c", false, true).unwrap().is_empty());
    }

    #[test]
    fn what_the_client_published_itself_is_not_for_a_subscription_without_local_mqtt_3_8_3_3() {
        let attendance = attendance(&[("a", Settle::AsPublished, true), ("a", Settle::AsPublished, false)]);
        assert_eq!(attendance.copies(b"a", true, true).unwrap(), [(key(2), false)]);
        assert_eq!(attendance.copies(b"a", false, true).unwrap().len(), 2);
    }

    #[test]
    fn a_message_waits_until_everybody_whom_it_is_for_has_begun() {
        let mut attendance = attendance(&[("a", Settle::AsPublished, false)]);
        let terms = Terms { settle: Settle::AsPublished, no_local: false };
        attendance.interests.push(Interest::new(key(9), "#", "#".into(), terms));
        assert!(attendance.copies(b"a", false, true).is_none());
        attendance.interest(key(9)).unwrap().start();
        assert_eq!(attendance.copies(b"a", false, true).unwrap().len(), 2);
    }
}

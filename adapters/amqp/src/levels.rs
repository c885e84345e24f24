//! The queues that a priority queue has at the broker where its levels are kept apart: one for each of them.

pub(crate) mod store;

use lapin::types::ShortString;
use linkspan_contract::{Priorities, QueueSpec, Refused};

use crate::queue_name::{names, queue_name};

/// Names of queues that are for one level.
const KIND: &str = "level";

/// All of them. The lowest level's has the name of the work queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Levels {
    queue: ShortString,
    upper: Box<[ShortString]>,
}

impl Levels {
    /// Those of a queue whose highest level is this one.
    ///
    /// # Errors
    /// When its name is too long for theirs.
    pub(crate) fn new(queue: &ShortString, highest: u8) -> Result<Self, Refused> {
        let of_level = |level: u8| {
            let name = queue_name(KIND, &[queue.as_str(), &level.to_string()]);
            // One that was cut does not tell whose it is.
            let name = names(KIND, &name).and_then(|_| ShortString::try_new(name).ok());
            name.ok_or_else(|| {
                Refused::Precondition(format!(
                    "the name of queue '{queue}' is too long for a queue for each of its levels at RabbitMQ, which takes \
                     255 bytes"
                ))
            })
        };
        let upper = (1..=highest).map(of_level);
        Ok(Self { queue: queue.clone(), upper: upper.collect::<Result<_, _>>()? })
    }

    /// Those that a queue is to have, as its route says; none where it is one queue.
    ///
    /// # Errors
    /// When its name is too long for theirs.
    pub(crate) fn of(spec: &QueueSpec<'_>, is_quorum: bool) -> Result<Option<Self>, Refused> {
        let priorities = spec.terms.and_then(|terms| terms.priorities.as_ref());
        match priorities.filter(|priorities| are_apart(priorities, is_quorum)) {
            Some(priorities) => {
                let queue = crate::goal::short("the queue", spec.name.as_bytes())?;
                Self::new(&queue, priorities.highest).map(Some)
            }
            None => Ok(None),
        }
    }

    /// A level's queue; what is above the highest counts as that.
    pub(crate) fn queue(&self, level: u8) -> &ShortString {
        let upper = usize::from(level).min(self.upper.len()).checked_sub(1);
        upper.and_then(|at| self.upper.get(at)).unwrap_or(&self.queue)
    }

    /// The lowest level's first.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &ShortString> {
        std::iter::once(&self.queue).chain(&self.upper)
    }

    /// Those of the levels above this one.
    pub(crate) fn above(&self, level: u8) -> impl Iterator<Item = &ShortString> {
        self.upper.iter().skip(level.into())
    }

    /// The highest level.
    pub(crate) fn highest(&self) -> u8 {
        u8::try_from(self.upper.len()).unwrap_or(u8::MAX)
    }
}

/// Whether each level has a queue: where the route says so, or says nothing and one queue of the broker's, which gives its
/// highest level first and, as a quorum queue, knows no such levels, would not do.
pub fn are_apart(priorities: &Priorities, is_quorum: bool) -> bool {
    priorities.apart.unwrap_or(priorities.weighted || is_quorum)
}

/// The work queue of whose levels one has the queue of that name.
pub(crate) fn whole(name: &str) -> Option<String> {
    let [queue, level] = <[String; 2]>::try_from(names(KIND, name)?).ok()?;
    level.parse::<u8>().is_ok().then_some(queue)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use linkspan_contract::Terms;

    use super::*;

    #[test]
    fn each_level_has_a_queue_that_tells_whose_it_is() {
        let queue = ShortString::try_new("tickets.eu").unwrap();
        let levels = Levels::new(&queue, 9).unwrap();
        assert_eq!((levels.highest(), levels.queues().count()), (9, 10));
        assert_eq!(levels.queue(0), &queue);
        assert_eq!(levels.queue(9).as_str(), "linkspan.level.tickets%2eeu.9");
        assert_eq!(levels.above(7).collect::<Vec<_>>(), [levels.queue(8), levels.queue(9)]);
        assert_eq!((levels.above(0).count(), levels.above(9).count()), (9, 0));
        assert_eq!(levels.queue(200), levels.queue(9), "what is above the highest counts as that");
        assert_eq!(whole(levels.queue(9).as_str()).as_deref(), Some("tickets.eu"));
        for other in
            ["tickets.eu", "linkspan.level.tickets", "linkspan.level.tickets.x", "linkspan.delay.a.9"]
        {
            assert_eq!(whole(other), None);
        }
        let long = ShortString::try_new("x".repeat(250)).unwrap();
        assert!(matches!(Levels::new(&long, 9), Err(Refused::Precondition(_))));
    }

    #[test]
    fn a_queue_has_them_where_its_route_says_so_or_the_brokers_own_priorities_do_not_do() {
        for (apart, weighted, is_quorum, has_them) in [
            (None, false, false, false),
            (None, true, false, true),
            (None, false, true, true),
            (Some(true), false, false, true),
            (Some(false), false, false, false),
        ] {
            let priorities = Priorities { highest: 4, weighted, from: None, otherwise: 0, apart };
            let terms = Arc::new(Terms { priorities: Some(priorities), ..Terms::default() });
            let spec = QueueSpec { terms: Some(&terms), ..QueueSpec::new("tickets") };
            assert_eq!(Levels::of(&spec, is_quorum).unwrap().is_some(), has_them, "{terms:?}");
        }
        assert_eq!(Levels::of(&QueueSpec::new("tickets"), true), Ok(None));
    }
}

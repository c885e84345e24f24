//! Alarms: memory or disk run short. While one is raised nobody publishes and consumers drain on, so that what is short
//! comes back; an alarm that is on only slows clients down, and loses nothing.
//!
//! A [`Watch`] looks at the machine, [`level`] decides, and [`Alarms`] is what doors ask before they publish what they have
//! read. Each door holds publishers back in its protocol's way. What moves inside Linkspan goes on: it is held already.

mod coordinator;
mod level;
mod machine;
mod shortage;
mod spare;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::sync::watch;

pub use self::coordinator::{Directory, Limits, Watch, allowed};
pub use self::shortage::{Shortage, Subject};

/// The alarms that are raised.
#[derive(Debug)]
pub struct Alarms {
    on: AtomicBool,
    raised: watch::Sender<BTreeMap<Subject, Arc<str>>>,
}

impl Default for Alarms {
    /// None is raised.
    fn default() -> Self {
        Self { on: AtomicBool::new(false), raised: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Alarms {
    /// Whether any is raised. Costs nothing: it is asked for each read.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Those that are raised, each with its reason.
    pub fn raised(&self) -> Vec<(Subject, Arc<str>)> {
        let raised = self.raised.borrow();
        raised.iter().map(|(subject, reason)| (subject.clone(), Arc::clone(reason))).collect()
    }

    /// Why nobody may publish now; none when everybody may.
    pub fn reason(&self) -> Option<String> {
        let raised = self.raised.borrow();
        (!raised.is_empty()).then(|| raised.values().map(|reason| &**reason).collect::<Vec<_>>().join("; "))
    }

    /// Holds a publisher of `door` back until no alarm is raised; none when none is.
    pub fn hold(&self, door: &'static str) -> Option<Hold> {
        let reason = self.reason()?;
        let mut raised = self.raised.subscribe();
        let over = Box::pin(async move {
            // Without whoever could raise one there is none either.
            let _ = raised.wait_for(BTreeMap::is_empty).await;
        });
        let held = metrics::gauge!("linkspan_connections_held", "door" => door);
        held.increment(1);
        Some(Hold { over, reason, held })
    }

    /// Raises the alarm of what is short, with its newest reason.
    pub fn raise(&self, shortage: &Shortage) {
        let (subject, reason) = (shortage.subject(), shortage.to_string().into());
        self.change(|raised| raised.insert(subject, reason).is_none());
    }

    /// Lowers an alarm.
    pub fn lower(&self, subject: &Subject) {
        self.change(|raised| raised.remove(subject).is_some());
    }

    /// `change` says whether who waits has to look: for a new reason nobody is woken.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<Subject, Arc<str>>) -> bool) {
        self.raised.send_if_modified(|raised| {
            let other = change(raised);
            // Before anybody is told: who goes on then has to find none on.
            self.on.store(!raised.is_empty(), Ordering::Relaxed);
            for kind in Subject::KINDS {
                let is_on = raised.keys().any(|subject| subject.kind() == kind);
                metrics::gauge!("linkspan_alarm", "kind" => kind).set(if is_on { 1.0 } else { 0.0 });
            }
            other
        });
    }
}

/// A publisher that is held back.
pub struct Hold {
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    reason: String,
    held: metrics::Gauge,
}

impl Hold {
    /// What the publisher can be told.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Ready, once, when it may go on.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.over.as_mut().poll(cx)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.decrement(1);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("reason", &self.reason).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn is_over(hold: &mut Hold) -> bool {
        hold.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn publishers_are_held_until_the_last_alarm_is_lowered() {
        let alarms = Alarms::default();
        assert!(!alarms.is_on() && alarms.hold("amqp").is_none());
        let memory = Shortage::Memory { used: 3 << 30, limit: 2 << 30 };
        let disk = Shortage::Disk { backend: "local".into(), free: 1 << 20, limit: 1 << 30 };
        alarms.raise(&memory);
        let mut first = alarms.hold("amqp").unwrap();
        assert!(first.reason().starts_with("low on memory: "), "{first:?}");
        alarms.raise(&disk);
        let mut second = alarms.hold("amqp").unwrap();
        assert!(second.reason().contains("; low on disk: "), "{second:?}");
        alarms.lower(&memory.subject());
        assert!(alarms.is_on() && !is_over(&mut first) && !is_over(&mut second));
        assert_eq!(alarms.raised().len(), 1);
        alarms.lower(&disk.subject());
        assert!(!alarms.is_on() && is_over(&mut first) && is_over(&mut second));
        assert_eq!(alarms.reason(), None);
    }

    #[test]
    fn a_disk_that_has_room_again_says_nothing_of_another_one() {
        let alarms = Alarms::default();
        let disk = |backend: &str| Shortage::Disk { backend: backend.into(), free: 0, limit: 1 };
        alarms.raise(&disk("a"));
        alarms.raise(&disk("b"));
        alarms.lower(&disk("a").subject());
        assert!(alarms.reason().unwrap().contains("`b`"), "{alarms:?}");
    }
}

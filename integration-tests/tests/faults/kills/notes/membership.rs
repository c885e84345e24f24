//! Kept sessions: what each has subscribed to, by what it asked and was answered, and what it has to be given by that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Notes, Sent, Settled};

/// How late a server may be that ends a session.
const LATE: Duration = Duration::from_millis(600);

/// What is known of a client's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kept {
    /// There never was one.
    #[default]
    Not,
    There,
    /// Something was asked for that would change it, and not answered.
    Unknown,
}

/// Whether a filter is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    In,
    Out,
    /// Something was asked for and not answered.
    Unknown,
}

/// From SUBSCRIBE to the end of the subscription.
#[derive(Debug, Clone, Copy)]
struct Span {
    asked: u64,
    granted: Option<u64>,
    /// When its end was asked for.
    leaving: Option<u64>,
    left: Option<u64>,
    /// It was given everything that had been acknowledged by then.
    sure: u64,
}

/// One kept session.
#[derive(Debug, Default)]
pub struct Membership {
    kept: Kept,
    /// When its client was heard of last, and when the server had let it go if that is known.
    heard: Option<Instant>,
    gone: Option<Instant>,
    /// When CONNECT was sent that began the session of today: of what was acknowledged before it is given nothing.
    begun: u64,
    lines: BTreeMap<&'static str, Vec<Span>>,
    /// How often it was found again.
    pub found: usize,
    /// How often its time was over.
    pub expired: usize,
}

impl Membership {
    fn standing(&self, line: &'static str) -> Standing {
        match self.lines.get(line).and_then(|spans| spans.last()) {
            None => Standing::Out,
            Some(span) if span.left.is_some() => Standing::Out,
            Some(span) if span.granted.is_some() && span.leaving.is_none() => Standing::In,
            Some(_) => Standing::Unknown,
        }
    }

    /// Why a message may not be given to it.
    pub(super) fn refuses(&self, line: &'static str, sent: &Sent) -> Option<&'static str> {
        let acknowledged = sent.acknowledged.unwrap_or(u64::MAX);
        if acknowledged < self.begun {
            return Some("belongs to a session that had ended");
        }
        let spans = self.lines.get(line).map_or(&[][..], Vec::as_slice);
        let meets = |span: &Span| span.asked < acknowledged && span.left.is_none_or(|left| sent.tick < left);
        (!spans.iter().any(meets)).then_some("was not subscribed to")
    }

    /// Whether a message has to be given to it.
    fn is_due(&self, line: &'static str, sent: &Sent) -> bool {
        let Some(acknowledged) = sent.acknowledged.filter(|_| sent.durable) else { return false };
        let spans = self.lines.get(line).map_or(&[][..], Vec::as_slice);
        spans.iter().any(|span| {
            // What waits when a subscription ends need not be given any more.
            span.granted.is_some_and(|granted| granted < sent.tick)
                && (span.leaving.is_none() || acknowledged < span.sure)
        })
    }

    /// The server was killed: when it lets the session go is its own affair.
    pub(super) fn is_on_its_own(&mut self) {
        self.gone = None;
    }

    fn is_leaving(&mut self, tick: u64) {
        for span in self.lines.values_mut().filter_map(|spans| spans.last_mut()) {
            span.leaving.get_or_insert(tick);
        }
    }

    fn has_left(&mut self, tick: u64) {
        self.is_leaving(tick);
        for span in self.lines.values_mut().filter_map(|spans| spans.last_mut()) {
            span.left.get_or_insert(tick);
        }
    }
}

impl Notes {
    /// There is a kept session, or will be; its client's inbox is a queue of that name.
    pub fn member(&mut self, inbox: &'static str) -> &mut Membership {
        self.members.entry(inbox).or_default()
    }

    /// Whether a member subscribes to a line.
    pub fn standing(&self, inbox: &'static str, line: &'static str) -> Standing {
        self.members.get(inbox).map_or(Standing::Out, |member| member.standing(line))
    }

    /// CONNECT is on its way; with `fresh` as a clean start. Tells when.
    pub fn connecting(&mut self, inbox: &'static str, fresh: bool) -> u64 {
        let tick = self.next_tick();
        let member = self.member(inbox);
        if fresh && member.kept != Kept::Not {
            member.kept = Kept::Unknown;
            member.is_leaving(tick);
        } else if member.kept == Kept::Not {
            member.kept = Kept::Unknown;
        }
        tick
    }

    /// CONNACK has come, to the CONNECT that was sent then. `keep`: how long the session is kept.
    pub fn connected(
        &mut self,
        inbox: &'static str,
        (tick, sent): (u64, Instant),
        (fresh, present): (bool, bool),
        keep: Duration,
    ) {
        let now = self.next_tick();
        let member = self.member(inbox);
        let away = member.heard.map_or(Duration::ZERO, |heard| heard.elapsed());
        let surely_away = member.gone.map_or(Duration::ZERO, |gone| sent.duration_since(gone));
        let mut wrong = None;
        if fresh && present {
            wrong = Some("has a session behind a clean start");
        } else if present && surely_away > keep + LATE {
            wrong = Some("finds its session though its time was over");
        } else if !fresh && !present && member.kept == Kept::There && away < keep {
            wrong = Some("does not find its session");
        }
        if present {
            member.found += 1;
        } else {
            member.expired += usize::from(!fresh && member.kept == Kept::There);
            member.has_left(now);
            member.begun = tick;
        }
        member.kept = Kept::There;
        (member.heard, member.gone) = (Some(Instant::now()), None);
        self.attached(inbox);
        if let Some(wrong) = wrong {
            self.wrong(format!("{inbox} {wrong}"));
        }
    }

    /// Something came from the server: a member's connection is not over.
    pub fn heard(&mut self, inbox: &'static str) {
        self.member(inbox).heard = Some(Instant::now());
    }

    /// The server has let a member go.
    pub fn gone(&mut self, inbox: &'static str) {
        self.member(inbox).gone = Some(Instant::now());
    }

    /// SUBSCRIBE is on its way.
    pub fn subscribing(&mut self, inbox: &'static str, line: &'static str) {
        let tick = self.next_tick();
        let spans = self.member(inbox).lines.entry(line).or_default();
        if let Some(span) = spans.last_mut() {
            if span.left.is_none() && span.leaving.is_none() {
                return;
            }
            // What it had is the new one's, if it is there still.
            span.left.get_or_insert(tick);
        }
        spans.push(Span { asked: tick, granted: None, leaving: None, left: None, sure: 0 });
    }

    /// A member was given what was published behind that tick, and with it all that was acknowledged before.
    pub fn caught_up(&mut self, inbox: &'static str, line: &'static str, tick: u64) {
        if let Some(span) = self.member(inbox).lines.get_mut(line).and_then(|spans| spans.last_mut()) {
            span.sure = span.sure.max(tick);
        }
    }

    /// SUBACK has come.
    pub fn subscribed(&mut self, inbox: &'static str, line: &'static str) {
        let tick = self.next_tick();
        if let Some(span) = self.member(inbox).lines.get_mut(line).and_then(|spans| spans.last_mut()) {
            span.granted.get_or_insert(tick);
        }
    }

    /// UNSUBSCRIBE is on its way.
    pub fn unsubscribing(&mut self, inbox: &'static str, line: &'static str) {
        let tick = self.next_tick();
        if let Some(span) = self.member(inbox).lines.get_mut(line).and_then(|spans| spans.last_mut()) {
            span.leaving.get_or_insert(tick);
        }
    }

    /// UNSUBACK has come.
    pub fn unsubscribed(&mut self, inbox: &'static str, line: &'static str) {
        let tick = self.next_tick();
        if let Some(span) = self.member(inbox).lines.get_mut(line).and_then(|spans| spans.last_mut()) {
            span.left.get_or_insert(tick);
        }
    }

    /// What members were not given.
    pub(super) fn judge_members(&self, wrong: &mut Vec<String>) {
        for (inbox, member) in &self.members {
            let sights = self.queues.get(inbox).map(|queue| &queue.sights);
            for line in member.lines.keys() {
                let sent = self.lines.get(line).map_or(&[][..], Vec::as_slice);
                for (number, message) in sent.iter().enumerate() {
                    let sights = sights.and_then(|sights| sights.get(&(*line, number)));
                    let mut sights = sights.map_or(&[][..], Vec::as_slice).iter();
                    let had = sights.any(|sight| sight.settled == Some(Settled::Accepted));
                    if member.is_due(line, message) && !had {
                        let life = message.life;
                        wrong.push(format!("{line} {number} (life {life}) never came to {inbox}"));
                    }
                }
            }
        }
    }

    /// What the sessions went through, in figures.
    pub fn sessions(&self) -> (usize, usize) {
        let members = || self.members.values();
        (members().map(|member| member.found).sum(), members().map(|member| member.expired).sum())
    }
}

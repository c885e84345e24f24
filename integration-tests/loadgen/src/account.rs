//! Every message of a run accounted for: what was sent, what came, what did not.

use crate::latency::Latency;
use crate::plan::Plan;
use crate::reactor::Reactor;
use crate::track::Track;
use std::collections::HashMap;

#[derive(Default)]
pub struct Account {
    pub latency: Latency,
    pub confirm_latency: Latency,
    pub send_lag: Latency,
    pub published: u64,
    pub delivered: u64,
    pub expected: u64,
    pub confirmed: u64,
    pub unconfirmed: u64,
    pub nacked: u64,
    pub bytes: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub redelivered: u64,
    pub stray: u64,
    pub bad: u64,
    pub disconnects: u64,
}

impl Account {
    pub fn new(plan: &Plan, reactors: Vec<Reactor>) -> Account {
        let mut a = Account::default();
        let mut sent = vec![0u32; plan.streams.len()];
        let mut domains: HashMap<usize, Track> = HashMap::new();
        for mut r in reactors {
            for c in &mut r.connections {
                if let Some(p) = c.party.publisher() {
                    for (l, s) in p.streams.iter().enumerate() {
                        sent[*s as usize] = p.seqs[l];
                    }
                    a.unconfirmed += p.unconfirmed as u64;
                }
            }
            let mut r = r.results;
            a.latency.add(&mut r.tally.latency);
            a.confirm_latency.add(&mut r.confirms.latency);
            a.send_lag.add(&mut r.send_lag);
            a.published += r.published;
            a.delivered += r.tally.delivered;
            a.confirmed += r.confirms.confirmed;
            a.nacked += r.confirms.nacked;
            a.bytes += r.tally.bytes;
            a.duplicates += r.tally.duplicates;
            a.out_of_order += r.tally.out_of_order;
            a.redelivered += r.tally.redelivered;
            a.stray += r.tally.stray;
            a.bad += r.tally.bad;
            a.disconnects += r.disconnects;
            for (global, track) in r.tally.domains {
                match (domains.get_mut(&global), track) {
                    (None, t) => {
                        domains.insert(global, t);
                    }
                    (Some(Track::Group(m)), Track::Group(v)) => {
                        a.duplicates += m.iter_mut().zip(&v).map(|(x, y)| x.merge(y)).sum::<u64>();
                    }
                    _ => unreachable!("an exclusive receiver lives on one thread"),
                }
            }
        }
        for (&domain, track) in &domains {
            for i in plan.streams_of(domain) {
                let got = match track {
                    Track::Alone(v) => v[i].unique(),
                    Track::Group(v) => v[i].unique(),
                };
                a.expected += sent[i] as u64;
                a.lost += (sent[i] as u64).saturating_sub(got);
            }
        }
        a
    }

    /// Anything that a run without trouble does not have, besides lost, duplicate and disordered messages.
    pub fn oddities(&self) -> Option<String> {
        let all =
            self.stray + self.bad + self.disconnects + self.nacked + self.unconfirmed + self.redelivered;
        (all > 0).then(|| {
            format!(
                " stray {} bad {} disc {} nack {} unconf {} redel {}",
                self.stray, self.bad, self.disconnects, self.nacked, self.unconfirmed, self.redelivered
            )
        })
    }
}

//! Who sends which streams to whom, known before the first connection.

use crate::workload::{Proto, Workload};
use std::collections::HashMap;

/// The messages of one publisher to one topic at one priority, numbered from 0.
pub struct Stream {
    pub publisher: usize,
    pub topic: usize,
    pub priority: usize,
}

pub struct Receiver {
    pub topics: Vec<usize>,
    /// The set of receivers that share messages.
    pub domain: usize,
    pub shared: bool,
}

pub struct Plan {
    pub streams: Vec<Stream>,
    pub receivers: Vec<Receiver>,
    domain_topics: HashMap<usize, Vec<usize>>,
}

/// Indices of `n` things that party `i` of `parties` handles: its part of them, or one of them when there are fewer.
fn assigned(n: usize, parties: usize, i: usize) -> Vec<usize> {
    if n <= parties { vec![i % n] } else { (i..n).step_by(parties).collect() }
}

impl Plan {
    pub fn new(w: &Workload) -> Plan {
        let mut streams = vec![];
        for publisher in 0..w.publishers {
            for topic in assigned(w.topics, w.publishers, publisher) {
                for priority in 0..w.priorities.max(1) {
                    streams.push(Stream { publisher, topic, priority });
                }
            }
        }
        let all: Vec<usize> = (0..w.topics).collect();
        let mut receivers = vec![];
        let mut domain_topics = HashMap::new();
        for s in 0..w.receivers {
            let own = assigned(w.topics, w.receivers, s);
            let r = match w.to {
                Proto::Mqtt if w.group.is_some() => Receiver { topics: all.clone(), domain: 0, shared: true },
                Proto::Mqtt if w.wildcard => Receiver { topics: all.clone(), domain: s, shared: false },
                Proto::Mqtt => Receiver { topics: own, domain: s, shared: false },
                Proto::Amqp if w.receivers > w.topics => {
                    let q = s % w.topics;
                    let shared = (0..w.receivers).filter(|x| x % w.topics == q).count() > 1;
                    Receiver { topics: own, domain: q, shared }
                }
                Proto::Amqp => Receiver { topics: own, domain: s, shared: false },
            };
            domain_topics.insert(r.domain, if w.fanout() { all.clone() } else { r.topics.clone() });
            receivers.push(r);
        }
        Plan { streams, receivers, domain_topics }
    }

    /// A publisher's streams, with their numbers.
    pub fn of(&self, publisher: usize) -> Vec<(u32, &Stream)> {
        let all = self.streams.iter().enumerate().map(|(i, s)| (i as u32, s));
        all.filter(|(_, s)| s.publisher == publisher).collect()
    }

    /// The streams that a domain gets.
    pub fn streams_of(&self, domain: usize) -> impl Iterator<Item = usize> + '_ {
        let topics = &self.domain_topics[&domain];
        (0..self.streams.len()).filter(|&i| topics.contains(&self.streams[i].topic))
    }

    /// Expected deliveries of one message, by stream.
    pub fn fan(&self) -> Vec<u32> {
        let mut fan = vec![0; self.streams.len()];
        for &d in self.domain_topics.keys() {
            for i in self.streams_of(d) {
                fan[i] += 1;
            }
        }
        fan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;

    fn plan(kind: &str, options: &str) -> Plan {
        let argv: Vec<String> = options.split_whitespace().map(Into::into).collect();
        Plan::new(&Workload::parse(kind, &Args::parse(&argv)))
    }

    #[test]
    fn pairs_give_each_message_to_one() {
        let p = plan("mqtt", "--publishers 3 --topics 3 --subscribers 3");
        assert_eq!(p.fan(), [1, 1, 1]);
        assert_eq!(p.of(1)[0].1.topic, 1);
    }

    #[test]
    fn a_topic_fans_out_to_every_subscriber() {
        assert_eq!(plan("mqtt", "--subscribers 50").fan(), [50]);
        assert_eq!(plan("mqtt", "--topics 4 --subscribers 2 --wildcard").fan(), [2, 2, 2, 2]);
    }

    #[test]
    fn shared_subscribers_and_competing_consumers_are_one_domain() {
        let p = plan("mqtt", "--subscribers 4 --shared g --publishers 2 --topics 2");
        assert_eq!(p.fan(), [1, 1]);
        assert!(p.receivers.iter().all(|r| r.shared && r.domain == 0));
        let p = plan("amqp", "--consumers 4 --queues 2 --publishers 2");
        assert_eq!(p.fan(), [1, 1]);
        assert_eq!(p.receivers.iter().map(|r| r.domain).collect::<Vec<_>>(), [0, 1, 0, 1]);
    }

    #[test]
    fn a_fanout_exchange_gives_each_queue_everything() {
        assert_eq!(plan("amqp", "--exchange fanout --queues 8 --consumers 8").fan(), [8; 8]);
    }
}

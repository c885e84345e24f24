//! What came at a broker behind: each line once, or more often when the way there broke.

use std::collections::HashMap;

use super::Notes;

/// What came of one line.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// By number: when it came first, and how often.
    came: HashMap<usize, (u64, usize)>,
    /// When the way there broke, kills among them.
    breaks: Vec<u64>,
}

impl Arrivals {
    pub(super) fn has(&self, number: usize) -> bool {
        self.came.contains_key(&number)
    }
}

impl Notes {
    /// A line goes to a broker behind.
    pub fn leads_away(&mut self, line: &'static str) {
        self.elsewhere(line);
        self.arrivals.entry(line).or_default();
    }

    /// The way there breaks, or who carries is killed: what was under way may come twice.
    pub fn breaks(&mut self, line: &'static str) {
        let tick = self.next_tick();
        self.arrivals.entry(line).or_default().breaks.push(tick);
    }

    /// Something came at the broker.
    pub fn arrived(&mut self, line: &'static str, payload: &[u8]) {
        let Some((of, number)) = self.named(line, payload) else { return };
        let tick = self.next_tick();
        if of != line {
            self.wrong(format!("{of} {number} came where {line} goes"));
            return;
        }
        let arrivals = self.arrivals.entry(line).or_default();
        let (_, times) = arrivals.came.entry(number).or_insert((tick, 0));
        *times += 1;
    }

    /// What came too often, or behind what was published later.
    pub(super) fn judge_arrivals(&self, wrong: &mut Vec<String>) {
        for (line, arrivals) in &self.arrivals {
            let mut newest = (0, 0);
            for (number, message) in self.lines.get(line).into_iter().flatten().enumerate() {
                let Some((came, times)) = arrivals.came.get(&number) else {
                    if message.acknowledged.is_some() {
                        let life = message.life;
                        wrong.push(format!("{line} {number} (life {life}) was acknowledged and never came"));
                    }
                    continue;
                };
                let breaks = arrivals.breaks.iter().filter(|broke| **broke > message.tick).count();
                if *times > breaks + 1 {
                    wrong.push(format!(
                        "{line} {number} came {times} times, and its way broke {breaks} times"
                    ));
                }
                if message.acknowledged.is_none() {
                    continue;
                }
                if *came < newest.0 {
                    wrong.push(format!("{line} {number} came behind {}", newest.1));
                }
                newest = newest.max((*came, number));
            }
        }
    }

    /// How much came twice at brokers.
    pub fn twice(&self) -> usize {
        let came = self.arrivals.values().flat_map(|arrivals| arrivals.came.values());
        came.filter(|(_, times)| *times > 1).count()
    }
}

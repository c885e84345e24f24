//! What was seen each second, as a picture and in words.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

/// What was seen in one second.
pub struct Second {
    /// When it was over.
    pub at: Duration,
    /// Messages that waited then.
    pub waiting: u64,
    /// Bytes of memory that the server had then.
    pub resident: u64,
    /// What 99 of 100 messages of other routes took at most.
    pub others: [Duration; 2],
}

/// All seconds, and which of them are the spike.
pub struct Plot {
    pub seconds: Vec<Second>,
    pub spike: Range<usize>,
}

/// The other routes.
const OTHERS: [&str; 2] = ["publish-subscribe, MQTT", "work queue, AMQP"];

const MIB: f64 = (1 << 20) as f64;

/// The size of a panel, and what is left of it and between two.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 120.0;
const LEFT: f64 = 70.0;
const GAP: f64 = 50.0;

struct Panel<'a> {
    title: String,
    lines: Vec<(&'static str, Vec<f64>)>,
    at: &'a [f64],
}

impl Plot {
    /// The most messages that waited.
    pub fn most_waiting(&self) -> u64 {
        self.seconds.iter().map(|second| second.waiting).max().unwrap_or_default()
    }

    /// Bytes that were resident from the spike on, beyond what was before.
    pub fn more_resident(&self) -> u64 {
        let most =
            |seconds: &[Second]| seconds.iter().map(|second| second.resident).max().unwrap_or_default();
        let (before, after) = self.seconds.split_at(self.spike.start);
        most(after).saturating_sub(most(before))
    }

    /// Of the other routes, the median of the p99 of each second: before the spike, and in it.
    pub fn others(&self) -> Vec<(&'static str, [Duration; 2])> {
        let median = |seconds: &[Second], which: usize| {
            let mut all: Vec<_> = seconds.iter().map(|second| second.others[which]).collect();
            all.sort();
            all[all.len() / 2]
        };
        let of = |(which, name): (usize, &&'static str)| {
            let before = median(&self.seconds[1..self.spike.start], which);
            (*name, [before, median(&self.seconds[self.spike.clone()], which)])
        };
        OTHERS.iter().enumerate().map(of).collect()
    }

    /// In words.
    pub fn summary(&self) -> String {
        let mib = self.more_resident() as f64 / MIB;
        let mut text = format!("{} messages waited at most, {mib:.0} MiB more resident", self.most_waiting());
        for (name, [before, during]) in self.others() {
            let (before, during) = (millis(before), millis(during));
            let _ = write!(text, "; p99 of {name}: {before:.2} ms before, {during:.2} ms in the spike");
        }
        text
    }

    /// As a picture.
    pub fn svg(&self) -> String {
        let at: Vec<f64> = self.seconds.iter().map(|second| second.at.as_secs_f64()).collect();
        let line = |of: &dyn Fn(&Second) -> f64| self.seconds.iter().map(of).collect::<Vec<f64>>();
        let panels = [
            Panel {
                title: "messages that wait".to_owned(),
                lines: vec![("", line(&|second| second.waiting as f64))],
                at: &at,
            },
            Panel {
                title: "resident memory, MiB".to_owned(),
                lines: vec![("", line(&|second| second.resident as f64 / MIB))],
                at: &at,
            },
            Panel {
                title: "p99 of other routes each second, ms".to_owned(),
                lines: (0..2).map(|n| (OTHERS[n], line(&|second| millis(second.others[n])))).collect(),
                at: &at,
            },
        ];
        let (width, height) = (LEFT + WIDTH + 20.0, panels.len() as f64 * (HEIGHT + GAP) + 70.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let end = at.last().copied().unwrap_or(1.0);
        for (n, panel) in panels.iter().enumerate() {
            panel.draw(&mut svg, 30.0 + n as f64 * (HEIGHT + GAP), end, &self.spike);
        }
        let under = height - 40.0;
        let summary = self.summary();
        for (n, part) in summary.split("; ").enumerate() {
            let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{part}</text>", under + n as f64 * 15.0);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl Panel<'_> {
    fn draw(&self, svg: &mut String, top: f64, end: f64, spike: &Range<usize>) {
        let most = self
            .lines
            .iter()
            .flat_map(|(_, values)| values)
            .copied()
            .fold(0.0, f64::max)
            .max(f64::MIN_POSITIVE);
        let (bottom, x) = (top + HEIGHT, |at: f64| LEFT + at / end * WIDTH);
        let (from, to) = (x(spike.start as f64), x(spike.end as f64));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.0}\" y=\"{top}\" width=\"{:.0}\" height=\"{HEIGHT}\" fill=\"#eee\"/>\n\
             <text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\n\
             <path d=\"M{LEFT} {top} V{bottom} h{WIDTH}\" fill=\"none\" stroke=\"black\"/>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most:.*}</text>\n\
             <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>",
            to - from,
            top - 8.0,
            self.title,
            LEFT - 6.0,
            top + 10.0,
            usize::from(most < 10.0),
            LEFT - 6.0,
        );
        for second in (0..=end as u32).step_by(5) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"middle\">{second} s</text>",
                x(f64::from(second)),
                bottom + 15.0
            );
        }
        for ((name, values), colour) in self.lines.iter().zip(["#1f77b4", "#d62728"]) {
            let points =
                self.at.iter().zip(values).map(|(at, value)| (x(*at), bottom - value / most * HEIGHT));
            let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
                points.join(" ")
            );
            let (at, y) = (LEFT + WIDTH - 10.0, top + if colour == "#1f77b4" { 14.0 } else { 28.0 });
            let _ = writeln!(
                svg,
                "<text x=\"{at}\" y=\"{y}\" text-anchor=\"end\" fill=\"{colour}\">{name}</text>"
            );
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

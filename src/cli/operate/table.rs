//! Rows below a heading, for people.

use std::fmt::Write;

/// A table of that many columns.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    right: [bool; N],
}

impl<const N: usize> Table<N> {
    /// One with these headings; columns whose heading begins with `#` hold numbers.
    pub fn new(headings: [&str; N]) -> Self {
        let right = headings.map(|heading| heading.starts_with('#'));
        Self { rows: vec![headings.map(|heading| heading.trim_start_matches('#').to_owned())], right }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// The table, its columns below each other.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..N).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(self.right) {
                let gap = if line.is_empty() { "" } else { "  " };
                let _ = match right {
                    true => write!(line, "{gap}{cell:>width$}"),
                    false => write!(line, "{gap}{cell:<width$}"),
                };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_below_each_other() {
        let mut table = Table::new(["QUEUE", "#READY", "STATE"]);
        table.row(["jobs", "1", "paused"].map(String::from));
        table.row(["b", "20000000", ""].map(String::from));
        assert_eq!(table.text(), "QUEUE     READY  STATE\njobs          1  paused\nb      20000000\n");
    }
}

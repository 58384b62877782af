//! Tables for a terminal and for Markdown.

use std::io::{self, Write};

/// A Markdown table whose rows are written when they are known, since a row takes up to minutes.
pub struct Table<'a> {
    out: &'a mut dyn Write,
    widths: Vec<usize>,
}

impl<'a> Table<'a> {
    /// Writes the title and the head. Columns are as wide as their heads, and the first one has `first` characters.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn begin(out: &'a mut dyn Write, title: &str, first: usize, head: &[&str]) -> io::Result<Self> {
        let mut widths: Vec<_> = head.iter().map(|cell| cell.chars().count().max(MIN_WIDTH)).collect();
        if let Some(width) = widths.first_mut() {
            *width = (*width).max(first);
        }
        writeln!(out, "{title}\n")?;
        let mut table = Self { out, widths };
        let head: Vec<_> = head.iter().map(|cell| (*cell).to_owned()).collect();
        table.row(&head)?;
        let rules = table.widths.iter().map(|width| format!("{}|", "-".repeat(width + 2)));
        let rules: String = rules.collect();
        writeln!(table.out, "|{rules}")?;
        Ok(table)
    }

    /// Writes a row.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn row(&mut self, cells: &[String]) -> io::Result<()> {
        let cells = cells.iter().zip(&self.widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        writeln!(self.out, "|{}", cells.collect::<String>())?;
        self.out.flush()
    }

    /// Writes the line after the last row.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn end(self) -> io::Result<()> {
        writeln!(self.out)
    }
}

/// Characters of the narrowest column: those of most times.
const MIN_WIDTH: usize = 6;

/// Writes a number of things with spaces between thousands.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(" ")
}

/// Writes a duration in milliseconds with a fitting unit.
#[must_use]
pub fn time(millis: f64) -> String {
    match millis {
        ..1000.0 => format!("{millis:.0} ms"),
        ..100_000.0 => format!("{:.1} s", millis / 1000.0),
        _ => format!("{} s", count((millis / 1000.0).round() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([count(7), count(1234), count(10_000_000)], ["7", "1 234", "10 000 000"]);
        assert_eq!([time(7.0), time(34_312.0), time(1_002_000.0)], ["7 ms", "34.3 s", "1 002 s"]);
    }

    #[test]
    fn rows_are_written_as_they_come() {
        let mut out = Vec::new();
        let mut table = Table::begin(&mut out, "A table", 8, &["first", "a long head"]).unwrap();
        table.row(&["one".to_owned(), "two".to_owned()]).unwrap();
        table.end().unwrap();
        let lines = [
            "A table",
            "",
            "| first    | a long head |",
            "|----------|-------------|",
            "| one      | two         |",
            "",
            "",
        ];
        assert_eq!(String::from_utf8(out).unwrap(), lines.join("\n"));
    }
}

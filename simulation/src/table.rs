//! Tables for a terminal and for Markdown.

/// Writes rows as a Markdown table whose columns are aligned. The first row is the head.
#[must_use]
pub fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let width = |column: usize| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        text.push_str(&format!("|{}\n", cells.collect::<String>()));
        if index == 0 {
            let rules = widths.iter().map(|width| format!("{}|", "-".repeat(width + 2)));
            text.push_str(&format!("|{}\n", rules.collect::<String>()));
        }
    }
    text
}

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

/// Writes a head or a row.
#[must_use]
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
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
    fn columns_are_aligned() {
        let rows = [row(["a", "long"]), row(["number", "b"])];
        assert_eq!(markdown(&rows), "| a      | long |\n|--------|------|\n| number | b    |\n");
    }
}

//! Tables for a terminal.

/// A table whose rows have names.
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates an empty table.
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let head = std::iter::once("").chain(columns.iter().copied()).map(str::to_owned).collect();
        Self { title: title.to_owned(), rows: vec![head] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, name: &str, cells: &[String]) {
        self.rows.push(std::iter::once(name.to_owned()).chain(cells.iter().cloned()).collect());
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        println!("\n{}", self.title);
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("  {cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
            println!("{}", cells.collect::<String>());
        }
    }
}

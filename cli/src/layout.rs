//! Fits lines and tables into a terminal's width. A word, such as an id or a URL, is never broken.

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm, core::display_width};

/// Spaces between two columns of a table, and before the rest of a line that continues on the next one.
const GAP: usize = 2;

/// Minimum width of text. A narrower terminal breaks lines itself.
const MIN_WIDTH: usize = 20;

/// Fits the lines of a text into `width` columns. Without a width, the text is unchanged.
#[must_use]
pub fn fit(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    text.split('\n').map(|line| fit_line(line, width)).collect::<Vec<_>>().join("\n")
}

/// Removes padding from a line that is too wide, and if that is not enough, continues it on the next line.
fn fit_line(line: &str, width: usize) -> String {
    let excess = display_width(line).saturating_sub(width);
    if excess == 0 {
        return line.to_owned();
    }
    let text = line.trim_start();
    // Deep indents are for wide terminals.
    let indent = (line.len() - text.len()).min(width / 2);
    match without_padding(text, excess) {
        Some(short) => format!("{}{short}", " ".repeat(indent)),
        None => wrap(text, width, indent, indent + GAP).join("\n"),
    }
}

/// Removes `excess` spaces from the runs of spaces between words, from the last run on. Returns `None` if too few
/// could be removed.
fn without_padding(text: &str, mut excess: usize) -> Option<String> {
    let mut words: Vec<_> = text.trim_end().split(' ').collect();
    excess = excess.saturating_sub(text.len() - text.trim_end().len());
    // A run of spaces leaves empty words between two others.
    for index in (0..words.len()).rev() {
        if excess > 0 && words[index].is_empty() {
            words.remove(index);
            excess -= 1;
        }
    }
    (excess == 0).then(|| words.join(" "))
}

/// Breaks a text into lines between words.
fn wrap(text: &str, width: usize, indent: usize, next_indent: usize) -> Vec<String> {
    let (first, next) = (" ".repeat(indent), " ".repeat(next_indent));
    let options = Options::new(width.max(next_indent + MIN_WIDTH))
        .initial_indent(&first)
        .subsequent_indent(&next)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::wrap(text, options).into_iter().map(String::from).collect()
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    name: &'static str,
    /// Width if the terminal has enough columns and the cells are not wider.
    width: usize,
    right: bool,
}

impl Column {
    /// A column of texts.
    #[must_use]
    pub const fn left(name: &'static str, width: usize) -> Self {
        Self { name, width, right: false }
    }

    /// A column of numbers.
    #[must_use]
    pub const fn right(name: &'static str, width: usize) -> Self {
        Self { name, width, right: true }
    }
}

/// A table with a header. If it is wider than the terminal, the last cells of a row are below it, on lines of their own.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table without rows.
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Columns without a cell are empty.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let mut row = Vec::from(cells);
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// Returns the lines of the header and the rows, each after `indent` spaces.
    #[must_use]
    pub fn lines(&self, indent: usize, width: Option<usize>) -> Vec<String> {
        let content: Vec<_> = (0..self.columns.len()).map(|index| self.content_width(index)).collect();
        let padded: Vec<_> =
            content.iter().zip(&self.columns).map(|(content, column)| column.width.max(*content)).collect();
        let fits = |widths: &[usize]| {
            // The last column is not padded.
            let (last, others) =
                content.last().zip(widths.split_last()).map_or((0, &[][..]), |(last, all)| (*last, all.1));
            let total = indent + others.iter().map(|width| width + GAP).sum::<usize>() + last;
            width.is_none_or(|width| total <= width)
        };
        let widths = if fits(&padded) { padded } else { content.clone() };
        let first_line = if fits(&widths) { widths.len() } else { leading(&widths, indent, width) };
        let header = self.columns.iter().map(|column| column.name.to_owned()).collect::<Vec<_>>();
        let mut lines = vec![self.line(&header[..first_line], &widths, indent)];
        for row in &self.rows {
            lines.push(self.line(&row[..first_line], &widths, indent));
            let rest = self.columns.iter().zip(row).skip(first_line).filter(|(_, cell)| !cell.is_empty());
            for (column, cell) in rest {
                let text = format!("{}  {cell}", column.name);
                let hanging = indent + 2 * GAP;
                lines.extend(wrap(&text, width.unwrap_or(usize::MAX), hanging, hanging + GAP));
            }
        }
        lines
    }

    fn content_width(&self, index: usize) -> usize {
        let cells = self.rows.iter().map(|row| display_width(&row[index]));
        cells.fold(display_width(self.columns[index].name), usize::max)
    }

    fn line(&self, cells: &[String], widths: &[usize], indent: usize) -> String {
        let mut line = " ".repeat(indent);
        for (index, cell) in cells.iter().enumerate() {
            let padding = " ".repeat(widths[index].saturating_sub(display_width(cell)));
            match self.columns[index].right {
                true => line.extend([&padding, cell.as_str()]),
                false => line.extend([cell.as_str(), &padding]),
            }
            line.push_str(&" ".repeat(GAP));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Returns how many columns fit into a line, at least one.
fn leading(widths: &[usize], indent: usize, width: Option<usize>) -> usize {
    let mut end = indent;
    let fitting = widths.iter().take_while(|column| {
        end += **column;
        let fits = width.is_none_or(|width| end <= width);
        end += GAP;
        fits
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace().collect()
    }

    /// Returns whether no line is wider than the terminal, unless it is one word that is too long.
    fn is_fitted(text: &str, width: usize) -> bool {
        text.lines().all(|line| display_width(line) <= width || words(line).len() <= 1)
    }

    #[test]
    fn padding_goes_before_words_move() {
        let line = "  2 echo       response \"hello\"                         54 ms";
        assert_eq!(fit(line, Some(line.len() - 1)), line.replacen("  54", " 54", 1));
        assert_eq!(
            fit(" queue   https://sqs.example.com/queue", Some(24)),
            " queue\n   https://sqs.example.com/queue"
        );
        assert_eq!(fit("streamer: no stack is up here", Some(22)), "streamer: no stack is\n  up here");
        assert_eq!(fit(line, None), line);
    }

    #[test]
    fn wide_tables_continue_below_each_row() {
        let mut table =
            Table::new(&[Column::right("COUNT", 7), Column::left("REASON", 20), Column::left("CAUSE", 0)]);
        table.row(["2".to_owned(), "rejected".to_owned(), "the payload is too large".to_owned()]);
        table.row(["1".to_owned(), "poison".to_owned()]);
        let wide = [
            "  COUNT  REASON                CAUSE",
            "      2  rejected              the payload is too large",
            "      1  poison",
        ];
        assert_eq!(table.lines(0, None), wide);
        let unpadded =
            ["COUNT  REASON    CAUSE", "    2  rejected  the payload is too large", "    1  poison"];
        assert_eq!(table.lines(0, Some(50)), unpadded);
        let narrow = [
            "COUNT  REASON",
            "    2  rejected",
            "    CAUSE  the payload is",
            "      too large",
            "    1  poison",
        ];
        assert_eq!(table.lines(0, Some(26)), narrow);
    }

    proptest! {
        #[test]
        fn no_word_is_broken_or_lost(text in "[a-zé /]{0,200}", width in 44..200_usize) {
            let fitted = fit(&text, Some(width));
            prop_assert_eq!(words(&fitted), words(&text));
            prop_assert!(is_fitted(&fitted, width), "{fitted}");
            prop_assert_eq!(fit(&text, None), text);
        }

        #[test]
        fn tables_keep_every_cell(cells in proptest::collection::vec("[a-z]{0,30}( [a-z]{1,30}){0,5}", 3..=9), width in 40..200_usize) {
            let mut table = Table::new(&["A", "B", "C"].map(|name| Column::left(name, 10)));
            for row in cells.chunks_exact(3) {
                table.row([row[0].clone(), row[1].clone(), row[2].clone()]);
            }
            let lines = table.lines(1, Some(width)).join("\n");
            let all = cells.chunks_exact(3).flatten();
            for word in all.flat_map(|cell| words(cell)) {
                prop_assert!(words(&lines).contains(&word), "{word}: {lines}");
            }
        }
    }
}

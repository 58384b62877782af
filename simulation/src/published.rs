//! The figures of `docs/explanation/performance.md`, so that the plot shows what the page says.

/// The heading of the table that is drawn.
const TABLE: &str = "posts of 300 bytes over TLS, 64 in flight, no delay";

/// Reads each client's posts a second from the page. Empty if the page has no such table.
#[must_use]
pub fn posts_per_second(page: &str) -> Vec<(String, f64)> {
    let rows = page.lines().skip_while(|line| *line != TABLE).skip(2);
    rows.map_while(|line| {
        let (name, numbers) = line.strip_prefix("  ")?.rsplit_once("  ").and_then(|_| {
            let at = line.trim_start().find("   ")?;
            Some(line.trim_start().split_at(at))
        })?;
        Some((name.to_owned(), numbers.split_whitespace().next()?.parse().ok()?))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_table_is_read() {
        let page = include_str!("../../docs/explanation/performance.md");
        let rows = posts_per_second(page);
        assert!(rows.len() >= 5 && rows.iter().any(|row| row.0.starts_with("Streamer")), "{rows:?}");
    }
}

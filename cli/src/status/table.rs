//! Formats a deployment's state as tables for people.

use std::time::Duration;

use super::snapshot::{Circuit, DeploymentStatus, Queue};
use crate::screen::{age, sanitize};

impl DeploymentStatus {
    /// Returns the tables' lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(" {}, {}", self.name, self.region), String::new()];
        lines.extend(self.queue_lines());
        lines.push(String::new());
        lines.extend(self.function_lines());
        lines.push(String::new());
        let more = if self.all_connections { "" } else { "more than " };
        let connections =
            self.connections.map_or_else(|| "no table".to_owned(), |live| format!("{more}{live} live"));
        lines.push(format!(" connections            {connections}"));
        lines.push(format!(" circuit                {}", circuit(self.circuit)));
        lines
    }

    fn queue_lines(&self) -> Vec<String> {
        let line = |name: &str, [waiting, in_flight, delayed, oldest]: [&str; 4]| {
            format!(" {name:<22} {waiting:>9} {in_flight:>9} {delayed:>9}  {oldest}")
        };
        let mut lines = vec![line("QUEUE", ["WAITING", "IN FLIGHT", "DELAYED", "OLDEST"])];
        for (name, queue) in [("outbound", &self.outbound), ("dead letters", &self.dead_letters)] {
            let Queue { waiting, in_flight, delayed, oldest_seconds } = queue;
            let oldest = oldest_seconds.map(Duration::from_secs).map_or_else(|| "unknown".to_owned(), age);
            let oldest = if waiting + in_flight + delayed == 0 { "-" } else { &oldest };
            let counts = [waiting, in_flight, delayed].map(ToString::to_string);
            lines.push(line(name, [&counts[0], &counts[1], &counts[2], oldest]));
        }
        for (reason, count) in &self.reasons {
            lines.push(format!("   {:<20} {count:>9}", sanitize(reason)));
        }
        let inspected: usize = self.reasons.values().sum();
        if inspected < self.dead_letters.waiting {
            lines.push(format!("   of the first {inspected}"));
        }
        lines
    }

    fn function_lines(&self) -> Vec<String> {
        let line = |name: &str, [invocations, errors, throttles, updated, hash]: [&str; 5]| {
            format!(" {name:<22} {invocations:>9} {errors:>9} {throttles:>9}  {updated:<19}  {hash}")
        };
        let header = ["INVOKED", "ERRORS", "THROTTLES", "UPDATED", "CODE SHA-256"];
        let mut lines = vec![line("FUNCTION, LAST 5 MIN", header)];
        for (name, function) in &self.functions {
            let count =
                |count: Option<usize>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let counts = [function.invocations, function.errors, function.throttles].map(count);
            let hash: String = function.code_sha256.chars().take(8).collect();
            let cells = [&counts[0], &counts[1], &counts[2], &function.updated, &hash];
            lines.push(line(name, cells.map(String::as_str)));
        }
        lines
    }
}

fn circuit(Circuit { open, opened }: Circuit) -> String {
    let state = match open {
        None => return "not used".to_owned(),
        Some(true) => "open: posts to the management endpoint fail",
        Some(false) => "closed",
    };
    let times = if opened == 1 { "once".to_owned() } else { format!("{opened} times") };
    if opened == 0 { state.to_owned() } else { format!("{state}, opened {times}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuit_shows_state_and_openings() {
        let text = |open, opened| circuit(Circuit { open, opened });
        assert_eq!(text(None, 0), "not used");
        assert_eq!(text(Some(false), 0), "closed");
        assert_eq!(text(Some(false), 1), "closed, opened once");
        assert_eq!(text(Some(true), 2), "open: posts to the management endpoint fail, opened 2 times");
    }
}

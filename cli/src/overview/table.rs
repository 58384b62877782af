//! An overview, as people read it.

use std::time::Duration;

use super::{Circuit, Overview, Queue};
use crate::screen::{age, shown};

impl Overview {
    /// Lines for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let queue = |name: &str, [waiting, in_flight, delayed, oldest]: [&str; 4]| {
            format!(" {name:<22} {waiting:>9} {in_flight:>9} {delayed:>9}  {oldest}")
        };
        let function = |name: &str, [invocations, errors, throttles, updated, package]: [&str; 5]| {
            format!(" {name:<22} {invocations:>9} {errors:>9} {throttles:>9}  {updated:<19}  {package}")
        };
        let mut lines = vec![
            format!(" {}, {}", self.name, self.region),
            String::new(),
            queue("QUEUE", ["WAITING", "IN FLIGHT", "DELAYED", "OLDEST"]),
        ];
        for (name, state) in [("outbound", &self.outbound), ("dead letters", &self.dead_letters)] {
            let Queue { waiting, in_flight, delayed, oldest_seconds } = state;
            let oldest = oldest_seconds.map(Duration::from_secs).map_or_else(|| "unknown".to_owned(), age);
            let oldest = if waiting + in_flight + delayed == 0 { "-" } else { &oldest };
            let numbers = [waiting, in_flight, delayed].map(ToString::to_string);
            lines.push(queue(name, [&numbers[0], &numbers[1], &numbers[2], oldest]));
        }
        let looked_at: usize = self.reasons.values().sum();
        for (reason, letters) in &self.reasons {
            lines.push(format!("   {:<20} {letters:>9}", shown(reason)));
        }
        if looked_at < self.dead_letters.waiting {
            lines.push(format!("   of the first {looked_at}"));
        }
        lines.push(String::new());
        lines.push(function(
            "FUNCTION, LAST 5 MIN",
            ["INVOKED", "ERRORS", "THROTTLES", "UPDATED", "CODE SHA-256"],
        ));
        for (name, state) in &self.functions {
            let number =
                |number: Option<usize>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let numbers = [state.invocations, state.errors, state.throttles].map(number);
            let hash: String = state.code_sha256.chars().take(8).collect();
            let cells = [&numbers[0], &numbers[1], &numbers[2], &state.updated, &hash];
            lines.push(function(name, cells.map(String::as_str)));
        }
        lines.push(String::new());
        let more = if self.all_connections { "" } else { "more than " };
        lines.push(format!(" connections            {more}{} live", self.connections));
        lines.push(format!(" circuit                {}", circuit(self.circuit)));
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
    fn a_circuit_says_how_it_is_and_how_often_it_has_opened() {
        let says = |open, opened| circuit(Circuit { open, opened });
        assert_eq!(says(None, 0), "not used");
        assert_eq!(says(Some(false), 0), "closed");
        assert_eq!(says(Some(false), 1), "closed, opened once");
        assert_eq!(says(Some(true), 2), "open: posts to the management endpoint fail, opened 2 times");
    }
}

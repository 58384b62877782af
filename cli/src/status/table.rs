//! Formats a deployment's state as tables for people.

use std::time::Duration;

use super::snapshot::{Circuit, DeploymentStatus, Queue};
use crate::{
    layout::{Column, Table, fit},
    screen::{age, sanitize},
};

/// Width of the names of queues and functions.
const NAME_WIDTH: usize = 21;

impl DeploymentStatus {
    /// Returns the tables' lines, which fit into `width` columns.
    #[must_use]
    pub fn lines(&self, width: Option<usize>) -> Vec<String> {
        let mut lines = vec![format!(" {}, {}", self.name, self.region), String::new()];
        lines.extend(self.queue_lines(width));
        lines.push(String::new());
        lines.extend(self.function_lines(width));
        lines.push(String::new());
        let more = if self.all_connections { "" } else { "more than " };
        let connections =
            self.connections.map_or_else(|| "no table".to_owned(), |live| format!("{more}{live} live"));
        lines.push(format!(" connections            {connections}"));
        lines.push(format!(" circuit                {}", circuit(self.circuit)));
        lines.into_iter().map(|line| fit(&line, width)).collect()
    }

    fn queue_lines(&self, width: Option<usize>) -> Vec<String> {
        let mut table = Table::new(&[
            Column::left("QUEUE", NAME_WIDTH),
            Column::right("WAITING", 8),
            Column::right("IN FLIGHT", 8),
            Column::right("DELAYED", 8),
            Column::left("OLDEST", 0),
        ]);
        let queues = [
            ("outbound", Some(&self.outbound)),
            ("parts", self.parts.as_ref()),
            ("receipts", self.receipts.as_ref()),
            ("dead letters", Some(&self.dead_letters)),
        ];
        for (name, queue) in queues {
            let Some(queue) = queue else { continue };
            let Queue { waiting, in_flight, delayed, oldest_seconds } = queue;
            let oldest = oldest_seconds.map(Duration::from_secs).map_or_else(|| "unknown".to_owned(), age);
            let oldest = if waiting + in_flight + delayed == 0 { "-".to_owned() } else { oldest };
            let [waiting, in_flight, delayed] = [waiting, in_flight, delayed].map(ToString::to_string);
            table.row([name.to_owned(), waiting, in_flight, delayed, oldest]);
        }
        for (reason, count) in &self.reasons {
            table.row([format!("  {}", sanitize(reason)), count.to_string()]);
        }
        let mut lines = table.lines(1, width);
        let inspected: usize = self.reasons.values().sum();
        if inspected < self.dead_letters.waiting {
            lines.push(format!("   of the first {inspected}"));
        }
        lines
    }

    fn function_lines(&self, width: Option<usize>) -> Vec<String> {
        let mut table = Table::new(&[
            Column::left("FUNCTION, LAST 5 MIN", NAME_WIDTH),
            Column::right("INVOKED", 8),
            Column::right("ERRORS", 8),
            Column::right("THROTTLES", 8),
            Column::left("UPDATED", 19),
            Column::left("CODE SHA-256", 0),
        ]);
        for (name, function) in &self.functions {
            let count =
                |count: Option<usize>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let [invocations, errors, throttles] =
                [function.invocations, function.errors, function.throttles].map(count);
            let hash = function.code_sha256.chars().take(8).collect();
            table.row([name.clone(), invocations, errors, throttles, function.updated.clone(), hash]);
        }
        table.lines(1, width)
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
    use std::{collections::BTreeMap, time::SystemTime};

    use super::{super::snapshot::Function, *};

    fn status() -> DeploymentStatus {
        let queue = Queue { waiting: 120_000, in_flight: 1, delayed: 2, oldest_seconds: Some(180_000) };
        let function = Function {
            invocations: Some(1_000_000),
            errors: None,
            throttles: Some(3),
            updated: "2026-11-25 04:11:52".to_owned(),
            code_sha256: "PdCxqZGkT7rSvxfr".to_owned(),
        };
        DeploymentStatus {
            at: SystemTime::UNIX_EPOCH,
            name: "the stack on this machine".to_owned(),
            region: "us-east-1".to_owned(),
            outbound: queue.clone(),
            dead_letters: queue.clone(),
            parts: None,
            receipts: Some(queue),
            reasons: BTreeMap::from([("crashed_or_throttled".to_owned(), 1000)]),
            connections: Some(5),
            all_connections: false,
            counted_at: SystemTime::UNIX_EPOCH,
            functions: BTreeMap::from([("delivery".to_owned(), function)]),
            circuit: Circuit { open: Some(true), opened: 2 },
        }
    }

    #[test]
    fn every_line_fits_a_narrow_terminal() {
        let narrow = status().lines(Some(60)).join("\n");
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        for cell in ["2days 2h", "1000000", "2026-11-25 04:11:52", "PdCxqZGk", "of the first 1000"] {
            assert!(narrow.contains(cell), "{cell}: {narrow}");
        }
    }

    #[test]
    fn receipts_have_a_row_with_a_queue() {
        let first_words = |status: &DeploymentStatus| -> Vec<String> {
            let lines = status.queue_lines(None);
            lines.iter().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
        };
        let (with, without) = (status(), DeploymentStatus { receipts: None, ..status() });
        assert_eq!(first_words(&with)[..4], ["QUEUE", "outbound", "receipts", "dead"]);
        assert_eq!(first_words(&without)[..3], ["QUEUE", "outbound", "dead"]);
    }

    #[test]
    fn parts_have_a_row_with_a_queue() {
        let with = DeploymentStatus { parts: Some(Queue::default()), ..status() };
        let rows = |status: &DeploymentStatus| status.queue_lines(None).join("\n").matches("parts").count();
        assert_eq!((rows(&with), rows(&status())), (1, 0));
    }

    #[test]
    fn circuit_shows_state_and_openings() {
        let text = |open, opened| circuit(Circuit { open, opened });
        assert_eq!(text(None, 0), "not used");
        assert_eq!(text(Some(false), 0), "closed");
        assert_eq!(text(Some(false), 1), "closed, opened once");
        assert_eq!(text(Some(true), 2), "open: posts to the management endpoint fail, opened 2 times");
    }
}

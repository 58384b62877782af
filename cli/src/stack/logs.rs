//! Reads the functions' logs from CloudWatch Logs.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::{Duration, SystemTime},
};

use aws_sdk_cloudwatchlogs::Client;

use super::Stack;
use crate::{log_events, paths};

/// How late an event may appear after a newer one of another stream: longer than any invocation runs.
const MAX_LAG: Duration = Duration::from_secs(60);

/// Reads each line of the functions' logs once.
#[derive(Debug)]
pub struct Logs {
    client: Client,
    functions: BTreeMap<String, String>,
    positions: HashMap<(String, String), Position>,
}

/// Position in a log stream up to which it was read. A stream's events are in order of time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    /// Time of the last event, in milliseconds since the epoch.
    time: i64,
    /// Number of events read that have that time.
    events: usize,
}

/// A line of a function's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The function's short name.
    pub function: String,
    /// The time that CloudWatch Logs has for it.
    pub at: SystemTime,
    /// The text.
    pub text: String,
}

impl Logs {
    /// Creates a reader for all functions of a stack, or for one of them.
    ///
    /// # Errors
    /// When the stack has no such function.
    pub fn of(stack: &Stack, function: Option<&str>) -> anyhow::Result<Self> {
        let mut functions = stack.deployed.functions.clone();
        if let Some(function) = function {
            functions.retain(|name, _| name == function);
            let all = stack.deployed.functions.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            anyhow::ensure!(!functions.is_empty(), "there is no function `{function}`: choose one of {all}");
        }
        Ok(Self { client: Client::new(&stack.config), functions, positions: HashMap::new() })
    }

    /// Returns the lines written since the last call.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for (name, function) in self.functions.clone() {
            let streams = self.positions.iter().filter(|((of, _), _)| *of == name);
            let latest = streams.map(|(_, position)| position.time).max();
            let since = latest.map_or(0, |latest| latest.saturating_sub_unsigned(MAX_LAG.as_millis() as u64));
            self.positions.retain(|(of, _), position| *of != name || position.time >= since);
            let mut scanned: HashMap<String, Position> = HashMap::new();
            for event in log_events::read(&self.client, &function, since, None).await? {
                let stream = event.log_stream_name.unwrap_or_default();
                let time = event.timestamp.unwrap_or_default();
                let here = scanned.entry(stream.clone()).or_default();
                let events = if here.time == time { here.events + 1 } else { 1 };
                *here = Position { time, events };
                let read = self.positions.entry((name.clone(), stream)).or_default();
                if *here > *read {
                    *read = *here;
                    let text = event.message.unwrap_or_default().trim_end().to_owned();
                    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(time.try_into().unwrap_or(0));
                    lines.push(Line { function: name.clone(), at, text });
                }
            }
        }
        Ok(lines)
    }
}

/// Writes the log of each function to the folder `logs`.
///
/// # Errors
/// When a log cannot be read or written.
pub async fn save(stack: &Stack) -> anyhow::Result<()> {
    let mut texts: BTreeMap<_, String> =
        stack.deployed.functions.keys().map(|name| (name.clone(), String::new())).collect();
    for Line { function, text, .. } in Logs::of(stack, None)?.next().await? {
        let log = texts.entry(function).or_default();
        log.push_str(&text);
        log.push('\n');
    }
    fs::create_dir_all(paths::state("logs"))?;
    for (function, text) in texts {
        fs::write(paths::state(format!("logs/{function}.log")), text)?;
    }
    Ok(())
}

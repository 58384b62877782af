//! The functions' logs, as CloudWatch Logs has them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::Duration,
};

use anyhow::Context as _;
use aws_sdk_cloudwatchlogs::{Client, types::FilteredLogEvent};

use super::{Stack, places};

/// How far back a function's invocations may still write: longer than any of them runs.
const LATE: Duration = Duration::from_secs(60);

/// Reads the functions' logs, each line once.
#[derive(Debug)]
pub struct Logs {
    client: Client,
    functions: BTreeMap<String, String>,
    read: HashMap<(String, String), Read>,
}

/// How much of a log stream has been read. A stream holds one invocation, in order of time.
#[derive(Debug, Default)]
struct Read {
    /// The time of the last event, in milliseconds since the epoch.
    last: i64,
    /// Events of that time.
    events: usize,
}

/// A line of a function's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The function's short name.
    pub function: String,
    /// What it says.
    pub text: String,
}

impl Logs {
    /// The logs of a stack's functions, or of one of them.
    ///
    /// # Errors
    /// When the stack has no such function.
    pub fn of(stack: &Stack, function: Option<&str>) -> anyhow::Result<Self> {
        let mut functions = stack.deployed.functions.clone();
        if let Some(wanted) = function {
            functions.retain(|name, _| name == wanted);
            let all = stack.deployed.functions.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            anyhow::ensure!(!functions.is_empty(), "there is no function `{wanted}`: choose one of {all}");
        }
        Ok(Self { client: Client::new(&stack.config), functions, read: HashMap::new() })
    }

    /// The lines that were written since the last call.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for (name, function) in self.functions.clone() {
            let latest = self.read.iter().filter(|((of, _), _)| *of == name).map(|(_, read)| read.last).max();
            let since = latest.map_or(0, |latest| latest.saturating_sub_unsigned(LATE.as_millis() as u64));
            self.read.retain(|(of, _), read| *of != name || read.last >= since);
            let events = events(&self.client, &function, since).await;
            let events = events.with_context(|| format!("the log of {function} cannot be read"))?;
            let mut place: HashMap<String, (i64, usize)> = HashMap::new();
            for event in events {
                let stream = event.log_stream_name.unwrap_or_default();
                let at = event.timestamp.unwrap_or_default();
                let (last, number) = place.entry(stream.clone()).or_default();
                *number = if *last == at { *number + 1 } else { 1 };
                *last = at;
                let read = self.read.entry((name.clone(), stream)).or_default();
                if (at, *number) > (read.last, read.events) {
                    *read = Read { last: at, events: *number };
                    let text = event.message.unwrap_or_default().trim_end().to_owned();
                    lines.push(Line { function: name.clone(), text });
                }
            }
        }
        Ok(lines)
    }
}

/// A function's events from `since` on. A function that has not run has none.
async fn events(client: &Client, function: &str, since: i64) -> anyhow::Result<Vec<FilteredLogEvent>> {
    let filter =
        client.filter_log_events().log_group_name(format!("/aws/lambda/{function}")).start_time(since);
    let mut pages = filter.into_paginator().send();
    let mut events = Vec::new();
    while let Some(page) = pages.next().await {
        match page {
            Ok(page) => events.extend(page.events.unwrap_or_default()),
            Err(error)
                if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(events)
}

/// Writes the log of each function to the folder `logs`.
///
/// # Errors
/// When a log cannot be read or written.
pub async fn save(stack: &Stack) -> anyhow::Result<()> {
    let mut texts: BTreeMap<_, String> =
        stack.deployed.functions.keys().map(|name| (name.clone(), String::new())).collect();
    for Line { function, text } in Logs::of(stack, None)?.next().await? {
        let log = texts.entry(function).or_default();
        log.push_str(&text);
        log.push('\n');
    }
    for (function, text) in texts {
        fs::write(places::state(format!("logs/{function}.log")), text)?;
    }
    Ok(())
}

//! Finds out why a message did not arrive: from the worker's log, the queue and the event source mapping.

use std::time::{Duration, SystemTime};

use aws_sdk_lambda::Client as Lambda;
use serde_json::Value;
use streamer_environment::failure::FailureKind;

use super::run::Run;
use crate::{log_events, queue::MessageCounts};

/// How far back a log event may be dated, since the clocks of this machine and AWS differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Lines of a function that ends without a report.
const CRASHES: &str = r#"?"Task timed out" ?"is faulty" ?"are faulty" ?"Runtime exited" ?"panicked""#;

/// Why something does not work, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    /// What was seen.
    pub(super) seen: String,
    /// What to do.
    pub(super) remedy: String,
    /// Whether your own credentials do not permit the call.
    pub(super) is_denied: bool,
}

impl Cause {
    pub(super) fn new(seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { seen: seen.into(), remedy: remedy.into(), is_denied: false }
    }
}

impl Run<'_> {
    /// Returns the cause that the worker logged for a message, if it did.
    pub(super) async fn logged_cause(&self, message: &str) -> Option<Cause> {
        let lines = self.log(self.worker(), &format!("\"{message}\"")).await.ok()?;
        let cause = lines.iter().filter(|line| line.contains(message)).find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let (outcome, cause) = (line.get("outcome")?.as_str()?, line.get("cause"));
            match (outcome, cause.and_then(Value::as_str)) {
                ("handed_back" | "exhausted" | "rejected" | "poison", Some(cause)) if !is_passing(cause) => {
                    Some(cause.to_owned())
                }
                ("gone" | "expired" | "no_recipient" | "superseded", _) => {
                    // The worker is done with it.
                    self.arrived(message);
                    Some(outcome.to_owned())
                }
                _ => None,
            }
        })?;
        let remedy = remedy(&cause, self.worker());
        Some(Cause::new(format!("{} logs: {cause}", self.worker()), remedy))
    }

    /// Returns a setting of the worker or its mapping that keeps every message from being delivered, if there is one.
    pub(super) async fn standstill(&self) -> Option<Cause> {
        let worker = self.worker();
        if let Ok(lines) = self.log(worker, CRASHES).await {
            let crashes = ["Task timed out", "faulty", "Runtime exited", "panicked"];
            if let Some(line) = lines.iter().rfind(|line| crashes.iter().any(|crash| line.contains(crash))) {
                let line: String = line.trim().chars().take(200).collect();
                return Some(Cause::new(
                    format!("{worker} logs: {line}"),
                    format!("correct the environment, the timeout or the memory of {worker}"),
                ));
            }
        }
        let lambda = Lambda::new(&self.subject.config);
        let concurrency = lambda.get_function_concurrency().function_name(worker).send().await;
        if concurrency.is_ok_and(|answer| answer.reserved_concurrent_executions == Some(0)) {
            let remedy = format!("raise the reserved concurrency of {worker}, or remove it");
            return Some(Cause::new(format!("{worker} is throttled: its reserved concurrency is 0"), remedy));
        }
        let mappings = lambda.list_event_source_mappings().function_name(worker).send().await;
        let mappings = mappings.ok()?.event_source_mappings.unwrap_or_default();
        if mappings.is_empty() {
            return Some(Cause::new(
                format!("no event source mapping invokes {worker}"),
                "create the event source mapping from the outbound queue (infra/mapping.tf)",
            ));
        }
        let mapping = mappings.iter().find(|mapping| mapping.state() != Some("Enabled"))?;
        let (state, id) = (mapping.state().unwrap_or("unknown"), mapping.uuid().unwrap_or("ID"));
        Some(Cause::new(
            format!("the event source mapping of {worker} is {state}"),
            format!("enable it: aws lambda update-event-source-mapping --uuid {id} --enabled"),
        ))
    }

    /// Returns the cause that the number of messages on the queue suggests.
    pub(super) async fn backlog(&self) -> Cause {
        let worker = self.worker();
        let counts = match self.subject.variable("QUEUE_URL") {
            Some(url) => MessageCounts::read(&self.sqs, url).await.ok(),
            None => None,
        };
        match counts {
            Some(counts) if counts.waiting > 0 => Cause::new(
                format!("{} messages wait on the outbound queue", counts.waiting),
                format!("check throttles of {worker} and its event source mapping with `streamer status`"),
            ),
            _ => Cause::new(
                format!("{worker} took the message and logged nothing about it"),
                format!("look at the log of {worker}, and at dead letters with `streamer redrive`"),
            ),
        }
    }

    /// Returns lines of a function's log since the beginning of the run that match a pattern.
    ///
    /// # Errors
    /// When CloudWatch Logs does not answer.
    pub(super) async fn log(&self, function: &str, pattern: &str) -> anyhow::Result<Vec<String>> {
        let client = aws_sdk_cloudwatchlogs::Client::new(&self.subject.config);
        let since = self.began - CLOCK_SKEW;
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let events = log_events::read(&client, function, since, Some(pattern)).await?;
        Ok(events.into_iter().filter_map(|event| event.message).collect())
    }
}

/// Returns whether a message that was handed back for this cause soon arrives.
fn is_passing(cause: &str) -> bool {
    matches!(cause, "410 within the connect grace" | "user away" | "deadline" | "429")
}

/// Returns the remedy for a cause that the worker logs.
fn remedy(cause: &str, worker: &str) -> String {
    let role = |action: &str, resource: &str| format!("allow {action} on {resource} to the role of {worker}");
    let denied = ["AccessDenied", "not authorized"].iter().any(|word| cause.contains(word));
    let operation = cause.split(' ').next().unwrap_or_default();
    match cause {
        "403" => format!(
            "{}; if it has that, correct WEBSOCKET_ENDPOINT",
            role("execute-api:ManageConnections", "POST/@connections/* of the API's stage")
        ),
        "404" | "405" => format!("correct WEBSOCKET_ENDPOINT of {worker}: no WebSocket API answers there"),
        "gone" => format!("correct WEBSOCKET_ENDPOINT of {worker}: its API does not know the connection"),
        "circuit open" | "timeout" => format!("check WEBSOCKET_ENDPOINT of {worker}, and its network"),
        "expired" => {
            format!("raise the concurrency of {worker}, or correct its clock: the message came too late")
        }
        "no_recipient" => {
            format!(
                "check that WEBSOCKET_ENDPOINT of {worker} is that of the rows, and that the indexes of CONNECTIONS_TABLE have them"
            )
        }
        _ if cause.starts_with("connection:") => {
            format!("correct WEBSOCKET_ENDPOINT of {worker}, or open its network to that host")
        }
        _ if cause.starts_with("connected at ") => {
            format!(
                "correct WEBSOCKET_ENDPOINT of {worker}, or add that endpoint to WEBSOCKET_ENDPOINT_ALIASES"
            )
        }
        _ if denied && cause.contains(" on table ") => {
            role(&format!("dynamodb:{operation}"), "the table, and dynamodb:Query on its indexes")
        }
        _ if denied => role("the action that the log names", "its resource"),
        "a part of the audience is not on the queue" => role("sqs:SendMessage", "the outbound queue"),
        _ if FailureKind::of_code(cause.split(':').next().unwrap_or_default()) == FailureKind::Throttled => {
            "raise the table's capacity".to_owned()
        }
        _ => format!("look at the log of {worker}; docs/troubleshooting.md has the causes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_logged_cause_has_its_remedy() {
        for (cause, expected) in [
            ("403", "execute-api:ManageConnections"),
            ("gone", "WEBSOCKET_ENDPOINT"),
            ("connection: tcp connect error", "WEBSOCKET_ENDPOINT"),
            ("connected at https://a.example only: …", "WEBSOCKET_ENDPOINT_ALIASES"),
            (
                "Query on table streamer_connections failed: AccessDeniedException: not authorized",
                "dynamodb:Query",
            ),
            ("a part of the audience is not on the queue", "sqs:SendMessage"),
            ("no_recipient", "indexes"),
            ("something else", "docs/troubleshooting.md"),
        ] {
            assert!(remedy(cause, "streamer-delivery").contains(expected), "{cause}");
        }
    }
}

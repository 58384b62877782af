//! Finds the cause of a missing message: in the worker's log, the queue and the event source mapping.

use std::time::{Duration, SystemTime};

use aws_sdk_lambda::Client as Lambda;
use serde_json::Value;
use streamer_environment::failure::FailureKind;
use tokio::time::timeout;

use super::{
    run::{CLOCK_SKEW, Run, is_of_key},
    take::{OUTBOUND, PARTS},
};
use crate::{log_events, queue::MessageCounts};

/// Maximum time to read a log.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of pages of a log that are read.
const LOG_PAGES: usize = 3;

/// Messages of a function's log about entries that a queue did not take.
const QUEUE_FAILURES: [&str; 4] = [
    "call to the queue failed",
    "queue did not answer in time",
    "queue refused an entry",
    "failed to send messages",
];

/// Lines of a function that ends without a report.
const CRASHES: &str = r#"?"Task timed out" ?"is faulty" ?"are faulty" ?"Runtime exited" ?"panicked""#;

/// A fault and its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    /// The fault as it was seen.
    pub(super) seen: String,
    /// The remedy.
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
            if matches!(outcome, "exhausted" | "rejected") {
                self.made.dead_letters.borrow_mut().insert(message.to_owned());
            }
            match (outcome, cause.and_then(Value::as_str)) {
                ("handed_back" | "exhausted" | "rejected", Some(cause)) if !is_passing(cause) => {
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
        let parts_queue = self.subject.variable("PARTS_QUEUE_URL").map_or(OUTBOUND, |_| PARTS);
        let remedy = remedy(&cause, self.worker(), parts_queue);
        Some(Cause::new(format!("{} logs: {cause}", self.worker()), remedy))
    }

    /// Returns the cause that a function logged for calls to a queue that failed, if it did.
    pub(super) async fn queue_failure(&self, function: &str, url: &str) -> Option<String> {
        let lines = self.log(function, &format!("\"{url}\"")).await.ok()?;
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_failure = |line: &Value| {
            let message = line["message"].as_str().unwrap_or_default();
            line["queue"] == url && QUEUE_FAILURES.contains(&message)
        };
        let failures: Vec<_> = lines.filter(is_failure).collect();
        let text = failures.iter().rev().find_map(|line| line["cause"].as_str());
        let text = text.or_else(|| failures.last()?["message"].as_str())?;
        Some(text.chars().take(200).collect())
    }

    /// Returns a setting of the worker or its mapping that keeps every message from being delivered, if there is one.
    pub(super) async fn standstill(&self) -> Option<Cause> {
        let worker = self.worker();
        let lambda = Lambda::new(&self.subject.config);
        let concurrency = lambda.get_function_concurrency().function_name(worker).send().await;
        if concurrency.is_ok_and(|answer| answer.reserved_concurrent_executions == Some(0)) {
            let remedy = format!("raise the reserved concurrency of {worker}, or remove it");
            return Some(Cause::new(format!("{worker} is throttled: its reserved concurrency is 0"), remedy));
        }
        let queue = queue_of(self.subject.variable("QUEUE_URL")?)?;
        let mappings = lambda.list_event_source_mappings().function_name(worker).send().await;
        let mappings = mappings.ok()?.event_source_mappings.unwrap_or_default();
        let mapping = mappings.iter().find(|mapping| {
            mapping.event_source_arn().is_some_and(|source| source.ends_with(&format!(":{queue}")))
        });
        let Some(mapping) = mapping else {
            return Some(Cause::new(
                format!("no event source mapping from the outbound queue invokes {worker}"),
                "create the event source mapping from the outbound queue (infra/mapping.tf)",
            ));
        };
        let state = mapping.state().filter(|state| matches!(*state, "Disabled" | "Disabling"))?;
        let id = mapping.uuid().unwrap_or("ID");
        Some(Cause::new(
            format!("the event source mapping of {worker} is {state}"),
            format!("enable it: aws lambda update-event-source-mapping --uuid {id} --enabled"),
        ))
    }

    /// Returns the number of invocations that ended without a report, if there are any. Their lines may be about messages
    /// of others, so they are only counted.
    async fn crashes(&self) -> Option<Cause> {
        let worker = self.worker();
        let lines = self.log(worker, CRASHES).await.ok()?;
        let crashes = ["Task timed out", "is faulty", "are faulty", "Runtime exited", "panicked"];
        let count = lines.iter().filter(|line| crashes.iter().any(|crash| line.contains(crash))).count();
        (count > 0).then(|| {
            Cause::new(
                format!("{worker} timed out, panicked or did not start {count} times"),
                format!("look at the log of {worker}; correct its environment, timeout or memory"),
            )
        })
    }

    /// Returns the cause that the worker's log or the number of messages on the queue suggests.
    pub(super) async fn backlog(&self) -> Cause {
        let worker = self.worker();
        if let Some(crashes) = self.crashes().await {
            return crashes;
        }
        let waiting = self.waiting().await;
        let unread = self.unread_log.borrow().clone();
        match (waiting, unread) {
            (Ok(Some((queue, waiting))), _) => Cause::new(
                format!("{waiting} messages wait on the {queue}"),
                format!("check throttles of {worker} and its event source mapping with `streamer status`"),
            ),
            (_, Some(error)) => Cause::new(
                format!("the message is missing, and its cause is unknown: {error}"),
                "allow logs:FilterLogEvents to your own role, and run the command again",
            ),
            (Err(error), None) => Cause::new(
                format!("the message is missing, and its cause is unknown: {error}"),
                "allow sqs:GetQueueAttributes on the queues to your own role, and run the command again",
            ),
            (Ok(_), None) => Cause::new(
                format!("{worker} took the message and logged nothing about it"),
                format!("look at the log of {worker}, and at dead letters with `streamer redrive`"),
            ),
        }
    }

    /// Returns the first queue that invokes the worker and has waiting messages, with their number.
    async fn waiting(&self) -> anyhow::Result<Option<(&'static str, usize)>> {
        for (queue, variable) in [(OUTBOUND, "QUEUE_URL"), (PARTS, "PARTS_QUEUE_URL")] {
            let Some(url) = self.subject.variable(variable) else { continue };
            let waiting = MessageCounts::read(&self.sqs, url).await?.waiting;
            if waiting > 0 {
                return Ok(Some((queue, waiting)));
            }
        }
        Ok(None)
    }

    /// Returns lines of a function's log since the beginning of the run that match a pattern.
    ///
    /// # Errors
    /// When CloudWatch Logs does not answer.
    pub(super) async fn log(&self, function: &str, pattern: &str) -> anyhow::Result<Vec<String>> {
        let client = aws_sdk_cloudwatchlogs::Client::new(&self.subject.config);
        let since = self.began - 2 * CLOCK_SKEW;
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let read = log_events::read_pages(&client, function, since, Some(pattern), LOG_PAGES);
        let events = match timeout(LOG_TIMEOUT, read).await {
            Ok(events) => events,
            Err(_) => {
                Err(anyhow::anyhow!("the log of {function} was not read within {} s", LOG_TIMEOUT.as_secs()))
            }
        };
        let events = events.inspect_err(|error| {
            self.unread_log.replace(Some(error.to_string()));
        })?;
        Ok(events.into_iter().filter_map(|event| event.message).collect())
    }
}

/// Returns the end of a queue's ARN, `{account}:{name}`, by its URL.
fn queue_of(url: &str) -> Option<String> {
    let (rest, name) = url.trim_end_matches('/').rsplit_once('/')?;
    let (_, account) = rest.rsplit_once('/')?;
    Some(format!("{account}:{name}"))
}

/// Returns whether a message that was handed back for this cause soon arrives.
fn is_passing(cause: &str) -> bool {
    matches!(cause, "410 within the connect grace" | "user away" | "deadline" | "429")
}

/// Returns the remedy for a cause that the worker logs. `parts_queue` is the queue that it sends parts to.
fn remedy(cause: &str, worker: &str, parts_queue: &str) -> String {
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
            format!(
                "correct this machine's clock, or raise the concurrency of {worker}: the message came after its expiry"
            )
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
        _ if is_of_key(cause) => role("kms:GenerateDataKey and kms:Decrypt", "the key of the queue or table"),
        _ if denied && cause.contains(" on table ") => {
            role(&format!("dynamodb:{operation}"), "the table, and dynamodb:Query on its indexes")
        }
        _ if denied => role("the action that the log names", "its resource"),
        "a part of the audience is not on the queue" => {
            role("sqs:SendMessage", &format!("the {parts_queue}"))
        }
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
    fn url_names_account_and_queue() {
        let url = "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-outbound";
        assert_eq!(queue_of(url).as_deref(), Some("123456789012:streamer-outbound"));
    }

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
            ("a part of the audience is not on the queue", "sqs:SendMessage on the parts queue"),
            ("no_recipient", "indexes"),
            ("expired", "this machine's clock"),
            ("KmsAccessDenied: not authorized", "kms:GenerateDataKey and kms:Decrypt"),
            ("something else", "docs/troubleshooting.md"),
        ] {
            assert!(remedy(cause, "streamer-delivery", PARTS).contains(expected), "{cause}");
        }
    }
}

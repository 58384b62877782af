//! Reads the outcomes of messages from the worker's log.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use aws_sdk_cloudwatchlogs::Client;
use serde::Deserialize;
use streamer_message::MessageId;
use tokio::time::{Instant, sleep};

use crate::{log_events, stack::Stack};

/// How often the log is read.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The worker's log of a local stack, from a time on.
pub(super) struct WorkerLog {
    client: Client,
    function: String,
    since: i64,
}

/// The outcomes of a message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Receipt {
    /// Whether every recipient is known, with its last outcome.
    pub is_complete: bool,
    /// The outcome for each connection. The key is empty for an outcome of the message as a whole.
    pub recipients: BTreeMap<Option<String>, Fate>,
}

/// An outcome in the worker's log, and its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fate {
    pub outcome: String,
    pub cause: Option<String>,
}

/// A line of the log about a message: the outcome of a pair, or the record that held the message.
#[derive(Debug, Deserialize)]
struct Event {
    message_id: String,
    connection_id: Option<String>,
    outcome: Option<String>,
    cause: Option<String>,
    record_id: Option<String>,
    #[serde(default)]
    further_messages: usize,
}

/// A message's lines so far.
#[derive(Default)]
struct Trace {
    /// The number of bodies that were sent.
    bodies: usize,
    /// For each record, how many messages it left on the queue.
    records: HashMap<String, usize>,
    recipients: BTreeMap<Option<String>, Fate>,
}

impl WorkerLog {
    /// Returns the log from now on.
    ///
    /// # Errors
    /// When the stack has no worker.
    pub(super) fn of(stack: &Stack) -> anyhow::Result<Self> {
        let function = stack.deployed.functions.get("delivery").context("the stack has no worker")?.clone();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        Ok(Self { client: Client::new(&stack.config), function, since })
    }

    /// Returns the receipt of each message, given with its number of bodies, when all are complete or the time is over.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) async fn wait(
        &self,
        messages: &[(MessageId, usize)],
        limit: Duration,
    ) -> anyhow::Result<Vec<Receipt>> {
        let deadline = Instant::now() + limit;
        loop {
            let events = log_events::read(&self.client, &self.function, self.since, None).await?;
            let lines = events.iter().filter_map(|event| event.message.as_deref());
            let receipts = receipts(messages, lines);
            if receipts.iter().all(|receipt| receipt.is_complete) || Instant::now() >= deadline {
                return Ok(receipts);
            }
            sleep(POLL_INTERVAL.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
    }
}

/// Returns the receipt of each message from all lines of the log.
fn receipts<'a>(messages: &[(MessageId, usize)], lines: impl Iterator<Item = &'a str>) -> Vec<Receipt> {
    let mut traces: HashMap<&str, Trace> = HashMap::new();
    for (id, bodies) in messages {
        traces.entry(id.as_str()).or_default().bodies += bodies;
    }
    for line in lines.filter(|line| line.contains("\"message_id\"")) {
        let Ok(event) = serde_json::from_str::<Event>(line) else { continue };
        if let Some(trace) = traces.get_mut(event.message_id.as_str()) {
            trace.add(event);
        }
    }
    let receipt = |(id, _): &(MessageId, _)| traces.remove(id.as_str()).map(Trace::receipt);
    messages.iter().filter_map(receipt).collect()
}

impl Trace {
    fn add(&mut self, Event { connection_id, outcome, cause, record_id, further_messages, .. }: Event) {
        if let Some(record) = record_id {
            // A record that is received again has its latest line.
            self.records.insert(record, further_messages);
        }
        let Some(outcome) = outcome.filter(|outcome| outcome != "expanded") else { return };
        let fate = Fate { outcome, cause };
        let is_better = |known: &Fate| fate.rank() >= known.rank();
        if self.recipients.get(&connection_id).is_none_or(is_better) {
            self.recipients.insert(connection_id, fate);
        }
    }

    fn receipt(mut self) -> Receipt {
        let further: usize = self.records.values().sum();
        let is_complete = self.records.len() >= self.bodies + further;
        if is_complete {
            // Each was followed by another outcome.
            self.recipients.retain(|_, fate| !fate.is_pending());
        }
        let whole = self.recipients.get(&None).is_some_and(|fate| fate.outcome == "no_recipient");
        if whole && self.recipients.len() > 1 {
            // Of a tenant's shards, most have no connection.
            self.recipients.remove(&None);
        }
        Receipt { is_complete, recipients: self.recipients }
    }
}

impl Fate {
    pub(super) fn is_delivered(&self) -> bool {
        self.outcome == "delivered"
    }

    pub(super) fn is_pending(&self) -> bool {
        self.outcome == "handed_back"
    }

    /// Orders outcomes of one recipient: a duplicate that fails changes nothing for a client that has the message.
    fn rank(&self) -> u8 {
        if self.is_delivered() { 2 } else { u8::from(!self.is_pending()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(id: &str, connection: &str, outcome: &str) -> String {
        format!(
            r#"{{"level":"DEBUG","message_id":"{id}","connection_id":"{connection}","outcome":"{outcome}"}}"#
        )
    }

    fn whole(id: &str, outcome: &str, cause: &str) -> String {
        format!(r#"{{"message_id":"{id}","outcome":"{outcome}","cause":"{cause}"}}"#)
    }

    fn record(id: &str, record: &str, further: usize) -> String {
        let message = r#""message":"record""#;
        format!(r#"{{{message},"message_id":"{id}","record_id":"{record}","further_messages":{further}}}"#)
    }

    /// Returns the receipt of message `m` with one body: whether it is complete, and its outcomes.
    fn receipt(lines: &[String]) -> (bool, Vec<(String, String)>) {
        let id = (MessageId::new("m").unwrap(), 1);
        let noise = ["START RequestId", "{", r#"{"message_id":"other","outcome":"gone"}"#];
        let lines = noise.into_iter().chain(lines.iter().map(String::as_str));
        let Receipt { is_complete, recipients } = receipts(&[id], lines).remove(0);
        let recipients = recipients.into_iter();
        (is_complete, recipients.map(|(to, fate)| (to.unwrap_or_default(), fate.outcome)).collect())
    }

    fn outcomes(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(to, outcome)| ((*to).to_owned(), (*outcome).to_owned())).collect()
    }

    #[test]
    fn message_is_complete_after_its_last_record() {
        assert_eq!(receipt(&[]), (false, vec![]));
        let delivered = pair("m", "a", "delivered");
        assert_eq!(receipt(std::slice::from_ref(&delivered)), (false, outcomes(&[("a", "delivered")])));
        assert_eq!(receipt(&[delivered, record("m", "1", 0)]), (true, outcomes(&[("a", "delivered")])));
    }

    #[test]
    fn handed_back_message_has_later_outcome() {
        let mut lines = vec![whole("m", "handed_back", "user away"), record("m", "1", 1)];
        assert_eq!(receipt(&lines), (false, outcomes(&[("", "handed_back")])));
        lines.extend([pair("m", "a", "delivered"), record("m", "2", 0)]);
        assert_eq!(receipt(&lines), (true, outcomes(&[("a", "delivered")])));
    }

    #[test]
    fn tenant_message_is_complete_after_every_part() {
        let mut lines = vec![whole("m", "expanded", ""), record("m", "tenant", 2)];
        lines.extend([whole("m", "no_recipient", ""), record("m", "shard 1", 0)]);
        assert_eq!(receipt(&lines), (false, outcomes(&[("", "no_recipient")])));
        lines.extend([pair("m", "a", "delivered"), pair("m", "b", "gone"), record("m", "shard 2", 0)]);
        assert_eq!(receipt(&lines), (true, outcomes(&[("a", "delivered"), ("b", "gone")])));
    }

    /// A worker that is killed before it acknowledges a message delivers it again.
    #[test]
    fn redelivered_record_counts_once() {
        let mut lines = vec![pair("m", "a", "delivered"), record("m", "1", 1)];
        lines.extend([pair("m", "a", "gone"), record("m", "1", 0)]);
        assert_eq!(receipt(&lines), (true, outcomes(&[("a", "delivered")])));
    }
}

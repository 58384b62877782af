//! A queue with latency: concurrent calls of `SendMessageBatch` and `ChangeMessageVisibilityBatch` in virtual time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{input, queue::Entry};

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Latency of the call.
    pub after: Duration,
    /// Result after the latency.
    pub what: Told,
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The result of each entry. Entries without one are accepted.
    Entries(Vec<Entry>),
    /// An error with this code.
    Fails(&'static str),
    /// An error with this code and this message.
    FailsWith(&'static str, &'static str),
    /// No answer.
    Nothing {
        /// Whether the queue accepted the entries all the same.
        taken: bool,
    },
}

/// An entry of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentEntry {
    /// The message's body.
    pub body: String,
    /// Its message group.
    pub group: Option<String>,
    /// The receipt handle, for a visibility change.
    pub receipt: Option<String>,
    /// Its deduplication id.
    pub deduplication: Option<String>,
    /// X-Ray's trace header.
    pub trace: Option<String>,
    /// The delay of a message or the new visibility timeout, in seconds.
    pub seconds: Option<u64>,
}

/// A call that arrived.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it arrived.
    pub at: Instant,
    /// Its entries.
    pub entries: Vec<SentEntry>,
    /// For each entry, whether the queue accepted it.
    pub taken: Vec<bool>,
    /// When it was answered or cancelled, and for each entry, whether it was confirmed.
    pub ended: Option<(Instant, Vec<bool>)>,
}

type Script = dyn Fn(usize, &[SentEntry]) -> Answer + Send + Sync;

/// A queue with latency.
#[derive(Clone)]
pub struct CallsDouble {
    calls: Arc<Mutex<Vec<Call>>>,
    script: Arc<Script>,
    /// Whether it records calls.
    remembers: bool,
}

impl CallsDouble {
    /// Creates a queue that answers the n-th call, from 0, according to `script`.
    pub fn new(script: impl Fn(usize, &[SentEntry]) -> Answer + Send + Sync + 'static) -> Self {
        Self { calls: Arc::default(), script: Arc::new(script), remembers: true }
    }

    /// Turns off the record of calls, for tests that make too many. The script gets 0 as the index of each.
    #[must_use]
    pub fn forgetting(self) -> Self {
        Self { remembers: false, ..self }
    }

    /// Creates a queue that accepts everything, with this latency.
    #[must_use]
    pub fn taking(after: Duration) -> Self {
        Self::new(move |_, _| Answer { after, what: Told::Entries(Vec::new()) })
    }

    /// Returns all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.locked().clone()
    }

    /// Returns the accepted bodies, in the order in which their calls were answered.
    #[must_use]
    pub fn taken(&self) -> Vec<String> {
        let mut calls = self.calls();
        calls.sort_by_key(|call| call.ended.as_ref().map(|(at, _)| *at));
        let taken = calls.into_iter().flat_map(|Call { entries, taken, .. }| entries.into_iter().zip(taken));
        taken.filter(|(_, taken)| *taken).map(|(entry, _)| entry.body).collect()
    }

    /// Returns a client of the queue.
    #[must_use]
    pub fn client(&self) -> aws_sdk_sqs::Client {
        let connector = SharedHttpConnector::new(self.clone());
        let config = aws_sdk_sqs::Config::builder().with_test_defaults_v2();
        let http = http_client_fn(move |_, _| connector.clone());
        aws_sdk_sqs::Client::from_conf(config.http_client(http).build())
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CallsDouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CallsDouble").finish_non_exhaustive()
    }
}

impl HttpConnector for CallsDouble {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = input(&request);
        let ids: Vec<_> = list(&request["Entries"]).iter().map(|entry| entry["Id"].clone()).collect();
        let entries: Vec<_> = list(&request["Entries"]).iter().map(sent).collect();
        let mut calls = self.locked();
        let index = calls.len();
        let answer = (self.script)(index, &entries);
        if self.remembers {
            calls.push(Call { at: Instant::now(), entries, taken: vec![false; ids.len()], ended: None });
        }
        drop(calls);
        // Its drop records the end, also when the caller cancels the call.
        let end = End { queue: self.clone(), index, confirmed: vec![false; ids.len()] };
        HttpConnectorFuture::new(async move {
            let mut end = end;
            sleep(answer.after).await;
            let (status, code, body) = match answer.what {
                Told::Nothing { taken } => {
                    end.accept(vec![taken; ids.len()]);
                    std::future::pending().await
                }
                Told::Fails(code) => failed(code, "scripted"),
                Told::FailsWith(code, message) => failed(code, message),
                Told::Entries(mut outcomes) => {
                    outcomes.resize(ids.len(), Entry::Taken);
                    end.confirmed = outcomes.iter().map(|outcome| *outcome == Entry::Taken).collect();
                    end.accept(end.confirmed.clone());
                    (200, None, batch_answer(&ids, &outcomes))
                }
            };
            #[expect(clippy::unwrap_used, reason = "these are statuses")]
            let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body.to_string()));
            if let Some(code) = code {
                // SQS puts the error code here.
                response.headers_mut().insert("x-amzn-query-error", format!("{code};Sender"));
            }
            Ok(response)
        })
    }
}

/// Returns the status, the code and the body of an error.
fn failed(code: &'static str, message: &str) -> (u16, Option<&'static str>, Value) {
    let status = if code.starts_with("Internal") { 500 } else { 400 };
    (status, Some(code), json!({ "__type": "com.amazonaws.sqs#Modeled", "message": message }))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn sent(entry: &Value) -> SentEntry {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    SentEntry {
        body: text(&entry["MessageBody"]).unwrap_or_default(),
        group: text(&entry["MessageGroupId"]),
        receipt: text(&entry["ReceiptHandle"]),
        deduplication: text(&entry["MessageDeduplicationId"]),
        trace: text(&entry["MessageSystemAttributes"]["AWSTraceHeader"]["StringValue"]),
        seconds: entry["DelaySeconds"].as_u64().or_else(|| entry["VisibilityTimeout"].as_u64()),
    }
}

fn batch_answer(ids: &[Value], outcomes: &[Entry]) -> Value {
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (id, outcome) in ids.iter().zip(outcomes) {
        match outcome {
            Entry::Taken => {
                successful.push(json!({ "Id": id, "MessageId": "m", "MD5OfMessageBody": "unchecked" }));
            }
            Entry::Unmentioned => {}
            Entry::Refused => {
                failed.push(json!({ "Id": id, "Code": "InvalidMessageContents", "SenderFault": true, "Message": "scripted" }));
            }
            Entry::NotTaken => {
                failed.push(
                    json!({ "Id": id, "Code": "RequestThrottled", "SenderFault": true, "Message": "scripted" }),
                );
            }
        }
    }
    json!({ "Successful": successful, "Failed": failed })
}

/// Records the end of a call when it is dropped.
struct End {
    queue: CallsDouble,
    index: usize,
    confirmed: Vec<bool>,
}

impl End {
    fn accept(&self, taken: Vec<bool>) {
        if let Some(call) = self.queue.locked().get_mut(self.index) {
            call.taken = taken;
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(call) = self.queue.locked().get_mut(self.index) {
            call.ended = Some((Instant::now(), std::mem::take(&mut self.confirmed)));
        }
    }
}

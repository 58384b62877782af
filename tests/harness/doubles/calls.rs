//! A queue that takes its time: calls of `SendMessageBatch` and
//! `ChangeMessageVisibilityBatch` under way together, in virtual time.

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

use super::queue::Entry;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How long it takes.
    pub after: Duration,
    /// What comes then.
    pub what: Told,
}

/// What a call is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Of each entry, what became of it; of those beyond, that they were taken.
    Entries(Vec<Entry>),
    /// An error, by its code.
    Fails(&'static str),
    /// Nothing, ever; and whether the queue took the entries all the same.
    Nothing {
        /// Whether it has them.
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
    /// The receipt handle of a record that is to be hidden.
    pub receipt: Option<String>,
    /// Its deduplication id.
    pub deduplication: Option<String>,
    /// X-Ray's trace header.
    pub trace: Option<String>,
}

/// A call that arrived.
#[derive(Debug, Clone)]
pub struct Call {
    /// When.
    pub at: Instant,
    /// What it held.
    pub entries: Vec<SentEntry>,
    /// Of each entry whether the queue has it.
    pub taken: Vec<bool>,
    /// When it was answered, or given up by the caller, and of each entry whether it was confirmed.
    pub ended: Option<(Instant, Vec<bool>)>,
}

type Script = dyn Fn(usize, &[SentEntry]) -> Answer + Send + Sync;

/// A queue that takes its time.
#[derive(Clone)]
pub struct CallsDouble {
    calls: Arc<Mutex<Vec<Call>>>,
    script: Arc<Script>,
}

impl CallsDouble {
    /// A queue that does with each call, counted from 0, what `script` says.
    pub fn new(script: impl Fn(usize, &[SentEntry]) -> Answer + Send + Sync + 'static) -> Self {
        Self { calls: Arc::default(), script: Arc::new(script) }
    }

    /// A queue that takes everything, after a time.
    #[must_use]
    pub fn taking(after: Duration) -> Self {
        Self::new(move |_, _| Answer { after, what: Told::Entries(Vec::new()) })
    }

    /// The calls that arrived.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.locked().clone()
    }

    /// The bodies that were taken, in the order in which their calls were answered.
    #[must_use]
    pub fn taken(&self) -> Vec<String> {
        let mut calls = self.calls();
        calls.sort_by_key(|call| call.ended.as_ref().map(|(at, _)| *at));
        let taken = calls.into_iter().flat_map(|Call { entries, taken, .. }| entries.into_iter().zip(taken));
        taken.filter(|(_, taken)| *taken).map(|(entry, _)| entry.body).collect()
    }

    /// A client of the queue.
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
        let request: Value =
            request.body().bytes().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
        let ids: Vec<_> = list(&request["Entries"]).iter().map(|entry| entry["Id"].clone()).collect();
        let entries: Vec<_> = list(&request["Entries"]).iter().map(sent).collect();
        let mut calls = self.locked();
        let place = calls.len();
        let answer = (self.script)(place, &entries);
        calls.push(Call { at: Instant::now(), entries, taken: vec![false; ids.len()], ended: None });
        drop(calls);
        // Told of the end also when the caller gives the call up.
        let end = End { queue: self.clone(), place, confirmed: vec![false; ids.len()] };
        HttpConnectorFuture::new(async move {
            let mut end = end;
            sleep(answer.after).await;
            let (status, code, body) = match answer.what {
                Told::Nothing { taken } => {
                    end.takes(vec![taken; ids.len()]);
                    std::future::pending().await
                }
                Told::Fails(code) => {
                    let status = if code.starts_with("Internal") { 500 } else { 400 };
                    (
                        status,
                        Some(code),
                        json!({ "__type": "com.amazonaws.sqs#Modeled", "message": "scripted" }),
                    )
                }
                Told::Entries(mut outcomes) => {
                    outcomes.resize(ids.len(), Entry::Taken);
                    end.confirmed = outcomes.iter().map(|outcome| *outcome == Entry::Taken).collect();
                    end.takes(end.confirmed.clone());
                    (200, None, batch_answer(&ids, &outcomes))
                }
            };
            #[expect(clippy::unwrap_used, reason = "these are statuses")]
            let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body.to_string()));
            if let Some(code) = code {
                // Where the real one says its code.
                response.headers_mut().insert("x-amzn-query-error", format!("{code};Sender"));
            }
            Ok(response)
        })
    }
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

/// Notes a call's end when it is dropped.
struct End {
    queue: CallsDouble,
    place: usize,
    confirmed: Vec<bool>,
}

impl End {
    fn takes(&self, taken: Vec<bool>) {
        if let Some(call) = self.queue.locked().get_mut(self.place) {
            call.taken = taken;
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(call) = self.queue.locked().get_mut(self.place) {
            call.ended = Some((Instant::now(), std::mem::take(&mut self.confirmed)));
        }
    }
}

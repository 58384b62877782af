//! A queue that takes its time: calls of `SendMessageBatch` under way together, in virtual time.

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
    /// Nothing, ever. Whether the queue took the entries is not known.
    Nothing,
}

/// An entry of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentEntry {
    /// The message's body.
    pub body: String,
    /// Its message group.
    pub group: Option<String>,
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
    /// When it was answered, or given up by the caller, and of each entry whether it was taken.
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
        let taken = calls.into_iter().filter_map(|Call { entries, ended, .. }| Some((entries, ended?.1)));
        let taken = taken.flat_map(|(entries, taken)| entries.into_iter().zip(taken));
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
        calls.push(Call { at: Instant::now(), entries, ended: None });
        drop(calls);
        // Told of the end also when the caller gives the call up.
        let end = End { queue: self.clone(), place, taken: vec![false; ids.len()] };
        HttpConnectorFuture::new(async move {
            let mut end = end;
            sleep(answer.after).await;
            let (status, body) = match answer.what {
                Told::Nothing => std::future::pending().await,
                Told::Fails(code) => (400, json!({ "__type": code, "message": "scripted" })),
                Told::Entries(mut outcomes) => {
                    outcomes.resize(ids.len(), Entry::Taken);
                    end.taken = outcomes.iter().map(|outcome| *outcome == Entry::Taken).collect();
                    (200, batch_answer(&ids, &outcomes))
                }
            };
            #[expect(clippy::unwrap_used, reason = "both are statuses")]
            let status = status.try_into().unwrap();
            Ok(HttpResponse::new(status, SdkBody::from(body.to_string())))
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
                    json!({ "Id": id, "Code": "InternalError", "SenderFault": false, "Message": "scripted" }),
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
    taken: Vec<bool>,
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(call) = self.queue.locked().get_mut(self.place) {
            call.ended = Some((Instant::now(), std::mem::take(&mut self.taken)));
        }
    }
}

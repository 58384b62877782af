//! The mailbox's table in memory, with latency and faults: all code above the SDK's HTTP client is real.

mod items;
mod table;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
};
use serde_json::{Value, json};
use streamer_mailbox::{DynamoTable, Mailbox, Settings};
use tokio::time::sleep;

use self::{
    items::{number, parse, text},
    table::{Item, State},
};
use super::{dynamodb, input};
use crate::mailbox::Usage;

/// The result of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailboxFault {
    /// DynamoDB answers.
    None,
    /// DynamoDB refuses the call, which has no effect.
    Refused,
    /// DynamoDB answers with this error, and the call has no effect.
    Error(&'static str),
    /// The call has its effect, but the answer is an error.
    AnswerLost,
    /// The call has no effect, and no answer comes.
    Silence,
    /// Another worker has taken the number of a message first, and was killed before it raised `top`.
    Conflict,
}

/// A call that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxCall {
    /// The operation, as DynamoDB names it.
    pub operation: String,
    /// The id of the message that the call writes.
    pub message: Option<String>,
    /// The hash key of its items; empty for a call that removes several.
    pub stream: String,
    /// The write units of the item that the call puts, 1 for any other write, and 0 for a read.
    pub writes: usize,
}

impl MailboxCall {
    fn read(operation: &str, input: &Value) -> Self {
        let item = &input["Item"];
        let writes = match operation {
            "GetItem" | "Query" => 0,
            _ => items::write_units(item.as_object().map_or(0, items::size)),
        };
        let stream =
            [&item["stream"], &input["Key"]["stream"], &input["ExpressionAttributeValues"][":stream"]];
        Self {
            operation: operation.to_owned(),
            message: item["id"]["S"].as_str().map(str::to_owned),
            stream: stream.into_iter().map(text).find(|stream| !stream.is_empty()).unwrap_or_default(),
            writes,
        }
    }
}

/// Returns latency and result of a call.
type Script = dyn Fn(&MailboxCall) -> (Duration, MailboxFault) + Send + Sync;

/// A mailbox's table in memory. All clones are the same table.
#[derive(Clone)]
pub struct MailboxDouble {
    state: Arc<Mutex<State>>,
    script: Arc<Script>,
}

impl Default for MailboxDouble {
    fn default() -> Self {
        Self::scripted(|_| (Duration::ZERO, MailboxFault::None))
    }
}

impl MailboxDouble {
    /// Creates an empty table that answers calls according to `script`.
    pub fn scripted(
        script: impl Fn(&MailboxCall) -> (Duration, MailboxFault) + Send + Sync + 'static,
    ) -> Self {
        Self { state: Arc::default(), script: Arc::new(script) }
    }

    /// Creates an empty table with these faults and without latency.
    pub fn failing(fault: impl Fn(&MailboxCall) -> MailboxFault + Send + Sync + 'static) -> Self {
        Self::scripted(move |call| (Duration::ZERO, fault(call)))
    }

    /// Creates an empty table with a fault at the first write of this message.
    #[must_use]
    pub fn failing_once(message: &'static str, fault: MailboxFault) -> Self {
        let has_failed = AtomicBool::new(false);
        Self::failing(move |call| {
            let fails = call.message.as_deref() == Some(message) && !has_failed.swap(true, Ordering::Relaxed);
            if fails { fault } else { MailboxFault::None }
        })
    }

    /// Creates an empty table with a fault at each call of this operation.
    #[must_use]
    pub fn failing_at(operation: &'static str, fault: MailboxFault) -> Self {
        Self::failing(move |call| if call.operation == operation { fault } else { MailboxFault::None })
    }

    /// Turns off the record of calls and drops the bodies of messages, for tests that make too many. Pages cannot be
    /// read then.
    #[must_use]
    pub fn forgetting(self) -> Self {
        self.locked().forgets = true;
        self
    }

    /// Lets streams exist without a call: `generate` returns the items of the stream with a hash key.
    #[must_use]
    pub fn generating(self, generate: impl Fn(&str) -> Vec<Value> + Send + Sync + 'static) -> Self {
        self.locked().generate = Some(Arc::new(generate));
        self
    }

    /// Returns a client of the same table whose calls get latency and result from `script`.
    #[must_use]
    pub fn through(
        &self,
        script: impl Fn(&MailboxCall) -> (Duration, MailboxFault) + Send + Sync + 'static,
    ) -> Self {
        Self { script: Arc::new(script), ..self.clone() }
    }

    /// Returns a mailbox on the table, with the default settings.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox<DynamoTable> {
        self.mailbox_with(Settings::default())
    }

    /// Returns a mailbox on the table.
    #[must_use]
    pub fn mailbox_with(&self, settings: Settings) -> Mailbox<DynamoTable> {
        let connector = SharedHttpConnector::new(self.clone());
        let config = aws_sdk_dynamodb::Config::builder().with_test_defaults_v2();
        // Without retries, which the SDK tests itself.
        let config = config
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .retry_config(RetryConfig::disabled());
        Mailbox::new(
            DynamoTable::new(aws_sdk_dynamodb::Client::from_conf(config.build()), "mailbox"),
            settings,
        )
    }

    /// Registers a device of a user of the tenant `acme`, without a call.
    pub fn register(&self, user: &str, connection: &str, endpoint: &str, expires_at: SystemTime) {
        let seconds = expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let item = json!({
            "stream": { "S": stream(user) },
            "item": { "S": format!("c#{connection}") },
            "endpoint": { "S": endpoint },
            "expires_at": { "N": seconds.to_string() },
        });
        let (key, item) = (items::key(&item), item.as_object().cloned().unwrap_or_default());
        let bytes = items::size(&item);
        self.locked().insert(key, item, bytes);
    }

    /// Removes an attribute from each item of a user, without a call.
    pub fn remove_attribute(&self, user: &str, attribute: &str) {
        self.locked().change(&stream(user), |item| _ = item.remove(attribute));
    }

    /// Returns the devices of a user.
    #[must_use]
    pub fn devices(&self, user: &str) -> Vec<String> {
        self.keys(user, "c#")
    }

    /// Returns the numbers and ids of a user's messages, those beyond `top` included.
    #[must_use]
    pub fn messages(&self, user: &str) -> Vec<(u64, String)> {
        self.items(user).into_iter().map(|(seq, item)| (seq, text(&item["id"]))).collect()
    }

    /// Returns the messages of a user with their attributes, by number.
    #[must_use]
    pub fn items(&self, user: &str) -> BTreeMap<u64, Item> {
        let state = self.locked();
        let items = state.written().filter(|((of, item), _)| *of == stream(user) && item.starts_with("m#"));
        items.map(|((_, key), item)| (key.rsplit('#').next().map_or(0, parse), item)).collect()
    }

    /// Returns hash key and id of each message that calls have stored.
    #[must_use]
    pub fn stored(&self) -> Vec<(String, String)> {
        let state = self.locked();
        let messages = state.written().filter(|((_, item), _)| item.starts_with("m#"));
        messages.map(|((stream, _), item)| (stream.clone(), text(&item["id"]))).collect()
    }

    /// Returns the calls so far and the units that DynamoDB charges for them.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.locked().usage
    }

    /// Returns `top` of a user's stream; 0 if it does not exist.
    #[must_use]
    pub fn top(&self, user: &str) -> u64 {
        let (state, head) = (self.locked(), (stream(user), "h".to_owned()));
        state.written().find(|(key, _)| **key == head).map_or(0, |(_, head)| number(&head["top"]))
    }

    /// Returns the operations of all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.locked().calls.iter().map(|call| call.operation.clone()).collect()
    }

    fn keys(&self, user: &str, prefix: &str) -> Vec<String> {
        let state = self.locked();
        let of_user = state.written().filter(|((of, _), _)| *of == stream(user));
        of_user.filter_map(|((_, item), _)| item.strip_prefix(prefix).map(str::to_owned)).collect()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MailboxDouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MailboxDouble").finish_non_exhaustive()
    }
}

impl HttpConnector for MailboxDouble {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (operation, input) = (dynamodb::operation(&request), input(&request));
        let double = self.clone();
        let call = MailboxCall::read(&operation, &input);
        let (latency, fault) = (self.script)(&call);
        double.locked().record(call);
        HttpConnectorFuture::new(async move {
            sleep(latency).await;
            let refused = Err(("AccessDeniedException", json!({})));
            let answer = match fault {
                MailboxFault::Refused => refused,
                MailboxFault::Error(code) => Err((code, json!({}))),
                MailboxFault::Silence => std::future::pending().await,
                MailboxFault::AnswerLost => double.locked().answer(&operation, &input).and(refused),
                MailboxFault::Conflict => {
                    double.locked().take_number(&operation, &input);
                    double.locked().answer(&operation, &input)
                }
                MailboxFault::None => double.locked().answer(&operation, &input),
            };
            Ok(dynamodb::response(answer))
        })
    }
}

/// Returns the hash key of a user of the tenant `acme`.
fn stream(user: &str) -> String {
    format!("u#acme#{user}")
}

//! The mailbox's table in memory, with latency and faults: all code above the SDK's HTTP client is real.

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
use serde_json::{Map, Value, json};
use streamer_mailbox::{DynamoTable, Mailbox, Settings};
use tokio::time::sleep;

use super::dynamodb::{self, Answer};

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

/// An item, in DynamoDB's JSON.
type Item = Map<String, Value>;

/// A call that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxCall {
    /// The operation, as DynamoDB names it.
    pub operation: String,
    /// The id of the message that the call writes.
    pub message: Option<String>,
}

/// Returns latency and result of a call.
type Script = dyn Fn(&MailboxCall) -> (Duration, MailboxFault) + Send + Sync;

/// A mailbox's table in memory. All clones are the same table.
#[derive(Clone)]
pub struct MailboxDouble {
    state: Arc<Mutex<State>>,
    script: Arc<Script>,
}

#[derive(Default)]
struct State {
    /// Items by hash key and range key.
    items: BTreeMap<(String, String), Item>,
    calls: Vec<MailboxCall>,
    conflicts: usize,
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
        let key = (stream(user), format!("c#{connection}"));
        self.locked().items.insert(key, item.as_object().cloned().unwrap_or_default());
    }

    /// Removes an attribute from each item of a user, without a call.
    pub fn remove_attribute(&self, user: &str, attribute: &str) {
        let mut state = self.locked();
        let items = state.items.iter_mut().filter(|((of, _), _)| *of == stream(user));
        items.for_each(|(_, item)| _ = item.remove(attribute));
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
        let items = self.locked().items.clone().into_iter();
        let items = items.filter(|((of, item), _)| *of == stream(user) && item.starts_with("m#"));
        items.map(|((_, key), item)| (key.rsplit('#').next().map_or(0, parse), item)).collect()
    }

    /// Returns `top` of a user's stream; 0 if it does not exist.
    #[must_use]
    pub fn top(&self, user: &str) -> u64 {
        let state = self.locked();
        state.items.get(&(stream(user), "h".to_owned())).map_or(0, |head| number(&head["top"]))
    }

    /// Returns the operations of all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.locked().calls.iter().map(|call| call.operation.clone()).collect()
    }

    fn keys(&self, user: &str, prefix: &str) -> Vec<String> {
        let state = self.locked();
        let keys = state.items.keys().filter(|(of, _)| *of == stream(user));
        keys.filter_map(|(_, item)| item.strip_prefix(prefix).map(str::to_owned)).collect()
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
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = request.body().bytes().and_then(|body| serde_json::from_slice(body).ok());
        let (double, input): (_, Value) = (self.clone(), body.unwrap_or_default());
        let message = input["Item"]["id"]["S"].as_str().map(str::to_owned);
        let call = MailboxCall { operation: operation.clone(), message };
        double.locked().calls.push(call.clone());
        let (latency, fault) = (self.script)(&call);
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

impl State {
    /// # Panics
    /// For an operation or a read that the mailbox does not make.
    fn answer(&mut self, operation: &str, input: &Value) -> Answer {
        match operation {
            "GetItem" => {
                assert_eq!(input["ConsistentRead"], true, "the mailbox reads consistently");
                let item = self.items.get(&key(&input["Key"]));
                Ok(item.map_or_else(|| json!({}), |item| json!({ "Item": item })))
            }
            "PutItem" => self.put(input),
            "UpdateItem" => self.update(input),
            "Query" => Ok(self.query(input)),
            "DeleteItem" => {
                self.items.remove(&key(&input["Key"]));
                Ok(json!({}))
            }
            "BatchWriteItem" => {
                let requests = input["RequestItems"]["mailbox"].as_array().into_iter().flatten();
                requests.for_each(|request| _ = self.items.remove(&key(&request["DeleteRequest"]["Key"])));
                Ok(json!({ "UnprocessedItems": {} }))
            }
            other => panic!("the mailbox does not call {other}"),
        }
    }

    fn put(&mut self, input: &Value) -> Answer {
        let (key, item) = (key(&input["Item"]), input["Item"].as_object().cloned().unwrap_or_default());
        if input["ConditionExpression"].is_string()
            && let Some(taken) = self.items.get(&key)
        {
            return Err(("ConditionalCheckFailedException", json!({ "Item": taken })));
        }
        self.items.insert(key, item);
        Ok(json!({}))
    }

    /// Supports assignments, and conditions of `=` and `<`.
    fn update(&mut self, input: &Value) -> Answer {
        let name = |name: &str| match name.starts_with('#') {
            true => input["ExpressionAttributeNames"][name].as_str().unwrap_or_default().to_owned(),
            false => name.to_owned(),
        };
        let value = |value: &str| input["ExpressionAttributeValues"][value].clone();
        let item = self.items.get_mut(&key(&input["Key"]));
        let holds = |item: &Item, condition: &str| match condition.split_whitespace().collect::<Vec<_>>()[..]
        {
            [left, "=", right] => item.get(&name(left)) == Some(&value(right)),
            [left, "<", right] => {
                item.get(&name(left)).is_some_and(|left| number(left) < number(&value(right)))
            }
            _ => false,
        };
        let mut conditions = input["ConditionExpression"].as_str().unwrap_or_default().split(" AND ");
        let Some(item) = item else { return Err(("ConditionalCheckFailedException", json!({}))) };
        if !conditions.all(|condition| holds(item, condition)) {
            return Err(("ConditionalCheckFailedException", json!({ "Item": item })));
        }
        let expression = input["UpdateExpression"].as_str().unwrap_or_default();
        for assignment in expression.trim_start_matches("SET ").split(", ") {
            let (left, right) = assignment.split_once(" = ").unwrap_or_default();
            item.insert(name(left), value(right));
        }
        Ok(json!({ "Attributes": item }))
    }

    fn query(&self, input: &Value) -> Value {
        assert_eq!(input["ConsistentRead"], true, "the mailbox reads consistently");
        let value = |name: &str| input["ExpressionAttributeValues"][name]["S"].as_str();
        let stream = value(":stream").unwrap_or_default();
        let bound = |name: &str, all: &str| (stream.to_owned(), value(name).unwrap_or(all).to_owned());
        let range = bound(":from", "")..=bound(":to", "\u{10FFFF}");
        let mut items: Vec<_> = self.items.range(range).map(|(_, item)| item).collect();
        if input["ScanIndexForward"] == false {
            items.reverse();
        }
        json!({ "Items": items })
    }

    /// Puts a message of another worker at the number that a call is about to take.
    fn take_number(&mut self, operation: &str, input: &Value) {
        if operation == "PutItem" && input["Item"]["id"].is_object() {
            self.conflicts += 1;
            let mut item = input["Item"].as_object().cloned().unwrap_or_default();
            item.insert("id".to_owned(), json!({ "S": format!("other-{}", self.conflicts) }));
            self.items.entry(key(&input["Item"])).or_insert(item);
        }
    }
}

/// Returns the hash key of a user of the tenant `acme`.
fn stream(user: &str) -> String {
    format!("u#acme#{user}")
}

fn key(item: &Value) -> (String, String) {
    (text(&item["stream"]), text(&item["item"]))
}

fn text(value: &Value) -> String {
    value["S"].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value["N"].as_str().map_or(0, parse)
}

fn parse(number: &str) -> u64 {
    number.parse().unwrap_or_default()
}

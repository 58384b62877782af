//! The resources of a deployment, as `infra/stack.json` specifies them for Terraform and for the local stack.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// The content of `infra/stack.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The connection table.
    pub table: Table,
    /// The mailbox table.
    pub mailbox: MailboxTable,
    /// The queues.
    pub queues: Queues,
    /// The functions by short name.
    pub functions: BTreeMap<String, Function>,
    /// The event source mapping from the outbound queue to the worker.
    pub mapping: Mapping,
    /// The WebSocket API.
    pub api: Api,
}

/// The connection table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The name.
    pub name: String,
    /// The partition key's attribute.
    pub hash_key: String,
    /// The attribute with the time at which DynamoDB may delete a row.
    pub ttl_attribute: String,
    /// The global secondary indexes.
    pub indexes: Vec<Index>,
    /// The attributes that indexes hold besides keys.
    pub projection: Vec<String>,
}

/// The mailbox table, which has no index. Both keys are strings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailboxTable {
    /// The name.
    pub name: String,
    /// The partition key's attribute.
    pub hash_key: String,
    /// The sort key's attribute.
    pub range_key: String,
    /// The attribute with the time at which DynamoDB may delete an item.
    pub ttl_attribute: String,
}

/// A global secondary index.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The name.
    pub name: String,
    /// The partition key's attribute.
    pub hash_key: String,
}

/// The queues.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queues {
    /// The queue that producers send to.
    pub outbound: OutboundQueue,
    /// The queue of the parts of large audiences, with the settings of the outbound queue: a standard queue.
    pub parts: PartsQueue,
    /// The queue of messages that cannot be delivered.
    pub dead_letter: DeadLetterQueue,
    /// The queue of receipts.
    pub receipts: ReceiptsQueue,
}

/// The queue that producers send to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundQueue {
    /// The name.
    pub name: String,
    /// How long a received message is hidden from other consumers.
    pub visibility_timeout_seconds: u64,
    /// How long SQS keeps a message.
    pub retention_seconds: u64,
    /// Number of receives after which SQS moves a message to the dead-letter queue.
    pub max_receive_count: u32,
    /// The same for a FIFO queue, where messages wait behind others of their group: SQS's maximum.
    pub fifo_max_receive_count: u32,
}

/// The queue of the parts of large audiences.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartsQueue {
    /// The name.
    pub name: String,
}

/// The queue of messages that cannot be delivered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterQueue {
    /// The name.
    pub name: String,
    /// How long SQS keeps a message.
    pub retention_seconds: u64,
}

/// The queue of receipts: a standard queue, also beside FIFO queues.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptsQueue {
    /// The name.
    pub name: String,
    /// How long a received receipt is hidden from other consumers.
    pub visibility_timeout_seconds: u64,
    /// How long SQS keeps a receipt.
    pub retention_seconds: u64,
}

/// A Lambda function.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// The Cargo package that it is built from.
    pub package: String,
    /// Timeout of an invocation.
    pub timeout_seconds: i32,
    /// Memory size.
    pub memory_mb: i32,
    /// The environment variables that it reads, each with the name of a deployment's value. The function uses its
    /// default for a variable without a value.
    pub environment: BTreeMap<String, String>,
}

/// The event source mapping from the outbound queue to the worker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Short name of the function.
    pub function: String,
    /// Maximum number of messages in an invocation.
    pub batch_size: i32,
    /// How long SQS gathers messages for a batch.
    pub batching_window_seconds: i32,
    /// Limits on API Gateway requests.
    pub pace: Pace,
}

/// Limits on the share of the account's API Gateway requests that a deployment uses.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Requests per second of the whole deployment.
    pub requests_per_second: i32,
    /// Requests per second of one execution environment of the worker.
    pub requests_per_second_of_an_environment: i32,
}

impl Pace {
    /// Returns the maximum number of concurrent invocations: enough environments to reach the deployment's rate,
    /// within Lambda's limits for a mapping, 2 to 1000.
    #[must_use]
    pub fn maximum_concurrency(&self) -> i32 {
        let of_one = self.requests_per_second_of_an_environment.max(1);
        let environments = (self.requests_per_second + of_one - 1) / of_one;
        environments.clamp(2, 1000)
    }
}

/// The WebSocket API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// The name.
    pub name: String,
    /// The expression with which API Gateway selects a message's route.
    pub route_selection_expression: String,
    /// The access log's fields. None holds data that a client sent, because a query may hold a token.
    pub access_log: BTreeMap<String, String>,
    /// The short name of each route's function.
    pub routes: BTreeMap<String, String>,
    /// The response of each route that API Gateway answers itself, with a mock integration.
    pub mock_responses: BTreeMap<String, Value>,
}

impl Spec {
    /// Appends `suffix` to every name, so that several deployments can share an endpoint.
    pub fn rename(&mut self, suffix: &str) {
        let Self { table, mailbox, queues, functions: _, mapping: _, api } = self;
        let Queues { outbound, parts, dead_letter, receipts } = queues;
        let tables = [&mut table.name, &mut mailbox.name];
        let queues = [&mut outbound.name, &mut parts.name, &mut dead_letter.name, &mut receipts.name];
        for name in tables.into_iter().chain(queues).chain([&mut api.name]) {
            name.push_str(suffix);
        }
    }

    /// Returns the full name of a function.
    pub(crate) fn function_name(&self, short: &str) -> String {
        format!("{}-{short}", self.api.name)
    }

    /// Parses `infra/stack.json`.
    ///
    /// # Errors
    /// When the file does not match this type.
    pub fn read() -> anyhow::Result<Self> {
        serde_json::from_str(include_str!("../../infra/stack.json")).context("cannot parse infra/stack.json")
    }
}

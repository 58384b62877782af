//! The facts of a deployment, which Terraform reads too: `infra/stack.json`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;

/// Everything in `infra/stack.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The connection table.
    pub table: Table,
    /// The queues.
    pub queues: Queues,
    /// The functions, by their short names.
    pub functions: BTreeMap<String, Function>,
    /// How the outbound queue invokes a function.
    pub mapping: Mapping,
    /// The WebSocket API.
    pub api: Api,
}

/// The connection table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its key.
    pub hash_key: String,
    /// The attribute by which DynamoDB deletes rows.
    pub ttl_attribute: String,
    /// Its global secondary indexes.
    pub indexes: Vec<Index>,
    /// What the indexes hold besides keys.
    pub projection: Vec<String>,
}

/// A global secondary index.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its key.
    pub hash_key: String,
}

/// The queues.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queues {
    /// What producers send to.
    pub outbound: OutboundQueue,
    /// Where messages go that nobody can deliver.
    pub dead_letter: DeadLetterQueue,
}

/// What producers send to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundQueue {
    /// Its name.
    pub name: String,
    /// How long a message that a worker holds is hidden from the others.
    pub visibility_timeout_seconds: u64,
    /// How long a message is kept.
    pub retention_seconds: u64,
    /// After how many receives SQS moves a message to the dead-letter queue.
    pub max_receive_count: u32,
    /// The same of a FIFO queue, where messages wait in place: SQS's maximum.
    pub fifo_max_receive_count: u32,
}

/// Where messages go that nobody can deliver.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterQueue {
    /// Its name.
    pub name: String,
    /// How long a message is kept.
    pub retention_seconds: u64,
}

/// A function.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// The package that it is built from.
    pub package: String,
    /// How long an invocation may take.
    pub timeout_seconds: i32,
    /// How much memory it has.
    pub memory_mb: i32,
    /// The environment variables that it reads, each with the name of what it holds. What a deployment has no
    /// value for is left to the function's default.
    pub environment: BTreeMap<String, String>,
}

/// How the outbound queue invokes a function.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Which.
    pub function: String,
    /// Messages in an invocation, at most.
    pub batch_size: i32,
    /// How long to wait for a batch to fill.
    pub batching_window_seconds: i32,
    /// How much of the account it may use.
    pub pace: Pace,
}

/// How many of the account's API Gateway requests a deployment may make.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// All of it, in a second.
    pub requests_per_second: i32,
    /// One execution environment of the worker, in a second.
    pub requests_per_second_of_an_environment: i32,
}

impl Pace {
    /// Invocations at the same time, at most: as many as the pace has use for, within Lambda's limits for a
    /// mapping, 2 to 1000.
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
    /// Its name.
    pub name: String,
    /// How API Gateway finds a message's route.
    pub route_selection_expression: String,
    /// What its access log says of a request, which is everything but what a client sent: a query may hold a token.
    pub access_log: BTreeMap<String, String>,
    /// Its routes, each with its function's short name.
    pub routes: BTreeMap<String, String>,
}

impl Facts {
    /// Puts `suffix` behind every name, so that the deployment stands beside others.
    pub(super) fn rename(&mut self, suffix: &str) {
        let Self { table, queues, functions: _, mapping: _, api } = self;
        for name in [&mut table.name, &mut queues.outbound.name, &mut queues.dead_letter.name, &mut api.name]
        {
            name.push_str(suffix);
        }
    }

    /// The name of the function with this short name.
    pub(super) fn function_name(&self, short: &str) -> String {
        format!("{}-{short}", self.api.name)
    }

    /// Reads them.
    ///
    /// # Errors
    /// When the file holds something else.
    pub fn read() -> anyhow::Result<Self> {
        serde_json::from_str(include_str!("../../../infra/stack.json")).context("infra/stack.json")
    }
}

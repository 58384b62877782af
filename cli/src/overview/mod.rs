//! A deployment at a glance, from the services themselves.
//!
//! - [`Deployment`]: what is looked at: names, and clients for them.
//! - [`Overview`]: what was seen. [`lines`](Overview::lines) is for people; as JSON it is for programs.

mod metrics;
mod table;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use aws_config::SdkConfig;
use serde::Serialize;
use streamer_connections::ConnectionTable;
use streamer_environment::aws::cause;

use self::metrics::CloudWatch;
use crate::{
    dead_letters::{DeadLetterQueue, Tally},
    queue::Counts,
};

/// How far back functions and circuit are looked at.
pub const WINDOW: Duration = Duration::from_secs(300);

/// Dead letters that are looked at, at most: to look at one hides it from others for a moment.
const LETTERS: usize = 1000;

/// How long a letter that was looked at is hidden, where it is not let go of.
const HIDDEN: Duration = Duration::from_secs(30);

/// How long the number of connections is good for: to count reads the table.
const COUNTED: Duration = Duration::from_secs(60);

/// Pages of the connection table that are counted, 1 MB each: some 60 000 connections.
const PAGES: usize = 20;

/// What is looked at.
#[derive(Debug)]
pub struct Deployment {
    /// What its functions' names begin with.
    pub name: String,
    /// The functions' names, by their short names.
    pub functions: BTreeMap<String, String>,
    /// Where it is, and as whom to look.
    pub config: SdkConfig,
}

/// What the worker's configuration says of the deployment.
struct Worker {
    queue_url: String,
    table: String,
    stage: String,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    #[serde(skip)]
    at: SystemTime,
    name: String,
    region: String,
    outbound: Queue,
    dead_letters: Queue,
    /// By reason.
    reasons: BTreeMap<String, usize>,
    connections: usize,
    /// Whether these are all connections.
    all_connections: bool,
    #[serde(skip)]
    counted_at: SystemTime,
    functions: BTreeMap<String, Function>,
    circuit: Circuit,
}

/// How full a queue is.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct Queue {
    waiting: usize,
    in_flight: usize,
    delayed: usize,
    /// The age of its oldest message, where somebody knows it.
    oldest_seconds: Option<u64>,
}

/// A function, in the last [`WINDOW`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Function {
    /// Nothing where CloudWatch has no value: it was not invoked, or nobody measures it.
    invocations: Option<usize>,
    errors: Option<usize>,
    throttles: Option<usize>,
    /// When its code or configuration was changed last.
    updated: String,
    /// The SHA-256 of its package, as `streamer package` prints it.
    code_sha256: String,
}

/// The circuits of all the worker's environments, in the last [`WINDOW`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct Circuit {
    /// Whether one of them was open at the end of its last invocations; unknown where there were none.
    open: Option<bool>,
    /// How often one has opened.
    opened: usize,
}

impl Overview {
    /// Looks at everything. What was seen `before` is taken over where another look would cost: dead letters while
    /// their number is the same, connections for a minute.
    ///
    /// # Errors
    /// Says which service did not answer, and to what.
    pub async fn of(deployment: &Deployment, worker: &str, before: Option<Self>) -> anyhow::Result<Self> {
        let Deployment { name, functions, config } = deployment;
        let now = SystemTime::now();
        let mut seen = BTreeMap::new();
        let (lambda, cloudwatch) = (aws_sdk_lambda::Client::new(config), CloudWatch::new(config));
        let mut found = None;
        for (short, function) in functions {
            let get = lambda.get_function_configuration().function_name(function).send().await;
            let is = get.map_err(|error| match error.as_service_error() {
                Some(refusal) if refusal.is_resource_not_found_exception() => {
                    anyhow!("there is no function {function}: is --name right, and the region?")
                }
                _ => anyhow!("the function {function} does not say how it is: {}", cause(&error)),
            })?;
            if short == worker {
                found = Some(Worker::of(is.environment().and_then(|environment| environment.variables()))?);
            }
            let sums = cloudwatch.function(function, now).await?;
            let updated = is.last_modified().unwrap_or_default().split(['.', '+']).next().unwrap_or_default();
            let function = Function {
                invocations: sums.invocations,
                errors: sums.errors,
                throttles: sums.throttles,
                updated: updated.replace('T', " "),
                code_sha256: is.code_sha256().unwrap_or_default().to_owned(),
            };
            seen.insert(short.clone(), function);
        }
        let Worker { queue_url, table, stage } = found.context("the deployment has no worker")?;
        let sqs = aws_sdk_sqs::Client::new(config);
        let mut letters = DeadLetterQueue::of(sqs.clone(), queue_url.clone(), HIDDEN).await?;
        let (mut outbound, mut dead_letters) =
            (queue(&sqs, &queue_url).await?, queue(&sqs, letters.url()).await?);
        outbound.oldest_seconds = cloudwatch.oldest_message(&queue_url, now).await?;
        let same = before.as_ref().filter(|before| before.dead_letters.waiting == dead_letters.waiting);
        let reasons = if let Some(before) = same {
            let later = now.duration_since(before.at).unwrap_or_default().as_secs();
            dead_letters.oldest_seconds = before.dead_letters.oldest_seconds.map(|seconds| seconds + later);
            before.reasons.clone()
        } else {
            let tally = tally(&mut letters, dead_letters.waiting.min(LETTERS)).await;
            letters.let_go().await;
            let tally = tally?;
            let age = |oldest| now.duration_since(oldest).unwrap_or_default().as_secs();
            dead_letters.oldest_seconds = tally.oldest().map(age);
            tally.by_reason().into_iter().map(|(reason, letters)| (reason.to_owned(), letters)).collect()
        };
        let counted =
            before.filter(|before| now.duration_since(before.counted_at).is_ok_and(|age| age < COUNTED));
        let (connections, all_connections, counted_at) = match counted {
            Some(before) => (before.connections, before.all_connections, before.counted_at),
            None => {
                let table = ConnectionTable::new(aws_sdk_dynamodb::Client::new(config), table);
                let (connections, all) = table.count(PAGES, now).await?;
                (connections, all, now)
            }
        };
        Ok(Self {
            at: now,
            name: name.clone(),
            region: config.region().map(ToString::to_string).unwrap_or_default(),
            outbound,
            dead_letters,
            reasons,
            connections,
            all_connections,
            counted_at,
            functions: seen,
            circuit: cloudwatch.circuit(&functions[worker], &stage, now).await?,
        })
    }
}

impl Worker {
    fn of(variables: Option<&std::collections::HashMap<String, String>>) -> anyhow::Result<Self> {
        let of = |name: &str| variables.and_then(|variables| variables.get(name).cloned());
        let needed = |name: &str| {
            of(name).with_context(|| format!("the worker has no {name}: is it one of Streamer's?"))
        };
        Ok(Self {
            queue_url: needed("QUEUE_URL")?,
            table: of("CONNECTIONS_TABLE")
                .unwrap_or_else(|| streamer_connections::CONNECTIONS_TABLE.example.to_owned()),
            stage: of("STAGE").unwrap_or_else(|| "local".to_owned()),
        })
    }
}

async fn queue(sqs: &aws_sdk_sqs::Client, url: &str) -> anyhow::Result<Queue> {
    let Counts { waiting, in_flight, delayed } = Counts::of(sqs, url).await?;
    Ok(Queue { waiting, in_flight, delayed, oldest_seconds: None })
}

/// Looks at some dead letters.
async fn tally(queue: &mut DeadLetterQueue, number: usize) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    while tally.letters() < number {
        let letters = queue.take().await?;
        if letters.is_empty() {
            break;
        }
        letters.iter().for_each(|letter| tally.add(letter));
    }
    Ok(tally)
}

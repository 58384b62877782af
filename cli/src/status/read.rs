//! Reads a deployment's state, one service after another.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use aws_config::SdkConfig;
use aws_sdk_lambda::{
    error::SdkError,
    operation::get_function_configuration::{GetFunctionConfigurationError, GetFunctionConfigurationOutput},
};
use streamer_connections::ConnectionTable;
use streamer_environment::failure::FailureKind;

use super::{
    cloudwatch::CloudWatch,
    snapshot::{DeploymentStatus, Function, Queue},
};
use crate::{
    aws::{Call, table_failed},
    dead_letters::{DeadLetterQueue, Tally},
    queue::MessageCounts,
};

/// Maximum number of dead letters received. Each is hidden from other consumers until it is released.
const MAX_DEAD_LETTERS: usize = 1000;

/// How long received dead letters stay hidden if they are not released.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a number of connections is reused, because counting reads the table.
const COUNT_LIFETIME: Duration = Duration::from_secs(60);

/// Maximum number of pages of the connection table that are counted, 1 MB each: about 60 000 connections.
const MAX_TABLE_PAGES: usize = 20;

/// The deployment to read.
#[derive(Debug)]
pub struct Deployment {
    /// The name, with which its functions' names start.
    pub name: String,
    /// The functions' names by short name.
    pub functions: BTreeMap<String, String>,
    /// Region and credentials.
    pub config: SdkConfig,
}

/// The resources that the worker's environment variables name.
struct WorkerConfig {
    queue_url: String,
    /// `None` if parts are on the outbound queue.
    parts_queue_url: Option<String>,
    /// `None` if the worker sends no receipts.
    receipts_queue_url: Option<String>,
    /// `None` if the worker delivers to connections only.
    table: Option<String>,
    stage: String,
}

/// Reads the state of a deployment, whose worker has the short name `worker`. Reuses expensive numbers of the
/// `previous` state: the tally of dead letters while their number is the same, and the number of connections for a
/// minute.
///
/// # Errors
/// When a service does not answer. The error names the request.
pub async fn read(
    deployment: &Deployment,
    worker: &str,
    previous: Option<DeploymentStatus>,
) -> anyhow::Result<DeploymentStatus> {
    let Deployment { name, functions, config } = deployment;
    let (now, previous) = (SystemTime::now(), previous.as_ref());
    let cloudwatch = CloudWatch::new(config);
    let (functions_status, worker_config) = read_functions(deployment, worker, &cloudwatch, now).await?;
    let WorkerConfig { queue_url, parts_queue_url, receipts_queue_url, table, stage } = worker_config;

    let sqs = aws_sdk_sqs::Client::new(config);
    let with_age = async |url: &str| {
        let oldest_seconds = cloudwatch.oldest_message(url, now).await?;
        anyhow::Ok(Queue { oldest_seconds, ..read_queue(&sqs, url).await? })
    };
    let outbound = with_age(&queue_url).await?;
    let parts = match &parts_queue_url {
        Some(url) => Some(with_age(url).await?),
        None => None,
    };
    let receipts = match &receipts_queue_url {
        Some(url) => Some(with_age(url).await?),
        None => None,
    };
    let (dead_letters, reasons) = read_dead_letters(&sqs, queue_url, previous, now).await?;
    let table = table.map(|name| ConnectionTable::new(aws_sdk_dynamodb::Client::new(config), name));
    let (connections, all_connections, counted_at) = match table {
        Some(table) => {
            let (live, all, counted_at) = count_connections(&table, previous, now).await?;
            (Some(live), all, counted_at)
        }
        None => (None, true, now),
    };
    Ok(DeploymentStatus {
        at: now,
        name: name.clone(),
        region: config.region().map(ToString::to_string).unwrap_or_default(),
        outbound,
        parts,
        dead_letters,
        reasons,
        receipts,
        connections,
        all_connections,
        counted_at,
        functions: functions_status,
        circuit: cloudwatch.circuit(&functions[worker], &stage, now).await?,
    })
}

/// Reads every function, and the worker's configuration. Beside an API that existed before, other functions may be
/// absent.
async fn read_functions(
    deployment: &Deployment,
    worker: &str,
    cloudwatch: &CloudWatch,
    now: SystemTime,
) -> anyhow::Result<(BTreeMap<String, Function>, WorkerConfig)> {
    let lambda = aws_sdk_lambda::Client::new(&deployment.config);
    let (mut functions, mut worker_config) = (BTreeMap::new(), None);
    for (short_name, name) in &deployment.functions {
        let get = lambda.get_function_configuration().function_name(name).send().await;
        let configuration = match get {
            Err(error) if short_name != worker && is_absent(&error) => continue,
            got => got.map_err(|error| describe(name, &error))?,
        };
        if *short_name == worker {
            let environment = configuration.environment();
            let variables = environment.and_then(|environment| environment.variables());
            worker_config = Some(WorkerConfig::from_variables(variables)?);
        }
        functions.insert(short_name.clone(), read_function(name, &configuration, cloudwatch, now).await?);
    }
    Ok((functions, worker_config.context("the deployment has no worker")?))
}

async fn read_function(
    name: &str,
    configuration: &GetFunctionConfigurationOutput,
    cloudwatch: &CloudWatch,
    now: SystemTime,
) -> anyhow::Result<Function> {
    let sums = cloudwatch.function(name, now).await?;
    let updated = configuration.last_modified().unwrap_or_default();
    let updated = updated.split(['.', '+']).next().unwrap_or_default();
    Ok(Function {
        invocations: sums.invocations,
        errors: sums.errors,
        throttles: sums.throttles,
        updated: updated.replace('T', " "),
        code_sha256: configuration.code_sha256().unwrap_or_default().to_owned(),
    })
}

fn is_absent(error: &SdkError<GetFunctionConfigurationError>) -> bool {
    error.as_service_error().is_some_and(GetFunctionConfigurationError::is_resource_not_found_exception)
}

fn describe(function: &str, error: &SdkError<GetFunctionConfigurationError>) -> anyhow::Error {
    match FailureKind::of(error) {
        FailureKind::NotFound => anyhow!("there is no function {function}: check --name and the Region"),
        _ => {
            let resource = format!("function {function}");
            Call { action: "lambda:GetFunctionConfiguration", resource: &resource }.failed(error)
        }
    }
}

impl WorkerConfig {
    fn from_variables(variables: Option<&HashMap<String, String>>) -> anyhow::Result<Self> {
        let optional = |name: &str| variables.and_then(|variables| variables.get(name).cloned());
        let required = |name: &str| {
            optional(name).with_context(|| {
                format!("the worker has no environment variable {name}: check that --name is a Streamer deployment")
            })
        };
        Ok(Self {
            queue_url: required("QUEUE_URL")?,
            parts_queue_url: optional("PARTS_QUEUE_URL").filter(|url| !url.is_empty()),
            receipts_queue_url: optional("RECEIPTS_QUEUE_URL").filter(|url| !url.is_empty()),
            table: optional("CONNECTIONS_TABLE").filter(|name| !name.is_empty()),
            stage: optional("STAGE").unwrap_or_else(|| "local".to_owned()),
        })
    }
}

async fn read_queue(sqs: &aws_sdk_sqs::Client, url: &str) -> anyhow::Result<Queue> {
    let MessageCounts { waiting, in_flight, delayed } = MessageCounts::read(sqs, url).await?;
    Ok(Queue { waiting, in_flight, delayed, oldest_seconds: None })
}

/// Reads the dead-letter queue, and the number of dead letters by reason.
async fn read_dead_letters(
    sqs: &aws_sdk_sqs::Client,
    queue_url: String,
    previous: Option<&DeploymentStatus>,
    now: SystemTime,
) -> anyhow::Result<(Queue, BTreeMap<String, usize>)> {
    let mut queue = DeadLetterQueue::of(sqs.clone(), queue_url, VISIBILITY_TIMEOUT).await?;
    let mut status = read_queue(sqs, queue.url()).await?;
    let unchanged = previous.filter(|previous| previous.dead_letters.waiting == status.waiting);
    if let Some(previous) = unchanged {
        let later = now.duration_since(previous.at).unwrap_or_default().as_secs();
        status.oldest_seconds = previous.dead_letters.oldest_seconds.map(|seconds| seconds + later);
        return Ok((status, previous.reasons.clone()));
    }
    let tally = tally(&mut queue, status.waiting.min(MAX_DEAD_LETTERS)).await;
    queue.release().await;
    let tally = tally?;
    // The queue's own count lags behind letters that have just arrived.
    status.waiting = status.waiting.max(tally.total());
    let age = |oldest| now.duration_since(oldest).unwrap_or_default().as_secs();
    status.oldest_seconds = tally.oldest().map(age);
    let reasons = tally.by_reason().into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
    Ok((status, reasons))
}

/// Receives and counts up to `number` dead letters.
async fn tally(queue: &mut DeadLetterQueue, number: usize) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    while tally.total() < number {
        let letters = queue.receive().await?;
        if letters.is_empty() {
            break;
        }
        letters.iter().for_each(|letter| tally.add(letter));
    }
    Ok(tally)
}

/// Returns the number of connections, whether it is complete, and the time of the count.
async fn count_connections(
    table: &ConnectionTable,
    previous: Option<&DeploymentStatus>,
    now: SystemTime,
) -> anyhow::Result<(usize, bool, SystemTime)> {
    let is_recent = |counted_at| now.duration_since(counted_at).is_ok_and(|age| age < COUNT_LIFETIME);
    if let Some(previous) = previous.filter(|previous| is_recent(previous.counted_at))
        && let Some(connections) = previous.connections
    {
        return Ok((connections, previous.all_connections, previous.counted_at));
    }
    let (connections, all) = table.count(MAX_TABLE_PAGES, now).await.map_err(|error| table_failed(&error))?;
    Ok((connections, all, now))
}

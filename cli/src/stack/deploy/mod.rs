//! Deploys the facts of `infra/stack.json`, our Lambdas and a router to an endpoint that speaks AWS.

mod api;
mod functions;
mod storage;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use streamer_environment::aws;

use super::{
    build::{Binaries, ROUTER, Router},
    emulator::REGION,
    facts::Facts,
    issuer::{ISSUER, Issuer},
};

/// The stage's name.
const STAGE: &str = "local";

/// What is deployed differently than on AWS, so that people and tests need not wait for minutes.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The outbound queue's visibility timeout.
    pub visibility_timeout: Option<Duration>,
    /// Whether the queues are FIFO queues.
    pub fifo: bool,
    /// Where the functions find the management endpoint, in place of the endpoint's own scheme and authority.
    pub management_origin: Option<String>,
    /// Environment variables of functions, by the function's short name.
    pub environment: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
}

/// What was deployed, and where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deployed {
    /// Where AWS's APIs are.
    pub endpoint_url: String,
    /// The region.
    pub region: String,
    /// Where clients connect.
    pub websocket_url: String,
    /// Where posts to connections go.
    pub management_endpoint: String,
    /// The outbound queue.
    pub queue_url: String,
    /// The dead-letter queue.
    pub dead_letter_queue_url: String,
    /// The connection table.
    pub connections_table: String,
    /// The functions' names, by their short names.
    pub functions: BTreeMap<String, String>,
    #[serde(skip)]
    api_id: String,
    #[serde(skip)]
    mapping_id: String,
}

/// Queues with a worker of their own.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What producers send to.
    pub queue_url: String,
    /// The dead-letter queue.
    pub dead_letter_queue_url: String,
    /// The worker's name.
    pub function: String,
}

/// The configuration of clients for an endpoint that is not AWS.
pub async fn local_config(endpoint_url: &str) -> SdkConfig {
    aws::loader()
        .endpoint_url(endpoint_url)
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::from_keys("test", "test", None))
        .load()
        .await
}

struct Deployment<'a> {
    facts: &'a Facts,
    overrides: &'a Overrides,
    lambda: aws_sdk_lambda::Client,
    sqs: aws_sdk_sqs::Client,
    dynamodb: aws_sdk_dynamodb::Client,
    api: aws_sdk_apigatewayv2::Client,
}

impl<'a> Deployment<'a> {
    fn new(config: &SdkConfig, facts: &'a Facts, overrides: &'a Overrides) -> Self {
        Self {
            facts,
            overrides,
            lambda: aws_sdk_lambda::Client::new(config),
            sqs: aws_sdk_sqs::Client::new(config),
            dynamodb: aws_sdk_dynamodb::Client::new(config),
            api: aws_sdk_apigatewayv2::Client::new(config),
        }
    }
}

/// Deploys everything to the endpoint of `config`.
///
/// # Errors
/// Says what could not be made.
pub async fn deploy(
    config: &SdkConfig,
    facts: &Facts,
    overrides: &Overrides,
    binaries: &Binaries,
    router: &Router,
    issuer: &Issuer,
) -> anyhow::Result<Deployed> {
    let deployment = Deployment::new(config, facts, overrides);
    let endpoint_url = config.endpoint_url().unwrap_or_default();
    let region = config.region().map(ToString::to_string).unwrap_or_default();
    deployment.table().await.context("the connection table could not be made")?;
    let (queue_url, queue_arn, dead_letter_queue_url) =
        deployment.queues().await.context("the queues could not be made")?;
    let api = deployment.create_api().await.context("the WebSocket API could not be made")?;
    let path = format!("_aws/execute-api/{api}/{STAGE}");
    let management_origin = overrides.management_origin.as_deref().unwrap_or(endpoint_url);
    let management_endpoint = format!("{management_origin}/{path}");

    let values = BTreeMap::from([
        ("connections_table", facts.table.name.as_str()),
        ("dead_letter_queue_url", dead_letter_queue_url.as_str()),
        ("jwt_issuer", ISSUER),
        ("jwt_public_key", issuer.public_key.as_str()),
        ("management_endpoint", management_endpoint.as_str()),
        ("queue_url", queue_url.as_str()),
        ("stage", STAGE),
    ]);
    let ours = facts.functions.iter().map(async |(name, function)| {
        let arn = deployment.function(name, function, &values, binaries).await;
        let arn = arn.with_context(|| format!("the function `{name}` could not be made"))?;
        anyhow::Ok((name.clone(), arn))
    });
    let mut functions: BTreeMap<_, _> = try_join_all(ours).await?.into_iter().collect();
    let router = deployment
        .router(&queue_url, binaries.zip_router(router)?)
        .await
        .context("the router could not be made")?;
    functions.insert(ROUTER.to_owned(), router);

    deployment.routes(&api, &region, &functions).await.context("the routes could not be made")?;
    let mapped = functions.get(&facts.mapping.function).context("infra/stack.json maps no function")?;
    let mapping_id =
        deployment.mapping(&queue_arn, mapped).await.context("the event source mapping could not be made")?;

    Ok(Deployed {
        endpoint_url: endpoint_url.to_owned(),
        region,
        websocket_url: format!("{}/{path}", endpoint_url.replacen("http", "ws", 1)),
        management_endpoint: management_endpoint.clone(),
        queue_url,
        dead_letter_queue_url,
        connections_table: facts.table.name.clone(),
        functions: functions.into_keys().map(|name| (name.clone(), facts.function_name(&name))).collect(),
        api_id: api,
        mapping_id,
    })
}

/// Deploys queues and a worker beside a stack, with `suffix` behind their names. The worker uses the stack's
/// table, and posts to `management_endpoint`.
///
/// # Errors
/// Says what could not be made.
pub async fn deploy_delivery(
    config: &SdkConfig,
    suffix: &str,
    overrides: &Overrides,
    binaries: &Binaries,
    management_endpoint: &str,
) -> anyhow::Result<Delivery> {
    let mut facts = Facts::read()?;
    let table = facts.table.name.clone();
    facts.rename(suffix);
    let deployment = Deployment::new(config, &facts, overrides);
    let (queue_url, queue_arn, dead_letter_queue_url) =
        deployment.queues().await.context("the queues could not be made")?;
    let values = BTreeMap::from([
        ("connections_table", table.as_str()),
        ("dead_letter_queue_url", dead_letter_queue_url.as_str()),
        ("management_endpoint", management_endpoint),
        ("queue_url", queue_url.as_str()),
        ("stage", STAGE),
    ]);
    let name = &facts.mapping.function;
    let worker = facts.functions.get(name).context("infra/stack.json maps no function")?;
    let arn = deployment.function(name, worker, &values, binaries).await;
    let arn = arn.context("the worker could not be made")?;
    deployment.mapping(&queue_arn, &arn).await.context("the event source mapping could not be made")?;
    Ok(Delivery { queue_url, dead_letter_queue_url, function: facts.function_name(name) })
}

/// Removes everything that was deployed.
///
/// # Errors
/// Says what could not be removed; what comes after it is still there.
pub async fn remove(config: &SdkConfig, deployed: &Deployed) -> anyhow::Result<()> {
    let lambda = aws_sdk_lambda::Client::new(config);
    let mapping = lambda.delete_event_source_mapping().uuid(&deployed.mapping_id);
    mapping.send().await.context("the event source mapping could not be removed")?;
    let api = aws_sdk_apigatewayv2::Client::new(config).delete_api().api_id(&deployed.api_id);
    api.send().await.context("the WebSocket API could not be removed")?;
    for function in deployed.functions.values() {
        let delete = lambda.delete_function().function_name(function).send().await;
        delete.with_context(|| format!("the function {function} could not be removed"))?;
    }
    let sqs = aws_sdk_sqs::Client::new(config);
    for queue in [&deployed.queue_url, &deployed.dead_letter_queue_url] {
        let delete = sqs.delete_queue().queue_url(queue).send().await;
        delete.with_context(|| format!("the queue {queue} could not be removed"))?;
    }
    let table = aws_sdk_dynamodb::Client::new(config).delete_table().table_name(&deployed.connections_table);
    table.send().await.context("the connection table could not be removed")?;
    Ok(())
}

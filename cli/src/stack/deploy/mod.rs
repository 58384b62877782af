//! Deploys the resources of `infra/stack.json`, the Lambda functions and a router to an endpoint that implements AWS's
//! APIs.

mod api;
mod deployer;
mod functions;
mod storage;

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use streamer_environment::aws;

pub use self::deployer::Overrides;
use self::{
    deployer::{Deployer, STAGE},
    storage::Queues,
};
use super::{
    build::{Binaries, ROUTER},
    emulator::REGION,
    issuer::{ISSUER, Issuer},
    router::Router,
};
use crate::spec::Spec;

/// Access key id and secret access key for an emulator, which accepts any.
pub const CREDENTIAL: &str = "test";

/// The names and URLs of a deployed stack.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Deployed {
    /// URL of AWS's APIs.
    pub endpoint_url: String,
    /// The Region.
    pub region: String,
    /// URL that clients connect to.
    pub websocket_url: String,
    /// URL of the management endpoint.
    pub management_endpoint: String,
    /// URL of the outbound queue.
    pub queue_url: String,
    /// URL of the parts queue. Empty without one, as beside a FIFO queue.
    #[serde(default)]
    pub parts_queue_url: String,
    /// URL of the dead-letter queue.
    pub dead_letter_queue_url: String,
    /// URL of the receipts queue.
    pub receipts_queue_url: String,
    /// Name of the connection table.
    pub connections_table: String,
    /// Name of the mailbox table.
    pub mailbox_table: String,
    /// The functions' names by short name.
    pub functions: BTreeMap<String, String>,
    #[serde(skip)]
    api_id: String,
    #[serde(skip)]
    mapping_ids: Vec<String>,
}

/// Queues with a worker of their own.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// URL of the outbound queue.
    pub queue_url: String,
    /// URL of the parts queue. Empty beside a FIFO queue.
    pub parts_queue_url: String,
    /// URL of the dead-letter queue.
    pub dead_letter_queue_url: String,
    /// URL of the receipts queue.
    pub receipts_queue_url: String,
    /// The worker's function name.
    pub function: String,
}

/// Builds the client configuration for an endpoint other than AWS.
pub async fn local_config(endpoint_url: &str) -> SdkConfig {
    aws::loader()
        .endpoint_url(endpoint_url)
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::from_keys(CREDENTIAL, CREDENTIAL, None))
        .load()
        .await
}

/// The input of [`deploy`].
#[derive(Debug, Clone, Copy)]
pub struct DeployInput<'a> {
    /// The resources.
    pub spec: &'a Spec,
    /// Settings that differ from a deployment on AWS.
    pub overrides: &'a Overrides,
    /// The functions' binaries.
    pub binaries: &'a Binaries,
    /// The router.
    pub router: &'a Router,
    /// The issuer whose tokens the stack accepts.
    pub issuer: &'a Issuer,
}

/// Deploys a whole stack to the endpoint of `config`.
///
/// # Errors
/// When a resource cannot be created. The error names it.
pub async fn deploy(config: &SdkConfig, input: DeployInput<'_>) -> anyhow::Result<Deployed> {
    let DeployInput { spec, overrides, binaries, router, issuer } = input;
    let deployer = Deployer::new(config, spec, overrides);
    let endpoint_url = config.endpoint_url().unwrap_or_default();
    let region = config.region().map(ToString::to_string).unwrap_or_default();
    deployer.create_table().await.context("cannot create the connection table")?;
    deployer.create_mailbox_table().await.context("cannot create the mailbox table")?;
    let queues = deployer.create_queues().await.context("cannot create the queues")?;
    let api = deployer.create_api().await.context("cannot create the WebSocket API")?;
    let path = format!("_aws/execute-api/{api}/{STAGE}");
    let management_origin = overrides.management_origin.as_deref().unwrap_or(endpoint_url);
    let management_endpoint = format!("{management_origin}/{path}");

    let mut values = BTreeMap::from([
        ("connections_table", spec.table.name.as_str()),
        ("dead_letter_queue_url", queues.dead_letter_url.as_str()),
        ("jwt_issuers", ISSUER),
        ("jwt_public_key", issuer.public_key.as_str()),
        ("mailbox_table", spec.mailbox.name.as_str()),
        ("management_endpoint", management_endpoint.as_str()),
        ("queue_url", queues.outbound_url.as_str()),
        ("receipts_queue_url", queues.receipts_url.as_str()),
        ("stage", STAGE),
    ]);
    values.extend(queues.parts.iter().map(|(url, _)| ("parts_queue_url", url.as_str())));
    let creating = spec.functions.iter().map(async |(name, function)| {
        let arn = deployer.create_function(name, function, &values, binaries).await;
        let arn = arn.with_context(|| format!("cannot create the function `{name}`"))?;
        anyhow::Ok((name.clone(), arn))
    });
    let mut functions: BTreeMap<_, _> = try_join_all(creating).await?.into_iter().collect();
    let router = deployer.create_router(&queues.outbound_url, router.code(binaries)?).await;
    functions.insert(ROUTER.to_owned(), router.context("cannot create the router")?);

    deployer.create_routes(&api, &region, &functions).await.context("cannot create the routes")?;
    let worker = functions.get(&spec.mapping.function).context("infra/stack.json maps no function")?;
    let mapping_ids =
        deployer.create_mappings(&queues, worker).await.context("cannot create the event source mappings")?;

    Ok(Deployed {
        endpoint_url: endpoint_url.to_owned(),
        region,
        websocket_url: format!("{}/{path}", endpoint_url.replacen("http", "ws", 1)),
        management_endpoint: management_endpoint.clone(),
        queue_url: queues.outbound_url.clone(),
        parts_queue_url: queues.parts.map(|(url, _)| url).unwrap_or_default(),
        dead_letter_queue_url: queues.dead_letter_url.clone(),
        receipts_queue_url: queues.receipts_url.clone(),
        connections_table: spec.table.name.clone(),
        mailbox_table: spec.mailbox.name.clone(),
        functions: functions.into_keys().map(|name| (name.clone(), spec.function_name(&name))).collect(),
        api_id: api,
        mapping_ids,
    })
}

/// Deploys further queues and a worker next to a stack, with `suffix` appended to their names. The worker uses the
/// stack's tables, and posts to `management_endpoint`.
///
/// # Errors
/// When a resource cannot be created. The error names it.
pub async fn deploy_delivery(
    config: &SdkConfig,
    suffix: &str,
    overrides: &Overrides,
    binaries: &Binaries,
    management_endpoint: &str,
) -> anyhow::Result<Delivery> {
    let mut spec = Spec::read()?;
    let (table, mailbox) = (spec.table.name.clone(), spec.mailbox.name.clone());
    spec.rename(suffix);
    let deployer = Deployer::new(config, &spec, overrides);
    let queues = deployer.create_queues().await.context("cannot create the queues")?;
    let Queues { outbound_url, outbound_arn: _, parts, dead_letter_url, receipts_url } = &queues;
    let mut values = BTreeMap::from([
        ("connections_table", table.as_str()),
        ("dead_letter_queue_url", dead_letter_url.as_str()),
        ("mailbox_table", mailbox.as_str()),
        ("management_endpoint", management_endpoint),
        ("queue_url", outbound_url.as_str()),
        ("receipts_queue_url", receipts_url.as_str()),
        ("stage", STAGE),
    ]);
    values.extend(parts.iter().map(|(url, _)| ("parts_queue_url", url.as_str())));
    let name = &spec.mapping.function;
    let worker = spec.functions.get(name).context("infra/stack.json maps no function")?;
    let arn = deployer.create_function(name, worker, &values, binaries).await;
    let arn = arn.context("cannot create the worker")?;
    deployer.create_mappings(&queues, &arn).await.context("cannot create the event source mappings")?;
    Ok(Delivery {
        queue_url: queues.outbound_url,
        parts_queue_url: queues.parts.map(|(url, _)| url).unwrap_or_default(),
        dead_letter_queue_url: queues.dead_letter_url,
        receipts_queue_url: queues.receipts_url,
        function: spec.function_name(name),
    })
}

/// Removes every resource of a stack.
///
/// # Errors
/// When a resource cannot be removed. The error names it; later resources are then left in place.
pub async fn remove(config: &SdkConfig, deployed: &Deployed) -> anyhow::Result<()> {
    let lambda = aws_sdk_lambda::Client::new(config);
    for mapping in &deployed.mapping_ids {
        let delete = lambda.delete_event_source_mapping().uuid(mapping);
        delete.send().await.context("cannot remove an event source mapping")?;
    }
    let api = aws_sdk_apigatewayv2::Client::new(config).delete_api().api_id(&deployed.api_id);
    api.send().await.context("cannot remove the WebSocket API")?;
    for function in deployed.functions.values() {
        let delete = lambda.delete_function().function_name(function).send().await;
        delete.with_context(|| format!("cannot remove the function {function}"))?;
    }
    let sqs = aws_sdk_sqs::Client::new(config);
    let queues = [&deployed.queue_url, &deployed.dead_letter_queue_url, &deployed.receipts_queue_url];
    for queue in queues.into_iter().chain(Some(&deployed.parts_queue_url).filter(|url| !url.is_empty())) {
        let delete = sqs.delete_queue().queue_url(queue).send().await;
        delete.with_context(|| format!("cannot remove the queue {queue}"))?;
    }
    let dynamodb = aws_sdk_dynamodb::Client::new(config);
    for table in [&deployed.connections_table, &deployed.mailbox_table] {
        let delete = dynamodb.delete_table().table_name(table).send().await;
        delete.with_context(|| format!("cannot remove the table {table}"))?;
    }
    Ok(())
}

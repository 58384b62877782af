//! Creates the functions, and the event source mapping that invokes the worker.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_sdk_lambda::{
    primitives::Blob,
    types::{Architecture, Environment, FunctionCode, FunctionResponseType, ScalingConfig},
};

use super::{deployer::Deployer, storage::Queues};
use crate::{
    package,
    spec::{Function, Mapping, Pace},
    stack::{
        build::{Binaries, ROUTER},
        router::Code,
    },
};

/// A role that does not exist. Emulators accept any.
const ROLE: &str = "arn:aws:iam::000000000000:role/streamer";

const ROUTER_TIMEOUT_SECONDS: i32 = 30;
const ROUTER_MEMORY_MB: i32 = 256;

/// The rate in `infra/stack.json` fits the smallest AWS account; this machine has no account with quotas.
const REQUESTS_PER_SECOND: i32 = 5000;

fn maximum_concurrency(mapping: &Mapping) -> i32 {
    Pace { requests_per_second: REQUESTS_PER_SECOND, ..mapping.pace }.maximum_concurrency()
}

/// A function's settings.
struct Settings {
    variables: BTreeMap<String, String>,
    timeout_seconds: i32,
    memory_mb: i32,
}

impl Deployer<'_> {
    /// Creates a function of the spec and returns its ARN. Its environment variables get their values from `values`.
    pub(super) async fn create_function(
        &self,
        name: &str,
        function: &Function,
        values: &BTreeMap<&str, &str>,
        binaries: &Binaries,
    ) -> anyhow::Result<String> {
        let timeout = function.timeout_seconds.to_string();
        let given = |(variable, value): (&String, &String)| {
            let value = match value.as_str() {
                "mailbox_timeout_seconds" | "worker_timeout_seconds" => timeout.as_str(),
                name => values.get(name)?,
            };
            Some((variable.clone(), value.to_owned()))
        };
        let mut variables: BTreeMap<_, _> = function.environment.iter().filter_map(given).collect();
        let overrides = self.overrides.environment.get(name).into_iter().flatten();
        variables.extend(overrides.map(|(variable, value)| ((*variable).to_owned(), value.clone())));
        let Function { timeout_seconds, memory_mb, .. } = *function;
        let settings = Settings { variables, timeout_seconds, memory_mb };
        let arn = self.create(name, Code::of_program(binaries.zip(&function.package)?), settings).await?;
        let mapping = &self.spec.mapping;
        if *name == mapping.function {
            // Reserved concurrency for both mappings prevents throttling: SQS counts the receives of throttled invocations,
            // too.
            let put = self.lambda.put_function_concurrency().function_name(self.spec.function_name(name));
            put.reserved_concurrent_executions(2 * maximum_concurrency(mapping)).send().await?;
        }
        Ok(arn)
    }

    /// Creates the router and returns its ARN.
    pub(super) async fn create_router(&self, queue_url: &str, code: Code) -> anyhow::Result<String> {
        let table = &self.spec.table.name;
        let settings = Settings {
            variables: BTreeMap::from([
                ("CONNECTIONS_TABLE".to_owned(), table.clone()),
                ("QUEUE_URL".to_owned(), queue_url.to_owned()),
            ]),
            timeout_seconds: ROUTER_TIMEOUT_SECONDS,
            memory_mb: ROUTER_MEMORY_MB,
        };
        self.create(ROUTER, code, settings).await
    }

    async fn create(&self, name: &str, code: Code, settings: Settings) -> anyhow::Result<String> {
        let Settings { variables, timeout_seconds, memory_mb } = settings;
        let environment = Environment::builder().set_variables(Some(variables.into_iter().collect()));
        let architecture = match package::Architecture::HERE {
            package::Architecture::Arm64 => Architecture::Arm64,
            package::Architecture::X86_64 => Architecture::X8664,
        };
        let created = self
            .lambda
            .create_function()
            .function_name(self.spec.function_name(name))
            .runtime(code.runtime)
            .architectures(architecture)
            .handler(code.handler)
            .role(ROLE)
            .timeout(timeout_seconds)
            .memory_size(memory_mb)
            .environment(environment.build())
            .code(FunctionCode::builder().zip_file(Blob::new(code.zip)).build())
            .send()
            .await?;
        created.function_arn.context("the response has no function ARN")
    }

    /// Creates the event source mappings from the outbound queue and the parts queue, and returns their ids.
    pub(super) async fn create_mappings(
        &self,
        queues: &Queues,
        function_arn: &str,
    ) -> anyhow::Result<Vec<String>> {
        let mut ids = vec![self.create_mapping(&queues.outbound_arn, function_arn).await?];
        if let Some((_, parts_arn)) = &queues.parts {
            ids.push(self.create_mapping(parts_arn, function_arn).await?);
        }
        Ok(ids)
    }

    async fn create_mapping(&self, queue_arn: &str, function_arn: &str) -> anyhow::Result<String> {
        let mapping = &self.spec.mapping;
        let scaling = ScalingConfig::builder().maximum_concurrency(maximum_concurrency(mapping)).build();
        let created = self
            .lambda
            .create_event_source_mapping()
            .event_source_arn(queue_arn)
            .function_name(function_arn)
            .batch_size(mapping.batch_size)
            .maximum_batching_window_in_seconds(mapping.batching_window_seconds)
            .scaling_config(scaling)
            .function_response_types(FunctionResponseType::ReportBatchItemFailures)
            .send()
            .await?;
        created.uuid.context("the response has no mapping id")
    }
}

//! The functions, and what invokes the worker.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_sdk_lambda::{
    primitives::Blob,
    types::{Architecture, Environment, FunctionCode, FunctionResponseType, Runtime, ScalingConfig},
};

use super::Deployment;
use crate::{
    package,
    stack::{
        build::{Binaries, ROUTER},
        facts::Function,
    },
};

/// Where a role would stand; emulators take any.
const ROLE: &str = "arn:aws:iam::000000000000:role/streamer";

impl Deployment<'_> {
    pub(super) async fn function(
        &self,
        name: &str,
        function: &Function,
        values: &BTreeMap<&str, &str>,
        binaries: &Binaries,
    ) -> anyhow::Result<String> {
        let timeout = function.timeout_seconds.to_string();
        let given = |(variable, value): (&String, &String)| {
            let value = match value.as_str() {
                "worker_timeout_seconds" => timeout.as_str(),
                name => values.get(name)?,
            };
            Some((variable.clone(), value.to_owned()))
        };
        let mut variables: BTreeMap<_, _> = function.environment.iter().filter_map(given).collect();
        let overrides = self.overrides.environment.get(name).into_iter().flatten();
        variables.extend(overrides.map(|(variable, value)| ((*variable).to_owned(), value.clone())));
        let (timeout, memory) = (function.timeout_seconds, function.memory_mb);
        let arn = self.create(name, binaries.zip(&function.package)?, variables, timeout, memory).await?;
        let mapping = &self.facts.mapping;
        if *name == mapping.function {
            // Where Lambda throttles the mapping's invocations, SQS counts the receives all the same.
            let put = self.lambda.put_function_concurrency().function_name(self.facts.function_name(name));
            put.reserved_concurrent_executions(mapping.pace.maximum_concurrency()).send().await?;
        }
        Ok(arn)
    }

    pub(super) async fn router(&self, queue_url: &str, zip: Vec<u8>) -> anyhow::Result<String> {
        let variables = BTreeMap::from([("QUEUE_URL".to_owned(), queue_url.to_owned())]);
        self.create(ROUTER, zip, variables, 30, 256).await
    }

    async fn create(
        &self,
        name: &str,
        zip: Vec<u8>,
        variables: BTreeMap<String, String>,
        timeout_seconds: i32,
        memory_mb: i32,
    ) -> anyhow::Result<String> {
        let environment = Environment::builder().set_variables(Some(variables.into_iter().collect()));
        let architecture = match package::Architecture::HERE {
            package::Architecture::Arm64 => Architecture::Arm64,
            package::Architecture::X86_64 => Architecture::X8664,
        };
        let created = self
            .lambda
            .create_function()
            .function_name(self.facts.function_name(name))
            .runtime(Runtime::Providedal2023)
            .architectures(architecture)
            .handler("bootstrap")
            .role(ROLE)
            .timeout(timeout_seconds)
            .memory_size(memory_mb)
            .environment(environment.build())
            .code(FunctionCode::builder().zip_file(Blob::new(zip)).build())
            .send()
            .await?;
        created.function_arn.context("no function ARN")
    }

    /// The mapping's id.
    pub(super) async fn mapping(&self, queue_arn: &str, function_arn: &str) -> anyhow::Result<String> {
        let mapping = &self.facts.mapping;
        let scaling =
            ScalingConfig::builder().maximum_concurrency(mapping.pace.maximum_concurrency()).build();
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
        created.uuid.context("no mapping id")
    }
}

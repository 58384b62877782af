//! The clients and settings with which resources are created.

use std::{collections::BTreeMap, time::Duration};

use aws_config::SdkConfig;
use streamer_environment::values;

use crate::{spec::Spec, stack::front_door::Limits};

/// Name of the API's stage.
pub(super) const STAGE: &str = "local";

/// Settings that differ from a deployment on AWS, so that people and tests need not wait for minutes.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The outbound queue's visibility timeout.
    pub visibility_timeout: Option<Duration>,
    /// Whether the queues are FIFO queues.
    pub fifo: bool,
    /// Scheme and authority of the management endpoint that the functions use, in place of the endpoint's own.
    pub management_origin: Option<String>,
    /// The times after which the front door closes a connection.
    pub limits: Limits,
    /// Environment variables by the function's short name.
    pub environment: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
}

impl Overrides {
    /// Returns the subprotocols that `connect-handler` answers besides `streamer.jwt`.
    pub(crate) fn subprotocols(&self) -> Vec<String> {
        let configured = self.environment.get("connect").and_then(|variables| variables.get("SUBPROTOCOLS"));
        configured.and_then(|list| values::list(list)).unwrap_or_default()
    }

    /// Makes the worker log delivered messages, too, unless its log level is set. `streamer logs` shows them.
    #[must_use]
    pub fn with_deliveries_logged(mut self) -> Self {
        let worker = self.environment.entry("delivery").or_default();
        worker.entry("LOG_LEVEL").or_insert_with(|| "debug".to_owned());
        self
    }
}

/// Creates the resources of `spec`. Each kind of resource has its own file.
pub(super) struct Deployer<'a> {
    pub spec: &'a Spec,
    pub overrides: &'a Overrides,
    pub lambda: aws_sdk_lambda::Client,
    pub sqs: aws_sdk_sqs::Client,
    pub dynamodb: aws_sdk_dynamodb::Client,
    pub api: aws_sdk_apigatewayv2::Client,
}

impl<'a> Deployer<'a> {
    pub(super) fn new(config: &SdkConfig, spec: &'a Spec, overrides: &'a Overrides) -> Self {
        Self {
            spec,
            overrides,
            lambda: aws_sdk_lambda::Client::new(config),
            sqs: aws_sdk_sqs::Client::new(config),
            dynamodb: aws_sdk_dynamodb::Client::new(config),
            api: aws_sdk_apigatewayv2::Client::new(config),
        }
    }
}

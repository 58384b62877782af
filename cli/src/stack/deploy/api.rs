//! Creates the WebSocket API.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_sdk_apigatewayv2::types::{IntegrationType, ProtocolType};

use super::deployer::{Deployer, STAGE};
use crate::stack::build::ROUTER;

/// The route of messages that match no other route.
const DEFAULT_ROUTE: &str = "$default";

impl Deployer<'_> {
    /// Creates the API and returns its id.
    pub(super) async fn create_api(&self) -> anyhow::Result<String> {
        let api = &self.spec.api;
        let create = self.api.create_api().name(&api.name).protocol_type(ProtocolType::Websocket);
        let created = create.route_selection_expression(&api.route_selection_expression).send().await?;
        created.api_id.context("the response has no API id")
    }

    /// Creates a route to each function, and the stage.
    pub(super) async fn create_routes(
        &self,
        api: &str,
        region: &str,
        functions: &BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        let default = (DEFAULT_ROUTE.to_owned(), ROUTER.to_owned());
        for (route, function) in self.spec.api.routes.clone().into_iter().chain([default]) {
            let arn = functions
                .get(&function)
                .with_context(|| format!("the route {route} names an unknown function, {function}"))?;
            let uri =
                format!("arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{arn}/invocations");
            let create =
                self.api.create_integration().api_id(api).integration_type(IntegrationType::AwsProxy);
            let created = create.integration_uri(uri).send().await?;
            let integration = created.integration_id.context("the response has no integration id")?;
            let create = self.api.create_route().api_id(api).route_key(route);
            create.target(format!("integrations/{integration}")).send().await?;
        }
        self.api.create_stage().api_id(api).stage_name(STAGE).auto_deploy(true).send().await?;
        Ok(())
    }
}

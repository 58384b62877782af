//! The WebSocket API.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_sdk_apigatewayv2::types::{IntegrationType, ProtocolType};

use super::{Deployment, STAGE};
use crate::stack::build::ROUTER;

/// The route of everything that has no route of its own.
const DEFAULT_ROUTE: &str = "$default";

impl Deployment<'_> {
    pub(super) async fn create_api(&self) -> anyhow::Result<String> {
        let api = &self.facts.api;
        let create = self.api.create_api().name(&api.name).protocol_type(ProtocolType::Websocket);
        let created = create.route_selection_expression(&api.route_selection_expression).send().await?;
        created.api_id.context("no API id")
    }

    pub(super) async fn routes(
        &self,
        api: &str,
        region: &str,
        functions: &BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        let default = (DEFAULT_ROUTE.to_owned(), ROUTER.to_owned());
        for (route, function) in self.facts.api.routes.clone().into_iter().chain([default]) {
            let arn =
                functions.get(&function).with_context(|| format!("no function for the route {route}"))?;
            let uri =
                format!("arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{arn}/invocations");
            let create =
                self.api.create_integration().api_id(api).integration_type(IntegrationType::AwsProxy);
            let integration =
                create.integration_uri(uri).send().await?.integration_id.context("no integration id")?;
            let create = self.api.create_route().api_id(api).route_key(route);
            create.target(format!("integrations/{integration}")).send().await?;
        }
        self.api.create_stage().api_id(api).stage_name(STAGE).auto_deploy(true).send().await?;
        Ok(())
    }
}

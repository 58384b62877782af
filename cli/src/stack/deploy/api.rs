//! Creates the WebSocket API.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_sdk_apigatewayv2::types::{IntegrationType, ProtocolType};
use serde_json::Value;

use super::deployer::{Deployer, STAGE};
use crate::stack::build::ROUTER;

/// The route of messages that match no other route. Also the key of responses and templates that apply to every
/// response.
const DEFAULT: &str = "$default";

/// Selects the template [`DEFAULT`]: in a selection expression, `$` begins a variable unless it is escaped.
const DEFAULT_TEMPLATE: &str = "\\$default";

impl Deployer<'_> {
    /// Creates the API and returns its id.
    pub(super) async fn create_api(&self) -> anyhow::Result<String> {
        let api = &self.spec.api;
        let create = self.api.create_api().name(&api.name).protocol_type(ProtocolType::Websocket);
        let created = create.route_selection_expression(&api.route_selection_expression).send().await?;
        created.api_id.context("the response has no API id")
    }

    /// Creates a route to each function, those that the API answers itself, and the stage.
    pub(super) async fn create_routes(
        &self,
        api: &str,
        region: &str,
        functions: &BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        let default = (DEFAULT.to_owned(), ROUTER.to_owned());
        for (route, function) in self.spec.api.routes.clone().into_iter().chain([default]) {
            let arn = functions
                .get(&function)
                .with_context(|| format!("the route {route} names an unknown function, {function}"))?;
            self.create_function_route(api, region, route, arn).await?;
        }
        for (route, response) in &self.spec.api.mock_responses {
            self.create_mock_route(api, route, response).await?;
        }
        self.api.create_stage().api_id(api).stage_name(STAGE).auto_deploy(true).send().await?;
        Ok(())
    }

    async fn create_function_route(
        &self,
        api: &str,
        region: &str,
        route: String,
        arn: &str,
    ) -> anyhow::Result<()> {
        let uri = format!("arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{arn}/invocations");
        let create = self.api.create_integration().api_id(api).integration_type(IntegrationType::AwsProxy);
        let created = create.integration_uri(uri).send().await?;
        let integration = created.integration_id.context("the response has no integration id")?;
        let create = self.api.create_route().api_id(api).route_key(route);
        create.target(format!("integrations/{integration}")).send().await?;
        Ok(())
    }

    /// Creates a route that the API answers with `response`, without a function. The client receives it only if the
    /// route has a route response.
    ///
    /// Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-integration-responses.html>.
    async fn create_mock_route(&self, api: &str, route: &str, response: &Value) -> anyhow::Result<()> {
        let create = self.api.create_integration().api_id(api).integration_type(IntegrationType::Mock);
        let create = create.template_selection_expression(DEFAULT_TEMPLATE);
        let created = create.request_templates(DEFAULT, r#"{"statusCode":200}"#).send().await?;
        let integration = created.integration_id.context("the response has no integration id")?;
        let create = self.api.create_integration_response().api_id(api).integration_id(&integration);
        let create =
            create.integration_response_key(DEFAULT).response_templates(DEFAULT, response.to_string());
        create.template_selection_expression(DEFAULT_TEMPLATE).send().await?;
        let create = self.api.create_route().api_id(api).route_key(route);
        let create = create.route_response_selection_expression(DEFAULT);
        let created = create.target(format!("integrations/{integration}")).send().await?;
        let route = created.route_id.context("the response has no route id")?;
        self.api
            .create_route_response()
            .api_id(api)
            .route_id(route)
            .route_response_key(DEFAULT)
            .send()
            .await?;
        Ok(())
    }
}

//! The WebSocket API.

use std::collections::BTreeMap;

use aws_sdk_apigatewayv2::{
    Client,
    operation::{get_api::GetApiOutput, get_stage::GetStageOutput},
    types::{LoggingLevel, ProtocolType, Route, RouteSettings},
};
use serde_json::Value;

use super::{Rule, Unread, read};
use crate::doctor::{Check, Subject, Verdict};

/// Maximum number of pages of routes.
const MAX_PAGES: usize = 10;

/// The part of a host name after an API's id.
const HOST: &str = ".execute-api.";

/// The path of APIs on the stack on this machine.
const LOCAL_PATH: &str = "/_aws/execute-api/";

/// An API and its stage.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    api: &'a str,
    stage: &'a str,
}

impl<'a> Address<'a> {
    /// Parses a management endpoint that is not behind a custom domain.
    fn of(endpoint: &'a str) -> Option<Self> {
        let (_, rest) = endpoint.split_once("://")?;
        let (api, path) = match rest.split_once(LOCAL_PATH) {
            Some((_, path)) => path.split_once('/')?,
            None => {
                let (host, path) = rest.split_once('/')?;
                (host.split_once(HOST)?.0, path)
            }
        };
        let stage = path.trim_end_matches('/');
        (!api.is_empty() && !stage.is_empty() && !stage.contains('/')).then_some(Self { api, stage })
    }
}

/// Reads and checks the API whose id the worker's management endpoint contains.
pub(super) async fn examine(subject: &Subject, done: &mut impl FnMut(Check)) {
    let Some(endpoint) = subject.variable("WEBSOCKET_ENDPOINT") else {
        let reason = "the worker has no WEBSOCKET_ENDPOINT, which contains the API's id";
        return done(Check::skipped("api.exists", "a WebSocket API", reason));
    };
    let Some(address) = Address::of(endpoint) else {
        let reason = format!("{endpoint} is a custom domain, which does not contain the API's id");
        return done(Check::skipped("api.exists", "a WebSocket API", reason));
    };
    let client = Client::new(&subject.config);
    let resource = format!("API {}", address.api);
    let rule = Rule::new(
        "api.exists",
        "a WebSocket API with its default endpoint",
        "correct WEBSOCKET_ENDPOINT (`management_endpoint` in Terraform) and the Region: posts to the endpoint fail",
    );
    let api = match read("apigateway:GET", &resource, client.get_api().api_id(address.api).send()).await {
        Ok(api) => api,
        Err(unread) => return done(unread.check(rule, &resource)),
    };
    done(exists(rule, &api, address.api));
    let keeps_messages = subject.functions.contains_key("mailbox");
    done(selection(api.route_selection_expression(), keeps_messages));
    match list_routes(&client, &address, &resource).await {
        Ok(found) => done(routes(&found, subject, keeps_messages)),
        Err(unread) => {
            done(Check::skipped("api.routes", "the routes of the module", unread.reason(&resource)));
        }
    }
    let resource = format!("stage {} of {resource}", address.stage);
    let rule = Rule::new(
        "api.stage",
        "the stage that the management endpoint names",
        "correct the stage in WEBSOCKET_ENDPOINT, or create the stage: posts to the endpoint fail",
    );
    let get = client.get_stage().api_id(address.api).stage_name(address.stage).send();
    match read("apigateway:GET", &resource, get).await {
        Ok(stage) => {
            done(rule.ok(address.stage));
            done(throttling(&stage, subject.spec.mapping.pace.requests_per_second));
            done(logging(&stage));
        }
        Err(unread) => done(unread.check(rule, &resource)),
    }
}

async fn list_routes(client: &Client, address: &Address<'_>, resource: &str) -> Result<Vec<Route>, Unread> {
    let (mut routes, mut next) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let get = client.get_routes().api_id(address.api).set_next_token(next).send();
        let page = read("apigateway:GET", resource, get).await?;
        routes.extend(page.items.unwrap_or_default());
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            break;
        }
    }
    Ok(routes)
}

fn exists(rule: Rule, api: &GetApiOutput, id: &str) -> Check {
    match api.protocol_type() {
        Some(ProtocolType::Websocket) if api.disable_execute_api_endpoint() == Some(true) => {
            rule.failed(format!("{id}, whose default endpoint is disabled"))
        }
        Some(ProtocolType::Websocket) => rule.ok(id),
        other => rule.failed(format!("{id}: {}", other.map_or("an unknown protocol", ProtocolType::as_str))),
    }
}

/// The mailbox's frames have the route key in the fields `type` and `action`.
fn selection(expression: Option<&str>, keeps_messages: bool) -> Check {
    let rule = Rule::new(
        "api.selection",
        "$request.body.type or $request.body.action",
        "set the API's route selection expression (`route_selection_expression` in Terraform): the mailbox gets no frames of clients",
    );
    let expression = expression.unwrap_or("none");
    if !keeps_messages {
        return rule.skipped("the deployment has no mailbox");
    }
    let plain: String = expression.chars().filter(|character| !matches!(character, '{' | '}')).collect();
    rule.require(matches!(plain.as_str(), "$request.body.type" | "$request.body.action"), expression)
}

fn routes(routes: &[Route], subject: &Subject, keeps_messages: bool) -> Check {
    let api = &subject.spec.api;
    let verdict = |route: &String, short: &String| match route.as_str() {
        // Without it, rows of closed connections stay until a post to them fails with 410.
        "$disconnect" => Some(Verdict::Warning),
        _ if short == "mailbox" && !keeps_messages => None,
        _ => Some(Verdict::Failed),
    };
    let wanted =
        api.routes.iter().filter_map(|(route, short)| Some((route.as_str(), verdict(route, short)?)));
    let mocks = if keeps_messages { api.mock_responses.clone() } else { BTreeMap::new() };
    compare_routes(routes, &wanted.collect::<Vec<_>>(), &mocks)
}

fn compare_routes(routes: &[Route], wanted: &[(&str, Verdict)], mocks: &BTreeMap<String, Value>) -> Check {
    let keys = wanted.iter().map(|(key, _)| *key).chain(mocks.keys().map(String::as_str)).collect::<Vec<_>>();
    let rule = Rule::new(
        "api.routes",
        format!("the routes {}, each with an integration", keys.join(", ")),
        "create the routes again (`terraform apply` does), and deploy the stage if it does not deploy automatically: API Gateway \
         drops frames without a route, and without `$connect` admits every client",
    );
    let find = |key: &str| routes.iter().find(|route| route.route_key() == Some(key));
    let missing = wanted.iter().filter_map(|(key, verdict)| {
        let target = find(key).and_then(Route::target);
        target.is_none().then(|| (*verdict, format!("no {key}")))
    });
    // API Gateway sends the answer of a mock integration only if the route has a response.
    let silent =
        mocks.keys().filter_map(|key| match find(key).map(Route::route_response_selection_expression) {
            None => Some((Verdict::Failed, format!("no {key}"))),
            Some(None) => Some((Verdict::Failed, format!("{key} has no response"))),
            Some(Some(_)) => None,
        });
    rule.worst(missing.chain(silent).collect(), keys.join(", "))
}

/// The settings of a stage: its default, and those of single routes.
fn settings(stage: &GetStageOutput) -> impl Iterator<Item = (&str, &RouteSettings)> {
    let own = stage.route_settings().into_iter().flatten().map(|(key, settings)| (key.as_str(), settings));
    stage.default_route_settings().map(|settings| ("all routes", settings)).into_iter().chain(own)
}

fn throttling(stage: &GetStageOutput, requests_per_second: i32) -> Check {
    let rule = Rule::new(
        "api.throttling",
        format!("at least {requests_per_second} requests per second, or the account's limit"),
        "raise `throttling` in Terraform: clients beyond the rate are refused, and a rate of 0 refuses all",
    );
    let faults = settings(stage).filter_map(|(key, settings)| {
        let rate = settings.throttling_rate_limit()?;
        let verdict = match rate {
            rate if rate <= 0.0 => Verdict::Failed,
            rate if rate < f64::from(requests_per_second) => Verdict::Warning,
            _ => return None,
        };
        Some((verdict, format!("{rate} per second for {key}")))
    });
    let rate = stage.default_route_settings().and_then(RouteSettings::throttling_rate_limit);
    rule.worst(
        faults.collect(),
        rate.map_or("the account's limit".to_owned(), |rate| format!("{rate} per second")),
    )
}

/// Execution logs contain query strings, and a query string may contain a token.
fn logging(stage: &GetStageOutput) -> Check {
    let rule = Rule::new(
        "api.logging",
        "no execution logs",
        "set the stage's logging level to OFF, and data tracing to false: execution logs contain the tokens in query strings",
    );
    let faults = settings(stage).filter_map(|(key, settings)| {
        let level = settings.logging_level().unwrap_or(&LoggingLevel::Off);
        let traces = settings.data_trace_enabled() == Some(true);
        let logs = *level != LoggingLevel::Off || traces;
        let data = if traces { " with data" } else { "" };
        logs.then(|| (Verdict::Warning, format!("{key}: level {level}{data}")))
    });
    rule.worst(faults.collect(), "off")
}

#[cfg(test)]
mod tests;

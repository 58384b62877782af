//! `infra/` and the docs against the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod docs;
mod examples;
mod hcl;
mod migration;
mod package;
mod privileges;
mod protection;
mod shutdown;
mod terraform;

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use streamer_cli::{
    paths,
    spec::{Pace, Spec},
};
use streamer_environment::Variable;

fn variables(function: &str) -> Vec<Variable> {
    match function {
        "connect" => connect_handler::config::VARIABLES.to_vec(),
        "disconnect" => disconnect_handler::config::VARIABLES.to_vec(),
        "delivery" => delivery_worker::config::VARIABLES.to_vec(),
        "mailbox" => mailbox_handler::config::VARIABLES.to_vec(),
        other => panic!("an unknown function: {other}"),
    }
}

/// Lambda sets this variable, and refuses it in a function's configuration.
const SET_BY_LAMBDA: &str = "AWS_REGION";

#[test]
fn functions_get_exactly_their_variables() {
    for (name, function) in &Spec::read().unwrap().functions {
        let read = variables(name).into_iter().map(|variable| variable.name);
        let read: BTreeSet<_> = read.filter(|variable| *variable != SET_BY_LAMBDA).collect();
        let given: BTreeSet<_> = function.environment.keys().map(String::as_str).collect();
        assert_eq!(given, read, "{name}");
    }
}

/// API Gateway has one integration for each route.
#[test]
fn routes_have_functions_or_mock_responses() {
    let spec = Spec::read().unwrap();
    for (route, function) in &spec.api.routes {
        assert!(spec.functions.contains_key(function), "{route}: {function}");
        assert!(!spec.api.mock_responses.contains_key(route), "{route}");
    }
    for (route, response) in &spec.api.mock_responses {
        assert!(response["type"].is_string(), "{route}: {response}");
    }
}

/// A frame without a route would reach the user's router.
#[test]
fn every_client_frame_has_a_route() {
    let schema = paths::workspace().join("message/schema/client-frame.json");
    let schema: Value = serde_json::from_slice(&fs::read(schema).unwrap()).unwrap();
    let frames = schema["oneOf"].as_array().unwrap().iter();
    let frames: BTreeSet<_> =
        frames.map(|frame| frame["properties"]["type"]["const"].as_str().unwrap()).collect();
    let api = Spec::read().unwrap().api;
    let routes = api.routes.keys().chain(api.mock_responses.keys()).map(String::as_str);
    assert_eq!(frames, routes.filter(|route| !route.starts_with('$')).collect());
}

#[test]
fn timeouts_and_retentions_fit_together() {
    let spec = Spec::read().unwrap();
    let worker = &spec.functions[&spec.mapping.function];
    let visibility = spec.queues.outbound.visibility_timeout_seconds;
    assert!(visibility >= 6 * u64::try_from(worker.timeout_seconds).unwrap(), "AWS recommends six timeouts");
    assert!(spec.queues.dead_letter.retention_seconds > spec.queues.outbound.retention_seconds);
}

#[test]
fn pace_determines_maximum_concurrency() {
    let pace = |requests_per_second| Pace { requests_per_second, ..Spec::read().unwrap().mapping.pace };
    let workers = |requests| pace(requests).maximum_concurrency();
    assert_eq!([1, 1000, 1001, 5000, 1_000_000].map(workers), [2, 2, 3, 10, 1000]);
}

/// Queries and headers may hold tokens.
#[test]
fn access_log_holds_no_client_input() {
    let log = Spec::read().unwrap().api.access_log;
    let known = ["requestId", "routeKey", "eventType", "connectionId", "status", "error"];
    assert!(known.iter().all(|field| log.contains_key(*field)));
    for (field, variable) in log {
        let name = variable.strip_prefix("$context.").unwrap();
        assert!(
            name.chars().all(|character| character.is_ascii_alphanumeric() || character == '.'),
            "{field}"
        );
        for sent in ["query", "header", "path", "authorizer", "authenticate", "userAgent", "override"] {
            assert!(!name.to_lowercase().contains(&sent.to_lowercase()), "{field}: {variable}");
        }
    }
}

//! `infra/`, the README and the promises against the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hcl;
mod package;
mod privileges;
mod terraform;

use std::{collections::BTreeSet, fs};

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
        other => panic!("an unknown function: {other}"),
    }
}

/// What Lambda sets itself, nobody else can.
const SET_BY_LAMBDA: &str = "AWS_REGION";

#[test]
fn a_function_is_given_exactly_the_variables_that_it_reads() {
    for (name, function) in &Spec::read().unwrap().functions {
        let read = variables(name).into_iter().map(|variable| variable.name);
        let read: BTreeSet<_> = read.filter(|variable| *variable != SET_BY_LAMBDA).collect();
        let given: BTreeSet<_> = function.environment.keys().map(String::as_str).collect();
        assert_eq!(given, read, "{name}");
    }
}

#[test]
fn the_rules_between_settings_hold() {
    let facts = Spec::read().unwrap();
    let worker = &facts.functions[&facts.mapping.function];
    let visibility = facts.queues.outbound.visibility_timeout_seconds;
    assert!(visibility >= 6 * u64::try_from(worker.timeout_seconds).unwrap(), "AWS recommends six timeouts");
    assert!(facts.queues.dead_letter.retention_seconds > facts.queues.outbound.retention_seconds);
}

#[test]
fn the_pace_makes_as_many_workers_as_it_has_use_for() {
    let pace = |requests_per_second| Pace { requests_per_second, ..Spec::read().unwrap().mapping.pace };
    let workers = |requests| pace(requests).maximum_concurrency();
    assert_eq!([1, 1000, 1001, 5000, 1_000_000].map(workers), [2, 2, 3, 10, 1000]);
}

/// A query may hold a token, and so may a header: neither may a log.
#[test]
fn the_access_log_holds_nothing_that_a_client_sent() {
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

#[test]
fn the_readme_names_every_variable() {
    let readme = fs::read_to_string(paths::workspace().join("README.md")).unwrap();
    for function in Spec::read().unwrap().functions.keys() {
        for variable in variables(function) {
            assert!(readme.contains(&format!("`{}`", variable.name)), "{function} reads {}", variable.name);
        }
    }
}

/// In `docs/semantics.md` a promise names tests as `file`: `name`, `name`.
#[test]
fn every_promise_names_tests_that_exist() {
    let text = fs::read_to_string(paths::workspace().join("docs/semantics.md")).unwrap();
    let (mut file, mut checked) = (String::new(), 0);
    for quoted in
        text.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('`').skip(1).step_by(2))
    {
        if quoted.ends_with(".rs") {
            file = fs::read_to_string(paths::workspace().join(quoted)).unwrap();
        } else if quoted.matches('_').count() >= 3 && quoted == quoted.to_lowercase() {
            assert!(file.contains(&format!("fn {quoted}(")), "{quoted}");
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked}");
    assert!(!text.contains("| |\n"), "a promise without a test");
}

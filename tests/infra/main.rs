//! `infra/stack.json`, the README and the promises against the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs};

use streamer_cli::stack::{facts::Facts, places};
use streamer_environment::Variable;

fn variables(function: &str) -> Vec<Variable> {
    match function {
        "connect" => connect_handler::config::VARIABLES.to_vec(),
        "disconnect" => disconnect_handler::config::VARIABLES.to_vec(),
        "delivery" => delivery_worker::config::VARIABLES.to_vec(),
        other => panic!("an unknown function: {other}"),
    }
}

#[test]
fn every_variable_that_a_function_is_given_is_one_that_it_reads() {
    for (name, function) in &Facts::read().unwrap().functions {
        let read: BTreeSet<_> = variables(name).iter().map(|variable| variable.name).collect();
        for variable in function.environment.keys() {
            assert!(read.contains(variable.as_str()), "{name} is given {variable}, which it does not read");
        }
    }
}

#[test]
fn the_rules_between_settings_hold() {
    let facts = Facts::read().unwrap();
    let worker = &facts.functions[&facts.mapping.function];
    let visibility = facts.queues.outbound.visibility_timeout_seconds;
    assert!(visibility >= 6 * u64::try_from(worker.timeout_seconds).unwrap(), "AWS recommends six timeouts");
    assert!(
        facts.mapping.maximum_concurrency <= worker.reserved_concurrency.unwrap(),
        "throttled batches count as receives"
    );
    assert!(facts.queues.dead_letter.retention_seconds > facts.queues.outbound.retention_seconds);
}

/// A query may hold a token, and so may a header: neither may a log.
#[test]
fn the_access_log_holds_nothing_that_a_client_sent() {
    let log = Facts::read().unwrap().api.access_log;
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
    let readme = fs::read_to_string(places::workspace().join("README.md")).unwrap();
    for function in Facts::read().unwrap().functions.keys() {
        for variable in variables(function) {
            assert!(readme.contains(&format!("`{}`", variable.name)), "{function} reads {}", variable.name);
        }
    }
}

/// In `docs/semantics.md` a promise names tests as `file`: `name`, `name`.
#[test]
fn every_promise_names_tests_that_exist() {
    let text = fs::read_to_string(places::workspace().join("docs/semantics.md")).unwrap();
    let (mut file, mut checked) = (String::new(), 0);
    for quoted in
        text.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('`').skip(1).step_by(2))
    {
        if quoted.ends_with(".rs") {
            file = fs::read_to_string(places::workspace().join(quoted)).unwrap();
        } else if quoted.matches('_').count() >= 3 && quoted == quoted.to_lowercase() {
            assert!(file.contains(&format!("fn {quoted}(")), "{quoted}");
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked}");
    assert!(!text.contains("| |\n"), "a promise without a test");
}

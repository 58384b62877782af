//! The functions' environment variables.

use std::{collections::BTreeMap, ops::RangeInclusive};

use streamer_connections::{Endpoints, TENANT_SHARDS, TenantShards};
use streamer_environment::values;
use streamer_message::sqs::FIFO_SUFFIX;

use super::Rule;
use crate::doctor::{Check, Function, Subject, Verdict};

/// Functions by short name.
type Functions = BTreeMap<String, Function>;

/// Variables with a whole number, and their limits.
const NUMBERS: [(&str, RangeInclusive<u64>); 9] = [
    ("AWAY_GRACE_SECONDS", 0..=3600),
    ("CONNECT_GRACE_SECONDS", 0..=3600),
    ("MAILBOX_MAX_MESSAGES", 100..=10_000),
    ("MAX_AGE_SECONDS", 1..=259_200),
    ("MAX_CONNECTIONS_PER_USER", 1..=1000),
    ("MAX_PAYLOAD_BYTES", 8192..=131_072),
    ("MAX_POSTS_PER_SECOND", 1..=10_000),
    ("TENANT_SHARDS", 1..=256),
    ("TIMEOUT_SECONDS", 1..=900),
];

/// Variables with an http or https URL.
const URLS: [&str; 5] =
    ["DEAD_LETTER_QUEUE_URL", "PARTS_QUEUE_URL", "QUEUE_URL", "RECEIPTS_QUEUE_URL", "WEBSOCKET_ENDPOINT"];

/// Variables with a comma-separated list of such URLs.
const URL_LISTS: [&str; 2] = ["CELL_ENDPOINTS", "WEBSOCKET_ENDPOINT_ALIASES"];

/// Variables without which a function does not start.
const REQUIRED: [(&str, &[&str]); 2] = [
    ("delivery", &["DEAD_LETTER_QUEUE_URL", "QUEUE_URL", "WEBSOCKET_ENDPOINT"]),
    ("mailbox", &["CONNECTIONS_TABLE", "MAILBOX_TABLE", "WEBSOCKET_ENDPOINT"]),
];

/// A variable that several functions read, which should agree.
struct Shared {
    name: &'static str,
    /// The functions that read it, with their defaults. Empty is no value.
    defaults: &'static [(&'static str, &'static str)],
    /// The result if they do not agree.
    verdict: Verdict,
}

const TABLE: &str = "streamer_connections";

const SHARED: [Shared; 7] = [
    Shared {
        name: "CONNECTIONS_TABLE",
        defaults: &[("connect", TABLE), ("delivery", ""), ("disconnect", TABLE), ("mailbox", "")],
        verdict: Verdict::Failed,
    },
    Shared {
        name: "CONNECT_GRACE_SECONDS",
        defaults: &[("connect", "5"), ("delivery", "5")],
        verdict: Verdict::Warning,
    },
    Shared {
        name: "MAILBOX_GENERATION",
        defaults: &[("delivery", "0"), ("mailbox", "0")],
        verdict: Verdict::Failed,
    },
    Shared {
        name: "MAILBOX_TABLE",
        defaults: &[("delivery", ""), ("mailbox", "")],
        verdict: Verdict::Failed,
    },
    Shared {
        name: "MAX_PAYLOAD_BYTES",
        defaults: &[("delivery", "131072"), ("mailbox", "131072")],
        verdict: Verdict::Warning,
    },
    Shared {
        name: "RECEIPTS_QUEUE_URL",
        defaults: &[("delivery", ""), ("mailbox", "")],
        verdict: Verdict::Warning,
    },
    Shared {
        name: "STAGE",
        defaults: &[
            ("connect", "local"),
            ("delivery", "local"),
            ("disconnect", "local"),
            ("mailbox", "local"),
        ],
        verdict: Verdict::Warning,
    },
];

/// Returns the checks of the variables.
pub(super) fn checks(subject: &Subject) -> [Check; 3] {
    [valid(&subject.functions), shared(&subject.functions), shards(&subject.functions)]
}

/// Checks each variable against the values that its function accepts. The text contains no values.
fn valid(functions: &Functions) -> Check {
    let rule = Rule::new(
        "functions.variables",
        "values that the functions accept",
        "correct the variables (docs/reference/configuration.md, or the function's log): the function does not start",
    );
    let mut faults = Vec::new();
    for (short, function) in functions {
        let mut fault = |text: String| faults.push((Verdict::Failed, format!("{short}: {text}")));
        let required = REQUIRED.iter().filter(|(of, _)| of == short).flat_map(|(_, names)| names.iter());
        required
            .filter(|name| function.variable(name).is_none())
            .for_each(|name| fault(format!("{name} is missing")));
        for (name, range) in &NUMBERS {
            let number = function.variable(name).map(values::whole);
            if number.is_some_and(|number| !number.is_some_and(|number| range.contains(&number))) {
                fault(format!("{name} is not a whole number from {} to {}", range.start(), range.end()));
            }
        }
        for name in URLS {
            if function.variable(name).is_some_and(|url| values::http_url(url).is_none()) {
                fault(format!("{name} is not a URL"));
            }
        }
        for name in URL_LISTS {
            let are_urls = |urls: Vec<String>| urls.iter().all(|url| values::http_url(url).is_some());
            if function.variable(name).is_some_and(|urls| !values::list(urls).is_some_and(are_urls)) {
                fault(format!("{name} is not a list of URLs"));
            }
        }
        if short == "delivery" {
            worker(function).into_iter().for_each(&mut fault);
        }
        if short == "connect" {
            keys(function).into_iter().for_each(&mut fault);
        }
    }
    rule.worst(faults, format!("the variables of {} functions", functions.len()))
}

/// Returns the rules between the worker's variables that are broken.
fn worker(function: &Function) -> Vec<String> {
    let mut faults = Vec::new();
    let or =
        |name: &str, default| function.variable(name).map_or(Some(default), values::whole).unwrap_or(default);
    let longest = or("AWAY_GRACE_SECONDS", 30).max(or("CONNECT_GRACE_SECONDS", 5));
    if or("MAX_AGE_SECONDS", 7800) < longest {
        faults.push("MAX_AGE_SECONDS is less than AWAY_GRACE_SECONDS or CONNECT_GRACE_SECONDS".to_owned());
    }
    let [queue, letters] = ["QUEUE_URL", "DEAD_LETTER_QUEUE_URL"].map(|name| function.variable(name));
    if let (Some(queue), Some(letters)) = (queue, letters)
        && queue.ends_with(FIFO_SUFFIX) != letters.ends_with(FIFO_SUFFIX)
    {
        faults.push("one of QUEUE_URL and DEAD_LETTER_QUEUE_URL is a FIFO queue".to_owned());
    }
    faults
}

/// Returns the rules between the variables of `connect` that are broken.
fn keys(function: &Function) -> Vec<String> {
    let is_set = |name: &str| function.variable(name).is_some();
    let [key, set, issuer] = ["JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_ISSUER"].map(is_set);
    if function.variable("IDENTITY_SOURCE") == Some("authorizer") {
        let refused = ["JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE", "JWT_AUDIENCE_CLAIM"];
        let refused = refused.into_iter().filter(|name| is_set(name));
        return refused.map(|name| format!("{name} is set beside IDENTITY_SOURCE=authorizer")).collect();
    }
    let mut faults = Vec::new();
    if key && set {
        faults.push("JWT_PUBLIC_KEY and JWT_JWKS_URL are both set".to_owned());
    }
    if !key && !set && !issuer {
        faults.push("JWT_PUBLIC_KEY, JWT_JWKS_URL and JWT_ISSUER are missing".to_owned());
    }
    if !key && (set || issuer) && !is_set("JWT_AUDIENCE") {
        faults.push("JWT_AUDIENCE is missing".to_owned());
    }
    faults
}

/// Checks that functions agree.
fn shared(functions: &Functions) -> Check {
    let names =
        SHARED.iter().map(|shared| shared.name).chain(["WEBSOCKET_ENDPOINT"]).collect::<Vec<_>>().join(", ");
    let rule = Rule::new(
        "functions.shared",
        format!("the same value in all functions that read it: {names}"),
        "deploy all functions with the same values (`terraform apply` does)",
    );
    let differing = SHARED.iter().filter_map(|shared| {
        let values = shared.defaults.iter().filter_map(|(short, default)| {
            Some((*short, functions.get(*short)?.variable(shared.name).unwrap_or(default)))
        });
        Some((shared.verdict, format!("{}: {}", shared.name, differences(values.collect())?)))
    });
    let faults = differing.chain(endpoints(functions)).collect();
    rule.worst(faults, "no difference")
}

/// Returns the values of the functions, unless they are equal.
fn differences(values: Vec<(&str, &str)>) -> Option<String> {
    let [(_, first), rest @ ..] = values.as_slice() else { return None };
    if rest.iter().all(|(_, value)| value == first) {
        return None;
    }
    let values = values
        .iter()
        .map(|(short, value)| format!("{short} has {}", if value.is_empty() { "none" } else { value }));
    Some(values.collect::<Vec<_>>().join(", "))
}

/// The worker posts to rows whose endpoint is its own or an alias of it; `connect` writes its own into them.
fn endpoints(functions: &Functions) -> Vec<(Verdict, String)> {
    const NAME: &str = "WEBSOCKET_ENDPOINT";
    let Some(worker) = functions.get("delivery") else { return Vec::new() };
    let Some(own) = worker.variable(NAME) else { return Vec::new() };
    let aliases = worker.variable("WEBSOCKET_ENDPOINT_ALIASES").and_then(values::list).unwrap_or_default();
    let known = Endpoints::new(own, aliases);
    let others = functions.iter().filter_map(|(short, function)| Some((short, function.variable(NAME)?)));
    let others = others.filter(|(_, endpoint)| !known.include(endpoint));
    others
        .map(|(short, endpoint)| {
            (Verdict::Failed, format!("{NAME}: delivery has {own}, {short} has {endpoint}"))
        })
        .collect()
}

/// Checks that the worker splits a tenant into all shards that `connect` writes rows to.
fn shards(functions: &Functions) -> Check {
    let rule = Rule::new(
        "functions.tenant_shards",
        "TENANT_SHARDS of delivery is not less than that of connect",
        "raise TENANT_SHARDS of delivery (Terraform: tenant_shards and former_tenant_shards): connections of a tenant miss its \
         messages",
    );
    let of = |short: &str| {
        let count = functions.get(short)?.variable(TENANT_SHARDS.name).map(values::whole);
        count.unwrap_or(Some(TenantShards::DEFAULT.count().into()))
    };
    let Some(delivery) = of("delivery") else { return rule.skipped("delivery's number is unknown") };
    match of("connect") {
        Some(connect) => rule.require(delivery >= connect, format!("delivery {delivery}, connect {connect}")),
        None => rule.require(true, format!("delivery {delivery}")),
    }
}

#[cfg(test)]
mod tests;

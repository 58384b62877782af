//! The Lambda functions.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_lambda::{
    Client,
    types::{Architecture, LastUpdateStatus, PackageType, Runtime, State},
};
use serde_json::json;

use super::{Rule, mapping::Limit, read, variables};
use crate::doctor::{Check, Function, Subject, Verdict};

/// The longest timeout, which the worker assumes without `TIMEOUT_SECONDS`, and API Gateway's, which `mailbox` assumes.
const DEFAULT_TIMEOUTS: [(&str, i32); 2] = [("delivery", 900), ("mailbox", 29)];

/// Reads and checks the functions, and returns the worker's reserved concurrency. `concurrency` is the limit of the
/// worker's mappings.
pub(super) async fn examine(
    lambda: &Client,
    subject: &Subject,
    concurrency: Limit,
    done: &mut impl FnMut(Check),
) -> Limit {
    let functions = &subject.functions;
    let names: Vec<_> = functions.keys().map(String::as_str).collect();
    done(exist(&names, &subject.unreadable, subject.variable("MAILBOX_TABLE").is_some()));
    done(states(functions));
    done(timeouts(functions));
    done(memory(subject));
    done(packages(functions));
    variables::checks(subject).into_iter().for_each(&mut *done);
    done(release(functions));
    let mut reserved = BTreeMap::new();
    for (short, function) in functions {
        let get = lambda.get_function_concurrency().function_name(&function.name).send();
        let resource = format!("function {}", function.name);
        match read("lambda:GetFunctionConcurrency", &resource, get).await {
            Ok(answer) => _ = reserved.insert(short.as_str(), answer.reserved_concurrent_executions),
            Err(unread) => {
                done(reserved_rule(concurrency).skipped(unread.reason(&resource)));
                return Limit::Unknown;
            }
        }
    }
    let worker = subject.spec.mapping.function.as_str();
    done(reservations(&reserved, worker, concurrency));
    Limit::of(reserved.get(worker).copied().flatten())
}

/// Beside an API that existed before, `connect` and `disconnect` may be absent: its own functions write the rows.
fn exist(names: &[&str], unreadable: &BTreeSet<String>, keeps_messages: bool) -> Check {
    let rule = Rule::new(
        "functions.exist",
        "the worker; with a mailbox table, the function mailbox, too",
        "deploy with `mailbox = true` in Terraform: messages are kept, and no client receives them",
    );
    if !unreadable.is_empty() {
        let unreadable: Vec<_> = unreadable.iter().map(String::as_str).collect();
        return rule.skipped(format!(
            "{}; your credentials do not permit lambda:GetFunctionConfiguration on {}",
            names.join(", "),
            unreadable.join(", ")
        ));
    }
    let holds = !keeps_messages || names.contains(&"mailbox");
    let missing = if holds { "" } else { ", without mailbox" };
    rule.require(holds, format!("{}{missing}", names.join(", ")))
}

fn states(functions: &BTreeMap<String, Function>) -> Check {
    let rule = Rule::new(
        "functions.state",
        "state Active, last update Successful",
        "wait until a change has ended; after a failed one, deploy again (`terraform apply`)",
    );
    let faults = functions.iter().filter_map(|(short, function)| {
        let configuration = &function.configuration;
        let (verdict, text) = state(configuration.state(), configuration.last_update_status())?;
        Some((verdict, format!("{short}: {text}")))
    });
    rule.worst(faults.collect(), "all functions are active")
}

/// Returns why a function is not ready. An inactive one starts when it is invoked.
fn state(state: Option<&State>, update: Option<&LastUpdateStatus>) -> Option<(Verdict, String)> {
    match state {
        Some(State::Active) | None => {}
        Some(state @ (State::Pending | State::Inactive)) => {
            return Some((Verdict::Warning, format!("state {}", state.as_str())));
        }
        Some(state) => return Some((Verdict::Failed, format!("state {}", state.as_str()))),
    }
    match update? {
        LastUpdateStatus::Successful => None,
        LastUpdateStatus::InProgress => Some((Verdict::Warning, "an update is in progress".to_owned())),
        _ => Some((Verdict::Failed, "the last update failed".to_owned())),
    }
}

/// Lambda does not tell a function its timeout, so a variable does.
fn timeouts(functions: &BTreeMap<String, Function>) -> Check {
    let rule = Rule::new(
        "functions.timeout",
        "TIMEOUT_SECONDS equals the function's timeout",
        "set TIMEOUT_SECONDS to the function's timeout (`worker_timeout_seconds` in Terraform sets both): an invocation ends too \
         early, or, if a clock is off, is killed",
    );
    let faults = DEFAULT_TIMEOUTS.iter().filter_map(|(short, default)| {
        let function = functions.get(*short)?;
        let timeout = function.configuration.timeout()?;
        let variable = function.variable("TIMEOUT_SECONDS");
        let seconds = variable.map_or(Some(*default), |seconds| seconds.parse().ok());
        let text = variable.map_or_else(|| format!("none ({default} s)"), |variable| format!("{variable} s"));
        (seconds != Some(timeout))
            .then(|| (Verdict::Warning, format!("{short}: timeout {timeout} s, TIMEOUT_SECONDS {text}")))
    });
    rule.worst(faults.collect(), "equal")
}

fn memory(subject: &Subject) -> Check {
    let expected =
        subject.spec.functions.iter().map(|(short, function)| (short.as_str(), function.memory_mb));
    let expected: BTreeMap<_, _> = expected.collect();
    let seen = subject
        .functions
        .iter()
        .filter_map(|(short, function)| Some((short.as_str(), function.configuration.memory_size()?)));
    memory_of(&expected, &seen.collect())
}

/// Lambda gives a function processor time in proportion to its memory.
fn memory_of(expected: &BTreeMap<&str, i32>, seen: &BTreeMap<&str, i32>) -> Check {
    let text = |sizes: &BTreeMap<&str, i32>| {
        sizes.iter().map(|(short, size)| format!("{short} {size} MB")).collect::<Vec<_>>().join(", ")
    };
    let remedy = "raise the memory (`worker_memory_mb` in Terraform): starts and posts take longer with less processor time";
    let rule = Rule::new("functions.memory", format!("at least {}", text(expected)), remedy);
    let small = seen.iter().any(|(short, size)| expected.get(short).is_some_and(|expected| size < expected));
    rule.prefer(!small, text(seen))
}

fn packages(functions: &BTreeMap<String, Function>) -> Check {
    let rule = Rule::new(
        "functions.package",
        "runtime provided.al2023, handler bootstrap, one architecture",
        "deploy the packages of `streamer package`: the functions are built for Amazon Linux 2023",
    );
    let mut faults = Vec::new();
    let mut architectures = Vec::new();
    for (short, function) in functions {
        let configuration = &function.configuration;
        if configuration.package_type() == Some(&PackageType::Image) {
            continue;
        }
        let runtime = configuration.runtime().map_or("none", Runtime::as_str);
        faults.extend(package(short, runtime, configuration.handler().unwrap_or("none")));
        // Lambda omits the architecture of functions that are older than Graviton.
        architectures.push(configuration.architectures().first().unwrap_or(&Architecture::X8664).as_str());
    }
    architectures.sort_unstable();
    architectures.dedup();
    if architectures.len() > 1 {
        faults.push((Verdict::Warning, format!("architectures {}", architectures.join(" and "))));
    }
    rule.worst(faults, format!("provided.al2023 on {}", architectures.join(", ")))
}

/// Returns the faults of a function's package. A custom runtime starts `bootstrap`, whatever the handler's name is.
fn package(short: &str, runtime: &str, handler: &str) -> Vec<(Verdict, String)> {
    let mut faults = Vec::new();
    if runtime != Runtime::Providedal2023.as_str() {
        faults.push((Verdict::Failed, format!("{short}: runtime {runtime}")));
    }
    if handler != "bootstrap" {
        faults.push((Verdict::Warning, format!("{short}: handler {handler}")));
    }
    faults
}

fn reserved_rule(concurrency: Limit) -> Rule {
    let below = match concurrency {
        Limit::Unknown => String::new(),
        Limit::Unlimited => ", and none for the worker, whose mappings have no limit".to_owned(),
        Limit::UpTo(invocations) => {
            format!(", and for the worker none below the {invocations} invocations of its mappings")
        }
    };
    Rule::new(
        "functions.reserved",
        format!("no reservation of 0{below}"),
        "raise the reserved concurrency (`reserved_concurrency` and `mailbox_concurrency` in Terraform), or remove it: a throttled \
         invocation counts as a receive of its messages, which then become dead letters",
    )
}

fn reservations(reserved: &BTreeMap<&str, Option<i32>>, worker: &str, concurrency: Limit) -> Check {
    let rule = reserved_rule(concurrency);
    let is_low = |short: &str, reserved: i32| {
        let is_below = match concurrency {
            Limit::Unknown => false,
            Limit::Unlimited => true,
            Limit::UpTo(invocations) => reserved < invocations,
        };
        reserved == 0 || short == worker && is_below
    };
    let reserved: Vec<_> =
        reserved.iter().filter_map(|(short, reserved)| Some((*short, (*reserved)?))).collect();
    let low = reserved.iter().any(|(short, reserved)| is_low(short, *reserved));
    let text = reserved.iter().map(|(short, reserved)| format!("{short} {reserved}")).collect::<Vec<_>>();
    rule.require(!low, if text.is_empty() { "none".to_owned() } else { text.join(", ") })
}

/// Lambda knows no release, but the hash of each package.
fn release(functions: &BTreeMap<String, Function>) -> Check {
    let hashes: BTreeMap<_, _> = functions
        .iter()
        .filter_map(|(short, function)| Some((short, function.configuration.code_sha256()?)))
        .collect();
    let reason = "compare the functions' code_sha256 (--json) with those that `streamer package` prints for your release";
    Check::skipped("functions.release", "all functions of one release", reason)
        .with_values(json!({ "code_sha256": hashes }))
}

#[cfg(test)]
mod tests {
    use aws_sdk_lambda::{
        operation::get_function_configuration::GetFunctionConfigurationOutput as Configuration,
        types::EnvironmentResponse,
    };

    use super::*;

    fn function(configuration: Configuration) -> Function {
        Function { name: "streamer".to_owned(), configuration }
    }

    #[test]
    fn mailbox_table_needs_its_function() {
        assert_eq!(exist(&["delivery"], &BTreeSet::new(), false).verdict, Verdict::Ok);
        assert_eq!(exist(&["delivery", "mailbox"], &BTreeSet::new(), true).verdict, Verdict::Ok);
        let unreadable = BTreeSet::from(["mailbox".to_owned()]);
        assert_eq!(exist(&["delivery"], &unreadable, true).verdict, Verdict::Skipped);
        let check = exist(&["connect", "delivery"], &BTreeSet::new(), true);
        assert_eq!(
            (check.verdict, check.seen.as_str()),
            (Verdict::Failed, "connect, delivery, without mailbox")
        );
    }

    #[test]
    fn state_is_active_and_updated() {
        let of = |of, update| state(Some(&of), Some(&update)).map(|(verdict, _)| verdict);
        assert_eq!(of(State::Active, LastUpdateStatus::Successful), None);
        assert_eq!(of(State::Active, LastUpdateStatus::InProgress), Some(Verdict::Warning));
        assert_eq!(of(State::Active, LastUpdateStatus::Failed), Some(Verdict::Failed));
        assert_eq!(of(State::Pending, LastUpdateStatus::Successful), Some(Verdict::Warning));
        assert_eq!(of(State::Inactive, LastUpdateStatus::Successful), Some(Verdict::Warning));
        assert_eq!(of(State::Failed, LastUpdateStatus::Successful), Some(Verdict::Failed));
    }

    #[test]
    fn timeout_equals_its_variable() {
        let of = |short: &str, timeout, variable: Option<&str>| {
            let variables = variable.map(|value| [("TIMEOUT_SECONDS".to_owned(), value.to_owned())].into());
            let environment = EnvironmentResponse::builder().set_variables(variables).build();
            let configuration = Configuration::builder().timeout(timeout).environment(environment).build();
            timeouts(&[(short.to_owned(), function(configuration))].into())
        };
        assert_eq!(of("delivery", 30, Some("30")).verdict, Verdict::Ok);
        assert_eq!(of("delivery", 900, None).verdict, Verdict::Ok);
        assert_eq!(of("mailbox", 29, None).verdict, Verdict::Ok);
        assert_eq!(of("disconnect", 10, None).verdict, Verdict::Ok, "it reads no timeout");
        let check = of("delivery", 30, Some("60"));
        let seen = "delivery: timeout 30 s, TIMEOUT_SECONDS 60 s";
        assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Warning, seen));
        assert_eq!(of("mailbox", 10, None).seen, "mailbox: timeout 10 s, TIMEOUT_SECONDS none (29 s)");
    }

    #[test]
    fn memory_is_that_of_the_module() {
        let expected = [("connect", 256), ("delivery", 512)].into();
        assert_eq!(memory_of(&expected, &[("delivery", 512)].into()).verdict, Verdict::Ok);
        assert_eq!(
            memory_of(&expected, &[("delivery", 511), ("connect", 256)].into()).verdict,
            Verdict::Warning
        );
    }

    #[test]
    fn package_runs_on_amazon_linux_2023() {
        let of = |runtime, handler, architecture| {
            let configuration = Configuration::builder().runtime(runtime).handler(handler);
            function(configuration.architectures(architecture).build())
        };
        let good = || of(Runtime::Providedal2023, "bootstrap", Architecture::Arm64);
        let verdict = |other| packages(&[("a".to_owned(), good()), ("b".to_owned(), other)].into()).verdict;
        assert_eq!(verdict(good()), Verdict::Ok);
        assert_eq!(verdict(of(Runtime::Providedal2, "bootstrap", Architecture::Arm64)), Verdict::Failed);
        assert_eq!(verdict(of(Runtime::Providedal2023, "main", Architecture::Arm64)), Verdict::Warning);
        assert_eq!(verdict(of(Runtime::Providedal2023, "bootstrap", Architecture::X8664)), Verdict::Warning);
        let image = Configuration::builder().package_type(PackageType::Image).build();
        assert_eq!(verdict(function(image)), Verdict::Ok);
    }

    #[test]
    fn reservation_covers_the_mappings() {
        let verdict = |worker, mailbox, concurrency| {
            reservations(&[("delivery", worker), ("mailbox", mailbox)].into(), "delivery", concurrency)
                .verdict
        };
        assert_eq!(verdict(None, None, Limit::UpTo(2)), Verdict::Ok);
        assert_eq!(verdict(Some(2), Some(1), Limit::UpTo(2)), Verdict::Ok);
        assert_eq!(verdict(Some(1), None, Limit::UpTo(2)), Verdict::Failed);
        assert_eq!(verdict(Some(5), None, Limit::Unlimited), Verdict::Failed, "the mappings have no limit");
        assert_eq!(verdict(Some(5), None, Limit::Unknown), Verdict::Ok);
        assert_eq!(verdict(None, Some(0), Limit::UpTo(2)), Verdict::Failed);
    }
}

//! The account's quotas.

use aws_sdk_lambda::{Client, types::AccountLimit};
use serde_json::json;

use super::{Rule, mapping::Limit, read};
use crate::doctor::{Check, Subject};

/// Lambda's quota of concurrent executions in new accounts.
const NEW_ACCOUNT: i32 = 10;

/// Reads and checks the quotas. `mappings` is the limit of the worker's mappings.
pub(super) async fn examine(
    lambda: &Client,
    subject: &Subject,
    mappings: Limit,
    reserved: Limit,
    done: &mut impl FnMut(Check),
) {
    let rule = executions_rule(mappings);
    if subject.is_local {
        done(rule.skipped("the stack on this machine has no quota"));
    } else {
        let get = lambda.get_account_settings().send();
        done(match read("lambda:GetAccountSettings", "the account", get).await {
            Ok(answer) => executions(rule, answer.account_limit(), mappings, reserved),
            Err(unread) => rule.skipped(unread.reason("account")),
        });
    }
    done(Check::skipped(
        "quotas.requests",
        "API Gateway's requests per second of the account: 10000, in newer Regions 2500, for all APIs",
        "not read; `aws service-quotas get-service-quota --service-code apigateway --quota-code L-8A5B8E43` prints it",
    ));
}

fn executions_rule(mappings: Limit) -> Rule {
    let invocations = match mappings {
        Limit::UpTo(invocations) => format!("the {invocations} invocations"),
        Limit::Unknown | Limit::Unlimited => "the invocations".to_owned(),
    };
    Rule::new(
        "quotas.concurrency",
        format!(
            "more than {NEW_ACCOUNT} concurrent executions, and twice {invocations} of the mappings unless the worker \
             has reserved concurrency"
        ),
        "request a larger quota \"Concurrent executions\" (L-B99A9384 in Service Quotas), which is free, and set \
         `account_concurrency` in Terraform to it: functions of `$connect` and `$disconnect` are throttled",
    )
}

/// Half of the account stays for the other functions: API Gateway answers their throttled invocations with an error.
fn executions(rule: Rule, limit: Option<&AccountLimit>, mappings: Limit, reserved: Limit) -> Check {
    let Some(limit) = limit else { return rule.skipped("Lambda names no limit") };
    let executions = limit.concurrent_executions();
    let unreserved = limit.unreserved_concurrent_executions().unwrap_or(executions);
    let fits = match (reserved, mappings) {
        (Limit::Unlimited, Limit::Unlimited) => false,
        (Limit::Unlimited, Limit::UpTo(invocations)) => 2 * invocations <= unreserved,
        _ => true,
    };
    let seen = format!("{executions}, of which {unreserved} are unreserved");
    let check = if fits { rule.prefer(executions > NEW_ACCOUNT, seen) } else { rule.failed(seen) };
    check.with_values(json!({ "executions": executions, "unreserved": unreserved }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn verdict(limit: i32, unreserved: i32, mappings: Limit, reserved: Limit) -> Verdict {
        let limit = AccountLimit::builder().concurrent_executions(limit);
        let limit = limit.unreserved_concurrent_executions(unreserved).build();
        executions(executions_rule(mappings), Some(&limit), mappings, reserved).verdict
    }

    #[test]
    fn quota_of_a_new_account_is_a_warning() {
        assert_eq!(verdict(10, 10, Limit::UpTo(2), Limit::Unlimited), Verdict::Warning);
        assert_eq!(verdict(11, 11, Limit::UpTo(2), Limit::Unlimited), Verdict::Ok);
    }

    #[test]
    fn half_of_the_account_stays_unreserved() {
        assert_eq!(verdict(1000, 20, Limit::UpTo(10), Limit::Unlimited), Verdict::Ok);
        assert_eq!(verdict(1000, 19, Limit::UpTo(10), Limit::Unlimited), Verdict::Failed);
        assert_eq!(verdict(1000, 100, Limit::UpTo(900), Limit::UpTo(900)), Verdict::Ok);
        assert_eq!(verdict(1000, 1000, Limit::Unlimited, Limit::Unlimited), Verdict::Failed);
    }

    /// A limit that could not be read breaks no rule.
    #[test]
    fn unknown_concurrency_is_no_fault() {
        assert_eq!(verdict(1000, 19, Limit::Unknown, Limit::Unlimited), Verdict::Ok);
        assert_eq!(verdict(1000, 19, Limit::UpTo(10), Limit::Unknown), Verdict::Ok);
    }

    #[test]
    fn unknown_limit_is_skipped() {
        let check = executions(executions_rule(Limit::Unknown), None, Limit::Unknown, Limit::Unknown);
        assert_eq!(check.verdict, Verdict::Skipped);
    }
}

//! The account's quotas.

use aws_sdk_lambda::{
    Client,
    types::{AccountLimit, EventSourceMappingConfiguration},
};
use serde_json::json;

use super::{Rule, mapping, read};
use crate::doctor::{Check, Subject};

/// Lambda's quota of concurrent executions in new accounts.
const NEW_ACCOUNT: i32 = 10;

/// The worker's concurrency.
#[derive(Debug, Clone, Copy)]
pub(super) struct Concurrency {
    /// Invocations that the mapping makes at once, if that is limited.
    pub(super) mapping: Option<i32>,
    /// The worker's reserved concurrency, if it has any.
    pub(super) reserved: Option<i32>,
}

/// Reads and checks the quotas.
pub(super) async fn examine(
    lambda: &Client,
    subject: &Subject,
    mapping: Option<&EventSourceMappingConfiguration>,
    reserved: Option<i32>,
    done: &mut impl FnMut(Check),
) {
    let concurrency = Concurrency { mapping: mapping.and_then(mapping::concurrency), reserved };
    let rule = executions_rule(concurrency.mapping);
    if subject.is_local {
        done(rule.skipped("the stack on this machine has no quota"));
    } else {
        let get = lambda.get_account_settings().send();
        done(match read("lambda:GetAccountSettings", "the account", get).await {
            Ok(answer) => executions(rule, answer.account_limit(), concurrency),
            Err(unread) => rule.skipped(unread.reason("account")),
        });
    }
    done(Check::skipped(
        "quotas.requests",
        "API Gateway's requests per second of the account: 10000, in newer Regions 2500, for all APIs",
        "not read; `aws service-quotas get-service-quota --service-code apigateway --quota-code L-8A5B8E43` prints it",
    ));
}

fn executions_rule(mapping: Option<i32>) -> Rule {
    let invocations = mapping.map_or("any number of".to_owned(), |mapping| mapping.to_string());
    Rule::new(
        "quotas.concurrency",
        format!(
            "more than {NEW_ACCOUNT} concurrent executions, and twice the {invocations} invocations of the mapping unless the worker \
             has reserved concurrency"
        ),
        "request a larger quota \"Concurrent executions\" (L-B99A9384 in Service Quotas), which is free, and set \
         `account_concurrency` in Terraform to it: functions of `$connect` and `$disconnect` are throttled",
    )
}

/// Half of the account stays for the other functions: API Gateway answers their throttled invocations with an error.
fn executions(rule: Rule, limit: Option<&AccountLimit>, concurrency: Concurrency) -> Check {
    let Some(limit) = limit else { return rule.skipped("Lambda names no limit") };
    let executions = limit.concurrent_executions();
    let unreserved = limit.unreserved_concurrent_executions().unwrap_or(executions);
    let fits = match concurrency {
        Concurrency { reserved: Some(_), .. } => true,
        Concurrency { mapping: None, .. } => false,
        Concurrency { mapping: Some(mapping), .. } => 2 * mapping <= unreserved,
    };
    let seen = format!("{executions}, of which {unreserved} are unreserved");
    let check = if fits { rule.prefer(executions > NEW_ACCOUNT, seen) } else { rule.failed(seen) };
    check.with_values(json!({ "executions": executions, "unreserved": unreserved }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn verdict(limit: i32, unreserved: i32, mapping: Option<i32>, reserved: Option<i32>) -> Verdict {
        let limit = AccountLimit::builder().concurrent_executions(limit);
        let limit = limit.unreserved_concurrent_executions(unreserved).build();
        executions(executions_rule(mapping), Some(&limit), Concurrency { mapping, reserved }).verdict
    }

    #[test]
    fn quota_of_a_new_account_is_a_warning() {
        assert_eq!(verdict(10, 10, Some(2), None), Verdict::Warning);
        assert_eq!(verdict(11, 11, Some(2), None), Verdict::Ok);
    }

    #[test]
    fn half_of_the_account_stays_unreserved() {
        assert_eq!(verdict(1000, 20, Some(10), None), Verdict::Ok);
        assert_eq!(verdict(1000, 19, Some(10), None), Verdict::Failed);
        assert_eq!(verdict(1000, 100, Some(900), Some(900)), Verdict::Ok);
        assert_eq!(verdict(1000, 1000, None, None), Verdict::Failed);
    }

    #[test]
    fn unknown_limit_is_skipped() {
        let concurrency = Concurrency { mapping: Some(2), reserved: None };
        assert_eq!(executions(executions_rule(Some(2)), None, concurrency).verdict, Verdict::Skipped);
    }
}

//! Queue policies.

use serde_json::Value;

use super::Rule;
use crate::doctor::{Check, Verdict};

/// Checks the policy of a queue. Statements with a condition are left to SQS: the module denies calls without TLS.
pub(super) fn check(name: &'static str, policy: Option<&str>) -> Check {
    let rule = Rule::new(
        name,
        "no statement that denies or allows calls of everyone without a condition",
        "remove the statement from the queue's policy: in Terraform, `queue_policy_documents`",
    );
    let Some(policy) = policy.filter(|policy| !policy.is_empty()) else {
        return rule.ok("no policy");
    };
    let Ok(policy) = serde_json::from_str::<Value>(policy) else {
        return rule.warning("a policy that is not JSON");
    };
    let statements = list(&policy["Statement"]);
    let broad: Vec<_> = statements.iter().filter_map(|statement| of_everyone(statement)).collect();
    rule.worst(broad, format!("statements: {}", statements.len()))
}

/// Returns the result of a statement that concerns every caller.
fn of_everyone(statement: &Value) -> Option<(Verdict, String)> {
    let principal = &statement["Principal"];
    let everyone = principal == "*" || list(&principal["AWS"]).iter().any(|principal| *principal == "*");
    if !everyone || !statement["Condition"].is_null() {
        return None;
    }
    let actions: Vec<_> = list(&statement["Action"]).into_iter().filter_map(Value::as_str).collect();
    let actions = actions.join(", ");
    match statement["Effect"].as_str() {
        Some("Deny") => Some((Verdict::Failed, format!("everyone is denied {actions}"))),
        _ => Some((Verdict::Warning, format!("everyone is allowed {actions}"))),
    }
}

/// Returns the items of a value that is a list, or one item.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().collect(),
        item => vec![item],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(statement: Value) -> (Verdict, String) {
        let check = check("queue.policy", Some(&json!({ "Statement": statement }).to_string()));
        (check.verdict, check.seen)
    }

    #[test]
    fn denial_under_a_condition_is_fine() {
        let condition = json!({ "Bool": { "aws:SecureTransport": "false" } });
        let statement =
            json!([{ "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Condition": condition }]);
        assert_eq!(verdict(statement), (Verdict::Ok, "statements: 1".to_owned()));
        assert_eq!(check("queue.policy", None).verdict, Verdict::Ok);
    }

    #[test]
    fn denial_of_everyone_fails() {
        let principals = [json!("*"), json!({ "AWS": "*" }), json!({ "AWS": ["*"] })];
        for principal in principals {
            let statement =
                json!({ "Effect": "Deny", "Principal": principal, "Action": ["sqs:SendMessage"] });
            assert_eq!(
                verdict(statement),
                (Verdict::Failed, "everyone is denied sqs:SendMessage".to_owned())
            );
        }
    }

    #[test]
    fn permission_of_everyone_is_a_warning() {
        let statement = json!({ "Effect": "Allow", "Principal": "*", "Action": "sqs:ReceiveMessage" });
        assert_eq!(verdict(statement).0, Verdict::Warning);
        let one = json!({ "Effect": "Allow", "Principal": { "AWS": "123456789012" }, "Action": "sqs:*" });
        assert_eq!(verdict(one).0, Verdict::Ok);
        assert_eq!(check("queue.policy", Some("{")).verdict, Verdict::Warning);
    }
}

//! The connection table and the mailbox table.

use aws_sdk_dynamodb::{
    Client,
    types::{
        BillingMode, GlobalSecondaryIndexDescription, IndexStatus, KeySchemaElement, KeyType,
        PointInTimeRecoveryStatus, ProjectionType, TableDescription, TableStatus, TimeToLiveDescription,
        TimeToLiveStatus,
    },
};

use super::{Rule, read};
use crate::{
    doctor::{Check, Subject, Verdict},
    spec::Index,
};

/// The names of a table's checks.
struct Names {
    exists: &'static str,
    key: &'static str,
    ttl: &'static str,
    capacity: &'static str,
    backups: &'static str,
    protection: &'static str,
}

/// A table as the module creates it.
struct Expected<'a> {
    names: &'static Names,
    key: Vec<(&'a str, KeyType)>,
    ttl_attribute: &'a str,
}

const CONNECTIONS: Names = Names {
    exists: "table.exists",
    key: "table.key",
    ttl: "table.ttl",
    capacity: "table.capacity",
    backups: "table.backups",
    protection: "table.protection",
};

const MAILBOX: Names = Names {
    exists: "mailbox_table.exists",
    key: "mailbox_table.key",
    ttl: "mailbox_table.ttl",
    capacity: "mailbox_table.capacity",
    backups: "mailbox_table.backups",
    protection: "mailbox_table.protection",
};

/// Reads and checks the tables that the worker has.
pub(super) async fn examine(subject: &Subject, done: &mut impl FnMut(Check)) {
    let dynamodb = Client::new(&subject.config);
    let (connections, mailbox) = (&subject.spec.table, &subject.spec.mailbox);
    match subject.variable("CONNECTIONS_TABLE") {
        None => {
            done(Check::skipped(CONNECTIONS.exists, "a table", "the worker delivers to connections only"))
        }
        Some(name) => {
            let key = vec![(connections.hash_key.as_str(), KeyType::Hash)];
            let expected = Expected { names: &CONNECTIONS, key, ttl_attribute: &connections.ttl_attribute };
            if let Some(table) = examine_table(&dynamodb, name, &expected, subject.is_local, done).await {
                done(indexes(&table, &connections.indexes, &connections.projection));
            }
        }
    }
    match subject.variable("MAILBOX_TABLE") {
        None => done(Check::skipped(MAILBOX.exists, "a table", "the worker keeps no messages")),
        Some(name) => {
            let key = vec![
                (mailbox.hash_key.as_str(), KeyType::Hash),
                (mailbox.range_key.as_str(), KeyType::Range),
            ];
            let expected = Expected { names: &MAILBOX, key, ttl_attribute: &mailbox.ttl_attribute };
            examine_table(&dynamodb, name, &expected, subject.is_local, done).await;
        }
    }
}

/// Runs the checks that both tables have, and returns the table.
async fn examine_table(
    dynamodb: &Client,
    name: &str,
    expected: &Expected<'_>,
    is_local: bool,
    done: &mut impl FnMut(Check),
) -> Option<TableDescription> {
    let (names, resource) = (expected.names, format!("table {name}"));
    let describe = dynamodb.describe_table().table_name(name).send();
    let rule = exists_rule(names);
    let table = match read("dynamodb:DescribeTable", &resource, describe).await {
        Ok(answer) => answer.table?,
        Err(unread) => {
            done(unread.check(rule, &resource));
            return None;
        }
    };
    done(status(rule, name, table.table_status()));
    done(key(names.key, table.key_schema(), &expected.key));
    done(capacity(names.capacity, &table));
    let describe = dynamodb.describe_time_to_live().table_name(name).send();
    let rule = ttl_rule(names.ttl, expected.ttl_attribute);
    done(match read("dynamodb:DescribeTimeToLive", &resource, describe).await {
        Ok(answer) => ttl(rule, answer.time_to_live_description(), expected.ttl_attribute),
        Err(unread) => rule.skipped(unread.reason(&resource)),
    });
    let rule = Rule::new(
        names.backups,
        "point-in-time recovery",
        "turn on point-in-time recovery (`terraform apply` does): the table cannot be restored",
    );
    if is_local {
        done(rule.skipped("the stack on this machine is temporary"));
        return Some(table);
    }
    let describe = dynamodb.describe_continuous_backups().table_name(name).send();
    done(match read("dynamodb:DescribeContinuousBackups", &resource, describe).await {
        Ok(answer) => {
            let backups = answer.continuous_backups_description();
            let recovery = backups.and_then(|backups| backups.point_in_time_recovery_description());
            let status = recovery.and_then(|recovery| recovery.point_in_time_recovery_status());
            let on = status == Some(&PointInTimeRecoveryStatus::Enabled);
            rule.prefer(on, if on { "on" } else { "off" })
        }
        Err(unread) => rule.skipped(unread.reason(&resource)),
    });
    done(protection(names.protection, table.deletion_protection_enabled() == Some(true)));
    Some(table)
}

fn exists_rule(names: &Names) -> Rule {
    Rule::new(
        names.exists,
        "an active table",
        "check the Region; wait while the table is created; if it is gone, deploy it again: clients then connect, or sync, again",
    )
}

fn status(rule: Rule, name: &str, status: Option<&TableStatus>) -> Check {
    match status {
        Some(TableStatus::Active | TableStatus::Updating) => rule.ok(name),
        Some(TableStatus::Creating) => rule.warning("the table is being created"),
        status => rule.failed(format!("{name}: {}", status.map_or("an unknown status", TableStatus::as_str))),
    }
}

fn key(name: &'static str, schema: &[KeySchemaElement], expected: &[(&str, KeyType)]) -> Check {
    let text = |key: &[(&str, KeyType)]| key.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let seen: Vec<_> = schema.iter().map(|part| (part.attribute_name(), part.key_type().clone())).collect();
    let remedy = "deploy the table with Terraform under another name: a table's key cannot be changed";
    Rule::new(name, format!("the key {}", text(expected)), remedy).require(seen == expected, text(&seen))
}

/// With provisioned capacity, bursts of connections and deliveries are throttled.
fn capacity(name: &'static str, table: &TableDescription) -> Check {
    let remedy = "set the table's billing mode to PAY_PER_REQUEST: DynamoDB throttles bursts beyond the provisioned capacity";
    let mode = table.billing_mode_summary().and_then(|billing| billing.billing_mode());
    let mode = mode.unwrap_or(&BillingMode::Provisioned);
    Rule::new(name, "PAY_PER_REQUEST", remedy).prefer(*mode == BillingMode::PayPerRequest, mode.as_str())
}

fn ttl_rule(name: &'static str, attribute: &str) -> Rule {
    let remedy = format!(
        "turn on time to live for `{attribute}` (`terraform apply` does): expired items stay, and cost"
    );
    Rule::new(name, format!("time to live on {attribute}"), remedy)
}

fn ttl(rule: Rule, ttl: Option<&TimeToLiveDescription>, attribute: &str) -> Check {
    let status = ttl.and_then(TimeToLiveDescription::time_to_live_status);
    let seen = ttl.and_then(TimeToLiveDescription::attribute_name).unwrap_or("no attribute");
    match status {
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => rule.prefer(seen == attribute, seen),
        _ => rule.warning("off"),
    }
}

fn protection(name: &'static str, protected: bool) -> Check {
    let remedy = "set `deletion_protection = true` in Terraform, unless the deployment is to be deleted";
    Rule::new(name, "deletion protection", remedy).prefer(protected, if protected { "on" } else { "off" })
}

/// Messages for users and tenants are delivered through the indexes.
fn indexes(table: &TableDescription, expected: &[Index], projection: &[String]) -> Check {
    let names = expected.iter().map(|index| index.name.as_str()).collect::<Vec<_>>().join(", ");
    let rule = Rule::new(
        "table.indexes",
        format!("the active indexes {names}, with {}", projection.join(", ")),
        "create the index again (`terraform apply` does), or wait while DynamoDB builds it: messages for users need by_user, \
         messages for tenants by_tenant",
    );
    let faults = expected.iter().filter_map(|expected| {
        let mut indexes = table.global_secondary_indexes().iter();
        let found = indexes.find(|index| index.index_name() == Some(&expected.name));
        let Some(found) = found else {
            return Some((Verdict::Failed, format!("no index {}", expected.name)));
        };
        let (verdict, fault) = index(found, &expected.hash_key, projection)?;
        Some((verdict, format!("{}: {fault}", expected.name)))
    });
    rule.worst(faults.collect(), names)
}

/// Returns what an index lacks.
fn index(
    index: &GlobalSecondaryIndexDescription,
    hash_key: &str,
    projection: &[String],
) -> Option<(Verdict, String)> {
    let key = index.key_schema().first().map(KeySchemaElement::attribute_name);
    if key != Some(hash_key) {
        return Some((Verdict::Failed, format!("the key {}", key.unwrap_or_default())));
    }
    match index.index_status() {
        Some(IndexStatus::Active | IndexStatus::Updating) | None => {}
        Some(IndexStatus::Creating) => return Some((Verdict::Warning, "is being created".to_owned())),
        Some(status) => return Some((Verdict::Failed, status.as_str().to_owned())),
    }
    let projected = index.projection();
    if projected.and_then(|projected| projected.projection_type()) == Some(&ProjectionType::All) {
        return None;
    }
    let attributes = projected.map_or(&[][..], |projected| projected.non_key_attributes());
    let lacking: Vec<_> = projection.iter().filter(|name| !attributes.contains(name)).cloned().collect();
    (!lacking.is_empty()).then(|| (Verdict::Failed, format!("without {}", lacking.join(", "))))
}

#[cfg(test)]
mod tests;

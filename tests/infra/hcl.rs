//! Compares the Terraform files with the code. Parses them as HCL, so it needs neither Terraform nor a provider.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use hcl::{Attribute, Block, Body, Expression, expr::ObjectKey};
use streamer_cli::{paths, spec::Spec};
use streamer_connections::{
    TenantShards,
    schema::{BY_TENANT, BY_USER, CONNECTION_ID, EXPIRES_AT, PROJECTION},
};
use streamer_telemetry::{NAMESPACE, metric};

/// Parses a file of `infra/`.
fn parse(name: &str) -> Body {
    let path = paths::workspace().join("infra").join(name);
    hcl::parse(&fs::read_to_string(&path).unwrap()).unwrap()
}

/// Calls `visitor` with every expression of a body, nested ones included.
fn visit_body(body: &Body, visitor: &mut impl FnMut(&Expression)) {
    body.attributes().for_each(|attribute| visit_expression(&attribute.expr, visitor));
    body.blocks().for_each(|block| visit_body(&block.body, visitor));
}

fn visit_expression(expression: &Expression, visitor: &mut impl FnMut(&Expression)) {
    visitor(expression);
    match expression {
        Expression::Array(items) => items.iter().for_each(|item| visit_expression(item, visitor)),
        Expression::Object(object) => object.values().for_each(|value| visit_expression(value, visitor)),
        Expression::FuncCall(call) => {
            call.args.iter().for_each(|argument| visit_expression(argument, visitor))
        }
        Expression::Parenthesis(inner) => visit_expression(inner, visitor),
        Expression::Conditional(conditional) => {
            visit_expression(&conditional.true_expr, visitor);
            visit_expression(&conditional.false_expr, visitor);
        }
        Expression::ForExpr(each) => {
            visit_expression(&each.collection_expr, visitor);
            visit_expression(&each.value_expr, visitor);
        }
        _ => {}
    }
}

fn string(expression: &Expression) -> Option<&str> {
    match expression {
        Expression::String(string) => Some(string),
        _ => None,
    }
}

fn attribute<'a>(body: &'a Body, name: &str) -> Option<&'a Expression> {
    body.attributes().find(|attribute| attribute.key() == name).map(Attribute::expr)
}

/// Collects Streamer's metrics that blocks name, as `metric` blocks do.
fn collect_from_blocks(body: &Body, metrics: &mut BTreeSet<String>) {
    if attribute(body, "namespace").and_then(string) == Some(NAMESPACE) {
        metrics.extend(attribute(body, "metric_name").and_then(string).map(str::to_owned));
    }
    body.blocks().for_each(|block| collect_from_blocks(&block.body, metrics));
}

/// Streamer's metrics that alarms watch: in blocks, and in the objects that `for_each` reads.
fn alarm_metrics() -> BTreeSet<String> {
    let (alarms, mut metrics) = (parse("alarms.tf"), BTreeSet::new());
    collect_from_blocks(&alarms, &mut metrics);
    visit_body(&alarms, &mut |expression| {
        let Expression::Object(object) = expression else { return };
        let value = |key| object.get(&ObjectKey::from(hcl::Identifier::unchecked(key))).and_then(string);
        if value("namespace") == Some(NAMESPACE) {
            metrics.extend(value("metric_name").map(str::to_owned));
        }
    });
    metrics
}

/// Streamer's metrics that the dashboard shows.
fn dashboard_metrics() -> BTreeSet<String> {
    let mut metrics = BTreeSet::new();
    visit_body(&parse("dashboard.tf"), &mut |expression| {
        let Expression::Array(items) = expression else { return };
        if let [namespace, metric, ..] = items.as_slice()
            && string(namespace) == Some(NAMESPACE)
        {
            metrics.extend(string(metric).map(str::to_owned));
        }
    });
    metrics
}

/// The metrics that the functions write.
fn written_metrics() -> BTreeSet<String> {
    metric::ALL.map(|metric| metric.name.to_owned()).into()
}

#[test]
fn alarms_watch_only_written_metrics() {
    let watched = alarm_metrics();
    assert!(watched.len() >= 4, "{watched:?}");
    assert!(watched.is_subset(&written_metrics()), "{watched:?}");
}

#[test]
fn dashboard_shows_exactly_the_written_metrics() {
    assert_eq!(dashboard_metrics(), written_metrics());
}

/// `stack.tf` has a value for each name that `stack.json` gives to an environment variable, and no others.
#[test]
fn environment_values_match_stack_json() {
    let mut known = BTreeSet::new();
    for locals in parse("stack.tf").blocks().filter(|block| block.identifier() == "locals") {
        for name in ["settings", "resource_values"] {
            if let Some(Expression::Object(values)) = attribute(&locals.body, name) {
                known.extend(values.keys().map(ToString::to_string));
            }
        }
    }
    let functions = Spec::read().unwrap().functions;
    let wanted = functions.values().flat_map(|function| function.environment.values().cloned());
    assert_eq!(known, wanted.collect());
}

#[test]
fn table_matches_connections_schema() {
    let table = Spec::read().unwrap().table;
    assert_eq!((table.hash_key.as_str(), table.ttl_attribute.as_str()), (CONNECTION_ID, EXPIRES_AT));
    assert_eq!(table.projection, PROJECTION);
    let indexes: BTreeMap<_, _> =
        table.indexes.iter().map(|index| (index.name.as_str(), index.hash_key.as_str())).collect();
    assert_eq!(indexes, [BY_USER, BY_TENANT].map(|index| (index.name, index.hash_key)).into());
}

/// Terraform destroys a resource before those that it depends on, so the guard is destroyed before all others.
#[test]
fn guard_depends_on_every_other_resource() {
    let (mut resources, mut guarded) = (BTreeSet::new(), BTreeSet::new());
    for file in fs::read_dir(paths::workspace().join("infra")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".tf") {
            continue;
        }
        for block in parse(&name).blocks().filter(|block| block.identifier() == "resource") {
            let address: Vec<_> = block.labels().iter().map(|label| label.as_str()).collect();
            let address = address.join(".");
            if address == "terraform_data.guard" {
                let Some(Expression::Array(items)) = attribute(&block.body, "depends_on") else { panic!() };
                guarded.extend(items.iter().map(|item| hcl::format::to_string(item).unwrap()));
            } else {
                resources.insert(address);
            }
        }
    }
    assert_eq!(guarded, resources);
}

/// A row of a new shard is written only after the worker reads it.
#[test]
fn connect_changes_after_the_worker() {
    let functions = parse("functions.tf");
    let mut labelled = functions.blocks().filter(|block| {
        block.labels().iter().map(|label| label.as_str()).eq(["aws_lambda_function", "connect"])
    });
    let connect = labelled.next().unwrap();
    let Some(Expression::Array(items)) = attribute(&connect.body, "depends_on") else { panic!() };
    let items: Vec<_> = items.iter().map(|item| hcl::format::to_string(item).unwrap()).collect();
    assert!(items.contains(&"aws_lambda_function.this".to_owned()), "{items:?}");
}

#[test]
fn terraform_and_functions_have_same_default_of_shards() {
    let stack = parse("stack.tf");
    let locals = stack.blocks().filter(|block| block.identifier() == "locals");
    let default = locals.filter_map(|block| attribute(&block.body, "default_tenant_shards")).next().unwrap();
    assert_eq!(default, &Expression::from(u64::from(TenantShards::DEFAULT.count())));
}

/// `table.tf` reads keys and indexes from `stack.json`: a second copy could differ from it.
#[test]
fn terraform_repeats_no_stack_json_value() {
    let table = parse("table.tf");
    let resources: Vec<&Block> = table.blocks().filter(|block| block.identifier() == "resource").collect();
    assert!(!resources.is_empty());
    let mailbox = Spec::read().unwrap().mailbox;
    let of_connections =
        [CONNECTION_ID, EXPIRES_AT, BY_USER.name, BY_USER.hash_key, BY_TENANT.name, BY_TENANT.hash_key];
    let of_mailbox = [&mailbox.hash_key, &mailbox.range_key, &mailbox.ttl_attribute].map(String::as_str);
    let values = [of_connections.as_slice(), &of_mailbox].concat();
    visit_body(&table, &mut |expression| {
        assert!(string(expression).is_none_or(|string| !values.contains(&string)), "{expression:?}");
    });
}

//! The Terraform files against the code, read as HCL: this needs neither Terraform nor a provider.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use hcl::{Attribute, Block, Body, Expression};
use streamer_cli::{paths, spec::Spec};
use streamer_connections::schema::{BY_TENANT, BY_USER, CONNECTION_ID, EXPIRES_AT, PROJECTION};
use streamer_telemetry::{NAMESPACE, metric};

/// A file of `infra/`.
fn file(name: &str) -> Body {
    let path = paths::workspace().join("infra").join(name);
    hcl::parse(&fs::read_to_string(&path).unwrap()).unwrap()
}

/// Calls `see` with every expression of a body, and with every expression in one of them.
fn visit(body: &Body, see: &mut impl FnMut(&Expression)) {
    body.attributes().for_each(|attribute| descend(&attribute.expr, see));
    body.blocks().for_each(|block| visit(&block.body, see));
}

fn descend(expression: &Expression, see: &mut impl FnMut(&Expression)) {
    see(expression);
    match expression {
        Expression::Array(items) => items.iter().for_each(|item| descend(item, see)),
        Expression::Object(object) => object.values().for_each(|value| descend(value, see)),
        Expression::FuncCall(call) => call.args.iter().for_each(|argument| descend(argument, see)),
        Expression::Parenthesis(inner) => descend(inner, see),
        Expression::Conditional(conditional) => {
            descend(&conditional.true_expr, see);
            descend(&conditional.false_expr, see);
        }
        Expression::ForExpr(each) => descend(&each.value_expr, see),
        _ => {}
    }
}

fn text(expression: &Expression) -> Option<&str> {
    match expression {
        Expression::String(text) => Some(text),
        _ => None,
    }
}

fn attribute<'a>(body: &'a Body, name: &str) -> Option<&'a Expression> {
    body.attributes().find(|attribute| attribute.key() == name).map(Attribute::expr)
}

/// The metrics of our namespace that blocks name, as alarms do.
fn named(body: &Body, names: &mut BTreeSet<String>) {
    if attribute(body, "namespace").and_then(text) == Some(NAMESPACE) {
        names.extend(attribute(body, "metric_name").and_then(text).map(str::to_owned));
    }
    body.blocks().for_each(|block| named(&block.body, names));
}

/// The metrics of our namespace that the dashboard shows.
fn shown() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    visit(&file("dashboard.tf"), &mut |expression| {
        let Expression::Array(items) = expression else { return };
        if let [namespace, name, ..] = items.as_slice()
            && text(namespace) == Some(NAMESPACE)
        {
            names.extend(text(name).map(str::to_owned));
        }
    });
    names
}

fn written() -> BTreeSet<String> {
    metric::ALL.map(|metric| metric.name.to_owned()).into()
}

#[test]
fn alarms_name_only_metrics_that_are_written() {
    let mut names = BTreeSet::new();
    named(&file("alarms.tf"), &mut names);
    assert!(names.len() >= 4, "{names:?}");
    assert!(names.is_subset(&written()), "{names:?}");
}

#[test]
fn the_dashboard_shows_the_metrics_that_are_written_and_no_others() {
    assert_eq!(shown(), written());
}

/// The environment's values, by the names that `stack.json` gives them.
#[test]
fn terraform_knows_every_value_that_a_variable_can_hold() {
    let mut known = BTreeSet::new();
    for locals in file("stack.tf").blocks().filter(|block| block.identifier() == "locals") {
        for values in ["settings", "places"] {
            if let Some(Expression::Object(values)) = attribute(&locals.body, values) {
                known.extend(values.keys().map(ToString::to_string));
            }
        }
    }
    let functions = Spec::read().unwrap().functions;
    let wanted = functions.values().flat_map(|function| function.environment.values().cloned());
    assert_eq!(known, wanted.collect());
}

#[test]
fn table_and_indexes_are_those_that_the_functions_use() {
    let table = Spec::read().unwrap().table;
    assert_eq!((table.hash_key.as_str(), table.ttl_attribute.as_str()), (CONNECTION_ID, EXPIRES_AT));
    assert_eq!(table.projection, PROJECTION);
    let indexes: BTreeMap<_, _> =
        table.indexes.iter().map(|index| (index.name.as_str(), index.hash_key.as_str())).collect();
    assert_eq!(indexes, [BY_USER, BY_TENANT].map(|index| (index.name, index.hash_key)).into());
}

/// Terraform reads what it can from `stack.json`: what stands in both would differ one day.
#[test]
fn no_fact_stands_in_terraform_again() {
    let table = file("table.tf");
    let resources: Vec<&Block> = table.blocks().filter(|block| block.identifier() == "resource").collect();
    assert!(!resources.is_empty());
    let facts =
        [CONNECTION_ID, EXPIRES_AT, BY_USER.name, BY_USER.hash_key, BY_TENANT.name, BY_TENANT.hash_key];
    visit(&table, &mut |expression| {
        assert!(text(expression).is_none_or(|text| !facts.contains(&text)), "{expression:?}");
    });
}

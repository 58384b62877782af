//! The alarms' definitions, from Terraform's plan of `infra/` with the mailbox, receipts and the default settings.

use std::{collections::BTreeMap, ffi::OsStr, sync::LazyLock};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value as Json;
use streamer_tests::terraform::Terraform;
use tokio::runtime::Builder;

use crate::{
    cloudwatch::{Actions, Alarm, Comparison, Metric, Missing, Query, Source},
    composite::Composite,
};

/// The deployment's name and stage.
pub(crate) const NAME: &str = "streamer";
pub(crate) const STAGE: &str = "production";

/// Names of the queues.
pub(crate) const OUTBOUND: &str = "streamer-outbound";
pub(crate) const DEAD_LETTERS: &str = "streamer-dead-letters";
pub(crate) const RECEIPTS: &str = "streamer-receipts";

/// The topic of all actions.
pub(crate) const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:alarms";

/// The file that plans the module, and its text without the topic.
const FILE: &str = "tests/alarms.tftest.hcl";
const PLAN: &str = r#"
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  jwt_issuers     = ["https://auth.example.com"]
  jwt_audiences   = ["streamer"]
  packages        = "."
  mailbox         = true
  receipts        = true
  alarm_topic_arn = "TOPIC"
}

run "alarms" {
  command = plan
}
"#;

/// All alarms, by name without the deployment's name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definitions {
    pub(crate) alarms: BTreeMap<String, Alarm>,
    pub(crate) composites: BTreeMap<String, Composite>,
}

/// The definitions in `infra/`; `None` without Terraform, unless `CI` is set.
static PLANNED: LazyLock<Option<Definitions>> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(plan()).unwrap_or_else(|error| panic!("{error:?}"))
});

impl Definitions {
    /// Returns the definitions in `infra/`; `None` without Terraform, unless `CI` is set.
    pub(crate) fn planned() -> Option<&'static Self> {
        PLANNED.as_ref()
    }
}

async fn plan() -> anyhow::Result<Option<Definitions>> {
    let file = PLAN.replace("TOPIC", TOPIC);
    let terraform = Terraform::initialise_with("alarms", ".", BTreeMap::new(), Some((FILE, &file))).await?;
    let Some(terraform) = terraform else { return Ok(None) };
    // The module requires the packages to exist.
    for function in ["connect-handler", "delivery-worker", "disconnect-handler", "mailbox-handler"] {
        terraform.write(&format!("{function}-arm64.zip"), "")?;
    }
    let filter = format!("-filter={FILE}");
    let output = terraform.run(["test", "-json", "-verbose", &filter].map(OsStr::new)).await?;
    let lines = output.lines().map(serde_json::from_str).collect::<Result<Vec<Json>, _>>()?;
    let plan = lines.iter().find(|line| line["type"] == "test_plan").context("no plan is printed")?;
    let resources = plan["test_plan"]["resource_changes"].as_array().context("no resources are planned")?;
    let mut planned = Definitions { alarms: BTreeMap::new(), composites: BTreeMap::new() };
    for resource in resources {
        let (kind, resource) = (text(&resource["type"])?, &resource["change"]["after"]);
        if !kind.starts_with("aws_cloudwatch_") || !kind.ends_with("_alarm") {
            continue;
        }
        let name = text(&resource["alarm_name"])?;
        let short = name.strip_prefix(&format!("{NAME}-")).context("a name lacks the prefix")?.to_owned();
        match kind {
            "aws_cloudwatch_metric_alarm" => {
                planned.alarms.insert(short, alarm(resource).with_context(|| name.to_owned())?);
            }
            "aws_cloudwatch_composite_alarm" => {
                ensure!(is_absent(&resource["actions_suppressor"]), "{name}: a suppressor");
                let rule = text(&resource["alarm_rule"])?.replace(&format!("\"{NAME}-"), "\"");
                planned.composites.insert(short, Composite { rule, actions: actions(resource)? });
            }
            other => bail!("{other} is unknown"),
        }
    }
    Ok(Some(planned))
}

fn text(value: &Json) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

fn whole(value: &Json) -> anyhow::Result<usize> {
    Ok(value.as_u64().with_context(|| format!("{value} is no whole number"))?.try_into()?)
}

fn is_absent(value: &Json) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// Fails if a setting is there that the evaluation would ignore.
fn ensure_absent(block: &Json, settings: &[&str]) -> anyhow::Result<()> {
    for setting in settings {
        ensure!(is_absent(&block[setting]), "{setting} is {}", block[setting]);
    }
    Ok(())
}

fn actions(resource: &Json) -> anyhow::Result<Actions> {
    ensure!(resource["actions_enabled"] != false, "the actions are disabled");
    ensure_absent(resource, &["insufficient_data_actions"])?;
    let topics = |name: &str| -> anyhow::Result<Vec<String>> {
        let topics = resource[name].as_array().with_context(|| format!("no {name}"))?;
        topics.iter().map(|topic| Ok(text(topic)?.to_owned())).collect()
    };
    Ok(Actions { alarm: topics("alarm_actions")?, ok: topics("ok_actions")? })
}

fn alarm(resource: &Json) -> anyhow::Result<Alarm> {
    ensure_absent(resource, &["threshold_metric_id", "unit"])?;
    let evaluation_periods = whole(&resource["evaluation_periods"])?;
    let datapoints = &resource["datapoints_to_alarm"];
    Ok(Alarm {
        source: source(resource)?,
        evaluation_periods,
        datapoints_to_alarm: if datapoints.is_null() { evaluation_periods } else { whole(datapoints)? },
        comparison: match text(&resource["comparison_operator"])? {
            "GreaterThanThreshold" => Comparison::Greater,
            "GreaterThanOrEqualToThreshold" => Comparison::GreaterOrEqual,
            "LessThanThreshold" => Comparison::Less,
            "LessThanOrEqualToThreshold" => Comparison::LessOrEqual,
            other => bail!("{other} is unknown"),
        },
        threshold: resource["threshold"].as_f64().context("no threshold")?,
        missing: match text(&resource["treat_missing_data"])? {
            "breaching" => Missing::Breaching,
            "notBreaching" => Missing::NotBreaching,
            "ignore" => Missing::Ignore,
            "missing" => Missing::Unknown,
            other => bail!("{other} is unknown"),
        },
        actions: actions(resource)?,
    })
}

fn source(resource: &Json) -> anyhow::Result<Source> {
    let blocks = resource["metric_query"].as_array().context("no metric_query")?;
    if blocks.is_empty() {
        let statistic = resource["statistic"].as_str().or(resource["extended_statistic"].as_str());
        return Ok(Source::Metric(query(resource, statistic)?));
    }
    ensure_absent(resource, &["metric_name", "namespace", "dimensions", "period", "statistic"])?;
    let (mut queries, mut expressions) = (BTreeMap::new(), Vec::new());
    for block in blocks {
        ensure_absent(block, &["account_id", "period"])?;
        let returns_data = block["return_data"] == true;
        match block["metric"].as_array().context("no metric")?.as_slice() {
            [metric] if !returns_data => {
                ensure_absent(block, &["expression"])?;
                ensure_absent(metric, &["unit"])?;
                queries.insert(text(&block["id"])?.to_owned(), query(metric, metric["stat"].as_str())?);
            }
            [] if returns_data => expressions.push(text(&block["expression"])?.to_owned()),
            _ => bail!("{block} is no metric, and not the expression that returns data"),
        }
    }
    ensure!(expressions.len() == 1, "{expressions:?} is not one expression");
    Ok(Source::Math { queries, expression: expressions.remove(0) })
}

fn query(block: &Json, statistic: Option<&str>) -> anyhow::Result<Query> {
    let dimensions = block["dimensions"].as_object().context("no dimensions")?;
    let dimensions = dimensions.iter().map(|(name, value)| Ok((name.clone(), text(value)?.to_owned())));
    let seconds = whole(&block["period"])?;
    ensure!(seconds > 0 && seconds.is_multiple_of(60), "a period of {seconds} s is not in minutes");
    Ok(Query {
        metric: Metric {
            namespace: text(&block["namespace"])?.to_owned(),
            name: text(&block["metric_name"])?.to_owned(),
            dimensions: dimensions.collect::<anyhow::Result<_>>()?,
        },
        statistic: statistic.context("no statistic")?.to_owned(),
        period: seconds / 60,
    })
}

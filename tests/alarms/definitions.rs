//! The alarms' definitions, evaluated from `infra/alarms.tf` with the defaults of `infra/variables.tf`. Needs neither
//! Terraform nor a provider.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, bail};
use hcl::{
    Body, Expression, Value,
    eval::{Context, Evaluate, FuncArgs, FuncDef, ParamType},
    expr::FuncCall,
};
use serde_json::{Value as Json, json};
use streamer_cli::paths;

use crate::cloudwatch::{Alarm, Composite, Metric, Missing, Query, Source};

/// The deployment's name and stage.
pub(crate) const NAME: &str = "streamer";
pub(crate) const STAGE: &str = "production";

/// Names of the queues and functions.
pub(crate) const OUTBOUND: &str = "streamer-outbound";
pub(crate) const DEAD_LETTERS: &str = "streamer-dead-letters";
pub(crate) const FUNCTIONS: [&str; 3] = ["connect", "disconnect", "delivery"];

/// All alarms, by name without the deployment's name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definitions {
    pub(crate) alarms: BTreeMap<String, Alarm>,
    pub(crate) composites: BTreeMap<String, Composite>,
}

impl Definitions {
    /// Evaluates the files of `infra/`.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let (alarms, variables) = (parse("alarms.tf")?, parse("variables.tf")?);
        let mut context = context(&variables)?;
        declare_locals(&alarms, &mut context)?;
        let mut read = Self { alarms: BTreeMap::new(), composites: BTreeMap::new() };
        let resources = |kind: &'static str| {
            let blocks = alarms.blocks().filter(|block| block.identifier() == "resource");
            blocks.filter(move |block| block.labels()[0].as_str() == kind)
        };
        let mut names = BTreeMap::new();
        for block in resources("aws_cloudwatch_metric_alarm") {
            let each = match attribute(&block.body, "for_each") {
                Some(expression) => entries(evaluate(expression, &context)?)?,
                None => vec![(block.labels()[1].as_str().replace('_', "-"), Value::Null)],
            };
            for (key, value) in each {
                context.declare_var("each", to_hcl(&json!({ "key": key, "value": value })));
                let resource = evaluate_body(&block.body, &mut context)?;
                names.insert(key.clone(), json!({ "alarm_name": resource["alarm_name"] }));
                read.alarms.insert(short(&resource)?, alarm(&resource).context(key)?);
            }
        }
        context.declare_var("aws_cloudwatch_metric_alarm", to_hcl(&json!({ "this": names })));
        for block in resources("aws_cloudwatch_composite_alarm") {
            let resource = evaluate_body(&block.body, &mut context)?;
            let rule = text(&resource["alarm_rule"])?.replace(&format!("\"{NAME}-"), "\"");
            let notifies = notifies(&resource);
            read.composites.insert(short(&resource)?, Composite { rule, notifies });
        }
        Ok(read)
    }
}

fn parse(file: &str) -> anyhow::Result<Body> {
    Ok(hcl::parse(&fs::read_to_string(paths::workspace().join("infra").join(file))?)?)
}

fn attribute<'a>(body: &'a Body, name: &str) -> Option<&'a Expression> {
    body.attributes().find(|attribute| attribute.key() == name).map(|attribute| attribute.expr())
}

fn to_hcl(json: &Json) -> Value {
    hcl::to_expression(json)
        .ok()
        .and_then(|expression| evaluate(&expression, &Context::new()).ok())
        .unwrap_or_default()
}

/// Evaluates an expression. Terraform's `try` is no function: it evaluates its arguments one after the other.
fn evaluate(expression: &Expression, context: &Context<'_>) -> anyhow::Result<Value> {
    if let Expression::FuncCall(call) = expression
        && call.name.name.as_str() == "try"
    {
        let mut values = call.args.iter().map(|argument| evaluate(argument, context));
        return values.find_map(Result::ok).context("no argument of try has a value");
    }
    expression.evaluate(context).map_err(|error| anyhow::anyhow!("{error}"))
}

fn entries(value: Value) -> anyhow::Result<Vec<(String, Value)>> {
    match value {
        Value::Object(object) => Ok(object.into_iter().collect()),
        other => bail!("for_each of {other}"),
    }
}

/// Declares Terraform's functions, and the values that come from other files.
fn context(variables: &Body) -> anyhow::Result<Context<'static>> {
    let mut context = Context::new();
    let any = |function: fn(FuncArgs) -> Result<Value, String>| {
        FuncDef::builder().variadic_param(ParamType::Any).build(function)
    };
    context.declare_func(
        "merge",
        any(|arguments| {
            let objects = arguments.iter().filter_map(Value::as_object);
            Ok(Value::Object(objects.flat_map(Clone::clone).collect()))
        }),
    );
    context.declare_func(
        "concat",
        any(|arguments| {
            let lists = arguments.iter().filter_map(Value::as_array);
            Ok(Value::Array(lists.flat_map(Clone::clone).collect()))
        }),
    );
    context.declare_func(
        "contains",
        any(|arguments| {
            let list = arguments[0].as_array().ok_or("contains takes a list")?;
            Ok(Value::Bool(list.contains(&arguments[1])))
        }),
    );
    context.declare_func(
        "join",
        any(|arguments| {
            let list = arguments[1].as_array().ok_or("join takes a list")?;
            let texts: Vec<_> = list.iter().filter_map(Value::as_str).collect();
            Ok(Value::String(texts.join(arguments[0].as_str().unwrap_or_default())))
        }),
    );
    let thresholds = defaults(variables, "alarms")?;
    let topic = "arn:aws:sns:eu-central-1:123456789012:alarms";
    context
        .declare_var("var", to_hcl(&json!({ "alarms": thresholds, "alarm_topic_arn": topic, "tags": {} })));
    let queues = json!({ "outbound": { "name": OUTBOUND }, "dead_letter": { "name": DEAD_LETTERS } });
    context.declare_var("aws_sqs_queue", to_hcl(&queues));
    let functions: serde_json::Map<_, _> = FUNCTIONS
        .map(|name| (name.to_owned(), json!({ "function_name": format!("{NAME}-{name}") })))
        .into_iter()
        .collect();
    context.declare_var("aws_lambda_function", to_hcl(&json!({ "this": functions })));
    Ok(context)
}

/// Returns the defaults of a variable's optional attributes.
fn defaults(variables: &Body, name: &str) -> anyhow::Result<Json> {
    let variable = variables.blocks().find(|block| {
        block.identifier() == "variable" && block.labels().first().is_some_and(|label| label.as_str() == name)
    });
    let kind =
        attribute(&variable.context("no such variable")?.body, "type").context("a variable has no type")?;
    let Expression::FuncCall(object) = kind else { bail!("{kind:?} is no object") };
    let Some(Expression::Object(attributes)) = object.args.first() else {
        bail!("{object:?} has no attributes")
    };
    let mut defaults = serde_json::Map::new();
    for (key, value) in attributes {
        let Expression::FuncCall(optional) = value else { bail!("{key} is not optional") };
        let FuncCall { args, .. } = &**optional;
        let default = args.get(1).with_context(|| format!("{key} has no default"))?;
        defaults.insert(key.to_string(), serde_json::to_value(evaluate(default, &Context::new())?)?);
    }
    Ok(Json::Object(defaults))
}

/// Declares the locals of the file, which refer to each other in any order.
fn declare_locals(alarms: &Body, context: &mut Context<'_>) -> anyhow::Result<()> {
    let mut known = json!({
        "name": NAME, "stage": STAGE, "creates_table": true, "creates_function": { "connect": true },
    });
    let blocks = alarms.blocks().filter(|block| block.identifier() == "locals");
    let mut left: Vec<_> = blocks.flat_map(|block| block.body.attributes()).collect();
    while !left.is_empty() {
        context.declare_var("local", to_hcl(&known));
        let (number, mut failed) = (left.len(), None);
        left.retain(|local| match evaluate(local.expr(), context) {
            Ok(value) => {
                known[local.key()] = serde_json::to_value(value).unwrap_or_default();
                false
            }
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        if let Some(error) = failed.filter(|_| left.len() == number) {
            return Err(error);
        }
    }
    context.declare_var("local", to_hcl(&known));
    Ok(())
}

/// Evaluates a resource. Its blocks, dynamic ones too, become lists by name.
fn evaluate_body(body: &Body, context: &mut Context<'_>) -> anyhow::Result<Json> {
    let mut resource = serde_json::Map::new();
    for attribute in body.attributes().filter(|attribute| !["for_each", "count"].contains(&attribute.key())) {
        let value = evaluate(attribute.expr(), context)
            .with_context(|| format!("{} cannot be evaluated", attribute.key()))?;
        resource.insert(attribute.key().to_owned(), serde_json::to_value(value)?);
    }
    for block in body.blocks() {
        let (name, items, content) = match block.identifier() {
            "dynamic" => {
                let items = attribute(&block.body, "for_each").context("a dynamic block without for_each")?;
                let content = block.body.blocks().find(|block| block.identifier() == "content");
                let items = evaluate(items, context)?.as_array().cloned().context("for_each is no list")?;
                (block.labels()[0].as_str(), items, &content.context("a dynamic block without content")?.body)
            }
            name => (name, vec![Value::Null], &block.body),
        };
        for item in items {
            context.declare_var(hcl::Identifier::new(name)?, to_hcl(&json!({ "value": item })));
            let block = evaluate_body(content, context)?;
            let blocks = resource.entry(name.to_owned()).or_insert_with(|| json!([]));
            blocks.as_array_mut().context("a block has the name of an attribute")?.push(block);
        }
    }
    Ok(Json::Object(resource))
}

fn text(value: &Json) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

/// Returns the name of an alarm without the deployment's name.
fn short(resource: &Json) -> anyhow::Result<String> {
    let name = text(&resource["alarm_name"])?;
    Ok(name.strip_prefix(&format!("{NAME}-")).context("an alarm's name lacks the prefix")?.to_owned())
}

fn notifies(resource: &Json) -> bool {
    resource["alarm_actions"].as_array().is_some_and(|actions| !actions.is_empty())
}

fn alarm(resource: &Json) -> anyhow::Result<Alarm> {
    anyhow::ensure!(resource["comparison_operator"] == "GreaterThanThreshold", "another comparison");
    let number = |name: &str| resource[name].as_f64();
    let evaluation_periods = number("evaluation_periods").context("no evaluation_periods")? as usize;
    Ok(Alarm {
        source: source(resource)?,
        evaluation_periods,
        datapoints_to_alarm: number("datapoints_to_alarm")
            .map_or(evaluation_periods, |number| number as usize),
        threshold: number("threshold").context("no threshold")?,
        missing: match text(&resource["treat_missing_data"])? {
            "breaching" => Missing::Breaching,
            "notBreaching" => Missing::NotBreaching,
            "ignore" => Missing::Ignore,
            _ => Missing::Unknown,
        },
        notifies: notifies(resource),
    })
}

fn source(resource: &Json) -> anyhow::Result<Source> {
    let Some(blocks) = resource["metric_query"].as_array() else {
        let statistic = resource["statistic"].as_str().or(resource["extended_statistic"].as_str());
        return Ok(Source::Metric(query(resource, statistic)?));
    };
    let (mut queries, mut expression) = (BTreeMap::new(), None);
    for block in blocks {
        match block["metric"].as_array().and_then(|metrics| metrics.first()) {
            Some(metric) => {
                let query = query(metric, metric["stat"].as_str())?;
                queries.insert(text(&block["id"])?.to_owned(), query);
            }
            None => expression = Some(text(&block["expression"])?.to_owned()),
        }
    }
    Ok(Source::Math { queries, expression: expression.context("no expression")? })
}

fn query(block: &Json, statistic: Option<&str>) -> anyhow::Result<Query> {
    let dimensions = block["dimensions"].as_object().context("no dimensions")?;
    let dimensions = dimensions.iter().map(|(name, value)| Ok((name.clone(), text(value)?.to_owned())));
    Ok(Query {
        metric: Metric {
            namespace: text(&block["namespace"])?.to_owned(),
            name: text(&block["metric_name"])?.to_owned(),
            dimensions: dimensions.collect::<anyhow::Result<_>>()?,
        },
        statistic: statistic.context("no statistic")?.to_owned(),
        period: (block["period"].as_f64().context("no period")? as usize) / 60,
    })
}

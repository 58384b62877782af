//! The protection of queues and table in `infra/protection.tf`, on the emulator.

use std::{collections::BTreeMap, fs};

use aws_config::SdkConfig;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::Value;
use streamer_cli::{
    package::Architecture,
    paths,
    stack::{
        Endpoint,
        deploy::local_config,
        emulator::{MINISTACK, install},
    },
};
use streamer_tests::{full, terraform::Terraform};

use crate::terraform::assert_no_resources;

/// A zip file without entries: the functions are never invoked.
const EMPTY_ZIP: [u8; 22] = *b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Hides a message from the worker for the whole test.
const DELAY_SECONDS: i32 = 900;

/// A root module with the smallest deployment that has an API, both tables and all queues. Its variables are the changes.
const MODULE: &str = r#"
variable "packages" {}
variable "architecture" {}
variable "table" { default = true }
variable "mailbox" { default = true }
variable "receipts" { default = true }
variable "parts_percent" { default = 50 }
variable "deletion_protection" { default = true }

module "streamer" {
  source = "../"

  packages            = var.packages
  architecture        = var.architecture
  table               = var.table
  mailbox             = var.mailbox && var.table
  receipts            = var.receipts
  parts_percent       = var.parts_percent
  connect             = false
  disconnect          = false
  require_tls         = false
  deletion_protection = var.deletion_protection
}

output "queue_url" { value = module.streamer.queue_url }
output "parts_queue_url" { value = module.streamer.parts_queue_url }
output "dead_letter_queue_url" { value = module.streamer.dead_letter_queue_url }
output "receipts_queue_url" { value = module.streamer.receipts_queue_url }
"#;

fn provider(url: &str) -> String {
    let services = ["apigatewayv2", "cloudwatch", "dynamodb", "iam", "lambda", "logs", "sqs", "sts"];
    let endpoints = services.map(|service| format!("    {service} = \"{url}\"\n")).concat();
    format!(
        "provider \"aws\" {{
  skip_credentials_validation = true
  skip_region_validation      = true

  endpoints {{
{endpoints}  }}
}}
"
    )
}

/// All that a refused change must leave as it was.
#[derive(Debug, PartialEq)]
struct Deployed {
    api: String,
    functions: Vec<String>,
    mappings: usize,
    /// Whether the worker knows both tables, the parts queue and the receipts queue.
    worker_uses_all: bool,
    tables: Vec<String>,
    /// Messages on each queue, by its URL.
    messages: BTreeMap<String, usize>,
}

impl Deployed {
    async fn read(config: &SdkConfig) -> anyhow::Result<Self> {
        let lambda = aws_sdk_lambda::Client::new(config);
        let functions = lambda.list_functions().send().await?;
        let functions = functions.functions();
        let variables = functions.iter().filter_map(|function| function.environment()?.variables());
        let mappings = lambda.list_event_source_mappings().send().await?;
        let tables = aws_sdk_dynamodb::Client::new(config).list_tables().send().await?;
        let apis = aws_sdk_apigatewayv2::Client::new(config).get_apis().send().await?;
        let api = apis.items().iter().filter_map(|api| api.api_id()).collect();
        let sqs = aws_sdk_sqs::Client::new(config);
        let mut messages = BTreeMap::new();
        for url in sqs.list_queues().send().await?.queue_urls() {
            let all = QueueAttributeName::All;
            let attributes = sqs.get_queue_attributes().queue_url(url).attribute_names(all).send().await?;
            let count = |name| attributes.attributes()?.get(&name)?.parse::<usize>().ok();
            let waiting = count(QueueAttributeName::ApproximateNumberOfMessages);
            let delayed = count(QueueAttributeName::ApproximateNumberOfMessagesDelayed);
            messages.insert(url.clone(), waiting.unwrap_or(0) + delayed.unwrap_or(0));
        }
        Ok(Self {
            api,
            functions: functions
                .iter()
                .filter_map(|function| function.function_name())
                .map(str::to_owned)
                .collect(),
            mappings: mappings.event_source_mappings().len(),
            worker_uses_all: variables.clone().any(|variables| {
                ["QUEUE_URL", "PARTS_QUEUE_URL", "CONNECTIONS_TABLE", "MAILBOX_TABLE", "RECEIPTS_QUEUE_URL"]
                    .iter()
                    .all(|name| variables.contains_key(*name))
            }),
            tables: tables.table_names().to_vec(),
            messages,
        })
    }
}

async fn run(terraform: &Terraform, command: &str, change: &str) -> anyhow::Result<String> {
    let change = if change.starts_with('-') { change.to_owned() } else { format!("-var={change}") };
    let arguments = [command, "-auto-approve", "-input=false", "-refresh=false", "-parallelism=30", &change];
    terraform.run_with_variables(arguments).await
}

/// Runs a command that must fail with this message, and asserts that nothing was deleted or changed.
async fn assert_refused(
    terraform: &Terraform,
    (command, change): (&str, &str),
    message: &str,
    (config, deployed): (&SdkConfig, &Deployed),
) -> anyhow::Result<()> {
    let error = run(terraform, command, change).await.unwrap_err().to_string();
    // Terraform breaks and frames the lines of an error.
    let words: Vec<_> =
        error.split(|character: char| character.is_whitespace() || character == '│').collect();
    let text = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    assert!(text.contains(message), "{command} {change}: {error}");
    assert_eq!(&Deployed::read(config).await?, deployed, "{command} {change}");
    Ok(())
}

/// Changes of `name` and `fifo` are in `infra/tests/protection.tftest.hcl`.
#[tokio::test]
async fn protected_data_outlives_destroy() -> anyhow::Result<()> {
    let endpoint = Endpoint::start_own(&install(&MINISTACK).await?, "protection").await?;
    let packages = paths::shared(format!("tests/packages-protection-{}", std::process::id()));
    let architecture = Architecture::HERE.to_string();
    fs::create_dir_all(&packages)?;
    for function in ["delivery-worker", "mailbox-handler"] {
        fs::write(packages.join(format!("{function}-{architecture}.zip")), EMPTY_ZIP)?;
    }
    let variables =
        BTreeMap::from([("packages", packages.display().to_string()), ("architecture", architecture)]);
    let module = format!("{}{MODULE}", provider(endpoint.url()));
    let file = Some(("main.tf", &*module));
    if let Some(terraform) = Terraform::initialise_with("protection", "protected", variables, file).await? {
        play(&terraform, &local_config(endpoint.url()).await).await?;
    }
    Ok(fs::remove_dir_all(packages)?)
}

async fn play(terraform: &Terraform, config: &SdkConfig) -> anyhow::Result<()> {
    terraform.apply().await?;
    let sqs = aws_sdk_sqs::Client::new(config);
    for queue in ["queue_url", "parts_queue_url", "dead_letter_queue_url", "receipts_queue_url"] {
        let Value::String(url) = terraform.output(queue).await? else {
            anyhow::bail!("{queue} is no string")
        };
        sqs.send_message().queue_url(url).message_body("{}").delay_seconds(DELAY_SECONDS).send().await?;
    }
    let deployed = Deployed::read(config).await?;
    assert!(!deployed.api.is_empty() && deployed.worker_uses_all, "{deployed:?}");
    assert_eq!(
        (deployed.functions.len(), deployed.mappings, deployed.tables.len()),
        (2, 2, 2),
        "{deployed:?}"
    );
    assert_eq!(deployed.messages.values().collect::<Vec<_>>(), [&1, &1, &1, &1], "{deployed:?}");

    let held = (config, &deployed);
    if full() {
        assert_refused(terraform, ("apply", "table=false"), "streamer_connections is protected", held)
            .await?;
        assert_refused(terraform, ("apply", "mailbox=false"), "streamer_mailbox is protected", held).await?;
        assert_refused(terraform, ("apply", "receipts=false"), "streamer-receipts is protected", held)
            .await?;
        assert_refused(terraform, ("apply", "parts_percent=0"), "streamer-parts is protected", held).await?;
        // A replacement, also one that a provider forces, keeps the name.
        let replace = "-replace=module.streamer.aws_sqs_queue.outbound";
        assert_refused(terraform, ("apply", replace), "streamer-outbound is protected", held).await?;
    }
    // Destroying without protection takes an apply of that before.
    let lifted = "deletion_protection=false";
    assert_refused(terraform, ("destroy", lifted), "streamer-outbound is protected", held).await?;

    run(terraform, "apply", lifted).await?;
    run(terraform, "destroy", lifted).await?;
    assert_no_resources(config).await
}

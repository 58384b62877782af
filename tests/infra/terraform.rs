//! Validates, tests and applies `infra/` with Terraform.

use std::{collections::BTreeMap, ffi::OsStr, fs, path::PathBuf};

use anyhow::Context as _;
use aws_config::SdkConfig;
use serde_json::json;
use streamer_cli::{
    commands::demo,
    package::Architecture,
    paths,
    screen::Screen,
    stack::{
        Endpoint, Stack,
        deploy::{Deployed, local_config},
        emulator::install,
        fault_proxy::FaultProxy,
        issuer::{ISSUER, Issuer},
    },
};
use streamer_tests::{
    command::Streamer,
    iam::{ENFORCING, Iam},
    terraform::Terraform,
};

use crate::privileges;

const MODULES: [&str; 8] = [
    ".",
    "examples/cells",
    "examples/cognito",
    "examples/complete",
    "examples/emulator",
    "examples/existing-api",
    "examples/receipts",
    "examples/router",
];

/// Pages whose Terraform snippets are whole: each is a root module.
const PAGES: [&str; 2] = ["infra/README.md", "docs/guide/deploy.md"];

/// Packages debug builds of the functions and of a router, and returns their folder.
pub(crate) async fn build_packages(name: &str) -> anyhow::Result<PathBuf> {
    let folder = paths::shared(format!("tests/packages-{name}-{}", std::process::id()));
    let path = folder.to_str().context("the folder's path is not UTF-8")?;
    let architecture = Architecture::HERE.to_string();
    let streamer = Streamer::new(&format!("package-{name}")).await?;
    let output = streamer.run(["package", "--quick", "--arch", &architecture, "--output", path]).await?;
    assert!(output.success && output.out.matches(", starts in ").count() == 4, "{output:?}");
    let producer = paths::workspace().join("producer").display().to_string();
    let router = [
        "package",
        "--quick",
        "--arch",
        &architecture,
        "--output",
        path,
        "--router",
        &producer,
        "--bin",
        "router",
    ];
    let output = streamer.run(router).await?;
    assert!(output.success && output.out.contains("router.zip"), "{output:?}");
    Ok(folder)
}

#[tokio::test]
async fn modules_are_formatted_and_valid() -> anyhow::Result<()> {
    for (index, module) in MODULES.into_iter().enumerate() {
        let name = format!("validate-{index}");
        let Some(terraform) = Terraform::initialise(&name, module, BTreeMap::new()).await? else {
            return Ok(());
        };
        terraform.run(["fmt", "-check", "-diff"].map(OsStr::new)).await?;
        terraform.run(["validate", "-no-color"].map(OsStr::new)).await?;
    }
    Ok(())
}

/// A user can copy each Terraform snippet into a file of its own.
#[tokio::test]
async fn snippets_in_pages_are_valid() -> anyhow::Result<()> {
    let mut checked = 0;
    for page in PAGES {
        let text = fs::read_to_string(paths::workspace().join(page))?;
        let snippets = text.split("\n```hcl\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        for snippet in snippets {
            // The copy of the module is above the snippet's folder.
            let source = "source = \"../streamer/infra\"";
            assert!(snippet.contains(source), "{page}: {snippet}");
            let snippet = format!("{}\n", snippet.replace(source, "source = \"../\""));
            let (name, file) = (format!("snippet-{checked}"), Some(("main.tf", &*snippet)));
            let terraform = Terraform::initialise_with(&name, "snippet", BTreeMap::new(), file).await?;
            let Some(terraform) = terraform else { return Ok(()) };
            terraform.run(["fmt", "-check", "-diff"].map(OsStr::new)).await?;
            terraform.run(["validate", "-no-color"].map(OsStr::new)).await?;
            checked += 1;
        }
    }
    assert!(checked >= 1, "{checked}");
    Ok(())
}

/// Runs the tests in `infra/tests/`, with a mock provider.
#[tokio::test]
async fn terraform_tests_pass() -> anyhow::Result<()> {
    let packages = build_packages("test").await?;
    let variables = BTreeMap::from([
        ("packages", packages.display().to_string()),
        ("architecture", Architecture::HERE.to_string()),
    ]);
    if let Some(terraform) = Terraform::initialise("test", ".", variables).await? {
        let output = terraform.run_with_variables(["test"]).await?;
        println!("{output}");
        assert!(output.contains("Success!"), "{output}");
    }
    Ok(fs::remove_dir_all(packages)?)
}

/// Applies the module to an emulator that enforces IAM policies, runs the demo, shows that each permission is needed,
/// and destroys the deployment without a remainder.
#[tokio::test]
async fn applied_module_runs_demo_with_least_privilege() -> anyhow::Result<()> {
    let endpoint = Endpoint::start_own(&install(&ENFORCING).await?, "terraform").await?;
    let (proxy, issuer) = (FaultProxy::start(endpoint.url())?, Issuer::generate()?);
    let packages = build_packages("apply").await?;
    let variables = BTreeMap::from([
        ("endpoint_url", endpoint.url().to_owned()),
        ("management_origin", proxy.origin()),
        ("packages", packages.display().to_string()),
        ("architecture", Architecture::HERE.to_string()),
        ("router_zip", packages.join("router.zip").display().to_string()),
        ("jwt_public_key", issuer.public_key.clone()),
        ("jwt_issuers", json!([ISSUER]).to_string()),
        // Above the demo's number of connections. It makes the module grant the permissions to close connections.
        ("max_connections_per_user", "200".to_owned()),
    ]);
    if let Some(terraform) = Terraform::initialise("apply", "examples/emulator", variables).await? {
        terraform.apply().await?;
        let output = terraform.output("deployed").await?;
        let roles = ["connect", "disconnect", "delivery", "mailbox", "router"];
        let roles = roles.map(|role| (role, output["roles"][role].as_str().unwrap_or_default().to_owned()));
        let deployed: Deployed = serde_json::from_value(output)?;
        let stack = Stack::attach(deployed, issuer).await;
        demo::check(&stack, &proxy, Screen::new()).await?;
        privileges::assert_each_is_necessary(&stack, &Iam::new(endpoint.url())?, &roles).await?;

        terraform.destroy().await?;
        assert_eq!(terraform.run(["state", "list"].map(OsStr::new)).await?, "");
        assert_no_resources(&local_config(endpoint.url()).await).await?;
    }
    Ok(fs::remove_dir_all(packages)?)
}

/// Fails if the emulator still has functions, mappings, queues, tables or APIs.
pub(crate) async fn assert_no_resources(config: &SdkConfig) -> anyhow::Result<()> {
    let lambda = aws_sdk_lambda::Client::new(config);
    let functions = lambda.list_functions().send().await?;
    assert!(functions.functions().is_empty(), "{functions:?}");
    let mappings = lambda.list_event_source_mappings().send().await?;
    assert!(mappings.event_source_mappings().is_empty(), "{mappings:?}");
    let queues = aws_sdk_sqs::Client::new(config).list_queues().send().await?;
    assert!(queues.queue_urls().is_empty(), "{queues:?}");
    let tables = aws_sdk_dynamodb::Client::new(config).list_tables().send().await?;
    assert!(tables.table_names().is_empty(), "{tables:?}");
    let apis = aws_sdk_apigatewayv2::Client::new(config).get_apis().send().await?;
    assert!(apis.items().is_empty(), "{apis:?}");
    Ok(())
}

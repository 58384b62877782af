//! Validates, tests and applies `infra/` with Terraform.

use std::{collections::BTreeMap, ffi::OsStr, fs, path::PathBuf};

use anyhow::Context as _;
use aws_config::SdkConfig;
use streamer_cli::{
    commands::demo,
    package::Architecture,
    paths,
    screen::Screen,
    stack::{
        Endpoint, Stack,
        build::{self, Router},
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

const MODULES: [&str; 4] = [".", "examples/complete", "examples/emulator", "examples/existing-api"];

/// Packages debug builds of the functions and of a router, and returns their folder.
pub(crate) async fn build_packages(name: &str) -> anyhow::Result<PathBuf> {
    let folder = paths::shared(format!("tests/packages-{name}-{}", std::process::id()));
    let path = folder.to_str().context("the folder's path is not UTF-8")?;
    let architecture = Architecture::HERE.to_string();
    let streamer = Streamer::new(&format!("package-{name}")).await?;
    let output = streamer.run(["package", "--quick", "--arch", &architecture, "--output", path]).await?;
    assert!(output.success && output.out.matches(", starts in ").count() == 3, "{output:?}");
    fs::write(folder.join("router.zip"), build::build().await?.zip_router(&Router::Example)?)?;
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
        ("jwt_issuer", ISSUER.to_owned()),
        // Above the demo's number of connections. It makes the module grant the permissions to close connections.
        ("max_connections_per_user", "200".to_owned()),
    ]);
    if let Some(terraform) = Terraform::initialise("apply", "examples/emulator", variables).await? {
        terraform.apply().await?;
        let output = terraform.output("deployed").await?;
        let roles = ["connect", "disconnect", "delivery", "router"];
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

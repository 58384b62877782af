//! `infra/`, as Terraform sees it, and applied for real.

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

const MODULES: [&str; 3] = [".", "examples/complete", "examples/emulator"];

/// The functions' packages, of the debug build, and a router's beside them.
async fn packages(name: &str) -> anyhow::Result<PathBuf> {
    let folder = paths::shared(format!("tests/packages-{name}-{}", std::process::id()));
    let output = folder.to_str().context("not UTF-8")?;
    let here = Architecture::HERE.to_string();
    let streamer = Streamer::new(&format!("package-{name}")).await?;
    let said = streamer.run(["package", "--quick", "--arch", &here, "--output", output]).await?;
    assert!(said.success && said.out.matches(", starts in ").count() == 3, "{said:?}");
    fs::write(folder.join("router.zip"), build::build().await?.zip_router(&Router::Example)?)?;
    Ok(folder)
}

#[tokio::test]
async fn terraform_finds_no_fault_in_any_module() -> anyhow::Result<()> {
    for (place, module) in MODULES.into_iter().enumerate() {
        let name = format!("validate-{place}");
        let Some(terraform) = Terraform::initialise(&name, module, BTreeMap::new()).await? else {
            return Ok(());
        };
        terraform.run(["fmt", "-check", "-diff"].map(OsStr::new)).await?;
        terraform.run(["validate", "-no-color"].map(OsStr::new)).await?;
    }
    Ok(())
}

/// What is asked for in `infra/tests/`: with a provider that makes nothing.
#[tokio::test]
async fn the_rules_between_settings_are_checked_when_terraform_plans() -> anyhow::Result<()> {
    let packages = packages("test").await?;
    let variables = BTreeMap::from([
        ("packages", packages.display().to_string()),
        ("architecture", Architecture::HERE.to_string()),
    ]);
    if let Some(terraform) = Terraform::initialise("test", ".", variables).await? {
        let said = terraform.run_with_variables(["test"]).await?;
        println!("{said}");
        assert!(said.contains("Success!"), "{said}");
    }
    Ok(fs::remove_dir_all(packages)?)
}

/// The demo's client, through what Terraform made, where every call is checked against its policies; and then each
/// privilege is taken away in turn.
#[tokio::test]
async fn what_terraform_makes_plays_the_demo_with_no_privilege_too_many_and_leaves_nothing_behind()
-> anyhow::Result<()> {
    let endpoint = Endpoint::start_own(&install(&ENFORCING).await?, "terraform").await?;
    let (proxy, issuer) = (FaultProxy::start(endpoint.url())?, Issuer::generate()?);
    let packages = packages("apply").await?;
    let variables = BTreeMap::from([
        ("endpoint_url", endpoint.url().to_owned()),
        ("management_origin", proxy.origin()),
        ("packages", packages.display().to_string()),
        ("architecture", Architecture::HERE.to_string()),
        ("router_zip", packages.join("router.zip").display().to_string()),
        ("jwt_public_key", issuer.public_key.clone()),
        ("jwt_issuer", ISSUER.to_owned()),
        // More than the demo's users have: what it takes to close connections is needed, too.
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
        privileges::each_is_needed(&stack, &Iam::new(endpoint.url())?, &roles).await?;

        terraform.destroy().await?;
        assert_eq!(terraform.run(["state", "list"].map(OsStr::new)).await?, "");
        nothing_is_left(&local_config(endpoint.url()).await).await?;
    }
    Ok(fs::remove_dir_all(packages)?)
}

async fn nothing_is_left(config: &SdkConfig) -> anyhow::Result<()> {
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

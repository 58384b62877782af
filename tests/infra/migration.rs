//! `infra/examples/existing-api`, played on the emulator: an API, a table and functions that know nothing of Streamer,
//! through the three steps of `docs/guide/migrate.md` and back.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::SystemTime};

use anyhow::{Context as _, ensure};
use aws_config::SdkConfig;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use streamer_cli::{
    package::Architecture,
    paths,
    stack::{
        Endpoint,
        deploy::local_config,
        emulator::{MINISTACK, install},
        issuer::{ISSUER, Issuer},
        socket::Socket,
    },
    status::{self, Deployment},
};
use streamer_connections::{ConnectionTable, Liveness, TenantShards};
use streamer_message::{ConnectionId, TenantId, UserId};
use streamer_tests::{DEADLINE, boto3, eventually, skip, terraform::Terraform};
use tokio::process::Command;

use crate::terraform::{assert_no_resources, build_packages};

/// The example's settings for an emulator. Its functions are in Python, whose runtime lacks AWS's SDK there.
fn emulator_settings(url: &str, python_packages: &str) -> String {
    let services = ["apigatewayv2", "cloudwatch", "dynamodb", "iam", "lambda", "logs", "sqs", "sts"];
    let endpoints: String = services.iter().map(|service| format!("    {service} = \"{url}\"\n")).collect();
    format!(
        r#"
provider "aws" {{
  skip_credentials_validation = true
  skip_region_validation      = true

  endpoints {{
{endpoints}  }}
}}

locals {{
  management_endpoint = "{url}/_aws/execute-api/${{aws_apigatewayv2_api.chat.id}}/production"
}}

resource "aws_lambda_function" "chat" {{
  environment {{
    variables = merge(local.environment, {{ PYTHONPATH = "{python_packages}" }})
  }}
}}

module "streamer" {{
  require_tls                = false
  worker_timeout_seconds     = 2
  visibility_timeout_seconds = 12
}}
"#
    )
}

/// Zips the example's functions.
async fn zip_functions(python: &Path, folder: &Path) -> anyhow::Result<String> {
    let functions = paths::workspace().join("infra/examples/existing-api/functions");
    let zip = folder.join("functions.zip");
    let names = ["connect.py", "disconnect.py", "sendmessage.py"];
    let mut command = Command::new(python);
    command.current_dir(functions).args(["-m", "zipfile", "-c"]).arg(&zip).args(names).stdin(Stdio::null());
    let output = command.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(zip.display().to_string())
}

/// The chat, and the clients that stay connected through all steps.
struct Chat<'a> {
    terraform: &'a Terraform,
    config: SdkConfig,
    url: String,
    issuer: Issuer,
}

impl Chat<'_> {
    async fn go_to_step(&self, step: &str) -> anyhow::Result<()> {
        let step = format!("-var=step={step}");
        let apply = ["apply", "-auto-approve", "-input=false", "-parallelism=30", &step];
        self.terraform.run_with_variables(apply).await.map(drop)
    }

    async fn connect(&self, user: Option<&str>) -> anyhow::Result<Socket> {
        let token = |user| self.issuer.token("chat", user, DEADLINE);
        Ok(Socket::connect(&self.url, user.map(token).transpose()?.as_deref()).await?)
    }

    /// Sends a message through the chat, and asserts that exactly these clients receive it.
    async fn assert_received(
        &self,
        request: &Value,
        clients: &mut [&mut Socket],
        recipients: &[usize],
    ) -> anyhow::Result<()> {
        clients[0].send(request).await?;
        for index in recipients {
            let frame = clients[*index].next(DEADLINE).await;
            let frame = frame.with_context(|| format!("client {index}: {request}"))?;
            assert_eq!(frame.json()?, json!({ "message": request["data"] }), "client {index}");
        }
        Ok(())
    }

    /// Returns whether the worker has logged a batch.
    async fn worker_has_run(&self) -> anyhow::Result<bool> {
        let logs = aws_sdk_cloudwatchlogs::Client::new(&self.config);
        let events = logs.filter_log_events().log_group_name("/aws/lambda/streamer-delivery").send().await?;
        let is_batch = |line: &str| line.contains("\"batch\"");
        Ok(events.events().iter().any(|event| event.message().is_some_and(is_batch)))
    }

    /// Asserts that `streamer status` shows a deployment that has only the worker.
    async fn assert_status_shows_no_table(&self) -> anyhow::Result<()> {
        let functions = BTreeMap::from(
            ["connect", "disconnect", "delivery"]
                .map(|short| (short.to_owned(), format!("streamer-{short}"))),
        );
        let deployment = Deployment { name: "streamer".to_owned(), functions, config: self.config.clone() };
        let lines = status::read(&deployment, "delivery", None).await?.lines(None).join("\n");
        assert!(lines.contains("no table") && !lines.contains("disconnect"), "{lines}");
        Ok(())
    }

    /// Returns the connections in a table.
    async fn rows(&self, table: &str) -> anyhow::Result<usize> {
        let scan = aws_sdk_dynamodb::Client::new(&self.config).scan().table_name(table);
        Ok(usize::try_from(scan.send().await?.count)?)
    }
}

fn broadcast(text: &str) -> Value {
    json!({ "action": "sendmessage", "data": text })
}

/// Sockets stay open through all steps, since none of them touches the API.
#[tokio::test]
async fn existing_api_migrates_and_returns() -> anyhow::Result<()> {
    let (python, python_packages) = match boto3::install().await {
        Ok(installed) => installed,
        Err(error) => return skip(error),
    };
    let endpoint = Endpoint::start_own(&install(&MINISTACK).await?, "migration").await?;
    let (packages, issuer) = (build_packages("migration").await?, Issuer::generate()?);
    let variables = BTreeMap::from([
        ("packages", packages.display().to_string()),
        ("architecture", Architecture::HERE.to_string()),
        ("functions_zip", zip_functions(&python, &packages).await?),
        ("region", "us-east-1".to_owned()),
        ("jwt_public_key", issuer.public_key.clone()),
        ("jwt_issuers", json!([ISSUER]).to_string()),
    ]);
    if let Some(terraform) = Terraform::initialise("migration", "examples/existing-api", variables).await? {
        terraform.write("emulator_override.tf", &emulator_settings(endpoint.url(), &python_packages))?;
        let config = local_config(endpoint.url()).await;
        let mut chat = Chat { terraform: &terraform, config, url: String::new(), issuer };
        chat.go_to_step("0").await?;
        let api = terraform.output("api_id").await?;
        let api = api.as_str().context("the API has no id")?;
        let origin = endpoint.url().replace("http://", "ws://");
        chat.url = format!("{origin}/_aws/execute-api/{api}/production");
        play(&chat).await?;

        terraform.run_with_variables(["destroy", "-auto-approve", "-input=false", "-var=step=0"]).await?;
        assert_no_resources(&chat.config).await?;
    }
    Ok(std::fs::remove_dir_all(packages)?)
}

async fn play(chat: &Chat<'_>) -> anyhow::Result<()> {
    let (mut first, mut second) = (chat.connect(None).await?, chat.connect(None).await?);
    chat.assert_received(&broadcast("loop"), &mut [&mut first, &mut second], &[0, 1]).await?;

    chat.go_to_step("1").await?;
    chat.assert_received(&broadcast("queue"), &mut [&mut first, &mut second], &[0, 1]).await?;
    eventually("the worker has logged a batch", async || chat.worker_has_run().await).await?;
    chat.assert_status_shows_no_table().await?;

    chat.go_to_step("2").await?;
    let (mut phone, mut laptop) = (chat.connect(Some("anna")).await?, chat.connect(Some("anna")).await?);
    let mut guest = chat.connect(None).await?;
    let counts = (chat.rows("chat-connections").await?, chat.rows("streamer_connections").await?);
    assert_eq!(counts, (5, 2), "clients without a token are in the chat's table only");
    {
        let clients = &mut [&mut first, &mut second, &mut phone, &mut laptop, &mut guest];
        chat.assert_received(&broadcast("all"), clients, &[0, 1, 2, 3, 4]).await?;

        chat.go_to_step("3").await?;
        let to_anna = json!({ "action": "sendmessage", "data": "anna", "user": "anna" });
        chat.assert_received(&to_anna, clients, &[2, 3]).await?;
        // The next frame of the others is this one, so the message for the user has not reached them.
        chat.assert_received(&broadcast("users"), clients, &[0, 1, 2, 3, 4]).await?;
    }
    laptop.close().await?;
    eventually("both rows of the closed connection are removed", async || {
        Ok((chat.rows("chat-connections").await?, chat.rows("streamer_connections").await?) == (4, 1))
    })
    .await?;
    rows_of_the_guide_are_found(chat).await?;

    chat.go_to_step("1").await?;
    chat.assert_received(&broadcast("back"), &mut [&mut first, &mut phone], &[0, 1]).await?;
    chat.go_to_step("0").await?;
    chat.assert_received(&broadcast("loop again"), &mut [&mut first, &mut phone], &[0, 1]).await
}

/// Writes a row with the function in `docs/guide/migrate.md`, and finds it as the worker does.
async fn rows_of_the_guide_are_found(chat: &Chat<'_>) -> anyhow::Result<()> {
    let (tenant, user) = ("a#b%c", "häppchen");
    let page = std::fs::read_to_string(paths::workspace().join("docs/guide/migrate.md"))?;
    let function =
        page.split("```py\n").find(|block| block.contains("def row(")).context("no function `row`")?;
    let function = function.split("```").next().unwrap_or_default();
    let script =
        format!("{function}\nimport json, sys\nprint(json.dumps(row('L0SM9cOFvHcCIhw=', *sys.argv[1:])))");
    let endpoint = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production";
    let output = Command::new("python3").args(["-c", &script, tenant, user, endpoint]).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let row: BTreeMap<String, Value> = serde_json::from_slice(&output.stdout)?;
    let attribute = |value: Value| match value {
        Value::String(text) => AttributeValue::S(text),
        number => AttributeValue::N(number.to_string()),
    };
    let row = row.into_iter().map(|(name, value)| (name, attribute(value))).collect();
    let dynamodb = aws_sdk_dynamodb::Client::new(&chat.config);
    dynamodb.put_item().table_name("streamer_connections").set_item(Some(row)).send().await?;

    let table = ConnectionTable::new(dynamodb, "streamer_connections");
    let (id, now) = (ConnectionId::new("L0SM9cOFvHcCIhw=")?, SystemTime::now());
    let Liveness::Live(written) = table.liveness(&id, now).await? else { anyhow::bail!("no live row") };
    let lifetime = written.expires_at.duration_since(written.connected_at)?.as_secs_f64().ceil();
    assert_eq!((written.endpoint.as_str(), lifetime as u64), (endpoint, 2 * 3600 + 600));
    let (tenant, user) = (TenantId::new(tenant)?, UserId::new(user)?);
    let of_user = table.by_user(&tenant, &user, None, now).await?.connections;
    let of_tenant = table.by_tenant(&tenant, TenantShards::DEFAULT.of(&id), None, now).await?.connections;
    assert_eq!((of_user.len(), of_tenant.len()), (1, 1));
    table.delete(&id).await.map(drop).map_err(Into::into)
}

//! Applies the examples in `infra/examples/` with a router of one's own to an emulator.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use streamer_cli::{
    package::Architecture,
    stack::{
        Endpoint,
        emulator::{MINISTACK, REGION, install},
        issuer::{ISSUER, Issuer},
        socket::{NotConnected, Socket},
    },
};
use streamer_tests::{full, terraform::Terraform};

use crate::terraform::build_packages;

/// Time for an answer of the router, which starts with the first message.
const LIMIT: Duration = Duration::from_secs(60);

const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Applies the example with a router of one's own to an emulator, and sends a message through that router. At full size
/// only, since it takes a minute.
#[tokio::test]
async fn router_example_is_applied_and_answers() -> anyhow::Result<()> {
    if !full() {
        return Ok(());
    }
    let endpoint = Endpoint::start_own(&install(&MINISTACK).await?, "router-example").await?;
    let (issuer, packages) = (Issuer::generate()?, build_packages("router").await?);
    let variables = BTreeMap::from([
        ("region", REGION.to_owned()),
        ("packages", packages.display().to_string()),
        ("router_zip", packages.join("router.zip").display().to_string()),
        ("architecture", Architecture::HERE.to_string()),
        ("jwt_public_key", issuer.public_key.clone()),
        ("jwt_issuers", json!([ISSUER]).to_string()),
        ("jwt_audiences", json!(["streamer"]).to_string()),
    ]);
    let emulated = on_emulator(endpoint.url(), "");
    let file = Some(("emulator_override.tf", &*emulated));
    if let Some(terraform) = Terraform::initialise_with("router", "examples/router", variables, file).await? {
        terraform.apply().await?;
        let url = websocket_url(&terraform, &endpoint).await?;
        let token = issuer.sign(&json!({
            "iss": ISSUER, "aud": "streamer", "sub": "anna", "tenant_id": "acme", "exp": expiry()?
        }))?;
        assert_answers(&mut Socket::connect(&url, Some(&token)).await?).await?;
    }
    Ok(fs::remove_dir_all(packages)?)
}

/// Applies the example for Amazon Cognito to an emulator, and connects with a token as its pool issues them. The
/// emulator's own tokens have no real signature, so the example's discovery of keys is not part of this test. At full
/// size only, since it takes a minute.
#[tokio::test]
async fn cognito_example_accepts_its_access_tokens() -> anyhow::Result<()> {
    if !full() {
        return Ok(());
    }
    let endpoint = Endpoint::start_own(&install(&MINISTACK).await?, "cognito-example").await?;
    let (issuer, packages) = (Issuer::generate()?, build_packages("cognito").await?);
    let variables = BTreeMap::from([
        ("region", REGION.to_owned()),
        ("packages", packages.display().to_string()),
        ("router_zip", packages.join("router.zip").display().to_string()),
        ("architecture", Architecture::HERE.to_string()),
    ]);
    let emulated = on_emulator(endpoint.url(), &format!("jwt_public_key = {}", json!(issuer.public_key)));
    let file = Some(("emulator_override.tf", &*emulated));
    if let Some(terraform) =
        Terraform::initialise_with("cognito", "examples/cognito", variables, file).await?
    {
        terraform.apply().await?;
        let url = websocket_url(&terraform, &endpoint).await?;
        let pool = terraform.output("user_pool_id").await?;
        let pool = pool.as_str().context("the pool has no id")?;
        let client = terraform.output("client_id").await?;
        let token = |token_use: &str, claim: &str, client: &Value| -> anyhow::Result<String> {
            issuer.sign(&json!({
                "iss": format!("https://cognito-idp.{REGION}.amazonaws.com/{pool}"),
                "token_use": token_use,
                claim: client,
                "sub": "anna",
                "exp": expiry()?,
            }))
        };
        let access = token("access", "client_id", &client)?;
        assert_answers(&mut Socket::connect(&url, Some(&access)).await?).await?;
        let others = [token("access", "client_id", &json!("another"))?, token("id", "aud", &client)?];
        for refused in others {
            let refused = Socket::connect(&url, Some(&refused)).await;
            // The emulator turns every refusal into a 403.
            assert!(matches!(refused, Err(NotConnected::Refused(403))), "{:?}", refused.err());
        }
    }
    Ok(fs::remove_dir_all(packages)?)
}

/// Returns the URL at which an emulator serves an example's API. AWS's URL names the API in its host; the emulator
/// serves all APIs on one host.
async fn websocket_url(terraform: &Terraform, endpoint: &Endpoint) -> anyhow::Result<String> {
    let url = terraform.output("websocket_url").await?;
    let url = url.as_str().context("the URL is no string")?.trim_start_matches("wss://");
    let (api, stage) = (url.split('.').next().unwrap_or(url), url.rsplit('/').next().unwrap_or(url));
    Ok(format!("{}/_aws/execute-api/{api}/{stage}", endpoint.url().replacen("http", "ws", 1)))
}

/// Returns the `exp` of a token.
fn expiry() -> anyhow::Result<u64> {
    Ok((SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + TOKEN_LIFETIME).as_secs())
}

/// Sends a message through the example's router, and expects its answer.
async fn assert_answers(socket: &mut Socket) -> anyhow::Result<()> {
    socket.send(&json!({ "type": "echo", "request_id": "r1", "text": "hello" })).await?;
    let answer = socket.next(LIMIT).await?.json()?;
    assert_eq!((&answer["type"], &answer["data"]), (&json!("response"), &json!("hello")), "{answer}");
    Ok(())
}

/// Returns an override file of Terraform that directs the example's provider and module to an emulator, with further
/// settings of the module.
fn on_emulator(url: &str, settings: &str) -> String {
    let services = [
        "apigateway",
        "apigatewayv2",
        "cloudwatch",
        "cognitoidp",
        "dynamodb",
        "iam",
        "lambda",
        "logs",
        "sqs",
        "sts",
    ];
    let endpoints = services.map(|service| format!("{service} = \"{url}\"")).join("\n");
    format!(
        "provider \"aws\" {{
          access_key                  = \"test\"
          secret_key                  = \"test\"
          skip_credentials_validation = true
          skip_metadata_api_check     = true
          skip_region_validation      = true
          endpoints {{
            {endpoints}
          }}
        }}
        module \"streamer\" {{
          management_endpoint = \"{url}/_aws/execute-api/{{api}}/{{stage}}\"
          require_tls         = false
          {settings}
        }}"
    )
}

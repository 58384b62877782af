//! A Lambda authorizer on `$connect`, in front of the real `connect-handler`.

use std::{collections::HashMap, fs, process::Stdio, time::SystemTime};

use anyhow::{Context as _, ensure};
use aws_sdk_apigatewayv2::types::{AuthorizationType, AuthorizerType, IntegrationType, ProtocolType};
use aws_sdk_lambda::{
    primitives::Blob,
    types::{Environment, FunctionCode, Runtime},
};
use streamer_cli::{
    paths,
    stack::{
        Stack,
        build::build,
        front_door::{FrontDoor, Limits},
        socket::{NotConnected, Socket},
    },
};
use streamer_message::{TenantId, UserId};
use streamer_tests::{emulator::stack, eventually};
use tokio::process::Command;

/// It accepts API keys. A refused client gets 403, and one without a key 401.
const AUTHORIZER: &str = r#"
KEYS = {"key-of-anna": {"tenant_id": "authorized", "permissions": "read write"}}


def handler(event, context):
    known = KEYS.get(event["queryStringParameters"]["key"])
    statement = {
        "Action": "execute-api:Invoke",
        "Effect": "Allow" if known else "Deny",
        "Resource": event["methodArn"],
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    return {"principalId": "anna", "policyDocument": policy, "context": known or {}}
"#;

/// Zips the authorizer.
async fn authorizer() -> anyhow::Result<Vec<u8>> {
    let folder = paths::shared(format!("tests/authorizer-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("authorizer.py"), AUTHORIZER)?;
    let mut command = Command::new("python3");
    command
        .current_dir(&folder)
        .args(["-m", "zipfile", "-c", "code.zip", "authorizer.py"])
        .stdin(Stdio::null());
    ensure!(command.status().await?.success(), "python3 cannot write a zip");
    let zip = fs::read(folder.join("code.zip"))?;
    fs::remove_dir_all(folder)?;
    Ok(zip)
}

/// Creates a function and returns its ARN.
async fn function(
    stack: &Stack,
    (name, runtime, handler): (&str, Runtime, &str),
    zip: Vec<u8>,
    variables: HashMap<String, String>,
) -> anyhow::Result<String> {
    let create =
        aws_sdk_lambda::Client::new(&stack.config).create_function().function_name(name).runtime(runtime);
    let create = create.handler(handler).role("arn:aws:iam::000000000000:role/none").timeout(10);
    let create = create.environment(Environment::builder().set_variables(Some(variables)).build());
    let created = create.code(FunctionCode::builder().zip_file(Blob::new(zip)).build()).send().await?;
    created.function_arn.context("no ARN")
}

/// Returns the environment of the stack's `connect-handler`, with an authorizer in place of tokens.
async fn environment(stack: &Stack) -> anyhow::Result<HashMap<String, String>> {
    let lambda = aws_sdk_lambda::Client::new(&stack.config);
    let connect = &stack.deployed.functions["connect"];
    let configuration = lambda.get_function_configuration().function_name(connect).send().await?;
    let variables =
        configuration.environment.and_then(|environment| environment.variables).unwrap_or_default();
    let mut variables: HashMap<_, _> =
        variables.into_iter().filter(|(name, _)| !name.starts_with("JWT_")).collect();
    variables.insert("IDENTITY_SOURCE".to_owned(), "authorizer".to_owned());
    Ok(variables)
}

#[tokio::test]
async fn authorizer_identifies_clients() -> anyhow::Result<()> {
    let stack = stack().await?;
    let name = "connect-authorized";
    let of_authorizer = ("authorizer", Runtime::Python312, "authorizer.handler");
    let authorizer = function(&stack, of_authorizer, authorizer().await?, HashMap::new()).await?;
    let zip = build().await?.zip("connect-handler")?;
    let connect =
        function(&stack, (name, Runtime::Providedal2023, "bootstrap"), zip, environment(&stack).await?)
            .await?;

    let client = aws_sdk_apigatewayv2::Client::new(&stack.config);
    let region = stack.config.region().context("no Region")?;
    let uri =
        |arn: &str| format!("arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{arn}/invocations");
    let create = client.create_api().name("authorized").protocol_type(ProtocolType::Websocket);
    let create = create.route_selection_expression("$request.body.type");
    let api = create.send().await?.api_id.context("no API")?;
    let create =
        client.create_authorizer().api_id(&api).name("keys").authorizer_type(AuthorizerType::Request);
    let create = create.authorizer_uri(uri(&authorizer)).identity_source("route.request.querystring.key");
    let authorizer = create.send().await?.authorizer_id.context("no authorizer")?;
    let create = client.create_integration().api_id(&api).integration_type(IntegrationType::AwsProxy);
    let integration =
        create.integration_uri(uri(&connect)).send().await?.integration_id.context("no integration")?;
    let create = client
        .create_route()
        .api_id(&api)
        .route_key("$connect")
        .target(format!("integrations/{integration}"));
    let create = create.authorization_type(AuthorizationType::Custom).authorizer_id(authorizer);
    let route = create.send().await?.route_id.context("no route")?;
    client.create_stage().api_id(&api).stage_name("local").auto_deploy(true).send().await?;

    let (start, _) = stack.deployed.management_endpoint.rsplit_once("execute-api/").context("no endpoint")?;
    let url = format!("{start}execute-api/{api}/local").replacen("http", "ws", 1);
    let door = FrontDoor::start(&url, Vec::new(), Limits::default())?;
    for (query, expected) in [("", 401), ("?key=", 401), ("?key=stolen", 403)] {
        let refused = Socket::connect(&format!("{}{query}", door.url()), None).await;
        let is_expected = matches!(&refused, Err(NotConnected::Refused(status)) if *status == expected);
        ensure!(is_expected, "{query}: {:?}", refused.err());
    }
    let url = format!("{}?key=key-of-anna", door.url());
    let _socket = Socket::connect(&url, None).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let (tenant, user) = (TenantId::new("authorized")?, UserId::new("anna")?);
    let rows = stack.table().by_user(&tenant, &user, None, SystemTime::now()).await?.connections;
    ensure!(rows.len() == 1, "{rows:?}");
    let row = stack.table().get(&rows[0].connection_id, SystemTime::now()).await?.context("no row")?;
    ensure!(row.permissions.iter().eq(["read", "write"]), "{:?}", row.permissions);

    // A route that lost its authorizer lets no client in.
    let update =
        client.update_route().api_id(&api).route_id(route).authorization_type(AuthorizationType::None);
    update.send().await?;
    let refused = Socket::connect(&url, None).await;
    ensure!(matches!(refused, Err(NotConnected::Refused(403))), "{:?}", refused.err());
    let logs = aws_sdk_cloudwatchlogs::Client::new(&stack.config);
    eventually("the reason is logged", async || {
        let events = logs.filter_log_events().log_group_name(format!("/aws/lambda/{name}")).send().await?;
        let mut lines = events.events().iter().filter_map(|event| event.message());
        Ok(lines.any(|line| line.contains("authorizer_missing")))
    })
    .await
}

//! Least privilege: what each function may do, and the step that fails where it may not.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use aws_sdk_lambda::types::Environment;
use serde_json::json;
use streamer_cli::stack::{Stack, logs::Logs};
use streamer_connections::Connection;
use streamer_message::{ConnectionId, TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::iam::{Iam, Policies};
use tokio::time::{sleep, timeout};

/// What a user sees of a function's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A client connects, and a row is written.
    Connect,
    /// A request is answered.
    Echo,
    /// A message for a user arrives.
    Devices,
    /// A message for a tenant arrives.
    Broadcast,
    /// What is no message becomes a dead letter.
    Poison,
    /// A row without a socket is removed.
    Stale,
    /// A client leaves, and its row is removed.
    Disconnect,
    /// The oldest of too many connections is closed.
    Limit,
    /// The row of one that is gone is removed, where it is one too many.
    LimitGone,
}

/// What a privilege is there for.
#[derive(Debug, Clone, Copy)]
enum Needed {
    /// Without it, this fails.
    For(Step),
    /// The emulator does not ask for it.
    Unasked(&'static str),
}

use Needed::{For, Unasked};
use Step::{Broadcast, Connect, Devices, Disconnect, Echo, Limit, LimitGone, Poison, Stale};

const POLLS: &str = "its mappings take messages without asking";
const LOGS: &str = "it writes the functions' logs itself";
const TRACES: &str = "it has no X-Ray";

/// Every privilege of every function: role, action, how the resource's ARN ends, and what it is there for.
const PRIVILEGES: [(&str, &str, &str, Needed); 27] = [
    ("connect", "dynamodb:DeleteItem", "table/streamer_connections", For(LimitGone)),
    ("connect", "dynamodb:PutItem", "table/streamer_connections", For(Connect)),
    ("connect", "dynamodb:Query", "table/streamer_connections/index/by_user", For(Limit)),
    ("connect", "execute-api:ManageConnections", "/local/DELETE/@connections/*", For(Limit)),
    ("connect", "logs:CreateLogStream", "/aws/lambda/streamer-connect:*", Unasked(LOGS)),
    ("connect", "logs:PutLogEvents", "/aws/lambda/streamer-connect:*", Unasked(LOGS)),
    ("connect", "xray:PutTelemetryRecords", "*", Unasked(TRACES)),
    ("connect", "xray:PutTraceSegments", "*", Unasked(TRACES)),
    ("delivery", "dynamodb:DeleteItem", "table/streamer_connections", For(Stale)),
    ("delivery", "dynamodb:Query", "table/streamer_connections/index/by_tenant", For(Broadcast)),
    ("delivery", "dynamodb:Query", "table/streamer_connections/index/by_user", For(Devices)),
    ("delivery", "execute-api:ManageConnections", "/local/POST/@connections/*", For(Echo)),
    ("delivery", "logs:CreateLogStream", "/aws/lambda/streamer-delivery:*", Unasked(LOGS)),
    ("delivery", "logs:PutLogEvents", "/aws/lambda/streamer-delivery:*", Unasked(LOGS)),
    ("delivery", "sqs:DeleteMessage", ":streamer-outbound", Unasked(POLLS)),
    ("delivery", "sqs:GetQueueAttributes", ":streamer-outbound", Unasked(POLLS)),
    ("delivery", "sqs:ReceiveMessage", ":streamer-outbound", Unasked(POLLS)),
    ("delivery", "sqs:SendMessage", ":streamer-dead-letters", For(Poison)),
    ("delivery", "sqs:SendMessage", ":streamer-outbound", For(Broadcast)),
    ("delivery", "xray:PutTelemetryRecords", "*", Unasked(TRACES)),
    ("delivery", "xray:PutTraceSegments", "*", Unasked(TRACES)),
    ("disconnect", "dynamodb:DeleteItem", "table/streamer_connections", For(Disconnect)),
    ("disconnect", "logs:CreateLogStream", "/aws/lambda/streamer-disconnect:*", Unasked(LOGS)),
    ("disconnect", "logs:PutLogEvents", "/aws/lambda/streamer-disconnect:*", Unasked(LOGS)),
    ("disconnect", "xray:PutTelemetryRecords", "*", Unasked(TRACES)),
    ("disconnect", "xray:PutTraceSegments", "*", Unasked(TRACES)),
    ("router", "sqs:SendMessage", ":streamer-outbound", For(Echo)),
];

/// The emulator's names for an action. It checks the calls for batches under names of their own, which AWS does not
/// have: there, `sqs:SendMessage` covers them. So `infra/examples/emulator/batches.tf` allows these, too.
fn checked_as(action: &str) -> Vec<&str> {
    match action {
        "sqs:SendMessage" => vec![action, "sqs:SendMessageBatch"],
        action => vec![action],
    }
}

/// How long a step that fails is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long a step that works may take: messages that were handed back, and those of crashed workers, come again.
const LIMIT: Duration = Duration::from_secs(60);

const TENANT: &str = "privileges";

/// Takes away each privilege in turn, and sees a step fail that works before and after.
pub async fn each_is_needed(stack: &Stack, iam: &Iam, roles: &[(&str, String)]) -> anyhow::Result<()> {
    one_connection_a_user(stack).await?;
    let mut tries = Tries { stack, number: 0 };
    for (role, name) in roles {
        let policies = iam.policies(name).await?;
        for (action, resource, needed) in privileges(role, &policies)? {
            let end = resource.splitn(6, ':').last().unwrap_or_default();
            match needed {
                Unasked(why) => println!("{role:<10}  {action:<29}  {end:<45}  not asked for: {why}"),
                For(step) => {
                    iam.put(&policies.without(&checked_as(&action), &resource)).await?;
                    let failed = tries.is_denied(step, role).await;
                    iam.put(&policies).await?;
                    failed.with_context(|| format!("{role} without {action} on {resource}"))?;
                    println!("{role:<10}  {action:<29}  {end:<45}  fails: {step:?}");
                }
            }
        }
    }
    for step in [Connect, Echo, Devices, Broadcast, Poison, Stale, Disconnect, Limit, LimitGone] {
        tries.play(step, LIMIT).await.with_context(|| format!("{step:?}, with every privilege"))?;
    }
    Ok(())
}

/// What a role may do, each with what it is there for. Nothing is missing in the table, and nothing in the policies.
fn privileges(role: &str, policies: &Policies) -> anyhow::Result<Vec<(String, String, Needed)>> {
    let mut rows: Vec<_> = PRIVILEGES.into_iter().filter(|(of, ..)| *of == role).collect();
    let mut found = Vec::new();
    for grant in policies.grants().into_iter().filter(|grant| grant.action != "sqs:SendMessageBatch") {
        let fits = |(_, action, end, _): &(_, &str, &str, _)| {
            *action == grant.action
                && if *end == "*" { grant.resource == "*" } else { grant.resource.ends_with(end) }
        };
        let row = rows
            .iter()
            .position(fits)
            .with_context(|| format!("{role} may do what nothing needs: {grant:?}"))?;
        found.push((grant.action, grant.resource, rows.remove(row).3));
    }
    ensure!(rows.is_empty(), "{role} may not do what it needs: {rows:?}");
    Ok(found)
}

/// From here on, a user's second connection closes the first.
async fn one_connection_a_user(stack: &Stack) -> anyhow::Result<()> {
    let (lambda, connect) =
        (aws_sdk_lambda::Client::new(&stack.config), &stack.deployed.functions["connect"]);
    let now = lambda.get_function_configuration().function_name(connect).send().await?;
    let mut variables = now.environment.and_then(|environment| environment.variables).unwrap_or_default();
    variables.insert("MAX_CONNECTIONS_PER_USER".to_owned(), "1".to_owned());
    let environment = Environment::builder().set_variables(Some(variables)).build();
    lambda.update_function_configuration().function_name(connect).environment(environment).send().await?;
    Ok(())
}

/// Tries steps, each with a user and a tenant of its own.
struct Tries<'a> {
    stack: &'a Stack,
    number: usize,
}

impl Tries<'_> {
    /// The step fails, and the function says that something was denied.
    async fn is_denied(&mut self, step: Step, function: &str) -> anyhow::Result<()> {
        let mut logs = Logs::of(self.stack, Some(function))?;
        logs.next().await?;
        if self.play(step, PATIENCE).await.is_ok() {
            bail!("{step:?} works");
        }
        let (deadline, mut said) = (Instant::now() + LIMIT, Vec::new());
        while Instant::now() < deadline {
            said.extend(logs.next().await?.into_iter().map(|line| line.text));
            if said.iter().any(|line| {
                ["AccessDenied", "not authorized", "\"403\""].iter().any(|word| line.contains(word))
            }) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("{step:?} fails, but nothing says that it was denied: {said:?}")
    }

    async fn play(&mut self, step: Step, limit: Duration) -> anyhow::Result<()> {
        self.number += 1;
        let user = format!("{step:?}-{}", self.number).to_lowercase();
        match timeout(limit, self.try_step(step, &user)).await {
            Ok(done) => done,
            Err(_) => bail!("{step:?} has not ended within {} s", limit.as_secs()),
        }
    }

    async fn try_step(&self, step: Step, user: &str) -> anyhow::Result<()> {
        let (stack, forever) = (self.stack, LIMIT * 2);
        let producer = stack.producer();
        match step {
            Connect => {
                let _socket = stack.connect(TENANT, user).await?;
                self.row(TENANT, user).await.map(|_| ())
            }
            Echo => {
                let mut socket = stack.connect(TENANT, user).await?;
                socket.send(&json!({ "type": "echo", "request_id": user, "text": user })).await?;
                let frame = socket.next(forever).await?.json()?;
                ensure!(frame["data"] == user, "{frame}");
                Ok(())
            }
            Devices => {
                let mut socket = stack.connect(TENANT, user).await?;
                producer.send(Message::user(TENANT, user).response(user)?).await?;
                let frame = socket.next(forever).await?.json()?;
                ensure!(frame["data"] == user, "{frame}");
                Ok(())
            }
            Broadcast => {
                // A tenant of its own: the tenant of the others hears nothing.
                let mut socket = stack.connect(user, user).await?;
                producer.send(Message::tenant(user).response(user)?).await?;
                let frame = socket.next(forever).await?.json()?;
                ensure!(frame["data"] == user, "{frame}");
                Ok(())
            }
            Poison => self.poison(user).await,
            Stale => {
                let (id, ghost) = self.ghost(user).await?;
                stack.table().put(&ghost).await?;
                producer.send(Message::connection(&id).response("anybody?")?).await?;
                self.until_removed(&id).await
            }
            Disconnect => {
                let socket = stack.connect(TENANT, user).await?;
                let id = self.row(TENANT, user).await?.connection_id;
                socket.close().await?;
                self.until_removed(&id).await
            }
            Limit => {
                let mut first = stack.connect(TENANT, user).await?;
                let _second = stack.connect(TENANT, user).await?;
                ensure!(first.next(forever).await.is_err(), "a frame came");
                Ok(())
            }
            LimitGone => {
                let (id, ghost) = self.ghost(user).await?;
                stack.table().put(&ghost).await?;
                let _socket = stack.connect(TENANT, user).await?;
                self.until_removed(&id).await
            }
        }
    }

    /// The row of a user's one connection.
    async fn row(&self, tenant: &str, user: &str) -> anyhow::Result<Connection> {
        let (tenant, user, table) = (TenantId::new(tenant)?, UserId::new(user)?, self.stack.table());
        loop {
            let page = table.by_user(&tenant, &user, None, SystemTime::now()).await?;
            if let Some(row) = page.connections.first() {
                let row = table.get(&row.connection_id, SystemTime::now()).await?;
                return row.context("the row has just been there");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// A connection that is gone, and the row that it had, which is old.
    async fn ghost(&self, user: &str) -> anyhow::Result<(ConnectionId, Connection)> {
        let socket = self.stack.connect(TENANT, user).await?;
        let row = self.row(TENANT, user).await?;
        socket.close().await?;
        self.until_removed(&row.connection_id).await?;
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        Ok((row.connection_id.clone(), Connection { connected_at: hour_ago, ..row }))
    }

    async fn until_removed(&self, id: &ConnectionId) -> anyhow::Result<()> {
        while self.stack.table().get(id, SystemTime::now()).await?.is_some() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn poison(&self, body: &str) -> anyhow::Result<()> {
        let (sqs, deployed) = (aws_sdk_sqs::Client::new(&self.stack.config), &self.stack.deployed);
        sqs.send_message().queue_url(&deployed.queue_url).message_body(body).send().await?;
        loop {
            let receive =
                sqs.receive_message().queue_url(&deployed.dead_letter_queue_url).wait_time_seconds(1);
            for letter in receive.send().await?.messages.unwrap_or_default() {
                let delete = sqs.delete_message().queue_url(&deployed.dead_letter_queue_url);
                delete.set_receipt_handle(letter.receipt_handle).send().await?;
                if letter.body.as_deref() == Some(body) {
                    return Ok(());
                }
            }
        }
    }
}

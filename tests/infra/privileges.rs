//! Least privilege: each permission of each function, and the step that fails without it.

mod mailbox;
mod receipts;

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

/// A user-visible step of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A client connects, and a row is written.
    Connect,
    /// The router answers a request.
    Echo,
    /// A message for a user arrives.
    Devices,
    /// A message for a user who connects after the first try arrives.
    HandBack,
    /// A message for a tenant arrives, as parts.
    Broadcast,
    /// A malformed message becomes a dead letter.
    Poison,
    /// The row of a closed connection is removed.
    Stale,
    /// A client disconnects, and its row is removed.
    Disconnect,
    /// The oldest of too many connections is closed.
    Limit,
    /// The oldest of too many connections is already gone, and its row is removed.
    LimitGone,
    /// A kept message for a registered device arrives.
    Keep,
    /// A device that is gone is removed from the mailbox.
    KeepGone,
    /// A client that was away receives a page with the kept message.
    Replay,
    /// The oldest messages of a stream with too many are removed.
    Trim,
    /// The worker sends a receipt.
    Receipt,
    /// A client acknowledges a kept message, and the producer learns it.
    Acknowledge,
}

/// The reason for a permission.
#[derive(Debug, Clone, Copy)]
enum Reason {
    /// This step fails without it.
    NeededFor(Step),
    /// The emulator does not check it, for this reason.
    Unchecked(&'static str),
}

use Reason::{NeededFor, Unchecked};
use Step::{
    Acknowledge, Broadcast, Connect, Devices, Disconnect, Echo, HandBack, Keep, KeepGone, Limit, LimitGone,
    Poison, Receipt, Replay, Stale, Trim,
};

const POLLS: &str = "its event source mappings poll without a role";
const LOGS: &str = "it writes the functions' logs itself";
const TRACES: &str = "it has no X-Ray";
const CLOSES: &str = "the client would have to close between its sync and the page";
const RENEWS: &str = "a stream is renewed when its last message is two weeks old";

/// All permissions of all functions: role, action, suffix of the resource's ARN, and reason.
const PERMISSIONS: [(&str, &str, &str, Reason); 50] = [
    ("connect", "dynamodb:DeleteItem", "table/streamer_connections", NeededFor(LimitGone)),
    ("connect", "dynamodb:PutItem", "table/streamer_connections", NeededFor(Connect)),
    ("connect", "dynamodb:Query", "table/streamer_connections/index/by_user", NeededFor(Limit)),
    ("connect", "execute-api:ManageConnections", "/local/DELETE/@connections/*", NeededFor(Limit)),
    ("connect", "logs:CreateLogStream", "/aws/lambda/streamer-connect:*", Unchecked(LOGS)),
    ("connect", "logs:PutLogEvents", "/aws/lambda/streamer-connect:*", Unchecked(LOGS)),
    ("connect", "xray:PutTelemetryRecords", "*", Unchecked(TRACES)),
    ("connect", "xray:PutTraceSegments", "*", Unchecked(TRACES)),
    ("delivery", "dynamodb:BatchWriteItem", "table/streamer_mailbox", NeededFor(Trim)),
    ("delivery", "dynamodb:DeleteItem", "table/streamer_connections", NeededFor(Stale)),
    ("delivery", "dynamodb:DeleteItem", "table/streamer_mailbox", NeededFor(KeepGone)),
    ("delivery", "dynamodb:GetItem", "table/streamer_mailbox", NeededFor(Keep)),
    ("delivery", "dynamodb:PutItem", "table/streamer_mailbox", NeededFor(Keep)),
    ("delivery", "dynamodb:Query", "table/streamer_connections/index/by_tenant", NeededFor(Broadcast)),
    ("delivery", "dynamodb:Query", "table/streamer_connections/index/by_user", NeededFor(Devices)),
    ("delivery", "dynamodb:Query", "table/streamer_mailbox", NeededFor(Keep)),
    ("delivery", "dynamodb:UpdateItem", "table/streamer_mailbox", NeededFor(Keep)),
    ("delivery", "execute-api:ManageConnections", "/local/POST/@connections/*", NeededFor(Echo)),
    ("delivery", "logs:CreateLogStream", "/aws/lambda/streamer-delivery:*", Unchecked(LOGS)),
    ("delivery", "logs:PutLogEvents", "/aws/lambda/streamer-delivery:*", Unchecked(LOGS)),
    ("delivery", "sqs:DeleteMessage", ":streamer-outbound", Unchecked(POLLS)),
    ("delivery", "sqs:DeleteMessage", ":streamer-parts", Unchecked(POLLS)),
    ("delivery", "sqs:GetQueueAttributes", ":streamer-outbound", Unchecked(POLLS)),
    ("delivery", "sqs:GetQueueAttributes", ":streamer-parts", Unchecked(POLLS)),
    ("delivery", "sqs:ReceiveMessage", ":streamer-outbound", Unchecked(POLLS)),
    ("delivery", "sqs:ReceiveMessage", ":streamer-parts", Unchecked(POLLS)),
    ("delivery", "sqs:SendMessage", ":streamer-dead-letters", NeededFor(Poison)),
    ("delivery", "sqs:SendMessage", ":streamer-outbound", NeededFor(HandBack)),
    ("delivery", "sqs:SendMessage", ":streamer-parts", NeededFor(Broadcast)),
    ("delivery", "sqs:SendMessage", ":streamer-receipts", NeededFor(Receipt)),
    ("delivery", "xray:PutTelemetryRecords", "*", Unchecked(TRACES)),
    ("delivery", "xray:PutTraceSegments", "*", Unchecked(TRACES)),
    ("disconnect", "dynamodb:DeleteItem", "table/streamer_connections", NeededFor(Disconnect)),
    ("disconnect", "logs:CreateLogStream", "/aws/lambda/streamer-disconnect:*", Unchecked(LOGS)),
    ("disconnect", "logs:PutLogEvents", "/aws/lambda/streamer-disconnect:*", Unchecked(LOGS)),
    ("disconnect", "xray:PutTelemetryRecords", "*", Unchecked(TRACES)),
    ("disconnect", "xray:PutTraceSegments", "*", Unchecked(TRACES)),
    ("mailbox", "dynamodb:DeleteItem", "table/streamer_mailbox", Unchecked(CLOSES)),
    ("mailbox", "dynamodb:GetItem", "table/streamer_connections", NeededFor(Replay)),
    ("mailbox", "dynamodb:GetItem", "table/streamer_mailbox", NeededFor(Replay)),
    ("mailbox", "dynamodb:PutItem", "table/streamer_mailbox", NeededFor(Replay)),
    ("mailbox", "dynamodb:Query", "table/streamer_mailbox", NeededFor(Replay)),
    ("mailbox", "dynamodb:UpdateItem", "table/streamer_mailbox", Unchecked(RENEWS)),
    ("mailbox", "execute-api:ManageConnections", "/local/POST/@connections/*", NeededFor(Replay)),
    ("mailbox", "logs:CreateLogStream", "/aws/lambda/streamer-mailbox:*", Unchecked(LOGS)),
    ("mailbox", "logs:PutLogEvents", "/aws/lambda/streamer-mailbox:*", Unchecked(LOGS)),
    ("mailbox", "sqs:SendMessage", ":streamer-receipts", NeededFor(Acknowledge)),
    ("mailbox", "xray:PutTelemetryRecords", "*", Unchecked(TRACES)),
    ("mailbox", "xray:PutTraceSegments", "*", Unchecked(TRACES)),
    ("router", "sqs:SendMessage", ":streamer-outbound", NeededFor(Echo)),
];

/// The emulator's names for an action. It checks batch calls under names that AWS does not have: on AWS,
/// `sqs:SendMessage` covers batches. `infra/examples/emulator/batches.tf` allows them, too.
fn emulator_actions(action: &str) -> Vec<&str> {
    match action {
        "sqs:SendMessage" => vec![action, "sqs:SendMessageBatch"],
        action => vec![action],
    }
}

/// Time after which a step counts as failed when a permission is missing.
const DENIED_TIMEOUT: Duration = Duration::from_secs(4);

/// Time after which a hand-back counts as failed: more than its delay of 5 to 6 s, and less than the 12 s after which SQS
/// delivers the message again.
const HAND_BACK_TIMEOUT: Duration = Duration::from_secs(9);

/// Time that a working step may take: SQS delivers handed-back messages, and those of crashed workers, again.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

const TENANT: &str = "privileges";

/// Removes each permission in turn and asserts that its step fails, and that all steps work with all permissions.
pub(crate) async fn assert_each_is_necessary(
    stack: &Stack,
    iam: &Iam,
    roles: &[(&str, String)],
) -> anyhow::Result<()> {
    limit_users_to_one_connection(stack).await?;
    let mut steps = Steps { stack, count: 0 };
    for (role, name) in roles {
        let policies = iam.policies(name).await?;
        for (action, resource, reason) in permissions(role, &policies)? {
            let suffix = resource.splitn(6, ':').last().unwrap_or_default();
            match reason {
                Unchecked(why) => println!("{role:<10}  {action:<29}  {suffix:<45}  not checked: {why}"),
                NeededFor(step) => {
                    iam.put(&policies.without(&emulator_actions(&action), &resource)).await?;
                    let denied = steps.assert_denied(step, role).await;
                    iam.put(&policies).await?;
                    denied.with_context(|| format!("{role} without {action} on {resource}"))?;
                    println!("{role:<10}  {action:<29}  {suffix:<45}  fails: {step:?}");
                }
            }
        }
    }
    let of_mailbox = [Keep, KeepGone, Replay, Trim];
    let of_receipts = [Receipt, Acknowledge];
    let others = [Connect, Echo, Devices, HandBack, Broadcast, Poison, Stale, Disconnect, Limit, LimitGone];
    for step in others.into_iter().chain(of_mailbox).chain(of_receipts) {
        steps.run(step, STEP_TIMEOUT).await.with_context(|| format!("{step:?}, with all permissions"))?;
    }
    Ok(())
}

/// Returns the permissions of a role: action, resource and reason.
///
/// # Errors
/// When the table and the policies differ.
fn permissions(role: &str, policies: &Policies) -> anyhow::Result<Vec<(String, String, Reason)>> {
    let mut rows: Vec<_> = PERMISSIONS.into_iter().filter(|(name, ..)| *name == role).collect();
    let mut found = Vec::new();
    for grant in policies.grants().into_iter().filter(|grant| grant.action != "sqs:SendMessageBatch") {
        let matches = |(_, action, suffix, _): &(_, &str, &str, _)| {
            *action == grant.action
                && if *suffix == "*" { grant.resource == "*" } else { grant.resource.ends_with(suffix) }
        };
        let row = rows
            .iter()
            .position(matches)
            .with_context(|| format!("{role} has an unnecessary permission: {grant:?}"))?;
        found.push((grant.action, grant.resource, rows.remove(row).3));
    }
    ensure!(rows.is_empty(), "{role} lacks permissions: {rows:?}");
    Ok(found)
}

/// Configures `connect` so that a user's second connection closes the first.
async fn limit_users_to_one_connection(stack: &Stack) -> anyhow::Result<()> {
    let (lambda, connect) =
        (aws_sdk_lambda::Client::new(&stack.config), &stack.deployed.functions["connect"]);
    let now = lambda.get_function_configuration().function_name(connect).send().await?;
    let mut variables = now.environment.and_then(|environment| environment.variables).unwrap_or_default();
    variables.insert("MAX_CONNECTIONS_PER_USER".to_owned(), "1".to_owned());
    let environment = Environment::builder().set_variables(Some(variables)).build();
    lambda.update_function_configuration().function_name(connect).environment(environment).send().await?;
    Ok(())
}

/// Runs steps, each with its own user.
struct Steps<'a> {
    stack: &'a Stack,
    count: usize,
}

impl Steps<'_> {
    /// Asserts that a step fails, and that the function's log shows a denied call.
    async fn assert_denied(&mut self, step: Step, function: &str) -> anyhow::Result<()> {
        let mut logs = Logs::of(self.stack, Some(function))?;
        logs.next().await?;
        let limit = if step == HandBack { HAND_BACK_TIMEOUT } else { DENIED_TIMEOUT };
        if self.run(step, limit).await.is_ok() {
            bail!("{step:?} succeeds");
        }
        let (deadline, mut lines) = (Instant::now() + STEP_TIMEOUT, Vec::new());
        while Instant::now() < deadline {
            lines.extend(logs.next().await?.into_iter().map(|line| line.text));
            if lines.iter().any(|line| {
                ["AccessDenied", "not authorized", "\"403\"", "status 403"]
                    .iter()
                    .any(|word| line.contains(word))
            }) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("{step:?} fails, but the log shows no denied call: {lines:?}")
    }

    async fn run(&mut self, step: Step, limit: Duration) -> anyhow::Result<()> {
        self.count += 1;
        let user = format!("{step:?}-{}", self.count).to_lowercase();
        match timeout(limit, self.run_unlimited(step, &user)).await {
            Ok(result) => result,
            Err(_) => bail!("{step:?} did not complete within {} s", limit.as_secs()),
        }
    }

    async fn run_unlimited(&self, step: Step, user: &str) -> anyhow::Result<()> {
        // The step's own timeout ends first.
        let (stack, unlimited) = (self.stack, STEP_TIMEOUT * 2);
        let producer = stack.producer();
        match step {
            Connect => {
                let _socket = stack.connect(TENANT, user).await?;
                self.row(TENANT, user).await.map(|_| ())
            }
            Echo => {
                let mut socket = stack.connect(TENANT, user).await?;
                socket.send(&json!({ "type": "echo", "request_id": user, "text": user })).await?;
                let frame = socket.next(unlimited).await?.json()?;
                ensure!(frame["data"] == user, "{frame}");
                Ok(())
            }
            Devices => {
                let mut socket = stack.connect(TENANT, user).await?;
                producer.send(Message::user(TENANT, user).response(user)?).await?;
                let frame = socket.next(unlimited).await?.json()?;
                ensure!(frame["data"] == user, "{frame}");
                Ok(())
            }
            HandBack => self.hand_back(user, unlimited).await,
            Broadcast => {
                // A tenant of its own, so that clients of other steps receive nothing.
                let mut socket = stack.connect(user, user).await?;
                producer.send(Message::tenant(user).response(user)?).await?;
                let frame = socket.next(unlimited).await?.json()?;
                ensure!(frame["data"] == user, "{frame}");
                Ok(())
            }
            Poison => self.send_poison(user).await,
            Stale => {
                let (id, row) = self.closed_connection(user).await?;
                stack.table().put(&row).await?;
                producer.send(Message::connection(&id).response("to a closed connection")?).await?;
                self.wait_until_removed(&id).await
            }
            Disconnect => {
                let socket = stack.connect(TENANT, user).await?;
                let id = self.row(TENANT, user).await?.connection_id;
                socket.close().await?;
                self.wait_until_removed(&id).await
            }
            Limit => {
                let mut first = stack.connect(TENANT, user).await?;
                let _second = stack.connect(TENANT, user).await?;
                ensure!(first.next(unlimited).await.is_err(), "the connection received a frame");
                Ok(())
            }
            LimitGone => {
                let (id, row) = self.closed_connection(user).await?;
                stack.table().put(&row).await?;
                let _socket = stack.connect(TENANT, user).await?;
                self.wait_until_removed(&id).await
            }
            Keep => self.keep(user, unlimited).await,
            KeepGone => self.keep_gone(user, unlimited).await,
            Replay => self.replay(user, unlimited).await,
            Trim => self.trim(user).await,
            Receipt => self.receipt(user).await,
            Acknowledge => self.acknowledge(user, unlimited).await,
        }
    }

    /// Sends a message for an absent user, who connects once the worker has tried it.
    async fn hand_back(&self, user: &str, limit: Duration) -> anyhow::Result<()> {
        let (mut logs, id) = (Logs::of(self.stack, Some("delivery"))?, format!("\"{user}\""));
        self.stack.producer().send(Message::user(TENANT, user).id(user).response(user)?).await?;
        while !logs.next().await?.iter().any(|line| line.text.contains(&id)) {
            sleep(Duration::from_millis(100)).await;
        }
        let frame = self.stack.connect(TENANT, user).await?.next(limit).await?.json()?;
        ensure!(frame["data"] == user, "{frame}");
        Ok(())
    }

    /// Waits for the row of a user's only connection.
    async fn row(&self, tenant: &str, user: &str) -> anyhow::Result<Connection> {
        let (tenant, user, table) = (TenantId::new(tenant)?, UserId::new(user)?, self.stack.table());
        loop {
            let page = table.by_user(&tenant, &user, None, SystemTime::now()).await?;
            if let Some(row) = page.connections.first() {
                let row = table.get(&row.connection_id, SystemTime::now()).await?;
                return row.context("the row was removed");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Opens and closes a connection, and returns its id and its row, dated one hour back.
    async fn closed_connection(&self, user: &str) -> anyhow::Result<(ConnectionId, Connection)> {
        let socket = self.stack.connect(TENANT, user).await?;
        let row = self.row(TENANT, user).await?;
        socket.close().await?;
        self.wait_until_removed(&row.connection_id).await?;
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        Ok((row.connection_id.clone(), Connection { connected_at: hour_ago, ..row }))
    }

    async fn wait_until_removed(&self, id: &ConnectionId) -> anyhow::Result<()> {
        while self.stack.table().get(id, SystemTime::now()).await?.is_some() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Sends a malformed message and waits for its dead letter.
    async fn send_poison(&self, body: &str) -> anyhow::Result<()> {
        let (sqs, deployed) = (aws_sdk_sqs::Client::new(&self.stack.config), &self.stack.deployed);
        sqs.send_message().queue_url(&deployed.queue_url).message_body(body).send().await?;
        loop {
            let receive =
                sqs.receive_message().queue_url(&deployed.dead_letter_queue_url).wait_time_seconds(1);
            for message in receive.send().await?.messages.unwrap_or_default() {
                let delete = sqs.delete_message().queue_url(&deployed.dead_letter_queue_url);
                delete.set_receipt_handle(message.receipt_handle).send().await?;
                if message.body.as_deref() == Some(body) {
                    return Ok(());
                }
            }
        }
    }
}

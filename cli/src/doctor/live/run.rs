//! The state that all checks of one run share, and a note of each row and message that they made.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashSet},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use streamer_connections::{
    Connection, ConnectionTable, TENANT_SHARDS, TableError, TenantShards, tenant_shards,
};
use streamer_environment::{Environment, failure::FailureKind};
use streamer_mailbox::{DynamoTable, Mailbox, Settings, Stream};
use streamer_message::ConnectionId;
use streamer_producer::{Message, MessageBuilder, Producer};
use tokio::time::sleep;

use super::{Client, cause::Cause, socket::Socket};
use crate::{
    doctor::{Check, Subject},
    queue::HeldQueue,
};

/// Difference between this machine's clock and AWS's with which the checks work.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Time for which a message of a check is worth delivering. It leaves 15 s for a clock that is a minute behind. A message
/// that cannot be delivered leaves the queue then.
pub(super) const EXPIRY: Duration = Duration::from_secs(75);

/// Maximum time for calls that are not interrupted.
const INTERRUPT: Duration = Duration::from_secs(5);

/// A run of the checks.
pub(super) struct Run<'a> {
    /// The deployment.
    pub(super) subject: &'a Subject,
    /// The client.
    pub(super) client: &'a Client,
    /// An id that no other run has. Everything that the checks make has it, in its id or its user agent.
    pub(super) id: String,
    /// When the run began.
    pub(super) began: SystemTime,
    /// The user's connections before the run's own.
    pub(super) before: RefCell<HashSet<ConnectionId>>,
    /// A client of SQS.
    pub(super) sqs: aws_sdk_sqs::Client,
    /// The connection table, if the worker has one.
    pub(super) table: Option<ConnectionTable>,
    /// The outbound queue, if the worker names it.
    pub(super) producer: Option<Producer>,
    /// Items that the checks have made.
    pub(super) made: Made,
    /// Calls in progress after which messages of others are hidden or visible.
    pub(super) calls: Cell<usize>,
    /// Whether a signal ends the checks.
    pub(super) is_ending: Cell<bool>,
    /// The error of the latest read of a log that failed.
    pub(super) unread_log: RefCell<Option<String>>,
}

/// Items that the checks have made, and the cleanup removes.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Connections whose rows may exist.
    pub(super) connections: RefCell<BTreeSet<ConnectionId>>,
    /// Messages that may be on the outbound queue or the dead-letter queue.
    pub(super) messages: RefCell<BTreeSet<String>>,
    /// Those of the messages that become dead letters, which stay for days.
    pub(super) dead_letters: RefCell<BTreeSet<String>>,
    /// Receipts that may be on the receipts queue.
    pub(super) receipts: Cell<usize>,
    /// Queues whose messages were not released.
    pub(super) held: RefCell<Vec<HeldQueue>>,
    /// Whether the client's stream in the mailbox may have items of the run.
    pub(super) stream: Cell<bool>,
    /// Connections that may be devices of the stream.
    pub(super) devices: RefCell<BTreeSet<ConnectionId>>,
}

/// A connected client.
pub(super) struct Session {
    /// Its WebSocket.
    pub(super) socket: Socket,
    /// Its row.
    pub(super) row: Connection,
}

/// Returns the number of shards into which the worker splits a tenant; all of them if its variable is malformed.
fn shards_of_worker(subject: &Subject) -> TenantShards {
    let variable = subject.variable(TENANT_SHARDS.name).map(|count| (TENANT_SHARDS.name, count));
    tenant_shards(&mut Environment::of(variable)).unwrap_or(TenantShards::MAX)
}

impl<'a> Run<'a> {
    pub(super) fn new(subject: &'a Subject, client: &'a Client) -> Self {
        let sqs = aws_sdk_sqs::Client::new(&subject.config);
        let dynamodb = aws_sdk_dynamodb::Client::new(&subject.config);
        Self {
            id: format!("doctor-{:016x}", fastrand::u64(..)),
            began: SystemTime::now(),
            before: RefCell::default(),
            table: subject
                .variable("CONNECTIONS_TABLE")
                .map(|name| ConnectionTable::new(dynamodb, name).with_shards(shards_of_worker(subject))),
            producer: subject.variable("QUEUE_URL").map(|url| Producer::new(&sqs, url)),
            sqs,
            subject,
            client,
            made: Made::default(),
            calls: Cell::default(),
            is_ending: Cell::default(),
            unread_log: RefCell::default(),
        }
    }

    /// Drives checks until no call is in progress after which messages of others are hidden. The caller then drops them.
    pub(super) async fn interrupt(&self, checks: impl Future<Output = ()>) {
        self.is_ending.set(true);
        let completed = async {
            while self.calls.get() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            biased;
            () = completed => {}
            () = checks => {}
            () = sleep(INTERRUPT) => {}
        }
        self.is_ending.set(false);
    }

    /// Returns the worker's function name.
    pub(super) fn worker(&self) -> &str {
        &self.subject.worker().name
    }

    /// Returns the name of another function, or a description of it.
    pub(super) fn function(&self, short: &str) -> String {
        let function = self.subject.functions.get(short);
        function.map_or_else(|| format!("the {short} function"), |function| function.name.clone())
    }

    /// Returns the user agent of the run's connections.
    pub(super) fn user_agent(&self) -> String {
        format!("streamer-doctor/{} ({})", env!("CARGO_PKG_VERSION"), self.id)
    }

    /// Returns the management endpoint that the worker posts to.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.subject.variable("WEBSOCKET_ENDPOINT")
    }

    /// Returns the client's stream.
    pub(super) fn stream(&self) -> Stream {
        Stream { tenant: self.client.tenant.clone(), user: self.client.user.clone() }
    }

    /// Returns the mailbox, if the worker has one.
    pub(super) fn mailbox(&self) -> Option<Mailbox<DynamoTable>> {
        let name = self.subject.variable("MAILBOX_TABLE")?;
        let client = aws_sdk_dynamodb::Client::new(&self.subject.config);
        let mut settings = Settings::default();
        if let Some(generation) = self.subject.variable("MAILBOX_GENERATION") {
            settings.generation = generation.to_owned();
        }
        Some(Mailbox::new(DynamoTable::new(client, name), settings))
    }

    /// Returns the id of a message, and the message with that id as its payload.
    ///
    /// # Errors
    /// The reason as text.
    pub(super) fn message(&self, name: &str, to: MessageBuilder) -> Result<(String, Message), String> {
        let id = format!("{}-{name}", self.id);
        let built = to.id(&id).expires_in(EXPIRY).payload(&json!({ "id": id }));
        built.map(|message| (id, message)).map_err(|error| error.to_string())
    }

    /// Sends a message through the outbound queue.
    ///
    /// # Errors
    /// The cause, with its remedy.
    pub(super) async fn send(&self, id: &str, message: Message) -> Result<(), Cause> {
        let Some(producer) = &self.producer else {
            return Err(Cause {
                seen: format!("{} has no QUEUE_URL", self.worker()),
                remedy: format!("set QUEUE_URL of {} to the outbound queue's URL", self.worker()),
                is_denied: false,
            });
        };
        self.made.messages.borrow_mut().insert(id.to_owned());
        producer.send(message).await.map_err(|error| {
            let error = error.to_string();
            let is_denied = error.contains("AccessDenied");
            if is_denied {
                self.arrived(id);
            }
            let actions = match is_of_key(&error) {
                true => "kms:GenerateDataKey and kms:Decrypt on the key of the outbound queue",
                false => "sqs:SendMessage on the outbound queue",
            };
            Cause {
                is_denied,
                seen: format!("the outbound queue refused the message: {error}"),
                remedy: format!("allow {actions} to your own role, and check QUEUE_URL"),
            }
        })
    }

    /// Notes that a message has arrived.
    pub(super) fn arrived(&self, id: &str) {
        self.made.messages.borrow_mut().remove(id);
        self.made.dead_letters.borrow_mut().remove(id);
    }

    /// Connects a client, and finds its row.
    ///
    /// # Errors
    /// The reason as text.
    pub(super) async fn connect(&self) -> Result<Session, String> {
        let socket = super::connect::open(self).await;
        let mut socket = socket.map_err(|error| format!("the client cannot connect again: {error}"))?;
        match super::connect::find(self, &mut socket).await {
            Ok(Some(row)) => Ok(Session { socket, row }),
            Ok(None) => Err("the row of a new connection did not appear".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Returns whether an error of SQS is about the queue's key.
pub(super) fn is_of_key(error: &str) -> bool {
    ["KmsAccessDenied", "KMS.AccessDenied"].iter().any(|code| error.contains(code))
}

/// Returns milliseconds with one decimal.
pub(super) fn ms(time: Duration) -> Value {
    json!((time.as_secs_f64() * 10_000.0).round() / 10.0)
}

/// Formats a time for people, such as `4.2 ms`.
pub(super) fn shown(time: Duration) -> String {
    match time.as_secs_f64() * 1000.0 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// Returns the result of a call to the connection table that failed.
pub(super) fn table_failure(name: &'static str, expected: &str, error: &TableError) -> Check {
    match error {
        TableError::Call { operation, table, kind: FailureKind::Denied, .. } => {
            let seen = format!("your credentials do not permit dynamodb:{operation} on table {table}");
            Check::skipped(name, expected, seen)
        }
        TableError::Call { table, kind: FailureKind::NotFound, .. } => Check::failed(
            name,
            expected,
            format!("there is no table {table}"),
            "set CONNECTIONS_TABLE of every function to the table's name (Terraform's output connections_table)",
        ),
        TableError::Call { operation, cause, .. } => Check::failed(
            name,
            expected,
            format!("dynamodb:{operation} failed: {cause}"),
            "compare the table and its indexes with infra/table.tf",
        ),
        TableError::Row(error) => Check::failed(
            name,
            expected,
            error.to_string(),
            "deploy the connect function of the same version as the worker's",
        ),
    }
}

//! Test doubles of table and queues, inside the SDK's HTTP client: all code above it is real.

mod calls;
mod crowd;
mod dynamodb;
mod mailbox;
mod management;
mod queue;
mod table;

use aws_sdk_dynamodb::error::ErrorMetadata;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use serde_json::Value;

pub use self::{
    calls::{Answer, Call, CallsDouble, SentEntry, Told},
    crowd::Crowd,
    dynamodb::{Answer as DynamoAnswer, DynamoDouble},
    mailbox::{MailboxCall, MailboxDouble, MailboxFault},
    management::ManagementDouble,
    queue::{Entry, QueueDouble},
    table::{LONG_AGO, Row, TableDouble, connection},
};

/// Builds a service error.
fn error(code: &str) -> ErrorMetadata {
    ErrorMetadata::builder().code(code).message("scripted").build()
}

/// Returns the JSON of a request, or null.
fn input(request: &HttpRequest) -> Value {
    request.body().bytes().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
}

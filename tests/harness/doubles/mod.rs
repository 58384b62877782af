//! Test doubles of table and queues, inside the SDK's HTTP client: all code above it is real.

mod calls;
mod crowd;
mod dynamodb;
mod mailbox;
mod management;
mod queue;
mod table;

use aws_sdk_dynamodb::error::ErrorMetadata;

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

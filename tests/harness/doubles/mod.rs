//! Doubles of table and queue, inside the SDK's HTTP client: everything above it is real.

mod calls;
mod crowd;
mod management;
mod queue;
mod table;

use aws_sdk_dynamodb::error::ErrorMetadata;

pub use self::{
    calls::{Answer, Call, CallsDouble, SentEntry, Told},
    crowd::Crowd,
    management::ManagementDouble,
    queue::{Entry, QueueDouble},
    table::{LONG_AGO, Row, TableDouble, connection},
};

/// An error of a service.
fn error(code: &str) -> ErrorMetadata {
    ErrorMetadata::builder().code(code).message("scripted").build()
}

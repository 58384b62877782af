//! The errors of the table's operations.

use streamer_environment::failure::FailureKind;

use crate::{config::CONNECTIONS_TABLE, row::InvalidRow};

/// The reason why an operation on the table failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// DynamoDB refused the call or did not answer.
    #[error(
        "{operation} on table {table} failed: {cause}; {}",
        kind.remedy_for_table(CONNECTIONS_TABLE.name, operation)
    )]
    Call {
        /// The operation, as DynamoDB names it.
        operation: &'static str,
        /// The table's name.
        table: String,
        /// The kind of the failure.
        kind: FailureKind,
        /// DynamoDB's error, or the error of a call without a response.
        cause: String,
    },
    /// A row cannot be parsed.
    #[error(transparent)]
    Row(#[from] InvalidRow),
}

//! The faults of the deployment.

use streamer_mailbox::MailboxError;
use streamer_message::PayloadError;

use crate::post::PostError;

/// Why a frame was not handled. A client repeats its sync, so a transient fault costs it a few seconds. It does not repeat
/// an acknowledgment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// The connection table failed.
    #[error(transparent)]
    Connections(#[from] streamer_connections::TableError),
    /// The mailbox failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The mailbox holds a message that was not written by the worker.
    #[error("a message in the mailbox is not JSON: remove the stream with `streamer forget`")]
    Payload(#[source] PayloadError),
    /// API Gateway did not accept the page.
    #[error(
        "the post of a page failed: check WEBSOCKET_ENDPOINT, and that the role may call \
         execute-api:ManageConnections"
    )]
    Post(#[from] PostError),
    /// The receipts queue did not confirm the receipts of acknowledged messages.
    #[error(
        "the receipts queue did not confirm {unconfirmed} of {messages} acknowledgments: check RECEIPTS_QUEUE_URL, and \
         that the role may call sqs:SendMessage, and kms:GenerateDataKey if the queue has a key"
    )]
    Receipts {
        /// The number of receipts that are not confirmed.
        unconfirmed: usize,
        /// The number of messages that the client has acknowledged.
        messages: usize,
    },
    /// The invocation's time was up.
    #[error(
        "the frame was not handled in the invocation's time: check the latency of the tables and of API Gateway, or \
         raise the function's timeout and TIMEOUT_SECONDS"
    )]
    Deadline,
}

//! The limits of a message, with the AWS page that each comes from.

use std::ops::RangeInclusive;

/// Maximum size of a payload in bytes: API Gateway delivers WebSocket messages of at most 128 KiB.
///
/// Source: "WebSocket message payload size" in
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
pub const PAYLOAD_BYTES: usize = 128 * 1024;

/// Maximum size in bytes of an SQS message (body and attributes together), and of all messages of one batch.
///
/// Source: "Message size" and "Message batch" in
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
pub const QUEUE_MESSAGE_BYTES: usize = 1024 * 1024;

/// Maximum number of messages in one SQS batch call.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>.
pub const QUEUE_BATCH_MESSAGES: usize = 10;

/// Maximum number of connections that one message may name. Streamer's own limit: it bounds a worker's effort for one
/// message.
pub const CONNECTIONS: usize = 100;

/// Maximum number of characters of a message, request or connection id. Streamer's own limit; API Gateway's connection
/// ids have 16.
pub const ID_CHARACTERS: usize = 128;

/// Maximum size of a tenant or user id in bytes. Streamer's own limit: both are parts of an index key, for which
/// DynamoDB's limit is 2048 bytes.
pub const PRINCIPAL_BYTES: usize = 256;

/// Maximum number of characters of an epoch. Streamer's own limit; the mailbox generates shorter ones.
pub const EPOCH_CHARACTERS: usize = 64;

/// Seconds for which a message can be kept: a minute to 30 days. Streamer's own limits.
pub const KEEP_SECONDS: RangeInclusive<u32> = 60..=2_592_000;

/// Maximum size in bytes of a payload that is kept. Clients receive it in a frame with its position, which must not
/// exceed [`PAYLOAD_BYTES`].
pub const KEPT_PAYLOAD_BYTES: usize = 127 * 1024;

/// Maximum size in bytes of a page of kept messages with more than one message. API Gateway meters messages in units of
/// 32 KiB.
///
/// Source: "WebSocket APIs" in <https://aws.amazon.com/api-gateway/pricing/>.
pub const PAGE_BYTES: usize = 30 * 1024;

/// Maximum number of streams that one sync names. Streamer's own limit.
pub const SYNC_STREAMS: usize = 10;

/// Maximum number of messages that one acknowledgment names, so that their receipts fit one SQS batch call. Streamer's
/// own limit.
pub const ACK_IDS: usize = QUEUE_BATCH_MESSAGES;

//! Every limit that a message meets on its way, and where it comes from.

/// Bytes of one payload: a WebSocket message that API Gateway delivers is at most 128 KiB.
///
/// Source: "WebSocket message payload size" in
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
pub const PAYLOAD_BYTES: usize = 128 * 1024;

/// Bytes of one SQS message, its body and attributes together, and of all the messages of one batch.
///
/// Source: "Message size" and "Message batch" in
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
pub const QUEUE_MESSAGE_BYTES: usize = 1024 * 1024;

/// Messages in one SQS batch call.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>.
pub const QUEUE_BATCH_MESSAGES: usize = 10;

/// Connections that one message may name. Ours: it bounds what one message costs a worker.
pub const CONNECTIONS: usize = 100;

/// Characters of a message, request or connection id. Ours; API Gateway's connection ids have 16.
pub const ID_CHARACTERS: usize = 128;

/// Bytes of a tenant or user id. Ours: both are parts of an index key, which DynamoDB holds to 2048 bytes.
pub const PRINCIPAL_BYTES: usize = 256;

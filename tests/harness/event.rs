//! Builders of Lambda events.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use streamer_events::{Body, SqsEvent, SqsRecord, WebSocketEvent};

/// Returns the time at which tests in virtual time begin.
#[must_use]
pub fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH_MILLIS)
}

/// The ARN of the outbound queue in these tests.
pub const OUTBOUND_ARN: &str = "arn:aws:sqs:eu-central-1:123456789012:outbound";

/// [`epoch`] in milliseconds.
pub const EPOCH_MILLIS: u64 = 1_764_000_000_000;

/// Builds an SQS event with these bodies. The records' ids are `record-0`, `record-1`, ….
pub fn batch<B: Into<String>>(bodies: impl IntoIterator<Item = B>) -> SqsEvent {
    let records = bodies.into_iter().enumerate().map(|(index, body)| record(index, body.into()));
    SqsEvent { records: records.collect() }
}

/// Builds the event of a batch that came from the queue with this ARN.
pub fn batch_from<B: Into<String>>(arn: &str, bodies: impl IntoIterator<Item = B>) -> SqsEvent {
    let mut event = batch(bodies);
    event.records.iter_mut().for_each(|record| record.queue_arn = Some(arn.to_owned()));
    event
}

/// Builds a record with this body, received for the first time at [`epoch`].
#[must_use]
pub fn record(index: usize, body: String) -> SqsRecord {
    let attributes = [
        ("ApproximateReceiveCount", "1".to_owned()),
        ("ApproximateFirstReceiveTimestamp", EPOCH_MILLIS.to_string()),
        ("SentTimestamp", (EPOCH_MILLIS - 50).to_string()),
    ];
    SqsRecord {
        message_id: Some(format!("record-{index}")),
        receipt_handle: Some(format!("receipt-{index}")),
        queue_arn: Some(OUTBOUND_ARN.to_owned()),
        body: Body::Text(body),
        attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

/// Builds the body of a message to these connections, with its id as payload.
#[must_use]
pub fn message(id: &str, connections: &[&str]) -> Value {
    json!({ "version": 1, "id": id, "to": { "connections": connections }, "payload": id })
}

/// Builds the JSON of an SQS event with these bodies, as SQS writes it.
pub fn batch_json<B: Into<String>>(bodies: impl IntoIterator<Item = B>) -> Value {
    let json = |record: SqsRecord| {
        let Body::Text(body) = record.body else { return Value::Null };
        json!({
            "messageId": record.message_id,
            "receiptHandle": record.receipt_handle,
            "body": body,
            "attributes": record.attributes,
            "messageAttributes": {},
            "md5OfBody": "00000000000000000000000000000000",
            "eventSource": "aws:sqs",
            "eventSourceARN": record.queue_arn,
            "awsRegion": "eu-central-1",
        })
    };
    json!({ "Records": batch(bodies).records.into_iter().map(json).collect::<Vec<_>>() })
}

/// Builds a `$connect` event as API Gateway sends it, with a token in the header `Authorization`.
#[must_use]
pub fn connect(token: Option<&str>) -> WebSocketEvent {
    read(&connect_json(token))
}

/// Builds the JSON of [`connect`].
#[must_use]
pub fn connect_json(token: Option<&str>) -> Value {
    let mut headers = json!({ "Host": "ws.example.com", "User-Agent": "tests/1.0" });
    if let Some(token) = token {
        headers["Authorization"] = format!("Bearer {token}").into();
    }
    websocket("CONNECT", json!({ "headers": headers }))
}

/// Builds a `$disconnect` event as API Gateway sends it.
#[must_use]
pub fn disconnect() -> WebSocketEvent {
    read(&disconnect_json())
}

/// Builds the JSON of [`disconnect`].
#[must_use]
pub fn disconnect_json() -> Value {
    let mut event = websocket("DISCONNECT", json!({}));
    event["requestContext"]["disconnectStatusCode"] = 1001.into();
    event["requestContext"]["disconnectReason"] = "Going away".into();
    event
}

/// Builds the event of a message that a client sent, as API Gateway sends it to the function behind a route.
#[must_use]
pub fn client_message(route_key: &str, body: &str) -> WebSocketEvent {
    let mut event = websocket("MESSAGE", json!({ "body": body }));
    event["requestContext"]["routeKey"] = route_key.into();
    event["requestContext"]["messageId"] = "L0SM9cOFvHcCIhw=".into();
    read(&event)
}

/// The connection id in the WebSocket events.
pub const CONNECTION: &str = "L0SM9cOFvHcCIhw=";

#[expect(clippy::expect_used, reason = "every JSON is a WebSocket event")]
fn read(event: &Value) -> WebSocketEvent {
    serde_json::from_str(&event.to_string()).expect("a WebSocket event")
}

fn websocket(event_type: &str, mut event: Value) -> Value {
    event["isBase64Encoded"] = false.into();
    event["requestContext"] = json!({
        "routeKey": format!("${}", event_type.to_lowercase()),
        "eventType": event_type,
        "messageDirection": "IN",
        "stage": "production",
        "apiId": "a1b2c3d4e5",
        // A custom domain, so this is not the management endpoint.
        "domainName": "ws.example.com",
        "connectionId": CONNECTION,
        "connectedAt": EPOCH_MILLIS,
        "requestTimeEpoch": EPOCH_MILLIS,
        "identity": { "sourceIp": "192.0.2.1", "userAgent": "tests/1.0" },
    });
    event
}

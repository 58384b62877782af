//! A router: the Lambda behind `$default` of a WebSocket API. It answers clients through the queue, so it returns as
//! soon as the queue has the answer, and slow or closed connections do not delay it.
//!
//! A request is `{"type": "echo", "request_id": "…", "text": "…"}`, or has the type `ping` or `report` and no text.
//! A report with `"keep": true` is for all devices of the client's user, and its result waits for those that are away.

use std::time::{Duration, SystemTime};

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use streamer_connections::ConnectionTable;
use streamer_environment::aws;
use streamer_producer::{ConnectionId, Message, MessageBuilder, Percent, Producer, Progress, RequestId};

/// The answer to an invalid request. The error of the JSON library names Rust types, which tell a client nothing.
const EXPECTED: &str = "expected a JSON object with the `type` echo and a `text`, with the `type` ping, or with the \
                        `type` report and optionally `seconds` and `keep`; and optionally a `request_id` of 1 to 128 \
                        characters";

/// Longest time that a report takes. The Lambda's timeout must be longer.
const MAX_REPORT_TIME: Duration = Duration::from_secs(20);

/// Default time that a report takes.
const REPORT_TIME: Duration = Duration::from_millis(200);

/// Time for which the result of a report waits for devices that are away.
const KEEP: Duration = Duration::from_secs(3600);

const UPDATES: u8 = 10;

const FAILED: &str = "the request could not be answered";

const ACKNOWLEDGED: &str = "the report is being written";

/// The requests that a client may send.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Request {
    Echo { text: String },
    Ping,
    Report(Report),
}

#[derive(Deserialize)]
struct Report {
    /// Time that the report takes, at most [`MAX_REPORT_TIME`].
    seconds: Option<u64>,
    /// Whether the report is for all devices of the user, instead of this connection.
    #[serde(default)]
    keep: bool,
}

/// The part that all requests share. It is read separately, so that the answer to an invalid request can name it.
#[derive(Deserialize)]
struct Envelope {
    request_id: Option<RequestId>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let producer = Producer::connect(std::env::var("QUEUE_URL")?).await;
    let table = match std::env::var("CONNECTIONS_TABLE") {
        Ok(name) => {
            Some(ConnectionTable::new(aws_sdk_dynamodb::Client::new(&aws::loader().load().await), name))
        }
        Err(_) => None,
    };
    run(service_fn(|event| route(&producer, table.as_ref(), event))).await
}

async fn route(
    producer: &Producer,
    table: Option<&ConnectionTable>,
    event: LambdaEvent<ApiGatewayWebsocketProxyRequest>,
) -> Result<Value, Error> {
    let event = event.payload;
    let connection = event
        .request_context
        .connection_id
        .ok_or("the event is not from a WebSocket API: check the Lambda's trigger")?;
    let body = event.body.unwrap_or_default();
    let (request_id, request) = match serde_json::from_str(&body) {
        Ok(Envelope { request_id }) => (request_id, serde_json::from_str::<Request>(&body)),
        Err(error) => (None, Err(error)),
    };
    let reply = || match &request_id {
        Some(id) => Message::connection(&connection).request(id.clone()),
        None => Message::connection(&connection),
    };
    let log = |level: &str, message: String| {
        println!("{}", json!({ "level": level, "request_id": request_id, "message": message }));
    };
    match request {
        Ok(request) => {
            let answered = match (request, &request_id) {
                (Request::Report(Report { seconds, keep: true }), Some(id)) => {
                    keep_report(producer, table, &connection, id, time(seconds)).await
                }
                (request, _) => answer(producer, request, &reply).await,
            };
            if let Err(error) = answered {
                // The cause is logged. The client only learns that no further answer will come.
                log("ERROR", error.to_string());
                producer.send(reply().error("internal", FAILED)?).await?;
            }
        }
        Err(error) => {
            // The error's text may repeat what the client wrote, so the log has only its position.
            log("WARN", format!("invalid request (line {}, column {})", error.line(), error.column()));
            producer.send(reply().error("invalid_request", EXPECTED)?).await?;
        }
    }
    // Without a body, because API Gateway would send it to the client in addition to the answer.
    Ok(json!({ "statusCode": 200 }))
}

async fn answer(
    producer: &Producer,
    request: Request,
    reply: &impl Fn() -> MessageBuilder,
) -> Result<(), Error> {
    match request {
        Request::Echo { text } => producer.send(reply().response(&text)?).await?,
        Request::Ping => producer.send(reply().response("pong")?).await?,
        Request::Report(Report { seconds, .. }) => {
            let Ok(progress) = producer.progress(reply()) else {
                producer.send(reply().error("invalid_request", "a report needs a `request_id`")?).await?;
                return Ok(());
            };
            producer.send(reply().acknowledgment(Some(ACKNOWLEDGED))?).await?;
            write_report(progress, time(seconds)).await?;
        }
    }
    Ok(())
}

/// Reports to the user, since a report may outlive the connection. The devices that are away get the result when they
/// are back.
async fn keep_report(
    producer: &Producer,
    table: Option<&ConnectionTable>,
    connection: &str,
    request_id: &RequestId,
    time: Duration,
) -> Result<(), Error> {
    let table =
        table.ok_or("the variable CONNECTIONS_TABLE is not set: set it to the connection table's name")?;
    let row = table.get(&ConnectionId::new(connection)?, SystemTime::now()).await?;
    // The client has left and sends its request again on its next connection.
    let Some(row) = row else { return Ok(()) };
    let reply = || Message::user(row.tenant_id.as_str(), row.user_id.as_str()).request(request_id.clone());
    let written = async {
        producer.send(reply().acknowledgment(Some(ACKNOWLEDGED))?).await?;
        write_report(producer.progress(reply().keep(KEEP))?, time).await
    }
    .await;
    if written.is_err() {
        // Every device of the user waits for the end of the report.
        producer.send(reply().keep(KEEP).error("internal", FAILED)?).await?;
    }
    written
}

async fn write_report(progress: Progress, time: Duration) -> Result<(), Error> {
    // More often than the default, to show how updates that come too fast supersede each other.
    let mut progress = progress.min_interval(Duration::from_millis(20));
    for update in 1..=UPDATES {
        // A real router would write a part of the report here.
        tokio::time::sleep(time / u32::from(UPDATES)).await;
        progress.update(Percent::of(update.into(), UPDATES.into()), "writing").await?;
    }
    progress.complete(&json!({ "rows": 1280 })).await?;
    Ok(())
}

/// Returns the time that a report takes.
fn time(seconds: Option<u64>) -> Duration {
    seconds.map_or(REPORT_TIME, Duration::from_secs).min(MAX_REPORT_TIME)
}

//! A router: the Lambda behind `$default` of a WebSocket API. It answers clients through the queue, so it returns as
//! soon as the queue has the answer, and slow or closed connections do not delay it.
//!
//! A request is `{"type": "echo", "request_id": "…", "text": "…"}`, or has the type `ping` or `report` and no text.

use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use streamer_producer::{Message, MessageBuilder, Producer, RequestId};

/// The answer to an invalid request. The error of the JSON library names Rust types, which tell a client nothing.
const EXPECTED: &str = "expected a JSON object with the `type` echo and a `text`, with the `type` ping, or with the \
                        `type` report; and optionally a `request_id` of 1 to 128 characters";

/// The requests that a client may send.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Request {
    Echo { text: String },
    Ping,
    Report,
}

/// The part that all requests share. It is read separately, so that the answer to an invalid request can name it.
#[derive(Deserialize)]
struct Envelope {
    request_id: Option<RequestId>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let producer = Producer::connect(std::env::var("QUEUE_URL")?).await;
    run(service_fn(|event| route(&producer, event))).await
}

async fn route(
    producer: &Producer,
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
            if let Err(error) = answer(producer, request, &reply).await {
                // The cause is logged. The client only learns that no further answer will come.
                log("ERROR", error.to_string());
                producer.send(reply().error("internal", "the request could not be answered")?).await?;
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
        Request::Report => {
            let Ok(progress) = producer.progress(reply()) else {
                producer.send(reply().error("invalid_request", "a report needs a `request_id`")?).await?;
                return Ok(());
            };
            producer.send(reply().acknowledgment(Some("the report is being written"))?).await?;
            // More often than the default, to show how updates that come too fast supersede each other.
            let mut progress = progress.min_interval(Duration::from_millis(20));
            for percent in (10..=100).step_by(10) {
                // A real router would write a part of the report here.
                tokio::time::sleep(Duration::from_millis(20)).await;
                progress.update(percent, "writing").await?;
            }
            progress.complete(&json!({ "rows": 1280 })).await?;
        }
    }
    Ok(())
}

//! A router: the Lambda behind `$default` of a WebSocket API. It answers clients through the queue, so it returns as
//! soon as the queue has the answer, and slow or closed connections do not delay it.
//!
//! A request is `{"type": "echo", "request_id": "…", "text": "…"}`, or has the type `ping` or `report` and no text.

use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use streamer_producer::{Message, MessageBuilder, Producer};

/// The requests that a client may send.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Request {
    Echo { text: String },
    Ping,
    Report,
}

/// The part that all requests share. It is read separately, so that the answer to an invalid request can name it.
#[derive(Default, Deserialize)]
struct Envelope {
    request_id: Option<String>,
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
    let Envelope { request_id } = serde_json::from_str(&body).unwrap_or_default();
    let reply = || match &request_id {
        Some(id) => Message::connection(&connection).request(id),
        None => Message::connection(&connection),
    };
    match serde_json::from_str(&body) {
        Ok(request) => {
            if let Err(error) = answer(producer, request, &reply).await {
                // The cause is logged. The client only learns that no further answer will come.
                let message = error.to_string();
                println!("{}", json!({ "level": "ERROR", "request_id": request_id, "message": message }));
                producer.send(reply().error("internal", "the request could not be answered")?).await?;
            }
        }
        Err(error) => producer.send(reply().error("invalid_request", &error.to_string())?).await?,
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

//! A router: the Lambda behind `$default` of a WebSocket API. It answers clients through the queue, so it is
//! done as soon as the queue has the answer, and a client that is slow or gone costs it nothing.
//!
//! A request is `{"type": "echo" | "ping" | "report", "request_id": "…", "text": "…"}`.

use std::time::Duration;

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use streamer_producer::{Message, MessageBuilder, Producer};

#[derive(Deserialize)]
struct Request {
    r#type: String,
    request_id: String,
    #[serde(default)]
    text: String,
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
    let connection = event.payload.request_context.connection_id.unwrap_or_default();
    let body = event.payload.body.unwrap_or_default();
    match serde_json::from_str::<Request>(&body) {
        Ok(request) => answer(producer, &connection, &request).await?,
        Err(error) => {
            let message = format!("not a request: {error}");
            producer.send(Message::connection(&connection).error("invalid_request", &message)?).await?;
        }
    }
    Ok(json!({ "statusCode": 200 }))
}

async fn answer(producer: &Producer, connection: &str, request: &Request) -> Result<(), Error> {
    let reply = || -> MessageBuilder { Message::connection(connection).request(&request.request_id) };
    match request.r#type.as_str() {
        "echo" => producer.send(reply().response(&request.text)?).await?,
        "ping" => producer.send(reply().response("pong")?).await?,
        "report" => {
            producer.send(reply().acknowledgment(Some("the report is being written"))?).await?;
            for percent in (10..=100).step_by(10) {
                // Here a report would be written.
                tokio::time::sleep(Duration::from_millis(20)).await;
                producer.send(reply().progress(percent, Some("writing"))?).await?;
            }
            producer.send(reply().complete(&json!({ "rows": 1280 }))?).await?;
        }
        other => {
            producer.send(reply().error("unknown_type", &format!("no such request: {other}"))?).await?;
        }
    }
    Ok(())
}

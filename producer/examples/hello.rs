//! The router of `docs/guide/router.md`, line by line.

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};
use streamer_producer::{Message, MessageBuilder, Producer};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let producer = Producer::connect(std::env::var("QUEUE_URL")?).await;
    run(service_fn(async |event: LambdaEvent<ApiGatewayWebsocketProxyRequest>| {
        let connection = event.payload.request_context.connection_id.unwrap_or_default();
        let reply = || Message::connection(&connection);
        let message = answer(reply(), &event.payload.body.unwrap_or_default()).or_else(|error| {
            println!("invalid request from {connection}: {error}");
            reply().error("invalid_request", "expected a JSON object with a `request_id`")
        })?;
        producer.send(message).await?;
        Ok::<_, Error>(json!({ "statusCode": 200 }))
    }))
    .await
}

fn answer(reply: MessageBuilder, body: &str) -> Result<Message, Error> {
    let request: Value = serde_json::from_str(body)?;
    let request_id = request["request_id"].as_str().ok_or("`request_id` is missing or not a string")?;
    Ok(reply.request(request_id).response("hello")?)
}

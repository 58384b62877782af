//! A Lambda whose handler panics at the event `"panic"`, and returns every other one.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(async |event: LambdaEvent<Value>| {
        assert_ne!(event.payload, "panic", "asked to");
        Ok::<_, Error>(event.payload)
    }))
    .await
}

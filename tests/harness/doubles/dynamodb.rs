//! DynamoDB with scripted answers: all code above the SDK's HTTP client is real, and reads errors from their JSON.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use streamer_connections::ConnectionTable;
use tokio::time::sleep;

use super::input;

/// An answer, or an error's code and the other fields of its body.
pub type Answer = Result<Value, (&'static str, Value)>;

type Script = dyn Fn(&str, &Value) -> Answer + Send + Sync;

/// DynamoDB with scripted answers.
#[derive(Clone)]
pub struct DynamoDouble {
    calls: Arc<Mutex<Vec<String>>>,
    script: Arc<Script>,
    /// Latency of a call.
    each: Duration,
    in_flight: Arc<AtomicUsize>,
    most_in_flight: Arc<AtomicUsize>,
}

impl DynamoDouble {
    /// Creates a service that answers each call according to `script`, by its operation and input.
    pub fn new(script: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> Self {
        let (in_flight, most_in_flight) = (Arc::default(), Arc::default());
        Self {
            calls: Arc::default(),
            script: Arc::new(script),
            each: Duration::ZERO,
            in_flight,
            most_in_flight,
        }
    }

    /// Sets the latency of a call.
    #[must_use]
    pub fn after(self, each: Duration) -> Self {
        Self { each, ..self }
    }

    /// Returns the largest number of concurrent calls.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.most_in_flight.load(Ordering::Relaxed)
    }

    /// Returns the operations of all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.locked().clone()
    }

    /// Returns a client of a connection table.
    #[must_use]
    pub fn table(&self) -> ConnectionTable {
        let connector = SharedHttpConnector::new(self.clone());
        let config = aws_sdk_dynamodb::Config::builder().with_test_defaults_v2();
        // Without retries, which the SDK tests itself.
        let config = config
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .retry_config(RetryConfig::disabled());
        ConnectionTable::new(aws_sdk_dynamodb::Client::from_conf(config.build()), "connections")
    }

    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for DynamoDouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DynamoDouble").finish_non_exhaustive()
    }
}

impl HttpConnector for DynamoDouble {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (operation, input) = (operation(&request), input(&request));
        let answer = (self.script)(&operation, &input);
        self.locked().push(operation);
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);
        let (guard, each) = (InFlight(Arc::clone(&self.in_flight)), self.each);
        HttpConnectorFuture::new(async move {
            let _guard = guard;
            sleep(each).await;
            Ok(response(answer))
        })
    }
}

/// Ends a call when it is dropped, so also when the caller cancels it.
struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the name of the operation that a request calls.
pub(super) fn operation(request: &HttpRequest) -> String {
    let target = request.headers().get("x-amz-target").unwrap_or_default();
    target.rsplit('.').next().unwrap_or_default().to_owned()
}

/// Writes an answer as DynamoDB does.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html>.
#[expect(clippy::unwrap_used, reason = "these are statuses")]
pub(super) fn response(answer: Answer) -> HttpResponse {
    let (status, body) = match answer {
        Ok(body) => (200_u16, body),
        Err((code, mut body)) => {
            let status = match code {
                "InternalServerError" => 500,
                "ServiceUnavailable" => 503,
                _ => 400,
            };
            body["__type"] = json!(format!("com.amazonaws.dynamodb.v20120810#{code}"));
            body["message"] = json!("scripted");
            (status, body)
        }
    };
    HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body.to_string()))
}

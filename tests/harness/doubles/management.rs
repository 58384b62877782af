//! API Gateway's management API, except for posts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_config::{Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
};
use aws_smithy_types::body::SdkBody;

/// Records requests, and answers each URL with the status that its script returns.
#[derive(Clone)]
pub struct ManagementDouble {
    requests: Arc<Mutex<Vec<String>>>,
    script: Arc<dyn Fn(&str) -> u16 + Send + Sync>,
}

impl ManagementDouble {
    /// Creates a double that answers according to `script`.
    pub fn new(script: impl Fn(&str) -> u16 + Send + Sync + 'static) -> Self {
        Self { requests: Arc::default(), script: Arc::new(script) }
    }

    /// Returns method and URL of each request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.locked().clone()
    }

    /// Returns a configuration whose clients use this double.
    #[must_use]
    pub fn config(&self) -> SdkConfig {
        let connector = SharedHttpConnector::new(self.clone());
        let credentials = Credentials::from_keys("test", "test", None);
        SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ManagementDouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ManagementDouble").finish_non_exhaustive()
    }
}

impl HttpConnector for ManagementDouble {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.locked().push(format!("{} {}", request.method(), request.uri()));
        let status = (self.script)(request.uri());
        #[expect(clippy::unwrap_used, reason = "tests use valid statuses")]
        let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from("{}"));
        HttpConnectorFuture::ready(Ok(response))
    }
}

//! The way to API Gateway.

use aws_sdk_apigatewaymanagement::{
    Client,
    config::{StalledStreamProtectionConfig, retry::RetryConfig},
    error::SdkError,
    primitives::Blob,
};
use bytes::Bytes;
use streamer_environment::aws::cause;
use streamer_message::ConnectionId;

use crate::classify::Answer;

/// Posts payloads to connections: over the wire, or in memory where tests run in virtual time.
pub trait Gateway: Send + Sync {
    /// Posts once. The caller bounds the time that it may take.
    fn post(&self, connection: &ConnectionId, payload: Bytes) -> impl Future<Output = Answer> + Send;
}

/// API Gateway's `PostToConnection`, through the AWS SDK.
#[derive(Debug, Clone)]
pub struct ManagementApi {
    client: Client,
}

impl ManagementApi {
    /// Posts to the management endpoint `endpoint`, such as
    /// `https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production`.
    #[must_use]
    pub fn new(aws: &aws_sdk_apigatewaymanagement::config::Builder, endpoint: &str) -> Self {
        // The SDK's retry budget is shared by all connections: a hundred slow clients would drain it.
        let config = aws
            .clone()
            .endpoint_url(endpoint)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        Self { client: Client::from_conf(config.build()) }
    }
}

impl Gateway for ManagementApi {
    async fn post(&self, connection: &ConnectionId, payload: Bytes) -> Answer {
        let post =
            self.client.post_to_connection().connection_id(connection.as_str()).data(Blob::new(payload));
        match post.send().await {
            Ok(_) => Answer::Status { status: 200, message: String::new() },
            Err(SdkError::TimeoutError(_)) => Answer::Timeout,
            Err(error) => match error.raw_response() {
                Some(response) => Answer::Status {
                    status: response.status().as_u16(),
                    message: String::from_utf8_lossy(response.body().bytes().unwrap_or_default())
                        .into_owned(),
                },
                None => Answer::Broken(cause(&error)),
            },
        }
    }
}

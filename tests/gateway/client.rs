//! A client of a test gateway, and short forms for its calls.

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use bytes::Bytes;
use rustls::ClientConfig;
use streamer_environment::aws;
use streamer_gateway::{Gateway as _, ManagementApi, PostResult};
use streamer_tests::h2::Http2Gateway;

pub(crate) fn credentials(token: Option<&str>) -> Credentials {
    Credentials::new("AKIDEXAMPLE", "s3cret", token.map(str::to_owned), None, "test")
}

pub(crate) async fn config(credentials: Credentials) -> SdkConfig {
    let loader = aws::loader().region(Region::from_static("eu-central-1"));
    loader.credentials_provider(credentials).load().await
}

/// Builds a client that keeps at most 128 idle connections.
pub(crate) async fn api(endpoint: &str) -> ManagementApi {
    ManagementApi::new(&config(credentials(None)).await, endpoint, 128).unwrap()
}

/// Builds a client that trusts the gateway's certificate.
pub(crate) async fn trusting_api(gateway: &Http2Gateway, endpoint: &str) -> ManagementApi {
    tls_api(gateway.trusting(), endpoint, 128).await
}

/// Builds a client with this TLS configuration that keeps at most `max_idle` connections.
pub(crate) async fn tls_api(tls: ClientConfig, endpoint: &str, max_idle: usize) -> ManagementApi {
    ManagementApi::with_tls(&config(credentials(None)).await, endpoint, max_idle, tls).unwrap()
}

pub(crate) async fn post(api: &ManagementApi, connection: &str) -> PostResult {
    api.post(&connection.try_into().unwrap(), Bytes::from_static(b"1")).await
}

pub(crate) fn status(status: u16, message: &str) -> PostResult {
    PostResult::Status { status, message: message.to_owned() }
}

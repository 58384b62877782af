//! The AWS configuration that every client is built from.

use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::tls::{AMAZON_ROOTS, trusts_amazon_only};

/// Returns a loader that finds region, credentials and endpoint as the AWS SDKs do (`AWS_REGION`,
/// `AWS_ENDPOINT_URL`, …). All service clients share one HTTP client: hyper 1 and rustls with aws-lc.
///
/// The behaviour version is pinned, so an SDK update does not change defaults.
#[must_use]
pub fn loader() -> ConfigLoader {
    let mut tls = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
    if trusts_amazon_only() {
        let trusted = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
        // A context without additional server names always builds.
        let context = TlsContext::builder().with_trust_store(trusted).build().unwrap_or_default();
        tls = tls.tls_context(context);
    }
    let http = tls.build_https();
    aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http)
}

/// Loads the configuration of [`loader`].
pub async fn load() -> SdkConfig {
    loader().load().await
}

/// Returns the cause of a failed call in one line: the service's error code and message, or why there was no response.
#[must_use]
pub fn cause<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    if let Some(code) = error.as_service_error().and_then(ProvideErrorMetadata::code) {
        let message = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
        return format!("{code}: {message}");
    }
    match error {
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "no connection in time".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_io() => format!("no connection: {}", root(error)),
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        _ => chain(error),
    }
}

/// Returns the innermost source of an error.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    error.source().map_or(error, root)
}

/// Returns an error and its sources in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

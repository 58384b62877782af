//! Credentials: when the signer requests, renews and drops them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use bytes::Bytes;
use futures::future::join_all;
use streamer_gateway::sign::Signer;

/// Provides credentials that are valid for an hour. The calls in `failing` fail.
#[derive(Debug, Clone, Default)]
struct Provider {
    calls: Arc<AtomicUsize>,
    failing: std::ops::Range<usize>,
    now: Arc<std::sync::Mutex<u64>>,
}

impl Provider {
    fn signer(&self) -> Signer {
        Signer::new(SharedCredentialsProvider::new(self.clone()), "eu-central-1", "a.example.com")
    }

    async fn sign(&self, signer: &Signer, at: u64) -> Result<String, String> {
        *self.now.lock().unwrap() = at;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        let signature = signer.sign("/%40connections/c", &Bytes::from_static(b"1"), now).await?;
        Ok(String::from_utf8(signature.authorization).unwrap())
    }
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            let expiry = *self.now.lock().unwrap() + 3600;
            tokio::task::yield_now().await;
            if self.failing.contains(&call) {
                return Err(CredentialsError::provider_error("scripted"));
            }
            let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(expiry);
            Ok(Credentials::new(format!("AKID{call}"), "s3cret", None, Some(expiry), "test"))
        })
    }
}

const MIDNIGHT: u64 = 20_000 * 86_400;

#[tokio::test]
async fn are_renewed_five_minutes_before_expiry() {
    let provider = Provider::default();
    let signer = provider.signer();
    for (second, key) in [(0, "AKID0/"), (3299, "AKID0/"), (3300, "AKID1/"), (3301, "AKID1/")] {
        let authorization = provider.sign(&signer, MIDNIGHT + second).await.unwrap();
        assert!(authorization.contains(key), "{second}: {authorization}");
    }
    assert_eq!(provider.calls.load(Ordering::Relaxed), 2);
}

/// The other posts wait for the first credentials, and use the old ones during a renewal.
#[tokio::test]
async fn concurrent_posts_request_them_once() {
    let provider = Provider::default();
    let signer = provider.signer();
    for (second, calls) in [(0, 1), (3400, 2)] {
        let posts = (0..100).map(|_| provider.sign(&signer, MIDNIGHT + second));
        assert!(join_all(posts).await.iter().all(Result::is_ok));
        assert_eq!(provider.calls.load(Ordering::Relaxed), calls);
    }
}

#[tokio::test]
async fn survive_a_failed_renewal_until_expiry() {
    let provider = Provider { failing: 1..usize::MAX, ..Provider::default() };
    let signer = provider.signer();
    assert!(provider.sign(&signer, MIDNIGHT).await.is_ok());
    assert!(provider.sign(&signer, MIDNIGHT + 3599).await.unwrap().contains("AKID0/"));
    let error = provider.sign(&signer, MIDNIGHT + 3600).await.unwrap_err();
    assert!(error.starts_with("no credentials: "), "{error}");
}

#[tokio::test]
async fn signing_key_changes_every_day() {
    let provider = Provider::default();
    let signer = provider.signer();
    let before = provider.sign(&signer, MIDNIGHT - 1).await.unwrap();
    let after = provider.sign(&signer, MIDNIGHT).await.unwrap();
    assert!(before.contains("/20241003/") && after.contains("/20241004/"), "{before} {after}");
    assert_eq!(provider.sign(&provider.signer(), MIDNIGHT).await.unwrap().replace("AKID1", "AKID0"), after);
}

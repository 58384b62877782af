//! An issuer's keys, fetched on demand and cached for the life of the execution environment.
//!
//! - When the cached set is 1 h old, it is fetched again while requests continue with the cached set.
//! - When it is 2 h old, since requests were too few and too short to complete that fetch, requests wait for the fetch.
//! - A token with an unknown `kid` starts a fetch at most once a minute. All requests that need it share it.
//! - Without a cached set, a fetch starts at most once a second.
//! - If a fetch fails, the cached set stays.
//!
//! Nothing runs between invocations: requests that wait for a fetch drive it, and so does the handler during its other
//! calls. A fetch that was suspended with its environment is dropped and restarted. Ages are measured with the wall
//! clock, which continues while an environment is frozen.

use std::{
    future::{Future, pending},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use futures::{FutureExt as _, future::Shared};
use jsonwebtoken::Algorithm;
use tokio::time::timeout;

use crate::keys::{KeyError, KeySet, PublicKey};

/// Age of the cached set at which it is fetched again, while requests continue with it.
const REFRESH_AGE: Duration = Duration::from_secs(60 * 60);

/// Age of the cached set at which requests wait for a new one.
const MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// Minimum time between the starts of two fetches.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum time between the starts of two fetches without a cached set, when no client can connect.
const MIN_INTERVAL_WITHOUT_KEYS: Duration = Duration::from_secs(1);

/// Maximum time of a fetch, including discovery.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// Fetches a JWK set.
pub trait Fetch: Send + Sync + 'static {
    /// Fetches the set. The error is the cause, for the log.
    fn fetch(&self) -> impl Future<Output = Result<KeySet, String>> + Send;
}

/// The reason why no key is available for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwksError {
    /// The set has no key for the token.
    Key(KeyError),
    /// The last fetch failed, and the cached set, if any, does not have the token's key.
    Unavailable,
}

/// An issuer's keys.
pub struct Jwks<F>(Arc<Inner<F>>);

struct Inner<F> {
    fetch: F,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    fetched_at: Option<SystemTime>,
    /// The start of the last fetch.
    started_at: Option<SystemTime>,
    /// Whether the last fetch failed.
    failed: bool,
    in_progress: Option<SharedFetch>,
}

type SharedFetch = Shared<Pin<Box<dyn Future<Output = ()> + Send>>>;

impl<F: Fetch> Jwks<F> {
    /// Creates an empty cache that `fetch` fills.
    #[must_use]
    pub fn new(fetch: F) -> Self {
        Self(Arc::new(Inner { fetch, state: Mutex::default() }))
    }

    /// Returns the keys that may verify a token with this `kid` and algorithm. Fetches the set if necessary.
    ///
    /// # Errors
    /// [`JwksError`] if there is no such key.
    pub async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: SystemTime,
    ) -> Result<Vec<Arc<PublicKey>>, JwksError> {
        let fetch = {
            let mut state = self.0.locked();
            state.drop_suspended(now);
            match state.find(kid, algorithm) {
                Err(JwksError::Key(KeyError::Unknown) | JwksError::Unavailable) => {
                    self.start(&mut state, now)
                }
                found => {
                    let fetch = has_passed(state.fetched_at, REFRESH_AGE, now)
                        .then(|| self.start(&mut state, now))
                        .flatten();
                    if !has_passed(state.fetched_at, MAX_AGE, now) {
                        return found;
                    }
                    fetch
                }
            }
        };
        if let Some(fetch) = fetch {
            fetch.await;
        }
        self.0.locked().find(kid, algorithm)
    }

    /// Drives the fetch in progress, if any. It never completes: callers run it beside another future.
    pub async fn drive(&self, now: SystemTime) {
        let fetch = {
            let mut state = self.0.locked();
            state.drop_suspended(now);
            state.in_progress.clone()
        };
        if let Some(fetch) = fetch {
            fetch.await;
        }
        pending().await
    }

    /// Returns the fetch in progress, or starts one if the minimum interval has passed.
    fn start(&self, state: &mut State, now: SystemTime) -> Option<SharedFetch> {
        let interval = if state.keys.is_some() { MIN_INTERVAL } else { MIN_INTERVAL_WITHOUT_KEYS };
        if state.in_progress.is_none() && has_passed(state.started_at, interval, now) {
            state.started_at = Some(now);
            let fetch: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(Inner::run(Arc::downgrade(&self.0), now));
            state.in_progress = Some(fetch.shared());
        }
        state.in_progress.clone()
    }
}

/// Returns whether `time` has passed since `since`, or `since` is `None`. Also returns `true` if `now` is more than
/// [`MIN_INTERVAL`] before `since`: the clock was set back. The times of concurrent requests differ by less.
fn has_passed(since: Option<SystemTime>, time: Duration, now: SystemTime) -> bool {
    let Some(since) = since else { return true };
    match now.duration_since(since) {
        Ok(passed) => passed >= time,
        Err(before) => before.duration() > MIN_INTERVAL,
    }
}

impl<F: Fetch> Inner<F> {
    async fn run(inner: Weak<Self>, now: SystemTime) {
        let Some(inner) = inner.upgrade() else { return };
        let fetch = AssertUnwindSafe(timeout(FETCH_TIMEOUT, inner.fetch.fetch())).catch_unwind();
        let fetched = match fetch.await {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(_)) => Err(format!("no response within {} s", FETCH_TIMEOUT.as_secs())),
            Err(_) => Err("the fetch panicked".to_owned()),
        };
        let mut state = inner.locked();
        state.failed = fetched.is_err();
        match fetched {
            Ok(keys) => (state.keys, state.fetched_at) = (Some(Arc::new(keys)), Some(now)),
            Err(cause) => {
                tracing::error!(cause, kept = state.keys.is_some(), "failed to fetch the issuer's keys")
            }
        }
        let completed = state.in_progress.take();
        drop(state);
        drop(completed);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops a fetch that is still in progress after 1.5 times the timeout: it was suspended with its environment, and
    /// its connection is lost.
    fn drop_suspended(&mut self, now: SystemTime) {
        if self.in_progress.is_some() && has_passed(self.started_at, FETCH_TIMEOUT + FETCH_TIMEOUT / 2, now) {
            (self.in_progress, self.started_at) = (None, None);
        }
    }

    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Vec<Arc<PublicKey>>, JwksError> {
        let keys = self.keys.as_ref().ok_or(JwksError::Unavailable)?;
        keys.find(kid, algorithm).map_err(|error| match error {
            KeyError::Unknown if self.failed => JwksError::Unavailable,
            error => JwksError::Key(error),
        })
    }
}

impl<F> std::fmt::Debug for Jwks<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Jwks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::{join, join_all};
    use serde_json::json;
    use tokio::time::{Instant, advance, sleep};

    use super::*;

    /// A script of fetches: a function that returns the duration and the result of the n-th fetch, and their count.
    struct Script<S>(S, AtomicUsize);

    impl<S> Fetch for Script<S>
    where
        S: Fn(usize) -> (Duration, Result<KeySet, String>) + Send + Sync + 'static,
    {
        async fn fetch(&self) -> Result<KeySet, String> {
            let (time, keys) = self.0(self.1.fetch_add(1, Ordering::Relaxed));
            sleep(time).await;
            keys
        }
    }

    const FETCH_TIME: Duration = Duration::from_millis(100);

    fn keys(kid: &str) -> Result<KeySet, String> {
        let x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
        let y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
        let key = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid});
        KeySet::from_json(json!({ "keys": [key] }).to_string().as_bytes()).map_err(|error| error.to_string())
    }

    /// Returns the wall-clock time, which advances with tokio's clock.
    fn now() -> SystemTime {
        thread_local! {
            static STARTED: (Instant, SystemTime) = (Instant::now(), SystemTime::UNIX_EPOCH + MAX_AGE * 1000);
        }
        STARTED.with(|(instant, wall)| *wall + instant.elapsed())
    }

    fn failed() -> Result<KeySet, String> {
        Err("scripted".to_owned())
    }

    fn jwks<S>(script: S) -> Jwks<Script<S>>
    where
        S: Fn(usize) -> (Duration, Result<KeySet, String>) + Send + Sync + 'static,
    {
        Jwks::new(Script(script, AtomicUsize::new(0)))
    }

    impl<S> Jwks<Script<S>>
    where
        S: Fn(usize) -> (Duration, Result<KeySet, String>) + Send + Sync + 'static,
    {
        async fn has(&self, kid: &str) -> Result<(), JwksError> {
            self.has_at(kid, now()).await
        }

        async fn has_at(&self, kid: &str, now: SystemTime) -> Result<(), JwksError> {
            self.find(Some(kid), Algorithm::ES256, now).await.map(drop)
        }

        fn fetches(&self) -> usize {
            self.0.fetch.1.load(Ordering::Relaxed)
        }
    }

    const UNKNOWN: Result<(), JwksError> = Err(JwksError::Key(KeyError::Unknown));

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_share_one_fetch() {
        let jwks = jwks(|_| (FETCH_TIME, keys("a")));
        let started = Instant::now();
        let found = join_all((0..50).map(|_| jwks.has("a"))).await;
        assert!(found.iter().all(Result::is_ok));
        assert_eq!((jwks.fetches(), started.elapsed()), (1, FETCH_TIME));
        assert_eq!(jwks.has("a").await, Ok(()));
        assert_eq!(jwks.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_request_does_not_stop_fetch() {
        let jwks = jwks(|_| (FETCH_TIME, keys("a")));
        let (cancelled, found) = join(timeout(FETCH_TIME / 2, jwks.has("a")), jwks.has("a")).await;
        assert!(cancelled.is_err() && found.is_ok());
        assert_eq!(jwks.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_kid_fetches_once_a_minute() {
        let jwks = jwks(|fetch| (FETCH_TIME, keys(if fetch < 2 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        for _ in 0..10 {
            assert_eq!(jwks.has("b").await, UNKNOWN);
        }
        assert_eq!(jwks.fetches(), 1);
        advance(MIN_INTERVAL).await;
        assert_eq!(join_all((0..10).map(|_| jwks.has("b"))).await, [UNKNOWN; 10]);
        assert_eq!(jwks.fetches(), 2);
        advance(MIN_INTERVAL).await;
        // A key that is no longer in the set is unknown.
        assert_eq!((jwks.has("b").await, jwks.has("a").await, jwks.fetches()), (Ok(()), UNKNOWN, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_kid_does_not_delay_known_kid() {
        let jwks =
            jwks(|fetch| if fetch == 0 { (FETCH_TIME, keys("a")) } else { (FETCH_TIMEOUT, keys("a")) });
        assert_eq!(jwks.has("a").await, Ok(()));
        advance(MIN_INTERVAL).await;
        let known = async {
            let started = Instant::now();
            assert_eq!(jwks.has("a").await, Ok(()));
            assert_eq!(started.elapsed(), Duration::ZERO);
        };
        assert_eq!(join(jwks.has("b"), known).await.0, UNKNOWN);
    }

    #[tokio::test(start_paused = true)]
    async fn set_refreshes_in_background_after_hour() {
        let jwks = jwks(|fetch| (FETCH_TIME, keys(if fetch == 0 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        advance(REFRESH_AGE).await;
        let started = Instant::now();
        assert_eq!(jwks.has("a").await, Ok(()));
        assert_eq!((started.elapsed(), jwks.fetches()), (Duration::ZERO, 1));
        // The fetch advances only while requests drive it.
        for _ in 0..3 {
            _ = timeout(FETCH_TIME / 2, jwks.drive(now())).await;
        }
        assert_eq!((jwks.has("b").await, jwks.fetches()), (Ok(()), 2));
    }

    /// A fetch fails by an error, by its timeout and by a panic.
    #[tokio::test(start_paused = true)]
    async fn failed_fetch_keeps_cached_set() {
        let jwks = jwks(|fetch| match fetch {
            0 => (FETCH_TIME, keys("a")),
            1 => (FETCH_TIME, failed()),
            2 => (Duration::from_secs(3600), keys("b")),
            3 => panic!("scripted"),
            _ => (FETCH_TIME, keys("b")),
        });
        assert_eq!(jwks.has("a").await, Ok(()));
        for fetches in [2, 3, 4] {
            advance(MIN_INTERVAL).await;
            let started = Instant::now();
            assert_eq!(jwks.has("b").await, Err(JwksError::Unavailable));
            assert!(started.elapsed() <= FETCH_TIMEOUT);
            assert_eq!((jwks.has("a").await, jwks.fetches()), (Ok(()), fetches));
        }
        advance(MIN_INTERVAL).await;
        assert_eq!(jwks.has("b").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_keys_fetch_repeats_after_second() {
        let jwks = jwks(|fetch| (FETCH_TIME, if fetch < 2 { failed() } else { keys("a") }));
        for _ in 0..3 {
            assert_eq!(jwks.has("a").await, Err(JwksError::Unavailable));
        }
        assert_eq!(jwks.fetches(), 1);
        advance(MIN_INTERVAL_WITHOUT_KEYS).await;
        assert_eq!(jwks.has("a").await, Err(JwksError::Unavailable));
        advance(MIN_INTERVAL_WITHOUT_KEYS).await;
        assert_eq!((jwks.has("a").await, jwks.fetches()), (Ok(()), 3));
    }

    /// The environment freezes during a fetch. The next request starts another one, and no token is refused.
    #[tokio::test(start_paused = true)]
    async fn suspended_fetch_is_restarted() {
        let jwks = jwks(|fetch| (FETCH_TIME, keys(if fetch == 0 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        advance(REFRESH_AGE).await;
        assert_eq!(jwks.has("a").await, Ok(()));
        _ = timeout(FETCH_TIME / 2, jwks.drive(now())).await;
        assert_eq!(jwks.fetches(), 2);
        // While the environment is frozen, only the wall clock advances.
        let later = now() + Duration::from_secs(600);
        assert_eq!(jwks.has_at("b", later).await, Ok(()));
        assert_eq!(jwks.fetches(), 3);
    }

    /// The requests are too short to complete the background refresh.
    #[tokio::test(start_paused = true)]
    async fn requests_wait_after_two_hours() {
        let jwks = jwks(|fetch| (FETCH_TIME, keys(if fetch == 0 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        let mut delayed = 0;
        for _ in 0..30 {
            advance(Duration::from_secs(300)).await;
            let started = Instant::now();
            delayed += usize::from(jwks.has("a").await.is_err());
            assert!(started.elapsed() <= FETCH_TIME);
            _ = timeout(FETCH_TIME / 10, jwks.drive(now())).await;
        }
        assert!(delayed > 0 && jwks.has("b").await == Ok(()), "the revoked key is still accepted");
    }

    #[tokio::test(start_paused = true)]
    async fn clock_set_back_triggers_refresh() {
        let jwks = jwks(|fetch| (FETCH_TIME, keys(if fetch == 0 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        assert_eq!(jwks.has_at("b", now() - MAX_AGE).await, Ok(()));
    }
}

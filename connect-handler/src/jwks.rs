//! The keys of an issuer, fetched when they are needed and kept.
//!
//! A set lives as long as the execution environment. After an hour it is fetched anew, beside the requests and not
//! before them; a token with an unknown `kid` fetches it at most once a minute, for all who wait with one fetch. When
//! a fetch fails, what is there stays.
//!
//! Nothing runs between invocations: a fetch is driven by those who wait for it, and by the handler while it does
//! something else.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::{FutureExt as _, future::Shared};
use jsonwebtoken::Algorithm;
use tokio::time::{Instant, timeout};

use crate::keys::{KeySet, NoKey, PublicKey};

/// After this time a set is fetched anew.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// Between two fetches, at least.
const BETWEEN: Duration = Duration::from_secs(60);

/// Between two fetches while there is no set at all: nobody can connect.
const BETWEEN_WITHOUT: Duration = Duration::from_secs(1);

/// How long a fetch may take, discovery and all.
const FETCH: Duration = Duration::from_secs(2);

/// What fetches a set.
pub trait Fetch: Send + Sync + 'static {
    /// Fetches the set. The error says what went wrong, for the log.
    fn fetch(&self) -> impl Future<Output = Result<KeySet, String>> + Send;
}

/// Why a token cannot be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoVerdict {
    /// The set has no key for it.
    Key(NoKey),
    /// The set could not be fetched, and what is there has no key for it.
    Unavailable,
}

/// The keys of an issuer.
pub struct Jwks<F>(Arc<Inner<F>>);

struct Inner<F> {
    fetch: F,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    fetched_at: Option<Instant>,
    /// When the last fetch began.
    began_at: Option<Instant>,
    /// Whether the last fetch failed.
    failed: bool,
    under_way: Option<UnderWay>,
}

type UnderWay = Shared<Pin<Box<dyn Future<Output = ()> + Send>>>;

impl<F: Fetch> Jwks<F> {
    /// Keys that `fetch` fetches; none yet.
    #[must_use]
    pub fn new(fetch: F) -> Self {
        Self(Arc::new(Inner { fetch, state: Mutex::default() }))
    }

    /// The key for a token that names this `kid`.
    ///
    /// # Errors
    /// [`NoVerdict`].
    pub async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<PublicKey>, NoVerdict> {
        let fetch = {
            let mut state = self.0.locked();
            match state.find(kid, algorithm) {
                Err(NoVerdict::Key(NoKey::Unknown) | NoVerdict::Unavailable) => {}
                found => {
                    if state.fetched_at.is_none_or(|at| at.elapsed() >= FRESH) {
                        self.begin(&mut state);
                    }
                    return found;
                }
            }
            self.begin(&mut state)
        };
        if let Some(fetch) = fetch {
            fetch.await;
        }
        self.0.locked().find(kid, algorithm)
    }

    /// Drives the fetch that is under way, if there is one. It never ends: something else runs beside it.
    pub async fn drive(&self) {
        let under_way = self.0.locked().under_way.clone();
        if let Some(under_way) = under_way {
            under_way.await;
        }
        pending().await
    }

    /// The fetch that is under way, or a new one if it is time for one.
    fn begin(&self, state: &mut State) -> Option<UnderWay> {
        let between = if state.keys.is_some() { BETWEEN } else { BETWEEN_WITHOUT };
        if state.under_way.is_none() && state.began_at.is_none_or(|at| at.elapsed() >= between) {
            state.began_at = Some(Instant::now());
            let inner = Arc::downgrade(&self.0);
            let fetch: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(Inner::run(inner));
            state.under_way = Some(fetch.shared());
        }
        state.under_way.clone()
    }
}

impl<F: Fetch> Inner<F> {
    async fn run(inner: Weak<Self>) {
        let Some(inner) = inner.upgrade() else { return };
        let fetched = match timeout(FETCH, inner.fetch.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no answer within {} s", FETCH.as_secs())),
        };
        let mut state = inner.locked();
        state.failed = fetched.is_err();
        match fetched {
            Ok(keys) => (state.keys, state.fetched_at) = (Some(Arc::new(keys)), Some(Instant::now())),
            Err(cause) => {
                tracing::error!(cause, kept = state.keys.is_some(), "the keys could not be fetched")
            }
        }
        let ended = state.under_way.take();
        drop(state);
        drop(ended);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<PublicKey>, NoVerdict> {
        let keys = self.keys.as_ref().ok_or(NoVerdict::Unavailable)?;
        keys.find(kid, algorithm).map_err(|error| match error {
            NoKey::Unknown if self.failed => NoVerdict::Unavailable,
            error => NoVerdict::Key(error),
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
    use tokio::time::{advance, sleep};

    use super::*;

    /// What the n-th fetch brings, and how long it takes.
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

    const TIME: Duration = Duration::from_millis(100);

    fn keys(kid: &str) -> Result<KeySet, String> {
        let x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
        let y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
        let key = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid});
        KeySet::from_json(json!({ "keys": [key] }).to_string().as_bytes()).map_err(|error| error.to_string())
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
        async fn has(&self, kid: &str) -> Result<(), NoVerdict> {
            self.find(Some(kid), Algorithm::ES256).await.map(drop)
        }

        fn fetches(&self) -> usize {
            self.0.fetch.1.load(Ordering::Relaxed)
        }
    }

    const UNKNOWN: Result<(), NoVerdict> = Err(NoVerdict::Key(NoKey::Unknown));

    #[tokio::test(start_paused = true)]
    async fn one_fetch_is_for_all_who_wait() {
        let jwks = jwks(|_| (TIME, keys("a")));
        let started = Instant::now();
        let found = join_all((0..50).map(|_| jwks.has("a"))).await;
        assert!(found.iter().all(Result::is_ok));
        assert_eq!((jwks.fetches(), started.elapsed()), (1, TIME));
        // One of them has stopped waiting: the others have not.
        assert_eq!(jwks.has("a").await, Ok(()));
        assert_eq!(jwks.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_does_not_stop_the_fetch() {
        let jwks = jwks(|_| (TIME, keys("a")));
        let (gave_up, found) = join(timeout(TIME / 2, jwks.has("a")), jwks.has("a")).await;
        assert!(gave_up.is_err() && found.is_ok());
        assert_eq!(jwks.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_kid_fetches_at_most_once_a_minute() {
        let jwks = jwks(|fetch| (TIME, keys(if fetch < 2 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        for _ in 0..10 {
            assert_eq!(jwks.has("b").await, UNKNOWN);
        }
        assert_eq!(jwks.fetches(), 1);
        advance(BETWEEN).await;
        assert_eq!(join_all((0..10).map(|_| jwks.has("b"))).await, [UNKNOWN; 10]);
        assert_eq!(jwks.fetches(), 2);
        advance(BETWEEN).await;
        // The key that is no longer in the set is no longer known.
        assert_eq!((jwks.has("b").await, jwks.has("a").await, jwks.fetches()), (Ok(()), UNKNOWN, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_kid_delays_nobody_else() {
        let jwks = jwks(|fetch| if fetch == 0 { (TIME, keys("a")) } else { (FETCH, keys("a")) });
        assert_eq!(jwks.has("a").await, Ok(()));
        advance(BETWEEN).await;
        let known = async {
            let started = Instant::now();
            assert_eq!(jwks.has("a").await, Ok(()));
            assert_eq!(started.elapsed(), Duration::ZERO);
        };
        assert_eq!(join(jwks.has("b"), known).await.0, UNKNOWN);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_hour_it_is_fetched_anew_beside_the_requests() {
        let jwks = jwks(|fetch| (TIME, keys(if fetch == 0 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        advance(FRESH).await;
        let started = Instant::now();
        assert_eq!(jwks.has("a").await, Ok(()));
        assert_eq!((started.elapsed(), jwks.fetches()), (Duration::ZERO, 1));
        // It goes on in the time of others, and is suspended between them.
        for _ in 0..3 {
            _ = timeout(TIME / 2, jwks.drive()).await;
        }
        assert_eq!((jwks.has("b").await, jwks.fetches()), (Ok(()), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_stays_when_a_fetch_fails_hangs_or_lies() {
        let jwks = jwks(|fetch| match fetch {
            0 => (TIME, keys("a")),
            1 => (TIME, failed()),
            2 => (Duration::from_secs(3600), keys("b")),
            _ => (TIME, keys("b")),
        });
        assert_eq!(jwks.has("a").await, Ok(()));
        for fetches in [2, 3] {
            advance(BETWEEN).await;
            let started = Instant::now();
            assert_eq!(jwks.has("b").await, Err(NoVerdict::Unavailable));
            assert!(started.elapsed() <= FETCH);
            assert_eq!((jwks.has("a").await, jwks.fetches()), (Ok(()), fetches));
        }
        advance(BETWEEN).await;
        assert_eq!(jwks.has("b").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_keys_it_is_tried_again_after_a_second() {
        let jwks = jwks(|fetch| (TIME, if fetch < 2 { failed() } else { keys("a") }));
        for _ in 0..3 {
            assert_eq!(jwks.has("a").await, Err(NoVerdict::Unavailable));
        }
        assert_eq!(jwks.fetches(), 1);
        advance(BETWEEN_WITHOUT).await;
        assert_eq!(jwks.has("a").await, Err(NoVerdict::Unavailable));
        advance(BETWEEN_WITHOUT).await;
        assert_eq!((jwks.has("a").await, jwks.fetches()), (Ok(()), 3));
    }
}

//! The keys of an issuer, fetched when they are needed and kept.
//!
//! A set lives as long as the execution environment. After an hour it is fetched anew, beside the requests and not
//! before them; after two hours, where requests were too few and too short for that, before one. A token with an
//! unknown `kid` fetches it at most once a minute, for all who wait with one fetch. When a fetch fails, what is there
//! stays.
//!
//! Nothing runs between invocations: a fetch is driven by those who wait for it, and by the handler while it does
//! something else. One that was suspended with its environment is given up and begun anew. The time is told by the
//! wall clock, which goes on while an environment is frozen.

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

use crate::keys::{KeySet, NoKey, PublicKey};

/// After this time a set is fetched anew.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// After this time a request waits for it.
const OLD: Duration = Duration::from_secs(2 * 60 * 60);

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
    fetched_at: Option<SystemTime>,
    /// When the last fetch began.
    began_at: Option<SystemTime>,
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

    /// The keys that a token may be signed with that names this `kid`.
    ///
    /// # Errors
    /// [`NoVerdict`].
    pub async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: SystemTime,
    ) -> Result<Vec<Arc<PublicKey>>, NoVerdict> {
        let fetch = {
            let mut state = self.0.locked();
            state.give_up_suspended(now);
            match state.find(kid, algorithm) {
                Err(NoVerdict::Key(NoKey::Unknown) | NoVerdict::Unavailable) => self.begin(&mut state, now),
                found => {
                    let fetch = has_passed(state.fetched_at, FRESH, now)
                        .then(|| self.begin(&mut state, now))
                        .flatten();
                    if !has_passed(state.fetched_at, OLD, now) {
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

    /// Drives the fetch that is under way, if there is one. It never ends: something else runs beside it.
    pub async fn drive(&self, now: SystemTime) {
        let under_way = {
            let mut state = self.0.locked();
            state.give_up_suspended(now);
            state.under_way.clone()
        };
        if let Some(under_way) = under_way {
            under_way.await;
        }
        pending().await
    }

    /// The fetch that is under way, or a new one if it is time for one.
    fn begin(&self, state: &mut State, now: SystemTime) -> Option<UnderWay> {
        let between = if state.keys.is_some() { BETWEEN } else { BETWEEN_WITHOUT };
        if state.under_way.is_none() && has_passed(state.began_at, between, now) {
            state.began_at = Some(now);
            let fetch: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(Inner::run(Arc::downgrade(&self.0), now));
            state.under_way = Some(fetch.shared());
        }
        state.under_way.clone()
    }
}

/// Whether so much time has passed since something happened, if it ever did. A clock that was set back by more than
/// requests lie apart says so, too.
fn has_passed(since: Option<SystemTime>, time: Duration, now: SystemTime) -> bool {
    let Some(since) = since else { return true };
    match now.duration_since(since) {
        Ok(passed) => passed >= time,
        Err(before) => before.duration() > BETWEEN,
    }
}

impl<F: Fetch> Inner<F> {
    async fn run(inner: Weak<Self>, now: SystemTime) {
        let Some(inner) = inner.upgrade() else { return };
        let fetch = AssertUnwindSafe(timeout(FETCH, inner.fetch.fetch())).catch_unwind();
        let fetched = match fetch.await {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(_)) => Err(format!("no answer within {} s", FETCH.as_secs())),
            Err(_) => Err("the fetch panicked".to_owned()),
        };
        let mut state = inner.locked();
        state.failed = fetched.is_err();
        match fetched {
            Ok(keys) => (state.keys, state.fetched_at) = (Some(Arc::new(keys)), Some(now)),
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
    /// A fetch that is under way for longer than one may take was suspended, and its connection with it.
    fn give_up_suspended(&mut self, now: SystemTime) {
        if self.under_way.is_some() && has_passed(self.began_at, FETCH + FETCH / 2, now) {
            (self.under_way, self.began_at) = (None, None);
        }
    }

    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Vec<Arc<PublicKey>>, NoVerdict> {
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
    use tokio::time::{Instant, advance, sleep};

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

    /// The wall clock, which goes on with tokio's.
    fn now() -> SystemTime {
        thread_local! {
            static STARTED: (Instant, SystemTime) = (Instant::now(), SystemTime::UNIX_EPOCH + OLD * 1000);
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
        async fn has(&self, kid: &str) -> Result<(), NoVerdict> {
            self.has_at(kid, now()).await
        }

        async fn has_at(&self, kid: &str, now: SystemTime) -> Result<(), NoVerdict> {
            self.find(Some(kid), Algorithm::ES256, now).await.map(drop)
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
            _ = timeout(TIME / 2, jwks.drive(now())).await;
        }
        assert_eq!((jwks.has("b").await, jwks.fetches()), (Ok(()), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_stays_when_a_fetch_fails_hangs_or_panics() {
        let jwks = jwks(|fetch| match fetch {
            0 => (TIME, keys("a")),
            1 => (TIME, failed()),
            2 => (Duration::from_secs(3600), keys("b")),
            3 => panic!("scripted"),
            _ => (TIME, keys("b")),
        });
        assert_eq!(jwks.has("a").await, Ok(()));
        for fetches in [2, 3, 4] {
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

    /// The environment is frozen in the middle of a fetch: afterwards it is begun anew, and is nobody's fault.
    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_was_suspended_is_begun_anew() {
        let jwks = jwks(|fetch| (TIME, keys(if fetch == 0 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        advance(FRESH).await;
        assert_eq!(jwks.has("a").await, Ok(()));
        _ = timeout(TIME / 2, jwks.drive(now())).await;
        assert_eq!(jwks.fetches(), 2);
        // The wall clock has gone on and tokio's has not, and then both.
        let later = now() + Duration::from_secs(600);
        assert_eq!(jwks.has_at("b", later).await, Ok(()));
        assert_eq!(jwks.fetches(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn where_requests_are_too_short_one_waits_after_two_hours() {
        let jwks = jwks(|fetch| (TIME, keys(if fetch == 0 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        let mut delayed = 0;
        for _ in 0..30 {
            advance(Duration::from_secs(300)).await;
            let started = Instant::now();
            delayed += usize::from(jwks.has("a").await.is_err());
            assert!(started.elapsed() <= TIME);
            _ = timeout(TIME / 10, jwks.drive(now())).await;
        }
        assert!(delayed > 0 && jwks.has("b").await == Ok(()), "the key that was taken back goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_keeps_nothing_for_ever() {
        let jwks = jwks(|fetch| (TIME, keys(if fetch == 0 { "a" } else { "b" })));
        assert_eq!(jwks.has("a").await, Ok(()));
        assert_eq!(jwks.has_at("b", now() - OLD).await, Ok(()));
    }
}

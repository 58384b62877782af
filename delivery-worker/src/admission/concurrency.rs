//! Concurrency limit: how many posts may be in flight at once (additive increase, multiplicative decrease).
//!
//! [`Settings`] holds the thresholds; the numbers below are its defaults. An execution environment starts with 128
//! posts ([`initial`](Settings::initial)).
//!
//! # Increases when
//!
//! A post succeeds while at least half of the limit is in use. Each such post adds `1 / limit`, so the limit grows by
//! one for each full round of posts, up to 256 ([`max`](Settings::max)). A limit that is less than half used has not
//! been tested, so it does not grow.
//!
//! # Decreases when
//!
//! API Gateway's 429 has two meanings: the account's request quota is used up, or *this client's* buffer is full. One
//! slow client must not slow the others. So a 429 halves the limit, down to 4 ([`min`](Settings::min)), only when all
//! of these hold:
//!
//! - at least 3 connections were throttled within 1 s
//!   ([`min_throttled_connections`](Settings::min_throttled_connections));
//! - at least 20 % of the last second's posts were throttled
//!   ([`min_throttled_percent`](Settings::min_throttled_percent));
//! - the limit was not halved within the last second.
//!
//! # Never changes when
//!
//! A post fails without a 429. It only counts as one of the last second's posts.
//!
//! The limit has no clock and does no I/O: callers pass the time.

use std::{collections::VecDeque, time::Duration};

use streamer_message::ConnectionId;
use tokio::time::Instant;

use super::window::Window;

/// The time over which posts and throttled connections are counted, and the least time between two decreases.
const SECOND: Duration = Duration::from_secs(1);

/// Buckets of the window that counts the last second's posts.
const BUCKETS: u32 = 10;

/// Thresholds of a [`ConcurrencyLimit`].
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The limit of a new execution environment, in posts. Default: 128.
    pub initial: usize,

    // Increases when
    /// Maximum limit, in posts. Default: 256.
    pub max: usize,

    // Decreases when
    /// Minimum limit, in posts. Default: 4.
    pub min: usize,
    /// Minimum number of connections throttled within 1 s. 429s from fewer are about those clients. Default: 3.
    pub min_throttled_connections: usize,
    /// Minimum percentage of the last second's posts that were throttled. Below it, 429s are about clients as well.
    /// Default: 20.
    pub min_throttled_percent: u32,
}

impl Settings {
    /// The documented defaults.
    pub const DEFAULT: Self =
        Self { initial: 128, max: 256, min: 4, min_throttled_connections: 3, min_throttled_percent: 20 };
}

/// A limit on posts in flight.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    settings: Settings,
    limit: f64,
    halved_at: Option<Instant>,
    /// The last second's posts, and the throttled ones among them.
    window: Window,
    /// The connections throttled last, the latest first, at most as many as the decision needs.
    throttled: VecDeque<(ConnectionId, Instant)>,
}

/// The party whose limit caused a 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleScope {
    /// One client, whose buffer is full.
    Client,
    /// The account, whose request quota is used up.
    Account,
}

impl Default for ConcurrencyLimit {
    fn default() -> Self {
        let settings = Settings::DEFAULT;
        Self {
            settings,
            limit: settings.initial as f64,
            halved_at: None,
            window: Window::new(SECOND, SECOND / BUCKETS),
            throttled: VecDeque::new(),
        }
    }
}

impl ConcurrencyLimit {
    /// Returns how many posts may be in flight.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Records a post that succeeded while `in_flight` posts were in flight.
    pub fn record_success(&mut self, in_flight: usize, now: Instant) {
        self.window.record(false, now);
        if in_flight * 2 >= self.limit() {
            self.limit = (self.limit + 1.0 / self.limit).min(self.settings.max as f64);
        }
    }

    /// Records a post that failed without a 429.
    pub fn record_failure(&mut self, now: Instant) {
        self.window.record(false, now);
    }

    /// Records a 429 from `connection`, and returns the party whose limit caused it.
    pub fn record_throttle(&mut self, connection: &ConnectionId, now: Instant) -> ThrottleScope {
        self.window.record(true, now);
        self.throttled.retain(|(known, _)| known != connection);
        self.throttled.push_front((connection.clone(), now));
        self.throttled.truncate(self.settings.min_throttled_connections);
        if !self.is_account_throttled() {
            return ThrottleScope::Client;
        }
        if self.halved_at.is_none_or(|halved_at| now - halved_at >= SECOND) {
            self.limit = (self.limit / 2.0).max(self.settings.min as f64);
            self.halved_at = Some(now);
        }
        ThrottleScope::Account
    }

    fn is_account_throttled(&self) -> bool {
        let Settings { min_throttled_connections, min_throttled_percent, .. } = self.settings;
        let (posts, throttled) = self.window.totals();
        let latest = self.throttled.front().map(|(_, at)| *at);
        let is_recent = |at: Instant| latest.is_some_and(|latest| latest - at < SECOND);
        let connections = self.throttled.iter().filter(|(_, at)| is_recent(*at)).count();
        connections >= min_throttled_connections && throttled * 100 >= posts * min_throttled_percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: usize = Settings::DEFAULT.initial;
    const MAX: usize = Settings::DEFAULT.max;
    const MIN: usize = Settings::DEFAULT.min;

    fn connection(number: usize) -> ConnectionId {
        format!("c{number}").try_into().unwrap()
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn grows_by_one_for_each_full_round() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..129).for_each(|_| limit.record_success(128, now));
        assert_eq!(limit.limit(), 129);
        (0..100_000).for_each(|_| limit.record_success(256, now));
        assert_eq!(limit.limit(), MAX);
    }

    #[test]
    fn does_not_grow_while_half_unused() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..10_000).for_each(|_| limit.record_success(63, now));
        assert_eq!(limit.limit(), INITIAL);
    }

    #[test]
    fn failures_do_not_raise_it() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..10_000).for_each(|_| limit.record_failure(now));
        assert_eq!(limit.limit(), INITIAL);
        let scopes = [0, 1, 2].map(|number| limit.record_throttle(&connection(number), now));
        assert_eq!(scopes, [ThrottleScope::Client; 3], "failures count among the second's posts");
    }

    #[test]
    fn one_or_two_slow_clients_leave_it_unchanged() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        for number in 0..1000 {
            let scope = limit.record_throttle(&connection(number % 2), now + millis(number as u64 * 10));
            assert_eq!((scope, limit.limit()), (ThrottleScope::Client, INITIAL));
        }
    }

    /// 429s that are fewer than a fifth of the posts are about clients, however many connections they come from.
    #[test]
    fn many_slow_clients_leave_it_unchanged() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        for number in 0..1000 {
            let at = now + millis(number as u64);
            (0..5).for_each(|_| limit.record_success(1, at));
            let scope = limit.record_throttle(&connection(number), at);
            assert_eq!(scope, ThrottleScope::Client, "1 post in 6 is throttled");
        }
        assert_eq!(limit.limit(), INITIAL);
    }

    /// The account is throttled when three connections and a fifth of the posts are.
    #[test]
    fn account_throttle_halves_it() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..12).for_each(|_| limit.record_success(1, now));
        let scopes = [0, 1, 2].map(|number| limit.record_throttle(&connection(number), now));
        assert_eq!(scopes, [ThrottleScope::Client, ThrottleScope::Client, ThrottleScope::Account]);
        assert_eq!(limit.limit(), INITIAL / 2);
    }

    #[test]
    fn throttled_connections_count_within_one_second() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        let scopes = [0, 1, 2].map(|number| {
            let at = now + millis(number as u64 * 500);
            limit.record_throttle(&connection(number), at)
        });
        assert_eq!(scopes, [ThrottleScope::Client; 3]);
    }

    #[test]
    fn is_halved_once_a_second_down_to_4() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        let mut limits = Vec::new();
        for tenth in 0..100 {
            for number in 0..3 {
                limit.record_throttle(&connection(number), now + millis(tenth * 100));
            }
            limits.push(limit.limit());
        }
        assert!(limits[..10].iter().all(|limit| *limit == 64), "{limits:?}");
        assert_eq!([limits[10], limits[20], limits[30], limits[99]], [32, 16, 8, MIN]);
    }

    #[test]
    fn posts_older_than_a_second_do_not_count() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..1000).for_each(|_| limit.record_success(1, now));
        for number in 0..3 {
            limit.record_throttle(&connection(number), now + millis(1100));
        }
        assert_eq!(limit.limit(), INITIAL / 2);
    }
}

//! How many posts may be in flight: a limit that grows while posts succeed and is halved when the account is
//! throttled (additive increase, multiplicative decrease).
//!
//! API Gateway's 429 has two meanings: the account's request quota is used up, or *this client's* buffer is full.
//! One slow client must not slow the others, so 429 halves the limit only when it comes from at least 3 connections
//! and makes up a fifth of the last second's posts, and at most once a second.
//!
//! No clock and no I/O: whoever asks says what time it is.

use std::{collections::VecDeque, time::Duration};

use streamer_message::ConnectionId;
use tokio::time::Instant;

use super::window::Window;

/// The limit that an environment begins with.
pub const INITIAL: usize = 128;

/// The limit is at least this.
pub const MIN: usize = 4;

/// And at most this.
pub const MAX: usize = 256;

/// 429 from fewer connections in a second is about those clients.
const CONNECTIONS: usize = 3;

/// 429 for fewer than one in so many of a second's posts is about clients, too.
const SHARE: u32 = 5;

/// What is looked at, and how often the limit is halved at most.
const SECOND: Duration = Duration::from_secs(1);

/// The second is counted in so many parts.
const PARTS: u32 = 10;

/// A limit on posts in flight.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    limit: f64,
    halved_at: Option<Instant>,
    /// The last second's posts, and 429s among them.
    window: Window,
    /// The connections that were answered with 429 last, the latest first: no more than matter.
    throttled: VecDeque<(ConnectionId, Instant)>,
}

/// Whom a 429 is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttled {
    /// One client, whose buffer is full.
    Client,
    /// The account.
    Account,
}

impl Default for ConcurrencyLimit {
    fn default() -> Self {
        let window = Window::new(SECOND, SECOND / PARTS);
        Self { limit: INITIAL as f64, halved_at: None, window, throttled: VecDeque::new() }
    }
}

impl ConcurrencyLimit {
    /// Posts in flight, at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Takes note of a post that succeeded, while `in_flight` were in flight. A limit that is not half used has not
    /// been tried, so it does not grow.
    pub fn succeeded(&mut self, in_flight: usize, now: Instant) {
        self.window.count(false, now);
        if in_flight * 2 >= self.limit() {
            self.limit = (self.limit + 1.0 / self.limit).min(MAX as f64);
        }
    }

    /// Takes note of a post that failed, but not with 429: it says nothing about the limit.
    pub fn failed(&mut self, now: Instant) {
        self.window.count(false, now);
    }

    /// Takes note of a 429, and says whom it is about.
    pub fn throttled(&mut self, connection: &ConnectionId, now: Instant) -> Throttled {
        self.window.count(true, now);
        self.throttled.retain(|(known, _)| known != connection);
        self.throttled.push_front((connection.clone(), now));
        self.throttled.truncate(CONNECTIONS);
        if !self.is_account() {
            return Throttled::Client;
        }
        if self.halved_at.is_none_or(|halved_at| now - halved_at >= SECOND) {
            self.limit = (self.limit / 2.0).max(MIN as f64);
            self.halved_at = Some(now);
        }
        Throttled::Account
    }

    fn is_account(&self) -> bool {
        let (posts, throttled) = self.window.totals();
        let latest = self.throttled.front().map(|(_, at)| *at);
        let recent =
            self.throttled.iter().filter(|(_, at)| latest.is_some_and(|latest| latest - *at < SECOND));
        recent.count() >= CONNECTIONS && throttled * SHARE >= posts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(number: usize) -> ConnectionId {
        format!("c{number}").try_into().unwrap()
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_limit_grows_by_one_for_each_round_of_posts_that_uses_it() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..129).for_each(|_| limit.succeeded(128, now));
        assert_eq!(limit.limit(), 129);
        (0..100_000).for_each(|_| limit.succeeded(256, now));
        assert_eq!(limit.limit(), MAX);
    }

    #[test]
    fn a_limit_that_is_not_half_used_does_not_grow() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..10_000).for_each(|_| limit.succeeded(63, now));
        assert_eq!(limit.limit(), INITIAL);
    }

    #[test]
    fn a_post_that_fails_does_not_raise_it() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..10_000).for_each(|_| limit.failed(now));
        assert_eq!(limit.limit(), INITIAL);
        let about = [0, 1, 2].map(|number| limit.throttled(&connection(number), now));
        assert_eq!(about, [Throttled::Client; 3], "but it counts among the second's posts");
    }

    #[test]
    fn one_or_two_slow_clients_never_change_the_limit() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        for number in 0..1000 {
            let about = limit.throttled(&connection(number % 2), now + millis(number as u64 * 10));
            assert_eq!((about, limit.limit()), (Throttled::Client, INITIAL));
        }
    }

    #[test]
    fn many_slow_clients_among_many_more_posts_do_not_change_it_either() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        for number in 0..1000 {
            let at = now + millis(number as u64);
            (0..5).for_each(|_| limit.succeeded(1, at));
            assert_eq!(limit.throttled(&connection(number), at), Throttled::Client, "1 in 6");
        }
        assert_eq!(limit.limit(), INITIAL);
    }

    #[test]
    fn a_fifth_of_the_posts_and_three_connections_are_the_account() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..12).for_each(|_| limit.succeeded(1, now));
        let about = [0, 1, 2].map(|number| limit.throttled(&connection(number), now));
        assert_eq!(about, [Throttled::Client, Throttled::Client, Throttled::Account]);
        assert_eq!(limit.limit(), INITIAL / 2);
    }

    #[test]
    fn the_three_connections_are_of_one_second() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        let about =
            [0, 1, 2].map(|number| limit.throttled(&connection(number), now + millis(number as u64 * 500)));
        assert_eq!(about, [Throttled::Client; 3]);
    }

    #[test]
    fn it_is_halved_once_a_second_and_never_below_4() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        let mut limits = Vec::new();
        for tenth in 0..100 {
            for number in 0..3 {
                limit.throttled(&connection(number), now + millis(tenth * 100));
            }
            limits.push(limit.limit());
        }
        assert!(limits[..10].iter().all(|limit| *limit == 64), "{limits:?}");
        assert_eq!([limits[10], limits[20], limits[30], limits[99]], [32, 16, 8, MIN]);
    }

    #[test]
    fn what_is_older_than_a_second_does_not_count() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..1000).for_each(|_| limit.succeeded(1, now));
        for number in 0..3 {
            limit.throttled(&connection(number), now + millis(1100));
        }
        assert_eq!(limit.limit(), INITIAL / 2);
    }
}

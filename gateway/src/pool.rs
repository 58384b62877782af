//! Connections to one host.
//!
//! With HTTP/1.1 a connection has one place for a post. With HTTP/2 it has as many as the host allows concurrent
//! streams. The pool opens another when all places are taken, and closes those that have been idle for 50 s.
//!
//! A post that finds no place waits for the first of two turns: a place that another post leaves, or opening a
//! connection, which few posts do at once. Turns come in order of arrival.
//!
//! The pool replaces a lost connection and repeats the posts on it: an HTTP/1.1 connection that the host closed
//! while it was idle, and an HTTP/2 connection that was closed in any way or does not answer a ping. It also repeats
//! posts that the host states not to have processed. It does not repeat a post after the first byte of the response.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::ClientConfig;
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::{
    clock::Clock,
    connection::{Connection, Failure},
    http1::Http1,
    http2::Http2,
    open::{Opened, Opener},
    post::{PostRequest, PostResponse},
};

/// Maximum idle time of a connection that is reused. API Gateway and the proxies before it close idle connections.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Maximum number of connections that are opened at once. A handshake takes some 0.5 ms of CPU time, and a Lambda
/// function may have a third of a core, so more at once would only finish later.
const MAX_OPENING: usize = 8;

/// Maximum number of times that a post is repeated because its connection was lost or the host did not process it.
const MAX_REPEATS: usize = 2;

/// Connections to one host.
pub struct Pool {
    opener: Opener,
    max_idle: usize,
    state: Mutex<State>,
    /// Held by the first of the posts that wait. The lock is fair, so they come in order of arrival.
    first: tokio::sync::Mutex<()>,
    /// Notified when the first of the posts that wait may have its turn.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    clock: Clock,
    /// Idle HTTP/1.1 connections, in order of the end of their latest post.
    #[expect(clippy::vec_box, reason = "a connection moves between this list and its posts without a copy")]
    idle: Vec<Box<Http1>>,
    /// HTTP/2 connections with the time of their latest post. The oldest comes first, and those that refuse posts last.
    shared: Vec<(Arc<Http2>, Instant)>,
    /// The tasks that drive HTTP/2 connections.
    drivers: JoinSet<()>,
    /// Number of posts that wait for their turn.
    waiting: usize,
    /// Number of posts that open a connection.
    opening: usize,
    /// Number of places on the latest connection, or 1 if none was opened. `None` until the first opening ends.
    places: Option<usize>,
}

/// How a post that needs a connection goes on.
enum Turn {
    /// With this connection.
    Use(Connection),
    /// By opening a connection.
    Open,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pool").field("opener", &self.opener).finish_non_exhaustive()
    }
}

impl Pool {
    /// Builds a pool for a host, which keeps at most `max_idle` idle connections with HTTP/1.1 and opens at most as
    /// many with HTTP/2, and uses TLS if a configuration is given. Returns `None` if no certificate can name `host`.
    #[must_use]
    pub fn new(host: &str, port: u16, tls: Option<ClientConfig>, max_idle: usize) -> Option<Self> {
        let opener = Opener::new(host, port, tls)?;
        let places = (!opener.offers_http2()).then_some(1);
        let state = Mutex::new(State { places, ..State::default() });
        Some(Self { opener, max_idle, state, first: tokio::sync::Mutex::default(), changed: Arc::default() })
    }

    /// Sends a post at `wall`, and returns the response.
    ///
    /// # Errors
    /// [`Failure`]. The host may have processed the post, so only the delivery policy decides about a retry.
    pub async fn send(&self, post: &PostRequest<'_>, wall: SystemTime) -> Result<PostResponse, Failure> {
        self.state().clock.resume(wall, Instant::now());
        let mut repeats = 0;
        loop {
            let mut connection = self.connect().await?;
            match connection.send(post).await {
                Ok((response, is_reusable)) => {
                    if is_reusable {
                        self.keep(connection);
                    }
                    return Ok(response);
                }
                Err(fault) => {
                    if connection.is_lost(&fault) {
                        self.retire(&connection);
                    } else {
                        self.defer(&connection);
                    }
                    if repeats == MAX_REPEATS || !connection.may_repeat(&fault) {
                        return Err(connection.failure(&fault));
                    }
                    repeats += 1;
                }
            }
        }
    }

    /// Returns a connection with a place for the post.
    async fn connect(&self) -> Result<Connection, Failure> {
        let turn = {
            let mut state = self.state();
            if state.waiting == 0 { state.turn(self.max_idle) } else { None }
        };
        // Boxed because it is rare and large: a post's future is moved, and contains all futures that it awaits.
        match turn {
            Some(Turn::Use(connection)) => Ok(connection),
            Some(Turn::Open) => Box::pin(self.open()).await,
            None => Box::pin(self.wait()).await,
        }
    }

    /// Waits for a turn behind the posts that wait already.
    async fn wait(&self) -> Result<Connection, Failure> {
        let turn = {
            let waiting = Waiting::begin(self);
            let _first = self.first.lock().await;
            let turn = loop {
                if let Some(turn) = self.state().turn(self.max_idle) {
                    break turn;
                }
                self.changed.notified().await;
            };
            drop(waiting);
            turn
        };
        match turn {
            Turn::Use(connection) => Ok(connection),
            Turn::Open => self.open().await,
        }
    }

    /// Opens a connection as [`Turn::Open`] allows, and takes a place on it.
    async fn open(&self) -> Result<Connection, Failure> {
        let _opening = Opening(self);
        let opened = self.opener.open(&self.changed).await?;
        let mut state = self.state();
        let (connection, places) = match opened {
            Opened::Http1(connection) => (Connection::Http1(connection), 1),
            Opened::Http2(http2, driving) => {
                while state.drivers.try_join_next().is_some() {}
                state.drivers.spawn(driving);
                let now = state.now();
                state.shared.push((Arc::clone(&http2), now));
                (Connection::Http2(http2.take_place()), http2.max_posts())
            }
        };
        state.places = Some(places.max(1));
        Ok(connection)
    }

    /// Keeps an HTTP/1.1 connection for the next post. At `max_idle` idle connections it is closed instead.
    fn keep(&self, connection: Connection) {
        if let Connection::Http1(mut connection) = connection {
            self.update(|state| {
                if state.idle.len() < self.max_idle {
                    connection.idle_since = Some(state.now());
                    state.idle.push(connection);
                }
            });
        }
    }

    /// Gives up a lost connection. Posts that share it may still be answered. The host has probably closed the
    /// HTTP/1.1 connections that have been idle for longer, too.
    fn retire(&self, connection: &Connection) {
        let mut state = self.state();
        match connection {
            Connection::Http1(lost) if lost.idle_since.is_none() => {}
            Connection::Http1(lost) => state.idle.retain(|idle| idle.idle_since > lost.idle_since),
            Connection::Http2(lost) => {
                state.shared.retain(|(shared, _)| !Arc::ptr_eq(shared, lost.connection()));
            }
        }
    }

    /// Lets further posts prefer other HTTP/2 connections, because this one has ended the stream of a post.
    fn defer(&self, connection: &Connection) {
        let Connection::Http2(place) = connection else { return };
        // A stable sort keeps the order of the others.
        self.state().shared.sort_by_key(|(shared, _)| Arc::ptr_eq(shared, place.connection()));
    }

    /// Changes the state, and wakes the first post that waits.
    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the next turn, unless a post has to wait for one.
    fn turn(&mut self, max_shared: usize) -> Option<Turn> {
        if let Some(connection) = self.reuse() {
            return Some(Turn::Use(connection));
        }
        self.may_open(max_shared).then(|| {
            self.opening += 1;
            Turn::Open
        })
    }

    /// Returns a place on a connection that is not known to be closed and has not been idle for too long.
    fn reuse(&mut self) -> Option<Connection> {
        let now = self.now();
        let is_recent = |since: Instant| now.saturating_duration_since(since) < IDLE_TIMEOUT;
        self.shared.retain(|(shared, since)| {
            // A host may lower its limit to 0 to drain a connection.
            is_recent(*since) && shared.is_open() && (shared.is_used() || shared.max_posts() > 0)
        });
        if let Some((shared, since)) = self.shared.iter_mut().find(|(shared, _)| shared.has_place()) {
            *since = now;
            return Some(Connection::Http2(shared.take_place()));
        }
        while let Some(mut connection) = self.idle.pop() {
            if !connection.idle_since.is_some_and(is_recent) {
                // The remaining ones have been idle for longer.
                self.idle.clear();
            } else if connection.is_idle() {
                return Some(Connection::Http1(connection));
            }
        }
        None
    }

    /// Returns whether a post should open a connection: the connections that are being opened have too few places.
    /// Until the first opening ends, its number of places is unknown, and one is enough.
    fn may_open(&self, max_shared: usize) -> bool {
        let Some(places) = self.places else { return self.opening == 0 };
        // Each post that opens a connection needs a place, too.
        let wanted = self.waiting.max(1) + self.opening;
        self.opening < MAX_OPENING
            && self.opening.saturating_mul(places) < wanted
            && self.shared.len() + self.opening < max_shared.max(1)
    }

    fn now(&self) -> Instant {
        self.clock.at(Instant::now())
    }
}

/// A post that waits for its turn.
struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    fn begin(pool: &'a Pool) -> Self {
        pool.update(|state| state.waiting += 1);
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.update(|state| state.waiting -= 1);
    }
}

/// A post that opens a connection.
struct Opening<'a>(&'a Pool);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.update(|state| {
            state.opening -= 1;
            // If the host is unreachable, several posts find out at once, before their own time is over.
            state.places.get_or_insert(1);
        });
    }
}

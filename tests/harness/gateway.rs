//! A gateway in memory, for tests in virtual time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use streamer_gateway::{Gateway, PostResult};
use streamer_message::ConnectionId;
use tokio::time::{Instant, sleep};

/// A gateway that answers posts according to its script, and records them.
pub struct MemoryGateway {
    script: Box<Script>,
    record: Mutex<Record>,
}

/// Returns delay and answer of the n-th post to a connection, from 0.
type Script = dyn Fn(&str, usize) -> (Duration, PostResult) + Send + Sync;

/// A post that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// The connection.
    pub connection: String,
    /// The payload.
    pub payload: Bytes,
    /// When it arrived.
    pub at: Instant,
    /// When it ended: with its answer, or because the worker cancelled it.
    pub ended_at: Option<Instant>,
    /// The answer, unless the worker cancelled the post.
    pub answer: Option<PostResult>,
    /// Whether the script panicked.
    pub panicked: bool,
}

#[derive(Default)]
struct Record {
    posts: Vec<Post>,
    by_connection: HashMap<String, usize>,
    in_flight: usize,
    most_in_flight: usize,
}

impl Record {
    /// Records a post, and returns its index among all posts and among those to its connection.
    fn add(&mut self, connection: &str, payload: Bytes) -> (usize, usize) {
        let posts = self.by_connection.entry(connection.to_owned()).or_default();
        let index = *posts;
        *posts += 1;
        let (connection, at) = (connection.to_owned(), Instant::now());
        self.posts.push(Post { connection, payload, at, ended_at: None, answer: None, panicked: false });
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
        (self.posts.len() - 1, index)
    }
}

/// Builds an answer with this status and no body.
#[must_use]
pub fn status(status: u16) -> PostResult {
    PostResult::Status { status, message: String::new() }
}

impl MemoryGateway {
    /// Creates a gateway that answers according to `script`.
    pub fn scripted(script: impl Fn(&str, usize) -> (Duration, PostResult) + Send + Sync + 'static) -> Self {
        Self { script: Box::new(script), record: Mutex::default() }
    }

    /// Creates a gateway that gives every post the same answer immediately.
    #[must_use]
    pub fn always(answer: PostResult) -> Self {
        Self::scripted(move |_, _| (Duration::ZERO, answer.clone()))
    }

    /// Returns the posts in order of arrival.
    #[must_use]
    pub fn posts(&self) -> Vec<Post> {
        self.record().posts.clone()
    }

    /// Returns the payloads that were posted to a connection.
    #[must_use]
    pub fn texts(&self, connection: &str) -> Vec<String> {
        let posts = self.posts().into_iter().filter(|post| post.connection == connection);
        posts.map(|post| String::from_utf8_lossy(&post.payload).into_owned()).collect()
    }

    /// Returns the largest number of concurrent posts.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.record().most_in_flight
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a post when it is dropped, so also when the worker cancels it.
struct InFlight<'a> {
    gateway: &'a MemoryGateway,
    post: usize,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut record = self.gateway.record();
        record.in_flight -= 1;
        record.posts[self.post].ended_at = Some(Instant::now());
    }
}

impl Gateway for MemoryGateway {
    async fn post(&self, connection: &ConnectionId, payload: Bytes) -> PostResult {
        let connection = connection.as_str();
        let (post, index) = self.record().add(connection, payload);
        let _in_flight = InFlight { gateway: self, post };
        self.record().posts[post].panicked = true;
        let (delay, answer) = (self.script)(connection, index);
        self.record().posts[post].panicked = false;
        sleep(delay).await;
        self.record().posts[post].answer = Some(answer.clone());
        answer
    }
}

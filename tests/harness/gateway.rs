//! A gateway in memory, for tests in virtual time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use delivery_worker::{classify::PostResult, gateway::Gateway};
use streamer_message::ConnectionId;
use tokio::time::{Instant, sleep};

/// Answers posts as its script says, and notes them.
pub struct MemoryGateway {
    script: Box<Script>,
    notes: Mutex<Notes>,
}

/// For the n-th post to a connection, from 0: after how long comes which answer.
type Script = dyn Fn(&str, usize) -> (Duration, PostResult) + Send + Sync;

/// A post that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// The connection.
    pub connection: String,
    /// What was posted.
    pub payload: Bytes,
    /// When it arrived.
    pub at: Instant,
    /// When it was over, answered or given up.
    pub ended_at: Option<Instant>,
    /// What was answered; none where it was given up.
    pub answer: Option<PostResult>,
    /// Whether the script panicked.
    pub panicked: bool,
}

#[derive(Default)]
struct Notes {
    posts: Vec<Post>,
    to_each: HashMap<String, usize>,
    in_flight: usize,
    most_in_flight: usize,
}

impl Notes {
    /// Notes a post, and returns its place among all and among those to its connection.
    fn arrived(&mut self, connection: &str, payload: Bytes) -> (usize, usize) {
        let to_it = self.to_each.entry(connection.to_owned()).or_default();
        *to_it += 1;
        let place = *to_it - 1;
        let (connection, at) = (connection.to_owned(), Instant::now());
        self.posts.push(Post { connection, payload, at, ended_at: None, answer: None, panicked: false });
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
        (self.posts.len() - 1, place)
    }
}

/// An answer with this status and no body.
#[must_use]
pub fn status(status: u16) -> PostResult {
    PostResult::Status { status, message: String::new() }
}

impl MemoryGateway {
    /// A gateway that answers as `script` says.
    pub fn scripted(script: impl Fn(&str, usize) -> (Duration, PostResult) + Send + Sync + 'static) -> Self {
        Self { script: Box::new(script), notes: Mutex::default() }
    }

    /// A gateway that answers at once, and always the same.
    #[must_use]
    pub fn always(answer: PostResult) -> Self {
        Self::scripted(move |_, _| (Duration::ZERO, answer.clone()))
    }

    /// The posts that arrived, in order of arrival.
    #[must_use]
    pub fn posts(&self) -> Vec<Post> {
        self.notes().posts.clone()
    }

    /// The texts that arrived at a connection.
    #[must_use]
    pub fn texts(&self, connection: &str) -> Vec<String> {
        let posts = self.posts().into_iter().filter(|post| post.connection == connection);
        posts.map(|post| String::from_utf8_lossy(&post.payload).into_owned()).collect()
    }

    /// The most posts that were in flight at the same time.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.notes().most_in_flight
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One post less is in flight, also when the worker gave it up.
struct InFlight<'a> {
    gateway: &'a MemoryGateway,
    post: usize,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut notes = self.gateway.notes();
        notes.in_flight -= 1;
        notes.posts[self.post].ended_at = Some(Instant::now());
    }
}

impl Gateway for MemoryGateway {
    async fn post(&self, connection: &ConnectionId, payload: Bytes) -> PostResult {
        let connection = connection.as_str();
        let (post, place) = self.notes().arrived(connection, payload);
        let _in_flight = InFlight { gateway: self, post };
        self.notes().posts[post].panicked = true;
        let (delay, answer) = (self.script)(connection, place);
        self.notes().posts[post].panicked = false;
        sleep(delay).await;
        self.notes().posts[post].answer = Some(answer.clone());
        answer
    }
}

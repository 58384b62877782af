//! A gateway in memory, for tests in virtual time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use delivery_worker::{classify::Answer, gateway::Gateway};
use streamer_message::ConnectionId;
use tokio::time::{Instant, sleep};

/// Answers posts as its script says, and notes them.
pub struct MemoryGateway {
    script: Box<Script>,
    notes: Mutex<Notes>,
}

/// For the n-th post to a connection, from 0: after how long comes which answer.
type Script = dyn Fn(&str, usize) -> (Duration, Answer) + Send + Sync;

/// A post that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// The connection.
    pub connection: String,
    /// What was posted.
    pub payload: Bytes,
    /// When it arrived.
    pub at: Instant,
}

#[derive(Default)]
struct Notes {
    posts: Vec<Post>,
    to_each: HashMap<String, usize>,
    in_flight: usize,
    most_in_flight: usize,
}

/// An answer with this status and no body.
#[must_use]
pub fn status(status: u16) -> Answer {
    Answer::Status { status, message: String::new() }
}

impl MemoryGateway {
    /// A gateway that answers as `script` says.
    pub fn scripted(script: impl Fn(&str, usize) -> (Duration, Answer) + Send + Sync + 'static) -> Self {
        Self { script: Box::new(script), notes: Mutex::default() }
    }

    /// A gateway that answers at once, and always the same.
    #[must_use]
    pub fn always(answer: Answer) -> Self {
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
struct InFlight<'a>(&'a MemoryGateway);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.notes().in_flight -= 1;
    }
}

impl Gateway for MemoryGateway {
    async fn post(&self, connection: &ConnectionId, payload: Bytes) -> Answer {
        let (delay, answer) = {
            let mut notes = self.notes();
            let connection = connection.as_str().to_owned();
            let place = notes.to_each.entry(connection.clone()).or_default();
            let scripted = (self.script)(&connection, *place);
            *place += 1;
            notes.posts.push(Post { connection, payload, at: Instant::now() });
            notes.in_flight += 1;
            notes.most_in_flight = notes.most_in_flight.max(notes.in_flight);
            scripted
        };
        let _in_flight = InFlight(self);
        sleep(delay).await;
        answer
    }
}

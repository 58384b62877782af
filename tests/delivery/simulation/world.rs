//! The world around the workers: clients behind a failing gateway, and crashes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
    vec::IntoIter,
};

use serde_json::Value;
use streamer_gateway::{Gateway, PostResult};
use streamer_message::ConnectionId;
use streamer_tests::{gateway::status, sqs::Sqs};
use tokio::time::{Instant, sleep};

use super::case::{CONNECTIONS, Case, Client, PostFault};

/// Crashes a worker before one of its calls: that call and all later ones have no effect.
#[derive(Clone, Default)]
pub(super) struct Crash {
    /// One more than the calls before the crash; `usize::MAX` without a crash.
    left: Arc<AtomicUsize>,
}

impl Crash {
    /// Lets the worker crash after so many calls, or never.
    pub(super) fn schedule(&self, calls: Option<usize>) {
        self.left.store(calls.map_or(usize::MAX, |calls| calls + 1), Ordering::Relaxed);
    }

    /// Counts a call, and returns whether it has an effect.
    pub(super) fn survives_call(&self) -> bool {
        let less = |left: usize| Some(if left == usize::MAX { left } else { left.saturating_sub(1) });
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or_default();
        before > 1
    }

    pub(super) fn has_happened(&self) -> bool {
        self.left.load(Ordering::Relaxed) <= 1
    }
}

/// The clients, behind a gateway that fails.
pub(super) struct Clients {
    states: [Client; 5],
    clock: Sqs,
    began: Instant,
    crash: Crash,
    faults: Mutex<IntoIter<PostFault>>,
    /// Each message and connection, in order of arrival.
    arrived: Mutex<Vec<(usize, usize)>>,
}

impl Clients {
    pub(super) fn new(case: &Case, clock: Sqs, crash: Crash) -> Self {
        let faults = Mutex::new(case.post_faults.clone().into_iter());
        let began = clock.instant();
        Self { states: case.clients, clock, began, crash, faults, arrived: Mutex::default() }
    }

    /// Returns each message and connection that a payload arrived for, in order of arrival.
    pub(super) fn arrived(&self) -> Vec<(usize, usize)> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Gateway for Clients {
    async fn post(&self, connection: &ConnectionId, payload: bytes::Bytes) -> PostResult {
        if !self.crash.survives_call() {
            return std::future::pending().await;
        }
        let fault = self.faults.lock().unwrap().next().unwrap_or(PostFault::None);
        match fault {
            PostFault::Status(code) => return status(code),
            PostFault::Panic => panic!("scripted panic"),
            PostFault::None | PostFault::AnswerLost | PostFault::Slow => {}
        }
        let connection = CONNECTIONS.iter().position(|known| *known == connection.as_str()).unwrap();
        let connecting = self.clock.instant() < self.began + Duration::from_secs(3);
        match self.states[connection] {
            Client::Gone => return status(410),
            Client::Connecting if connecting => return status(410),
            Client::Connecting | Client::Connected => {}
        }
        // A number, or a frame with a number.
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        let message = payload.as_u64().or(payload["payload"].as_u64()).unwrap().try_into().unwrap();
        self.arrived.lock().unwrap().push((message, connection));
        match fault {
            PostFault::AnswerLost => PostResult::Broken("lost".to_owned()),
            PostFault::Slow => {
                sleep(Duration::from_secs(7)).await;
                status(200)
            }
            PostFault::None | PostFault::Status(_) | PostFault::Panic => status(200),
        }
    }
}

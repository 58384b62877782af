//! From lanes to outcomes.

use std::time::Duration;

use futures::{StreamExt, stream};
use streamer_message::ConnectionId;
use tokio::time::{Instant, timeout};

use crate::{
    Worker,
    classify::{Answer, Verdict, classify},
    decode::Message,
    gateway::Gateway,
    outcome::{Cause, Ended, Latency, Outcome},
    plan::Lane,
    time::Time,
};

/// Lanes that post at the same time, at most.
pub const CONCURRENCY: usize = 128;

/// How long one post may take, at most.
const POST: Duration = Duration::from_secs(5);

/// Runs all lanes, and says how each pair ended.
pub async fn deliver<G: Gateway>(
    worker: &Worker<G>,
    messages: &[Message],
    lanes: Vec<Lane>,
    time: &Time,
) -> Vec<Ended> {
    let lanes = stream::iter(lanes).map(|lane| run(worker, messages, lane, time));
    lanes.buffer_unordered(CONCURRENCY).concat().await
}

/// Runs one lane. A message that is handed back or finds nobody ends it: what comes after must not overtake,
/// or would find nobody either.
async fn run<G: Gateway>(worker: &Worker<G>, messages: &[Message], lane: Lane, time: &Time) -> Vec<Ended> {
    let Lane { connection, messages: places } = lane;
    let mut rest = None;
    let mut ended = Vec::with_capacity(places.len());
    for place in places {
        let (outcome, latency) = match &rest {
            Some(outcome) => (Outcome::clone(outcome), None),
            None => end(worker, &connection, &messages[place], time).await,
        };
        rest = rest.or(match &outcome {
            Outcome::Gone => Some(Outcome::Gone),
            Outcome::HandedBack(_) => Some(Outcome::HandedBack(Cause::Behind)),
            Outcome::Delivered | Outcome::Expired => None,
        });
        ended.push(Ended { message: place, connection: Some(connection.clone()), outcome, latency });
    }
    ended
}

async fn end<G: Gateway>(
    worker: &Worker<G>,
    connection: &ConnectionId,
    message: &Message,
    time: &Time,
) -> (Outcome, Option<Latency>) {
    if message.expires_at.is_some_and(|expiry| expiry <= time.now()) {
        return (Outcome::Expired, None);
    }
    let left = time.left();
    if left.is_zero() {
        return (Outcome::HandedBack(Cause::Deadline), None);
    }
    let posted = Instant::now();
    let post = timeout(left.min(POST), worker.gateway.post(connection, message.payload.clone()));
    let answer = post.await.unwrap_or(Answer::Timeout);
    let post = posted.elapsed();
    match classify(answer) {
        Verdict::Delivered => {
            let delivery = message.made_at.and_then(|made| time.now().duration_since(made).ok());
            (Outcome::Delivered, Some(Latency { post, delivery }))
        }
        Verdict::NoConnection => (remove(worker, connection, time).await, None),
        Verdict::HandBack(cause) => (Outcome::HandedBack(cause), None),
    }
}

/// One conditional delete decides whether the connection is gone, or so young that API Gateway may not know it
/// yet: until `$connect` has answered, posts are answered with 410.
async fn remove<G: Gateway>(worker: &Worker<G>, connection: &ConnectionId, time: &Time) -> Outcome {
    let cutoff = time.now() - worker.connect_grace;
    match timeout(time.left(), worker.table.delete_if_older(connection, cutoff)).await {
        Ok(Ok(true)) => Outcome::Gone,
        Ok(Ok(false)) => Outcome::HandedBack(Cause::ConnectGrace),
        Ok(Err(error)) => Outcome::HandedBack(Cause::Table(error.to_string())),
        Err(_) => Outcome::HandedBack(Cause::Deadline),
    }
}

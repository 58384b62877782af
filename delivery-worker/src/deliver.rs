//! From lanes to outcomes.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt, StreamExt, future::join_all, stream};
use streamer_message::ConnectionId;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use crate::{
    Worker, backoff,
    classify::{Answer, Verdict, classify},
    expand::Pair,
    gateway::Gateway,
    outcome::{Cause, Ended, Latency, Outcome},
    plan::{Lane, Order},
    time::Time,
};

/// Posts in flight, at most.
pub const CONCURRENCY: usize = 128;

/// How long one post may take, at most.
const POST: Duration = Duration::from_secs(5);

/// Runs all lanes, and says how each pair ended. A lane that panics disturbs no other.
pub async fn deliver<G: Gateway>(worker: &Worker<G>, lanes: &[Lane<'_>], time: &Time) -> Vec<Ended> {
    let delivery = Delivery { worker, time, posts: Semaphore::new(CONCURRENCY) };
    let lanes = stream::iter(lanes).map(|lane| {
        let running = AssertUnwindSafe(delivery.run(lane)).catch_unwind();
        running.map(|ended| ended.unwrap_or_else(|_| panicked(lane)))
    });
    lanes.buffer_unordered(CONCURRENCY).concat().await
}

fn panicked(lane: &Lane<'_>) -> Vec<Ended> {
    lane.pairs.iter().map(|pair| pair.unposted(Outcome::HandedBack(Cause::Panic))).collect()
}

impl Pair<'_> {
    fn unposted(&self, outcome: Outcome) -> Ended {
        Ended::unposted(self.place, Some(self.connection.clone()), outcome)
    }
}

/// The posts of one invocation.
struct Delivery<'a, G> {
    worker: &'a Worker<G>,
    time: &'a Time,
    posts: Semaphore,
}

impl<G: Gateway> Delivery<'_, G> {
    /// Runs one lane, a message at a time, the connections of that side by side.
    async fn run(&self, lane: &Lane<'_>) -> Vec<Ended> {
        let mut ended: Vec<Ended> = Vec::with_capacity(lane.pairs.len());
        let mut gone: Vec<&ConnectionId> = Vec::new();
        let mut held = None;
        for pairs in lane.pairs.chunk_by(|one, other| one.place == other.place) {
            if let Some(cause) = &held {
                let back = |pair: &Pair<'_>| pair.unposted(Outcome::HandedBack(Cause::clone(cause)));
                ended.extend(pairs.iter().map(back));
                continue;
            }
            let (absent, present): (Vec<_>, Vec<_>) =
                pairs.iter().partition(|pair| gone.contains(&&pair.connection));
            ended.extend(absent.into_iter().map(|pair| pair.unposted(Outcome::Gone)));
            let posted = join_all(present.iter().map(|pair| self.end(pair))).await;
            let finds_nobody = present.iter().zip(&posted).filter(|(_, end)| end.outcome == Outcome::Gone);
            gone.extend(finds_nobody.map(|(pair, _)| &pair.connection));
            held = posted.iter().find_map(|end| self.holds(&end.outcome));
            ended.extend(posted);
        }
        ended
    }

    /// Why the rest of the lane is handed back after a message that ended so: nothing may overtake what is
    /// tried again, and on a FIFO queue nothing what may yet fail to reach the dead-letter queue.
    fn holds(&self, outcome: &Outcome) -> Option<Cause> {
        match outcome {
            Outcome::HandedBack(Cause::Deadline) => Some(Cause::Deadline),
            Outcome::HandedBack(_) => Some(Cause::Behind),
            other => match self.worker.policy.order {
                Order::Group if !other.is_settled() => Some(Cause::Behind),
                Order::Group | Order::Connection => None,
            },
        }
    }

    async fn end(&self, pair: &Pair<'_>) -> Ended {
        let mut ended = pair.unposted(Outcome::HandedBack(Cause::Deadline));
        let Ok(_permit) = timeout(self.time.left(), self.posts.acquire()).await else { return ended };
        if pair.message.is_expired(self.time.now()) {
            return Ended { outcome: Outcome::Expired, ..ended };
        }
        loop {
            let left = self.time.left();
            if left.is_zero() {
                return ended;
            }
            let posted = Instant::now();
            let post = self.worker.gateway.post(&pair.connection, pair.message.payload.clone());
            ended.posts += 1;
            let verdict = match timeout(left.min(POST), post).await {
                Ok(answer) => classify(answer),
                Err(_) if left <= POST => Verdict::HandBack(Cause::Deadline),
                Err(_) => classify(Answer::Timeout),
            };
            let outcome = match verdict {
                Verdict::Delivered => {
                    let age = pair.message.made_at.and_then(|made| self.time.now().duration_since(made).ok());
                    ended.latency = Some(Latency { post: posted.elapsed(), delivery: age });
                    Outcome::Delivered
                }
                Verdict::NoConnection => self.remove(&pair.connection).await,
                Verdict::Rejected(rejection) => Outcome::Rejected(rejection),
                Verdict::HandBack(cause) => {
                    let pause = backoff::in_place(ended.posts, fastrand::f64());
                    if cause.is_transient() && ended.posts < backoff::POSTS && pause < self.time.left() {
                        ended.outcome = Outcome::HandedBack(cause);
                        sleep(pause).await;
                        continue;
                    }
                    Outcome::HandedBack(cause)
                }
            };
            return Ended { outcome, ..ended };
        }
    }

    /// One conditional delete decides whether the connection is gone, or so young that API Gateway may not
    /// know it yet: until `$connect` has answered, posts are answered with 410.
    async fn remove(&self, connection: &ConnectionId) -> Outcome {
        let cutoff = self.time.now() - self.worker.policy.connect_grace;
        match timeout(self.time.left(), self.worker.table.delete_if_older(connection, cutoff)).await {
            Ok(Ok(true)) => Outcome::Gone,
            Ok(Ok(false)) => Outcome::HandedBack(Cause::ConnectGrace),
            Ok(Err(error)) => Outcome::HandedBack(Cause::Table(error.to_string())),
            Err(_) => Outcome::HandedBack(Cause::Deadline),
        }
    }
}

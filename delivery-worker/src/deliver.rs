//! From lanes to outcomes.

use std::{panic::AssertUnwindSafe, time::SystemTime};

use futures::{FutureExt, StreamExt, future::join_all, stream};
use streamer_message::ConnectionId;
use tokio::time::{sleep, timeout};

use crate::{
    Worker, backoff,
    classify::{Answer, Verdict, classify},
    control::limiter,
    decode::Record,
    expand::Pair,
    gateway::Gateway,
    outcome::{Cause, Ended, Outcome},
    plan::{Lane, Order},
    time::Time,
};

/// Lanes that run at the same time, at most: more could not post.
const LANES: usize = limiter::MOST;

/// Runs all lanes, and says how each pair ended. A lane that panics disturbs no other.
pub async fn deliver<G: Gateway>(
    worker: &Worker<G>,
    records: &[Record],
    lanes: &[Lane<'_>],
    time: &Time,
) -> Vec<Ended> {
    let delivery = Delivery { worker, records, time };
    let lanes = stream::iter(lanes).map(|lane| {
        let running = AssertUnwindSafe(delivery.run(lane)).catch_unwind();
        running.map(|ended| ended.unwrap_or_else(|_| panicked(lane)))
    });
    lanes.buffer_unordered(LANES).concat().await
}

fn panicked(lane: &Lane<'_>) -> Vec<Ended> {
    lane.pairs.iter().map(|pair| pair.unposted(Outcome::HandedBack(Cause::Panic))).collect()
}

/// The posts of one invocation.
struct Delivery<'a, G> {
    worker: &'a Worker<G>,
    records: &'a [Record],
    time: &'a Time,
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
            let step = ended.len();
            let (absent, present): (Vec<_>, Vec<_>) =
                pairs.iter().partition(|pair| gone.contains(&&pair.connection));
            ended.extend(absent.into_iter().map(|pair| pair.unposted(Outcome::Gone)));
            let posted = join_all(present.iter().map(|pair| self.end(pair))).await;
            let finds_nobody = present.iter().zip(&posted).filter(|(_, end)| end.outcome == Outcome::Gone);
            gone.extend(finds_nobody.map(|(pair, _)| &pair.connection));
            held = posted.iter().find_map(|end| self.holds(&end.outcome));
            ended.extend(posted);
            if self.worker.policy.order == Order::Group
                && let Some(away) =
                    self.worker.policy.still_away(self.records, &ended[step..], self.time.now())
            {
                held = Some(Cause::Behind);
                ended.push(away);
            }
        }
        ended
    }

    /// Why the rest of the lane is handed back after a message that ended so: nothing may overtake what is
    /// tried again, and on a FIFO queue nothing what may yet fail to reach the dead-letter queue.
    fn holds(&self, outcome: &Outcome) -> Option<Cause> {
        match outcome {
            Outcome::HandedBack(cause @ (Cause::Deadline | Cause::CircuitOpen(_))) => Some(cause.clone()),
            Outcome::HandedBack(_) => Some(Cause::Behind),
            other => match self.worker.policy.order {
                Order::Group if !other.is_settled() => Some(Cause::Behind),
                Order::Group | Order::Connection => None,
            },
        }
    }

    /// Posts a pair until it ends, which is once, but for what is transient.
    async fn end(&self, pair: &Pair<'_>) -> Ended {
        let mut ended = pair.unposted(Outcome::Delivered);
        loop {
            if pair.message.is_expired(self.time.now()) {
                return Ended { outcome: Outcome::Expired, ..ended };
            }
            let ticket = match self.worker.gate.pass(&pair.connection, self.time.deadline()).await {
                Ok(ticket) => ticket,
                Err(cause) => return Ended { outcome: Outcome::HandedBack(cause), ..ended },
            };
            // It may have waited.
            if pair.message.is_expired(self.time.now()) {
                return Ended { outcome: Outcome::Expired, ..ended };
            }
            let posted_at = self.time.now();
            let verdict = self.post(pair).await;
            ended.posts += 1;
            ticket.record(verdict.health());
            let outcome = match verdict {
                Verdict::Delivered => {
                    let made_at = pair.message.made_at;
                    ended.age = made_at.and_then(|made_at| self.time.now().duration_since(made_at).ok());
                    Outcome::Delivered
                }
                Verdict::NoConnection => self.remove(&pair.connection, posted_at).await,
                Verdict::Rejected(rejection) => Outcome::Rejected(rejection),
                Verdict::HandBack(cause) => {
                    let pause = backoff::in_place(ended.posts, fastrand::f64());
                    if cause.is_transient() && ended.posts < backoff::POSTS && pause < self.time.left() {
                        sleep(pause).await;
                        continue;
                    }
                    Outcome::HandedBack(cause)
                }
            };
            return Ended { outcome, ..ended };
        }
    }

    async fn post(&self, pair: &Pair<'_>) -> Verdict {
        let post = self.worker.gateway.post(&pair.connection, pair.message.payload.clone());
        match timeout(self.time.call(), post).await {
            Ok(answer) => classify(answer),
            Err(_) if self.time.left().is_zero() => Verdict::HandBack(Cause::Deadline),
            Err(_) => classify(Answer::Timeout),
        }
    }

    /// One conditional delete decides whether the connection is gone, or so young that API Gateway may not
    /// have known it when it was posted to: until `$connect` has answered, posts are answered with 410.
    async fn remove(&self, connection: &ConnectionId, posted_at: SystemTime) -> Outcome {
        let cutoff = posted_at - self.worker.policy.connect_grace;
        match timeout(self.time.call(), self.worker.table.delete_if_older(connection, cutoff)).await {
            Ok(Ok(true)) => Outcome::Gone,
            Ok(Ok(false)) => Outcome::HandedBack(Cause::ConnectGrace),
            Ok(Err(error)) => Outcome::HandedBack(Cause::Table(error.to_string())),
            Err(_) => Outcome::HandedBack(self.time.late("DeleteItem")),
        }
    }
}

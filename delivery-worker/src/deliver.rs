//! From lanes to outcomes.

use std::{collections::HashSet, panic::AssertUnwindSafe};

use futures::{FutureExt, StreamExt, future::join_all, stream};
use streamer_connections::Removal;
use streamer_message::ConnectionId;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Worker,
    admission::{breaker::Health, in_flight},
    backoff,
    classify::{PostResult, Verdict, classify},
    decode::Record,
    expand::Pair,
    gateway::Gateway,
    outcome::{Cause, Ended, Outcome},
    plan::{Lane, Order, Planned},
    time::Time,
};

/// Lanes that run at the same time, at most.
const LANES: usize = in_flight::MAX_POSTS;

/// Runs all lanes, and says how each pair ended, the superseded ones included. A lane that panics disturbs no other.
pub async fn deliver<G: Gateway>(
    worker: &Worker<G>,
    records: &[Record],
    Planned { lanes, superseded }: Planned<'_>,
    time: &Time,
) -> Vec<Ended> {
    let delivery = Delivery { worker, records, superseded: &superseded, time };
    let running = stream::iter(&lanes).map(|lane| {
        let run = AssertUnwindSafe(delivery.run(lane)).catch_unwind();
        run.map(|ended| ended.unwrap_or_else(|_| panicked(lane)))
    });
    let ended = running.buffer_unordered(LANES).concat().await;
    ended.into_iter().chain(superseded).collect()
}

fn panicked(lane: &Lane<'_>) -> Vec<Ended> {
    lane.pairs.iter().map(|pair| pair.unposted(Outcome::HandedBack(Cause::Panic))).collect()
}

/// Why a message goes back that stands behind one which goes back for `cause`: what ends all lanes ends it too.
fn behind(cause: &Cause) -> Cause {
    match cause {
        Cause::Deadline | Cause::CircuitOpen(_) => cause.clone(),
        _ => Cause::Behind,
    }
}

/// The posts of one invocation.
struct Delivery<'a, G> {
    worker: &'a Worker<G>,
    records: &'a [Record],
    superseded: &'a [Ended],
    time: &'a Time,
}

impl<G: Gateway> Delivery<'_, G> {
    async fn run(&self, lane: &Lane<'_>) -> Vec<Ended> {
        match self.worker.policy.order {
            Order::Connection => self.run_connection(lane).await,
            // Boxed, so that the lanes of a standard queue are small.
            Order::Group => Box::pin(self.run_group(lane)).await,
        }
    }

    /// Runs the lane of a connection, a message at a time. One that is handed back or finds nobody ends it: what
    /// comes after must not overtake, or would find nobody either.
    async fn run_connection(&self, lane: &Lane<'_>) -> Vec<Ended> {
        let mut ended = Vec::with_capacity(lane.pairs.len());
        let mut rest = None;
        for pair in &lane.pairs {
            let end = match &rest {
                Some(outcome) => pair.unposted(Outcome::clone(outcome)),
                None => self.end(pair).await,
            };
            rest = rest.or_else(|| match &end.outcome {
                Outcome::Gone => Some(Outcome::Gone),
                Outcome::HandedBack(cause) => Some(Outcome::HandedBack(behind(cause))),
                _ => None,
            });
            ended.push(end);
        }
        ended
    }

    /// Runs the lane of a group, a message at a time, the connections of that side by side. A message that does not
    /// settle ends it: it may yet fail to reach the dead-letter queue, and must not have been overtaken then. Connections
    /// that it reached in an earlier invocation are left out, and the others have their turns in random order, so that
    /// an audience that is too large for one invocation is served over several.
    async fn run_group(&self, lane: &Lane<'_>) -> Vec<Ended> {
        let mut ended: Vec<Ended> = Vec::with_capacity(lane.pairs.len());
        let mut gone: HashSet<&ConnectionId> = HashSet::new();
        let mut held = None;
        for pairs in lane.pairs.chunk_by(|one, other| one.place == other.place) {
            if let Some(cause) = &held {
                let back = |pair: &Pair<'_>| pair.unposted(Outcome::HandedBack(Cause::clone(cause)));
                ended.extend(pairs.iter().map(back));
                continue;
            }
            let record = &self.records[pairs[0].place];
            let mut served = self.worker.served.take(&record.id);
            let mut rest: Vec<_> = pairs.iter().filter(|pair| !served.contains(&pair.connection)).collect();
            if record.receives > 1 {
                fastrand::shuffle(&mut rest);
            }
            let end = async |pair: &Pair<'_>| match gone.contains(&pair.connection) {
                true => pair.unposted(Outcome::Gone),
                false => self.end(pair).await,
            };
            let mut step = join_all(rest.iter().map(|pair| end(pair))).await;
            let superseded = self.superseded.iter().filter(|end| end.place == pairs[0].place);
            let all: Vec<_> = step.iter().chain(superseded).collect();
            let away = self.worker.policy.still_away(self.records, &all, self.time.now());
            step.extend(away.filter(|_| served.is_empty()));
            held = step.iter().find(|end| !end.outcome.is_settled()).map(|end| match &end.outcome {
                Outcome::HandedBack(cause) => behind(cause),
                _ => Cause::Behind,
            });
            let of = |outcome| {
                let ended = rest.iter().zip(&step).filter(move |(_, end)| end.outcome == outcome);
                ended.map(|(pair, _)| &pair.connection)
            };
            gone.extend(of(Outcome::Gone));
            if held.is_some() {
                served.extend(of(Outcome::Delivered).cloned());
                self.worker.served.remember(&record.id, served);
            }
            ended.extend(step);
        }
        ended
    }

    /// Posts a pair until it ends, which is once, but for what is transient.
    async fn end(&self, pair: &Pair<'_>) -> Ended {
        let mut ended = pair.unposted(Outcome::Delivered);
        loop {
            if self.is_expired(pair) {
                return Ended { outcome: Outcome::Expired, ..ended };
            }
            // It is not waited for longer than it is worth anything.
            let until = self.time.deadline_or_expiry(pair.message.expires_at);
            let permit = match self.worker.gate.acquire(&pair.connection, until).await {
                Ok(permit) => permit,
                Err(_) if self.is_expired(pair) => return Ended { outcome: Outcome::Expired, ..ended },
                Err(cause) => return Ended { outcome: Outcome::HandedBack(cause), ..ended },
            };
            let posted_at = permit.began();
            let verdict = self.post(pair).await;
            ended.posts += 1;
            permit.record(match verdict.health() {
                Health::Fails if ended.posts > 1 => Health::StillFails,
                health => health,
            });
            let outcome = match verdict {
                Verdict::Delivered => {
                    let made_at = pair.message.made_at;
                    ended.age = made_at.and_then(|made_at| self.time.now().duration_since(made_at).ok());
                    Outcome::Delivered
                }
                // Boxed, as what is rare and large: lanes are moved about.
                Verdict::NoConnection => Box::pin(self.remove(&pair.connection, posted_at)).await,
                Verdict::Rejected(rejection) => Outcome::Rejected(rejection),
                Verdict::HandBack(cause) => {
                    let pause = backoff::in_place_retry(ended.posts, fastrand::f64());
                    if cause.is_transient()
                        && ended.posts < backoff::MAX_POSTS
                        && pause < self.time.remaining()
                    {
                        sleep(pause).await;
                        continue;
                    }
                    Outcome::HandedBack(cause)
                }
            };
            return Ended { outcome, ..ended };
        }
    }

    /// Whether the message is worthless now.
    fn is_expired(&self, pair: &Pair<'_>) -> bool {
        // Most have no expiry, and need no clock.
        pair.message.expires_at.is_some() && pair.message.is_expired(self.time.now())
    }

    async fn post(&self, pair: &Pair<'_>) -> Verdict {
        let post = self.worker.gateway.post(&pair.connection, pair.message.payload.clone());
        match timeout(self.time.call_timeout(), post).await {
            Ok(answer) => classify(answer),
            Err(_) if self.time.is_past_cutoff() => Verdict::HandBack(Cause::Deadline),
            Err(_) => classify(PostResult::Timeout),
        }
    }

    /// One conditional delete decides whether the connection is gone, or so young that API Gateway may not
    /// have known it when it was posted to: until `$connect` has answered, posts are answered with 410. They are, too,
    /// where the connection is another API's, whose row stays.
    async fn remove(&self, connection: &ConnectionId, posted_at: Instant) -> Outcome {
        let cutoff = self.time.at(posted_at) - self.worker.policy.connect_grace;
        let delete = self.worker.table.delete_if_older(connection, cutoff, &self.worker.endpoints);
        match timeout(self.time.call_timeout(), delete).await {
            Ok(Ok(Removal::Removed)) => Outcome::Gone,
            Ok(Ok(Removal::TooYoung)) => Outcome::HandedBack(Cause::ConnectGrace),
            Ok(Ok(Removal::Elsewhere(endpoint))) => Outcome::HandedBack(Cause::Elsewhere(endpoint)),
            Ok(Err(error)) => Outcome::HandedBack(Cause::Table(error.to_string())),
            Err(_) => Outcome::HandedBack(self.time.timeout_cause("DeleteItem")),
        }
    }
}

//! Posts the pairs of each lane.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, StreamExt, future::join_all, stream};
use streamer_connections::{ConnectionTable, Removal};
use streamer_gateway::{Gateway, PostResult};
use streamer_message::ConnectionId;
use streamer_queue::QueueKind;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Worker,
    admission::{breaker::Health, in_flight},
    backoff,
    classify::{Verdict, classify},
    decode::{Pair, Record},
    keep::no_answer,
    outcome::{Cause, Completed, Outcome},
    plan::{Lane, Planned},
    time::Time,
};

/// Lanes that run concurrently.
const LANES: usize = in_flight::MAX_POSTS;

/// How far ahead the clock of `connect-handler` may be.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// Runs all lanes and returns all completed pairs, including superseded ones. A lane that panics affects no other.
pub async fn deliver<G: Gateway>(
    worker: &Worker<G>,
    records: &[Record],
    Planned { lanes, superseded }: Planned<'_>,
    time: &Time,
) -> Vec<Completed> {
    let delivery = Delivery { worker, records, superseded: &superseded, time };
    let running = stream::iter(&lanes).map(|lane| {
        let run = AssertUnwindSafe(delivery.run(lane)).catch_unwind();
        run.map(|completed| completed.unwrap_or_else(|_| panicked(lane)))
    });
    let completed = running.buffer_unordered(LANES).concat().await;
    completed.into_iter().chain(superseded).collect()
}

fn panicked(lane: &Lane<'_>) -> Vec<Completed> {
    lane.pairs.iter().map(|pair| pair.unposted(Outcome::HandedBack(Cause::Panic))).collect()
}

/// Returns the cause for the messages behind one that is handed back for `cause`. A cause that ends all lanes is their
/// cause, too.
fn cause_behind(cause: &Cause) -> Cause {
    match cause {
        Cause::Deadline | Cause::CircuitOpen(_) => cause.clone(),
        _ => Cause::Behind,
    }
}

/// The posts of one invocation.
struct Delivery<'a, G> {
    worker: &'a Worker<G>,
    records: &'a [Record],
    superseded: &'a [Completed],
    time: &'a Time,
}

impl<G: Gateway> Delivery<'_, G> {
    async fn run(&self, lane: &Lane<'_>) -> Vec<Completed> {
        match self.worker.policy.queue_kind {
            QueueKind::Standard => self.run_connection(lane).await,
            // Boxed, to keep the lanes of a standard queue small.
            QueueKind::Fifo => Box::pin(self.run_group(lane)).await,
        }
    }

    /// Runs a connection's lane, one message at a time. The lane ends with the first message that is handed back, which
    /// no later message may overtake, or that finds the connection gone.
    async fn run_connection(&self, lane: &Lane<'_>) -> Vec<Completed> {
        let mut completed = Vec::with_capacity(lane.pairs.len());
        let mut rest = None;
        for pair in &lane.pairs {
            let done = match &rest {
                Some(outcome) => pair.unposted(Outcome::clone(outcome)),
                None => self.complete(pair).await,
            };
            rest = rest.or_else(|| match &done.outcome {
                Outcome::Gone => Some(Outcome::Gone),
                Outcome::HandedBack(cause) => Some(Outcome::HandedBack(cause_behind(cause))),
                _ => None,
            });
            completed.push(done);
        }
        completed
    }

    /// Runs a message group's lane, one message at a time, and each message's connections concurrently.
    ///
    /// The lane ends with the first message that does not settle, a dead letter included: it may fail to reach the
    /// dead-letter queue and must not have been overtaken then.
    async fn run_group(&self, lane: &Lane<'_>) -> Vec<Completed> {
        let mut completed: Vec<Completed> = Vec::with_capacity(lane.pairs.len());
        let mut gone: HashSet<ConnectionId> = HashSet::new();
        let mut held = None;
        for pairs in lane.pairs.chunk_by(|one, other| one.index == other.index) {
            if let Some(cause) = &held {
                let hand_back = |pair: &Pair<'_>| pair.unposted(Outcome::HandedBack(Cause::clone(cause)));
                completed.extend(pairs.iter().map(hand_back));
                continue;
            }
            let step = self.run_message(pairs, &gone).await;
            held = step.iter().find(|done| !done.outcome.is_settled()).map(|done| match &done.outcome {
                Outcome::HandedBack(cause) => cause_behind(cause),
                _ => Cause::Behind,
            });
            let newly_gone = step.iter().filter(|done| done.outcome == Outcome::Gone);
            gone.extend(newly_gone.filter_map(|done| done.connection.clone()));
            completed.extend(step);
        }
        completed
    }

    /// Completes the pairs of one message on a FIFO queue.
    ///
    /// Connections that received it in an earlier invocation are left out. The others are posted to in random order
    /// from the second receive on, so that an audience too large for one invocation is served over several.
    async fn run_message(&self, pairs: &[Pair<'_>], gone: &HashSet<ConnectionId>) -> Vec<Completed> {
        let record = &self.records[pairs[0].index];
        let mut served = record.id.as_deref().map_or_else(HashSet::new, |id| self.worker.served.take(id));
        let mut unserved: Vec<_> = pairs.iter().filter(|pair| !served.contains(&pair.connection)).collect();
        if record.receives > 1 {
            fastrand::shuffle(&mut unserved);
        }
        let complete = async |pair: &Pair<'_>| match gone.contains(&pair.connection) {
            true => pair.unposted(Outcome::Gone),
            false => self.complete(pair).await,
        };
        let mut completed = join_all(unserved.iter().map(|pair| complete(pair))).await;
        let superseded = self.superseded.iter().filter(|done| done.index == pairs[0].index);
        let all: Vec<_> = completed.iter().chain(superseded).collect();
        let away = self.worker.policy.still_away(self.records, &all, self.time.now());
        completed.extend(away.filter(|_| served.is_empty()));
        if completed.iter().any(|done| !done.outcome.is_settled()) {
            let delivered = completed.iter().filter(|done| done.outcome == Outcome::Delivered);
            served.extend(delivered.filter_map(|done| done.connection.clone()));
            if let Some(id) = &record.id {
                self.worker.served.remember(id, served);
            }
        }
        completed
    }

    /// Posts a pair and retries transient failures.
    async fn complete(&self, pair: &Pair<'_>) -> Completed {
        let mut completed = pair.unposted(Outcome::Delivered);
        loop {
            if self.is_expired(pair) {
                return Completed { outcome: Outcome::Expired, ..completed };
            }
            let until = self.time.deadline_or_expiry(pair.message.expires_at);
            let permit = match self.worker.gate.acquire(&pair.connection, until).await {
                Ok(permit) => permit,
                Err(_) if self.is_expired(pair) => {
                    return Completed { outcome: Outcome::Expired, ..completed };
                }
                Err(cause) => return Completed { outcome: Outcome::HandedBack(cause), ..completed },
            };
            let posted_at = permit.began();
            let verdict = self.post(pair).await;
            completed.posts += 1;
            permit.record(match verdict.health() {
                Health::Fails if completed.posts > 1 => Health::StillFails,
                health => health,
            });
            let outcome = match verdict {
                Verdict::Delivered => {
                    let made_at = pair.message.made_at;
                    completed.age = made_at.and_then(|made_at| self.time.now().duration_since(made_at).ok());
                    Outcome::Delivered
                }
                // Boxed, since it is large and rare, and lanes are moved.
                Verdict::NoConnection => Box::pin(self.remove(pair, posted_at)).await,
                Verdict::Rejected(rejection) => Outcome::Rejected(rejection),
                Verdict::HandBack(cause) => {
                    let pause = backoff::in_place_retry(completed.posts, fastrand::f64());
                    let may_retry = cause.is_transient() && completed.posts < backoff::MAX_POSTS;
                    if may_retry && pause < self.time.remaining() {
                        sleep(pause).await;
                        continue;
                    }
                    Outcome::HandedBack(cause)
                }
            };
            return Completed { outcome, ..completed };
        }
    }

    /// Returns whether the message has expired. Reads the clock only for messages that expire, which are few.
    fn is_expired(&self, pair: &Pair<'_>) -> bool {
        pair.message.expires_at.is_some() && pair.message.is_expired(self.time.now())
    }

    async fn post(&self, pair: &Pair<'_>) -> Verdict {
        let post = self.worker.gateway.post(&pair.connection, pair.message.posted_bytes().clone());
        match timeout(self.time.call_timeout(), post).await {
            Ok(answer) => classify(answer),
            Err(_) if self.time.is_past_cutoff() => Verdict::HandBack(Cause::Deadline),
            Err(_) => classify(PostResult::Timeout),
        }
    }

    /// Removes the row of a connection that API Gateway answered with 410, by one conditional delete.
    ///
    /// The row stays if the connection is younger than the connect grace, since API Gateway answers 410 until
    /// `$connect` has succeeded, and if it belongs to another endpoint. Without a table, the message's age counts: its
    /// connections are at least as old.
    async fn remove(&self, pair: &Pair<'_>, posted_at: Instant) -> Outcome {
        let posted_at = self.time.at(posted_at);
        if pair.message.stored.is_some() {
            return self.remove_device(pair, posted_at).await;
        }
        let Worker { table, policy, .. } = self.worker;
        let Some(table) = table else {
            return match policy.may_be_connecting(&self.records[pair.index], posted_at) {
                true => Outcome::HandedBack(Cause::ConnectGrace),
                false => Outcome::Gone,
            };
        };
        match self.remove_row(table, pair, posted_at - policy.connect_grace).await {
            Ok(Removal::Removed) => Outcome::Gone,
            Ok(Removal::TooYoung) => Outcome::HandedBack(Cause::ConnectGrace),
            Ok(Removal::Elsewhere(endpoint)) => Outcome::HandedBack(Cause::Elsewhere(endpoint)),
            Err(cause) => Outcome::HandedBack(cause),
        }
    }

    /// Removes a device that API Gateway answered with 410, and the row of its connection. There is no connect grace:
    /// the client has sent a sync over the connection.
    async fn remove_device(&self, pair: &Pair<'_>, posted_at: SystemTime) -> Outcome {
        let unregister = async {
            let (Some(mailbox), Some(stream)) = (&self.worker.mailbox, pair.message.stream()) else {
                return Ok(());
            };
            let limit = self.time.call_timeout();
            match timeout(limit, mailbox.unregister(&stream, &pair.connection)).await {
                Ok(unregistered) => unregistered.map_err(|error| Cause::Mailbox(error.to_string())),
                Err(_) => Err(no_answer("DeleteItem", limit, self.time)),
            }
        };
        let remove_row = async {
            match &self.worker.table {
                Some(table) => self.remove_row(table, pair, posted_at + CLOCK_TOLERANCE).await.map(drop),
                None => Ok(()),
            }
        };
        match tokio::try_join!(unregister, remove_row) {
            Ok(_) => Outcome::Gone,
            Err(cause) => Outcome::HandedBack(cause),
        }
    }

    /// Removes the row of a connection that was made before `cutoff`.
    async fn remove_row(
        &self,
        table: &ConnectionTable,
        pair: &Pair<'_>,
        cutoff: SystemTime,
    ) -> Result<Removal, Cause> {
        let delete = table.delete_if_older(&pair.connection, cutoff, &self.worker.endpoints);
        match timeout(self.time.call_timeout(), delete).await {
            Ok(removal) => removal.map_err(|error| Cause::Table(error.to_string())),
            Err(_) => Err(self.time.timeout_cause("DeleteItem")),
        }
    }
}

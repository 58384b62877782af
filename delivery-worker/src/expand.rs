//! Resolves audiences to connections.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use futures::{StreamExt as _, stream};
use streamer_message::{Audience, ConnectionId, limits::CONNECTIONS};
use streamer_queue::QueueKind;
use tokio::time::Instant;

use crate::{
    Worker,
    decode::{Message, Pair, Record},
    fan_out::FanOut,
    keep::KeptDevices,
    outcome::{Cause, Completed, Outcome, Rejection},
    policy::Policy,
    source::{Source, SourcePage},
    time::Time,
};

/// Pages that are read to find out whether one message can name all connections of a source.
const FIRST_PAGES: usize = 2;

/// Users and shards that are read concurrently. A batch may have thousands, and Lambda allows a process 1 024 open
/// files, which the posts need, too.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
const SOURCES: usize = 128;

/// Maximum number of pairs of an invocation, unless its first message alone has more. A pair needs about 1 KB, and more
/// posts take minutes.
pub const MAX_PAIRS: usize = 100_000;

/// A batch with its audiences resolved.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expanded<'a> {
    /// The pairs to post, in order of arrival.
    pub pairs: Vec<Pair<'a>>,
    /// Records that completed without a connection.
    pub completed: Vec<Completed>,
    /// Records with large audiences, which become several messages.
    pub fan_outs: Vec<FanOut<'a>>,
}

/// The first pages of a source, or the cause that kept the worker from reading them.
type FirstPages = Result<SourcePage, Cause>;

/// How a message reaches its audience.
enum Route<'a> {
    /// By posts to these connections.
    Post(&'a Message, Vec<ConnectionId>),
    /// By further messages on the outbound queue.
    FanOut(&'a Message, Option<Source<'a>>),
}

/// Resolves each message's audience to connections, each named once, and completes the messages that must not be
/// posted. Reads each user and each shard once, so that all their messages see the same connections. `kept` has the
/// devices for the messages that are to be kept.
pub async fn expand<'a, G>(
    worker: &Worker<G>,
    records: &'a [Record],
    mut kept: KeptDevices,
    time: &Time,
) -> Expanded<'a> {
    let kind = worker.policy.queue_kind;
    let sources: HashSet<_> =
        records.iter().filter_map(|record| source_of(record, kind, time.now())).collect();
    // Messages for connections wait for as long as one call may take.
    let until = Instant::now() + time.call_timeout();
    let read = |source: Source<'a>| async move {
        let pages = match Instant::now() < until {
            true => first_pages(worker, &source, time).await,
            false => Err(Cause::Deadline),
        };
        (source, pages)
    };
    let pages = stream::iter(sources.into_iter().map(read)).buffer_unordered(SOURCES);
    let pages: HashMap<_, _> = pages.collect().await;

    let (mut expanded, mut is_full) = (Expanded::default(), false);
    for (index, record) in records.iter().enumerate().filter(|(_, record)| record.due.is_none()) {
        let route = match record.is_to_be_kept() {
            true => route_kept(&worker.policy, record, kept.remove(&index), time.now()),
            false => route(worker, record, &pages, time.now()),
        };
        match route {
            // The first message is always posted. No later message overtakes one that is handed back.
            Ok(Route::Post(_, connections))
                if is_full
                    || (!expanded.pairs.is_empty()
                        && expanded.pairs.len() + connections.len() > MAX_PAIRS) =>
            {
                is_full = true;
                let outcome = Outcome::HandedBack(Cause::Deadline);
                expanded.completed.push(Completed::unposted(index, None, outcome));
            }
            Ok(Route::Post(message, connections)) => {
                let pair = |connection| Pair { index, message, connection };
                expanded.pairs.extend(connections.into_iter().map(pair));
            }
            Ok(Route::FanOut(message, source)) => expanded.fan_outs.push(FanOut { index, message, source }),
            Err(outcome) => expanded.completed.push(Completed::unposted(index, None, outcome)),
        }
    }
    expanded
}

/// Returns the source to read for a record, if it needs one.
fn source_of(record: &Record, kind: QueueKind, now: SystemTime) -> Option<Source<'_>> {
    let message = record.content.as_ref().ok().filter(|message| !message.is_expired(now))?;
    if record.is_to_be_kept() {
        return None;
    }
    let source = Source::of(message)?;
    (kind == QueueKind::Standard || matches!(source, Source::User(..))).then_some(source)
}

/// Returns the route of a record's message, or the outcome of a record that has none.
fn route<'a, G>(
    Worker { policy, payloads, table, .. }: &Worker<G>,
    record: &'a Record,
    pages: &HashMap<Source<'a>, FirstPages>,
    now: SystemTime,
) -> Result<Route<'a>, Outcome> {
    let message = record.content.as_ref().map_err(|error| Outcome::Poison(error.clone()))?;
    // An expired message needs no dead letter.
    if !message.is_expired(now) {
        let (bytes, limit) = (message.payload.len(), payloads.bytes());
        if bytes > limit {
            return Err(Outcome::Rejected(Rejection::Payload { bytes, limit }));
        }
        if policy.queue_kind == QueueKind::Fifo && policy.is_too_old(record, now) {
            return Err(Outcome::Exhausted(cause_on_fifo(message, pages)));
        }
    }
    let source = match &message.envelope.to {
        Audience::Connection(connection) => return Ok(Route::Post(message, vec![connection.clone()])),
        Audience::Connections(ids) => return Ok(Route::Post(message, distinct(ids.as_slice()))),
        _ if message.is_expired(now) => return Err(Outcome::Expired),
        Audience::Tenant(_) | Audience::Shard { .. } if policy.queue_kind == QueueKind::Fifo => {
            return Err(Outcome::Rejected(Rejection::Audience));
        }
        _ if table.is_none() => return Err(Outcome::Rejected(Rejection::NoTable)),
        Audience::Tenant(_) => return Ok(Route::FanOut(message, None)),
        Audience::User { .. } | Audience::Shard { .. } => Source::of(message),
    };
    let page = source.as_ref().and_then(|source| pages.get(source));
    let page = page.ok_or(Outcome::Expired)?.as_ref().map_err(|cause| Outcome::HandedBack(cause.clone()))?;
    if !page.is_whole() && policy.queue_kind == QueueKind::Standard {
        return Ok(Route::FanOut(message, source));
    }
    let unserved: Vec<_> = page.live.iter().filter(|id| !message.done().contains(id)).cloned().collect();
    match unserved.is_empty() {
        true => Err(policy.unreached(record, page.elsewhere.clone(), now)),
        false => Ok(Route::Post(message, unserved)),
    }
}

/// Returns the route of a message that is to be kept, or its outcome. `devices` are those of the stage
/// [`keep`](mod@crate::keep), which has none for an expired message.
fn route_kept<'a>(
    policy: &Policy,
    record: &'a Record,
    devices: Option<Result<Vec<ConnectionId>, Outcome>>,
    now: SystemTime,
) -> Result<Route<'a>, Outcome> {
    let message = record.content.as_ref().map_err(|error| Outcome::Poison(error.clone()))?;
    let gives_up = policy.queue_kind == QueueKind::Fifo && policy.is_too_old(record, now);
    match devices {
        _ if message.is_expired(now) => Err(Outcome::Expired),
        None => Err(Outcome::Expired),
        // The messages behind it would wait for as long as the mailbox fails.
        Some(Err(Outcome::HandedBack(cause)))
            if gives_up && record.position().is_none() && cause != Cause::Behind =>
        {
            Err(Outcome::Exhausted(cause))
        }
        Some(Err(outcome)) => Err(outcome),
        Some(Ok(devices)) if devices.is_empty() => Err(policy.unreached(record, None, now)),
        Some(Ok(devices)) => Ok(Route::Post(message, devices)),
    }
}

/// Returns the cause for a FIFO queue's message past its age: the queue keeps none, but the table may show it.
fn cause_on_fifo(message: &Message, pages: &HashMap<Source<'_>, FirstPages>) -> Cause {
    let page = Source::of(message).and_then(|source| pages.get(&source)?.as_ref().ok());
    let elsewhere = page.filter(|page| page.live.is_empty()).and_then(|page| page.elsewhere.clone());
    elsewhere.map_or(Cause::UnknownOnFifo, Cause::Elsewhere)
}

fn distinct(ids: &[ConnectionId]) -> Vec<ConnectionId> {
    let is_first = |(index, id): &(usize, &ConnectionId)| !ids[..*index].contains(id);
    ids.iter().enumerate().filter(is_first).map(|(_, id)| id.clone()).collect()
}

/// Reads enough pages of a source to know whether one message can name all its connections. For a FIFO queue, whose
/// messages cannot be fanned out, it reads all pages of a user.
async fn first_pages<G>(worker: &Worker<G>, source: &Source<'_>, time: &Time) -> FirstPages {
    let mut first = source.page(worker, None, time).await?;
    let reads_all = worker.policy.queue_kind == QueueKind::Fifo;
    // DynamoDB may return a cursor with a full page that is the last one.
    let mut pages = 1;
    while first.next.is_some() && (reads_all || (pages < FIRST_PAGES && first.live.len() <= CONNECTIONS)) {
        let SourcePage { live, elsewhere, next } = source.page(worker, first.next.as_ref(), time).await?;
        first.live.extend(live);
        first.elsewhere = first.elsewhere.or(elsewhere);
        first.next = next;
        pages += 1;
    }
    Ok(first)
}

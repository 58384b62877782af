//! From audiences to connections.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use futures::future::join_all;
use streamer_message::{
    Audience, ConnectionId,
    limits::{CONNECTIONS, PAYLOAD_BYTES},
};

use crate::{
    Worker,
    decode::{Message, Record},
    outcome::{Cause, Ended, Outcome, Rejection},
    plan::Order,
    policy::Policy,
    spread::{Found, Source, Spread},
    time::Time,
};

/// Pages that are looked at before a message's way is clear.
const LOOKS: usize = 2;

/// A message and one of the connections that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The record's place in the batch.
    pub place: usize,
    /// The message.
    pub message: &'a Message,
    /// The connection.
    pub connection: ConnectionId,
}

/// What a batch's audiences come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expanded<'a> {
    /// In order of arrival.
    pub pairs: Vec<Pair<'a>>,
    /// Records that ended before they came to a connection.
    pub ended: Vec<Ended>,
    /// Records whose audiences are too large for this: they become messages for their parts.
    pub spreads: Vec<Spread<'a>>,
}

impl Pair<'_> {
    /// Ends it without a post.
    #[must_use]
    pub fn unposted(&self, outcome: Outcome) -> Ended {
        Ended::unposted(self.place, Some(self.connection.clone()), outcome)
    }
}

/// What the first page of a source holds, or why it is not known.
type First = Result<Found, Cause>;

/// Where a message goes from here.
enum Way<'a> {
    /// To these connections.
    Pairs(&'a Message, Vec<ConnectionId>),
    /// To the queue, as messages for its parts.
    Spread(Option<Source<'a>>),
}

/// Names each connection of each message once, and ends what is not to be posted. Each user and each shard is looked
/// for once, so that all its messages see the same connections.
pub async fn expand<'a, G>(worker: &Worker<G>, records: &'a [Record], time: &Time) -> Expanded<'a> {
    let order = worker.policy.order;
    let sources: HashSet<_> =
        records.iter().filter_map(|record| source_of(record, order, time.now())).collect();
    let find = |source: Source<'a>| async move {
        let found = first(worker, &source, time).await;
        (source, found)
    };
    let firsts: HashMap<_, _> = join_all(sources.into_iter().map(find)).await.into_iter().collect();

    let mut expanded = Expanded::default();
    for (place, record) in records.iter().enumerate() {
        match way_of(&worker.policy, record, &firsts, time.now()) {
            Ok(Way::Pairs(message, connections)) => {
                let pair = |connection| Pair { place, message, connection };
                expanded.pairs.extend(connections.into_iter().map(pair));
            }
            Ok(Way::Spread(source)) => expanded.spreads.push(Spread { place, source }),
            Err(outcome) => expanded.ended.push(Ended::unposted(place, None, outcome)),
        }
    }
    expanded
}

/// Where the connections are to be looked for, if anywhere.
fn source_of(record: &Record, order: Order, now: SystemTime) -> Option<Source<'_>> {
    let message = record.content.as_ref().ok().filter(|message| !message.is_expired(now))?;
    let source = Source::of(message)?;
    (order == Order::Connection || matches!(source, Source::User(..))).then_some(source)
}

/// The message and the connections to post to, or how the record ends without them.
fn way_of<'a>(
    policy: &Policy,
    record: &'a Record,
    firsts: &HashMap<Source<'a>, First>,
    now: SystemTime,
) -> Result<Way<'a>, Outcome> {
    let message = record.content.as_ref().map_err(|error| Outcome::Poison(error.clone()))?;
    // What is worthless needs no dead letter.
    if !message.is_expired(now) {
        if message.payload.len() > PAYLOAD_BYTES {
            return Err(Outcome::Rejected(Rejection::Payload(message.payload.len())));
        }
        if policy.order == Order::Group && policy.is_too_old(record, now) {
            return Err(Outcome::Exhausted(why_too_old(message, firsts)));
        }
    }
    let source = match &message.to {
        Audience::Connection(connection) => return Ok(Way::Pairs(message, vec![connection.clone()])),
        Audience::Connections(ids) => return Ok(Way::Pairs(message, each_once(ids.as_slice()))),
        _ if message.is_expired(now) => return Err(Outcome::Expired),
        Audience::Tenant(_) | Audience::Shard { .. } if policy.order == Order::Group => {
            return Err(Outcome::Rejected(Rejection::Audience));
        }
        Audience::Tenant(_) => return Ok(Way::Spread(None)),
        Audience::User { .. } | Audience::Shard { .. } => Source::of(message),
    };
    let first = source.as_ref().and_then(|source| firsts.get(source));
    let first =
        first.ok_or(Outcome::Expired)?.as_ref().map_err(|cause| Outcome::HandedBack(cause.clone()))?;
    if !first.fits() && policy.order == Order::Connection {
        return Ok(Way::Spread(source));
    }
    let unserved: Vec<_> = first.live.iter().filter(|id| !message.done().contains(id)).cloned().collect();
    match unserved.is_empty() {
        true => Err(policy.unreached(record, first.elsewhere.clone(), now)),
        false => Ok(Way::Pairs(message, unserved)),
    }
}

/// Why a FIFO queue's message was not delivered in time: the queue keeps no cause, but the table may.
fn why_too_old(message: &Message, firsts: &HashMap<Source<'_>, First>) -> Cause {
    let first = Source::of(message).and_then(|source| firsts.get(&source)?.as_ref().ok());
    let elsewhere = first.filter(|first| first.live.is_empty()).and_then(|first| first.elsewhere.clone());
    elsewhere.map_or(Cause::Unnoted, Cause::Elsewhere)
}

fn each_once(ids: &[ConnectionId]) -> Vec<ConnectionId> {
    let first = |(place, id): &(usize, &ConnectionId)| !ids[..*place].contains(id);
    ids.iter().enumerate().filter(first).map(|(_, id)| id.clone()).collect()
}

/// The first look at a source: enough to know whether one message could name all. On a FIFO queue, where nothing can be
/// sent in its place, it is all of a user.
async fn first<G>(worker: &Worker<G>, source: &Source<'_>, time: &Time) -> First {
    let mut first = source.page(worker, None, time).await?;
    let whole = worker.policy.order == Order::Group;
    // DynamoDB may say that there is more behind a full page where there is nothing.
    let mut looks = 1;
    while first.next.is_some() && (whole || (looks < LOOKS && first.live.len() <= CONNECTIONS)) {
        let Found { live, elsewhere, next } = source.page(worker, first.next.as_ref(), time).await?;
        first.live.extend(live);
        first.elsewhere = first.elsewhere.or(elsewhere);
        first.next = next;
        looks += 1;
    }
    Ok(first)
}

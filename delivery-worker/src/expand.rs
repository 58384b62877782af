//! From audiences to connections.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use futures::future::join_all;
use streamer_connections::TableError;
use streamer_message::{Audience, ConnectionId, TenantId, UserId, limits::PAYLOAD_BYTES};
use tokio::time::timeout;

use crate::{
    Worker,
    decode::{Message, Record},
    outcome::{Cause, Ended, Outcome, Rejection},
    plan::Order,
    policy::Policy,
    time::Time,
};

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
}

impl Pair<'_> {
    /// Ends it without a post.
    #[must_use]
    pub fn unposted(&self, outcome: Outcome) -> Ended {
        Ended::unposted(self.place, Some(self.connection.clone()), outcome)
    }
}

/// A user, and where to find its connections.
type User<'a> = (&'a TenantId, &'a UserId);

/// A user's live connections, or why they are not known.
type Live = Result<Vec<ConnectionId>, Cause>;

/// Names each connection of each message once, and ends what is not to be posted. Each user is looked for once, so
/// that all its messages see the same connections.
pub async fn expand<'a, G>(worker: &Worker<G>, records: &'a [Record], time: &Time) -> Expanded<'a> {
    let users: HashSet<User<'_>> = records.iter().filter_map(|record| user_of(record, time.now())).collect();
    let find = |user| async move { (user, find(worker, user, time).await) };
    let users: HashMap<_, _> = join_all(users.into_iter().map(find)).await.into_iter().collect();

    let mut expanded = Expanded::default();
    for (place, record) in records.iter().enumerate() {
        let connections = connections_of(&worker.policy, record, &users, time.now());
        match connections {
            Ok((message, connections)) => {
                let pair = |connection| Pair { place, message, connection };
                expanded.pairs.extend(connections.into_iter().map(pair));
            }
            Err(outcome) => expanded.ended.push(Ended::unposted(place, None, outcome)),
        }
    }
    expanded
}

/// The user who is to be looked for.
fn user_of(record: &Record, now: SystemTime) -> Option<User<'_>> {
    match record.content.as_ref().map(|message| (message, &message.to)) {
        Ok((message, Audience::User { tenant, user })) if !message.is_expired(now) => Some((tenant, user)),
        _ => None,
    }
}

/// The message and the connections to post to, or how the record ends without them.
fn connections_of<'a>(
    policy: &Policy,
    record: &'a Record,
    users: &HashMap<User<'_>, Live>,
    now: SystemTime,
) -> Result<(&'a Message, Vec<ConnectionId>), Outcome> {
    let message = record.content.as_ref().map_err(|error| Outcome::Poison(error.clone()))?;
    // What is worthless needs no dead letter.
    if !message.is_expired(now) {
        if message.payload.len() > PAYLOAD_BYTES {
            return Err(Outcome::Rejected(Rejection::Payload(message.payload.len())));
        }
        if policy.order == Order::Group && policy.is_too_old(record, now) {
            return Err(Outcome::Exhausted(Cause::Unnoted));
        }
    }
    match &message.to {
        Audience::Connection(connection) => Ok((message, vec![connection.clone()])),
        Audience::Connections(connections) => Ok((message, each_once(connections.as_slice()))),
        Audience::User { tenant, user } => {
            // Nobody was looked for where every message for the user had expired.
            let live =
                users.get(&(tenant, user)).filter(|_| !message.is_expired(now)).ok_or(Outcome::Expired)?;
            let live = live.as_ref().map_err(|cause| Outcome::HandedBack(cause.clone()))?;
            let unserved: Vec<_> = live.iter().filter(|id| !message.done().contains(id)).cloned().collect();
            if unserved.is_empty() {
                return Err(policy.nobody(record, now));
            }
            Ok((message, unserved))
        }
        Audience::Tenant(_) | Audience::Shard { .. } => Err(Outcome::Rejected(Rejection::Audience)),
    }
}

fn each_once(ids: &[ConnectionId]) -> Vec<ConnectionId> {
    let first = |(place, id): &(usize, &ConnectionId)| !ids[..*place].contains(id);
    ids.iter().enumerate().filter(first).map(|(_, id)| id.clone()).collect()
}

/// Finds a user's live connections, within the time of a call.
async fn find<G>(worker: &Worker<G>, user: User<'_>, time: &Time) -> Live {
    if time.left().is_zero() {
        return Err(Cause::Deadline);
    }
    match timeout(time.call(), live(worker, user, time.now())).await {
        Ok(Ok(live)) => Ok(live),
        Ok(Err(error)) => Err(Cause::Table(error.to_string())),
        Err(_) => Err(time.late("Query")),
    }
}

/// A user's live connections at the worker's endpoint.
async fn live<G>(
    worker: &Worker<G>,
    (tenant, user): User<'_>,
    now: SystemTime,
) -> Result<Vec<ConnectionId>, TableError> {
    let (mut live, mut elsewhere, mut after) = (Vec::new(), None, None);
    loop {
        let page = worker.table.by_user(tenant, user, after.as_ref(), now).await?;
        for connection in page.connections {
            if connection.endpoint == worker.endpoint {
                live.push(connection.connection_id);
            } else {
                elsewhere = Some(connection.endpoint);
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if let Some(endpoint) = elsewhere.filter(|_| live.is_empty()) {
        let here = &worker.endpoint;
        tracing::warn!(
            endpoint,
            here,
            "a user is connected elsewhere only: is WEBSOCKET_ENDPOINT the same for all?"
        );
    }
    Ok(live)
}

//! From audiences to connections.

use std::time::SystemTime;

use futures::future::join_all;
use streamer_connections::TableError;
use streamer_message::{Audience, ConnectionId, TenantId, UserId, limits::PAYLOAD_BYTES};
use tokio::time::timeout;

use crate::{
    Worker,
    decode::{Message, Record},
    outcome::{Cause, Ended, Outcome, Rejection},
    plan::Order,
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

/// Names each connection of each message once, and ends what is not to be posted.
pub async fn expand<'a, G>(worker: &Worker<G>, records: &'a [Record], time: &Time) -> Expanded<'a> {
    let connections = join_all(records.iter().map(|record| connections_of(worker, record, time))).await;
    let mut expanded = Expanded::default();
    for (place, (record, connections)) in records.iter().zip(connections).enumerate() {
        match (&record.content, connections) {
            (Ok(message), Ok(connections)) => {
                let pair = |connection| Pair { place, message, connection };
                expanded.pairs.extend(connections.into_iter().map(pair));
            }
            (Err(error), _) => {
                expanded.ended.push(Ended::unposted(place, None, Outcome::Poison(error.clone())));
            }
            (_, Err(outcome)) => expanded.ended.push(Ended::unposted(place, None, outcome)),
        }
    }
    expanded
}

/// The connections to post to, or how the record ends without them.
async fn connections_of<G>(
    worker: &Worker<G>,
    record: &Record,
    time: &Time,
) -> Result<Vec<ConnectionId>, Outcome> {
    let message = record.content.as_ref().map_err(|error| Outcome::Poison(error.clone()))?;
    if message.payload.len() > PAYLOAD_BYTES {
        return Err(Outcome::Rejected(Rejection::Payload(message.payload.len())));
    }
    if worker.policy.order == Order::Group && worker.policy.is_too_old(record, time.now()) {
        return Err(Outcome::Exhausted(Cause::Unnoted));
    }
    match &message.to {
        Audience::Connection(connection) => Ok(vec![connection.clone()]),
        Audience::Connections(connections) => Ok(each_once(connections.as_slice())),
        Audience::User { .. } if message.is_expired(time.now()) => Err(Outcome::Expired),
        Audience::User { tenant, user } => {
            let queried = timeout(time.left(), live(worker, tenant, user, time.now())).await;
            let live = queried.map_err(|_| Outcome::HandedBack(Cause::Deadline))?;
            let live = live.map_err(|error| Outcome::HandedBack(Cause::Table(error.to_string())))?;
            let unserved: Vec<_> = live.into_iter().filter(|id| !message.done().contains(id)).collect();
            if unserved.is_empty() {
                return Err(worker.policy.nobody(record, time.now()));
            }
            Ok(unserved)
        }
        Audience::Tenant(_) | Audience::Shard { .. } => Err(Outcome::Rejected(Rejection::Audience)),
    }
}

fn each_once(ids: &[ConnectionId]) -> Vec<ConnectionId> {
    let first = |(place, id): &(usize, &ConnectionId)| !ids[..*place].contains(id);
    ids.iter().enumerate().filter(first).map(|(_, id)| id.clone()).collect()
}

/// A user's live connections at the worker's endpoint.
async fn live<G>(
    worker: &Worker<G>,
    tenant: &TenantId,
    user: &UserId,
    now: SystemTime,
) -> Result<Vec<ConnectionId>, TableError> {
    let (mut live, mut after) = (Vec::new(), None);
    loop {
        let page = worker.table.by_user(tenant, user, after.as_ref(), now).await?;
        let here = page.connections.into_iter().filter(|connection| connection.endpoint == worker.endpoint);
        live.extend(here.map(|connection| connection.connection_id));
        after = page.next;
        if after.is_none() {
            return Ok(live);
        }
    }
}

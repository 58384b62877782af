//! A connection table with any number of rows, which are generated when they are read and need no memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use streamer_connections::{ConnectionTable, TenantShards};
use tokio::time::sleep;

use super::input;
use crate::{event::EPOCH_MILLIS, worker::ENDPOINT};

/// A connection table with any number of generated rows.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// Number of connections by index key.
    rows: Arc<BTreeMap<String, usize>>,
    /// Largest page, unless the query's limit is smaller.
    page: usize,
    /// Latency of a query.
    each: Duration,
    queries: Arc<AtomicUsize>,
    rows_read: Arc<AtomicUsize>,
}

impl Crowd {
    /// Creates a table with these numbers of connections for tenants, evenly over 8 shards, and users
    /// (`tenant#user`).
    pub fn new<const N: usize>(audiences: [(&str, usize); N]) -> Self {
        let mut rows = BTreeMap::new();
        for (name, number) in audiences {
            if name.contains('#') {
                rows.insert(name.to_owned(), number);
                continue;
            }
            let shards = usize::from(TenantShards::DEFAULT.count());
            rows.extend((0..shards).map(|shard| {
                (format!("{name}#{shard}"), number / shards + usize::from(shard < number % shards))
            }));
        }
        let (queries, rows_read) = (Arc::default(), Arc::default());
        Self { rows: Arc::new(rows), page: usize::MAX, each: Duration::ZERO, queries, rows_read }
    }

    /// Sets the largest page and the latency of a query.
    #[must_use]
    pub fn paged(self, page: usize, each: Duration) -> Self {
        Self { page, each, ..self }
    }

    /// Returns the number of queries so far, and of rows that they read.
    #[must_use]
    pub fn read(&self) -> (usize, usize) {
        (self.queries.load(Ordering::Relaxed), self.rows_read.load(Ordering::Relaxed))
    }

    /// Returns the ids of a key's connections.
    #[must_use]
    pub fn ids(&self, key: &str) -> Vec<String> {
        (0..self.rows.get(key).copied().unwrap_or_default()).map(|row| id(key, row)).collect()
    }

    /// Returns a client of the table.
    #[must_use]
    pub fn client(&self) -> ConnectionTable {
        let connector = SharedHttpConnector::new(self.clone());
        let config = aws_sdk_dynamodb::Config::builder().with_test_defaults_v2();
        let http = http_client_fn(move |_, _| connector.clone());
        ConnectionTable::new(
            aws_sdk_dynamodb::Client::from_conf(config.http_client(http).build()),
            "connections",
        )
    }

    fn answer(&self, query: &Value) -> String {
        let key = query["ExpressionAttributeValues"][":value"]["S"].as_str().unwrap_or_default();
        let attribute = query["ExpressionAttributeNames"]["#key"].as_str().unwrap_or_default();
        let after = query["ExclusiveStartKey"]["connection_id"]["S"].as_str();
        let from =
            after.and_then(|after| after.rsplit('-').next()?.parse::<usize>().ok()).map_or(0, |row| row + 1);
        let limit =
            query["Limit"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let all = self.rows.get(key).copied().unwrap_or_default();
        let to = from.saturating_add(limit.min(self.page)).min(all);
        let items: Vec<_> = (from..to).map(|row| item(&id(key, row))).collect();
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.rows_read.fetch_add(items.len(), Ordering::Relaxed);
        let (rows, items) = (items.len(), items.join(","));
        // DynamoDB returns a key after every full page, even the last one.
        let last = match to > from && to - from == limit.min(self.page) {
            true => {
                let last = id(key, to - 1);
                let last = json!({ attribute: { "S": key }, "connection_id": { "S": last } });
                format!(r#","LastEvaluatedKey":{last}"#)
            }
            false => String::new(),
        };
        format!(r#"{{"Count":{rows},"ScannedCount":{rows},"Items":[{items}]{last}}}"#)
    }
}

fn id(key: &str, row: usize) -> String {
    format!("{key}-{row}")
}

/// Writes a row, without a tree of values: a broadcast to a million connections reads each of its rows.
fn item(id: &str) -> String {
    let (connected_at, expires_at) = (EPOCH_MILLIS - 60_000, EPOCH_MILLIS / 1000 + 7800);
    format!(
        r#"{{"connection_id":{{"S":"{id}"}},"user_id":{{"S":"anna"}},"endpoint":{{"S":"{ENDPOINT}"}},"connected_at":{{"N":"{connected_at}"}},"expires_at":{{"N":"{expires_at}"}}}}"#
    )
}

impl HttpConnector for Crowd {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (crowd, query) = (self.clone(), input(&request));
        HttpConnectorFuture::new(async move {
            sleep(crowd.each).await;
            let answer = crowd.answer(&query);
            #[expect(clippy::unwrap_used, reason = "200 is a status")]
            Ok(HttpResponse::new(200.try_into().unwrap(), SdkBody::from(answer)))
        })
    }
}

//! Lists of live connections, page by page, and rows that outlive their sockets.

use std::time::{Duration, SystemTime};

use streamer_connections::{Connection, Live, Liveness, Scope, TenantShards};
use streamer_message::{ConnectionId, TenantId};
use streamer_tests::doubles::{LONG_AGO, TableDouble, connection};

fn id(text: &str) -> ConnectionId {
    text.try_into().unwrap()
}

async fn live(table: &TableDouble, scope: &Scope) -> Vec<String> {
    live_in(table, TenantShards::DEFAULT, scope).await
}

/// Lists connections as a program does that reads so many shards of a tenant.
async fn live_in(table: &TableDouble, shards: TenantShards, scope: &Scope) -> Vec<String> {
    let (table, now) = (table.client().with_shards(shards), SystemTime::now());
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = table.live(scope, cursor.as_ref(), now).await.unwrap();
        let text = |live: Live| format!("{}/{}", live.tenant_id, live.connection.connection_id);
        found.extend(page.connections.into_iter().map(text));
        pages += 1;
        assert!(pages < 400, "no last page");
        cursor = page.next;
        if cursor.is_none() {
            found.sort_unstable();
            return found;
        }
    }
}

#[tokio::test]
async fn scopes_list_their_live_connections() {
    let (table, now) = (TableDouble::default().with_pages_of(3), SystemTime::now());
    let of = |id: &str, tenant: &str, user: &str| {
        let (tenant_id, user_id) = (tenant.try_into().unwrap(), user.try_into().unwrap());
        Connection { tenant_id, user_id, ..connection(id, now) }
    };
    // Enough rows for every shard.
    for number in 0..40 {
        table
            .client()
            .put(&of(&format!("c{number:02}"), "acme", if number < 3 { "anna" } else { "bob" }))
            .await
            .unwrap();
    }
    table.client().put(&of("other", "globex", "anna")).await.unwrap();
    table.client().put(&Connection { expires_at: now, ..of("expired", "acme", "anna") }).await.unwrap();

    let (acme, anna) = (TenantId::new("acme").unwrap(), "anna".try_into().unwrap());
    let all: Vec<_> = (0..40).map(|number| format!("acme/c{number:02}")).collect();
    assert_eq!(live(&table, &Scope::Tenant(acme.clone())).await, all);
    assert_eq!(live(&table, &Scope::User(acme, anna)).await, all[..3]);
    let every: Vec<_> = all.into_iter().chain(["globex/other".to_owned()]).collect();
    assert_eq!(live(&table, &Scope::All).await, every);
}

#[tokio::test]
async fn liveness_distinguishes_missing_stale_and_live() {
    let (table, now) = (TableDouble::default(), SystemTime::now());
    let ended = Connection { expires_at: now, ..connection("ended", now - LONG_AGO) };
    let there = connection("there", now);
    for row in [&ended, &there] {
        table.client().put(row).await.unwrap();
    }
    let liveness = async |text: &str, now| table.client().liveness(&id(text), now).await.unwrap();
    assert_eq!(liveness("nowhere", now).await, Liveness::NotFound);
    assert_eq!(liveness("ended", now).await, Liveness::Stale);
    assert!(
        matches!(liveness("there", now).await, Liveness::Live(found) if found.connection_id == there.connection_id)
    );
    // A socket whose `$disconnect` was lost counts as live until its row expires, 2 h 10 min after `$connect`.
    assert_eq!(liveness("there", now + Duration::from_secs(7800)).await, Liveness::Stale);
    assert!(TableDouble::failing().client().liveness(&id("there"), now).await.is_err());
}

/// A list has every row once, whatever number of shards it was written with.
#[tokio::test]
async fn list_spans_numbers_of_shards() {
    let (table, now) = (TableDouble::default().with_pages_of(3), SystemTime::now());
    let shards = |count| TenantShards::new(count).unwrap();
    let acme = Scope::Tenant(TenantId::new("acme").unwrap());
    let mut all = Vec::new();
    for count in [8, 64, 1, 256, 8] {
        for number in 0..20 {
            let id = format!("{:02}-{count}-{number}", all.len() / 20);
            table.client().with_shards(shards(count)).put(&connection(&id, now)).await.unwrap();
            all.push(format!("acme/{id}"));
        }
    }
    all.sort_unstable();
    assert_eq!(live_in(&table, TenantShards::MAX, &acme).await, all);
    assert!(live_in(&table, shards(64), &acme).await.len() < all.len(), "rows are in later shards");
}

//! The limit on the connections of a user.

use std::time::{Duration, SystemTime};

use connect_handler::{
    ConnectHandler,
    config::Access,
    keys::PublicKey,
    limit::ConnectionLimit,
    rules::{Audience, Rules},
    verify::{Keys, Verifier},
};
use serde_json::json;
use streamer_cli::stack::issuer::{ISSUER, Issuer};
use streamer_connections::{CONNECT_GRACE, Connection};
use streamer_events::WebSocketEvent;
use streamer_tests::{
    doubles::{ManagementDouble, TableDouble, connection},
    event::connect,
    worker::{ENDPOINT, telemetry},
};

use crate::setup::claims;

/// Writes rows of the user anna, each made a minute after the previous one.
async fn put_rows(table: &TableDouble, ids: &[&str]) {
    for (minute, id) in ids.iter().enumerate() {
        let at = SystemTime::now() - Duration::from_secs(3600) + Duration::from_secs(60 * minute as u64);
        table.client().put(&connection(id, at)).await.unwrap();
    }
}

fn event(id: &str, issuer: &Issuer) -> WebSocketEvent {
    let mut event = connect(Some(&issuer.sign(&claims(&json!({ "aud": null }))).unwrap()));
    event.connection_id = Some(id.to_owned());
    event
}

fn handler(table: &TableDouble, api: &ManagementDouble, maximum: usize, issuer: &Issuer) -> ConnectHandler {
    let limit = ConnectionLimit::new(maximum.try_into().unwrap(), CONNECT_GRACE, api.config());
    limited(table, limit, issuer)
}

fn limited(table: &TableDouble, limit: ConnectionLimit, issuer: &Issuer) -> ConnectHandler {
    let verifier = Verifier::new(
        Keys::One(PublicKey::from_pem(&issuer.public_key).unwrap()),
        Rules::of(ISSUER, Audience::None),
    );
    let access = Access { endpoint: Some(ENDPOINT.to_owned()), ..Access::default() };
    ConnectHandler::new(table.client(), verifier, access, Some(limit), telemetry("connect-handler"))
}

fn deletes(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| format!("DELETE {ENDPOINT}/@connections/{id}")).collect()
}

#[tokio::test]
async fn oldest_connections_over_limit_are_closed() {
    let (table, api, issuer) =
        (TableDouble::default(), ManagementDouble::new(|_| 204), Issuer::generate().unwrap());
    put_rows(&table, &["d", "a", "c", "b"]).await;
    let response = handler(&table, &api, 3, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(response.status_code, 200);
    assert_eq!(api.requests(), deletes(&["d", "a"]));
    assert_eq!(table.connections(), ["b", "c", "new"]);
}

#[tokio::test]
async fn other_users_and_apis_do_not_count() {
    let (table, api, issuer) =
        (TableDouble::default(), ManagementDouble::new(|_| 204), Issuer::generate().unwrap());
    put_rows(&table, &["a", "b"]).await;
    // Connections of another user, and of another API.
    let others = [
        Connection { user_id: "bob".try_into().unwrap(), ..connection("bobs", SystemTime::now()) },
        Connection {
            endpoint: "https://other.example.com/x".to_owned(),
            ..connection("elsewhere", SystemTime::now())
        },
    ];
    for other in others {
        table.client().put(&other).await.unwrap();
    }
    handler(&table, &api, 3, &issuer).handle(event("new", &issuer)).await;
    // The event is repeated.
    handler(&table, &api, 3, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(api.requests(), deletes(&[]));
}

/// A socket may outlive its token, and with it its row.
#[tokio::test]
async fn connections_with_expired_rows_count() {
    let (table, api, issuer) =
        (TableDouble::default(), ManagementDouble::new(|_| 204), Issuer::generate().unwrap());
    let long_ago = SystemTime::now() - Duration::from_secs(600);
    let expired =
        Connection { expires_at: long_ago + Duration::from_secs(60), ..connection("old", long_ago) };
    table.client().put(&expired).await.unwrap();
    handler(&table, &api, 1, &issuer).handle(event("new", &issuer)).await;
    assert_eq!((api.requests(), table.connections()), (deletes(&["old"]), vec!["new".to_owned()]));
}

/// API Gateway answers 410 for a connection until its `$connect` has been answered.
#[tokio::test]
async fn establishing_connection_keeps_row_and_socket() {
    let issuer = Issuer::generate().unwrap();
    let (table, api) = (TableDouble::default(), ManagementDouble::new(|_| 410));
    table
        .client()
        .put(&connection("establishing", SystemTime::now() - Duration::from_secs(1)))
        .await
        .unwrap();
    handler(&table, &api, 1, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(
        (api.requests(), table.connections()),
        (deletes(&["establishing"]), vec!["establishing".to_owned(), "new".to_owned()])
    );

    // Of concurrent connections, only the youngest closes others.
    let (table, api) = (TableDouble::default(), ManagementDouble::new(|_| 204));
    for younger in ["younger", "youngest"] {
        table.client().put(&connection(younger, SystemTime::now() + Duration::from_secs(60))).await.unwrap();
    }
    handler(&table, &api, 1, &issuer).handle(event("older", &issuer)).await;
    assert_eq!(
        (api.requests(), table.connections()),
        (deletes(&[]), vec!["older".to_owned(), "younger".to_owned(), "youngest".to_owned()])
    );
}

#[tokio::test]
async fn configured_connect_grace_applies() {
    let (table, api, issuer) =
        (TableDouble::default(), ManagementDouble::new(|_| 410), Issuer::generate().unwrap());
    let minute_ago = SystemTime::now() - Duration::from_secs(60);
    for (connect_grace, left) in [(120, vec!["new", "old"]), (30, vec!["new"])] {
        table.client().put(&connection("old", minute_ago)).await.unwrap();
        let limit =
            ConnectionLimit::new(1.try_into().unwrap(), Duration::from_secs(connect_grace), api.config());
        limited(&table, limit, &issuer).handle(event("new", &issuer)).await;
        assert_eq!(table.connections(), left, "{connect_grace}");
    }
}

/// Endpoints are compared as the worker compares them: the case of the host and a default port do not count.
#[tokio::test]
async fn equivalent_endpoints_count() {
    let (table, api, issuer) =
        (TableDouble::default(), ManagementDouble::new(|_| 204), Issuer::generate().unwrap());
    let endpoint = ENDPOINT.replacen("https://", "HTTPS://", 1);
    let old = Connection { endpoint, ..connection("old", SystemTime::now() - Duration::from_secs(60)) };
    table.client().put(&old).await.unwrap();
    handler(&table, &api, 1, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(table.connections(), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn failed_query_does_not_refuse_client() {
    let issuer = Issuer::generate().unwrap();
    let table = TableDouble::default().refusing_queries();
    let api = ManagementDouble::new(|_| 204);
    let response = handler(&table, &api, 1, &issuer).handle(event("new", &issuer)).await;
    assert_eq!((response.status_code, api.requests()), (200, deletes(&[])));
}

#[tokio::test]
async fn gone_connection_loses_row_open_keeps_it() {
    let issuer = Issuer::generate().unwrap();
    let table = TableDouble::default();
    put_rows(&table, &["a", "b", "c"]).await;
    let api = ManagementDouble::new(|url| if url.ends_with("/a") { 410 } else { 403 });
    let response = handler(&table, &api, 1, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(response.status_code, 200, "a failure does not refuse the client");
    assert_eq!(api.requests(), deletes(&["a", "b", "c"]));
    assert_eq!(table.connections(), ["b", "c", "new"]);
}

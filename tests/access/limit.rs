//! How many connections a user may have.

use std::time::{Duration, SystemTime};

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use connect_handler::{
    ConnectHandler,
    config::Access,
    keys::PublicKey,
    limit::ConnectionLimit,
    verify::{Keys, Verifier},
};
use serde_json::json;
use streamer_cli::stack::issuer::{ISSUER, Issuer};
use streamer_tests::{
    doubles::{ManagementDouble, TableDouble, connection},
    event::connect,
    worker::{ENDPOINT, telemetry},
};

use crate::claims;

/// Rows of anna's, each made a minute after the one before.
async fn rows(table: &TableDouble, ids: &[&str]) {
    for (minute, id) in ids.iter().enumerate() {
        let at = SystemTime::now() - Duration::from_secs(3600) + Duration::from_secs(60 * minute as u64);
        table.client().put(&connection(id, at)).await.unwrap();
    }
}

fn event(id: &str, issuer: &Issuer) -> ApiGatewayWebsocketProxyRequest {
    let mut event = connect(Some(&issuer.sign(&claims(&json!({}))).unwrap()));
    event.request_context.connection_id = Some(id.to_owned());
    event
}

fn handler(table: &TableDouble, api: &ManagementDouble, maximum: usize, issuer: &Issuer) -> ConnectHandler {
    let verifier =
        Verifier::new(Keys::One(PublicKey::from_pem(&issuer.public_key).unwrap()), Some(ISSUER), None);
    let access = Access { endpoint: Some(ENDPOINT.to_owned()), ..Access::default() };
    let limit = ConnectionLimit::new(maximum.try_into().unwrap(), api.config());
    ConnectHandler::new(table.client(), verifier, access, Some(limit), telemetry("connect-handler"))
}

fn closing(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| format!("DELETE {ENDPOINT}/@connections/{id}")).collect()
}

#[tokio::test]
async fn the_oldest_are_closed_for_the_newest() {
    let (table, api, issuer) =
        (TableDouble::default(), ManagementDouble::new(|_| 204), Issuer::generate().unwrap());
    rows(&table, &["d", "a", "c", "b"]).await;
    let response = handler(&table, &api, 3, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(response.status_code, 200);
    assert_eq!(api.asked(), closing(&["d", "a"]));
    assert_eq!(table.connections(), ["b", "c", "new"]);
}

#[tokio::test]
async fn nobody_is_closed_who_may_stay() {
    let (table, api, issuer) =
        (TableDouble::default(), ManagementDouble::new(|_| 204), Issuer::generate().unwrap());
    rows(&table, &["a", "b"]).await;
    // Another user's, another API's, and one that has expired.
    let others = [
        streamer_connections::Connection {
            user_id: "bob".try_into().unwrap(),
            ..connection("bobs", SystemTime::UNIX_EPOCH)
        },
        streamer_connections::Connection {
            endpoint: "https://other.example.com/x".to_owned(),
            ..connection("elsewhere", SystemTime::now())
        },
        streamer_connections::Connection {
            expires_at: SystemTime::now(),
            ..connection("expired", SystemTime::now())
        },
    ];
    for other in others {
        table.client().put(&other).await.unwrap();
    }
    handler(&table, &api, 3, &issuer).handle(event("new", &issuer)).await;
    // The event comes again.
    handler(&table, &api, 3, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(api.asked(), closing(&[]));
}

#[tokio::test]
async fn a_socket_that_is_gone_already_loses_its_row_and_one_that_cannot_be_closed_keeps_it() {
    let issuer = Issuer::generate().unwrap();
    let table = TableDouble::default();
    rows(&table, &["a", "b", "c"]).await;
    let api = ManagementDouble::new(|url| if url.ends_with("/a") { 410 } else { 403 });
    let response = handler(&table, &api, 1, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(response.status_code, 200, "nobody is kept out for it");
    assert_eq!(api.asked(), closing(&["a", "b", "c"]));
    assert_eq!(table.connections(), ["b", "c", "new"]);
}

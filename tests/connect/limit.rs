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
use streamer_connections::Connection;
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
    let mut event = connect(Some(&issuer.sign(&claims(&json!({ "aud": null }))).unwrap()));
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
    // Another user's, and another API's.
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
    // The event comes again.
    handler(&table, &api, 3, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(api.asked(), closing(&[]));
}

/// A socket may outlive its token, and so its row.
#[tokio::test]
async fn those_whose_rows_have_expired_count() {
    let (table, api, issuer) =
        (TableDouble::default(), ManagementDouble::new(|_| 204), Issuer::generate().unwrap());
    let long_ago = SystemTime::now() - Duration::from_secs(600);
    let expired =
        Connection { expires_at: long_ago + Duration::from_secs(60), ..connection("old", long_ago) };
    table.client().put(&expired).await.unwrap();
    handler(&table, &api, 1, &issuer).handle(event("new", &issuer)).await;
    assert_eq!((api.asked(), table.connections()), (closing(&["old"]), vec!["new".to_owned()]));
}

/// Until its `$connect` has answered a connection answers 410, and is not gone.
#[tokio::test]
async fn one_that_is_still_being_made_keeps_its_row_and_its_socket() {
    let issuer = Issuer::generate().unwrap();
    let (table, api) = (TableDouble::default(), ManagementDouble::new(|_| 410));
    table.client().put(&connection("being-made", SystemTime::now() - Duration::from_secs(1))).await.unwrap();
    handler(&table, &api, 1, &issuer).handle(event("new", &issuer)).await;
    assert_eq!(
        (api.asked(), table.connections()),
        (closing(&["being-made"]), vec!["being-made".to_owned(), "new".to_owned()])
    );

    // Of those that see each other only the younger closes the others.
    let (table, api) = (TableDouble::default(), ManagementDouble::new(|_| 204));
    for younger in ["younger", "youngest"] {
        table.client().put(&connection(younger, SystemTime::now() + Duration::from_secs(60))).await.unwrap();
    }
    handler(&table, &api, 1, &issuer).handle(event("older", &issuer)).await;
    assert_eq!(
        (api.asked(), table.connections()),
        (closing(&[]), vec!["older".to_owned(), "younger".to_owned(), "youngest".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_is_kept_out_since_the_others_cannot_be_counted() {
    let issuer = Issuer::generate().unwrap();
    let refuses_queries = TableDouble::default().refusing_queries();
    let api = ManagementDouble::new(|_| 204);
    let response = handler(&refuses_queries, &api, 1, &issuer).handle(event("new", &issuer)).await;
    assert_eq!((response.status_code, api.asked()), (200, closing(&[])));
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

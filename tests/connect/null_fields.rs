//! Events of `$connect` and `$disconnect` with fields that are null, absent or of another type.

use disconnect_handler::DisconnectHandler;
use serde_json::{Value, json};
use streamer_tests::{
    doubles::{TableDouble, connection},
    event::{CONNECTION, connect_json, disconnect_json},
    worker::telemetry,
};

use crate::{
    HOUR, refusal,
    refusals::{event, rig},
    setup::{access, claims, logged},
};

/// Absent, null, or of another type.
fn forms() -> [Option<Value>; 4] {
    [None, Some(json!(null)), Some(json!([])), Some(json!("text"))]
}

fn change(event: &mut Value, field: &str, form: Option<Value>) {
    let (object, name) = match field.split_once('.') {
        Some((object, name)) => (&mut event[object], name),
        None => (event, field),
    };
    let object = object.as_object_mut().unwrap();
    match form {
        Some(value) => _ = object.insert(name.to_owned(), value),
        None => _ = object.remove(name),
    }
}

/// The token is in a header, so none of these fields is needed.
#[tokio::test]
async fn connect_needs_no_other_field() {
    let rig = rig(Some("streamer"), access());
    let token = rig.issuer.sign(&claims(&json!({}))).unwrap();
    let fields = [
        "multiValueHeaders",
        "queryStringParameters",
        "multiValueQueryStringParameters",
        "pathParameters",
        "stageVariables",
        "body",
        "isBase64Encoded",
        "requestContext.identity",
        "requestContext.authorizer",
        "requestContext.connectedAt",
        "requestContext.requestTimeEpoch",
        "requestContext.routeKey",
        "requestContext.eventType",
        "requestContext.domainName",
    ];
    for (field, form) in fields.iter().flat_map(|field| forms().map(|form| (field, form))) {
        let mut json = connect_json(Some(&token));
        change(&mut json, field, form.clone());
        assert_eq!(rig.handler.handle(event(&json)).await.status_code, 200, "{field} {form:?}");
    }
}

/// Without headers there is no token, and without a context no connection: the client is refused, and no row is written.
#[tokio::test]
async fn connect_without_headers_or_context_is_refused() {
    let rig = rig(Some("streamer"), access());
    let token = rig.issuer.sign(&claims(&json!({}))).unwrap();
    for form in forms() {
        let mut json = connect_json(Some(&token));
        change(&mut json, "headers", form.clone());
        let response = rig.handler.handle(event(&json)).await;
        assert_eq!(refusal(&response), (401, "token_missing".to_owned()), "{form:?}");

        let mut json = connect_json(Some(&token));
        change(&mut json, "requestContext", form.clone());
        let (response, log) = logged(rig.handler.handle(event(&json))).await;
        assert_eq!(refusal(&response), (500, "internal".to_owned()), "{form:?}");
        assert!(log.contains("the event has no requestContext.connectionId: "), "{log}");
    }
    for all in [json!({}), json!([]), json!(null)] {
        assert_eq!(refusal(&rig.handler.handle(event(&all)).await), (401, "token_missing".to_owned()));
    }
    assert!(rig.table.rows().is_empty());
}

/// No row is removed, and the log says so instead of a connection that ended.
#[tokio::test]
async fn disconnect_without_connection_id_is_logged() {
    let table = TableDouble::default();
    let row = connection(CONNECTION, std::time::SystemTime::now() - HOUR);
    table.client().put(&row).await.unwrap();
    let handler = DisconnectHandler::new(table.client(), telemetry("disconnect-handler"));
    let without = ["requestContext", "requestContext.connectionId"];
    for (field, form) in without.iter().flat_map(|field| forms().map(|form| (field, form))) {
        if (*field, &form) == ("requestContext.connectionId", &Some(json!("text"))) {
            continue;
        }
        let mut json = disconnect_json();
        change(&mut json, field, form.clone());
        let (response, log) = logged(handler.handle(event(&json))).await;
        assert_eq!(response.status_code, 200, "{field} {form:?}");
        assert!(log.contains("has no valid requestContext.connectionId"), "{log}");
        assert!(!log.contains("already gone"), "{log}");
    }
    assert_eq!(table.connections(), [CONNECTION]);
}

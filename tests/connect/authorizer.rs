//! Clients that a Lambda authorizer on `$connect` has let in.

use connect_handler::{ConnectHandler, config::Config};
use serde_json::{Value, json};
use streamer_environment::Environment;
use streamer_events::WebSocketEvent;
use streamer_tests::{
    doubles::TableDouble,
    event::{CONNECTION, connect_json},
};

use crate::{
    refusal,
    setup::{configured, logged},
    text,
};

const SOURCE: (&str, &str) = ("IDENTITY_SOURCE", "authorizer");

fn handler(variables: &[(&'static str, &'static str)], table: &TableDouble) -> ConnectHandler {
    configured(variables.iter().copied().chain([SOURCE]), table)
}

/// Returns an event with this context, and with a token that counts for nothing.
fn event(context: &Value) -> WebSocketEvent {
    let mut event = connect_json(Some("not.a.token"));
    event["requestContext"]["authorizer"] = context.clone();
    serde_json::from_str(&event.to_string()).unwrap()
}

#[tokio::test]
async fn context_names_user_tenant_and_permissions() {
    let mapped = [("USER_CLAIM", "userId"), ("TENANT_CLAIM", "customer"), ("PERMISSIONS_CLAIM", "scopes")];
    for (variables, context, user, tenant, permissions) in [
        (
            &[][..],
            json!({ "principalId": "anna", "tenant_id": "acme", "permissions": "read write", "integrationLatency": 7 }),
            "anna",
            "acme",
            &["read", "write"][..],
        ),
        (
            &mapped[..],
            json!({ "principalId": "p", "userId": 42, "customer": "7", "scopes": "chat" }),
            "42",
            "7",
            &["chat"],
        ),
        (&[("DEFAULT_TENANT", "acme")], json!({ "principalId": "anna" }), "anna", "acme", &[]),
    ] {
        let table = TableDouble::default();
        let response = handler(variables, &table).handle(event(&context)).await;
        assert_eq!(response.status_code, 200, "{context}: {response:?}");
        let row = table.rows().remove(CONNECTION).unwrap();
        assert_eq!((text(&row, "user_id").as_str(), text(&row, "tenant_id").as_str()), (user, tenant));
        let mut found = row.get("permissions").map(|set| set.as_ss().unwrap().clone()).unwrap_or_default();
        found.sort_unstable();
        assert_eq!(found, permissions, "{context}");
    }
}

#[tokio::test]
async fn incomplete_context_is_refused_and_named() {
    let table = TableDouble::default();
    let handler = handler(&[("REQUIRED_PERMISSION", "chat")], &table);
    for (context, expected, problem) in [
        (Value::Null, (500, "authorizer_missing"), "problem=\"$connect has no authorizer"),
        (json!("anna"), (500, "authorizer_missing"), "problem=\"$connect has no authorizer"),
        (
            json!({ "tenant_id": "acme" }),
            (401, "invalid_claims"),
            "claim=\"principalId\" problem=\"missing\"",
        ),
        (json!({ "principalId": "" , "tenant_id": "s3cret" }), (401, "invalid_claims"), "problem=\"empty\""),
        (
            json!({ "principalId": "s3cret" }),
            (401, "invalid_claims"),
            "claim=\"tenant_id\" problem=\"missing\"",
        ),
        (
            json!({ "principalId": "s3cret", "tenant_id": "acme", "permissions": "read" }),
            (403, "permission_missing"),
            "reason=\"permission_missing\"",
        ),
    ] {
        let (response, log) = logged(handler.handle(event(&context))).await;
        assert_eq!(refusal(&response), (expected.0, expected.1.to_owned()), "{context}");
        assert!(log.contains(problem) && !log.contains("s3cret"), "{context}: {log}");
    }
    assert!(table.rows().is_empty());
}

#[test]
fn token_settings_exclude_an_authorizer() {
    for (name, value) in [
        ("JWT_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----"),
        ("JWT_JWKS_URL", "https://auth.example.com/keys"),
        ("JWT_ISSUER", "https://auth.example.com"),
        ("JWT_AUDIENCE", "streamer"),
        ("JWT_AUDIENCE_CLAIM", "client_id"),
        ("EXPIRE_WITH_TOKEN", "true"),
    ] {
        let error = Config::read(Environment::of([SOURCE, (name, value)])).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{name} is set together with IDENTITY_SOURCE=authorizer")),
            "{error}"
        );
    }
    let error = Config::read(Environment::of([("IDENTITY_SOURCE", "cookie")])).unwrap_err().to_string();
    assert!(error.contains("IDENTITY_SOURCE is malformed"), "{error}");
}

//! Events as a console or an emulator writes them, and the log line of a refusal.

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use connect_handler::{
    ConnectHandler,
    config::Access,
    keys::PublicKey,
    rules::{Audience, Rules},
    verify::{Keys, Verifier},
};
use disconnect_handler::DisconnectHandler;
use serde_json::{Value, json};
use streamer_cli::stack::issuer::{ISSUER, Issuer};
use streamer_events::WebSocketEvent;
use streamer_tests::{
    doubles::{TableDouble, connection},
    event::{CONNECTION, connect},
    worker::telemetry,
};

use crate::{
    HOUR, refusal,
    setup::{access, claims, logged, seconds_from_now},
};

pub(crate) struct Rig {
    pub(crate) issuer: Issuer,
    pub(crate) handler: ConnectHandler,
    pub(crate) table: TableDouble,
}

pub(crate) fn rig(audience: Option<&str>, access: Access) -> Rig {
    let (issuer, table) = (Issuer::generate().unwrap(), TableDouble::default());
    let key = PublicKey::from_pem(&issuer.public_key).unwrap();
    let verifier =
        Verifier::new(Keys::One(key), Rules::of(ISSUER, audience.map_or(Audience::None, Audience::of)));
    let handler = ConnectHandler::new(table.client(), verifier, access, None, telemetry("connect-handler"));
    Rig { issuer, handler, table }
}

impl Rig {
    async fn connect(&self, changes: &Value) -> ApiGatewayProxyResponse {
        let token = self.issuer.sign(&claims(changes)).unwrap();
        self.handler.handle(connect(Some(&token))).await
    }
}

pub(crate) fn event(json: &Value) -> WebSocketEvent {
    serde_json::from_str(&json.to_string()).unwrap()
}

/// A test event of the Lambda console, without `requestTimeEpoch`.
fn of_console() -> Value {
    json!({
        "requestContext": {
            "routeKey": "$connect", "eventType": "CONNECT", "connectionId": CONNECTION, "apiId": "a1b2c3d4e5",
            "stage": "production", "connectedAt": 1_764_000_000_000_u64, "requestId": "r",
            "identity": {"sourceIp": "192.0.2.1"},
        },
        "headers": {},
        "isBase64Encoded": false,
    })
}

#[tokio::test]
async fn console_test_event_is_answered() {
    let rig = rig(Some("streamer"), access());
    let without_token = rig.handler.handle(event(&of_console())).await;
    assert_eq!(refusal(&without_token), (401, "token_missing".to_owned()));

    let token = rig.issuer.sign(&claims(&json!({}))).unwrap();
    for field in ["headers", "multiValueHeaders"] {
        let mut with_token = of_console();
        with_token[field] = json!({ "authorization": token });
        assert_eq!(rig.handler.handle(event(&with_token)).await.status_code, 200, "{field}");
    }
    let mut smallest = json!({"requestContext": {"connectionId": "c", "apiId": "a", "stage": "s"}});
    smallest["queryStringParameters"] = json!({ "Authorization": token });
    assert_eq!(rig.handler.handle(event(&smallest)).await.status_code, 200);
    assert_eq!(rig.table.connections(), [CONNECTION, "c"]);
}

#[tokio::test]
async fn missing_field_is_named_in_the_log() {
    let rig = rig(Some("streamer"), access());
    let token = rig.issuer.sign(&claims(&json!({}))).unwrap();
    for field in ["connectionId", "apiId", "stage"] {
        for value in [json!(null), json!(7)] {
            let mut incomplete = of_console();
            incomplete["requestContext"][field] = value;
            incomplete["headers"] = json!({ "Authorization": token });
            let (response, log) = logged(rig.handler.handle(event(&incomplete))).await;
            assert_eq!(refusal(&response), (500, "internal".to_owned()), "{field}");
            assert!(log.contains(&format!("the event has no requestContext.{field}: ")), "{log}");
        }
    }
    assert!(rig.table.rows().is_empty());
}

const FORBIDDEN: &str = "contains a control character or line separator, or changes the direction of text";
const TOO_FAR: &str = "more than ten years ahead: it must be in seconds";

/// The log never has the claim's value.
#[tokio::test]
async fn refused_claim_is_named_in_the_log() {
    let rig = rig(Some("streamer"), Access { required_permission: Some("chat".to_owned()), ..access() });
    let long = "s3cret".repeat(50);
    for (changes, reason, claim, problem) in [
        (json!({ "tenant_id": null }), "invalid_claims", "tenant_id", "missing"),
        (json!({ "tenant_id": 421_337.5 }), "invalid_claims", "tenant_id", "of the wrong kind: a number"),
        (json!({ "tenant_id": ["s3cret", "x"] }), "invalid_claims", "tenant_id", "of the wrong kind: a list"),
        (json!({ "tenant_id": [] }), "invalid_claims", "tenant_id", "of the wrong kind: an empty list"),
        (json!({ "tenant_id": true }), "invalid_claims", "tenant_id", "of the wrong kind: true or false"),
        (json!({ "tenant_id": "" }), "invalid_claims", "tenant_id", "empty"),
        (json!({ "tenant_id": long }), "invalid_claims", "tenant_id", "longer than 256 bytes"),
        (json!({ "sub": null }), "invalid_claims", "sub", "missing"),
        (json!({ "sub": {"id": "s3cret"} }), "invalid_claims", "sub", "of the wrong kind: an object"),
        (json!({ "sub": "s3cret\t" }), "invalid_claims", "sub", FORBIDDEN),
        (json!({ "permissions": {} }), "invalid_claims", "permissions", "of the wrong kind: an object"),
        (
            json!({ "permissions": ["chat", 421_337] }),
            "invalid_claims",
            "permissions",
            "of the wrong kind: a number",
        ),
        (json!({ "exp": null }), "invalid_claims", "exp", "missing"),
        (json!({ "exp": "s3cret" }), "invalid_claims", "exp", "of the wrong kind: a string"),
        (json!({ "exp": seconds_from_now(0) * 1000 }), "invalid_claims", "exp", TOO_FAR),
        (json!({ "exp": -421_337 }), "invalid_claims", "exp", "not a number of seconds"),
        (json!({ "nbf": "s3cret" }), "invalid_claims", "nbf", "of the wrong kind: a string"),
        (json!({ "exp": 421_337 }), "token_expired", "exp", "in the past"),
        (json!({ "nbf": seconds_from_now(421_337) }), "token_not_yet_valid", "nbf", "in the future"),
        (json!({ "iss": null }), "wrong_issuer", "iss", "missing"),
        (json!({ "iss": "s3cret" }), "wrong_issuer", "iss", "another value than configured"),
        (json!({ "iss": 421_337 }), "wrong_issuer", "iss", "of the wrong kind: a number"),
        (json!({ "iss": [ISSUER] }), "wrong_issuer", "iss", "of the wrong kind: a list"),
        (json!({ "aud": null }), "wrong_audience", "aud", "missing"),
        (json!({ "aud": ["streamer", 421_337] }), "wrong_audience", "aud", "of the wrong kind: a number"),
        (json!({ "aud": ["s3cret"] }), "wrong_audience", "aud", "another value than configured"),
    ] {
        let (response, log) = logged(rig.connect(&changes)).await;
        assert_eq!(refusal(&response), (401, reason.to_owned()), "{changes}");
        let expected = format!("reason=\"{reason}\" claim=\"{claim}\" problem=\"{problem}\"");
        assert!(log.contains(&expected), "{changes}: {log}");
        assert!(!log.contains("s3cret") && !log.contains("421337"), "{log}");
    }
    let claims = rig.issuer.sign(&json!(["s3cret"])).unwrap();
    let (response, log) = logged(rig.handler.handle(connect(Some(&claims)))).await;
    assert_eq!(refusal(&response), (401, "invalid_claims".to_owned()));
    assert!(log.contains("problem=\"the claims are not a JSON object\"") && !log.contains("claim="), "{log}");
}

#[tokio::test]
async fn unexpected_audience_is_named_in_the_log() {
    let rig = rig(None, access());
    let (response, log) = logged(rig.connect(&json!({}))).await;
    assert_eq!(refusal(&response), (401, "wrong_audience".to_owned()));
    assert!(log.contains("claim=\"aud\" problem=\"set, but not configured\""), "{log}");
}

#[tokio::test]
async fn expiry_precedes_lesser_faults() {
    let rig = rig(Some("streamer"), access());
    let others = ["tenant_id", "sub", "iss", "aud"];
    for other in others {
        let response = rig.connect(&json!({ "exp": 2, other: null })).await;
        assert_eq!(refusal(&response), (401, "token_expired".to_owned()), "{other}");
        let response = rig.connect(&json!({ "nbf": seconds_from_now(600), other: null })).await;
        assert_eq!(refusal(&response), (401, "token_not_yet_valid".to_owned()), "{other}");
    }
}

#[tokio::test]
async fn unusable_permissions_matter_only_where_required() {
    for permissions in [json!(7), json!({ "read": true }), json!(["read", 1])] {
        let open = rig(Some("streamer"), access());
        assert_eq!(open.connect(&json!({ "permissions": permissions })).await.status_code, 200);
        assert!(!open.table.rows()[CONNECTION].contains_key("permissions"));
        let strict =
            rig(Some("streamer"), Access { required_permission: Some("read".to_owned()), ..access() });
        let response = strict.connect(&json!({ "permissions": permissions })).await;
        assert_eq!(refusal(&response), (401, "invalid_claims".to_owned()));
    }
}

#[tokio::test]
async fn undefined_in_the_query_hides_no_header() {
    let rig = rig(Some("streamer"), access());
    let token = rig.issuer.sign(&claims(&json!({}))).unwrap();
    for useless in ["undefined", "null", "Bearer undefined"] {
        let mut event = connect(Some(&token));
        event.query.push(("Authorization".to_owned(), useless.to_owned()));
        assert_eq!(rig.handler.handle(event).await.status_code, 200, "{useless}");
    }
}

#[tokio::test]
async fn disconnect_needs_only_the_connection_id() {
    for context in [
        json!({ "connectionId": CONNECTION }),
        json!({ "connectionId": CONNECTION, "connectedAt": null, "disconnectStatusCode": "1001", "identity": [] }),
    ] {
        let table = TableDouble::default();
        let row = connection(CONNECTION, std::time::SystemTime::now() - HOUR);
        table.client().put(&row).await.unwrap();
        let handler = DisconnectHandler::new(table.client(), telemetry("disconnect-handler"));
        assert_eq!(handler.handle(event(&json!({ "requestContext": context }))).await.status_code, 200);
        assert!(table.rows().is_empty(), "{context}");
    }
}

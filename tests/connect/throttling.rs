//! DynamoDB throttles the writes of `$connect` and `$disconnect`, or fails.

use connect_handler::{
    ConnectHandler,
    keys::PublicKey,
    rules::{Audience, Rules},
    verify::{Keys, Verifier},
};
use disconnect_handler::DisconnectHandler;
use serde_json::json;
use streamer_cli::stack::issuer::{ISSUER, Issuer};
use streamer_tests::{
    doubles::DynamoDouble,
    event::{connect, disconnect},
    worker::telemetry,
};

use crate::{
    refusal,
    setup::{access, claims, logged},
};

/// The client connects again. The log names the limit, and no change of the role.
#[tokio::test]
async fn throttled_row_write_gets_500() {
    let issuer = Issuer::generate().unwrap();
    let token = issuer.sign(&claims(&json!({}))).unwrap();
    for (code, remedy) in [
        ("ProvisionedThroughputExceededException", "raise the maximum or provisioned capacity"),
        ("ThrottlingException", "raise the maximum or provisioned capacity"),
        ("RequestLimitExceeded", "raise the maximum or provisioned capacity"),
        ("InternalServerError", "check CONNECTIONS_TABLE"),
    ] {
        let index = "arn:aws:dynamodb:eu-central-1:123456789012:table/streamer_connections/index/by_user";
        let reason = json!({ "reason": "IndexWriteKeyRangeThroughputExceeded", "resource": index });
        // DynamoDB writes the name as `throttlingReasons` in one of the errors.
        let reasons = json!({ "ThrottlingReasons": [reason], "throttlingReasons": [reason] });
        let dynamo = DynamoDouble::new(move |_, _| Err((code, reasons.clone())));
        let key = PublicKey::from_pem(&issuer.public_key).unwrap();
        let verifier = Verifier::new(Keys::One(key), Rules::of(ISSUER, Audience::of("streamer")));
        let handler =
            ConnectHandler::new(dynamo.table(), verifier, access(), None, telemetry("connect-handler"));
        let (response, log) = logged(handler.handle(connect(Some(&token)))).await;
        assert_eq!(refusal(&response), (500, "internal".to_owned()), "{code}");
        assert!(log.contains(&format!("PutItem on table connections failed: {code}: ")), "{log}");
        assert!(log.contains(remedy), "{log}");
        let names_index =
            log.contains("IndexWriteKeyRangeThroughputExceeded at streamer_connections/index/by_user");
        assert_eq!(names_index, code != "InternalServerError", "{log}");
    }
}

/// API Gateway ignores the response. The first post that is answered with 410 removes the row, or its TTL does.
#[tokio::test]
async fn throttled_removal_is_logged_at_disconnect() {
    for code in ["ProvisionedThroughputExceededException", "ThrottlingException", "InternalServerError"] {
        let dynamo = DynamoDouble::new(move |_, _| Err((code, json!({}))));
        let handler = DisconnectHandler::new(dynamo.table(), telemetry("disconnect-handler"));
        let (response, log) = logged(handler.handle(disconnect())).await;
        assert_eq!((response.status_code, dynamo.calls()), (200, vec!["DeleteItem".to_owned()]), "{code}");
        assert!(log.contains("ERROR") && log.contains("the row may remain") && log.contains(code), "{log}");
    }
}

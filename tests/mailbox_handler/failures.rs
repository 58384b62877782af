//! Tables that fail or do not answer.

use mailbox_handler::HandlerError;
use serde_json::json;
use streamer_tests::{
    doubles::TableDouble,
    mailbox::{Call, Fault},
};
use tokio::time::Instant;
use tracing::Level;

use crate::{HOUR, Rig, TIMEOUT, written::logged};

#[tokio::test(start_paused = true)]
async fn denied_connections_fail_the_invocation() {
    let mut rig = Rig::accepting();
    rig.handler.connections = TableDouble::failing().client();
    let (result, log) = logged(Level::ERROR, rig.sync(true, &json!({}))).await;
    let error = result.unwrap_err();
    assert!(matches!(error, HandlerError::Connections(_)), "{error}");
    assert!(error.to_string().contains("dynamodb:GetItem"), "{error}");
    assert_eq!((log.lines().len(), rig.frames().len(), rig.metric("Syncs")), (1, 0, vec![1.0]));
}

/// Without a registered device a page could be the last that the client sees.
#[tokio::test(start_paused = true)]
async fn denied_mailbox_fails_the_invocation() {
    for call in [Call::PutDevice, Call::Head, Call::CreateHead, Call::Messages] {
        let rig = Rig::accepting();
        if call == Call::Messages {
            rig.keep("anna", "m", "1", HOUR).await;
        }
        rig.mailbox.inject_into(call, [Fault::Fails]);
        let error = rig.sync(true, &json!({})).await.unwrap_err();
        assert!(matches!(error, HandlerError::Mailbox(_)), "{call:?}: {error}");
        assert_eq!(rig.frames().len(), 0, "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stored_text_that_is_not_json_fails() {
    let rig = Rig::accepting();
    rig.keep("anna", "m", "s3cret", HOUR).await;
    let (result, log) = logged(Level::ERROR, rig.sync(true, &json!({}))).await;
    assert!(matches!(result, Err(HandlerError::Payload(_))), "{result:?}");
    assert_eq!((rig.frames().len(), log.lines().len()), (0, 1));
    assert!(!log.text().contains("s3cret"), "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn silent_tables_end_before_lambda() {
    for is_mailbox in [false, true] {
        let mut rig = Rig::accepting();
        match is_mailbox {
            true => rig.mailbox.inject_into(Call::Head, [Fault::Silence]),
            false => rig.handler.connections = TableDouble::silent(),
        }
        let began = Instant::now();
        let error = rig.sync(true, &json!({})).await.unwrap_err();
        assert!(matches!(error, HandlerError::Deadline | HandlerError::Connections(_)), "{error}");
        assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
        assert_eq!((rig.frames().len(), rig.metric("Syncs")), (0, vec![1.0]));
    }
}

/// The client syncs again. A page is complete or does not come.
#[tokio::test(start_paused = true)]
async fn throttled_tables_fail_the_invocation() {
    let mut rig = Rig::accepting();
    let throttled = TableDouble::failing().failing_with("ThrottlingException");
    rig.handler.connections = throttled.client();
    let error = rig.sync(true, &json!({})).await.unwrap_err().to_string();
    assert!(error.contains("GetItem") && error.contains("DynamoDB limits the rate"), "{error}");
    for call in [Call::PutDevice, Call::Head, Call::CreateHead, Call::Messages] {
        let rig = Rig::accepting();
        if call == Call::Messages {
            rig.keep("anna", "m", "1", HOUR).await;
        }
        rig.mailbox.inject_into(call, [Fault::Throttled]);
        let error = rig.sync(true, &json!({})).await.unwrap_err();
        assert!(matches!(error, HandlerError::Mailbox(_)), "{call:?}: {error}");
        assert!(error.to_string().contains("DynamoDB limits the rate"), "{call:?}: {error}");
        assert_eq!(rig.frames().len(), 0, "{call:?}");
        rig.sync(true, &json!({})).await.unwrap();
        assert_eq!(rig.frames().len(), 1, "{call:?}: the client's next sync is answered");
    }
}

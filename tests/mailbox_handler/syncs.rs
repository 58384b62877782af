//! Frames, connections and devices.

use mailbox_handler::time::Time;
use serde_json::json;
use streamer_mailbox::Device;
use streamer_tests::{
    doubles::TableDouble,
    event::{CONNECTION, client_message, epoch},
    mailbox::Call,
    worker::ENDPOINT,
};
use tracing::Level;

use crate::{HOUR, Rig, TIMEOUT, connected_at, written::logged};

/// A message that the page lacks was stored after the head was read, so its worker finds the device.
#[tokio::test(start_paused = true)]
async fn device_is_registered_before_reading() {
    let rig = Rig::accepting();
    rig.sync(true, &json!({})).await.unwrap();
    assert_eq!(rig.mailbox.calls()[..2], [Call::PutDevice, Call::Head]);
    assert_eq!(rig.frames().len(), 1);
}

/// The worker posts to the endpoint that the device has, until the connection has ended.
#[tokio::test(start_paused = true)]
async fn device_has_endpoint_and_expiry() {
    let rig = Rig::accepting();
    rig.sync(true, &json!({})).await.unwrap();
    let device = Device {
        connection: CONNECTION.try_into().unwrap(),
        endpoint: ENDPOINT.to_owned(),
        expires_at: connected_at() + 2 * HOUR + HOUR / 6,
    };
    assert_eq!(rig.devices().await, [device]);
}

#[tokio::test(start_paused = true)]
async fn later_syncs_register_nothing() {
    let rig = Rig::accepting();
    rig.sync(false, &json!({})).await.unwrap();
    assert_eq!(rig.frames().len(), 1);
    assert!(rig.devices().await.is_empty());
}

/// A body would reach the client where a route has a response.
#[tokio::test(start_paused = true)]
async fn response_has_no_body() {
    let rig = Rig::accepting();
    let response = rig.sync(true, &json!({})).await.unwrap();
    let response = serde_json::to_value(response).unwrap();
    assert_eq!((&response["statusCode"], response.get("body")), (&200.into(), None));
}

#[tokio::test(start_paused = true)]
async fn connection_names_the_user() {
    let rig = Rig::accepting();
    rig.keep("bob", "for-bob", "2", HOUR).await;
    rig.keep("anna", "for-anna", "1", HOUR).await;
    let sync =
        r#"{"type":"streamer.sync","tenant":"acme","user":"bob","streams":[{"stream":"user","user":"bob"}]}"#;
    rig.send(sync).await.unwrap();
    assert_eq!(rig.frames()[0]["messages"], json!([{ "seq": 1, "id": "for-anna", "payload": 1 }]));
}

#[tokio::test(start_paused = true)]
async fn unknown_connection_gets_no_page() {
    let mut rig = Rig::accepting();
    for connections in [
        TableDouble::default(),
        // Its row has expired.
        TableDouble::of_user([(CONNECTION, epoch() - 3 * HOUR)], || true),
    ] {
        rig.handler.connections = connections.client();
        let (response, log) = logged(Level::INFO, rig.sync(true, &json!({}))).await;
        assert_eq!(response.unwrap().status_code, 200);
        assert_eq!(log.text(), "");
    }
    assert_eq!((rig.frames().len(), rig.mailbox.calls().len()), (0, 0));
    assert_eq!((rig.metric("UnknownConnections"), rig.metric("Syncs")), (vec![1.0; 2], vec![1.0; 2]));
}

#[tokio::test(start_paused = true)]
async fn event_without_connection_gets_no_page() {
    let rig = Rig::accepting();
    let mut event =
        client_message("streamer.sync", r#"{"type":"streamer.sync","streams":[{"stream":"user"}]}"#);
    event.connection_id = None;
    let time = Time::start(epoch(), epoch() + TIMEOUT, TIMEOUT);
    assert_eq!(rig.handler.handle(event, time).await.unwrap().status_code, 200);
    assert_eq!((rig.frames().len(), rig.metric("UnknownConnections")), (0, vec![1.0]));
}

/// Each is logged once, without its content.
#[tokio::test(start_paused = true)]
async fn invalid_frames_are_ignored() {
    let rig = Rig::accepting();
    for (sent, frame) in [
        "",
        "s3cret",
        r#"{"type":"s3cret"}"#,
        r#"{"type":"streamer.ping"}"#,
        r#"{"type":"streamer.sync"}"#,
        r#"{"type":"streamer.sync","streams":[]}"#,
        r#"{"type":"streamer.sync","streams":[{"stream":"s3cret"}]}"#,
        r#"{"type":"streamer.sync","n":"s3cret","streams":[{"stream":"user"}]}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let (response, log) = logged(Level::TRACE, rig.send(frame)).await;
        assert_eq!(response.unwrap().status_code, 200, "{frame}");
        let lines = log.lines();
        assert_eq!((lines.len(), &lines[0]["level"]), (1, &"WARN".into()), "{frame}");
        assert!(lines[0]["error"].is_string() && !log.text().contains("s3cret"), "{}", log.text());
        assert_eq!(rig.metric("InvalidFrames").len(), sent + 1, "{frame}");
    }
    assert!(rig.frames().is_empty() && rig.mailbox.calls().is_empty());
    assert!(rig.metric("Syncs").is_empty());
}

/// Fields that are absent, null or of another type. Only the connection id and the body are needed.
#[tokio::test(start_paused = true)]
async fn null_fields_of_event_fail_nothing() {
    let body = r#"{"type":"streamer.sync","streams":[{"stream":"user"}]}"#;
    let whole = json!({
        "headers": {}, "multiValueHeaders": {}, "queryStringParameters": {}, "isBase64Encoded": false, "body": body,
        "requestContext": {
            "connectionId": CONNECTION, "routeKey": "streamer.sync", "eventType": "MESSAGE", "identity": {},
            "connectedAt": 0, "messageId": "m",
        },
    });
    let context: Vec<_> = whole["requestContext"].as_object().unwrap().keys().cloned().collect();
    let fields: Vec<_> = whole.as_object().unwrap().keys().cloned().collect();
    let pointers =
        fields.iter().map(|name| ("", name)).chain(context.iter().map(|name| ("/requestContext", name)));
    for (object, name) in pointers {
        for form in [None, Some(json!(null)), Some(json!(7)), Some(json!([]))] {
            let mut event = whole.clone();
            let fields = event.pointer_mut(object).unwrap().as_object_mut().unwrap();
            fields.remove(name);
            fields.extend(form.clone().map(|value| (name.clone(), value)));
            let event = serde_json::from_str(&event.to_string()).unwrap();
            let rig = Rig::accepting();
            let time = Time::start(epoch(), epoch() + TIMEOUT, TIMEOUT);
            let response = rig.handler.handle(event, time).await.unwrap();
            let is_needed = ["body", "requestContext", "connectionId"].contains(&name.as_str());
            let counted = (rig.metric("InvalidFrames").len(), rig.metric("UnknownConnections").len());
            let expected = match name.as_str() {
                "body" => (1, 0),
                "requestContext" | "connectionId" => (0, 1),
                _ => (0, 0),
            };
            assert_eq!((response.status_code, counted), (200, expected), "{name} {form:?}");
            assert_eq!(rig.frames().len(), usize::from(!is_needed), "{name} {form:?}");
        }
    }
}

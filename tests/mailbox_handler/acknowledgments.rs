//! Acknowledged messages: their receipts, and the receipts queue while it is missing or away.

use std::time::Duration;

use mailbox_handler::HandlerError;
use serde_json::{Value, json};
use streamer_queue::{Queue, ReceiptsQueue};
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble},
    event::{CONNECTION, EPOCH_MILLIS, epoch},
    worker::receipts_queue,
};
use tokio::time::Instant;
use tracing::Level;

use crate::{HOUR, Rig, TIMEOUT, written::logged};

/// Returns the frame that acknowledges these messages.
fn frame(ids: &[&str]) -> String {
    json!({ "type": "streamer.ack", "ids": ids }).to_string()
}

/// Returns a rig with this receipts queue.
fn rig_with(receipts: QueueDouble) -> Rig {
    let mut rig = Rig::accepting();
    rig.handler.receipts = receipts_queue(&receipts);
    Rig { receipts, ..rig }
}

/// Returns a rig whose receipts queue fails for so long.
fn rig_away_for(outage: Duration) -> Rig {
    let end = Instant::now() + outage;
    rig_with(QueueDouble::new(move |_| if Instant::now() < end { Entry::NotTaken } else { Entry::Taken }))
}

/// Returns the events on the receipts queue.
fn events(rig: &Rig) -> Vec<Value> {
    rig.receipts.taken().iter().map(|entry| serde_json::from_str(entry.message_body()).unwrap()).collect()
}

/// Returns the ids of the messages on the receipts queue.
fn ids(rig: &Rig) -> Vec<String> {
    events(rig).iter().map(|event| event["data"]["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn receipt_names_message_connection_and_user() {
    let rig = Rig::accepting();
    let (response, log) = logged(Level::TRACE, rig.send(&frame(&["s3cret-id"]))).await;
    let response = serde_json::to_value(response.unwrap()).unwrap();
    assert_eq!((&response["statusCode"], response.get("body")), (&200.into(), None));
    let [event] = &events(&rig)[..] else { panic!("{:?}", events(&rig)) };
    assert_eq!(
        (&event["type"], &event["source"], &event["subject"]),
        (&json!("streamer.receipt"), &json!("/streamer/test"), &json!("s3cret-id"))
    );
    let receipt = json!({
        "version": 1, "id": "s3cret-id", "at": EPOCH_MILLIS, "outcome": "acknowledged",
        "to": { "user": { "tenant": "acme", "user": "anna" } }, "connections": {}, "connection": CONNECTION,
    });
    assert_eq!(event["data"], receipt);
    assert_eq!((rig.metric("Acknowledgments"), rig.metric("Syncs")), (vec![1.0], vec![]));
    assert!(rig.frames().is_empty() && rig.mailbox.calls().is_empty());
    let lines = log.lines();
    let line = lines.iter().find(|line| line["message"] == "acknowledged messages").unwrap();
    assert_eq!((&line["connection_id"], &line["messages"]), (&json!(CONNECTION), &json!(1)));
    assert!(!log.text().contains("s3cret"), "{}", log.text());
}

/// A client acknowledges for its own user only, whatever it names.
#[tokio::test(start_paused = true)]
async fn connection_names_the_user() {
    let rig = Rig::accepting();
    rig.keep("bob", "for-bob", "1", HOUR).await;
    let frame = json!({
        "type": "streamer.ack", "ids": ["for-bob"], "tenant": "acme", "user": "bob", "connection": "another",
        "to": { "user": { "tenant": "acme", "user": "bob" } },
    });
    rig.send(&frame.to_string()).await.unwrap();
    let event = events(&rig).remove(0);
    assert_eq!(event["data"]["to"], json!({ "user": { "tenant": "acme", "user": "anna" } }));
    assert_eq!((&event["data"]["id"], &event["data"]["connection"]), (&json!("for-bob"), &json!(CONNECTION)));
    assert!(!event.to_string().contains("\"bob\""), "{event}");
}

#[tokio::test(start_paused = true)]
async fn repeated_id_has_one_receipt() {
    let rig = Rig::accepting();
    rig.send(&frame(&["a", "b", "a", "a"])).await.unwrap();
    assert_eq!((ids(&rig), rig.metric("Acknowledgments")), (vec!["a".to_owned(), "b".to_owned()], vec![2.0]));
}

#[tokio::test(start_paused = true)]
async fn ten_messages_are_one_call() {
    let rig = Rig::accepting();
    let names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    rig.send(&frame(&names)).await.unwrap();
    assert_eq!((ids(&rig), rig.receipts.calls()), (names.map(str::to_owned).to_vec(), 1));
    assert_eq!(rig.metric("Acknowledgments"), [10.0]);
}

#[tokio::test(start_paused = true)]
async fn unknown_connection_has_no_receipt() {
    let mut rig = Rig::accepting();
    for connections in [
        TableDouble::default(),
        // Its row has expired.
        TableDouble::of_user([(CONNECTION, epoch() - 3 * HOUR)], || true),
    ] {
        rig.handler.connections = connections.client();
        assert_eq!(rig.send(&frame(&["a"])).await.unwrap().status_code, 200);
    }
    assert_eq!(rig.receipts.calls(), 0);
    assert_eq!((rig.metric("UnknownConnections"), rig.metric("Syncs")), (vec![1.0; 2], vec![]));
}

#[tokio::test(start_paused = true)]
async fn invalid_acknowledgments_are_ignored() {
    let rig = Rig::accepting();
    let eleven = frame(&["s3cret"; 11]);
    let frames = [r#"{"type":"streamer.ack"}"#, r#"{"type":"streamer.ack","ids":[]}"#, &eleven];
    for frame in frames.into_iter().chain([r#"{"type":"streamer.ack","ids":["s3cret",""]}"#]) {
        let (response, log) = logged(Level::TRACE, rig.send(frame)).await;
        assert_eq!(response.unwrap().status_code, 200, "{frame}");
        let lines = log.lines();
        assert_eq!((lines.len(), &lines[0]["level"]), (1, &"WARN".into()), "{frame}");
        assert!(!log.text().contains("s3cret"), "{}", log.text());
    }
    assert_eq!((rig.metric("InvalidFrames"), rig.receipts.calls()), (vec![1.0; 4], 0));
}

/// A missing queue is the deployment's choice, and no error.
#[tokio::test(start_paused = true)]
async fn receipts_without_queue_are_counted() {
    let mut rig = Rig::accepting();
    rig.handler.receipts = ReceiptsQueue::new(None, "test");
    let run = async {
        for _ in 0..2 {
            assert_eq!(rig.send(&frame(&["a", "b"])).await.unwrap().status_code, 200);
        }
    };
    let ((), log) = logged(Level::WARN, run).await;
    assert_eq!(log.text().matches("set RECEIPTS_QUEUE_URL").count(), 1, "{}", log.text());
    assert_eq!((rig.metric("ReceiptsWithoutQueue"), rig.metric("Acknowledgments")), (vec![2.0; 2], vec![]));
}

#[tokio::test(start_paused = true)]
async fn receipts_are_retried_for_2_s() {
    let rig = rig_away_for(Duration::from_secs(1));
    rig.send(&frame(&["a", "b"])).await.unwrap();
    assert_eq!((ids(&rig).len(), rig.metric("Acknowledgments")), (2, vec![2.0]));
    assert!(events(&rig).iter().all(|event| event["data"]["at"] == EPOCH_MILLIS), "the time of the frame");
}

/// While the queue is away, acknowledgments take no time from syncs.
#[tokio::test(start_paused = true)]
async fn outage_is_an_error_within_2_s() {
    let rig = rig_away_for(Duration::from_secs(60));
    let began = Instant::now();
    let (result, log) = logged(Level::ERROR, rig.send(&frame(&["s3cret", "b", "c"]))).await;
    let error = result.unwrap_err();
    assert!(matches!(error, HandlerError::Receipts { unconfirmed: 3, messages: 3 }), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!((rig.metric("Acknowledgments"), ids(&rig).len()), (vec![], 0));
    let lines = log.lines();
    let line = lines.iter().find(|line| line["message"] == "failed to handle a frame").unwrap();
    let fields = ["connection_id", "route_key"].map(|field| line[field].clone());
    assert_eq!(fields, [CONNECTION, "streamer.ack"]);
    assert!(line["error"].as_str().unwrap().contains("3 of 3 acknowledgments"), "{line}");
    assert!(!log.text().contains("s3cret"), "{}", log.text());

    let began = Instant::now();
    rig.send(&frame(&["d"])).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO, "no call for 10 s");
}

#[tokio::test(start_paused = true)]
async fn silent_queue_ends_before_lambda() {
    let mut rig = Rig::accepting();
    let queue = Queue::new(QueueDouble::silent(), "https://sqs.example.com/receipts");
    rig.handler.receipts = ReceiptsQueue::new(Some(queue), "test");
    let began = Instant::now();
    let error = rig.send(&frame(&["a"])).await.unwrap_err();
    assert!(matches!(error, HandlerError::Receipts { unconfirmed: 1, messages: 1 }), "{error}");
    assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
}

/// The confirmed receipts count, and the refused one fails the invocation at once.
#[tokio::test(start_paused = true)]
async fn refused_receipt_is_an_error() {
    let rig = rig_with(QueueDouble::new(|entry| match entry.message_body().contains("refused") {
        true => Entry::Refused,
        false => Entry::Taken,
    }));
    let began = Instant::now();
    let error = rig.send(&frame(&["a", "refused", "b"])).await.unwrap_err();
    assert!(matches!(error, HandlerError::Receipts { unconfirmed: 1, messages: 3 }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((ids(&rig).len(), rig.metric("Acknowledgments")), (2, vec![2.0]));
}

#[tokio::test(start_paused = true)]
async fn failed_connections_send_no_receipt() {
    let mut rig = Rig::accepting();
    rig.handler.connections = TableDouble::failing().client();
    let error = rig.send(&frame(&["a"])).await.unwrap_err();
    assert!(matches!(error, HandlerError::Connections(_)), "{error}");
    assert_eq!(rig.receipts.calls(), 0);
}

//! DynamoDB throttles, conflicts or fails: each call has its outcome and its cause, and the next worker finishes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use streamer_tests::{
    doubles::{DynamoAnswer, DynamoDouble, MailboxDouble, MailboxFault, QueueDouble, TableDouble},
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{ENDPOINT, POLICY, Rig, Sent},
};
use tracing::Level;

use crate::{causes, ids, message_to_anna, telemetry::Log};

/// Errors after which the same call may succeed later. The worker's calls are no transactions; an item in another
/// program's transaction conflicts all the same.
const ERRORS: [&str; 7] = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TransactionConflictException",
    "TransactionInProgressException",
    "InternalServerError",
    "ServiceUnavailable",
];

/// The body of an error for an index that takes no more writes, while the table does.
fn index_is_full(index: &str) -> DynamoAnswer {
    let table = "arn:aws:dynamodb:eu-central-1:123456789012:table/streamer_connections";
    let reason = json!({
        "reason": "IndexWriteKeyRangeThroughputExceeded",
        "resource": format!("{table}/index/{index}"),
    });
    Err(("ThrottlingException", json!({ "throttlingReasons": [reason] })))
}

fn row(connection: &str) -> Value {
    json!({
        "connection_id": { "S": connection },
        "user_id": { "S": "anna" },
        "endpoint": { "S": ENDPOINT },
        "connected_at": { "N": (EPOCH_MILLIS - 3_600_000).to_string() },
        "expires_at": { "N": (EPOCH_MILLIS / 1000 + 3600).to_string() },
    })
}

/// Builds a worker whose queries find `a`, and whose call number `failing`, from 0, is answered with `error`.
fn rig_failing(gateway: MemoryGateway, failing: usize, error: DynamoAnswer) -> (Rig, DynamoDouble) {
    let calls = AtomicUsize::new(0);
    let dynamo = DynamoDouble::new(move |operation, _| match operation {
        _ if calls.fetch_add(1, Ordering::Relaxed) == failing => error.clone(),
        "Query" => Ok(json!({ "Items": [row("a")] })),
        _ => Ok(json!({})),
    });
    let mut rig = Rig::new(gateway);
    rig.worker.table = Some(dynamo.table());
    (rig, dynamo)
}

/// Returns the cause of the only hand-back.
fn cause(rig: &Rig) -> String {
    let [(_, cause)] = &causes(rig)[..] else { panic!("{:?}", causes(rig)) };
    cause.clone()
}

/// Invokes the worker with the message that it handed back.
async fn resume(rig: &Rig) -> anyhow::Result<()> {
    let back = rig.handed_back().pop().unwrap().body;
    assert_eq!(rig.invoke(batch([back])).await?, ids([]));
    Ok(())
}

/// Neither the message nor its receipt of the queue is lost, and each connection gets it once.
#[tokio::test(start_paused = true)]
async fn failed_query_is_retried_by_next_worker() -> anyhow::Result<()> {
    let shard = json!({ "version": 1, "id": "m", "to": { "tenant": "acme", "shard": 3 }, "payload": "m" });
    for body in [message_to_anna("m"), shard] {
        for code in ERRORS {
            let gateway = MemoryGateway::always(status(200));
            let (rig, dynamo) = rig_failing(gateway, 0, Err((code, json!({}))));
            assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]), "{code}");
            assert!(
                cause(&rig).starts_with(&format!("Query on table connections failed: {code}: ")),
                "{code}"
            );
            assert!(rig.worker.gateway.posts().is_empty());
            resume(&rig).await?;
            assert_eq!(rig.worker.gateway.texts("a"), ["\"m\""], "{code}");
            assert_eq!(
                (rig.handed_back().len(), rig.dead().len(), dynamo.calls().len()),
                (1, 0, 2),
                "{code}"
            );
        }
    }
    Ok(())
}

/// The connection stays unknown to API Gateway, so the next post finds it gone again.
#[tokio::test(start_paused = true)]
async fn failed_removal_is_retried_by_next_worker() -> anyhow::Result<()> {
    for code in ERRORS {
        let gateway = MemoryGateway::always(status(410));
        let (rig, dynamo) = rig_failing(gateway, 0, Err((code, json!({}))));
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]), "{code}");
        assert!(
            cause(&rig).starts_with(&format!("DeleteItem on table connections failed: {code}: ")),
            "{code}"
        );
        resume(&rig).await?;
        assert_eq!(dynamo.calls(), ["DeleteItem", "DeleteItem"], "{code}");
        assert_eq!((rig.handed_back().len(), rig.dead().len()), (1, 0), "{code}: gone is an end");
    }
    Ok(())
}

/// The delete is a write to both indexes. The table itself has capacity left.
#[tokio::test(start_paused = true)]
async fn cause_names_the_throttled_index() -> anyhow::Result<()> {
    let gateway = MemoryGateway::always(status(410));
    let (rig, _) = rig_failing(gateway, 0, index_is_full("by_tenant"));
    rig.invoke(batch([message("m", &["a"]).to_string()])).await?;
    let cause = cause(&rig);
    assert_eq!(
        cause,
        "DeleteItem on table connections failed: ThrottlingException: scripted \
         (IndexWriteKeyRangeThroughputExceeded at streamer_connections/index/by_tenant); DynamoDB limits the rate of \
         calls: if that lasts, raise the maximum or provisioned capacity of the table and of its indexes"
    );
    Ok(())
}

/// One line for the pair, with the cause, and none that asks for a change of the role.
#[tokio::test(start_paused = true)]
async fn throttled_query_is_logged_with_remedy() -> anyhow::Result<()> {
    let (rig, _) = rig_failing(MemoryGateway::always(status(200)), 0, index_is_full("by_user"));
    let invocation = async { rig.invoke(batch([message_to_anna("m").to_string()])).await.map(drop) };
    let (lines, text) = Log::capture(Level::INFO, invocation).await?;
    let pairs: Vec<_> = lines.iter().filter(|line| line["outcome"] == "handed_back").collect();
    let [pair] = &pairs[..] else { panic!("{text}") };
    assert_eq!((&pair["level"], &pair["message_id"]), (&json!("WARN"), &json!("m")));
    let cause = pair["cause"].as_str().unwrap();
    assert!(cause.contains("/index/by_user); DynamoDB limits the rate"), "{cause}");
    assert!(!text.contains("that the role may"), "{text}");
    Ok(())
}

/// Returns the page of 100 rows after a connection, of 2 000.
fn page(input: &Value) -> Value {
    let after = input["ExclusiveStartKey"]["connection_id"]["S"].as_str();
    let after: usize = after.map_or(0, |id| id[1..].parse().unwrap());
    let last = after + 100;
    let rows: Vec<_> = (after + 1..=last).map(|number| row(&format!("c{number:04}"))).collect();
    let key = json!({ "connection_id": { "S": format!("c{last:04}") } });
    json!({ "Items": rows, "LastEvaluatedKey": if last < 2000 { key } else { Value::Null } })
}

/// Messages that SQS has confirmed are final, and the next worker reads on behind them. Two queries find out that the
/// audience is large.
#[tokio::test(start_paused = true)]
async fn throttled_pages_repeat_no_connection() -> anyhow::Result<()> {
    for every in [4, 5, 7, 12] {
        let calls = AtomicUsize::new(1);
        let dynamo = DynamoDouble::new(move |_, input| match calls.fetch_add(1, Ordering::Relaxed) % every {
            0 => index_is_full("by_tenant"),
            _ => Ok(page(input)),
        });
        let mut rig = Rig::new(MemoryGateway::always(status(200)));
        rig.worker.table = Some(dynamo.table());
        let to = json!({ "tenant": "acme", "shard": 0 });
        let mut rest = vec![json!({ "version": 1, "id": "m", "to": to, "payload": "m" })];
        let (mut invocations, mut seen) = (0, 0);
        while let Some(body) = rest.pop() {
            invocations += 1;
            assert!(rest.is_empty() && invocations < 100, "the fan-out does not end");
            assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
            let sent = rig.handed_back();
            rest.extend(sent[seen..].iter().map(Sent::json).filter(|body| body["to"]["tenant"].is_string()));
            seen = sent.len();
        }
        // The last page has posts.
        let mut named: BTreeMap<_, usize> =
            rig.worker.gateway.posts().into_iter().map(|post| (post.connection, 1)).collect();
        for sent in rig.handed_back() {
            for id in sent.json()["to"]["connections"].as_array().into_iter().flatten() {
                *named.entry(id.as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        assert_eq!((named.len(), named.values().max()), (2000, Some(&1)), "after {invocations} invocations");
        assert!(invocations > 1);
    }
    Ok(())
}

/// `anna` has just connected: the table has her row, and `by_user` shows it some seconds later.
#[tokio::test(start_paused = true)]
async fn index_may_show_new_connection_late() -> anyhow::Result<()> {
    let is_shown = Arc::new(AtomicBool::new(false));
    let shown = Arc::clone(&is_shown);
    let dynamo = DynamoDouble::new(move |_, _| {
        Ok(json!({ "Items": if shown.load(Ordering::Relaxed) { vec![row("a")] } else { vec![] } }))
    });
    let mut rig = Rig::new(MemoryGateway::always(status(200)));
    rig.worker.table = Some(dynamo.table());
    assert_eq!(rig.invoke(batch([message_to_anna("m").to_string()])).await?, ids([]));
    assert_eq!(cause(&rig), "user away");
    is_shown.store(true, Ordering::Relaxed);
    let later = epoch() + POLICY.away_grace / 2;
    assert_eq!(rig.invoke_at(later, batch([rig.handed_back()[0].body.clone()])).await?, ids([]));
    assert_eq!((rig.worker.gateway.texts("a"), rig.handed_back().len()), (vec!["\"m\"".to_owned()], 1));
    Ok(())
}

/// The row is deleted, and `by_user` still shows it: API Gateway answers 410, the delete finds nothing, and the user is
/// awaited as without a row.
#[tokio::test(start_paused = true)]
async fn index_may_show_removed_connection() -> anyhow::Result<()> {
    let gateway = MemoryGateway::always(status(410));
    let (rig, dynamo) = rig_failing(gateway, usize::MAX, Ok(json!({})));
    assert_eq!(rig.invoke(batch([message_to_anna("m").to_string()])).await?, ids([]));
    assert_eq!(
        (cause(&rig), dynamo.calls()),
        ("user away".to_owned(), vec!["Query".to_owned(), "DeleteItem".to_owned()])
    );
    let past = epoch() + POLICY.away_grace;
    assert_eq!(rig.invoke_at(past, batch([rig.handed_back()[0].body.clone()])).await?, ids([]));
    assert_eq!((rig.handed_back().len(), rig.dead().len()), (1, 0), "no_recipient");
    Ok(())
}

/// Builds a message for `anna` that is kept.
fn kept(id: &str) -> Value {
    let mut message = message_to_anna(id);
    message["keep"] = 3600.into();
    message
}

/// Each call that storing a message takes: the head, its creation, the message, `top`, the devices.
#[tokio::test(start_paused = true)]
async fn failed_mailbox_call_stores_once() -> anyhow::Result<()> {
    for code in ERRORS {
        for failing in 0..5 {
            let calls = AtomicUsize::new(0);
            let operations = Arc::new(Mutex::new(String::new()));
            let operation = Arc::clone(&operations);
            let mailbox = MailboxDouble::failing(move |call| match calls.fetch_add(1, Ordering::Relaxed) {
                nth if nth == failing => {
                    operation.lock().unwrap().clone_from(&call.operation);
                    MailboxFault::Error(code)
                }
                _ => MailboxFault::None,
            });
            mailbox.register("anna", "a", ENDPOINT, epoch() + std::time::Duration::from_secs(3600));
            let mut rig = Rig::new(MemoryGateway::always(status(200)));
            rig.worker.mailbox = Some(mailbox.mailbox());
            assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]), "{code}, call {failing}");
            let operation = operations.lock().unwrap().clone();
            let expected = format!("{operation} on table mailbox failed: {code}: ");
            assert!(cause(&rig).starts_with(&expected), "{}", cause(&rig));
            assert!(rig.worker.gateway.posts().is_empty(), "{code}, call {failing}");
            resume(&rig).await?;
            assert_eq!(mailbox.messages("anna"), [(1, "m".to_owned())], "{code} of {operation}");
            assert_eq!(
                (mailbox.top("anna"), rig.worker.gateway.texts("a").len()),
                (1, 1),
                "{code} of {operation}"
            );
            assert_eq!((rig.handed_back().len(), rig.dead().len()), (1, 0), "{code} of {operation}");
        }
    }
    Ok(())
}

/// The device stays registered, so the next worker finds it gone again.
#[tokio::test(start_paused = true)]
async fn failed_removal_of_device_is_retried() -> anyhow::Result<()> {
    for code in ERRORS {
        let has_failed = AtomicBool::new(false);
        let mailbox = MailboxDouble::failing(move |call| {
            match call.operation == "DeleteItem" && !has_failed.swap(true, Ordering::Relaxed) {
                true => MailboxFault::Error(code),
                false => MailboxFault::None,
            }
        });
        mailbox.register("anna", "a", ENDPOINT, epoch() + std::time::Duration::from_secs(3600));
        let mut rig = Rig::new(MemoryGateway::always(status(410)));
        rig.worker.mailbox = Some(mailbox.mailbox());
        assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]), "{code}");
        assert!(cause(&rig).starts_with(&format!("DeleteItem on table mailbox failed: {code}: ")), "{code}");
        assert_eq!(mailbox.devices("anna"), ["a"]);
        resume(&rig).await?;
        assert!(mailbox.devices("anna").is_empty(), "{code}");
        assert_eq!(
            (mailbox.messages("anna").len(), rig.handed_back().len(), rig.dead().len()),
            (1, 1, 0),
            "{code}"
        );
    }
    Ok(())
}

/// An hour of throttling: the message is handed back each time, and is delivered after that.
#[tokio::test(start_paused = true)]
async fn throttled_table_exhausts_only_by_age() -> anyhow::Result<()> {
    let is_throttled = Arc::new(AtomicBool::new(true));
    let throttled = Arc::clone(&is_throttled);
    let works = move || !throttled.load(Ordering::Relaxed);
    let table = TableDouble::of_user([("a", crate::long_ago())], works).failing_with("ThrottlingException");
    let gateway = MemoryGateway::always(status(200));
    let rig = Rig::on(gateway, table, QueueDouble::taking(), QueueDouble::taking());
    let mut body = message_to_anna("m").to_string();
    for minute in 0..60 {
        let now = epoch() + std::time::Duration::from_secs(60 * minute);
        assert_eq!(rig.invoke_at(now, batch([body])).await?, ids([]));
        body = rig.handed_back().pop().unwrap().body;
    }
    is_throttled.store(false, Ordering::Relaxed);
    let hour = epoch() + std::time::Duration::from_secs(3600);
    assert_eq!(rig.invoke_at(hour, batch([body.clone()])).await?, ids([]));
    assert_eq!((rig.worker.gateway.texts("a").len(), rig.dead().len()), (1, 0));

    is_throttled.store(true, Ordering::Relaxed);
    rig.invoke_at(epoch() + POLICY.max_age, batch([body])).await?;
    let [dead] = &rig.dead()[..] else { panic!("one dead letter") };
    assert_eq!(dead.attribute("streamer.reason"), "exhausted");
    assert!(
        dead.attribute("streamer.detail").contains("Query on table connections failed: ThrottlingException")
    );
    Ok(())
}

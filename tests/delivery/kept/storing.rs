//! How messages are stored: the calls, their order, and their failures.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use streamer_mailbox::Settings;
use streamer_message::limits::KEPT_PAYLOAD_BYTES;
use streamer_tests::{
    doubles::{MailboxDouble, MailboxFault, TableDouble},
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{Rig, Sent, payload_limit},
};

use super::{frames, kept, kept_for, numbered, register, rig, with_devices};
use crate::{answering, causes, connect, ids, message_to_anna, rig_with_table};

fn accepting() -> MemoryGateway {
    MemoryGateway::always(status(200))
}

/// `top` and the number of messages at the time of each post.
type StoredAtPosts = Arc<Mutex<Vec<(u64, usize)>>>;

/// Returns a gateway that notes the state of `anna`'s stream at each post.
fn stored_at_posts(mailbox: &MailboxDouble) -> (MemoryGateway, StoredAtPosts) {
    let (seen, mailbox) = (StoredAtPosts::default(), mailbox.clone());
    let at_posts = Arc::clone(&seen);
    let gateway = MemoryGateway::scripted(move |_, _| {
        at_posts.lock().unwrap().push((mailbox.top("anna"), mailbox.messages("anna").len()));
        (Duration::ZERO, status(200))
    });
    (gateway, seen)
}

#[tokio::test(start_paused = true)]
async fn message_is_stored_before_it_is_posted() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a", "b"]);
    let (gateway, seen) = stored_at_posts(&mailbox);
    let rig = rig(gateway, &mailbox);
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    assert_eq!(*seen.lock().unwrap(), [(1, 1), (1, 1)]);
    assert_eq!((frames(&rig, "a"), frames(&rig, "b")), (numbered([(1, "m")]), numbered([(1, "m")])));
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
    Ok(())
}

/// The payload and the id are the producer's; the epoch is that of the stream.
#[tokio::test(start_paused = true)]
async fn devices_get_a_frame_with_the_payload() -> anyhow::Result<()> {
    let (mailbox, payload) = (with_devices(&["a"]), r#"{ "b": 1.0, "a": 1e400, "é": "\ud83d" }"#);
    let rig = rig(accepting(), &mailbox);
    rig.invoke(batch([kept("m").to_string().replace(r#""payload":"m""#, &format!("\"payload\":{payload}"))]))
        .await?;
    let [text] = &rig.worker.gateway.texts("a")[..] else { panic!("one post") };
    let (start, end) =
        (r#"{"type":"streamer.message","stream":"user","epoch":""#, r#".0","seq":1,"id":"m","payload":"#);
    assert!(text.starts_with(start) && text.ends_with(&format!("{end}{payload}}}")), "{text}");
    Ok(())
}

/// A first receive makes no search, and the devices are read after the append.
#[tokio::test(start_paused = true)]
async fn one_append_stores_a_users_messages() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let rig = rig(accepting(), &mailbox);
    assert_eq!(rig.invoke(batch(["1", "2", "3"].map(|id| kept(id).to_string()))).await?, ids([]));
    let expected = ["GetItem", "PutItem", "PutItem", "PutItem", "PutItem", "UpdateItem", "Query"];
    assert_eq!(mailbox.calls(), expected, "the head, its creation, three messages, the head, the devices");
    assert_eq!(frames(&rig, "a"), numbered([(1, "1"), (2, "2"), (3, "3")]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn batch_without_keep_makes_no_calls() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let rig = rig(accepting(), &mailbox);
    connect(&rig, &["a"]).await;
    let bodies = [message("1", &["a"]), message_to_anna("2"), json!({ "version": 1 })];
    rig.invoke(batch(bodies.map(|body| body.to_string()))).await?;
    assert!(mailbox.calls().is_empty());
    assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\""]);
    Ok(())
}

/// Neither does it need a connection table.
#[tokio::test(start_paused = true)]
async fn kept_message_reads_no_index() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let reads = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&reads);
    let table = TableDouble::of_user([], move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    });
    let mut rig = rig_with_table(accepting(), table);
    rig.worker.mailbox = Some(mailbox.mailbox());
    assert_eq!(rig.invoke(batch([kept("1").to_string()])).await?, ids([]));
    rig.worker.table = None;
    assert_eq!(rig.invoke(batch([kept("2").to_string()])).await?, ids([]));
    assert_eq!(frames(&rig, "a"), numbered([(1, "1"), (2, "2")]));
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn message_is_rejected_without_a_mailbox() -> anyhow::Result<()> {
    let rig = Rig::new(accepting());
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    let [dead] = &rig.dead()[..] else { panic!("one dead letter") };
    assert_eq!(dead.attribute("streamer.reason"), "rejected");
    assert!(dead.attribute("streamer.detail").contains("set MAILBOX_TABLE"));
    assert_eq!(dead.json()["keep"], 3600);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn payload_of_127_kib_is_kept() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let rig = rig(accepting(), &mailbox);
    let sized = |id: &str, bytes: usize| {
        let mut message = kept(id);
        message["payload"] = "x".repeat(bytes - 2).into();
        message.to_string()
    };
    let longest_id = "\u{1}".repeat(128);
    let bodies = [sized(&longest_id, KEPT_PAYLOAD_BYTES), sized("large", KEPT_PAYLOAD_BYTES + 1)];
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    assert_eq!(mailbox.messages("anna"), [(1, longest_id)]);
    let [frame] = &rig.worker.gateway.texts("a")[..] else { panic!("one post") };
    assert!((KEPT_PAYLOAD_BYTES..=128 * 1024).contains(&frame.len()), "{}", frame.len());
    let [dead] = &rig.dead()[..] else { panic!("one dead letter") };
    assert!(dead.attribute("streamer.detail").contains("at most 130048 can be kept"));
    Ok(())
}

/// The frame with the position stays within the limit.
#[tokio::test(start_paused = true)]
async fn lower_limit_of_payloads_bounds_kept_frames() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let mut rig = rig(accepting(), &mailbox);
    rig.worker.payloads = payload_limit(32 * 1024);
    let sized = |id: &str, bytes: usize| {
        let mut message = kept(id);
        message["payload"] = "x".repeat(bytes - 2).into();
        message.to_string()
    };
    let longest_id = "\u{1}".repeat(128);
    assert_eq!(
        rig.invoke(batch([sized(&longest_id, 31 * 1024), sized("large", 31 * 1024 + 1)])).await?,
        ids([])
    );
    assert_eq!(mailbox.messages("anna"), [(1, longest_id)]);
    let [frame] = &rig.worker.gateway.texts("a")[..] else { panic!("one post") };
    assert!((31 * 1024..=32 * 1024).contains(&frame.len()), "{}", frame.len());
    let [dead] = &rig.dead()[..] else { panic!("one dead letter") };
    assert!(dead.attribute("streamer.detail").contains("at most 31744 can be kept"));
    Ok(())
}

/// The earlier of the two times counts.
#[tokio::test(start_paused = true)]
async fn message_expires_by_keep_or_expires_at() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::default();
    let rig = rig(accepting(), &mailbox);
    let expiring = |id: &str, after: u64| {
        let mut message = kept(id);
        message["expires_at"] = (EPOCH_MILLIS + after).into();
        message.to_string()
    };
    let bodies = [kept("1").to_string(), expiring("2", 1000), expiring("3", 7_200_000), expiring("4", 0)];
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    let until =
        mailbox.items("anna").into_values().map(|item| item["until"]["N"].as_str().unwrap().to_owned());
    let expected = [3_600_000, 1000, 3_600_000].map(|after| (EPOCH_MILLIS + after).to_string());
    assert_eq!(until.collect::<Vec<_>>(), expected, "the expired message is not stored");
    assert!(rig.dead().is_empty() && rig.handed_back().is_empty());
    Ok(())
}

/// The hand-back says where the message is.
#[tokio::test(start_paused = true)]
async fn stored_message_is_appended_only_once() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a", "b"]);
    let first = rig(answering(|connection| status(if connection == "a" { 200 } else { 429 })), &mailbox);
    assert_eq!(first.invoke(batch([kept("m").to_string()])).await?, ids([]));
    let [back] = &first.handed_back()[..] else { panic!("one hand-back") };
    let retry = &back.json()["retry"];
    assert_eq!(
        (&retry["done"], &retry["kept"]["seq"], &retry["cause"]),
        (&json!(["a"]), &json!(1), &json!("429"))
    );

    let (calls, second) = (mailbox.calls().len(), rig(accepting(), &mailbox));
    assert_eq!(second.invoke(batch([back.body.clone()])).await?, ids([]));
    assert_eq!(mailbox.calls()[calls..], ["Query"], "it reads the devices alone");
    assert_eq!((frames(&second, "a"), frames(&second, "b")), (vec![], numbered([(1, "m")])));
    Ok(())
}

/// SQS delivers the record of a killed worker again.
#[tokio::test(start_paused = true)]
async fn redelivered_message_is_found_by_id() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let (rig, mut event) =
        (rig(accepting(), &mailbox), batch([kept("m").to_string(), kept("n").to_string()]));
    rig.invoke(event.clone()).await?;
    for record in &mut event.records {
        record.attributes.insert("ApproximateReceiveCount".to_owned(), "2".to_owned());
    }
    rig.invoke(event).await?;
    assert_eq!(mailbox.messages("anna"), numbered([(1, "m"), (2, "n")]));
    assert_eq!(frames(&rig, "a"), numbered([(1, "m"), (2, "n"), (1, "m"), (2, "n")]));
    Ok(())
}

/// The messages before the failing one are posted, and those of other users are not affected.
#[tokio::test(start_paused = true)]
async fn failed_append_hands_back_the_rest() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::failing_once("2", MailboxFault::Refused);
    register(&mailbox, &["a"]);
    let rig = rig(accepting(), &mailbox);
    let bodies = [kept("1"), kept("2"), kept("3")].map(|body| body.to_string());
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    assert_eq!(rig.invoke(batch([kept_for("bob", "4").to_string()])).await?, ids([]));
    assert_eq!((mailbox.messages("anna"), mailbox.top("anna")), (numbered([(1, "1")]), 1));
    assert_eq!((frames(&rig, "a"), mailbox.messages("bob")), (numbered([(1, "1")]), numbered([(1, "4")])));
    let back: Vec<_> = rig.handed_back().iter().map(Sent::json).collect();
    assert_eq!(back.iter().map(|body| &body["id"]).collect::<Vec<_>>(), ["2", "3"]);
    for retry in back.iter().map(|body| &body["retry"]) {
        assert_eq!(retry["kept"], Value::Null, "not known to be stored");
        assert!(retry["cause"].as_str().unwrap().starts_with("PutItem on table mailbox failed"), "{retry}");
    }

    // A worker that finds the note of a failed attempt looks for the message first.
    rig.invoke(batch(back.iter().map(Value::to_string))).await?;
    assert_eq!(mailbox.messages("anna"), numbered([(1, "1"), (2, "2"), (3, "3")]));
    Ok(())
}

/// The first attempt's answer was lost, so the message is stored all the same.
#[tokio::test(start_paused = true)]
async fn lost_answer_stores_nothing_twice() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::failing_once("m", MailboxFault::AnswerLost);
    register(&mailbox, &["a"]);
    let rig = rig(accepting(), &mailbox);
    rig.invoke(batch([kept("m").to_string()])).await?;
    assert_eq!((mailbox.messages("anna"), mailbox.top("anna")), (numbered([(1, "m")]), 0));
    let [back] = &rig.handed_back()[..] else { panic!("one hand-back") };
    rig.invoke(batch([back.body.clone()])).await?;
    assert_eq!((mailbox.messages("anna"), mailbox.top("anna")), (numbered([(1, "m")]), 1));
    assert_eq!(frames(&rig, "a"), numbered([(1, "m")]));
    Ok(())
}

/// The message is stored, and the next worker reads the devices.
#[tokio::test(start_paused = true)]
async fn failed_read_of_devices_hands_back() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::failing_at("Query", MailboxFault::Refused);
    register(&mailbox, &["a"]);
    let rig = rig(accepting(), &mailbox);
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    let [back] = &rig.handed_back()[..] else { panic!("one hand-back") };
    let retry = &back.json()["retry"];
    assert_eq!(retry["kept"]["seq"], 1);
    assert!(retry["cause"].as_str().unwrap().starts_with("Query on table mailbox failed"), "{retry}");
    assert!(rig.worker.gateway.posts().is_empty());
    Ok(())
}

/// The append has half of the invocation, 15 s at most, and the devices' read 5 s.
#[tokio::test(start_paused = true)]
async fn silent_mailbox_hands_back() -> anyhow::Result<()> {
    for (silent, cause) in [
        ("PutItem", "append on the mailbox: no answer within 13 s"),
        ("Query", "Query on the mailbox: no answer within 5 s"),
    ] {
        let mailbox = MailboxDouble::failing_at(silent, MailboxFault::Silence);
        let rig = rig(accepting(), &mailbox);
        let bodies = [kept("m"), message("other", &["b"])].map(|body| body.to_string());
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(causes(&rig), [("m".to_owned(), cause.to_owned())]);
        assert_eq!(rig.worker.gateway.texts("b"), ["\"other\""]);
    }
    Ok(())
}

/// Nothing is begun that cannot be ended.
#[tokio::test(start_paused = true)]
async fn no_append_begins_past_the_deadline() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let rig = rig(accepting(), &mailbox);
    rig.invoke_within(epoch(), Duration::ZERO, batch([kept("m").to_string()])).await?;
    assert_eq!(causes(&rig), [("m".to_owned(), "deadline".to_owned())]);
    assert!(mailbox.calls().is_empty());
    Ok(())
}

/// The table was restored from a backup that lacks the message.
#[tokio::test(start_paused = true)]
async fn position_of_earlier_generation_is_forgotten() -> anyhow::Result<()> {
    let first = rig(MemoryGateway::always(status(429)), &with_devices(&["a"]));
    first.invoke(batch([kept("m").to_string()])).await?;
    let [back] = &first.handed_back()[..] else { panic!("one hand-back") };

    let restored = with_devices(&["a"]);
    let mut second = rig(accepting(), &restored);
    let settings = Settings { generation: "1".to_owned(), ..Settings::default() };
    second.worker.mailbox = Some(restored.mailbox_with(settings));
    assert_eq!(second.invoke(batch([back.body.clone()])).await?, ids([]));
    assert_eq!(restored.messages("anna"), numbered([(1, "m")]));
    assert_eq!(frames(&second, "a"), numbered([(1, "m")]));
    Ok(())
}

/// Storing takes at most half of the time.
#[tokio::test(start_paused = true)]
async fn silent_mailbox_leaves_other_messages_time() -> anyhow::Result<()> {
    let rig = rig(accepting(), &MailboxDouble::failing(|_| MailboxFault::Silence));
    let bodies = [kept("m"), message("other", &["b"])].map(|body| body.to_string());
    rig.invoke_within(epoch(), Duration::from_secs(8), batch(bodies)).await?;
    let posts = rig.worker.gateway.posts();
    assert_eq!(posts.iter().map(|post| post.connection.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(causes(&rig).len(), 1, "the kept message alone");
    Ok(())
}

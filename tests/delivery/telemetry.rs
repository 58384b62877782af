//! The worker's log: one line for each pair that was not delivered or for many of them, and one for the invocation.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use streamer_tests::{
    event::{EPOCH_MILLIS, batch, message},
    gateway::status,
    worker::Rig,
};
use tracing::Level;

use crate::{answering, ids};

/// Log output, kept in memory.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Runs `run`, and returns the lines that it logs at `level` and above: parsed as JSON, and as text.
    pub(crate) async fn capture(
        level: Level,
        run: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<(Vec<Value>, String)> {
        let written = Self::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        run.await?;
        drop(guard);
        let text = String::from_utf8(written.0.lock().unwrap().clone())?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok((lines, text))
    }
}

/// Invokes a worker on a batch that ends in every outcome.
async fn invocation() -> anyhow::Result<()> {
    let rig = Rig::new(answering(|connection| match connection {
        "accepted" => status(200),
        "gone" => status(410),
        "refused" => status(413),
        _ => status(429),
    }));
    let mut body = message("m", &["accepted", "gone", "refused", "slow"]);
    body["payload"] = "s3cret".into();
    body["request"] = json!({ "id": "r", "seq": 1 });
    let poison = "{\"version\":\"s3cret\"}".to_owned();
    let mut late = message("late", &["late"]);
    late["expires_at"] = 1_763_999_999_999_u64.into();
    let mut tired = message("tired", &["tired"]);
    tired["retry"] = json!({ "count": 9, "receives": 0, "since": 0, "cause": "503" });
    let to = json!({ "user": { "tenant": "acme", "user": "away" } });
    let retry = json!({ "count": 9, "receives": 0, "since": 0, "cause": "user away" });
    let absent = json!({ "version": 1, "id": "absent", "to": to, "payload": 1, "retry": retry });
    let progress = [1, 2].map(|seq| {
        let mut progress = message("progress", &["accepted"]);
        progress["request"] = json!({ "id": "q", "seq": seq });
        progress["supersedable"] = true.into();
        progress.to_string()
    });
    let more = [poison, late.to_string(), tired.to_string(), absent.to_string()];
    let bodies = [body.to_string()].into_iter().chain(more).chain(progress);
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    Ok(())
}

/// The line has the ids that identify the pair, and never the payload.
#[tokio::test(start_paused = true)]
async fn every_undelivered_pair_has_a_line() -> anyhow::Result<()> {
    let (lines, text) = Log::capture(Level::INFO, invocation()).await?;
    let line_of = |connection: &str| {
        lines.iter().find(|line| line["connection_id"] == connection).map(|line| {
            let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            ["level", "message_id", "request_id", "outcome", "cause"].map(field)
        })
    };
    assert!(lines.iter().all(|line| line["outcome"] != "delivered"));
    assert_eq!(line_of("gone"), Some(["INFO", "m", "r", "gone", ""].map(str::to_owned)));
    assert_eq!(line_of("refused"), Some(["ERROR", "m", "r", "rejected", "413"].map(str::to_owned)));
    assert_eq!(line_of("slow"), Some(["WARN", "m", "r", "handed_back", "429"].map(str::to_owned)));
    assert_eq!(line_of("late"), Some(["INFO", "late", "", "expired", ""].map(str::to_owned)));
    assert_eq!(line_of("tired"), Some(["ERROR", "tired", "", "exhausted", "429"].map(str::to_owned)));
    let with_outcome = |outcome: &str| lines.iter().find(|line| line["outcome"] == outcome).unwrap();
    assert_eq!(with_outcome("poison")["record_id"], "record-1");
    assert_eq!(with_outcome("no_recipient")["message_id"], "absent");
    assert_eq!(
        (&with_outcome("superseded")["message_id"], &with_outcome("superseded")["request_id"]),
        (&json!("progress"), &json!("q"))
    );

    let summary = lines.iter().find(|line| line["message"] == "batch").unwrap();
    let outcomes = [
        "delivered",
        "gone",
        "rejected",
        "poison",
        "expired",
        "exhausted",
        "no_recipient",
        "superseded",
        "handed_back",
    ];
    for (outcome, pairs) in outcomes.map(|outcome| (outcome, if outcome == "delivered" { 2 } else { 1 })) {
        assert_eq!(summary[outcome], pairs, "{outcome}");
    }
    assert_eq!((&summary["messages"], &summary["pairs"]), (&json!(7), &json!(10)));
    assert!(summary["duration_ms"].is_u64(), "{summary}");
    assert!(!text.contains("s3cret"), "{text}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn debug_level_logs_delivered_pairs() -> anyhow::Result<()> {
    let (lines, text) = Log::capture(Level::DEBUG, invocation()).await?;
    let delivered = lines.iter().find(|line| line["outcome"] == "delivered").unwrap();
    assert_eq!(delivered["connection_id"], "accepted");
    assert!(!text.contains("s3cret"), "{text}");
    Ok(())
}

/// The fields that identify a message are in the line of its first try.
#[tokio::test(start_paused = true)]
async fn later_tries_share_line_per_cause() -> anyhow::Result<()> {
    let run = async || {
        let rig = Rig::new(answering(|connection| status(if connection == "refused" { 403 } else { 429 })));
        let retried = |id: &str, connection: &str| {
            let mut body = message(id, &[connection]);
            body["retry"] =
                json!({ "count": 1, "receives": 0, "since": EPOCH_MILLIS - 400_000, "cause": "429" });
            body.to_string()
        };
        let slow = ["1", "2", "3", "4"].map(|id| retried(id, id));
        let first = message("first", &["first"]).to_string();
        assert_eq!(
            rig.invoke(batch(slow.into_iter().chain([retried("5", "refused"), first]))).await?,
            ids([])
        );
        Ok(())
    };
    let (lines, _) = Log::capture(Level::INFO, run()).await?;
    let again: Vec<_> = lines.iter().filter(|line| line["message"] == "handed back again").collect();
    let fields = |line: &&Value| {
        ["outcome", "cause", "pairs", "messages", "examples", "max_age_ms"].map(|name| line[name].clone())
    };
    assert_eq!(
        again.iter().map(fields).collect::<Vec<_>>(),
        [
            [json!("handed_back"), json!("403"), json!(1), json!(1), json!("5"), json!(400_000)],
            [json!("handed_back"), json!("429"), json!(4), json!(4), json!("1 2 3"), json!(400_000)],
        ]
    );
    let of_a_message: Vec<_> = lines.iter().filter_map(|line| line["message_id"].as_str()).collect();
    assert_eq!(of_a_message, ["first"]);

    let (lines, _) = Log::capture(Level::DEBUG, run()).await?;
    let pairs =
        lines.iter().filter(|line| line["outcome"] == "handed_back" && line["message_id"].is_string());
    assert_eq!(pairs.count(), 6, "each pair has a line");
    Ok(())
}

/// A message for a hundred clients of an endpoint that fails has no hundred lines.
#[tokio::test(start_paused = true)]
async fn many_first_tries_share_line_per_cause() -> anyhow::Result<()> {
    let run = async || {
        let rig = Rig::new(answering(|_| status(503)));
        let names: Vec<_> = (0..100).map(|number| format!("c{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let few = message("few", &["gone-1", "gone-2"]).to_string();
        assert_eq!(rig.invoke(batch([message("many", &names).to_string(), few])).await?, ids([]));
        Ok(())
    };
    let (lines, _) = Log::capture(Level::INFO, run()).await?;
    let summary = lines.iter().find(|line| line["message"] == "batch").unwrap();
    let shared: Vec<_> = lines.iter().filter(|line| line["message"] == "handed back").collect();
    let pairs = |line: &Value| line["pairs"].as_u64().unwrap_or(1);
    let counted: u64 = lines.iter().filter(|line| line["outcome"] == "handed_back").map(pairs).sum();
    assert_eq!(Some(counted), summary["handed_back"].as_u64(), "the lines add up");
    assert_eq!(counted, 102);
    assert!(shared.iter().all(|line| line["pairs"].as_u64() > Some(10)), "{shared:?}");
    assert!(lines.len() <= 2 + 2 + 2 * 10, "{} lines", lines.len());
    Ok(())
}

/// Prints the bytes that an invocation in an outage logs for ten messages which it hands back again.
#[tokio::test(start_paused = true)]
async fn outage_batch_logs_three_lines() -> anyhow::Result<()> {
    let metrics = Log::default();
    let run = async || {
        let mut rig = Rig::new(answering(|_| status(503)));
        rig.worker.telemetry = rig.worker.telemetry.clone().with_metrics_to(metrics.clone());
        let bodies = (0..10).map(|number| {
            let id = format!("0193a4c0-7f3e-7a00-8000-00000000000{number}");
            let mut body = message(&id, &["L0SM9cOFvHcCIhw="]);
            body["retry"] =
                json!({ "count": 9, "receives": 0, "since": EPOCH_MILLIS - 900_000, "cause": "503" });
            body.to_string()
        });
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        Ok(())
    };
    let (lines, text) = Log::capture(Level::INFO, run()).await?;
    let metrics = metrics.0.lock().unwrap().len();
    writeln!(
        io::stderr(),
        "ten messages handed back again: {} bytes of lines, {metrics} of metrics",
        text.len()
    )?;
    assert!(lines.len() <= 3, "causes 503 and behind, and the summary: {text}");
    assert!(text.len() + metrics < 4096, "{} and {metrics} bytes", text.len());
    Ok(())
}

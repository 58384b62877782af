//! What operators read: a line for each pair that was not delivered, and one for the invocation.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use streamer_tests::{
    event::{batch, message},
    gateway::status,
    worker::Rig,
};
use tracing::Level;

use crate::{answering, ids};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The lines that `logging` lets through, as JSON.
    async fn of(
        level: Level,
        logging: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<(Vec<Value>, String)> {
        let written = Self::default();
        let to = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(level)
            .with_writer(move || to.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        logging.await?;
        drop(guard);
        let text = String::from_utf8(written.0.lock().unwrap().clone())?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok((lines, text))
    }
}

async fn invocation() -> anyhow::Result<()> {
    let rig = Rig::new(answering(|connection| match connection {
        "accepted" => status(200),
        "gone" => status(410),
        "refused" => status(413),
        _ => status(429),
    }));
    let mut body = message("m", &["accepted", "gone", "refused", "slow"]);
    body["payload"] = "s3cret".into();
    body["request"] = serde_json::json!({ "id": "r", "seq": 1 });
    let poison = "{\"version\":\"s3cret\"}".to_owned();
    assert_eq!(rig.invoke(batch([body.to_string(), poison])).await?, ids([]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_pair_that_was_not_delivered_has_a_line_with_all_that_finds_it() -> anyhow::Result<()> {
    let (lines, text) = Lines::of(Level::INFO, invocation()).await?;
    let line = |connection: &str| {
        lines.iter().find(|line| line["connection_id"] == connection).map(|line| {
            let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            ["level", "message_id", "request_id", "outcome", "cause"].map(field)
        })
    };
    assert_eq!(line("accepted"), None);
    assert_eq!(line("gone"), Some(["INFO", "m", "r", "gone", ""].map(str::to_owned)));
    assert_eq!(line("refused"), Some(["ERROR", "m", "r", "rejected", "413"].map(str::to_owned)));
    assert_eq!(line("slow"), Some(["WARN", "m", "r", "handed_back", "429"].map(str::to_owned)));
    let poison = lines.iter().find(|line| line["outcome"] == "poison").unwrap();
    assert_eq!(poison["record_id"], "record-1");

    let summary = lines.iter().find(|line| line["message"] == "batch").unwrap();
    for (name, number) in [
        ("messages", 2),
        ("pairs", 5),
        ("delivered", 1),
        ("gone", 1),
        ("rejected", 1),
        ("poison", 1),
        ("handed_back", 1),
    ] {
        assert_eq!(summary[name], number, "{name}");
    }
    assert!(!text.contains("s3cret"), "{text}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn at_debug_level_every_delivered_pair_has_a_line_too() -> anyhow::Result<()> {
    let (lines, text) = Lines::of(Level::DEBUG, invocation()).await?;
    let delivered = lines.iter().find(|line| line["outcome"] == "delivered").unwrap();
    assert_eq!(delivered["connection_id"], "accepted");
    assert!(!text.contains("s3cret"), "{text}");
    Ok(())
}

//! The functions as processes that Lambda ends: idle, amid an invocation, and right behind a response.
//!
//! Lambda sends SIGTERM only to functions with an extension, and kills the others. No function handles the signal: there
//! is nothing to finish, since the messages of an invocation without a response are received again, and nothing to
//! flush, since each line of the log is written at once.

use std::{
    collections::BTreeMap, fs, os::unix::process::ExitStatusExt as _, path::PathBuf, process::ExitStatus,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::Value;
use streamer_cli::{
    package::{
        archive::{Compression, archive},
        runtime_api::Answer,
        start::{Started, start},
    },
    paths,
    spec::Spec,
    stack::{build, issuer::Issuer},
};
use streamer_tests::{
    command::signal,
    event::{batch_json, message},
    eventually,
    wire::{Reply, WireGateway},
};
use sysinfo::Signal;
use tokio::time::timeout;

const SIGTERM: i32 = 15;

/// Maximum time for an exit. Lambda gives a runtime 300 to 500 ms; this machine may be busy.
const EXIT: Duration = Duration::from_secs(2);

/// A function that runs in a folder of its own.
struct Function {
    started: Started,
    folder: PathBuf,
}

impl Function {
    async fn start(name: &str, test: &str, gateway: &WireGateway) -> anyhow::Result<Self> {
        let zip = archive(&fs::read(build::build().await?.path(name)?)?, Compression::Fast)?;
        let folder = paths::shared(format!("tests/shutdown-{test}-{name}-{}", std::process::id()));
        let variables = [
            ("AWS_ENDPOINT_URL", gateway.origin()),
            ("WEBSOCKET_ENDPOINT", gateway.endpoint()),
            ("QUEUE_URL", format!("{}/queue", gateway.origin())),
            ("DEAD_LETTER_QUEUE_URL", format!("{}/dead-letters", gateway.origin())),
            ("CONNECTIONS_TABLE", "connections".to_owned()),
            ("MAILBOX_TABLE", "mailbox".to_owned()),
            ("JWT_PUBLIC_KEY", Issuer::generate()?.public_key),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ];
        let variables: BTreeMap<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Self { started: start(&zip, &folder, &[], &variables).await?, folder })
    }

    fn terminate(&self) -> anyhow::Result<()> {
        signal(&self.started.process, Signal::Term)
    }

    /// Waits for the end of the process.
    async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(timeout(EXIT, self.started.process.wait()).await.context("the process goes on")??)
    }

    /// Returns the log. Each line is complete.
    fn log(self) -> anyhow::Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.join("log"))?;
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        fs::remove_dir_all(self.folder)?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

/// Builds an event of messages to `a` and `b`.
fn event() -> String {
    batch_json(["a", "b"].map(|id| message(id, &[id]).to_string())).to_string()
}

#[tokio::test]
async fn idle_functions_end_at_sigterm() -> anyhow::Result<()> {
    let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await?;
    for function in Spec::read()?.functions.values() {
        let mut function = Function::start(&function.package, "idle", &gateway).await?;
        function.terminate()?;
        assert_eq!(function.ended().await?.signal(), Some(SIGTERM));
        function.log()?;
    }
    assert!(gateway.requests().is_empty());
    Ok(())
}

/// API Gateway has accepted the message to `a` and not yet answered the one to `b`. Without a response, SQS delivers both
/// again, and the next environment completes them.
#[tokio::test]
async fn sigterm_amid_invocation_loses_nothing() -> anyhow::Result<()> {
    let gateway = WireGateway::answering(|_, request| match request.connection() {
        "b" => Reply::Silent,
        _ => Reply::Answer(200, String::new()),
    })
    .await?;
    let mut function = Function::start("delivery-worker", "amid", &gateway).await?;
    let event = event();
    let both_posts =
        async { eventually("both posts arrive", async || Ok(gateway.requests().len() == 2)).await };
    tokio::select! {
        answer = function.started.api.invoke(&event) => panic!("the invocation ends by itself: {answer:?}"),
        arrived = both_posts => arrived?,
    }
    function.terminate()?;
    assert_eq!(function.ended().await?.signal(), Some(SIGTERM));
    // The process has ended, so a response that it sent would be here.
    let sent = timeout(Duration::from_millis(200), function.started.api.poll()).await;
    assert!(sent.is_err(), "the process sends no response: {sent:?}");
    assert_eq!((gateway.requests().len(), function.log()?), (2, Vec::new()), "nothing is sent to a queue");

    let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await?;
    let mut next = Function::start("delivery-worker", "next", &gateway).await?;
    let answer = next.started.api.invoke(&event).await?;
    assert_eq!(answer, Answer::Response(r#"{"batchItemFailures":[]}"#.to_owned()));
    let mut posts: Vec<_> = gateway.requests().iter().map(|post| post.connection().to_owned()).collect();
    posts.sort_unstable();
    assert_eq!(posts, ["a", "b"]);
    Ok(())
}

/// Lambda may freeze or kill the process as soon as it has the response.
#[tokio::test]
async fn log_is_complete_at_response() -> anyhow::Result<()> {
    let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await?;
    let mut function = Function::start("delivery-worker", "killed", &gateway).await?;
    function.started.api.invoke(&event()).await?;
    function.started.process.start_kill()?;
    function.ended().await?;
    let log = function.log()?;
    let metrics: Vec<_> = log.iter().filter(|line| line["_aws"].is_object()).collect();
    let [metrics] = &metrics[..] else { panic!("{log:?}") };
    assert_eq!(metrics["Delivered"], 2.0, "{metrics}");
    assert_eq!(
        log.last().map(|line| (&line["message"], &line["delivered"])),
        Some((&"batch".into(), &2.into()))
    );
    Ok(())
}

/// Every message of an event that cannot be read is received again, and the process goes on.
#[tokio::test]
async fn event_without_records_fails_invocation() -> anyhow::Result<()> {
    let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await?;
    let mut function = Function::start("delivery-worker", "events", &gateway).await?;
    let api = &mut function.started.api;
    for event in ["null", "{}", "[]", r#"{"Records":null}"#, r#"{"Records":{}}"#, r#"{"records":[]}"#] {
        let answer = api.invoke(event).await?;
        assert!(matches!(answer, Answer::Error(_)), "{event}: {answer:?}");
        api.poll().await?;
    }
    let answer = api.invoke(r#"{"Records":[]}"#).await?;
    assert_eq!(answer, Answer::Response(r#"{"batchItemFailures":[]}"#.to_owned()));
    api.poll().await?;
    assert_eq!(api.invoke(&event()).await?, Answer::Response(r#"{"batchItemFailures":[]}"#.to_owned()));
    assert_eq!(gateway.requests().len(), 2);
    Ok(())
}

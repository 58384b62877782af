//! Commands with `--aws` that fail: each says in one sentence what to do. No call leaves this machine.

use std::{net::Ipv4Addr, time::Duration};

use streamer_tests::command::{Output, Streamer};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// Time that a command may take although its credentials, Region or names are wrong. On a busy machine most of it is
/// waiting for a processor.
const LIMIT: Duration = Duration::from_secs(60);

const QUEUE: &str = "https://sqs.us-east-1.amazonaws.com/000000000000/outbound";

/// A secret that no output may contain.
const SECRET: &str = "wJalrXUtnFEMI";

const FORGET: [&str; 10] =
    ["forget", "--aws", "--table", "rows", "--mailbox-table", "kept", "--tenant", "acme", "--user", "anna"];

/// Every command with `--aws`.
const COMMANDS: [&[&str]; 9] = [
    &["status", "--aws"],
    &["send", "--aws", "--queue-url", QUEUE, "--connection", "c", "--payload", "1"],
    &["redrive", "--aws", "--queue-url", QUEUE],
    &["receipts", "--aws", "--receipts-queue-url", QUEUE],
    &["connections", "--aws", "--table", "rows"],
    &["disconnect", "--aws", "--table", "rows", "--tenant", "acme"],
    &["disconnect", "--aws", "--table", "rows", "--tenant", "acme", "--close"],
    &["mailbox", "--aws", "--mailbox-table", "kept", "--tenant", "acme", "--user", "anna"],
    &FORGET,
];

const CREDENTIALS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", SECRET),
    ("AWS_SESSION_TOKEN", SECRET),
    ("AWS_REGION", "us-east-1"),
];

/// Serves every call with this error code, and returns the endpoint.
async fn refusing(code: &'static str) -> anyhow::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse(stream, code));
        }
    });
    Ok(endpoint)
}

async fn refuse(stream: TcpStream, code: &str) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while stream.read_line(&mut line).await? > 0 && line != "\r\n" {
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        stream.read_exact(&mut vec![0; length]).await?;
        let body = format!(r#"{{"__type":"com.amazonaws#{code}","message":"signed with {SECRET}"}}"#);
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\nx-amzn-errortype: {code}\r\ncontent-type: application/x-amz-json-1.0\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
    }
}

/// Runs a command with these variables.
async fn run(streamer: &Streamer, arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Output> {
    let started = Instant::now();
    let output = timeout(LIMIT, streamer.run_without_aws(arguments.iter().copied(), variables)).await??;
    assert!(!output.success && output.out.is_empty(), "{arguments:?}: {output:?}");
    let is_one_sentence = output.err.starts_with("streamer: ") && output.err.lines().count() == 1;
    assert!(is_one_sentence, "{arguments:?} after {:?}: {output:?}", started.elapsed());
    for word in ["dispatch failure", "SdkError", "Unhandled", "provider", SECRET] {
        assert!(!output.err.contains(word), "{arguments:?}: {word}: {output:?}");
    }
    Ok(output)
}

/// Runs every command with these variables, and expects this text in its error.
async fn all_say(name: &str, variables: &[(&str, &str)], expected: &str) -> anyhow::Result<()> {
    let streamer = Streamer::new(name).await?;
    for arguments in COMMANDS {
        let output = run(&streamer, arguments, variables).await?;
        assert!(output.err.contains(expected), "{arguments:?}: {output:?}");
    }
    Ok(())
}

mod commands_explain {
    use super::*;

    #[tokio::test]
    async fn missing_credentials() -> anyhow::Result<()> {
        let variables = [("AWS_REGION", "us-east-1")];
        all_say(
            "aws-none",
            &variables,
            "no AWS credentials were found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID",
        )
        .await
    }

    #[tokio::test]
    async fn missing_region() -> anyhow::Result<()> {
        all_say("aws-region", &CREDENTIALS[..3], "no AWS Region is set: set the variable AWS_REGION").await
    }

    #[tokio::test]
    async fn unknown_profile() -> anyhow::Result<()> {
        let variables = [("AWS_REGION", "us-east-1"), ("AWS_PROFILE", "missing")];
        all_say(
            "aws-profile",
            &variables,
            "the AWS profile missing has no credentials that can be used: check AWS_PROFILE",
        )
        .await
    }

    async fn refusal(name: &str, code: &'static str, expected: &str) -> anyhow::Result<()> {
        let endpoint = refusing(code).await?;
        let mut variables = CREDENTIALS.to_vec();
        variables.push(("AWS_ENDPOINT_URL", &endpoint));
        all_say(name, &variables, expected).await
    }

    #[tokio::test]
    async fn expired_token() -> anyhow::Result<()> {
        refusal("aws-expired", "ExpiredTokenException", "the AWS credentials have expired: sign in again")
            .await
    }

    #[tokio::test]
    async fn wrong_credentials() -> anyhow::Result<()> {
        refusal("aws-wrong", "UnrecognizedClientException", "AWS does not accept the credentials").await
    }

    #[tokio::test]
    async fn denied_access() -> anyhow::Result<()> {
        refusal("aws-denied", "AccessDeniedException", "the AWS credentials do not permit ").await
    }

    /// A queue, a table or a function that does not exist.
    #[tokio::test]
    async fn wrong_names() -> anyhow::Result<()> {
        let (queue, other) =
            (refusing("QueueDoesNotExist").await?, refusing("ResourceNotFoundException").await?);
        let expected = [
            (&other, "there is no function streamer-delivery: check --name and the Region"),
            (&queue, "there is no queue https://sqs."),
            (&queue, "there is no queue https://sqs."),
            (&queue, "there is no queue https://sqs."),
            (&other, "there is no connection table rows: check the name"),
            (&other, "there is no connection table rows: check the name"),
            (&other, "there is no connection table rows: check the name"),
        ];
        let streamer = Streamer::new("aws-names").await?;
        for (arguments, (endpoint, expected)) in COMMANDS.into_iter().zip(expected) {
            let mut variables = CREDENTIALS.to_vec();
            variables.push(("AWS_ENDPOINT_URL", endpoint));
            let output = run(&streamer, arguments, &variables).await?;
            assert!(output.err.contains(expected), "{arguments:?}: {output:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn missing_connection() -> anyhow::Result<()> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        drop(listener);
        let mut variables = CREDENTIALS.to_vec();
        variables.push(("AWS_ENDPOINT_URL", &endpoint));
        all_say("aws-unreachable", &variables, "no connection: Connection refused").await
    }
}

//! Our Lambdas as real processes, behind a stub of the Runtime API.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::process::{CLIENT, clean, cpu, pinned, resident};

/// What a Lambda cost.
pub struct Cost {
    /// CPU time for an invocation.
    pub cpu: Duration,
    /// Time for an invocation, from the event to the response.
    pub wall: Duration,
}

/// How a Lambda starts.
pub struct Start {
    /// From its start to its first poll.
    pub time: Duration,
    /// KiB at its first poll.
    pub resident: u64,
}

/// The Runtime API, for one Lambda.
struct Runtime {
    listener: TcpListener,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Runtime {
    async fn new() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self { listener, stream: None, buffer: Vec::new() })
    }

    fn spawn(&self, mut command: Command, variables: &[(&str, &str)]) -> anyhow::Result<Child> {
        for (name, value) in [
            ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ] {
            command.env(name, value);
        }
        command.env("AWS_LAMBDA_RUNTIME_API", self.listener.local_addr()?.to_string());
        command.envs(variables.iter().copied()).stdout(Stdio::null());
        Ok(command.spawn()?)
    }

    /// The next request's head; its body is read and left.
    async fn request(&mut self) -> anyhow::Result<String> {
        loop {
            if self.stream.is_none() {
                let (stream, _) = self.listener.accept().await?;
                stream.set_nodelay(true)?;
                self.stream = Some(stream);
                self.buffer.clear();
            }
            let stream = self.stream.as_mut().context("no connection")?;
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                let lower = head.to_ascii_lowercase();
                let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
                let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
                while self.buffer.len() < end + 4 + length {
                    anyhow::ensure!(stream.read_buf(&mut self.buffer).await? > 0, "the Lambda has ended");
                }
                self.buffer.drain(..end + 4 + length);
                return Ok(head);
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                self.stream = None;
            }
        }
    }

    async fn answer(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.stream.as_mut().context("no connection")?.write_all(text.as_bytes()).await?)
    }

    /// Waits for a poll.
    async fn poll(&mut self) -> anyhow::Result<()> {
        let head = self.request().await?;
        anyhow::ensure!(head.starts_with("GET "), "not a poll: {head}");
        Ok(())
    }

    /// Answers a poll with an event, and waits for the response.
    async fn invoke(&mut self, event: &str) -> anyhow::Result<()> {
        let deadline = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() + 30_000;
        self.answer(&format!(
            "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: bench\r\nLambda-Runtime-Deadline-Ms: {deadline}\r\n\
             Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:eu-central-1:000000000000:function:bench\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{event}",
            event.len()
        ))
        .await?;
        let head = self.request().await?;
        anyhow::ensure!(head.contains("/response"), "the invocation failed: {head}");
        self.answer("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await
    }
}

/// A Lambda's cost, over `number` invocations with the same event after some that do not count.
pub async fn cost(
    binary: &Path,
    variables: &[(&str, &str)],
    event: &str,
    number: u32,
) -> anyhow::Result<Cost> {
    let mut runtime = Runtime::new().await?;
    let mut child = runtime.spawn(pinned(CLIENT, binary), variables)?;
    let measured = async {
        runtime.poll().await?;
        for _ in 0..number / 10 + 5 {
            runtime.invoke(event).await?;
            runtime.poll().await?;
        }
        let (before, started) = (cpu(child.id())?, Instant::now());
        for _ in 0..number {
            runtime.invoke(event).await?;
            runtime.poll().await?;
        }
        Ok(Cost { cpu: (cpu(child.id())? - before) / number, wall: started.elapsed() / number })
    }
    .await;
    child.kill()?;
    child.wait()?;
    measured
}

/// How a Lambda starts: the median of 15.
pub async fn start(binary: &Path, variables: &[(&str, &str)]) -> anyhow::Result<Start> {
    let mut starts = Vec::new();
    for _ in 0..15 {
        let mut runtime = Runtime::new().await?;
        let started = Instant::now();
        // Not pinned: to start `taskset` takes time too.
        let mut child = runtime.spawn(clean(binary), variables)?;
        let polled = runtime.poll().await;
        let start = Start { time: started.elapsed(), resident: resident(child.id())? };
        child.kill()?;
        child.wait()?;
        polled?;
        starts.push(start);
    }
    starts.sort_unstable_by_key(|start| start.time);
    starts.into_iter().nth(7).context("no starts")
}

//! HTTP/1.1 against HTTP/2 over TLS, warm and cold, and the framings of answers: `cargo bench -p streamer-tests -- tls`.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use delivery_worker::admission::concurrency::Settings;
use futures::{StreamExt as _, stream};
use serde_json::json;
use streamer_environment::{aws, tls};
use streamer_gateway::{Gateway as _, ManagementApi, PostResult};
use streamer_message::ConnectionId;

use crate::{
    client::PAYLOAD,
    machine, ours, place,
    process::{SERVER, cpu, pinned},
    quota::{MB_512, Quota},
    server::certificate,
    table::Table,
};

/// Answer times in milliseconds. API Gateway answers in some 5 to 10 ms.
const DELAYS: [u64; 2] = [0, 7];

/// Rounds of a cold client. The median counts.
const COLD_ROUNDS: usize = 15;

/// How long warm posts are measured, after one fan-out.
const MEASURED: Duration = Duration::from_secs(2);

/// Measures all cases, and prints their tables.
pub(crate) fn run() -> anyhow::Result<()> {
    fs::create_dir_all(place(""))?;
    certificate()?;
    machine();
    warm()?;
    cold()?;
    answers()
}

fn warm() -> anyhow::Result<()> {
    let mut table = Table::new(
        &format!(
            "warm fan-outs over TLS, {PAYLOAD} bytes, at most {} posts in flight",
            Settings::DEFAULT.max
        ),
        &["answer after", "fan-out ms", "posts/s", "CPU µs/post", "connections", "CPU ratio"],
    );
    for delay in DELAYS {
        for recipients in [10, 100, 1000] {
            let mut baseline = None;
            for protocol in ["http1", "http2"] {
                let stub = Stub::start(delay, protocol)?;
                let [time, rate, cpu] = stub.client("warm", recipients, None)?;
                let ratio = cpu / *baseline.get_or_insert(cpu);
                table.row(
                    &format!("{recipients} recipients, {}", name(protocol)),
                    &[
                        format!("{delay} ms"),
                        format!("{time:.2}"),
                        format!("{rate:.0}"),
                        format!("{cpu:.1}"),
                        stub.connections()?.to_string(),
                        format!("{ratio:.2}"),
                    ],
                );
            }
        }
    }
    table.print();
    Ok(())
}

fn cold() -> anyhow::Result<()> {
    let third = Quota::new(MB_512);
    let alone = if third.is_some() { "ms, ⅓ core" } else { "CPU/0.33 ms" };
    let mut table = Table::new(
        &format!("the first posts of a new client over TLS, all at once, median of {COLD_ROUNDS}"),
        &["answer after", "ms", "CPU ms", alone, "connections", "time ratio"],
    );
    for delay in DELAYS {
        for posts in [10, 100, 256] {
            let mut baseline = None;
            for protocol in ["http1", "http2"] {
                let stub = Stub::start(delay, protocol)?;
                let [time, cpu] = stub.client("cold", posts, None)?;
                let connections = stub.connections()? as f64 / COLD_ROUNDS as f64;
                let slow = match &third {
                    Some(third) => stub.client::<2>("cold", posts, Some(third))?[0],
                    None => cpu / 0.33,
                };
                let ratio = slow / *baseline.get_or_insert(slow);
                table.row(
                    &format!("{posts} posts, {}", name(protocol)),
                    &[
                        format!("{delay} ms"),
                        format!("{time:.1}"),
                        format!("{cpu:.1}"),
                        format!("{slow:.1}"),
                        format!("{connections:.0}"),
                        format!("{ratio:.2}"),
                    ],
                );
            }
        }
    }
    table.print();
    Ok(())
}

fn answers() -> anyhow::Result<()> {
    let mut table = Table::new(
        &format!("1000 recipients of a new client over TLS, at most {} in flight", Settings::DEFAULT.initial),
        &["answer after", "ms", "CPU ms", "connections", "time ratio"],
    );
    for delay in DELAYS {
        let mut baseline = None;
        for protocol in ["http1", "chunked", "unframed", "http2"] {
            let stub = Stub::start(delay, protocol)?;
            let [time, cpu] = stub.client("answers", 1000, None)?;
            let connections = stub.connections()? as f64 / COLD_ROUNDS as f64;
            let ratio = time / *baseline.get_or_insert(time);
            table.row(
                name(protocol),
                &[
                    format!("{delay} ms"),
                    format!("{time:.1}"),
                    format!("{cpu:.1}"),
                    format!("{connections:.0}"),
                    format!("{ratio:.2}"),
                ],
            );
        }
    }
    table.print();
    Ok(())
}

fn name(protocol: &str) -> &str {
    match protocol {
        "http1" => "HTTP/1.1",
        "http2" => "HTTP/2",
        "chunked" => "HTTP/1.1, chunked answers",
        _ => "HTTP/1.1, answers without a length",
    }
}

/// Runs a measured client in this process, and prints its figures, one per line.
pub(crate) async fn client(role: &str, endpoint: &str, posts: usize) -> anyhow::Result<()> {
    let aws = aws::load().await;
    let payload = Bytes::from(json!("x".repeat(PAYLOAD - 2)).to_string());
    let connections: Vec<ConnectionId> =
        (0..posts).map(|id| format!("L0SM9cOFvH{id:05}=").try_into()).collect::<Result<_, _>>()?;
    let fan_out = async |api: &ManagementApi, in_flight: usize| {
        let works = connections.iter().map(|connection| api.post(connection, payload.clone()));
        let mut results = stream::iter(works).buffer_unordered(in_flight);
        let mut failed = 0;
        while let Some(result) = results.next().await {
            failed += usize::from(!matches!(result, PostResult::Status { status: 200, .. }));
        }
        failed
    };
    let client = || ManagementApi::with_tls(&aws, endpoint, Settings::DEFAULT.max, tls::client_config()?);
    let own = std::process::id();
    let (mut times, mut cpus) = (Vec::new(), Vec::new());
    match role {
        "warm" => {
            let api = client()?;
            fan_out(&api, Settings::DEFAULT.max).await;
            let (began, before) = (Instant::now(), cpu(own)?);
            while began.elapsed() < MEASURED {
                let started = Instant::now();
                ensure!(fan_out(&api, Settings::DEFAULT.max).await == 0, "a post failed");
                times.push(started.elapsed());
            }
            let done = (times.len() * posts) as f64;
            println!("{:.3}", median(&mut times).as_secs_f64() * 1e3);
            println!("{:.0}", done / began.elapsed().as_secs_f64());
            println!("{:.2}", (cpu(own)? - before).as_secs_f64() * 1e6 / done);
        }
        _ => {
            let in_flight = if role == "cold" { posts } else { Settings::DEFAULT.initial };
            for _ in 0..COLD_ROUNDS {
                let api = client()?;
                // A new period of the quota begins with all of its time.
                tokio::time::sleep(Duration::from_millis(40)).await;
                let (started, before) = (Instant::now(), cpu(own)?);
                ensure!(fan_out(&api, in_flight).await == 0, "a post failed");
                times.push(started.elapsed());
                cpus.push(cpu(own)? - before);
            }
            println!("{:.3}", median(&mut times).as_secs_f64() * 1e3);
            println!("{:.3}", median(&mut cpus).as_secs_f64() * 1e3);
        }
    }
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A stub on the servers' core that runs until it is dropped.
struct Stub {
    process: Child,
    endpoint: String,
    counter: String,
}

impl Stub {
    fn start(delay: u64, protocol: &str) -> anyhow::Result<Self> {
        let mut command = pinned(SERVER, env::current_exe()?);
        command.args(["peer", &delay.to_string(), protocol]).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut addresses = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut addresses)?;
        let (address, counter) = addresses.trim().split_once(' ').context("no addresses")?;
        let port = address.rsplit(':').next().unwrap_or_default();
        Ok(Self { process, endpoint: format!("https://localhost:{port}/stage"), counter: counter.to_owned() })
    }

    /// Returns the number of connections so far.
    fn connections(&self) -> anyhow::Result<usize> {
        let mut text = String::new();
        TcpStream::connect(&self.counter)?.read_to_string(&mut text)?;
        Ok(text.parse()?)
    }

    /// Runs a client of this stub, and returns its figures.
    fn client<const N: usize>(
        &self,
        role: &str,
        posts: usize,
        quota: Option<&Quota>,
    ) -> anyhow::Result<[f64; N]> {
        let mut command = ours(["tls-client", role, &self.endpoint, &posts.to_string()]);
        if let Some(quota) = quota {
            let mut limited = Command::new("sh");
            limited.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(quota.processes());
            limited.arg(command.get_program()).args(command.get_args());
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => limited.env(name, value),
                    None => limited.env_remove(name),
                };
            }
            command = limited;
        }
        let figures = crate::figures(command)?;
        figures.try_into().ok().context("the client printed other figures")
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

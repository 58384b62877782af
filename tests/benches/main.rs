//! Compares Streamer with its peers in one run: `cargo bench -p streamer-tests`.
//!
//! Servers run on one core, measured processes on the other. All figures are of the same run, and ratios are to the AWS
//! SDK for Rust. `cargo bench -p streamer-tests -- options` measures kept messages and receipts alone, `-- tls` the
//! versions of HTTP and the framings of answers, `-- shapes` the worker's memory, `-- invocations` whole invocations of
//! the worker, `-- cold` the first invocation of a process, and `-- starts` start and size of the Lambdas.

mod client;
mod cold;
mod connect;
mod invocation;
mod lambda;
mod options;
mod peer;
mod peers;
mod process;
mod quota;
mod server;
mod shapes;
mod starts;
mod stub;
mod table;
mod versions;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::ensure;
use streamer_cli::{
    paths,
    stack::issuer::{ISSUER, Issuer},
};
use streamer_tests::{event, signer::ALGORITHMS};

use crate::{
    lambda::build,
    peers::{Peers, wrk},
    process::{CLIENT, pinned},
    server::{Stub, certificate, server_config},
    table::Table,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["stub", delay, tls] => {
            let tls = if *tls == "tls" { Some(server_config()?) } else { None };
            stub::serve(Duration::from_millis(delay.parse()?), tls).await
        }
        ["aws", status, _] => shapes::aws::serve(status.parse()?, server_config()?).await,
        ["shapes", ..] => shapes().await,
        ["invocations", ..] => invocations().await,
        ["cold", ..] => cold().await,
        ["starts", ..] => starts::run(&built()?).await,
        ["connect", algorithm] => connect::run(algorithm).await,
        ["client", name, endpoint, number] => client::run(name, endpoint, number.parse()?).await,
        ["options", ..] => options::run().await,
        ["tls", ..] => versions::run(),
        ["peer", delay, protocol] => peer::serve(Duration::from_millis(delay.parse()?), protocol).await,
        ["tls-client", role, endpoint, posts] => versions::client(role, endpoint, posts.parse()?).await,
        _ => measure().await,
    }
}

fn place(name: &str) -> PathBuf {
    paths::shared("bench").join(name)
}

/// Prepares what all measurements need.
fn prepare() -> anyhow::Result<()> {
    fs::create_dir_all(place(""))?;
    certificate()
}

/// Measures the worker's memory, also that of another build.
async fn shapes() -> anyhow::Result<()> {
    prepare()?;
    machine();
    match env::var_os("OTHER_WORKER") {
        Some(worker) => shapes::run(Path::new(&worker)).await,
        None => shapes::run(&build()?["delivery-worker"]).await,
    }
}

/// Prepares the Lambdas for a measurement of its own.
fn built() -> anyhow::Result<BTreeMap<String, PathBuf>> {
    prepare()?;
    let lambdas = build()?;
    machine();
    Ok(lambdas)
}

/// Measures whole invocations of the worker, with another build beside it.
async fn invocations() -> anyhow::Result<()> {
    invocation::run(&built()?["delivery-worker"]).await
}

/// Measures the first invocation of the Lambdas.
async fn cold() -> anyhow::Result<()> {
    cold::run(&built()?).await
}

async fn measure() -> anyhow::Result<()> {
    prepare()?;
    let peers = Peers::install().await;
    let lambdas = build()?;
    machine();
    posts(&peers, false)?;
    posts(&peers, true)?;
    broadcasts()?;
    options::run().await?;
    invocation::run(&lambdas["delivery-worker"]).await?;
    handlers(&lambdas).await?;
    cold::run(&lambdas).await?;
    shapes::run(&lambdas["delivery-worker"]).await?;
    connects()?;
    sends()?;
    starts::run(&lambdas).await
}

/// Prints the machine's CPU and memory.
fn machine() {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.split_once(':').map(|(_, value)| value.trim().to_owned()))
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!(
        "\n{} cores of {}, {} of memory",
        cores,
        line("/proc/cpuinfo", "model name"),
        line("/proc/meminfo", "MemTotal")
    );
}

/// Measures posts per second, and the CPU time of each.
fn posts(peers: &Peers, tls: bool) -> anyhow::Result<()> {
    let stub = Stub::start(0, tls)?;
    let endpoint = format!("{}/stage", stub.origin);
    for in_flight in [64, 128] {
        let number = in_flight.to_string();
        let over = if tls { "TLS" } else { "plain HTTP" };
        let mut table = Table::new(
            &format!(
                "PostToConnection, {} bytes over {over}, {in_flight} in flight, no delay",
                client::PAYLOAD
            ),
            &["posts/s", "ratio", "CPU µs/post"],
        );
        // In turn, three times: the machine's speed drifts, and affects all medians alike.
        let (mut unsigned, mut streamer, mut baseline) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 {
            unsigned.extend(wrk(&endpoint, in_flight)?);
            streamer.push(figures(ours(["client", "posts-streamer", &endpoint, &number]))?);
            baseline.push(figures(ours(["client", "posts-sdk", &endpoint, &number]))?);
        }
        let baseline = middle(baseline);
        let rate = baseline.first().copied().unwrap_or(1.0);
        let mut row = |name: &str, figures: &[f64]| {
            let cpu = figures.get(1).map_or_else(String::new, |cpu| format!("{cpu:.1}"));
            table.row(name, &[format!("{:.0}", figures[0]), format!("{:.2}", figures[0] / rate), cpu]);
        };
        if !unsigned.is_empty() {
            row("wrk, unsigned requests", &middle(unsigned));
        }
        row("Streamer", &middle(streamer));
        row("AWS SDK for Rust, buffer_unordered", &baseline);
        for (name, figures) in peers.posts(&endpoint, &number)? {
            row(&name, &figures);
        }
        table.print();
    }
    Ok(())
}

/// Returns the run with the median rate.
fn middle(mut runs: Vec<Vec<f64>>) -> Vec<f64> {
    runs.sort_by(|one, other| one[0].total_cmp(&other[0]));
    runs.swap_remove(runs.len() / 2)
}

/// Measures a message for many connections, from the event to the report.
fn broadcasts() -> anyhow::Result<()> {
    let mut table = Table::new(
        "broadcast, median of 21: an in-process invocation of the worker, and the SDK's posts alone",
        &["delay", "Streamer", "Streamer/delay", "AWS SDK for Rust", "SDK/Streamer"],
    );
    for delay in [0, 5, 20] {
        let stub = Stub::start(delay, false)?;
        let endpoint = format!("{}/stage", stub.origin);
        for number in ["100", "1000"] {
            let streamer = figures(ours(["client", "broadcast-streamer", &endpoint, number]))?[0];
            let sdk = figures(ours(["client", "broadcast-sdk", &endpoint, number]))?[0];
            let share = if delay == 0 { "-".to_owned() } else { format!("{:.2}", streamer / delay as f64) };
            table.row(
                &format!("{number} connections"),
                &[
                    format!("{delay} ms"),
                    format!("{streamer:.1} ms"),
                    share,
                    format!("{sdk:.1} ms"),
                    format!("{:.2}", sdk / streamer),
                ],
            );
        }
    }
    table.print();
    Ok(())
}

/// Measures invocations of the handlers as processes.
async fn handlers(lambdas: &BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let stub = Stub::start(0, false)?;
    let issuer = Issuer::generate()?;
    let token = issuer.token("acme", "anna", Duration::from_secs(3600))?;
    let connect = event::connect_json(Some(&token)).to_string();
    let disconnect = event::disconnect_json().to_string();
    let variables = [
        ("AWS_ENDPOINT_URL", stub.origin.as_str()),
        ("JWT_PUBLIC_KEY", &issuer.public_key),
        ("JWT_ISSUER", ISSUER),
    ];
    let mut table = Table::new(
        "invocation of a handler, as a process: ES256, a stub of DynamoDB on loopback",
        &["CPU µs", "wall µs"],
    );
    for (name, event) in [("connect-handler", &connect), ("disconnect-handler", &disconnect)] {
        for cost in lambda::costs(&[&lambdas[name]], &variables, event, 2000).await? {
            table.row(name, &[cost.cpu.as_micros().to_string(), cost.wall.as_micros().to_string()]);
        }
    }
    table.print();
    Ok(())
}

/// Measures a `$connect` for each algorithm.
fn connects() -> anyhow::Result<()> {
    let mut table = Table::new(
        "$connect without the network, µs: the whole handler, and verification with jsonwebtoken alone",
        &["first", "p50", "p99", "jsonwebtoken p50"],
    );
    for (name, _) in ALGORITHMS {
        let figures = figures(ours(["connect", name]))?;
        table.row(name, &figures.iter().map(|micros| format!("{micros:.0}")).collect::<Vec<_>>());
    }
    table.print();
    Ok(())
}

/// Measures messages that a producer sends.
fn sends() -> anyhow::Result<()> {
    let stub = Stub::start(0, false)?;
    let mut table =
        Table::new("messages sent to the queue, 64 concurrent", &["messages/s", "ratio", "CPU µs/message"]);
    let names = [
        ("AWS SDK for Rust, SendMessage", "send-sdk"),
        ("AWS SDK for Rust, SendMessageBatch of 10", "send-batch-sdk"),
        ("Producer::send", "send-streamer"),
        ("Producer::send_all of 100", "send-all-streamer"),
    ];
    let mut baseline = None;
    for (title, name) in names {
        let figures = figures(ours(["client", name, &stub.origin, "64"]))?;
        let ratio = figures[0] / *baseline.get_or_insert(figures[0]);
        table
            .row(title, &[format!("{:.0}", figures[0]), format!("{ratio:.2}"), format!("{:.1}", figures[1])]);
    }
    table.print();
    Ok(())
}

/// Builds a command that runs this program in another role, on the clients' core.
fn ours<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = pinned(CLIENT, env::current_exe().unwrap_or_default());
    command.args(arguments).env("SSL_CERT_FILE", place("certificate.pem"));
    command
}

/// Runs a client, and returns the figures that it prints, one per line.
fn figures(mut command: Command) -> anyhow::Result<Vec<f64>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} failed");
    let text = String::from_utf8(output.stdout)?;
    let figures: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    ensure!(!figures.is_empty(), "{command:?} printed no figure");
    Ok(figures)
}

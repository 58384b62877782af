//! Compares Streamer with its peers in one run: `cargo bench -p streamer-tests`.
//!
//! Servers run on one core, measured processes on the other. All figures are of the same run, and ratios are to the AWS
//! SDK for Rust. `cargo bench -p streamer-tests -- options` measures kept messages and receipts alone, `-- tls` the
//! versions of HTTP and the framings of answers, `-- shapes` the worker's memory, and `-- invocations` whole invocations
//! of the worker.

mod client;
mod connect;
mod invocation;
mod lambda;
mod options;
mod peer;
mod process;
mod shapes;
mod stub;
mod table;
mod versions;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use streamer_cli::{
    paths,
    stack::issuer::{ISSUER, Issuer},
};
use streamer_tests::{event, signer::ALGORITHMS};

use crate::{
    process::{CLIENT, SERVER, pinned},
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

/// Measures whole invocations of the worker, with another build beside it.
async fn invocations() -> anyhow::Result<()> {
    prepare()?;
    let lambdas = build()?;
    machine();
    invocation::run(&lambdas["delivery-worker"]).await
}

async fn measure() -> anyhow::Result<()> {
    prepare()?;
    let peers = Peers::install();
    let lambdas = build()?;
    machine();
    posts(&peers, false)?;
    posts(&peers, true)?;
    broadcasts()?;
    options::run().await?;
    invocation::run(&lambdas["delivery-worker"]).await?;
    handlers(&lambdas).await?;
    shapes::run(&lambdas["delivery-worker"]).await?;
    connects()?;
    sends()?;
    starts(&lambdas).await
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
        let cost = lambda::cost(&lambdas[name], &variables, event, 2000).await?;
        table.row(name, &[cost.cpu.as_micros().to_string(), cost.wall.as_micros().to_string()]);
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

/// Measures start, memory and size of the Lambdas.
async fn starts(lambdas: &BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let issuer = Issuer::generate()?;
    let variables = [
        ("WEBSOCKET_ENDPOINT", "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production"),
        ("QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/000000000000/outbound"),
        ("DEAD_LETTER_QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/000000000000/dead-letters"),
        ("JWT_PUBLIC_KEY", issuer.public_key.as_str()),
    ];
    let mut table = Table::new(
        "start of a Lambda, median of 15: from exec to the first poll, with Lambda's root certificates",
        &["start", "resident", "binary", "zip"],
    );
    for (name, binary) in lambdas {
        let start = lambda::start(binary, &variables).await?;
        let mebibytes = |bytes: u64| format!("{:.2} MiB", bytes as f64 / 1024.0 / 1024.0);
        table.row(
            name,
            &[
                format!("{:.1} ms", start.time.as_secs_f64() * 1e3),
                mebibytes(start.resident * 1024),
                mebibytes(fs::metadata(binary)?.len()),
                mebibytes(zipped(binary)?),
            ],
        );
    }
    table.print();
    Ok(())
}

/// Returns the size of a binary's package.
fn zipped(binary: &Path) -> anyhow::Result<u64> {
    let zip = place("bootstrap.zip");
    _ = fs::remove_file(&zip);
    let script = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED, compresslevel=9); \
                  z.write(sys.argv[2], 'bootstrap'); z.close()";
    let made = Command::new("python3").args(["-c", script]).arg(&zip).arg(binary).status()?;
    ensure!(made.success(), "cannot create the package");
    Ok(fs::metadata(zip)?.len())
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

/// Runs wrk, if it is installed: an upper bound, since it does not sign requests.
fn wrk(endpoint: &str, in_flight: usize) -> anyhow::Result<Option<Vec<f64>>> {
    let script = place("post.lua");
    fs::write(
        &script,
        format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {})\n", client::PAYLOAD),
    )?;
    let mut wrk = pinned(CLIENT, "wrk");
    wrk.args(["-t1", "-d3s", "-c", &in_flight.to_string(), "-s"]).arg(script);
    wrk.arg(format!("{endpoint}/@connections/L0SM9cOFvHcCIhw%3D"));
    let Ok(output) = wrk.output() else { return Ok(None) };
    let text = String::from_utf8(output.stdout)?;
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    Ok(rate.and_then(|rate| rate.trim().parse().ok()).map(|rate| vec![rate]))
}

/// A stub on the servers' core that runs until it is dropped.
struct Stub {
    process: Child,
    origin: String,
}

impl Stub {
    fn start(delay: u64, tls: bool) -> anyhow::Result<Self> {
        Self::run(["stub", &delay.to_string(), if tls { "tls" } else { "plain" }], tls)
    }

    /// Starts this program in the role of a stub.
    fn run(arguments: [&str; 3], tls: bool) -> anyhow::Result<Self> {
        let mut command = pinned(SERVER, env::current_exe()?);
        command.args(arguments).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut address = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut address)?;
        let port = address.trim().rsplit(':').next().unwrap_or_default().to_owned();
        let origin =
            if tls { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") };
        Ok(Self { process, origin })
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Creates a certificate for the stub, which clients trust.
fn certificate() -> anyhow::Result<()> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(place("certificate.pem"), cert.pem())?;
    Ok(fs::write(place("key.pem"), signing_key.serialize_pem())?)
}

fn server_config() -> anyhow::Result<rustls::ServerConfig> {
    let certificate = CertificateDer::from_pem_file(place("certificate.pem"))?;
    let key = PrivateKeyDer::from_pem_file(place("key.pem"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_no_client_auth().with_single_cert(vec![certificate], key)?)
}

/// Builds the Lambdas with the packages' profile, and returns their paths by name.
fn build() -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let lambdas = ["connect-handler", "delivery-worker", "disconnect-handler"];
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace()).args([
        "build",
        "--release",
        "--message-format",
        "json-render-diagnostics",
    ]);
    command.args(lambdas.iter().flat_map(|lambda| ["-p", lambda]));
    let mut cargo = command.stdout(Stdio::piped()).spawn()?;
    let mut output = String::new();
    cargo.stdout.take().context("no output")?.read_to_string(&mut output)?;
    ensure!(cargo.wait()?.success(), "cannot build the Lambdas");
    let artifacts = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let binaries = artifacts.filter_map(|artifact| {
        let name = artifact["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(artifact["executable"].as_str()?)))
    });
    let binaries: BTreeMap<_, _> = binaries.filter(|(name, _)| lambdas.contains(&name.as_str())).collect();
    ensure!(binaries.len() == lambdas.len(), "cargo built {binaries:?}");
    Ok(binaries)
}

/// Peers in other languages, each used as its documentation shows. A peer that cannot be installed is skipped.
struct Peers {
    node: Option<PathBuf>,
    python: Option<PathBuf>,
}

impl Peers {
    fn install() -> Self {
        let available = |name: &str, installed: anyhow::Result<PathBuf>| {
            installed.inspect_err(|error| println!("{name} is skipped: {error:#}")).ok()
        };
        Self { node: available("Node", Self::node()), python: available("Python", Self::python()) }
    }

    fn node() -> anyhow::Result<PathBuf> {
        let (from, to) = (paths::workspace().join("tests/peers/node"), place("node"));
        fs::create_dir_all(&to)?;
        for file in ["package.json", "package-lock.json", "post.mjs"] {
            fs::copy(from.join(file), to.join(file))?;
        }
        quietly(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&to))?;
        Ok(to.join("post.mjs"))
    }

    fn python() -> anyhow::Result<PathBuf> {
        let to = place("python");
        let python = to.join("bin/python");
        let from = paths::workspace().join("tests/peers/python/requirements.txt");
        quietly(Command::new("python3").args(["-m", "venv"]).arg(&to))?;
        quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(from))?;
        Ok(python)
    }

    /// Measures the posts of each peer.
    fn posts(&self, endpoint: &str, in_flight: &str) -> anyhow::Result<Vec<(String, Vec<f64>)>> {
        let mut rows = Vec::new();
        if let Some(script) = &self.node {
            for (way, title) in [("all", "Promise.all"), ("pool", "worker pool")] {
                let mut node = pinned(CLIENT, "node");
                node.arg(script)
                    .args([endpoint, in_flight, way])
                    .env("NODE_EXTRA_CA_CERTS", place("certificate.pem"));
                rows.push(peer(node, title)?);
            }
        }
        if let Some(python) = &self.python {
            let mut command = pinned(CLIENT, python);
            command.arg(paths::workspace().join("tests/peers/python/post.py")).args([endpoint, in_flight]);
            rows.push(peer(command.env("AWS_CA_BUNDLE", place("certificate.pem")), "thread pool")?);
        }
        Ok(rows)
    }
}

/// Runs a peer, which prints two figures and then its versions, and returns its row.
fn peer(command: impl std::borrow::BorrowMut<Command>, way: &str) -> anyhow::Result<(String, Vec<f64>)> {
    let mut command = command;
    let output = command.borrow_mut().stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let figures: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    ensure!(figures.len() == 2, "a peer printed {text:?}");
    Ok((format!("{}, {way}", text.lines().last().unwrap_or_default()), figures))
}

fn quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

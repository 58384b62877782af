//! Streamer's peers: AWS's SDKs for other languages, and wrk.

use std::{
    borrow::BorrowMut,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{bail, ensure};
use streamer_cli::paths;
use streamer_tests::boto3::BOTO3;

use crate::{
    client, place,
    process::{CLIENT, pinned},
};

/// Peers in other languages, each used as its documentation shows. A peer that cannot be installed is skipped.
pub(crate) struct Peers {
    node: Option<PathBuf>,
    python: Option<PathBuf>,
}

impl Peers {
    /// Installs the peers.
    pub(crate) async fn install() -> Self {
        let available = |name: &str, installed: anyhow::Result<PathBuf>| {
            installed.inspect_err(|error| println!("{name} is skipped: {error:#}")).ok()
        };
        let python = BOTO3.install().await.map(|(python, _)| python);
        Self { node: available("Node", Self::node()), python: available("Python", python) }
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

    /// Measures the posts of each peer.
    pub(crate) fn posts(&self, endpoint: &str, in_flight: &str) -> anyhow::Result<Vec<(String, Vec<f64>)>> {
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
fn peer(command: impl BorrowMut<Command>, way: &str) -> anyhow::Result<(String, Vec<f64>)> {
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

/// Runs wrk, if it is installed: an upper bound, since it does not sign requests.
pub(crate) fn wrk(endpoint: &str, in_flight: usize) -> anyhow::Result<Option<Vec<f64>>> {
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

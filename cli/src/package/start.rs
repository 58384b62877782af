//! Starts a package once, as Lambda does.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Cursor, ErrorKind, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use tokio::{process::Command, time::sleep};
use zip::ZipArchive;

use super::{Architecture, runtime_api::RuntimeApi};

/// How long a Lambda may take to start: as long as AWS gives its initialisation.
const LIMIT: Duration = Duration::from_secs(10);

/// A Lambda that has started.
#[derive(Debug)]
pub struct Started {
    /// The Runtime API, which has been polled once.
    pub api: RuntimeApi,
    /// The process. It ends when this is dropped.
    pub process: tokio::process::Child,
    /// From its start to its first poll.
    pub took: Duration,
}

/// The command that runs a binary of `architecture` on this machine, if there is one: the binary itself, or qemu's
/// user mode, with that architecture's C library.
#[must_use]
pub fn runner(architecture: Architecture) -> Option<Vec<PathBuf>> {
    if cfg!(target_os = "linux") && architecture == Architecture::HERE {
        return Some(Vec::new());
    }
    let name = match architecture {
        Architecture::Arm64 => "aarch64",
        Architecture::X86_64 => "x86_64",
    };
    let libraries = PathBuf::from(format!("/usr/{name}-linux-gnu"));
    let folders = env::var_os("PATH").unwrap_or_default();
    let names = [format!("qemu-{name}"), format!("qemu-{name}-static")];
    let mut programs =
        env::split_paths(&folders).flat_map(|folder| names.each_ref().map(|name| folder.join(name)));
    let found = programs.find(|path| path.exists())?;
    libraries.exists().then(|| vec![found, "-L".into(), libraries])
}

/// Starts the `bootstrap` of `zip`, unpacked into `folder`, with these variables and nothing else in its environment,
/// and waits for its first poll.
///
/// # Errors
/// When it ends before that, with what it said, or has not polled within 10 s.
pub async fn start(
    zip: &[u8],
    folder: &Path,
    runner: &[PathBuf],
    variables: &BTreeMap<String, String>,
) -> anyhow::Result<Started> {
    let mut api = RuntimeApi::listen().await?;
    let log = folder.join("log");
    let mut words = runner.iter().cloned().chain([unpack(zip, folder)?]);
    let mut command = Command::new(words.next().context("there is nothing to run")?);
    command
        .args(words)
        .env_clear()
        .envs(api.variables()?)
        .envs(variables)
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let output = fs::File::create(&log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
    let started = Instant::now();
    let mut process = loop {
        match command.spawn() {
            // Another thread has forked while the file was written, and its child holds it open until it runs.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                sleep(Duration::from_millis(10)).await
            }
            spawned => break spawned.context("it cannot be run")?,
        }
    };
    let polled = tokio::select! {
        polled = api.poll() => polled,
        ended = process.wait() => Err(anyhow!("it ended at once, {}", ended?)),
        () = sleep(LIMIT) => Err(anyhow!("it has not polled within {} s", LIMIT.as_secs())),
    };
    let took = started.elapsed();
    polled.with_context(|| format!("it said: {}", fs::read_to_string(&log).unwrap_or_default().trim()))?;
    Ok(Started { api, process, took })
}

/// The binary of a package, made executable.
fn unpack(zip: &[u8], folder: &Path) -> anyhow::Result<PathBuf> {
    let mut binary = Vec::new();
    ZipArchive::new(Cursor::new(zip))?.by_name("bootstrap")?.read_to_end(&mut binary)?;
    fs::create_dir_all(folder)?;
    let path = folder.join("bootstrap");
    fs::write(&path, binary)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

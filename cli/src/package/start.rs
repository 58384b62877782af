//! Starts a package once, the way Lambda does.

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

/// Time that a function may take to start: AWS's limit for initialization.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A started function.
#[derive(Debug)]
pub struct Started {
    /// The Runtime API, from which the function has requested one invocation.
    pub api: RuntimeApi,
    /// The process. It ends when this is dropped.
    pub process: tokio::process::Child,
    /// Time from the process's start to its first request.
    pub took: Duration,
}

/// Returns the command that runs a binary of `architecture` on this machine: empty if the binary runs itself, or else
/// qemu's user mode with that architecture's C library. `None` if that is not installed.
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

/// Unpacks `zip` into `folder`, starts its `bootstrap` with only these variables in its environment, and waits until it
/// requests its first invocation.
///
/// # Errors
/// When it ends before that, or does not do so within 10 s. The error has its output.
pub async fn start(
    zip: &[u8],
    folder: &Path,
    runner: &[PathBuf],
    variables: &BTreeMap<String, String>,
) -> anyhow::Result<Started> {
    let mut api = RuntimeApi::listen().await?;
    let log = folder.join("log");
    let mut words = runner.iter().cloned().chain([unpack(zip, folder)?]);
    let mut command = Command::new(words.next().context("the command is empty")?);
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
            // A child that another thread forked during the write holds the file open until it calls exec.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                sleep(Duration::from_millis(10)).await
            }
            spawned => break spawned.context("cannot run the binary")?,
        }
    };
    let polled = tokio::select! {
        polled = api.poll() => polled,
        ended = process.wait() => Err(anyhow!("the process ended before its first request, {}", ended?)),
        () = sleep(START_TIMEOUT) => Err(anyhow!("the process sent no request within {} s", START_TIMEOUT.as_secs())),
    };
    let took = started.elapsed();
    polled.with_context(|| {
        format!("its output was: {}", fs::read_to_string(&log).unwrap_or_default().trim())
    })?;
    Ok(Started { api, process, took })
}

/// Unpacks the binary, makes it executable, and returns its path.
fn unpack(zip: &[u8], folder: &Path) -> anyhow::Result<PathBuf> {
    let mut binary = Vec::new();
    ZipArchive::new(Cursor::new(zip))?.by_name("bootstrap")?.read_to_end(&mut binary)?;
    fs::create_dir_all(folder)?;
    let path = folder.join("bootstrap");
    fs::write(&path, binary)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

//! The command `streamer`, run as people run it, with a state of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use streamer_cli::{
    paths,
    stack::{build, emulator::REGION, processes::Processes},
};
use sysinfo::{Pid, ProcessesToUpdate, Signal, System};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

/// A folder for the state of the commands of one test.
#[derive(Debug)]
pub struct Streamer {
    binary: PathBuf,
    state: PathBuf,
}

/// Standard input, output and error of a command that has ended.
#[derive(Debug)]
pub struct Said {
    /// Whether its exit code was 0.
    pub success: bool,
    /// What it wrote.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

impl Streamer {
    /// The command, with an empty state called `name`.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn new(name: &str) -> anyhow::Result<Self> {
        let state = paths::shared(format!("tests/{name}-{}", std::process::id()));
        fs::create_dir_all(&state)?;
        Ok(Self { binary: build::build().await?.path("streamer")?.to_owned(), state })
    }

    /// The emulator's folder of the stack that is up.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.state.join("up")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("STREAMER_STATE", &self.state)
            .env_remove("QUEUE_URL")
            .env_remove("CONNECTIONS_TABLE")
            .env_remove("AWS_ENDPOINT_URL");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn run<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Said> {
        self.run_with(arguments, "").await
    }

    /// The same, with any number of arguments.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn run_all<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Said> {
        said(self.command(&self.binary).args(arguments).spawn()?).await
    }

    /// Runs a command to its end, with an endpoint that speaks AWS.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn run_at<const N: usize>(&self, endpoint: &str, arguments: [&str; N]) -> anyhow::Result<Said> {
        said(self.spawn_at(endpoint, arguments)?).await
    }

    /// Starts a command that goes on, with an endpoint that speaks AWS.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_at<'a>(
        &self,
        endpoint: &str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<Child> {
        let mut command = self.command(&self.binary);
        command
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", REGION)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        Ok(command.args(arguments).spawn()?)
    }

    /// Runs a command to its end, with this standard input.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn run_with<const N: usize>(&self, arguments: [&str; N], input: &str) -> anyhow::Result<Said> {
        let mut child = self.command(&self.binary).args(arguments).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        said(child).await
    }

    /// Starts a command that goes on.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Child> {
        Ok(self.command(&self.binary).args(arguments).spawn()?)
    }

    /// Starts a command in a terminal of its own, which is closed when the child's standard input is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_in_terminal<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Child> {
        const TERMINAL: &str = r#"
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    # Whoever runs this may not care for terminals (nohup); whoever sits at one does.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
said = b""
while b"\n" not in said:
    said += os.read(terminal, 4096)
print(said.decode().strip(), flush=True)
sys.stdin.read()
os.close(terminal)
os.waitpid(pid, 0)
"#;
        let python = env::var_os("PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let mut command = self.command(&python);
        Ok(command.args(["-c", TERMINAL]).arg(&self.binary).args(arguments).spawn()?)
    }

    /// The processes of the stack that is up: the supervisor, the emulator and its Lambdas.
    ///
    /// # Errors
    /// When processes cannot be listed.
    pub fn processes(&self) -> anyhow::Result<Processes> {
        Processes::with_environment(&[format!("TMPDIR={}", self.folder().display())])
    }
}

/// Sends a signal to a command.
///
/// # Errors
/// When it does not run, or the signal cannot be sent.
pub fn signal(command: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_u32(command.id().context("it has ended")?);
    let mut system = System::new().context("processes cannot be listed")?;
    system.refresh_processes(ProcessesToUpdate::Some(&[pid]), true);
    let sent = system.process(pid).context("it does not run")?.kill_with(signal);
    ensure!(sent == Some(true), "the signal was not sent: {sent:?}");
    Ok(())
}

/// Waits until a command has ended, and returns what it said.
///
/// # Errors
/// When it says something that is not UTF-8.
pub async fn said(child: Child) -> anyhow::Result<Said> {
    let Output { status, stdout, stderr } = child.wait_with_output().await?;
    Ok(Said { success: status.success(), out: String::from_utf8(stdout)?, err: String::from_utf8(stderr)? })
}

impl Drop for Streamer {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        if let Ok(processes) = self.processes() {
            _ = processes.kill();
        }
        _ = fs::remove_dir_all(&self.state);
    }
}

/// The object that `up --json` prints when the stack is ready.
///
/// # Errors
/// When the command ends before.
pub async fn ready(up: &mut Child) -> anyhow::Result<Value> {
    let mut line = String::new();
    let stdout = up.stdout.as_mut().context("no standard output")?;
    BufReader::new(stdout).read_line(&mut line).await?;
    if line.is_empty() {
        let mut said = String::new();
        up.stderr.as_mut().context("no standard error")?.read_to_string(&mut said).await?;
        ensure!(false, "the stack did not start: {said}");
    }
    Ok(serde_json::from_str(&line)?)
}

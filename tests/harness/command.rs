//! The command `streamer`, run as a process with a state folder of its own.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail, ensure};
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

/// Runs the commands of one test, with a common state folder.
#[derive(Debug)]
pub struct Streamer {
    binary: PathBuf,
    state: PathBuf,
}

/// The output of a command that has ended.
#[derive(Debug)]
pub struct Output {
    /// Whether the exit code was 0.
    pub success: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Streamer {
    /// Builds the command, and creates an empty state folder that is named after `name`.
    ///
    /// # Errors
    /// When the command cannot be built.
    pub async fn new(name: &str) -> anyhow::Result<Self> {
        let state = paths::shared(format!("tests/{name}-{}", std::process::id()));
        fs::create_dir_all(&state)?;
        Ok(Self { binary: build::build().await?.path("streamer")?.to_owned(), state })
    }

    /// Returns the emulator's folder of the running stack.
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
            .env_remove("AWS_ENDPOINT_URL")
            .env_remove("STREAMER_TOKEN");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs the command until it ends.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub async fn run<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Output> {
        self.run_with(arguments, "").await
    }

    /// Like [`run`](Self::run), with any number of arguments.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub async fn run_all<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Output> {
        output(self.command(&self.binary).args(arguments).spawn()?).await
    }

    /// Like [`run`](Self::run), with an endpoint that serves the AWS APIs.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub async fn run_at<const N: usize>(
        &self,
        endpoint: &str,
        arguments: [&str; N],
    ) -> anyhow::Result<Output> {
        output(self.spawn_at(endpoint, arguments)?).await
    }

    /// Like [`spawn`](Self::spawn), with an endpoint that serves the AWS APIs.
    ///
    /// # Errors
    /// When the command cannot be started.
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

    /// Like [`run`](Self::run), with this standard input.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub async fn run_with<const N: usize>(
        &self,
        arguments: [&str; N],
        input: &str,
    ) -> anyhow::Result<Output> {
        let mut child = self.command(&self.binary).args(arguments).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        output(child).await
    }

    /// Starts the command, and returns while it runs.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn spawn<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Child> {
        Ok(self.command(&self.binary).args(arguments).spawn()?)
    }

    /// Like [`spawn`](Self::spawn), with environment variables and any number of arguments.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn spawn_with(
        &self,
        variables: &[(&str, &str)],
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Child> {
        Ok(self.command(&self.binary).envs(variables.iter().copied()).args(arguments).spawn()?)
    }

    /// Starts the command in a terminal of its own. Closing the child's standard input closes the terminal.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn spawn_in_terminal<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Child> {
        const TERMINAL: &str = r#"
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    # nohup would let the command ignore the signal.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
output = b""
while b"\n" not in output:
    output += os.read(terminal, 4096)
print(output.decode().strip(), flush=True)
sys.stdin.read()
os.close(terminal)
os.waitpid(pid, 0)
"#;
        let python = env::var_os("PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let mut command = self.command(&python);
        Ok(command.args(["-c", TERMINAL]).arg(&self.binary).args(arguments).spawn()?)
    }

    /// Returns the processes of the running stack: the supervisor, the emulator and its Lambdas.
    ///
    /// # Errors
    /// When processes cannot be listed.
    pub fn processes(&self) -> anyhow::Result<Processes> {
        Processes::with_environment(&[format!("TMPDIR={}", self.folder().display())])
    }
}

/// Sends a signal to a running command.
///
/// # Errors
/// When the command has ended, or the signal cannot be sent.
pub fn signal(command: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_u32(command.id().context("the command has ended")?);
    let mut system = System::new().context("cannot list processes")?;
    system.refresh_processes(ProcessesToUpdate::Some(&[pid]), true);
    let sent = system.process(pid).context("the command is not running")?.kill_with(signal);
    ensure!(sent == Some(true), "the signal was not sent: {sent:?}");
    Ok(())
}

/// Waits until a command has ended, and returns its output.
///
/// # Errors
/// When the output is not UTF-8.
pub async fn output(child: Child) -> anyhow::Result<Output> {
    let std::process::Output { status, stdout, stderr } = child.wait_with_output().await?;
    Ok(Output { success: status.success(), out: String::from_utf8(stdout)?, err: String::from_utf8(stderr)? })
}

impl Drop for Streamer {
    /// Cleans up after a failed test, too.
    fn drop(&mut self) {
        if let Ok(processes) = self.processes() {
            _ = processes.kill();
        }
        _ = fs::remove_dir_all(&self.state);
    }
}

/// Waits until the stack is ready, and returns the object that `up --json` prints.
///
/// # Errors
/// When the command ends before.
pub async fn ready(up: &mut Child) -> anyhow::Result<Value> {
    let mut line = String::new();
    let stdout = up.stdout.as_mut().context("no standard output")?;
    BufReader::new(stdout).read_line(&mut line).await?;
    if line.is_empty() {
        let mut error = String::new();
        up.stderr.as_mut().context("no standard error")?.read_to_string(&mut error).await?;
        bail!("the stack did not start: {error}");
    }
    Ok(serde_json::from_str(&line)?)
}

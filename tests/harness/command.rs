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
use sysinfo::{Pid, Process, ProcessesToUpdate, Signal, System};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use crate::eventually;

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
    /// The exit code. `None` if a signal ended the command.
    pub code: Option<i32>,
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
            .env_remove("MAILBOX_TABLE")
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
        Ok(self.command(&self.binary).envs(at(endpoint)).args(arguments).spawn()?)
    }

    /// Runs the command with these environment variables, without any other variable that has to do with AWS, and
    /// without the files in which the AWS SDKs look. The instance metadata service is off.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub async fn run_without_aws<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        let mut command = self.command(&self.binary);
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("HOME", &self.state).env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs(variables.iter().copied());
        output(command.args(arguments).spawn()?).await
    }

    /// Runs the command until it ends, with standard output and standard error in terminals of this width.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub async fn run_in_terminal<'a>(
        &self,
        columns: u16,
        endpoint: Option<&str>,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<Output> {
        const TERMINALS: &str = r#"
import fcntl, os, pty, struct, subprocess, sys, termios, threading
def terminal():
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(sys.argv[1]), 0, 0))
    return parent, child
def copy(parent, to):
    try:
        while data := os.read(parent, 4096):
            to.buffer.write(data.replace(b"\r\n", b"\n"))
    except OSError:
        pass # The command has closed the terminal.
(out, out_child), (err, err_child) = terminal(), terminal()
command = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=out_child, stderr=err_child)
os.close(out_child), os.close(err_child)
threads = [threading.Thread(target=copy, args=pair) for pair in [(out, sys.stdout), (err, sys.stderr)]]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(command.wait())
"#;
        let python = env::var_os("PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let mut command = self.command(&python);
        // With `CI` set, colours would appear in some environments only.
        command.env("NO_COLOR", "1");
        if let Some(endpoint) = endpoint {
            command.envs(at(endpoint));
        }
        // Without cursor movements, which only spinners need.
        command.env("TERM", "dumb");
        let columns = columns.to_string();
        output(command.args(["-c", TERMINALS, &columns]).arg(&self.binary).args(arguments).spawn()?).await
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

    /// Runs a script with a POSIX shell, where `streamer` is the command.
    ///
    /// # Errors
    /// When the shell cannot be run.
    pub async fn run_script(&self, script: &str) -> anyhow::Result<Output> {
        let script = format!("streamer() {{ \"$STREAMER\" \"$@\"; }}\n{script}");
        let mut shell = self.command(Path::new("sh"));
        output(shell.args(["-c", &script]).env("STREAMER", &self.binary).spawn()?).await
    }

    /// Starts the command, and returns while it runs.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn spawn<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Child> {
        Ok(self.command(&self.binary).args(arguments).spawn()?)
    }

    /// Like [`spawn`](Self::spawn), with this program as cargo.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn spawn_with_cargo<const N: usize>(
        &self,
        cargo: &Path,
        arguments: [&str; N],
    ) -> anyhow::Result<Child> {
        Ok(self.command(&self.binary).args(arguments).env("CARGO", cargo).spawn()?)
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

    /// Starts the command in a terminal of its own, from which it passes on a JSON object. Closing the child's standard
    /// input closes the terminal.
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
while b'{"' not in output or b"\n" not in output[output.index(b'{"'):]:
    output += os.read(terminal, 4096)
print(output[output.index(b'{"'):].decode().strip(), flush=True)
sys.stdin.read()
os.close(terminal)
os.waitpid(pid, 0)
"#;
        let python = env::var_os("PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let mut command = self.command(&python);
        Ok(command.args(["-c", TERMINAL]).arg(&self.binary).args(arguments).spawn()?)
    }

    /// Runs the command in a terminal of the kind `TERM` that has 60 columns, until it ends, and returns what it wrote
    /// there.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub async fn run_in_narrow_terminal<const N: usize>(
        &self,
        term: &str,
        arguments: [&str; N],
    ) -> anyhow::Result<Output> {
        const TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
try:
    while output := os.read(terminal, 4096):
        os.write(1, output)
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
        let python = env::var_os("PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let mut command = self.command(&python);
        command.args(["-c", TERMINAL]).arg(&self.binary).args(arguments).env("TERM", term);
        output(command.spawn()?).await
    }

    /// Returns the processes of the running stack: the supervisor, the emulator and its Lambdas.
    ///
    /// # Errors
    /// When processes cannot be listed.
    pub fn processes(&self) -> anyhow::Result<Processes> {
        Processes::in_folder(&self.folder())
    }

    /// Returns the processes of a stack that `owner` started, each the child of the one before: the owner, the
    /// supervisor, the emulator and one of its Lambdas. Waits until there is a Lambda.
    ///
    /// # Errors
    /// When processes cannot be listed, or there is none.
    pub async fn chain(&self, owner: u32) -> anyhow::Result<[u32; 4]> {
        let mut chain = [owner; 4];
        eventually("the stack has its processes", async || {
            let mut system = System::new()?;
            system.refresh_processes(ProcessesToUpdate::All, true);
            let child_of = |parent: u32| {
                let is_child = |process: &&Process| process.parent() == Some(Pid::from_u32(parent));
                let processes = system.processes().values().filter(|process| process.thread_kind().is_none());
                processes.filter(is_child).map(|process| process.pid().as_u32()).next()
            };
            for level in 1..chain.len() {
                let Some(child) = child_of(chain[level - 1]) else { return Ok(false) };
                chain[level] = child;
            }
            Ok(true)
        })
        .await?;
        Ok(chain)
    }

    /// Returns the folders of the emulators that demos run. Each exists until its processes have ended.
    #[must_use]
    pub fn demos(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state.join("run")).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    }
}

/// Returns the variables that select an endpoint which serves the AWS APIs.
fn at(endpoint: &str) -> [(&'static str, &str); 5] {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

/// Sends a signal to a running command.
///
/// # Errors
/// When the command has ended, or the signal cannot be sent.
pub fn signal(command: &Child, signal: Signal) -> anyhow::Result<()> {
    signal_process(command.id().context("the command has ended")?, signal)
}

/// Sends a signal to a process.
///
/// # Errors
/// When the process has ended, or the signal cannot be sent.
pub fn signal_process(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new().context("cannot list processes")?;
    system.refresh_processes(ProcessesToUpdate::Some(&[pid]), true);
    let sent = system.process(pid).context("the command is not running")?.kill_with(signal);
    ensure!(sent == Some(true), "the signal was not sent: {sent:?}");
    Ok(())
}

/// Reads the standard output of a running command up to a line that contains `text`, and returns what it read.
///
/// # Errors
/// When the command ends before.
pub async fn printed(command: &mut Child, text: &str) -> anyhow::Result<String> {
    let mut out = String::new();
    let stdout = command.stdout.as_mut().context("no standard output")?;
    // A larger buffer could take lines after this one, which the command's output would then lack.
    let mut reader = BufReader::with_capacity(1, stdout);
    while !out.contains(text) || !out.ends_with('\n') {
        ensure!(reader.read_line(&mut out).await? > 0, "the command ended without `{text}`: {out}");
    }
    Ok(out)
}

/// Waits until a command has ended, and returns its output.
///
/// # Errors
/// When the output is not UTF-8.
pub async fn output(child: Child) -> anyhow::Result<Output> {
    let std::process::Output { status, stdout, stderr } = child.wait_with_output().await?;
    let (out, err) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
    Ok(Output { success: status.success(), code: status.code(), out, err })
}

impl Drop for Streamer {
    /// Cleans up after a failed test, too.
    fn drop(&mut self) {
        for folder in self.demos().into_iter().chain([self.folder()]) {
            if let Ok(processes) = Processes::in_folder(&folder) {
                _ = processes.kill();
            }
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

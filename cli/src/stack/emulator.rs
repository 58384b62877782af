//! Installs emulators of AWS on first use, and runs them under a supervisor.

use std::{
    env, fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep},
};

use super::{log::Log, owner, python::Packages};

const SUPERVISOR: &str = include_str!("../../emulator/supervisor.py");

/// Time that an emulator may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The Region that the emulators serve.
pub const REGION: &str = "us-east-1";

/// An emulator: a Python program from PyPI that listens on loopback.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its packages and the Python that they need.
    pub packages: Packages,
    /// The module to run.
    pub module: &'static str,
    /// Returns its environment variables for an address to listen on and a folder for its files.
    pub variables: fn(SocketAddr, &Path) -> Vec<(&'static str, String)>,
    /// Returns the text that it logs once it listens on an address.
    pub ready_text: fn(SocketAddr) -> String,
}

/// MiniStack, which emulates every service that a deployment uses.
pub const MINISTACK: Program = Program {
    packages: Packages {
        name: "MiniStack",
        folder: "emulator",
        package: "ministack",
        requirements: include_str!("../../emulator/requirements.txt"),
        pythons: &["python3"],
        versions: ("3.10 or newer", (3, 10), (3, u8::MAX)),
    },
    module: "ministack",
    variables: |address, folder| {
        vec![
            ("TMPDIR", folder.display().to_string()),
            ("GATEWAY_PORT", address.port().to_string()),
            ("BIND_HOST", address.ip().to_string()),
            ("MINISTACK_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{address}")),
            ("LAMBDA_WARM_TTL_SECONDS", "60".to_owned()),
            // AWS's default. The emulator's own limit follows the machine's memory, so that 500 sockets which close at
            // once could throttle another client's function.
            ("LAMBDA_ACCOUNT_CONCURRENCY", "1000".to_owned()),
        ]
    },
    ready_text: |address| format!("Running on http://{address}"),
};

/// An installed emulator.
#[derive(Debug, Clone)]
pub struct Installed {
    program: Program,
    python: PathBuf,
    /// Whether this call installed it.
    pub fresh: bool,
}

/// A running emulator. It ends, with every process that it started, when this value is dropped or this process ends.
#[derive(Debug)]
pub struct Emulator {
    supervisor: Child,
    /// The supervisor ends when this is closed. It is not part of `supervisor`, because `Child::wait` closes standard
    /// input.
    input: ChildStdin,
    folder: PathBuf,
    /// The address that it listens on.
    pub address: SocketAddr,
}

/// Installs an emulator if it is not installed. A lock keeps concurrent processes from installing it twice.
///
/// # Errors
/// When Python or one of its modules is missing, or PyPI cannot be reached. The error says what to install.
pub async fn install(program: &Program) -> anyhow::Result<Installed> {
    let (python, fresh) = program.packages.install().await?;
    Ok(Installed { program: *program, python, fresh })
}

impl Installed {
    /// Starts an emulator on loopback, on `port` or on a free port, with its files in `folder` and its output in `log`.
    ///
    /// # Errors
    /// When `port` cannot be listened on, or the emulator does not start.
    pub async fn start(&self, port: Option<u16>, folder: &Path, log: &Log) -> anyhow::Result<Emulator> {
        const MAX_ATTEMPTS: usize = 3;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut emulator = self.launch(free_address(port)?, folder, log)?;
            let Err(error) = emulator.wait_until_ready(&self.program, log).await else {
                return Ok(emulator);
            };
            // Ending it removes its folder, which the next attempt uses.
            emulator.end().await?;
            // Another process may have bound the free port in the meantime.
            let port_taken = log.read().contains("already in use");
            if !port_taken || port.is_some() || attempts == MAX_ATTEMPTS {
                return Err(error);
            }
        }
    }

    fn launch(&self, address: SocketAddr, folder: &Path, log: &Log) -> anyhow::Result<Emulator> {
        fs::create_dir_all(folder)?;
        let output = log.truncate()?;
        // Lambda functions inherit this environment, so it holds only variables that the emulator needs.
        let mut supervisor = Command::new(&self.python)
            .args(["-c", SUPERVISOR])
            .arg(folder)
            .arg(&self.python)
            .args(["-m", self.program.module])
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", folder)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs((self.program.variables)(address, folder))
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let input = supervisor.stdin.take().context("the supervisor has no standard input")?;
        Ok(Emulator { supervisor, input, folder: folder.to_owned(), address })
    }
}

impl Emulator {
    /// Waits until the log says that it listens. A connection to the port would prove less, because another process
    /// could have accepted it.
    async fn wait_until_ready(&mut self, program: &Program, log: &Log) -> anyhow::Result<()> {
        let ready = (program.ready_text)(self.address);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let output = log.read();
            if output.contains(&ready) {
                return Ok(());
            }
            let ended = self.supervisor.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                let last: Vec<_> = output.lines().rev().take(5).collect();
                bail!(
                    "{} did not start: {}",
                    program.packages.name,
                    last.into_iter().rev().collect::<Vec<_>>().join(" | ")
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the emulator, and waits until it has ended.
    ///
    /// # Errors
    /// When waiting for the supervisor fails, or a process cannot be killed.
    pub async fn end(self) -> anyhow::Result<()> {
        let Self { mut supervisor, input, folder, .. } = self;
        drop(input);
        end_rest(&mut supervisor, &folder).await
    }

    /// Waits until the emulator has ended, and every process that it started.
    ///
    /// # Errors
    /// When waiting for the supervisor fails, or a process cannot be killed.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        end_rest(&mut self.supervisor, &self.folder).await
    }
}

/// Waits for the supervisor, and ends what is left if it was killed.
async fn end_rest(supervisor: &mut Child, folder: &Path) -> anyhow::Result<()> {
    supervisor.wait().await?;
    // The supervisor removes the folder last.
    if folder.exists() { owner::clear(folder).await } else { Ok(()) }
}

fn free_address(port: Option<u16>) -> anyhow::Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
    let bound = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    bound.map_err(|error| anyhow::Error::msg(cannot_listen(address, &error)))
}

/// Says why nothing can listen on `address`, and the remedy.
fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "port {port} is taken: stop the process that listens there, or choose another port with --port"
        ),
        ErrorKind::PermissionDenied if port != 0 => format!(
            "this user may not listen on port {port}, since ports below 1024 usually need root: choose another port \
             with --port"
        ),
        ErrorKind::AddrNotAvailable => {
            format!("this machine has no address {}: set up its loopback interface", address.ip())
        }
        _ if port == 0 => format!("no port of {} can be listened on: {error}", address.ip()),
        _ => format!("cannot listen on {address}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_port_has_its_reason() {
        let message = |port: u16, kind: ErrorKind| {
            cannot_listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &kind.into())
        };
        let denied = message(80, ErrorKind::PermissionDenied);
        assert!(denied.starts_with("this user may not listen on port 80, ") && denied.contains("--port"));
        assert!(message(80, ErrorKind::AddrInUse).starts_with("port 80 is taken: "));
        let unavailable = message(8080, ErrorKind::AddrNotAvailable);
        assert_eq!(unavailable, "this machine has no address 127.0.0.1: set up its loopback interface");
        let other = message(8080, ErrorKind::OutOfMemory);
        assert!(other.starts_with("cannot listen on 127.0.0.1:8080: "), "{other}");
        let any = message(0, ErrorKind::PermissionDenied);
        assert!(any.starts_with("no port of 127.0.0.1 can be listened on: "), "{any}");
    }
}

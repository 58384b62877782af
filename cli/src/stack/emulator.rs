//! Emulators of AWS: installed on first use, and run under a supervisor.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep},
};

use super::{log::Log, python::Packages};

const SUPERVISOR: &str = include_str!("../../emulator/supervisor.py");

/// How long an emulator may take to start.
const START: Duration = Duration::from_secs(60);

/// The region that the emulators play.
pub const REGION: &str = "us-east-1";

/// An emulator: a Python program from PyPI that listens on loopback.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// What it is, and what it runs on.
    pub packages: Packages,
    /// Its module.
    pub module: &'static str,
    /// Its environment, where it listens and in which folder it keeps its files.
    pub variables: fn(SocketAddr, &Path) -> Vec<(&'static str, String)>,
    /// What its log says once it listens.
    pub listens: fn(SocketAddr) -> String,
}

/// MiniStack: the whole path runs on it.
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
        ]
    },
    listens: |address| format!("Running on http://{address}"),
};

/// An installed emulator.
#[derive(Debug, Clone)]
pub struct Installed {
    program: Program,
    python: PathBuf,
    /// Whether it was installed just now.
    pub fresh: bool,
}

/// A running emulator. It ends, with all that it started, when this is dropped or the process ends.
#[derive(Debug)]
pub struct Emulator {
    supervisor: Child,
    /// Its end ends the supervisor. Kept apart from the child: waiting for a child closes what it holds.
    input: ChildStdin,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Installs an emulator unless it is installed. Two processes that ask at the same time install it once.
///
/// # Errors
/// Says what is missing, and how to get it.
pub async fn install(program: &Program) -> anyhow::Result<Installed> {
    let (python, fresh) = program.packages.install().await?;
    Ok(Installed { program: *program, python, fresh })
}

impl Installed {
    /// Starts an emulator on loopback, on `port` or on a free one, with its files in `folder`. What it says
    /// goes to `log`.
    ///
    /// # Errors
    /// When `port` is taken, or the emulator does not start.
    pub async fn start(&self, port: Option<u16>, folder: &Path, log: &Log) -> anyhow::Result<Emulator> {
        const TRIES: usize = 3;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut emulator = self.launch(free_address(port)?, folder, log)?;
            let Err(error) = emulator.wait_until_it_listens(&self.program, log).await else {
                return Ok(emulator);
            };
            // It removes its folder before the next one may use it.
            emulator.end().await?;
            // Another process may have taken a free port in between.
            let lost = log.read().contains("already in use");
            if !lost || port.is_some() || tries == TRIES {
                return Err(error);
            }
        }
    }

    fn launch(&self, address: SocketAddr, folder: &Path, log: &Log) -> anyhow::Result<Emulator> {
        fs::create_dir_all(folder)?;
        let output = log.restart()?;
        // What stands in its environment reaches every Lambda: nothing but what it needs.
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
        Ok(Emulator { supervisor, input, address })
    }
}

impl Emulator {
    /// Its own log says when it listens: the port's answer alone could be another process's.
    async fn wait_until_it_listens(&mut self, program: &Program, log: &Log) -> anyhow::Result<()> {
        let listens = (program.listens)(self.address);
        let deadline = Instant::now() + START;
        loop {
            let said = log.read();
            if said.contains(&listens) {
                return Ok(());
            }
            let ended = self.supervisor.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                let last: Vec<_> = said.lines().rev().take(5).collect();
                bail!(
                    "{} did not start: {}",
                    program.packages.name,
                    last.into_iter().rev().collect::<Vec<_>>().join(" | ")
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it, and waits until it has ended.
    ///
    /// # Errors
    /// When the supervisor cannot be waited for.
    pub async fn end(self) -> anyhow::Result<()> {
        let Self { mut supervisor, input, .. } = self;
        drop(input);
        supervisor.wait().await?;
        Ok(())
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When the supervisor cannot be waited for.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        self.supervisor.wait().await?;
        Ok(())
    }

    /// Lets it live on when this process ends.
    ///
    /// # Errors
    /// When the supervisor does not hear it.
    pub async fn detach(mut self) -> anyhow::Result<()> {
        self.input.write_all(b"detach\n").await?;
        Ok(self.input.shutdown().await?)
    }

    /// The supervisor's process id, which is that of the emulator's process group.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.id()
    }
}

fn free_address(port: Option<u16>) -> anyhow::Result<SocketAddr> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
    let listener = TcpListener::bind(wanted).with_context(|| {
        format!("port {} is taken: end what listens there, or choose another one with --port", wanted.port())
    })?;
    Ok(listener.local_addr()?)
}

//! The emulator: MiniStack, installed on first use and run under a supervisor.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep},
};

use super::{log::Log, places};

const REQUIREMENTS: &str = include_str!("../../emulator/requirements.txt");
const SUPERVISOR: &str = include_str!("../../emulator/supervisor.py");

/// How long the emulator may take to start.
const START: Duration = Duration::from_secs(30);

/// The region and account that the emulator plays.
pub const REGION: &str = "us-east-1";

/// An installed emulator.
#[derive(Debug, Clone)]
pub struct Installed {
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

/// The emulator's name and version.
#[must_use]
pub fn version() -> String {
    let version = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("ministack=="));
    format!("MiniStack {}", version.unwrap_or_default().trim_end_matches([' ', '\\']))
}

/// Installs the emulator unless it is installed. Two processes that ask at the same time install it once.
///
/// # Errors
/// Says what is missing, and how to get it.
pub async fn install() -> anyhow::Result<Installed> {
    let folder = places::shared(format!("emulator-{:08x}", checksum(REQUIREMENTS)));
    let python = folder.join("bin/python");
    let installed = folder.join("installed");
    let lock = places::shared("emulator.lock");
    fs::create_dir_all(places::shared("")).context("cannot make target/streamer")?;
    let lock = File::create(&lock).context("cannot make target/streamer/emulator.lock")?;
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    // A virtual environment dies with the Python that it was made from.
    if installed.exists() && python.exists() {
        return Ok(Installed { python, fresh: false });
    }
    let system = system_python().await?;
    run(&system, [OsStr::new("-m"), "venv".as_ref(), "--clear".as_ref(), folder.as_ref()]).await.context(
        "Python cannot make a virtual environment: install its venv module (on Debian: apt-get install python3-venv)",
    )?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)?;
    let install = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--requirement"];
    run(&python, install.iter().map(OsStr::new).chain([requirements.as_ref()]))
        .await
        .context("the emulator could not be installed from PyPI: is there a way to it from here?")?;
    fs::write(installed, "")?;
    Ok(Installed { python, fresh: true })
}

/// Distinguishes versions of a text; not a defence against anyone.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}

async fn system_python() -> anyhow::Result<PathBuf> {
    let python = env::var_os("PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let script = "import sys; print(sys.version_info >= (3, 10))";
    let output = Command::new(&python).args(["-c", script]).output().await;
    let new_enough = output.is_ok_and(|output| output.stdout.starts_with(b"True"));
    ensure!(
        new_enough,
        "the emulator needs Python 3.10 or newer, and `{}` is not that: install it (on Debian: apt-get install \
         python3 python3-venv; on macOS: brew install python), or name another one in the variable PYTHON",
        python.display()
    );
    Ok(python)
}

async fn run(program: &Path, arguments: impl IntoIterator<Item = &OsStr>) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{}", String::from_utf8_lossy(&said).trim());
    }
    Ok(())
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
            let Err(error) = emulator.wait_until_it_listens(log).await else { return Ok(emulator) };
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
            .args(["-m", "ministack"])
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .env("GATEWAY_PORT", address.port().to_string())
            .env("BIND_HOST", address.ip().to_string())
            .env("MINISTACK_REGION", REGION)
            .env("AWS_ENDPOINT_URL", format!("http://{address}"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("LAMBDA_WARM_TTL_SECONDS", "60")
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
    async fn wait_until_it_listens(&mut self, log: &Log) -> anyhow::Result<()> {
        let listens = format!("Running on http://{}", self.address);
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
                    "the emulator did not start: {}",
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

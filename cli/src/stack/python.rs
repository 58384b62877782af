//! Python packages, each set in a virtual environment of its own.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use tokio::process::Command;

use super::places;

/// Packages from PyPI.
#[derive(Debug, Clone, Copy)]
pub struct Packages {
    /// What they are called together.
    pub name: &'static str,
    /// What they are called in folders.
    pub folder: &'static str,
    /// The package that the others are there for.
    pub package: &'static str,
    /// All of them, pinned with their hashes.
    pub requirements: &'static str,
    /// The Pythons to try, after the one that the variable `PYTHON` names.
    pub pythons: &'static [&'static str],
    /// The versions of Python that they run on, for people, and from which to which.
    pub versions: (&'static str, (u8, u8), (u8, u8)),
}

impl Packages {
    /// The name, and the version.
    #[must_use]
    pub fn version(&self) -> String {
        let lines = self.requirements.lines();
        let version =
            lines.filter_map(|line| line.split_once("==")).find(|(package, _)| *package == self.package);
        format!("{} {}", self.name, version.unwrap_or_default().1.trim_end_matches([' ', '\\']))
    }

    /// Installs them unless they are installed, and returns their Python, and whether they were installed just now.
    /// Two processes that ask at the same time install them once.
    ///
    /// # Errors
    /// Says what is missing, and how to get it.
    pub async fn install(&self) -> anyhow::Result<(PathBuf, bool)> {
        let folder = places::shared(format!("{}-{:08x}", self.folder, checksum(self.requirements)));
        let python = folder.join("bin/python");
        let installed = folder.join("installed");
        let lock = places::shared(format!("{}.lock", self.folder));
        fs::create_dir_all(places::shared("")).context("cannot make target/streamer")?;
        let lock = File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
        let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        // A virtual environment dies with the Python that it was made from.
        if installed.exists() && python.exists() {
            return Ok((python, false));
        }
        let system = self.system_python().await?;
        run(&system, [OsStr::new("-m"), "venv".as_ref(), "--clear".as_ref(), folder.as_ref()]).await.context(
            "Python cannot make a virtual environment: install its venv module (on Debian: apt-get install python3-venv)",
        )?;
        let requirements = folder.join("requirements.txt");
        fs::write(&requirements, self.requirements)?;
        let install = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--requirement"];
        run(&python, install.iter().map(OsStr::new).chain([requirements.as_ref()])).await.with_context(
            || format!("{} could not be installed from PyPI: is there a way to it from here?", self.name),
        )?;
        fs::write(installed, "")?;
        Ok((python, true))
    }

    async fn system_python(&self) -> anyhow::Result<PathBuf> {
        let (versions, from, to) = self.versions;
        let named = env::var_os("PYTHON").map(PathBuf::from);
        let candidates: Vec<_> = named.into_iter().chain(self.pythons.iter().map(PathBuf::from)).collect();
        let script = format!("import sys; print({from:?} <= sys.version_info[:2] <= {to:?})");
        for python in &candidates {
            let output = Command::new(python).args(["-c", &script]).output().await;
            if output.is_ok_and(|output| output.stdout.starts_with(b"True")) {
                return Ok(python.clone());
            }
        }
        let tried: Vec<_> = candidates.iter().map(|python| format!("`{}`", python.display())).collect();
        bail!(
            "{} needs Python {versions}, and {} is not that: install it (on Debian: apt-get install python3 \
             python3-venv; on macOS: brew install python), or name another one in the variable PYTHON",
            self.name,
            tried.join(" or ")
        )
    }
}

/// Distinguishes versions of a text; not a defence against anyone.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
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

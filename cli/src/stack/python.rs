//! Installs Python packages, each set in its own virtual environment.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use tokio::process::Command;

use crate::paths;

/// A set of packages from PyPI.
#[derive(Debug, Clone, Copy)]
pub struct Packages {
    /// Name of the set, for people.
    pub name: &'static str,
    /// Name of the set in the names of folders.
    pub folder: &'static str,
    /// The main package. The others are its dependencies.
    pub package: &'static str,
    /// Requirements file with every package, pinned by hash.
    pub requirements: &'static str,
    /// Interpreters to try after the one that the environment variable `PYTHON` names.
    pub pythons: &'static [&'static str],
    /// Supported versions of Python: for people, and as the first and last version.
    pub versions: (&'static str, (u8, u8), (u8, u8)),
}

impl Packages {
    /// Returns the name of the set with the version of the main package.
    #[must_use]
    pub fn version(&self) -> String {
        let lines = self.requirements.lines();
        let version =
            lines.filter_map(|line| line.split_once("==")).find(|(package, _)| *package == self.package);
        format!("{} {}", self.name, version.unwrap_or_default().1.trim_end_matches([' ', '\\']))
    }

    /// Installs the packages if they are not installed. Returns their interpreter, and whether this call installed
    /// them. A lock keeps concurrent processes from installing them twice.
    ///
    /// # Errors
    /// When there is no workspace, Python or its venv module is missing, or PyPI cannot be reached. The error says what
    /// to install.
    pub async fn install(&self) -> anyhow::Result<(PathBuf, bool)> {
        paths::require_workspace()?;
        let folder = paths::shared(format!("{}-{:08x}", self.folder, checksum(self.requirements)));
        let python = folder.join("bin/python");
        let installed = folder.join("installed");
        let lock = paths::shared(format!("{}.lock", self.folder));
        fs::create_dir_all(paths::shared("")).context("cannot create target/streamer")?;
        let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
        let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        // A virtual environment breaks when the Python it was created from is removed.
        if installed.exists() && python.exists() {
            return Ok((python, false));
        }
        let system = self.system_python().await?;
        run(&system, [OsStr::new("-m"), "venv".as_ref(), "--clear".as_ref(), folder.as_ref()]).await.context(
            "Python cannot create a virtual environment: install its venv module (on Debian: apt-get install python3-venv)",
        )?;
        let requirements = folder.join("requirements.txt");
        fs::write(&requirements, self.requirements)?;
        let install = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--requirement"];
        run(&python, install.iter().map(OsStr::new).chain([requirements.as_ref()])).await.with_context(
            || format!("cannot install {} from PyPI: check that this machine can reach pypi.org", self.name),
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
            "{} needs Python {versions}, tried {}: install it (on Debian: apt-get install python3 python3-venv; on \
             macOS: brew install python), or name another interpreter in the variable PYTHON",
            self.name,
            tried.join(" and ")
        )
    }
}

/// Returns a hash (FNV-1a) that distinguishes versions of a text. It is not collision-resistant.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}

async fn run(program: &Path, arguments: impl IntoIterator<Item = &OsStr>) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        let messages = [output.stdout, output.stderr].concat();
        bail!("{}", String::from_utf8_lossy(&messages).trim());
    }
    Ok(())
}

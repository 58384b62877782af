//! Compiles the release binaries of the Lambda functions.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

use super::{
    Architecture,
    inspect::{self, Requirements},
    project::{Kind, NO_JITTER_ENTROPY, Project, Target},
};
use crate::cargo;

/// Amazon Linux 2023's glibc, which cargo-lambda expects as the suffix of a target.
const GLIBC: &str = "2.34";

/// 1980-01-01, the earliest time that a zip can hold.
const SOURCE_DATE_EPOCH: &str = "315532800";

/// A compiler with its linker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toolchain {
    /// This machine's own.
    Native,
    /// cargo-lambda, which links with zig.
    CargoLambda,
}

/// A release build for one architecture.
#[derive(Debug, Clone)]
pub struct Release {
    project: Project,
    architecture: Architecture,
    toolchain: Toolchain,
    local_paths: LocalPaths,
}

/// Folders of this machine that a compiler could write into a binary.
#[derive(Debug, Clone)]
struct LocalPaths {
    /// Folders of sources, each with its replacement in binaries.
    sources: Vec<(PathBuf, String)>,
    cargo: PathBuf,
    rustup: PathBuf,
}

impl LocalPaths {
    fn of(project: &Project) -> anyhow::Result<Self> {
        let home = env::home_dir().context("there is no home folder: set HOME")?;
        let path = |variable: &str, folder: &str| {
            env::var_os(variable)
                .filter(|path| !path.is_empty())
                .map_or_else(|| home.join(folder), PathBuf::from)
        };
        Ok(Self {
            sources: project.sources.clone(),
            cargo: path("CARGO_HOME", ".cargo"),
            rustup: path("RUSTUP_HOME", ".rustup"),
        })
    }

    /// Returns each folder with its replacement in binaries. All registries' folders get the same replacement, because
    /// their names hold a hash that depends on the machine's configuration.
    fn replacements(&self) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let registries = self.cargo.join("registry/src");
        let registries =
            fs::read_dir(&registries).with_context(|| format!("cannot read {}", registries.display()))?;
        let mut replacements = self.sources.clone();
        replacements.push((self.cargo.clone(), "/cargo".to_owned()));
        replacements.push((self.rustup.clone(), "/rustup".to_owned()));
        for registry in registries {
            replacements.push((registry?.path(), "/registry".to_owned()));
        }
        // Compilers use the last replacement that matches, so the longest path comes last.
        replacements.sort_by_key(|(path, _)| path.as_os_str().len());
        Ok(replacements)
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        let sources = self.sources.iter().map(|(folder, _)| folder);
        sources.chain([&self.cargo, &self.rustup]).map(PathBuf::as_path)
    }
}

impl Release {
    /// Chooses the toolchain: this machine's own compiler for this machine's architecture on Linux, unless `zig` is
    /// set, and otherwise cargo-lambda.
    ///
    /// # Errors
    /// When a tool is missing. The error says how to install it.
    pub async fn prepare(project: Project, architecture: Architecture, zig: bool) -> anyhow::Result<Self> {
        let native = cfg!(target_os = "linux") && architecture == Architecture::HERE && !zig;
        let toolchain = if native { Toolchain::Native } else { Toolchain::CargoLambda };
        if !native {
            ensure_target_is_installed(&project, architecture).await?;
            let version = project.cargo().args(["lambda", "--version"]).output().await;
            ensure!(
                version.is_ok_and(|version| version.status.success()),
                "packaging for {architecture} on this machine needs cargo-lambda, which is not installed: \
                 `pip install cargo-lambda` installs it with zig, or see \
                 https://www.cargo-lambda.info/guide/installation.html"
            );
        }
        let local_paths = LocalPaths::of(&project)?;
        Ok(Self { project, architecture, toolchain, local_paths })
    }

    /// Compiles the targets, passes cargo's progress to `show`, and returns the binaries in the same order.
    ///
    /// # Errors
    /// When compilation fails, or [`inspect`] rejects a binary.
    pub async fn compile(
        &self,
        targets: &[Target],
        mut show: impl FnMut(&str),
    ) -> anyhow::Result<Vec<Binary>> {
        let target_folder = self.project.target_folder.join("package").join(match self.toolchain {
            Toolchain::Native => "native",
            Toolchain::CargoLambda => "zig",
        });
        run(self.project.cargo().args(["fetch", "--locked"]), &mut show).await?;
        let mut command = self.build_command(targets, &target_folder);
        run(self.make_reproducible(&mut command)?, &mut show).await?;
        let binaries = targets.iter().map(|target| {
            let path = self.path(target, &target_folder);
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let Requirements { glibc } = inspect::inspect(&bytes, self.architecture, self.local_paths.all())
                .with_context(|| target.name.clone())?;
            Ok(Binary { name: target.name.clone(), path, glibc })
        });
        binaries.collect()
    }

    /// Returns the path of a target's binary.
    fn path(&self, target: &Target, target_folder: &Path) -> PathBuf {
        match self.toolchain {
            Toolchain::Native => {
                let folder = target_folder.join(self.architecture.target()).join("release");
                let folder = if target.kind == Kind::Example { folder.join("examples") } else { folder };
                folder.join(&target.name)
            }
            Toolchain::CargoLambda => target_folder.join("lambda").join(&target.name).join("bootstrap"),
        }
    }

    fn build_command(&self, targets: &[Target], target_folder: &Path) -> Command {
        let target = self.architecture.target();
        let mut command = self.project.cargo();
        match self.toolchain {
            Toolchain::Native => command.args(["build", "--target", target]),
            Toolchain::CargoLambda => command
                .args(["lambda", "build", "--target"])
                .arg(format!("{target}.{GLIBC}"))
                // cargo-lambda's optimizations include `panic = "abort"`: a panic would end the process, unreported.
                .arg("--disable-optimizations")
                .arg("--lambda-dir")
                .arg(target_folder.join("lambda")),
        };
        command.args(["--release", "--locked"]).env("CARGO_TARGET_DIR", target_folder);
        for Target { package, name, kind } in targets {
            command.args(["--package", package, kind.flag(), name]);
        }
        command
    }

    /// Keeps this machine's paths, its user's settings for compilers and the current time out of the binaries.
    fn make_reproducible<'a>(&self, command: &'a mut Command) -> anyhow::Result<&'a mut Command> {
        for (variable, _) in env::vars_os() {
            let name = variable.to_string_lossy();
            let flags = name.contains("CFLAGS") || name.contains("RUSTFLAGS");
            // A prefix, since the name may end with a target.
            let entropy = name.starts_with(NO_JITTER_ENTROPY);
            if flags || entropy || name.starts_with("CARGO_PROFILE_") || name == "CARGO_BUILD_TARGET" {
                command.env_remove(&variable);
            }
        }
        let replacements = self.local_paths.replacements()?;
        let flags = |flag: &str, separator: &str| {
            let flags = replacements.iter().map(|(path, name)| format!("{flag}={}={name}", path.display()));
            flags.collect::<Vec<_>>().join(separator)
        };
        // Cargo's separator allows spaces within flags. C compilers' flags have no such separator.
        command.env("CARGO_ENCODED_RUSTFLAGS", flags("--remap-path-prefix", "\u{1f}"));
        let with_space =
            replacements.iter().find(|(path, _)| path.to_string_lossy().contains(char::is_whitespace));
        if let Some((path, _)) = with_space {
            bail!("C compilers accept no folder with a space in its path: move {}", path.display());
        }
        command.env("CFLAGS", flags("-ffile-prefix-map", " "));
        Ok(command.env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH))
    }
}

/// A binary for Lambda.
#[derive(Debug, Clone)]
pub struct Binary {
    /// Its name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The newest version of glibc that it needs.
    pub glibc: Option<String>,
}

async fn ensure_target_is_installed(project: &Project, architecture: Architecture) -> anyhow::Result<()> {
    let target = architecture.target();
    let libraries =
        run(project.rustc().args(["--print", "target-libdir", "--target", target]), |_| {}).await?;
    ensure!(
        Path::new(libraries.trim()).exists(),
        "Rust's target {target} is not installed: run `rustup target add {target}`, or package for {} with \
         `--arch {0}` and deploy with `architecture = \"{0}\"`",
        Architecture::HERE
    );
    Ok(())
}

/// Runs a command and returns its standard output.
async fn run(command: &mut Command, show: impl FnMut(&str)) -> anyhow::Result<String> {
    let output = cargo::run(command, show).await?;
    if !output.status.success() {
        bail!("{}", output.messages.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! Compiles the Lambdas as they are packaged.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

use super::{Architecture, inspect};
use crate::stack::{build::cargo, places};

/// Amazon Linux 2023's glibc, as cargo-lambda wants it behind a target.
const GLIBC: &str = "2.34";

/// Which compiler and linker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toolchain {
    /// This machine's own.
    Native,
    /// cargo-lambda, which links with zig.
    CargoLambda,
}

/// What is built for release, and where its parts come from.
#[derive(Debug, Clone)]
pub struct Release {
    architecture: Architecture,
    toolchain: Toolchain,
    places: Places,
}

/// The folders of this machine that a compiler could write into a binary.
#[derive(Debug, Clone)]
struct Places {
    workspace: PathBuf,
    cargo: PathBuf,
    rustup: PathBuf,
}

impl Places {
    fn of_environment() -> anyhow::Result<Self> {
        let home = env::home_dir().context("there is no home folder: set HOME")?;
        let of = |variable: &str, folder: &str| {
            env::var_os(variable)
                .filter(|path| !path.is_empty())
                .map_or_else(|| home.join(folder), PathBuf::from)
        };
        Ok(Self {
            workspace: places::workspace().to_owned(),
            cargo: of("CARGO_HOME", ".cargo"),
            rustup: of("RUSTUP_HOME", ".rustup"),
        })
    }

    /// What each is called in binaries. A registry's folder has the registry's hash in its name, which depends on
    /// the machine's configuration, so each of them gets the same name.
    fn renamed(&self) -> anyhow::Result<Vec<(PathBuf, &'static str)>> {
        let registries = self.cargo.join("registry/src");
        let registries =
            fs::read_dir(&registries).with_context(|| format!("cannot read {}", registries.display()))?;
        let mut renamed = vec![
            (self.cargo.clone(), "/cargo"),
            (self.rustup.clone(), "/rustup"),
            (self.workspace.clone(), "/streamer"),
        ];
        for registry in registries {
            renamed.push((registry?.path(), "/registry"));
        }
        // Of those that fit, compilers take the last: the longest.
        renamed.sort_by_key(|(path, _)| path.as_os_str().len());
        Ok(renamed)
    }
}

impl Release {
    /// Release builds for `architecture`: by this machine's own compiler where that makes them and `zig` does not
    /// say otherwise, else by cargo-lambda.
    ///
    /// # Errors
    /// Says what is not installed, and how to get it.
    pub async fn prepare(architecture: Architecture, zig: bool) -> anyhow::Result<Self> {
        let native = cfg!(target_os = "linux") && architecture == Architecture::HERE && !zig;
        let toolchain = if native { Toolchain::Native } else { Toolchain::CargoLambda };
        if !native {
            target_is_installed(architecture).await?;
            let version = Command::new(cargo()).args(["lambda", "--version"]).output().await;
            ensure!(
                version.is_ok_and(|version| version.status.success()),
                "to package for {architecture} on this machine takes cargo-lambda, and it is not installed: `pip install \
                 cargo-lambda` brings it and zig, or see https://www.cargo-lambda.info/guide/installation.html"
            );
        }
        Ok(Self { architecture, toolchain, places: Places::of_environment()? })
    }

    /// Compiles binaries of the workspace, each of the package of the same name, and returns them in the same order.
    ///
    /// # Errors
    /// What the compiler said, or what [`inspect`] found in a binary.
    pub async fn compile(&self, packages: &[&str]) -> anyhow::Result<Vec<Binary>> {
        let target = self.architecture.target();
        let folder = places::workspace().join("target/package").join(match self.toolchain {
            Toolchain::Native => "native",
            Toolchain::CargoLambda => "zig",
        });
        run(Command::new(cargo()).current_dir(places::workspace()).args(["fetch", "--locked"])).await?;
        let mut command = Command::new(cargo());
        match self.toolchain {
            Toolchain::Native => command.args(["build", "--target", target]),
            Toolchain::CargoLambda => command
                .args(["lambda", "build", "--target"])
                .arg(format!("{target}.{GLIBC}"))
                // Its own would have a panic end the process, unreported.
                .arg("--disable-optimizations")
                .arg("--lambda-dir")
                .arg(folder.join("lambda")),
        };
        command.args(["--release", "--locked"]).env("CARGO_TARGET_DIR", &folder);
        for package in packages {
            command.args(["--package", package]);
        }
        run(self.renaming(&mut command)?.current_dir(places::workspace())).await?;
        let binaries = packages.iter().map(|name| {
            let path = match self.toolchain {
                Toolchain::Native => folder.join(target).join("release").join(name),
                Toolchain::CargoLambda => folder.join("lambda").join(name).join("bootstrap"),
            };
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let places =
                [&self.places.workspace, &self.places.cargo, &self.places.rustup].map(PathBuf::as_path);
            let needs =
                inspect::inspect(&bytes, self.architecture, places).with_context(|| (*name).to_owned())?;
            Ok(Binary { name: (*name).to_owned(), path, glibc: needs.glibc })
        });
        binaries.collect()
    }

    /// No path of this machine, no flag of its user's and no time gets into what `command` compiles.
    fn renaming<'a>(&self, command: &'a mut Command) -> anyhow::Result<&'a mut Command> {
        for (variable, _) in env::vars_os() {
            let name = variable.to_string_lossy();
            let flags = name.contains("CFLAGS") || name.contains("RUSTFLAGS");
            if flags || name.starts_with("CARGO_PROFILE_") || name == "CARGO_BUILD_TARGET" {
                command.env_remove(&variable);
            }
        }
        let renamed = self.places.renamed()?;
        let flags = |flag: &str, separator: &str| {
            let flags = renamed.iter().map(|(path, name)| format!("{flag}={}={name}", path.display()));
            flags.collect::<Vec<_>>().join(separator)
        };
        // The separator that cargo has for flags with spaces in them. C compilers' flags have none.
        command.env("CARGO_ENCODED_RUSTFLAGS", flags("--remap-path-prefix", "\u{1f}"));
        let spaced = renamed.iter().find(|(path, _)| path.to_string_lossy().contains(char::is_whitespace));
        if let Some((path, _)) = spaced {
            bail!("C compilers take no folder with a space in its name: move {}", path.display());
        }
        command.env("CFLAGS", flags("-ffile-prefix-map", " "));
        Ok(command.env("SOURCE_DATE_EPOCH", "315532800"))
    }
}

/// A binary for Lambda.
#[derive(Debug, Clone)]
pub struct Binary {
    /// Its name, and its package's.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// The newest version of glibc that it needs.
    pub glibc: Option<String>,
}

async fn target_is_installed(architecture: Architecture) -> anyhow::Result<()> {
    let target = architecture.target();
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(places::workspace()).args(["--print", "target-libdir", "--target", target]);
    let libraries = run(&mut rustc).await?;
    ensure!(
        Path::new(libraries.trim()).exists(),
        "Rust's target {target} is not installed: `rustup target add {target}`, or package for {} with `--arch {0}`, \
         and deploy that with `architecture = \"{0}\"`",
        Architecture::HERE
    );
    Ok(())
}

/// What a command printed.
async fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("`{name}` could not be run: install Rust with rustup"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

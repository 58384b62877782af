//! The cargo workspace that holds the binaries to package: Streamer's own, or that of a router.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::{cargo, paths};

/// The variable that decides whether AWS-LC is built with CPU jitter as a source of random numbers. Each workspace sets
/// it in its `.cargo/config.toml`.
pub(super) const NO_JITTER_ENTROPY: &str = "AWS_LC_SYS_NO_JITTER_ENTROPY";

/// A workspace of cargo.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its root folder, which holds `Cargo.lock`.
    pub root: PathBuf,
    /// Its target folder.
    pub target_folder: PathBuf,
    /// Folders of local sources outside of cargo's own folders, each with its replacement in binaries.
    pub sources: Vec<(PathBuf, String)>,
}

/// A binary or an example of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The package's name.
    pub package: String,
    /// Its own name, which is also the file's.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
}

/// The kind of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A binary.
    Binary,
    /// An example.
    Example,
}

impl Kind {
    /// Returns the flag of cargo that selects a target of this kind.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Binary => "--bin",
            Self::Example => "--example",
        }
    }
}

impl Target {
    /// Returns the binary of a package that has the package's name.
    #[must_use]
    pub fn binary(name: &str) -> Self {
        Self { package: name.to_owned(), name: name.to_owned(), kind: Kind::Binary }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// The parts of `cargo metadata` that are used.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<PackageMetadata>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct PackageMetadata {
    name: String,
    manifest_path: PathBuf,
    /// `None` for a package on this machine.
    source: Option<String>,
    default_run: Option<String>,
    targets: Vec<TargetMetadata>,
}

#[derive(Deserialize)]
struct TargetMetadata {
    name: String,
    kind: Vec<String>,
}

impl Project {
    /// Returns Streamer's own workspace.
    #[must_use]
    pub fn streamer() -> Self {
        let root = paths::workspace().to_owned();
        Self {
            target_folder: root.join("target"),
            sources: vec![(root.clone(), "/streamer".to_owned())],
            root,
        }
    }

    /// Whether this is Streamer's own workspace.
    #[must_use]
    pub fn is_streamer(&self) -> bool {
        self.root == paths::workspace()
    }

    /// Finds the router at `path`, a package's folder or its `Cargo.toml`, and its workspace. `name` chooses a target
    /// if the package has several.
    ///
    /// # Errors
    /// When there is no package, it has no such binary, or its dependencies cannot be resolved.
    pub async fn of_router(path: &Path, name: Option<&str>) -> anyhow::Result<(Self, Target)> {
        let manifest = manifest(path)?;
        let folder = manifest.parent().context("the manifest has no folder")?;
        let members = metadata(cargo_in(folder), &manifest, &["--no-deps"]).await?;
        let router = choose(&members.packages, &manifest, name)?;
        let root = members.workspace_root;
        if root == paths::workspace() {
            return Ok((Self::streamer(), router));
        }
        // Without a lock file, cargo writes one.
        let locked = root.join("Cargo.lock").exists();
        let arguments: &[&str] = if locked { &["--locked"] } else { &[] };
        let all = metadata(cargo_in(folder), &manifest, arguments).await.with_context(|| {
            format!("if Cargo.lock is out of date, `cargo check` in {} updates it", folder.display())
        })?;
        let local = all.packages.iter().filter(|package| package.source.is_none());
        let outside = local.filter_map(|package| {
            let folder = package.manifest_path.parent()?;
            (!folder.starts_with(&root)).then(|| (folder.to_owned(), format!("/{}", package.name)))
        });
        let sources = outside.chain([(root.clone(), "/router".to_owned())]).collect();
        Ok((Self { root, target_folder: members.target_directory, sources }, router))
    }

    /// Returns a command that runs this workspace's cargo in its root folder.
    #[must_use]
    pub fn cargo(&self) -> Command {
        if !self.is_streamer() {
            return cargo_in(&self.root);
        }
        let mut command = Command::new(cargo::program());
        command.current_dir(&self.root);
        command
    }

    /// Builds debug binaries of `targets` in its own target folder, passes cargo's progress to `show`, and returns
    /// their paths in the same order.
    ///
    /// # Errors
    /// When compilation fails.
    pub async fn debug_build(
        &self,
        targets: &[Target],
        show: impl FnMut(&str),
    ) -> anyhow::Result<Vec<PathBuf>> {
        let mut command = self.cargo();
        command.args(["build", "--locked", "--message-format", "json-render-diagnostics"]);
        for Target { package, name, kind } in targets {
            command.args(["--package", package, kind.flag(), name]);
        }
        let output = cargo::run(&mut command, show).await?;
        ensure!(output.status.success(), "{}", output.messages.trim());
        let built: Vec<_> = cargo::executables(&output.stdout).collect();
        let path = |target: &Target| {
            let found = built.iter().find(|(name, _)| *name == target.name);
            found.map(|(_, path)| path.clone()).with_context(|| format!("cargo built no binary `{target}`"))
        };
        targets.iter().map(path).collect()
    }

    /// Returns a command that runs this workspace's compiler in its root folder.
    #[must_use]
    pub fn rustc(&self) -> Command {
        let name = std::env::var_os("RUSTC").filter(|_| self.is_streamer());
        let mut command = Command::new(name.unwrap_or_else(|| "rustc".into()));
        if !self.is_streamer() {
            use_own_settings(&mut command);
        }
        command.current_dir(&self.root);
        command
    }
}

/// Returns a command that runs the cargo of a workspace other than Streamer's, in one of its folders.
fn cargo_in(folder: &Path) -> Command {
    let mut command = Command::new("cargo");
    use_own_settings(&mut command);
    command.current_dir(folder);
    command
}

/// Removes the settings that `cargo run` makes for this process: the toolchain, which rustup chooses by the folder, and
/// the variable from Streamer's `.cargo/config.toml`.
fn use_own_settings(command: &mut Command) {
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", NO_JITTER_ENTROPY] {
        command.env_remove(variable);
    }
}

/// Returns the manifest that `path` names.
fn manifest(path: &Path) -> anyhow::Result<PathBuf> {
    let found = path.canonicalize().with_context(|| format!("there is no package at {}", path.display()))?;
    if found.is_dir() {
        let manifest = found.join("Cargo.toml");
        ensure!(
            manifest.exists(),
            "{} has no Cargo.toml: name the folder of the router's package",
            path.display()
        );
        return Ok(manifest);
    }
    ensure!(
        found.file_name().is_some_and(|name| name == "Cargo.toml"),
        "{} is no package: name the folder of the router's package, or its Cargo.toml",
        path.display()
    );
    Ok(found)
}

async fn metadata(mut cargo: Command, manifest: &Path, arguments: &[&str]) -> anyhow::Result<Metadata> {
    cargo.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(manifest).args(arguments);
    let output = cargo::run(&mut cargo, |_| {}).await?;
    ensure!(output.status.success(), "{}", output.messages.trim());
    serde_json::from_slice(&output.stdout).context("cannot parse the output of `cargo metadata`")
}

/// Chooses the router among the targets of the package with `manifest`, or of all packages if that is a workspace's.
fn choose(packages: &[PackageMetadata], manifest: &Path, name: Option<&str>) -> anyhow::Result<Target> {
    let own = packages.iter().find(|package| package.manifest_path == manifest);
    let packages = own.map_or(packages, std::slice::from_ref);
    let of_kind = |kind: Kind| -> Vec<Target> {
        let wanted = if kind == Kind::Binary { "bin" } else { "example" };
        let targets = packages.iter().flat_map(|package| {
            let targets =
                package.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == wanted));
            targets.map(|target| Target { package: package.name.clone(), name: target.name.clone(), kind })
        });
        targets.collect()
    };
    let (binaries, examples) = (of_kind(Kind::Binary), of_kind(Kind::Example));
    if let Some(name) = name {
        let found = binaries.iter().chain(&examples).find(|target| target.name == name);
        let names = list(if binaries.is_empty() { &examples } else { &binaries });
        return found.cloned().with_context(|| format!("the package has no binary `{name}`, only: {names}"));
    }
    let default = own.and_then(|package| package.default_run.as_ref());
    let default = default.and_then(|name| binaries.iter().find(|target| target.name == *name));
    match (default, binaries.as_slice(), examples.as_slice()) {
        (Some(target), ..) | (None, [target], _) | (None, [], [target]) => Ok(target.clone()),
        (None, [], []) => bail!("{} has no binary", manifest.display()),
        (None, [], several) | (None, several, _) => {
            bail!("choose one of these binaries with --bin: {}", list(several))
        }
    }
}

fn list(targets: &[Target]) -> String {
    if targets.is_empty() {
        return "none".to_owned();
    }
    targets.iter().map(Target::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn package(name: &str, default_run: Option<&str>, targets: &[(&str, &str)]) -> PackageMetadata {
        let target =
            |(kind, name): &(&str, &str)| TargetMetadata { name: (*name).into(), kind: vec![(*kind).into()] };
        PackageMetadata {
            name: name.into(),
            manifest_path: format!("/projects/{name}/Cargo.toml").into(),
            source: None,
            default_run: default_run.map(Into::into),
            targets: targets.iter().map(target).collect(),
        }
    }

    fn chosen(packages: &[PackageMetadata], of: &str, name: Option<&str>) -> Result<(String, Kind), String> {
        let manifest = PathBuf::from(format!("/projects/{of}/Cargo.toml"));
        choose(packages, &manifest, name)
            .map(|target| (target.name, target.kind))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn other_workspaces_choose_their_own_entropy() {
        let root = PathBuf::from("/router");
        let router = Project { target_folder: root.join("target"), root, sources: Vec::new() };
        for command in [router.cargo(), router.rustc()] {
            let removed =
                command.as_std().get_envs().any(|(name, value)| name == NO_JITTER_ENTROPY && value.is_none());
            assert!(removed, "{command:?}");
        }
    }

    #[test]
    fn router_is_the_only_binary_or_named() {
        let packages = [
            package("one", None, &[("lib", "one"), ("bin", "one"), ("example", "other")]),
            package("two", None, &[("bin", "first"), ("bin", "second")]),
            package("default", Some("second"), &[("bin", "first"), ("bin", "second")]),
            package("library", None, &[("lib", "library")]),
            package("example", None, &[("lib", "example"), ("example", "router")]),
        ];
        assert_eq!(chosen(&packages, "one", None), Ok(("one".into(), Kind::Binary)));
        assert_eq!(chosen(&packages, "one", Some("other")), Ok(("other".into(), Kind::Example)));
        assert_eq!(chosen(&packages, "default", None), Ok(("second".into(), Kind::Binary)));
        assert_eq!(chosen(&packages, "two", Some("first")), Ok(("first".into(), Kind::Binary)));
        assert_eq!(chosen(&packages, "example", None), Ok(("router".into(), Kind::Example)));
        let error = chosen(&packages, "two", None).unwrap_err();
        assert_eq!(error, "choose one of these binaries with --bin: first, second");
        let error = chosen(&packages, "two", Some("third")).unwrap_err();
        assert_eq!(error, "the package has no binary `third`, only: first, second");
        assert_eq!(
            chosen(&packages, "library", None).unwrap_err(),
            "/projects/library/Cargo.toml has no binary"
        );
        let workspace = chosen(&packages[..1], "", None);
        assert_eq!(workspace, Ok(("one".into(), Kind::Binary)), "a workspace's manifest is of no package");
    }
}

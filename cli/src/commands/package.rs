//! `streamer package`: builds the zips for Lambda.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;

use crate::{
    package::{
        Architecture,
        archive::{Compression, archive},
        build::Release,
        project::{Project, Target},
        start,
    },
    paths,
    screen::{Progress, Screen, elapsed},
    shutdown,
    spec::Spec,
    stack::{
        build,
        issuer::{ISSUER, Issuer},
    },
};

/// Build the deployment packages
///
/// Builds the zip of each function for Terraform, and starts each once. With --router, builds the zip of a router
/// instead. The zips of a commit are byte-identical on every machine with the same compiler. The command rejects
/// binaries that would not run on Amazon Linux 2023 or that hold a path of this machine. On Linux, the installed
/// compiler builds for this machine's architecture; otherwise cargo-lambda builds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer package                       for Graviton, the default of infra/
  streamer package --arch x86_64
  streamer package --router ../my-router
  streamer package --router . --bin my-router --env LOG_FORMAT=json
  streamer package --arch x86_64 --quick --output /tmp/lambda")]
pub struct Package {
    /// Build for this architecture
    #[arg(long, value_name = "ARCHITECTURE", default_value = "arm64")]
    arch: Architecture,
    /// Link with cargo-lambda and zig against Amazon Linux 2023's glibc, for a machine with a newer glibc
    #[arg(long)]
    zig: bool,
    /// Package the debug build in seconds, for an emulator on this machine, not for AWS
    #[arg(long, conflicts_with = "zig")]
    quick: bool,
    /// Build router.zip from the package in this folder or with this Cargo.toml, and nothing else
    #[arg(long, value_name = "PATH")]
    router: Option<PathBuf>,
    /// Choose the router's binary or example if its package has several
    #[arg(long, value_name = "NAME", requires = "router")]
    bin: Option<String>,
    /// Start the router with this variable, too; the zip does not hold it
    #[arg(long, value_name = "NAME=VALUE", requires = "router", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Write the zips to this folder [default: target/lambda]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// A zip to build.
struct Zip {
    target: Target,
    file: String,
    /// The environment in which it starts once.
    environment: BTreeMap<String, String>,
}

/// A function's binary.
struct Binary {
    path: PathBuf,
    /// Its requirements of the system, for people.
    requirements: String,
}

impl Package {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no workspace, a tool is missing, a package would not run, or a signal ends the command.
    pub async fn run(self) -> anyhow::Result<()> {
        paths::require_workspace()?;
        let output = self.output.clone().unwrap_or_else(|| paths::workspace().join("target/lambda"));
        let written = Cell::new(0);
        tokio::select! {
            signal = shutdown::requested() => Err(signal.interrupted(match written.get() {
                0 => "no zip was written".to_owned(),
                1 => format!("1 zip was written to {}", output.display()),
                several => format!("{several} zips were written to {}", output.display()),
            })),
            result = self.package_all(&output, &written) => result,
        }
    }

    /// Builds every zip, and counts the written ones.
    async fn package_all(&self, output: &Path, written: &Cell<usize>) -> anyhow::Result<()> {
        let screen = Screen::new();
        let (project, zips) = match &self.router {
            Some(path) => self.router(path).await?,
            None => self.functions()?,
        };
        fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
        let targets: Vec<_> = zips.iter().map(|zip| zip.target.clone()).collect();
        let compiling = async |progress: &Progress| self.compile(project, &targets, progress).await;
        let (binaries, took) = screen.step_with("build", "compiling", compiling).await?;
        let kind = if self.quick { "debug" } else { "release" };
        let content = match &self.router {
            Some(_) => format!("router {}", targets[0]),
            None => format!("{} functions", zips.len()),
        };
        let content = format!("{content} for {}, {kind}", self.arch);
        screen.line(format!(" {:<11} {content:<39} {}", "build", elapsed(took)));
        for (zip, binary) in zips.iter().zip(binaries) {
            self.package(zip, &binary, output, screen).await?;
            written.update(|number| number + 1);
        }
        Ok(())
    }

    /// Returns the functions' zips.
    fn functions(&self) -> anyhow::Result<(Project, Vec<Zip>)> {
        let functions = Spec::read()?.functions;
        let zips = functions.values().map(|function| {
            Ok(Zip {
                target: Target::binary(&function.package),
                file: format!("{}-{}.zip", function.package, self.arch),
                environment: variables(&function.environment)?,
            })
        });
        Ok((Project::streamer(), zips.collect::<anyhow::Result<_>>()?))
    }

    /// Returns the router's zip.
    async fn router(&self, path: &Path) -> anyhow::Result<(Project, Vec<Zip>)> {
        let (project, target) = Project::of_router(path, self.bin.as_deref()).await?;
        let queue = BTreeMap::from([("QUEUE_URL".to_owned(), "queue_url".to_owned())]);
        let mut environment = variables(&queue)?;
        environment.extend(self.env.iter().cloned());
        Ok((project, vec![Zip { target, file: "router.zip".to_owned(), environment }]))
    }

    /// Builds and starts a zip, and then writes it: Terraform must not find a zip that does not start.
    async fn package(&self, zip: &Zip, binary: &Binary, output: &Path, screen: Screen) -> anyhow::Result<()> {
        let bytes =
            fs::read(&binary.path).with_context(|| format!("cannot read {}", binary.path.display()))?;
        let content = archive(&bytes, if self.quick { Compression::Fast } else { Compression::Best })?;
        let start = self.start(zip, &content).await?;
        let path = output.join(&zip.file);
        fs::write(&path, &content).with_context(|| format!("cannot write {}", path.display()))?;
        let sha256 = BASE64_STANDARD.encode(digest(&SHA256, &content));
        let size = content.len() as f64 / f64::from(1 << 20);
        screen.line(format!(
            " {}\n   {size:.2} MiB, {}, {start}, CodeSha256 {sha256}",
            path.display(),
            binary.requirements
        ));
        Ok(())
    }

    /// Starts a zip once, and describes the result.
    async fn start(&self, zip: &Zip, content: &[u8]) -> anyhow::Result<String> {
        let runner = if self.quick { Some(Vec::new()) } else { start::runner(self.arch) };
        let Some(runner) = runner else {
            return Ok(format!("not started (no qemu-user with a C library for {})", self.arch));
        };
        let name = &zip.target.name;
        // Another process may package the same function at the same time.
        let folder = format!("target/package/start/{name}-{}", std::process::id());
        let folder = paths::workspace().join(folder);
        let took =
            start::start(content, &folder, &runner, &zip.environment).await.map(|started| started.took);
        _ = fs::remove_dir_all(folder);
        let took = took.with_context(|| {
            let remedy = if self.router.is_some() { " (--env sets a variable that it needs)" } else { "" };
            format!("the package of {name} does not start{remedy}")
        })?;
        Ok(format!("starts in {} ms", took.as_millis()))
    }

    /// Builds the binaries of `targets`, and returns them in the same order.
    async fn compile(
        &self,
        project: Project,
        targets: &[Target],
        progress: &Progress,
    ) -> anyhow::Result<Vec<Binary>> {
        let show = |part: &str| progress.show(part);
        if self.quick {
            anyhow::ensure!(
                self.arch == Architecture::HERE,
                "`--quick` packages for this machine's architecture only: use `--arch {}`",
                Architecture::HERE
            );
            let paths = debug_build(&project, targets, show).await?;
            let debug = |path| Binary { path, requirements: "for this machine".to_owned() };
            return Ok(paths.into_iter().map(debug).collect());
        }
        let built = Release::prepare(project, self.arch, self.zig).await?.compile(targets, show).await?;
        let binaries = built.into_iter().map(|binary| Binary {
            path: binary.path,
            requirements: binary
                .glibc
                .map_or_else(|| "static".to_owned(), |version| format!("needs {version}")),
        });
        Ok(binaries.collect())
    }
}

/// Builds debug binaries, and returns their paths in the order of `targets`.
async fn debug_build(
    project: &Project,
    targets: &[Target],
    show: impl FnMut(&str),
) -> anyhow::Result<Vec<PathBuf>> {
    if project.is_streamer() {
        let built = build::build_with(show).await?;
        return targets.iter().map(|target| Ok(built.path(&target.name)?.to_owned())).collect();
    }
    project.debug_build(targets, show).await
}

/// Parses a variable of `--env`.
fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Returns the environment variables with which a function starts: plausible values, and invalid credentials.
fn variables(environment: &BTreeMap<String, String>) -> anyhow::Result<BTreeMap<String, String>> {
    let issuer = Issuer::generate()?;
    let values = BTreeMap::from([
        ("connections_table", "streamer_connections"),
        ("dead_letter_queue_url", "https://sqs.us-east-1.amazonaws.com/000000000000/dead-letters"),
        ("jwt_issuers", ISSUER),
        ("jwt_public_key", issuer.public_key.as_str()),
        ("mailbox_table", "streamer_mailbox"),
        ("management_endpoint", "https://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com/production"),
        ("parts_queue_url", "https://sqs.us-east-1.amazonaws.com/000000000000/parts"),
        ("queue_url", "https://sqs.us-east-1.amazonaws.com/000000000000/outbound"),
        ("receipts_queue_url", "https://sqs.us-east-1.amazonaws.com/000000000000/receipts"),
    ]);
    let given = environment
        .iter()
        .filter_map(|(variable, value)| Some((variable.as_str(), *values.get(value.as_str())?)));
    let lambda =
        [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "none"), ("AWS_SECRET_ACCESS_KEY", "none")];
    Ok(given.chain(lambda).map(|(variable, value)| (variable.to_owned(), value.to_owned())).collect())
}

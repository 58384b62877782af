//! `streamer package`: builds the zips for Lambda.

use std::{
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
        start,
    },
    paths,
    screen::{Screen, elapsed},
    spec::{Function, Spec},
    stack::{
        build,
        issuer::{ISSUER, Issuer},
    },
};

/// Build the deployment packages
///
/// Builds the zip of each function for Terraform, and starts each once. The zips of a commit are byte-identical on
/// every machine with the same compiler. The command rejects binaries that would not run on Amazon Linux 2023 or that
/// hold a path of this machine. On Linux, the installed compiler builds for this machine's architecture; otherwise
/// cargo-lambda builds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer package                       for Graviton, the default of infra/
  streamer package --arch x86_64
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
    /// Write the zips to this folder [default: target/lambda]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
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
    /// When there is no workspace, a tool is missing, or a package would not run.
    pub async fn run(self) -> anyhow::Result<()> {
        paths::require_workspace()?;
        let (screen, spec) = (Screen::new(), Spec::read()?);
        let output = self.output.clone().unwrap_or_else(|| paths::workspace().join("target/lambda"));
        fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;
        let packages: Vec<_> = spec.functions.values().map(|function| function.package.as_str()).collect();
        let (binaries, took) = screen.step("build", "compiling", self.compile(&packages)).await?;
        let kind = if self.quick { "debug" } else { "release" };
        screen.line(format!(
            " {:<11} {:<40} {}",
            "build",
            format!("{} functions for {}, {kind}", packages.len(), self.arch),
            elapsed(took)
        ));
        for (function, binary) in spec.functions.values().zip(binaries) {
            self.package(function, &binary, &output, screen).await?;
        }
        Ok(())
    }

    /// Builds and starts a function's zip, and then writes it: Terraform must not find a zip that does not start.
    async fn package(
        &self,
        function: &Function,
        binary: &Binary,
        output: &Path,
        screen: Screen,
    ) -> anyhow::Result<()> {
        let name = &function.package;
        let bytes =
            fs::read(&binary.path).with_context(|| format!("cannot read {}", binary.path.display()))?;
        let zip = archive(&bytes, if self.quick { Compression::Fast } else { Compression::Best })?;
        let start = self.start(function, &zip).await?;
        let path = output.join(format!("{name}-{}.zip", self.arch));
        fs::write(&path, &zip).with_context(|| format!("cannot write {}", path.display()))?;
        let sha256 = BASE64_STANDARD.encode(digest(&SHA256, &zip));
        let size = zip.len() as f64 / f64::from(1 << 20);
        screen.line(format!(
            " {}\n   {size:.2} MiB, {}, {start}, CodeSha256 {sha256}",
            path.display(),
            binary.requirements
        ));
        Ok(())
    }

    /// Starts a function's zip once, and describes the result.
    async fn start(&self, function: &Function, zip: &[u8]) -> anyhow::Result<String> {
        let runner = if self.quick { Some(Vec::new()) } else { start::runner(self.arch) };
        let Some(runner) = runner else {
            return Ok(format!("not started (no qemu-user with a C library for {})", self.arch));
        };
        let name = &function.package;
        let folder = paths::workspace().join("target/package/start").join(name);
        let variables = variables(&function.environment)?;
        let started = start::start(zip, &folder, &runner, &variables).await;
        let started = started.with_context(|| format!("the package of {name} does not start"))?;
        Ok(format!("starts in {} ms", started.took.as_millis()))
    }

    /// Builds the binaries of `packages`, and returns them in the same order.
    async fn compile(&self, packages: &[&str]) -> anyhow::Result<Vec<Binary>> {
        if self.quick {
            anyhow::ensure!(
                self.arch == Architecture::HERE,
                "`--quick` packages for this machine's architecture only: use `--arch {}`",
                Architecture::HERE
            );
            let built = build::build().await?;
            let debug = |name: &&str| {
                Ok(Binary { path: built.path(name)?.to_owned(), requirements: "for this machine".to_owned() })
            };
            return packages.iter().map(debug).collect();
        }
        let built = Release::prepare(self.arch, self.zig).await?.compile(packages).await?;
        let binaries = built.into_iter().map(|binary| Binary {
            path: binary.path,
            requirements: binary
                .glibc
                .map_or_else(|| "static".to_owned(), |version| format!("needs {version}")),
        });
        Ok(binaries.collect())
    }
}

/// Returns the environment variables with which a function starts: plausible values, and invalid credentials.
fn variables(environment: &BTreeMap<String, String>) -> anyhow::Result<BTreeMap<String, String>> {
    let issuer = Issuer::generate()?;
    let values = BTreeMap::from([
        ("dead_letter_queue_url", "https://sqs.us-east-1.amazonaws.com/000000000000/dead-letters"),
        ("jwt_issuer", ISSUER),
        ("jwt_public_key", issuer.public_key.as_str()),
        ("management_endpoint", "https://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com/production"),
        ("queue_url", "https://sqs.us-east-1.amazonaws.com/000000000000/outbound"),
    ]);
    let given = environment
        .iter()
        .filter_map(|(variable, value)| Some((variable.as_str(), *values.get(value.as_str())?)));
    let lambda =
        [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "none"), ("AWS_SECRET_ACCESS_KEY", "none")];
    Ok(given.chain(lambda).map(|(variable, value)| (variable.to_owned(), value.to_owned())).collect())
}

//! `streamer package`: zips for Lambda.

use std::{collections::BTreeMap, fs, path::PathBuf};

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
    screen::{Screen, human},
    stack::{
        build,
        facts::Facts,
        issuer::{ISSUER, Issuer},
        places,
    },
};

/// Makes the zips that Terraform deploys, one for each function, and starts each once.
///
/// They are the same, byte for byte, wherever the same commit is packaged with the same compiler. What would not run
/// on Amazon Linux 2023, or holds a path of this machine, is refused. For this machine's own architecture, its own
/// compiler makes them (on Linux), for the other one cargo-lambda.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer package                       for Graviton, what infra/ deploys by default
  streamer package --arch x86_64
  streamer package --arch x86_64 --quick --output /tmp/lambda")]
pub struct Package {
    /// The functions' architecture.
    #[arg(long, value_name = "ARCHITECTURE", default_value = "arm64")]
    arch: Architecture,
    /// Links with cargo-lambda and zig also what this machine's own compiler could make: against Amazon Linux
    /// 2023's glibc, where this machine's is newer.
    #[arg(long)]
    zig: bool,
    /// Packages the debug build instead, in seconds: for an emulator on this machine, not for AWS.
    #[arg(long, conflicts_with = "zig")]
    quick: bool,
    /// The folder to write to; `target/lambda` by default.
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// A function's binary.
struct Binary {
    path: PathBuf,
    /// What it needs of the system, for people.
    needs: String,
}

impl Package {
    /// Runs the command.
    ///
    /// # Errors
    /// When something is not installed, or a package would not run.
    pub async fn run(self) -> anyhow::Result<()> {
        let (screen, facts) = (Screen::new(), Facts::read()?);
        let output = self.output.clone().unwrap_or_else(|| places::workspace().join("target/lambda"));
        fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
        let packages: Vec<_> = facts.functions.values().map(|function| function.package.as_str()).collect();
        let (binaries, took) = screen.step("build", "compiling", self.compile(&packages)).await?;
        let kind = if self.quick { "debug" } else { "release" };
        screen.line(format!(
            " {:<11} {:<40} {}",
            "build",
            format!("{} Lambdas for {}, {kind}", packages.len(), self.arch),
            human(took)
        ));
        let runner = if self.quick { Some(Vec::new()) } else { start::runner(self.arch) };
        for (function, binary) in facts.functions.values().zip(binaries) {
            let name = &function.package;
            let bytes =
                fs::read(&binary.path).with_context(|| format!("cannot read {}", binary.path.display()))?;
            let zip = archive(&bytes, if self.quick { Compression::Fast } else { Compression::Best })?;
            let started = match &runner {
                None => format!("not started: here is no qemu-user with a C library for {}", self.arch),
                Some(runner) => {
                    let folder = places::workspace().join("target/package/start").join(name);
                    let variables = variables(&function.environment)?;
                    let started = start::start(&zip, &folder, runner, &variables).await;
                    let started = started.with_context(|| format!("the package of {name} does not start"))?;
                    format!("starts in {} ms", started.took.as_millis())
                }
            };
            // What does not start is not left for Terraform to find.
            let path = output.join(format!("{name}-{}.zip", self.arch));
            fs::write(&path, &zip).with_context(|| format!("cannot write {}", path.display()))?;
            let sha256 = BASE64_STANDARD.encode(digest(&SHA256, &zip));
            let size = zip.len() as f64 / f64::from(1 << 20);
            screen.line(format!(
                " {}\n   {size:.2} MiB, {}, {started}, CodeSha256 {sha256}",
                path.display(),
                binary.needs
            ));
        }
        Ok(())
    }

    /// The binaries of `packages`, in the same order.
    async fn compile(&self, packages: &[&str]) -> anyhow::Result<Vec<Binary>> {
        if self.quick {
            anyhow::ensure!(
                self.arch == Architecture::HERE,
                "`--quick` packages what runs on this machine: say `--arch {}`",
                Architecture::HERE
            );
            let built = build::build().await?;
            let debug = |name: &&str| {
                Ok(Binary { path: built.path(name)?.to_owned(), needs: "for this machine".to_owned() })
            };
            return packages.iter().map(debug).collect();
        }
        let built = Release::prepare(self.arch, self.zig).await?.compile(packages).await?;
        let binaries = built.into_iter().map(|binary| Binary {
            path: binary.path,
            needs: binary.glibc.map_or_else(|| "static".to_owned(), |version| format!("needs {version}")),
        });
        Ok(binaries.collect())
    }
}

/// What a function needs to start: values that could be a deployment's, and credentials of nobody.
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

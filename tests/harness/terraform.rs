//! Terraform, run on a copy of `infra/`.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use streamer_cli::paths;
use tokio::process::Command;

/// Names a folder of providers, laid out as `terraform providers mirror` does; without it, they come from the registry.
pub const PLUGINS: &str = "STREAMER_TERRAFORM_PLUGINS";

/// A copy of `infra/`, and one module in it to work on. It is removed when this is dropped.
#[derive(Debug)]
pub struct Terraform {
    folder: PathBuf,
    module: PathBuf,
    variables: BTreeMap<&'static str, String>,
}

impl Terraform {
    /// Copies `infra/` into a folder called `name`, and initialises its `module` (`.` for the root module). `None`
    /// where there is no Terraform, or neither the folder that [`PLUGINS`] names nor the registry has the providers:
    /// then it says so.
    ///
    /// # Errors
    /// When it cannot be copied; where there is no Terraform, under `CI=true`.
    pub async fn initialise(
        name: &str,
        module: &str,
        variables: BTreeMap<&'static str, String>,
    ) -> anyhow::Result<Option<Self>> {
        let folder = paths::shared(format!("tests/terraform-{name}-{}", std::process::id()));
        copy(&paths::workspace().join("infra"), &folder)?;
        let terraform = Self { module: folder.join(module), folder, variables };
        let plugins = env::var_os(PLUGINS).map(|plugins| {
            let mut argument = std::ffi::OsString::from("-plugin-dir=");
            argument.push(plugins);
            argument
        });
        let arguments = ["init", "-input=false", "-backend=false"].map(OsStr::new);
        let Err(error) = terraform.run(arguments.into_iter().chain(plugins.as_deref())).await else {
            return Ok(Some(terraform));
        };
        let said = format!(
            "this needs Terraform and the AWS provider: install Terraform, and name a mirror of the provider in {PLUGINS} \
             where the registry cannot be reached: {error:#}"
        );
        ensure!(env::var_os("CI").is_none(), said);
        println!("left out: {said}");
        Ok(None)
    }

    /// Runs a command to its end, and returns what it printed.
    ///
    /// # Errors
    /// What it complained of.
    pub async fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a OsStr>) -> anyhow::Result<String> {
        let mut command = Command::new("terraform");
        command
            .current_dir(&self.module)
            .args(arguments)
            .env("TF_IN_AUTOMATION", "1")
            // It would ask its maker for a newer version.
            .env("CHECKPOINT_DISABLE", "1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env_remove("AWS_ENDPOINT_URL")
            .env_remove("AWS_PROFILE");
        // A configuration that is named but not there is only warned of, in every output.
        if env::var_os("TF_CLI_CONFIG_FILE").is_some_and(|file| !Path::new(&file).exists()) {
            command.env_remove("TF_CLI_CONFIG_FILE");
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let Output { status, stdout, stderr } = command.output().await.context("terraform cannot be run")?;
        let said = String::from_utf8_lossy(&stdout).into_owned();
        if !status.success() {
            bail!("{said}{}", String::from_utf8_lossy(&stderr));
        }
        Ok(said)
    }

    /// The same, with the variables and without colours.
    ///
    /// # Errors
    /// What it complained of.
    pub async fn run_with_variables<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<String> {
        let variables = self.variables.iter().map(|(name, value)| format!("-var={name}={value}"));
        let arguments =
            arguments.into_iter().map(str::to_owned).chain(["-no-color".to_owned()]).chain(variables);
        let arguments: Vec<_> = arguments.collect();
        self.run(arguments.iter().map(OsStr::new)).await
    }

    /// Makes what the module says.
    ///
    /// # Errors
    /// What could not be made.
    pub async fn apply(&self) -> anyhow::Result<String> {
        self.run_with_variables(["apply", "-auto-approve", "-input=false", "-parallelism=30"]).await
    }

    /// Removes all that it made.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn destroy(&self) -> anyhow::Result<String> {
        self.run_with_variables(["destroy", "-auto-approve", "-input=false", "-parallelism=30"]).await
    }

    /// One of the module's outputs.
    ///
    /// # Errors
    /// When nothing is applied.
    pub async fn output(&self, name: &str) -> anyhow::Result<Value> {
        let said = self.run(["output", "-json", name].map(OsStr::new)).await?;
        Ok(serde_json::from_str(&said)?)
    }
}

impl Drop for Terraform {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder);
    }
}

/// Copies a folder, but not what Terraform keeps in it.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, to) = (entry.file_name(), to.join(entry.file_name()));
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() && name != ".terraform" {
            copy(&entry.path(), &to)?;
        } else if [".tf", ".hcl", ".json"].iter().any(|end| name.ends_with(end))
            && name != ".terraform.lock.hcl"
        {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

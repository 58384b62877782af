//! Terraform, run on a copy of `infra/`.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use streamer_cli::paths;
use tokio::process::Command;

use crate::skip;

/// Environment variable that names a provider mirror, as `terraform providers mirror` creates it. Without it, providers
/// come from the registry.
pub const PLUGINS: &str = "STREAMER_TERRAFORM_PLUGINS";

/// A copy of `infra/`, and the module in it to run. The copy is removed when this is dropped.
#[derive(Debug)]
pub struct Terraform {
    folder: PathBuf,
    module: PathBuf,
    variables: BTreeMap<&'static str, String>,
}

impl Terraform {
    /// Copies `infra/` into a folder named after `name`, and initialises `module` (`.` for the root module). Returns
    /// `None` and prints the reason when Terraform or its providers are missing; with `CI` set that is an error.
    ///
    /// # Errors
    /// When `infra/` cannot be copied, or with `CI` set, Terraform or its providers are missing.
    pub async fn initialise(
        name: &str,
        module: &str,
        variables: BTreeMap<&'static str, String>,
    ) -> anyhow::Result<Option<Self>> {
        Self::initialise_with(name, module, variables, None).await
    }

    /// Like [`initialise`](Self::initialise), with a file that is added to the module: its name and its text.
    ///
    /// # Errors
    /// When `infra/` cannot be copied, or with `CI` set, Terraform or its providers are missing.
    pub async fn initialise_with(
        name: &str,
        module: &str,
        variables: BTreeMap<&'static str, String>,
        file: Option<(&str, &str)>,
    ) -> anyhow::Result<Option<Self>> {
        let folder = paths::shared(format!("tests/terraform-{name}-{}", std::process::id()));
        copy(&paths::workspace().join("infra"), &folder)?;
        if let Some((name, text)) = file {
            fs::create_dir_all(folder.join(module))?;
            fs::write(folder.join(module).join(name), text)?;
        }
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
        skip(anyhow!(
            "this needs Terraform and the AWS provider: install Terraform, and set {PLUGINS} to a provider mirror if the \
             registry cannot be reached: {error:#}"
        ))?;
        Ok(None)
    }

    /// Runs a command until it ends, and returns its standard output.
    ///
    /// # Errors
    /// When the command fails. The error holds its output.
    pub async fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a OsStr>) -> anyhow::Result<String> {
        let mut command = Command::new("terraform");
        command
            .current_dir(&self.module)
            .args(arguments)
            .env("TF_IN_AUTOMATION", "1")
            // Turns off the check for new versions, which needs the network.
            .env("CHECKPOINT_DISABLE", "1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env_remove("AWS_ENDPOINT_URL")
            .env_remove("AWS_PROFILE");
        // Terraform prints a warning in every output if the file is missing.
        if env::var_os("TF_CLI_CONFIG_FILE").is_some_and(|file| !Path::new(&file).exists()) {
            command.env_remove("TF_CLI_CONFIG_FILE");
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let Output { status, stdout, stderr } = command.output().await.context("cannot run terraform")?;
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        if !status.success() {
            bail!("{stdout}{}", String::from_utf8_lossy(&stderr));
        }
        Ok(stdout)
    }

    /// Like [`run`](Self::run), with the variables and without colours.
    ///
    /// # Errors
    /// When the command fails. The error holds its output.
    pub async fn run_with_variables<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<String> {
        let variables = self.variables.iter().map(|(name, value)| format!("-var={name}={value}"));
        let arguments =
            arguments.into_iter().map(str::to_owned).chain(["-no-color".to_owned()]).chain(variables);
        let arguments: Vec<_> = arguments.collect();
        self.run(arguments.iter().map(OsStr::new)).await
    }

    /// Writes a file into the module's folder, such as an override file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.module.join(name), text)?)
    }

    /// Creates the module's resources.
    ///
    /// # Errors
    /// When a resource cannot be created.
    pub async fn apply(&self) -> anyhow::Result<String> {
        self.run_with_variables(["apply", "-auto-approve", "-input=false", "-parallelism=30"]).await
    }

    /// Destroys the module's resources.
    ///
    /// # Errors
    /// When a resource cannot be destroyed.
    pub async fn destroy(&self) -> anyhow::Result<String> {
        self.run_with_variables(["destroy", "-auto-approve", "-input=false", "-parallelism=30"]).await
    }

    /// Returns one of the module's outputs.
    ///
    /// # Errors
    /// When the module is not applied.
    pub async fn output(&self, name: &str) -> anyhow::Result<Value> {
        let output = self.run(["output", "-json", name].map(OsStr::new)).await?;
        Ok(serde_json::from_str(&output)?)
    }
}

impl Drop for Terraform {
    /// Cleans up after a failed test, too.
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder);
    }
}

/// Copies a folder without Terraform's own files.
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

//! The deployment to examine.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use aws_config::SdkConfig;
use aws_sdk_lambda::operation::get_function_configuration::GetFunctionConfigurationOutput;
use streamer_environment::failure::FailureKind;

use crate::{aws::Call, spec::Spec};

/// A deployment, as its functions' configurations describe it.
#[derive(Debug)]
pub struct Subject {
    /// The deployment's name.
    pub name: String,
    /// Whether it is the stack on this machine.
    pub is_local: bool,
    /// Region and credentials.
    pub config: SdkConfig,
    /// The resources of the Terraform module.
    pub spec: Spec,
    /// The functions that exist, by short name.
    pub functions: BTreeMap<String, Function>,
    /// The short names of functions whose configurations your credentials do not permit to read.
    pub unreadable: BTreeSet<String>,
}

/// A function of the deployment.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its configuration.
    pub configuration: GetFunctionConfigurationOutput,
}

impl Subject {
    /// Reads the configurations of the functions with these names by short name.
    ///
    /// # Errors
    /// When there is no worker, its configuration cannot be read, or Lambda does not answer.
    pub async fn read(
        name: String,
        is_local: bool,
        config: SdkConfig,
        names: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let spec = Spec::read()?;
        let lambda = aws_sdk_lambda::Client::new(&config);
        let (mut functions, mut unreadable) = (BTreeMap::new(), BTreeSet::new());
        for (short, function) in names.iter().filter(|(short, _)| spec.functions.contains_key(*short)) {
            let got = lambda.get_function_configuration().function_name(function).send().await;
            match got {
                Ok(configuration) => {
                    functions.insert(short.clone(), Function { name: function.clone(), configuration });
                }
                // A deployment beside an API that existed before may lack other functions.
                Err(error)
                    if *short != spec.mapping.function
                        && FailureKind::of(&error) == FailureKind::NotFound => {}
                Err(error)
                    if *short != spec.mapping.function && FailureKind::of(&error) == FailureKind::Denied =>
                {
                    unreadable.insert(short.clone());
                }
                Err(error) if FailureKind::of(&error) == FailureKind::NotFound => {
                    anyhow::bail!("there is no function {function}: check --name and the Region")
                }
                Err(error) => {
                    let resource = format!("function {function}");
                    return Err(Call { action: "lambda:GetFunctionConfiguration", resource: &resource }
                        .failed(&error));
                }
            }
        }
        let subject = Self { name, is_local, config, spec, functions, unreadable };
        subject.functions.get(&subject.spec.mapping.function).context("the deployment has no worker")?;
        Ok(subject)
    }

    /// Returns the worker.
    #[must_use]
    pub fn worker(&self) -> &Function {
        &self.functions[&self.spec.mapping.function]
    }

    /// Returns the value of one of the worker's environment variables, unless it is absent or empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.worker().variable(name)
    }
}

impl Function {
    /// Returns the value of an environment variable, unless it is absent or empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        let variables = self.configuration.environment()?.variables()?;
        variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

//! A stack with the module's settings, which one test at a time may break.

use std::{collections::HashMap, sync::OnceLock, thread};

use anyhow::{Context as _, anyhow};
use aws_sdk_lambda::types::{Environment, EventSourceMappingConfiguration, LastUpdateStatus};
use aws_sdk_sqs::types::QueueAttributeName;
use streamer_cli::{
    doctor::{Check, Subject, Verdict, settings},
    stack::{Stack, deploy::Overrides},
};
use streamer_message::sqs::is_arn_of;
use streamer_tests::eventually;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Mutex, MutexGuard},
};

use super::permissions::{Needed, without};

/// The stack, while no other test uses it.
pub(super) struct Deployment {
    pub(super) stack: Stack,
    _lock: MutexGuard<'static, ()>,
}

impl Deployment {
    /// Starts the stack once, and waits until no other test uses it.
    pub(super) async fn lock() -> anyhow::Result<Self> {
        static LOCK: Mutex<()> = Mutex::const_new(());
        static STACK: OnceLock<anyhow::Result<(Runtime, Stack)>> = OnceLock::new();
        let lock = LOCK.lock().await;
        let started = STACK.get_or_init(|| {
            let start = thread::spawn(|| {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let stack = runtime.block_on(Stack::start("doctor-settings", &Overrides::default()))?;
                Ok((runtime, stack))
            });
            start.join().map_err(|_| anyhow!("the stack's start panicked"))?
        });
        let (_, stack) = started.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        let deployment = Self { stack: stack.share().await, _lock: lock };
        for function in deployment.stack.deployed.functions.values() {
            deployment.await_update(function).await?;
        }
        Ok(deployment)
    }

    /// Runs the checks of the settings.
    pub(super) async fn examine(&self) -> anyhow::Result<Vec<Check>> {
        self.examine_as(true).await
    }

    /// Runs the checks of the settings, with those that the stack on this machine does not have.
    pub(super) async fn examine_as_on_aws(&self) -> anyhow::Result<Vec<Check>> {
        self.examine_as(false).await
    }

    /// Runs the checks of the settings as on AWS, without the permission for an action.
    pub(super) async fn examine_without(
        &self,
        denied: Option<&'static str>,
        needed: &Needed,
    ) -> anyhow::Result<Vec<Check>> {
        let mut subject = self.subject(false).await?;
        subject.config = without(&subject.config, denied, needed);
        Ok(checks(&subject).await)
    }

    async fn examine_as(&self, is_local: bool) -> anyhow::Result<Vec<Check>> {
        Ok(checks(&self.subject(is_local).await?).await)
    }

    async fn subject(&self, is_local: bool) -> anyhow::Result<Subject> {
        let (config, functions) = (self.stack.config.clone(), &self.stack.deployed.functions);
        Subject::read("streamer".to_owned(), is_local, config, functions).await
    }

    /// Asserts that one check alone found a fault, and that it finds none in the deployment as it is now.
    pub(super) async fn assert_finding(
        &self,
        checks: &[Check],
        name: &str,
        verdict: Verdict,
        seen: &str,
        remedy: &str,
    ) -> anyhow::Result<()> {
        let check = found(checks, name);
        assert_eq!(check.verdict, verdict, "{check:?}");
        assert!(check.seen.contains(seen), "{check:?}");
        assert!(check.remedy.as_ref().is_some_and(|text| text.contains(remedy)), "{check:?}");
        let others = checks.iter().filter(|check| check.remedy.is_some() && check.name != name);
        let others: Vec<_> = others.collect();
        assert!(others.is_empty(), "{others:#?}");
        let restored = self.examine().await?;
        assert_eq!(found(&restored, name).verdict, Verdict::Ok, "{restored:#?}");
        Ok(())
    }

    pub(super) async fn attribute(&self, url: &str, name: QueueAttributeName) -> anyhow::Result<String> {
        let sqs = aws_sdk_sqs::Client::new(&self.stack.config);
        let get = sqs.get_queue_attributes().queue_url(url).attribute_names(name.clone()).send().await?;
        get.attributes.and_then(|mut all| all.remove(&name)).context("the queue lacks the attribute")
    }

    pub(super) async fn set_attribute(
        &self,
        url: &str,
        name: QueueAttributeName,
        value: &str,
    ) -> anyhow::Result<()> {
        let sqs = aws_sdk_sqs::Client::new(&self.stack.config);
        sqs.set_queue_attributes().queue_url(url).attributes(name, value).send().await?;
        Ok(())
    }

    /// Returns the id of the event source mapping from a queue to the worker.
    pub(super) async fn mapping(&self, queue_url: &str) -> anyhow::Result<String> {
        let lambda = aws_sdk_lambda::Client::new(&self.stack.config);
        let worker = &self.stack.deployed.functions["delivery"];
        let listed = lambda.list_event_source_mappings().function_name(worker).send().await?;
        let of_queue = |mapping: &EventSourceMappingConfiguration| {
            mapping.event_source_arn().is_some_and(|arn| is_arn_of(arn, queue_url))
        };
        let mapping = listed.event_source_mappings.unwrap_or_default().into_iter().find(of_queue);
        mapping.and_then(|mapping| mapping.uuid).context("the worker has no mapping from the queue")
    }

    pub(super) async fn variables(&self, function: &str) -> anyhow::Result<HashMap<String, String>> {
        let lambda = aws_sdk_lambda::Client::new(&self.stack.config);
        let got = lambda.get_function_configuration().function_name(function).send().await?;
        got.environment.and_then(|environment| environment.variables).context("no variables")
    }

    pub(super) async fn set_variables(
        &self,
        function: &str,
        variables: HashMap<String, String>,
    ) -> anyhow::Result<()> {
        let lambda = aws_sdk_lambda::Client::new(&self.stack.config);
        let environment = Environment::builder().set_variables(Some(variables)).build();
        let update = lambda.update_function_configuration().function_name(function);
        update.environment(environment).send().await?;
        self.await_update(function).await
    }

    async fn await_update(&self, function: &str) -> anyhow::Result<()> {
        let lambda = aws_sdk_lambda::Client::new(&self.stack.config);
        eventually("the function is updated", async || {
            let got = lambda.get_function_configuration().function_name(function).send().await?;
            Ok(got.last_update_status == Some(LastUpdateStatus::Successful))
        })
        .await
    }
}

async fn checks(subject: &Subject) -> Vec<Check> {
    let mut checks = Vec::new();
    settings::examine(subject, &mut |check| checks.push(check)).await;
    checks
}

/// Returns the check with a name.
pub(super) fn found<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    let check = checks.iter().find(|check| check.name == name);
    check.unwrap_or_else(|| panic!("no check {name}: {checks:#?}"))
}

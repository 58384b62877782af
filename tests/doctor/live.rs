//! Connections, delivery and answers.

mod absent;
mod healthy;
mod odd;
mod others;
mod privileges;
mod wrong;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration, time::SystemTime};

use anyhow::Context as _;
use serde_json::Value;
use streamer_cli::{
    doctor::live::DEFAULT_USER,
    queue::MessageCounts,
    stack::{
        Stack,
        build::build,
        deploy::{Delivery, Overrides, deploy_delivery},
    },
};
use streamer_mailbox::Stream;
use streamer_message::{TenantId, UserId};
use streamer_tests::{
    command::{Output, Streamer, output},
    emulator::{rows, stack},
    eventually,
};
use tokio::process::Child;

const TOKEN_LIFETIME: Duration = Duration::from_secs(600);

/// A deployment to examine, and the command.
struct Patient {
    stack: Stack,
    streamer: Streamer,
    /// Prefix of the functions' names.
    name: String,
    /// URL that the command's client connects to.
    url: String,
    tenant: String,
    user: String,
    token: String,
    /// Endpoint of AWS that the command uses.
    aws: String,
    /// URLs of its queues.
    queues: Vec<String>,
}

/// The checks of a report, and the command's output.
struct Report {
    output: Output,
    checks: BTreeMap<String, Value>,
}

impl Patient {
    /// The stack that all tests share.
    async fn whole(tenant: &str) -> anyhow::Result<Self> {
        let stack = stack().await?;
        let deployed = &stack.deployed;
        let queues = [&deployed.queue_url, &deployed.dead_letter_queue_url, &deployed.receipts_queue_url];
        let queues = queues.into_iter().chain([&deployed.parts_queue_url]).cloned().collect();
        let name = deployed.functions["delivery"].trim_end_matches("-delivery").to_owned();
        Self::new(stack, name, tenant, queues).await
    }

    /// Queues of its own and a worker of its own, which posts to `endpoint` and has these variables.
    async fn with_worker(
        name: &str,
        endpoint: Option<&str>,
        variables: &[(&'static str, &str)],
    ) -> anyhow::Result<Self> {
        let stack = stack().await?;
        let here = stack.deployed.management_endpoint.clone();
        let alias = if endpoint.is_some_and(|url| url.ends_with("/local")) { here.as_str() } else { "" };
        let own =
            [("CONNECT_GRACE_SECONDS", "0"), ("MAILBOX_TABLE", ""), ("WEBSOCKET_ENDPOINT_ALIASES", alias)];
        let variables = own.iter().chain(variables).map(|(name, value)| (*name, (*value).to_owned()));
        let overrides = Overrides {
            visibility_timeout: Some(Duration::from_secs(10)),
            environment: BTreeMap::from([("delivery", variables.collect())]),
            ..Overrides::default()
        };
        let endpoint = endpoint.unwrap_or(&here);
        let (config, binaries) = (&stack.config, build().await?);
        let delivery = deploy_delivery(config, &format!("-{name}"), &overrides, &binaries, endpoint).await?;
        let Delivery { queue_url, parts_queue_url, dead_letter_queue_url, receipts_queue_url, function } =
            delivery;
        let prefix = function.trim_end_matches("-delivery").to_owned();
        let queues = vec![queue_url, dead_letter_queue_url, receipts_queue_url, parts_queue_url];
        Self::new(stack, prefix, name, queues).await
    }

    async fn new(stack: Stack, name: String, tenant: &str, queues: Vec<String>) -> anyhow::Result<Self> {
        let token = stack.issuer.token(tenant, DEFAULT_USER, TOKEN_LIFETIME)?;
        let (streamer, url) = (Streamer::new(tenant).await?, stack.deployed.websocket_url.clone());
        let (tenant, user, aws) =
            (tenant.to_owned(), DEFAULT_USER.to_owned(), stack.deployed.endpoint_url.clone());
        Ok(Self { stack, streamer, name, url, tenant, user, token, aws, queues })
    }

    /// Examines as another user than the command's own.
    fn for_user(mut self, user: &str) -> anyhow::Result<Self> {
        self.token = self.stack.issuer.token(&self.tenant, user, TOKEN_LIFETIME)?;
        self.user = user.to_owned();
        Ok(self)
    }

    fn stream(&self) -> anyhow::Result<Stream> {
        Ok(Stream { tenant: TenantId::new(&self.tenant)?, user: UserId::new(&self.user)? })
    }

    fn token_file(&self) -> anyhow::Result<PathBuf> {
        let file = self.streamer.folder().with_extension("token");
        fs::write(&file, &self.token)?;
        Ok(file)
    }

    /// Starts the command, and returns while it runs.
    fn spawn(&self, options: &[&str]) -> anyhow::Result<Child> {
        let file = self.token_file()?;
        let file = file.to_str().context("the path is not UTF-8")?;
        let command = ["doctor", "--aws", "--name", &self.name, "--url", &self.url, "--token-file", file];
        let client = ["--tenant", &self.tenant, "--user", &self.user];
        let arguments = command.into_iter().chain(client).chain(options.iter().copied());
        self.streamer.spawn_at(&self.aws, arguments)
    }

    /// Runs the command, and returns its report.
    async fn examine(&self) -> anyhow::Result<Report> {
        self.report(self.spawn(&["--json"])?).await
    }

    /// Runs the command with these options alone, and returns its report.
    async fn examine_with(&self, options: &[&str]) -> anyhow::Result<Report> {
        let arguments = ["doctor", "--aws", "--json", "--name", &self.name].into_iter();
        let arguments = arguments.chain(options.iter().copied());
        self.report(self.streamer.spawn_at(&self.stack.deployed.endpoint_url, arguments)?).await
    }

    async fn report(&self, command: Child) -> anyhow::Result<Report> {
        let output = output(command).await?;
        let report: Value = serde_json::from_str(&output.out).with_context(|| format!("{output:?}"))?;
        assert_eq!(output.out.lines().count(), 1, "{output:?}");
        assert!(!format!("{output:?}").contains(&self.token), "the output has the token");
        let checks = report["checks"].as_array().context("no checks")?;
        let checks =
            checks.iter().map(|check| (check["name"].as_str().unwrap_or_default().to_owned(), check.clone()));
        Ok(Report { checks: checks.collect(), output })
    }

    /// Asserts that nothing of the command is left: no row, no message, no kept message.
    async fn assert_nothing_left(&self) -> anyhow::Result<()> {
        let sqs = aws_sdk_sqs::Client::new(&self.stack.config);
        for queue in &self.queues {
            let condition = format!("{queue} is empty");
            let empty =
                eventually(&condition, async || Ok(MessageCounts::read(&sqs, queue).await?.total() == 0));
            if let Err(error) = empty.await {
                let left = sqs.receive_message().queue_url(queue).max_number_of_messages(10).send().await?;
                let left = left.messages().iter().filter_map(|message| message.body());
                let left: Vec<_> = left.map(|body| body.chars().take(300).collect::<String>()).collect();
                anyhow::bail!("{error}: {left:?}");
            }
        }
        let left = rows(&self.stack, &self.tenant, &self.user).await?;
        assert!(left.is_empty(), "rows: {left:?}");
        let kept = self.stack.mailbox().list(&self.stream()?, SystemTime::now()).await?;
        assert!(kept.is_none(), "{kept:?}");
        Ok(())
    }
}

impl Report {
    fn verdict(&self, name: &str) -> &str {
        self.text(name, "verdict")
    }

    fn text(&self, name: &str, field: &str) -> &str {
        let check = self.checks.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.output));
        check[field].as_str().unwrap_or_default()
    }

    fn values(&self, name: &str) -> &Value {
        &self.checks[name]["values"]
    }

    /// Asserts that a check has a verdict other than ok, and that its remedy names something.
    fn assert_named(&self, name: &str, verdict: &str, remedy: &str) {
        let check = &self.checks.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.output));
        assert_eq!(check["verdict"], verdict, "{check}");
        let is_named = check["remedy"].as_str().is_some_and(|text| text.contains(remedy));
        assert!(is_named, "{remedy} is not in {check}");
        let is_failed = self.checks.values().any(|check| check["verdict"] == "failed");
        assert_eq!(self.output.code, Some(if is_failed { 4 } else { 0 }), "{:?}", self.output);
    }
}

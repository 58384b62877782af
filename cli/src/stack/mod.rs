//! The whole stack on this machine: an emulator of AWS, our real Lambda binaries deployed to it, and a router.
//!
//! - [`emulator`]: installs and runs MiniStack. [`build`]: builds the Lambdas. [`mod@deploy`]: deploys
//!   [`facts`], which Terraform reads too.
//! - [`Stack`]: a running one. It ends, with every process that it started, when it is dropped and when the
//!   process ends in any way.
//! - [`issuer`] and [`socket`]: what a client needs, a token and a WebSocket.

pub mod build;
pub mod deploy;
pub mod emulator;
pub mod facts;
pub mod issuer;
pub mod logs;
pub mod places;
mod processes;
pub mod socket;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use aws_config::SdkConfig;
use streamer_connections::ConnectionTable;
use streamer_producer::Producer;

use self::{
    build::Binaries,
    deploy::{Deployed, Overrides, deploy, local_config},
    emulator::{Emulator, Installed},
    facts::Facts,
    issuer::Issuer,
    processes::Processes,
    socket::{NotConnected, Socket},
};

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    emulator: Option<Emulator>,
    /// What is deployed, and where it is.
    pub deployed: Deployed,
    /// Who signs the tokens that it accepts.
    pub issuer: Issuer,
    /// The configuration of clients of its services.
    pub config: SdkConfig,
}

/// An emulator of AWS that is ready to be deployed to.
#[derive(Debug)]
pub struct Endpoint {
    emulator: Option<Emulator>,
    url: String,
}

impl Endpoint {
    /// Uses the endpoint that `AWS_ENDPOINT_URL` names, if any: LocalStack, or another emulator that is up.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        let url = std::env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty())?;
        Some(Self { emulator: None, url: url.trim_end_matches('/').to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts an emulator, on `port` or on a free one. What it says goes to `log`.
    ///
    /// # Errors
    /// When `port` is taken, or the emulator does not start.
    pub async fn start(
        installed: &Installed,
        port: Option<u16>,
        log: &std::path::Path,
    ) -> anyhow::Result<Self> {
        let emulator = installed.start(port, log).await?;
        let url = format!("http://{}", emulator.address);
        Ok(Self { emulator: Some(emulator), url })
    }

    /// Deploys the whole stack to it.
    ///
    /// # Errors
    /// Says what could not be made.
    pub async fn deploy(self, binaries: &Binaries, overrides: &Overrides) -> anyhow::Result<Stack> {
        let (config, issuer) = (local_config(&self.url).await, Issuer::generate()?);
        let mut facts = Facts::read()?;
        if self.emulator.is_none() {
            facts.rename(&format!("-{}", std::process::id()));
        }
        let deployed = deploy(&config, &facts, overrides, binaries, &issuer).await?;
        Ok(Stack { emulator: self.emulator, deployed, issuer, config })
    }
}

impl Stack {
    /// Installs, builds, starts and deploys: everything that a test needs.
    ///
    /// # Errors
    /// Says what is missing, or what could not be made.
    pub async fn start(name: &str, overrides: &Overrides) -> anyhow::Result<Self> {
        let endpoint = match Endpoint::of_environment() {
            Some(endpoint) => endpoint,
            None => Endpoint::start(&emulator::install().await?, None, &log(name)).await?,
        };
        endpoint.deploy(&build::build().await?, overrides).await
    }

    /// The same stack, with clients of its own. It ends with the one that it is of.
    pub async fn share(&self) -> Self {
        Self {
            emulator: None,
            deployed: self.deployed.clone(),
            issuer: self.issuer.clone(),
            config: local_config(&self.deployed.endpoint_url).await,
        }
    }

    /// Connects a client with a fresh token.
    ///
    /// # Errors
    /// [`NotConnected`].
    pub async fn connect(&self, tenant: &str, user: &str) -> Result<Socket, NotConnected> {
        let token =
            self.issuer.token(tenant, user, Duration::from_secs(3600)).map_err(NotConnected::Failed)?;
        Socket::connect(&self.deployed.websocket_url, Some(&token)).await
    }

    /// The connection table.
    #[must_use]
    pub fn table(&self) -> ConnectionTable {
        ConnectionTable::new(aws_sdk_dynamodb::Client::new(&self.config), &self.deployed.connections_table)
    }

    /// A producer for the outbound queue.
    #[must_use]
    pub fn producer(&self) -> Producer {
        Producer::new(aws_sdk_sqs::Client::new(&self.config), &self.deployed.queue_url)
    }

    /// The processes of a function, as they are now.
    ///
    /// # Errors
    /// When the stack has no such function, or processes cannot be listed.
    pub fn processes(&self, function: &str) -> anyhow::Result<Processes> {
        let function = self.deployed.functions.get(function).context("no such function")?;
        Processes::with_environment(&[
            format!("AWS_LAMBDA_FUNCTION_NAME={function}"),
            format!("AWS_ENDPOINT_URL={}", self.deployed.endpoint_url),
        ])
    }

    /// Ends it, and waits until all its processes have ended. What was deployed to an endpoint of somebody
    /// else's is removed from there.
    ///
    /// # Errors
    /// When something cannot be removed, or the emulator cannot be waited for.
    pub async fn end(self) -> anyhow::Result<()> {
        match self.emulator {
            Some(emulator) => emulator.end().await,
            None => deploy::remove(&self.config, &self.deployed).await,
        }
    }
}

/// Where the emulator of the stack `name` logs.
#[must_use]
pub fn log(name: &str) -> PathBuf {
    places::under(format!("logs/{name}.log"))
}

//! The whole stack on this machine: an emulator of AWS, our real Lambda binaries deployed to it, and a router.
//!
//! - [`emulator`]: installs and runs an emulator, MiniStack. [`build`]: builds the Lambdas. [`mod@deploy`]: deploys
//!   [`facts`], which Terraform reads too.
//! - [`Stack`]: a running one. It ends, with every process that it started, when it is dropped and when the
//!   process ends in any way.
//! - [`issuer`] and [`socket`]: what a client needs, a token and a WebSocket.
//! - [`outage`]: a way to the management endpoint that can be made to fail.

pub mod build;
pub mod deploy;
pub mod emulator;
pub mod facts;
pub mod issuer;
pub mod log;
pub mod logs;
pub mod outage;
pub mod places;
pub mod processes;
pub mod python;
pub mod socket;
pub mod state;

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use aws_config::SdkConfig;
use streamer_connections::ConnectionTable;
use streamer_producer::Producer;

use self::{
    build::{Binaries, Router},
    deploy::{Deployed, Overrides, deploy, local_config},
    emulator::{Emulator, Installed, MINISTACK},
    facts::Facts,
    issuer::Issuer,
    log::Log,
    processes::Processes,
    socket::{NotConnected, Socket},
};
use crate::queue::Counts;

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    host: Host,
    /// What is deployed, and where it is.
    pub deployed: Deployed,
    /// Who signs the tokens that it accepts.
    pub issuer: Issuer,
    /// The configuration of clients of its services.
    pub config: SdkConfig,
}

/// What a stack runs on, and so what its end takes.
#[derive(Debug)]
enum Host {
    /// An emulator of this process's: it ends with the stack.
    Own(Box<Emulator>),
    /// An endpoint of somebody else's: what was deployed to it is removed.
    Foreign,
    /// The same as another `Stack`'s, which ends it.
    Shared,
}

/// An emulator of AWS that is ready to be deployed to.
#[derive(Debug)]
pub struct Endpoint {
    host: Host,
    url: String,
}

impl Endpoint {
    /// Uses the endpoint that `AWS_ENDPOINT_URL` names, if any: another emulator that is up. It has to serve
    /// sockets and `@connections` at `/_aws/execute-api/{api}/{stage}`.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        let url = std::env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty())?;
        Some(Self { host: Host::Foreign, url: url.trim_end_matches('/').to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts an emulator, on `port` or on a free one, with its files in `folder`. What it says goes to `log`.
    ///
    /// # Errors
    /// When `port` is taken, or the emulator does not start.
    pub async fn start(
        installed: &Installed,
        port: Option<u16>,
        folder: &Path,
        log: &Log,
    ) -> anyhow::Result<Self> {
        let emulator = installed.start(port, folder, log).await?;
        let url = format!("http://{}", emulator.address);
        Ok(Self { host: Host::Own(Box::new(emulator)), url })
    }

    /// Starts an emulator of this process's, beside all others.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_own(installed: &Installed, name: &str) -> anyhow::Result<Self> {
        let unique = format!("{name}-{}", std::process::id());
        let log = |name: &str| Log::claim(places::state(format!("logs/{name}.log")));
        let log = match log(name)? {
            Some(log) => log,
            None => log(&unique)?.context("this process has a stack of that name already")?,
        };
        Self::start(installed, None, &places::state(format!("run/{unique}")), &log).await
    }

    /// Deploys the whole stack to it.
    ///
    /// # Errors
    /// Says what could not be made.
    pub async fn deploy(
        self,
        binaries: &Binaries,
        router: &Router,
        overrides: &Overrides,
    ) -> anyhow::Result<Stack> {
        let (config, issuer) = (local_config(&self.url).await, Issuer::generate()?);
        let mut facts = Facts::read()?;
        let deployed = if matches!(self.host, Host::Foreign) {
            let suffix = format!("-{}", std::process::id());
            facts.rename(&suffix);
            let deployed = deploy(&config, &facts, overrides, binaries, router, &issuer).await;
            deployed
                .with_context(|| format!("what was made at {} is still there, named …{suffix}", self.url))?
        } else {
            deploy(&config, &facts, overrides, binaries, router, &issuer).await?
        };
        Ok(Stack { host: self.host, deployed, issuer, config })
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
            None => Endpoint::start_own(&emulator::install(&MINISTACK).await?, name).await?,
        };
        endpoint.deploy(&build::build().await?, &Router::Example, overrides).await
    }

    /// The same stack, with clients of its own. It ends with the one that it is of.
    pub async fn share(&self) -> Self {
        Self::elsewhere(self.deployed.clone(), self.issuer.clone()).await
    }

    /// What is deployed at an endpoint already, by another process or by other means. Who ends it is their affair.
    pub async fn elsewhere(deployed: Deployed, issuer: Issuer) -> Self {
        let config = local_config(&deployed.endpoint_url).await;
        Self { host: Host::Shared, deployed, issuer, config }
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
        Producer::new(&aws_sdk_sqs::Client::new(&self.config), &self.deployed.queue_url)
    }

    /// Whether a queue holds nothing, neither visible nor in flight nor delayed.
    ///
    /// # Errors
    /// When the queue does not say.
    pub async fn is_empty(&self, queue_url: &str) -> anyhow::Result<bool> {
        Ok(Counts::of(&aws_sdk_sqs::Client::new(&self.config), queue_url).await?.all() == 0)
    }

    /// The processes of a function, as they are now.
    ///
    /// # Errors
    /// When the stack has no such function, or processes cannot be listed.
    pub fn processes(&self, function: &str) -> anyhow::Result<Processes> {
        let function = self.deployed.functions.get(function).context("no such function")?;
        Processes::of_function(function, &self.deployed.endpoint_url)
    }

    /// Ends it, and waits until all its processes have ended. What was deployed to an endpoint of somebody
    /// else's is removed from there.
    ///
    /// # Errors
    /// When something cannot be removed, or the emulator cannot be waited for.
    pub async fn end(self) -> anyhow::Result<()> {
        match self.host {
            Host::Own(emulator) => emulator.end().await,
            Host::Foreign => deploy::remove(&self.config, &self.deployed).await,
            Host::Shared => Ok(()),
        }
    }

    /// Waits until its emulator has ended, for whatever reason; for ever where it has none of its own.
    ///
    /// # Errors
    /// When the emulator cannot be waited for.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        match &mut self.host {
            Host::Own(emulator) => emulator.ended().await,
            Host::Foreign | Host::Shared => std::future::pending().await,
        }
    }

    /// Lets its emulator live on when this process ends.
    ///
    /// # Errors
    /// When the emulator's supervisor does not hear it.
    pub async fn detach(self) -> anyhow::Result<()> {
        match self.host {
            Host::Own(emulator) => emulator.detach().await,
            Host::Foreign | Host::Shared => Ok(()),
        }
    }

    /// The process to end for the emulator to end, where it has one of its own.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.host {
            Host::Own(emulator) => emulator.pid(),
            Host::Foreign | Host::Shared => None,
        }
    }
}

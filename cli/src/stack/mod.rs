//! A whole deployment on this machine: an emulator of AWS, the Lambda functions deployed to it, and a router.
//!
//! - [`emulator`]: installs and runs an emulator, MiniStack. [`build`]: builds the functions. [`router`]: the router's
//!   code. [`mod@deploy`]: creates the resources of `infra/stack.json`.
//! - [`Stack`]: a running stack. It ends, with every process that it started, when it is dropped and when this process
//!   ends, even by SIGKILL. [`owner`]: the process of the one stack that commands see, whose [`state`] it writes.
//! - [`issuer`] and [`socket`]: a client's token and WebSocket.
//! - [`front_door`]: the server that clients connect to, before the emulator.
//! - [`fault_proxy`]: makes the management endpoint fail.

pub mod build;
pub mod deploy;
pub mod emulator;
pub mod fault_proxy;
pub mod front_door;
mod identity;
pub mod issuer;
pub mod log;
pub mod logs;
pub mod owner;
pub mod processes;
pub mod python;
pub mod router;
pub mod socket;
pub mod state;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use aws_config::SdkConfig;
use streamer_connections::ConnectionTable;
use streamer_mailbox::{DynamoTable, Mailbox, Settings};
use streamer_producer::Producer;

use self::{
    build::Binaries,
    deploy::{DeployInput, Deployed, Overrides, deploy, local_config},
    emulator::{Emulator, Installed, MINISTACK},
    front_door::FrontDoor,
    issuer::Issuer,
    log::Log,
    processes::Processes,
    router::Router,
    socket::{NotConnected, Socket},
};
use crate::{paths, queue::MessageCounts, spec::Spec};

/// Variable that `streamer env` sets to the same URL as `AWS_ENDPOINT_URL`, which tells that URL from one of the user's.
pub const ENDPOINT_OF_STACK: &str = "STREAMER_ENDPOINT_URL";

/// Lifetime of the tokens with which [`Stack::connect`] connects.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    host: Host,
    /// The server at its WebSocket URL, if this process deployed it.
    _front_door: Option<FrontDoor>,
    /// Names and URLs of its resources.
    pub deployed: Deployed,
    /// The issuer of the tokens that it accepts.
    pub issuer: Issuer,
    /// The configuration of clients of its services.
    pub config: SdkConfig,
}

/// The endpoint that a stack runs on, which determines how the stack ends.
#[derive(Debug)]
enum Host {
    /// An emulator that this process started. It ends with the stack.
    Owned(Box<Emulator>),
    /// An endpoint that another process started. The stack's resources are removed from it.
    External,
    /// The endpoint of another `Stack` or process, which ends it.
    Shared,
}

/// An emulator of AWS that is ready for a deployment.
#[derive(Debug)]
pub struct Endpoint {
    host: Host,
    url: String,
}

fn endpoint_variable() -> Option<String> {
    std::env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty())
}

/// Returns whether `AWS_ENDPOINT_URL` has the value that `streamer env` gave it.
#[must_use]
pub fn has_own_endpoint() -> bool {
    endpoint_variable().is_some_and(|url| std::env::var(ENDPOINT_OF_STACK).is_ok_and(|own| own == url))
}

/// Returns the name of a stack of this process alone.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

impl Endpoint {
    /// Returns the endpoint that `AWS_ENDPOINT_URL` names: an emulator that is already running. It has to serve
    /// WebSockets and `@connections` at `/_aws/execute-api/{api}/{stage}`.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        // A stack's own variables must not make the next stack run on its emulator, which may be gone.
        let url = endpoint_variable().filter(|_| !has_own_endpoint())?;
        Some(Self { host: Host::External, url: url.trim_end_matches('/').to_owned() })
    }

    /// Returns the endpoint's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts an emulator, on `port` or on a free port, with its files in `folder` and its output in `log`.
    ///
    /// # Errors
    /// When `port` cannot be listened on, or the emulator does not start.
    pub async fn start(
        installed: &Installed,
        port: Option<u16>,
        folder: &Path,
        log: &Log,
    ) -> anyhow::Result<Self> {
        let emulator = installed.start(port, folder, log).await?;
        let url = format!("http://{}", emulator.address);
        Ok(Self { host: Host::Owned(Box::new(emulator)), url })
    }

    /// Starts an emulator for this process alone. Other processes can run theirs at the same time.
    ///
    /// # Errors
    /// When the emulator does not start.
    pub async fn start_own(installed: &Installed, name: &str) -> anyhow::Result<Self> {
        let unique = unique(name);
        let try_lock = |name: &str| Log::try_lock(paths::state(format!("logs/{name}.log")));
        let log = match try_lock(name)? {
            Some(log) => log,
            None => {
                try_lock(&unique)?.with_context(|| format!("this process already runs a stack `{name}`"))?
            }
        };
        Self::start(installed, None, &Self::folder(name), &log).await
    }

    /// Returns the folder of the emulator that [`start_own`](Self::start_own) starts. It exists until the emulator and
    /// its processes have ended.
    #[must_use]
    pub fn folder(name: &str) -> PathBuf {
        paths::state(format!("run/{}", unique(name)))
    }

    /// Deploys a whole stack.
    ///
    /// # Errors
    /// When a resource cannot be created. The error names it.
    pub async fn deploy(
        self,
        binaries: &Binaries,
        router: &Router,
        overrides: &Overrides,
    ) -> anyhow::Result<Stack> {
        let (config, issuer) = (local_config(&self.url).await, Issuer::generate()?);
        let mut spec = Spec::read()?;
        let suffix = matches!(self.host, Host::External).then(|| format!("-{}", std::process::id()));
        suffix.iter().for_each(|suffix| spec.rename(suffix));
        let input = DeployInput { spec: &spec, overrides, binaries, router, issuer: &issuer };
        let deployed = async {
            let mut deployed = deploy(&config, input).await?;
            let front_door =
                FrontDoor::start(&deployed.websocket_url, overrides.subprotocols(), overrides.limits);
            let front_door = front_door.context("cannot start the front door")?;
            deployed.websocket_url = front_door.url();
            anyhow::Ok((deployed, front_door))
        };
        let (deployed, front_door) = match suffix {
            Some(suffix) => deployed.await.with_context(|| {
                format!("the deployment at {} is incomplete: remove the resources named …{suffix}", self.url)
            })?,
            None => deployed.await?,
        };
        Ok(Stack { host: self.host, _front_door: Some(front_door), deployed, issuer, config })
    }
}

impl Stack {
    /// Installs an emulator, builds the functions, and starts and deploys a stack.
    ///
    /// # Errors
    /// When a tool is missing, or a resource cannot be created. The error names it.
    pub async fn start(name: &str, overrides: &Overrides) -> anyhow::Result<Self> {
        let endpoint = match Endpoint::from_env() {
            Some(endpoint) => endpoint,
            None => Endpoint::start_own(&emulator::install(&MINISTACK).await?, name).await?,
        };
        endpoint.deploy(&build::build().await?, &Router::Example, overrides).await
    }

    /// Returns the same stack with new clients. It ends with the original.
    pub async fn share(&self) -> Self {
        Self::attach(self.deployed.clone(), self.issuer.clone()).await
    }

    /// Returns a stack that another process deployed. Ending it is up to that process.
    pub async fn attach(deployed: Deployed, issuer: Issuer) -> Self {
        let config = local_config(&deployed.endpoint_url).await;
        Self { host: Host::Shared, _front_door: None, deployed, issuer, config }
    }

    /// Connects a client with a fresh token.
    ///
    /// # Errors
    /// When signing the token or the handshake fails.
    pub async fn connect(&self, tenant: &str, user: &str) -> Result<Socket, NotConnected> {
        let token = self.issuer.token(tenant, user, TOKEN_LIFETIME).map_err(NotConnected::Failed)?;
        Socket::connect(&self.deployed.websocket_url, Some(&token)).await
    }

    /// Returns the connection table.
    #[must_use]
    pub fn table(&self) -> ConnectionTable {
        ConnectionTable::new(aws_sdk_dynamodb::Client::new(&self.config), &self.deployed.connections_table)
    }

    /// Returns the mailbox.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox<DynamoTable> {
        let client = aws_sdk_dynamodb::Client::new(&self.config);
        Mailbox::new(DynamoTable::new(client, &self.deployed.mailbox_table), Settings::default())
    }

    /// Returns a producer for the outbound queue.
    #[must_use]
    pub fn producer(&self) -> Producer {
        Producer::new(&aws_sdk_sqs::Client::new(&self.config), &self.deployed.queue_url)
    }

    /// Returns whether a queue has no messages: none waiting, in flight or delayed.
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn is_empty(&self, queue_url: &str) -> anyhow::Result<bool> {
        let sqs = aws_sdk_sqs::Client::new(&self.config);
        Ok(MessageCounts::read(&sqs, queue_url).await?.total() == 0)
    }

    /// Returns whether the worker has ended all messages: none is on the outbound queue or on the parts queue. Messages
    /// leave the former for the latter, so it is read first.
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn is_drained(&self) -> anyhow::Result<bool> {
        let Deployed { queue_url, parts_queue_url, .. } = &self.deployed;
        if !self.is_empty(queue_url).await? {
            return Ok(false);
        }
        Ok(parts_queue_url.is_empty() || self.is_empty(parts_queue_url).await?)
    }

    /// Lists the current processes of a function.
    ///
    /// # Errors
    /// When the stack has no such function, or processes cannot be listed.
    pub fn processes(&self, function: &str) -> anyhow::Result<Processes> {
        let name = self.deployed.functions.get(function);
        let name = name.with_context(|| format!("the stack has no function `{function}`"))?;
        Processes::of_function(name, &self.deployed.endpoint_url)
    }

    /// Ends the stack and waits until its processes have ended. Removes its resources from an external endpoint.
    ///
    /// # Errors
    /// When a resource cannot be removed, or waiting for the emulator fails.
    pub async fn end(self) -> anyhow::Result<()> {
        match self.host {
            Host::Owned(emulator) => emulator.end().await,
            Host::External => deploy::remove(&self.config, &self.deployed).await,
            Host::Shared => Ok(()),
        }
    }

    /// Waits until the stack's own emulator has ended. Never returns if it has none.
    ///
    /// # Errors
    /// When waiting for the emulator fails.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        match &mut self.host {
            Host::Owned(emulator) => emulator.ended().await,
            Host::External | Host::Shared => std::future::pending().await,
        }
    }
}

//! LocalStack's SQS, a second implementation to check the emulator's against: the free edition, without Docker, started
//! once for each test binary and ended with its process.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::OnceLock,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use aws_config::Region;
use aws_credential_types::Credentials;
use aws_sdk_sqs::{Client, types::QueueAttributeName};
use streamer_cli::{
    paths,
    stack::{
        emulator::{Emulator, Program, REGION, install},
        log::Log,
        python::Packages,
    },
};
use streamer_environment::aws;
use streamer_message::sqs::FIFO_SUFFIX;
use tokio::runtime::{Builder, Runtime};

use crate::skip;

const LOCALSTACK: Program = Program {
    packages: Packages {
        name: "LocalStack",
        folder: "localstack",
        package: "localstack-core",
        requirements: include_str!("../localstack/requirements.txt"),
        pythons: &["python3.11", "python3"],
        versions: ("3.11", (3, 11), (3, 11)),
    },
    module: "localstack.runtime.main",
    variables,
    ready_text: |_| "Ready.".to_owned(),
};

/// Host mode: all files in one folder, one service, loopback only, no telemetry.
fn variables(address: SocketAddr, folder: &Path) -> Vec<(&'static str, String)> {
    let subfolder = |name: &str| {
        let subfolder = folder.join(name);
        // LocalStack reports a missing folder.
        _ = fs::create_dir_all(&subfolder);
        subfolder.display().to_string()
    };
    let mut variables = vec![
        ("GATEWAY_LISTEN", address.to_string()),
        ("LOCALSTACK_HOST", address.to_string()),
        ("FILESYSTEM_ROOT", subfolder("files")),
        ("CONFIG_DIR", subfolder("config")),
        ("XDG_CACHE_HOME", subfolder("cache")),
        ("TMPDIR", subfolder("tmp")),
        // Keeps LocalStack from finding a Docker daemon.
        ("DOCKER_HOST", format!("unix://{}", folder.join("no-docker.sock").display())),
    ];
    let fixed = [
        ("SERVICES", "sqs"),
        ("STRICT_SERVICE_LOADING", "1"),
        ("OVERRIDE_IN_DOCKER", "0"),
        ("GATEWAY_SERVER", "hypercorn"),
        ("PERSISTENCE", "0"),
        // http://127.0.0.1:{port}/queue/{region}/{account}/{name}
        ("SQS_ENDPOINT_STRATEGY", "path"),
        ("DISABLE_EVENTS", "1"),
        ("SKIP_SSL_CERT_DOWNLOAD", "1"),
        ("ANALYTICS_API", "http://127.0.0.1:9"),
        ("API_ENDPOINT", "http://127.0.0.1:9"),
        // No DNS server: it would listen on every interface.
        ("DNS_ADDRESS", "0"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", REGION),
    ];
    variables.extend(fixed.map(|(name, value)| (name, value.to_owned())));
    variables
}

/// Returns the URL of the SQS that all tests of this binary share. Returns `None` and prints the reason when LocalStack
/// cannot run on this machine; with `CI=true` that is an error.
///
/// # Errors
/// With `CI=true`, when something is missing or LocalStack does not start.
pub fn endpoint() -> anyhow::Result<Option<String>> {
    static STARTED: OnceLock<anyhow::Result<(Runtime, Emulator)>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let start = thread::spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let emulator = runtime.block_on(start())?;
            Ok((runtime, emulator))
        });
        start.join().map_err(|_| anyhow!("LocalStack's start panicked"))?
    });
    match started {
        Ok((_, emulator)) => Ok(Some(format!("http://{}", emulator.address))),
        Err(error) => skip(anyhow!("{error:#}")).map(|()| None),
    }
}

/// Returns a client of the SQS that all tests of this binary share, or `None` as [`endpoint`] does.
///
/// # Errors
/// As for [`endpoint`].
pub async fn sqs() -> anyhow::Result<Option<Client>> {
    Ok(match endpoint()? {
        Some(endpoint) => Some(client(endpoint).await),
        None => None,
    })
}

async fn start() -> anyhow::Result<Emulator> {
    let installed = install(&LOCALSTACK).await?;
    let unique = format!("localstack-{}", std::process::id());
    let claim = |name: &str| Log::try_lock(paths::state(format!("logs/{name}.log")));
    let log = match claim("localstack")? {
        Some(log) => log,
        None => claim(&unique)?.context("another process uses the log")?,
    };
    installed.start(None, &paths::state(format!("run/{unique}")), &log).await
}

async fn client(endpoint: String) -> Client {
    let loader = aws::loader().region(Region::new(REGION)).endpoint_url(endpoint);
    let credentials = Credentials::from_keys("test", "test", None);
    Client::new(&loader.credentials_provider(credentials).load().await)
}

/// Creates a queue with these attributes, and returns its URL. A name that ends with `.fifo` makes it a FIFO queue.
///
/// # Errors
/// When SQS rejects it.
pub async fn queue(
    sqs: &Client,
    name: &str,
    attributes: &[(QueueAttributeName, &str)],
) -> anyhow::Result<String> {
    let unique = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let (stem, fifo) = name.strip_suffix(FIFO_SUFFIX).map_or((name, ""), |stem| (stem, FIFO_SUFFIX));
    let mut create = sqs.create_queue().queue_name(format!("{stem}-{unique}{fifo}"));
    if !fifo.is_empty() {
        create = create.attributes(QueueAttributeName::FifoQueue, "true");
    }
    for (name, value) in attributes {
        create = create.attributes(name.clone(), *value);
    }
    create.send().await?.queue_url.context("the queue has no URL")
}

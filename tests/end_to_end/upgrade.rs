//! An upgrade: all functions are replaced with another package and back, while messages are on the queue and sockets
//! are open. Both packages hold the same code: `redrive.rs` and the worker's unit tests cover messages of other
//! versions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, HashSet},
    io::Write as _,
    time::SystemTime,
};

use aws_sdk_lambda::{Client, primitives::Blob};
use streamer_cli::stack::{Stack, build::build, deploy::Overrides, socket::Socket};
use streamer_message::{TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::{
    emulator::{VISIBILITY, crowd, producer},
    eventually, full,
};

use crate::arrivals::Arrivals;

const SOCKETS: usize = 20;

const FUNCTIONS: [(&str, &str); 4] = [
    ("connect", "connect-handler"),
    ("delivery", "delivery-worker"),
    ("disconnect", "disconnect-handler"),
    ("mailbox", "mailbox-handler"),
];

/// The functions' packages.
type Packages = Vec<(&'static str, Vec<u8>)>;

/// Returns two variants of the functions' packages, which differ in their hashes.
async fn packages() -> anyhow::Result<[Packages; 2]> {
    // A zip file ends with a comment and, before it, its length.
    const COMMENT: &[u8] = b"another build";
    let binaries = build().await?;
    let packages = FUNCTIONS.map(|(function, name)| Ok((function, binaries.zip(name)?)));
    let packages: Packages = packages.into_iter().collect::<anyhow::Result<_>>()?;
    let mut others = packages.clone();
    for (_, package) in &mut others {
        let length = package.len() - 2;
        package[length] = u8::try_from(COMMENT.len())?;
        package.extend_from_slice(COMMENT);
    }
    Ok([others, packages])
}

/// Replaces every function, and returns the last one's hash. Unlike AWS, the emulator kills running workers.
async fn replace(stack: &Stack, packages: &Packages) -> anyhow::Result<String> {
    let (lambda, mut hash) = (Client::new(&stack.config), String::new());
    for (function, package) in packages {
        let update = lambda.update_function_code().function_name(&stack.deployed.functions[*function]);
        let updated = update.zip_file(Blob::new(package.clone())).send().await?;
        hash = updated.code_sha256.unwrap();
    }
    Ok(hash)
}

/// Connects a client and disconnects it. A function that is being replaced may reject the handshake, so it is retried.
async fn connect_and_disconnect(stack: &Stack, user: &str) -> anyhow::Result<()> {
    let mut socket: Option<Socket> = None;
    eventually("the client is connected", async || {
        socket = stack.connect("upgrade", user).await.ok();
        Ok(socket.is_some())
    })
    .await?;
    socket.unwrap().close().await?;
    let (tenant, user) = (TenantId::new("upgrade")?, UserId::new(user)?);
    eventually("the row is removed", async || {
        let now = SystemTime::now();
        Ok(stack.table().by_user(&tenant, &user, None, now).await?.connections.is_empty())
    })
    .await
}

/// No message is lost and no socket closes while the functions are replaced.
#[tokio::test]
async fn upgrades_lose_no_message() -> anyhow::Result<()> {
    let (messages, upgrades) = if full() { (20_000, 40) } else { (4000, 8) };
    let worker = BTreeMap::from([("CONNECT_GRACE_SECONDS", "1".to_owned())]);
    let overrides = Overrides {
        visibility_timeout: Some(VISIBILITY),
        environment: BTreeMap::from([("delivery", worker)]),
        ..Overrides::default()
    };
    let stack = Stack::start("upgrade", &overrides).await?;
    let (sockets, ids) = crowd(&stack, "upgrade", "open", SOCKETS).await?;

    let mut arrivals = Arrivals::of(sockets);
    let all = (0..messages).map(|number| Message::connection(&ids[number % SOCKETS]).payload(&number));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let (producer, packages) = (producer(&stack.config, &stack.deployed.queue_url), packages().await?);
    let sending = async { anyhow::Ok(producer.send_all(all).await?) };
    let replacing = async {
        let (mut arrived, mut hashes, mut frames) = (HashSet::new(), Vec::new(), 0);
        while arrived.len() < messages {
            let (_, text) = arrivals.next(|| format!("{} of {messages} arrived", arrived.len())).await?;
            (frames, _) = (frames + 1, arrived.insert(text));
            let upgrade = hashes.len();
            if upgrade < upgrades && arrived.len() > upgrade * messages / (2 * upgrades) {
                hashes.push(replace(&stack, &packages[upgrade % 2]).await?);
                connect_and_disconnect(&stack, &format!("passing-{upgrade}")).await?;
            }
        }
        Ok((arrived, hashes, frames))
    };
    let ((), (arrived, hashes, mut frames)) = futures::try_join!(sending, replacing)?;
    let builds: HashSet<_> = hashes.iter().collect();
    assert_eq!((hashes.len(), builds.len()), (upgrades, 2), "upgrades and packages");
    eventually("the queue is empty", async || stack.is_empty(&stack.deployed.queue_url).await).await?;
    assert!(stack.is_empty(&stack.deployed.dead_letter_queue_url).await?, "a message became a dead letter");
    while arrivals.try_next().is_some() {
        frames += 1;
    }
    writeln!(
        std::io::stderr(),
        "upgrade: {messages} messages for {SOCKETS} open sockets, four functions replaced {upgrades} times, {} arrived, \
         {} arrived again",
        arrived.len(),
        frames - arrived.len()
    )?;
    assert!(arrivals.all_open(), "a socket is closed");
    stack.end().await
}

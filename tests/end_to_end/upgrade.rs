//! All functions are replaced by another package and back, while messages are on the queue and sockets are open. The
//! code is the same in both: what a worker does with messages of other versions, `redrive.rs` and the worker's own
//! tests say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, HashSet},
    io::Write as _,
    time::Duration,
};

use aws_sdk_lambda::{Client, primitives::Blob};
use futures::{StreamExt, TryStreamExt, stream};
use streamer_cli::stack::{Stack, build::build, deploy::Overrides};
use streamer_message::{TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::{emulator::VISIBILITY, eventually, full};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::LIMIT;

const SOCKETS: usize = 20;

const FUNCTIONS: [(&str, &str); 3] =
    [("connect", "connect-handler"), ("delivery", "delivery-worker"), ("disconnect", "disconnect-handler")];

/// The functions' packages.
type Packages = Vec<(&'static str, Vec<u8>)>;

/// The functions' packages, as they are and as others, to Lambda and to whoever looks at their hashes.
async fn packages() -> anyhow::Result<[Packages; 2]> {
    // A zip ends with the length of its comment, and the comment.
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

/// Replaces every function, and returns the last one's hash. The emulator kills what runs, which AWS does not.
async fn replace(stack: &Stack, packages: &Packages) -> anyhow::Result<String> {
    let (lambda, mut hash) = (Client::new(&stack.config), String::new());
    for (function, package) in packages {
        let update = lambda.update_function_code().function_name(&stack.deployed.functions[*function]);
        let updated = update.zip_file(Blob::new(package.clone())).send().await?;
        hash = updated.code_sha256.unwrap();
    }
    Ok(hash)
}

/// A client comes and goes. Whoever is refused by a function that is just replaced comes again.
async fn comes_and_goes(stack: &Stack, user: &str) -> anyhow::Result<()> {
    let socket = loop {
        match stack.connect("upgrade", user).await {
            Ok(socket) => break socket,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    socket.close().await?;
    let (tenant, user) = (TenantId::new("upgrade")?, UserId::new(user)?);
    eventually("the row is removed", async || {
        let now = std::time::SystemTime::now();
        Ok(stack.table().by_user(&tenant, &user, None, now).await?.connections.is_empty())
    })
    .await
}

#[tokio::test]
async fn nothing_is_lost_while_the_functions_are_replaced_and_sockets_stay_open() -> anyhow::Result<()> {
    let (messages, upgrades) = if full() { (20_000, 40) } else { (4000, 8) };
    let worker = BTreeMap::from([("CONNECT_GRACE_SECONDS", "1".to_owned())]);
    let overrides = Overrides {
        visibility_timeout: Some(VISIBILITY),
        environment: BTreeMap::from([("delivery", worker)]),
        ..Overrides::default()
    };
    let stack = Stack::start("upgrade", &overrides).await?;
    let connect = |_| async { stack.connect("upgrade", "open").await };
    let sockets: Vec<_> = stream::iter(0..SOCKETS).map(connect).buffer_unordered(10).try_collect().await?;
    let (tenant, user) = (TenantId::new("upgrade")?, UserId::new("open")?);
    let rows = stack.table().by_user(&tenant, &user, None, std::time::SystemTime::now()).await?.connections;
    assert_eq!(rows.len(), SOCKETS);

    let (arriving, mut arrivals) = mpsc::unbounded_channel();
    let mut listening = JoinSet::new();
    for mut socket in sockets {
        let arriving = arriving.clone();
        listening.spawn(async move {
            while let Ok(frame) = socket.next(LIMIT * 10).await {
                if arriving.send(frame.text).is_err() {
                    break;
                }
            }
        });
    }
    let all = (0..messages)
        .map(|number| Message::connection(&rows[number % SOCKETS].connection_id).payload(&number));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let (producer, packages) = (stack.producer(), packages().await?);
    let sending = async { Ok(producer.send_all(all).await?) };
    let replacing = async {
        let (mut arrived, mut hashes, mut frames) = (HashSet::new(), Vec::new(), 0);
        while arrived.len() < messages {
            let text: String = match timeout(LIMIT * 2, arrivals.recv()).await {
                Ok(text) => text.unwrap(),
                Err(_) => anyhow::bail!("{} of {messages} arrived", arrived.len()),
            };
            (frames, _) = (frames + 1, arrived.insert(text));
            let upgrade = hashes.len();
            if upgrade < upgrades && arrived.len() > upgrade * messages / (2 * upgrades) {
                hashes.push(replace(&stack, &packages[upgrade % 2]).await?);
                comes_and_goes(&stack, &format!("passing-{upgrade}")).await?;
            }
        }
        Ok((arrived, hashes, frames))
    };
    let ((), (arrived, hashes, mut frames)) = futures::try_join!(sending, replacing)?;
    let builds: HashSet<_> = hashes.iter().collect();
    assert_eq!((hashes.len(), builds.len()), (upgrades, 2), "another package, and back");
    eventually("the queue is empty", async || stack.is_empty(&stack.deployed.queue_url).await).await?;
    assert!(stack.is_empty(&stack.deployed.dead_letter_queue_url).await?, "no message became a dead letter");
    while let Ok(Some(_)) = timeout(Duration::from_millis(250), arrivals.recv()).await {
        frames += 1;
    }
    writeln!(
        std::io::stderr(),
        "upgrade: {messages} messages for {SOCKETS} open sockets, three functions replaced {upgrades} times, {} arrived, \
         {} came twice, 0 lost",
        arrived.len(),
        frames - arrived.len()
    )?;
    assert_eq!(listening.len(), SOCKETS, "every socket is still open");
    stack.end().await
}

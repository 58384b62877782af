//! The mailbox: messages that are kept for a user reach each device once, in order, whenever it comes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acknowledged;
mod commands;
mod device;
mod sizes;
mod upgrade;

use std::{
    collections::BTreeSet,
    io::Write as _,
    time::{Duration, SystemTime},
};

use serde_json::json;
use streamer_cli::stack::{
    Stack,
    build::build,
    deploy::{Overrides, deploy_delivery},
    processes::Processes,
};
use streamer_mailbox::{Listing, Stream};
use streamer_producer::Message;
use streamer_tests::{
    DEADLINE,
    emulator::{producer, stack},
    eventually,
};
use tokio::time::{Instant, sleep};

use self::device::{Device, State};
use crate::TENANT;

const HOUR: Duration = Duration::from_secs(3600);

/// Returns the mailbox of a user.
async fn listing(stack: &Stack, user: &str) -> anyhow::Result<Option<Listing>> {
    let stream = Stream { tenant: TENANT.try_into()?, user: user.try_into()? };
    Ok(stack.mailbox().list(&stream, SystemTime::now()).await?)
}

/// Waits until this many messages were stored for a user.
async fn stored(stack: &Stack, user: &str, number: u64) -> anyhow::Result<()> {
    eventually("the messages are stored", async || {
        Ok(listing(stack, user).await?.is_some_and(|listing| listing.top >= number))
    })
    .await
}

/// Workers are killed while they store 200 messages, and one device's sockets are cut while it reads them. It reads all
/// in order, and so does a device that comes later.
#[tokio::test]
async fn kills_and_cuts_lose_no_kept_message() -> anyhow::Result<()> {
    const MESSAGES: usize = 200;
    const KILLS: usize = 3;
    const USER: &str = "kept-storm";
    let stack = stack().await?;
    // A slow worker may exceed it. A second one then stores some messages again, with the same ids.
    let visibility_timeout = Some(Duration::from_secs(5));
    let overrides = Overrides { visibility_timeout, ..Overrides::default() };
    let (suffix, endpoint) = (format!("-kept-{}", std::process::id()), &stack.deployed.management_endpoint);
    let delivery = deploy_delivery(&stack.config, &suffix, &overrides, &build().await?, endpoint).await?;
    let producer = producer(&stack.config, &delivery.queue_url);
    // Pages of 30 KiB hold about 29 of them.
    let filler = "x".repeat(900);
    let messages = (0..MESSAGES).map(|number| {
        Message::user(TENANT, USER).keep(HOUR).payload(&json!({ "number": number, "filler": &filler }))
    });
    let messages = messages.collect::<Result<Vec<_>, _>>()?;
    let ids: BTreeSet<_> = messages.iter().map(|message| message.id().to_string()).collect();

    let mut random = fastrand::Rng::with_seed(13);
    let killing = async {
        let (mut killed, deadline) = (0, Instant::now() + DEADLINE);
        while killed < KILLS {
            let workers = Processes::of_function(&delivery.function, &stack.deployed.endpoint_url)?;
            killed += usize::from(workers.kill_one(&mut random));
            anyhow::ensure!(Instant::now() < deadline, "{killed} of {KILLS} workers killed");
            sleep(Duration::from_millis(random.u64(50..250))).await;
        }
        Ok(())
    };
    let reading = async {
        let (mut state, mut cuts) = (State::default(), 0);
        while state.read.len() < MESSAGES {
            let mut device = Device::connect(&stack, USER, state).await?;
            // A worker that is killed between storing and posting tells no device, so the device asks at times.
            for _ in 0..steps(cuts) {
                if !device.step(Duration::from_millis(500)).await? {
                    device.sync(false).await?;
                }
            }
            (state, cuts) = (device.state, cuts + 1);
        }
        Ok((state, cuts))
    };
    let sending = async { anyhow::Ok(producer.send_all(messages).await?) };
    let ((), (), (first, cuts)) = futures::try_join!(sending, killing, reading)?;

    let numbers = first.read.iter().map(|message| message.seq).chain(first.repeated.iter().copied());
    let numbers: BTreeSet<_> = numbers.collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "a hole: {numbers:?}");
    assert!(first.read.is_sorted_by_key(|message| message.seq));
    assert_eq!(first.read.iter().map(|message| message.id.clone()).collect::<BTreeSet<_>>(), ids);
    let second = Device::connect(&stack, USER, State::default()).await?.read_until(MESSAGES).await?;
    assert_eq!(second.read, first.read, "two devices read different messages");
    assert!(second.pages.len() > 5, "{:?}", second.pages);
    writeln!(
        std::io::stderr(),
        "mailbox: {MESSAGES} kept, {KILLS} workers killed, {cuts} sockets cut, 2 devices, {:?} messages a page, {} \
         stored again",
        second.pages,
        second.repeated.len()
    )?;
    Ok(())
}

/// Returns the number of frames after which a socket is cut: few at first, so that cuts and kills meet.
fn steps(cuts: usize) -> usize {
    [1, 2, 3, 5, 8][cuts % 5]
}

/// A device that has synced gets new messages live, with their numbers. A socket that has not gets other messages only.
#[tokio::test]
async fn live_devices_receive_numbered_messages() -> anyhow::Result<()> {
    const USER: &str = "kept-live";
    let stack = stack().await?;
    let mut without_sync = stack.connect(TENANT, USER).await?;
    let mut devices = Vec::new();
    for _ in 0..2 {
        let mut device = Device::connect(&stack, USER, State::default()).await?;
        assert!(device.step(DEADLINE).await?);
        assert_eq!((&device.state.read, &device.state.pages), (&vec![], &vec![0]), "the first page is empty");
        devices.push(device);
    }
    let producer = producer(&stack.config, &stack.deployed.queue_url);
    let payload = r#"{ "b": 1.0, "a": 1e400 }"#;
    producer.send(Message::user(TENANT, USER).keep(HOUR).id("live-1").json(payload)?).await?;
    for device in devices {
        let state = device.read_until(1).await?;
        let message = &state.read[0];
        assert_eq!((message.seq, message.id.as_str(), message.payload.as_str()), (1, "live-1", payload));
        assert_eq!(state.pages, [0], "it came in no page");
    }
    producer.send(Message::user(TENANT, USER).payload(&"not kept")?).await?;
    assert_eq!(without_sync.next(DEADLINE).await?.text, "\"not kept\"");
    Ok(())
}

/// The router behind `$default` would answer an unknown type with an error.
#[tokio::test]
async fn router_receives_no_frame_of_streamer() -> anyhow::Result<()> {
    const USER: &str = "kept-ping";
    let stack = stack().await?;
    let mut socket = stack.connect(TENANT, USER).await?;
    socket.send(&json!({ "type": "streamer.ping" })).await?;
    assert_eq!(socket.next(DEADLINE).await?.text, r#"{"type":"streamer.pong"}"#);
    // A sync without streams is not answered.
    socket.send(&json!({ "type": "streamer.sync", "n": 1, "streams": [] })).await?;
    socket.send(&json!({ "type": "streamer.sync", "n": 2, "streams": [{ "stream": "user" }] })).await?;
    let page = socket.next(DEADLINE).await?.json()?;
    assert_eq!((&page["type"], &page["n"]), (&json!("streamer.page"), &json!(2)));
    socket.send(&json!({ "type": "echo", "request_id": "r", "text": "hello" })).await?;
    assert_eq!(socket.next(DEADLINE).await?.json()?["data"], "hello");
    Ok(())
}

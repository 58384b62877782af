//! The functions are replaced by another build and back, while messages are on the queue and sockets are open.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::HashSet, io::Write as _, time::Duration};

use aws_sdk_lambda::{Client, primitives::Blob};
use futures::{StreamExt, TryStreamExt, stream};
use streamer_cli::stack::build::{Binaries, build};
use streamer_producer::{Message, Producer};
use streamer_tests::{eventually, full};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::{LIMIT, redrive::Bench, rows};

const SOCKETS: usize = 20;

/// A package of the worker that is another one, to Lambda and to whoever looks at its hash.
fn another(binaries: &Binaries, number: usize) -> anyhow::Result<Vec<u8>> {
    let mut package = binaries.zip("delivery-worker")?;
    if number % 2 == 1 {
        // A zip ends with the length of its comment, and the comment.
        let comment = b"another build";
        let length = package.len() - 2;
        package[length] = u8::try_from(comment.len())?;
        package.extend_from_slice(comment);
    }
    Ok(package)
}

#[tokio::test]
async fn nothing_is_lost_while_the_worker_is_replaced_and_sockets_stay_open() -> anyhow::Result<()> {
    let (messages, upgrades) = if full() { (20_000, 40) } else { (3000, 6) };
    let bench = Bench::new("upgrade").await?;
    let connect = |_| async { bench.stack.connect("path", "upgraded").await };
    let sockets: Vec<_> = stream::iter(0..SOCKETS).map(connect).buffer_unordered(10).try_collect().await?;
    let ids: Vec<_> =
        rows(&bench.stack, "upgraded").await?.into_iter().map(|row| row.connection_id).collect();
    let (arriving, mut arrivals) = mpsc::unbounded_channel();
    let mut listening = JoinSet::new();
    for mut socket in sockets {
        let arriving = arriving.clone();
        listening.spawn(async move {
            while let Ok(frame) = socket.next(LIMIT * 4).await {
                if arriving.send(frame.text).is_err() {
                    break;
                }
            }
        });
    }
    let producer = Producer::new(&bench.sqs, &bench.delivery.queue_url);
    let all = (0..messages).map(|number| Message::connection(&ids[number % SOCKETS]).payload(&number));
    producer.send_all(all.collect::<Result<Vec<_>, _>>()?).await?;
    let (lambda, binaries) = (Client::new(&bench.stack.config), build().await?);
    let (mut arrived, mut hashes, mut frames) = (HashSet::new(), Vec::new(), 0);
    while arrived.len() < messages {
        let text = timeout(LIMIT * 2, arrivals.recv()).await;
        let text = text.map_err(|_| anyhow::anyhow!("{} of {messages} arrived", arrived.len()))?;
        (frames, _) = (frames + 1, arrived.insert(text.unwrap()));
        let upgrade = hashes.len();
        if upgrade < upgrades && arrived.len() > upgrade * messages / (upgrades + 1) {
            // What runs is replaced in the middle of its work. The emulator kills it, which AWS does not.
            let update = lambda.update_function_code().function_name(&bench.delivery.function);
            let updated = update.zip_file(Blob::new(another(&binaries, upgrade)?)).send().await?;
            hashes.push(updated.code_sha256.unwrap());
        }
    }
    let builds: HashSet<_> = hashes.iter().collect();
    assert_eq!((hashes.len(), builds.len()), (upgrades, 2), "another build, and back");
    let outbound = &bench.delivery.queue_url;
    eventually("the queue is empty", async || bench.stack.is_empty(outbound).await).await?;
    assert_eq!(bench.letters().await?, (0, 0), "no message became a dead letter");
    while let Ok(Some(_)) = timeout(Duration::from_millis(250), arrivals.recv()).await {
        frames += 1;
    }
    writeln!(
        std::io::stderr(),
        "upgrade: {messages} messages for {SOCKETS} open sockets, the worker replaced {upgrades} times, {} arrived, {} \
         came twice, 0 lost",
        arrived.len(),
        frames - arrived.len()
    )?;
    Ok(())
}

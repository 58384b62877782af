//! A storm: many messages for open sockets, through a proxy that injects faults, to workers that are killed at
//! random. Every message reaches its socket at least once, or is in the dead-letter queue with a reason.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write as _,
    sync::Mutex,
    time::Duration,
};

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use streamer_cli::stack::{
    build::build,
    deploy::{Overrides, deploy_delivery},
    processes::Processes,
};
use streamer_message::dead_letter::{self, Reason};
use streamer_producer::{Message, Producer};
use streamer_tests::{
    emulator::{VISIBILITY, stack},
    eventually, full,
    proxy::{Fault, FaultProxy},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::rows;

const SOCKETS: usize = 200;

/// How long it may take until everything is there.
const LIMIT: Duration = Duration::from_secs(240);

/// 10 % 429, 5 % 500, and 2 % resets, half of them after the post was passed on.
fn fault(random: f64) -> Fault {
    match random {
        0.0..0.10 => Fault::Status(429),
        0.10..0.15 => Fault::Status(500),
        0.15..0.16 => Fault::Reset,
        0.16..0.17 => Fault::AnswerLost,
        _ => Fault::None,
    }
}

#[tokio::test]
async fn in_a_storm_every_message_arrives_or_is_a_dead_letter_with_a_reason() -> anyhow::Result<()> {
    let (messages, kills) = if full() { (5000, 10) } else { (1000, 3) };
    let stack = stack().await?;
    let connect = |_| async { stack.connect("path", "storm").await };
    let sockets: Vec<_> = stream::iter(0..SOCKETS).map(connect).buffer_unordered(20).try_collect().await?;
    let ids: Vec<_> = rows(&stack, "storm").await?.into_iter().map(|row| row.connection_id).collect();
    anyhow::ensure!(ids.len() == SOCKETS, "{} rows", ids.len());

    let random = Mutex::new(fastrand::Rng::with_seed(11));
    let origin = &stack.deployed.endpoint_url;
    let upstream = origin.strip_prefix("http://").context("no http endpoint")?.parse()?;
    let decide = move || fault(random.lock().map_or(1.0, |mut random| random.f64()));
    let proxy = FaultProxy::start(upstream, decide).await?;
    let endpoint = stack.deployed.management_endpoint.replace(origin, &proxy.origin());
    let overrides = Overrides { visibility_timeout: Some(VISIBILITY), ..Overrides::default() };
    let suffix = format!("-storm-{}", std::process::id());
    let delivery = deploy_delivery(&stack.config, &suffix, &overrides, &build().await?, &endpoint).await?;
    let sqs = aws_sdk_sqs::Client::new(&stack.config);

    let (arriving, mut arrivals) = mpsc::unbounded_channel();
    let mut listening = JoinSet::new();
    for mut socket in sockets {
        let arriving = arriving.clone();
        listening.spawn(async move {
            while let Ok(frame) = socket.next(LIMIT).await {
                if arriving.send(frame.text).is_err() {
                    break;
                }
            }
        });
    }
    let started = Instant::now();
    let producer = Producer::new(&sqs, &delivery.queue_url);
    let all: Vec<_> = (0..messages)
        .map(|number| Message::connection(&ids[number % SOCKETS]).payload(&number))
        .collect::<Result<_, _>>()?;
    producer.send_all(all).await?;

    let mut random = fastrand::Rng::with_seed(12);
    let (mut times, mut dead) = (HashMap::<usize, usize>::new(), BTreeMap::<usize, String>::new());
    let (mut killed, mut next_kill) = (0, started + Duration::from_millis(500));
    while times.keys().chain(dead.keys()).collect::<BTreeSet<_>>().len() < messages || killed < kills {
        anyhow::ensure!(
            started.elapsed() < LIMIT,
            "{} of {messages} arrived, {} dead",
            times.len(),
            dead.len()
        );
        if killed < kills && Instant::now() >= next_kill {
            let workers = Processes::of_function(&delivery.function, origin)?;
            killed += usize::from(workers.kill_one(&mut random));
            next_kill = Instant::now() + Duration::from_millis(random.u64(100..1000));
        }
        if let Ok(Some(text)) = timeout(Duration::from_millis(20), arrivals.recv()).await {
            *times.entry(text.parse()?).or_default() += 1;
            continue;
        }
        for (number, reason) in dead_letters(&sqs, &delivery.dead_letter_queue_url).await? {
            dead.insert(number, reason);
        }
    }
    // What a killed worker had posted comes again.
    eventually("the queue is empty", async || stack.is_empty(&delivery.queue_url).await).await?;
    while let Ok(text) = arrivals.try_recv() {
        *times.entry(text.parse()?).or_default() += 1;
    }
    let duplicates: usize = times.values().map(|times| times - 1).sum();
    writeln!(
        std::io::stderr(),
        "storm: {messages} messages for {SOCKETS} sockets, {} arrived, {duplicates} duplicates, {} dead letters, \
         {killed} workers killed, {:?} in {:.0} s",
        times.len(),
        dead.len(),
        proxy.counts(),
        started.elapsed().as_secs_f64()
    )?;
    // Two of the faults and every kill of a worker that is at it make duplicates.
    let counts = proxy.counts();
    let share = |fault| {
        counts.get(&fault).copied().unwrap_or_default() as f64 / counts.values().sum::<usize>() as f64
    };
    for (fault, expected) in [
        (Fault::Status(429), 0.10),
        (Fault::Status(500), 0.05),
        (Fault::Reset, 0.01),
        (Fault::AnswerLost, 0.01),
    ] {
        assert!((expected / 2.0..expected * 2.0).contains(&share(fault)), "{fault:?}: {}", share(fault));
    }
    assert!(duplicates > 0 && dead.len() < messages / 100, "{duplicates} duplicates, {} dead", dead.len());
    let reasons: BTreeSet<_> = dead.values().map(String::as_str).collect();
    assert!(reasons.is_subset(&BTreeSet::from(["exhausted", "crashed_or_throttled"])), "{reasons:?}");
    assert!((0..messages).all(|number| times.contains_key(&number) || dead.contains_key(&number)));
    Ok(())
}

/// The numbers of dead letters with their reasons. SQS itself gives none.
async fn dead_letters(sqs: &aws_sdk_sqs::Client, url: &str) -> anyhow::Result<Vec<(usize, String)>> {
    let receive = sqs.receive_message().queue_url(url).max_number_of_messages(10);
    let letters = receive.message_attribute_names("All").send().await?.messages.unwrap_or_default();
    let read = |letter: aws_sdk_sqs::types::Message| {
        let body: Value = serde_json::from_str(letter.body().unwrap_or_default())?;
        let attributes = letter.message_attributes.unwrap_or_default();
        let reason = attributes.get(dead_letter::REASON).and_then(|reason| reason.string_value());
        let number = body["payload"].as_u64().context("no number")?;
        Ok((usize::try_from(number)?, reason.unwrap_or(Reason::CrashedOrThrottled.as_str()).to_owned()))
    };
    letters.into_iter().map(read).collect()
}

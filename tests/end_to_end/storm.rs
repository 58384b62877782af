//! A storm: many messages for open sockets, through a proxy that injects faults, while workers are killed at random.
//! Every message reaches its socket at least once, or is on the dead-letter queue with a reason.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write as _,
    sync::Mutex,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::Value;
use streamer_cli::stack::{
    build::build,
    deploy::{Overrides, deploy_delivery},
    processes::Processes,
};
use streamer_message::dead_letter::{self, Reason};
use streamer_producer::Message;
use streamer_tests::{
    emulator::{VISIBILITY, crowd, producer, stack},
    eventually, full,
    proxy::{Fault, FaultProxy},
};
use tokio::time::Instant;

use crate::arrivals::Arrivals;

const SOCKETS: usize = 200;

/// How long the whole storm may take. A busy machine needs several times as long as an idle one.
const LIMIT: Duration = Duration::from_secs(600);

/// Injects 10 % of 429, 5 % of 500 and 2 % of resets, half of these after the post was passed on.
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
async fn storm_loses_no_message() -> anyhow::Result<()> {
    let (messages, kills) = if full() { (5000, 10) } else { (1000, 3) };
    let stack = stack().await?;
    let (sockets, ids) = crowd(&stack, "path", "storm", SOCKETS).await?;

    let random = Mutex::new(fastrand::Rng::with_seed(11));
    let origin = &stack.deployed.endpoint_url;
    let upstream = origin.strip_prefix("http://").context("not an http endpoint")?.parse()?;
    let decide = move || fault(random.lock().map_or(1.0, |mut random| random.f64()));
    let proxy = FaultProxy::start(upstream, decide).await?;
    let endpoint = stack.deployed.management_endpoint.replace(origin, &proxy.origin());
    let overrides = Overrides { visibility_timeout: Some(VISIBILITY), ..Overrides::default() };
    let suffix = format!("-storm-{}", std::process::id());
    let delivery = deploy_delivery(&stack.config, &suffix, &overrides, &build().await?, &endpoint).await?;
    let sqs = aws_sdk_sqs::Client::new(&stack.config);

    let (mut arrivals, started) = (Arrivals::of(sockets), Instant::now());
    let all: Vec<_> = (0..messages)
        .map(|number| Message::connection(&ids[number % SOCKETS]).payload(&number))
        .collect::<Result<_, _>>()?;
    producer(&stack.config, &delivery.queue_url).send_all(all).await?;

    let mut random = fastrand::Rng::with_seed(12);
    let (mut counts, mut dead) = (HashMap::<usize, usize>::new(), BTreeMap::<usize, String>::new());
    let (mut killed, mut next_kill) = (0, started + Duration::from_millis(500));
    while counts.keys().chain(dead.keys()).collect::<BTreeSet<_>>().len() < messages || killed < kills {
        anyhow::ensure!(
            started.elapsed() < LIMIT,
            "{} of {messages} arrived, {} dead letters, {killed} of {kills} workers killed",
            counts.len(),
            dead.len()
        );
        if killed < kills && Instant::now() >= next_kill {
            let workers = Processes::of_function(&delivery.function, origin)?;
            killed += usize::from(workers.kill_one(&mut random));
            next_kill = Instant::now() + Duration::from_millis(random.u64(100..1000));
        }
        if let Some((_, text)) = arrivals.next_within(Duration::from_millis(20)).await {
            *counts.entry(text.parse()?).or_default() += 1;
            continue;
        }
        for (number, reason) in dead_letters(&sqs, &delivery.dead_letter_queue_url).await? {
            dead.insert(number, reason);
        }
    }
    // SQS still delivers the last killed worker's messages again.
    eventually("the queue is empty", async || stack.is_empty(&delivery.queue_url).await).await?;
    while let Some((_, text)) = arrivals.try_next() {
        *counts.entry(text.parse()?).or_default() += 1;
    }
    let duplicates: usize = counts.values().map(|count| count - 1).sum();
    writeln!(
        std::io::stderr(),
        "storm: {messages} messages for {SOCKETS} sockets, {} arrived, {duplicates} duplicates, {} dead letters, \
         {killed} workers killed, {:?} in {:.0} s",
        counts.len(),
        dead.len(),
        proxy.counts(),
        started.elapsed().as_secs_f64()
    )?;
    let faults = proxy.counts();
    let share = |fault| {
        faults.get(&fault).copied().unwrap_or_default() as f64 / faults.values().sum::<usize>() as f64
    };
    for (fault, expected) in [
        (Fault::Status(429), 0.10),
        (Fault::Status(500), 0.05),
        (Fault::Reset, 0.01),
        (Fault::AnswerLost, 0.01),
    ] {
        assert!((expected / 2.0..expected * 2.0).contains(&share(fault)), "{fault:?}: {}", share(fault));
    }
    // A lost answer causes a duplicate, and so does a worker that is killed while it posts.
    assert!(duplicates > 0 && dead.len() < messages / 100, "{duplicates} duplicates, {} dead", dead.len());
    let reasons: BTreeSet<_> = dead.values().map(String::as_str).collect();
    assert!(reasons.is_subset(&BTreeSet::from(["exhausted", "crashed_or_throttled"])), "{reasons:?}");
    assert!((0..messages).all(|number| counts.contains_key(&number) || dead.contains_key(&number)));
    Ok(())
}

/// Returns the numbers of received dead letters with their reasons. Those that SQS moved have no attribute.
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

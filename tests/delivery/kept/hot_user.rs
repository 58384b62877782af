//! One user gets 200 kept messages a second from 20 workers.
//!
//! Each number of a stream is taken by a write, one after another, so the latency of a write bounds the rate of a
//! stream. Beyond it, workers that lose the race for 16 numbers hand their messages back, with a longer delay each time.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use futures::future::join_all;
use streamer_mailbox::Settings;
use streamer_queue::QueueKind;
use streamer_tests::{
    doubles::{Entry, MailboxDouble, MailboxFault, TableDouble},
    event::epoch,
    gateway::{MemoryGateway, status},
    sqs::Sqs,
    worker::{ENDPOINT, Rig},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{HOUR, kept_for, numbered};

const WORKERS: usize = 20;
/// One message of the hot user every 5 ms, for 2 s.
const MESSAGES: usize = 400;
const INTERVAL: Duration = Duration::from_millis(5);

/// The numbers of a run.
#[derive(Debug)]
struct Run {
    /// Writes of messages that found their number taken.
    collisions: usize,
    handed_back: usize,
    /// From the last message's arrival to the empty queue.
    drained_after: Duration,
    /// Maximum time from the arrival of another user's message to its post.
    slowest_other: Duration,
}

/// Runs all workers until the queue is empty. Messages of other users arrive ten times a second.
async fn run() -> anyhow::Result<(Run, MailboxDouble)> {
    fastrand::seed(7);
    let random = Mutex::new(fastrand::Rng::with_seed(7));
    let mailbox = MailboxDouble::scripted(move |_| {
        (Duration::from_micros(random.lock().unwrap().u64(3000..8000)), MailboxFault::None)
    });
    mailbox.register("anna", "a", ENDPOINT, epoch() + HOUR);
    let others: Vec<_> = (0..MESSAGES / 20).map(|other| format!("user-{other}")).collect();
    others.iter().for_each(|user| mailbox.register(user, user, ENDPOINT, epoch() + HOUR));
    let (sqs, began) = (Sqs::new(false), Instant::now());
    let end = began + INTERVAL * u32::try_from(MESSAGES)?;
    let producer = async {
        for index in 0..MESSAGES {
            sleep_until(began + INTERVAL * u32::try_from(index).unwrap()).await;
            sqs.send(kept_for("anna", &index.to_string()).to_string(), None, Duration::ZERO);
            if index % 20 == 0 {
                let user = &others[index / 20];
                sqs.send(kept_for(user, user).to_string(), None, Duration::ZERO);
            }
        }
    };
    let rigs: Vec<_> = (0..WORKERS).map(|_| rig(&sqs, &mailbox)).collect();
    let workers = join_all(rigs.iter().map(|rig| work(rig, &sqs, end)));
    tokio::join!(producer, workers);

    let posts: Vec<_> = rigs.iter().flat_map(|rig| rig.worker.gateway.posts()).collect();
    let delay = |(nth, user): (usize, &String)| {
        let sent = began + INTERVAL * u32::try_from(nth * 20).unwrap();
        let first = posts.iter().filter(|post| post.connection == *user).map(|post| post.at).min();
        first.unwrap().saturating_duration_since(sent)
    };
    let stored: usize = 1 + MESSAGES + 2 * others.len();
    let writes = mailbox.calls().iter().filter(|call| *call == "PutItem").count();
    let run = Run {
        collisions: writes - stored,
        handed_back: rigs.iter().map(|rig| rig.handed_back().len()).sum(),
        drained_after: Instant::now().saturating_duration_since(end),
        slowest_other: others.iter().enumerate().map(delay).max().unwrap_or_default(),
    };
    assert!(rigs.iter().all(|rig| rig.dead().is_empty()));
    assert!(others.iter().all(|user| mailbox.messages(user) == numbered([(1, user.as_str())])));
    Ok((run, mailbox))
}

fn rig(sqs: &Sqs, mailbox: &MailboxDouble) -> Rig {
    let gateway = MemoryGateway::scripted(|_, _| (Duration::from_millis(10), status(200)));
    let outbound = sqs.outbound(|_| (true, Entry::Taken), || true);
    let dead_letters = sqs.dead_letters(|_| (true, Entry::Taken));
    let mut rig = Rig::of(QueueKind::Standard, gateway, TableDouble::default(), outbound, dead_letters);
    let settings = Settings { max_messages: 10_000, ..Settings::default() };
    rig.worker.mailbox = Some(mailbox.mailbox_with(settings));
    rig
}

/// Invokes a worker until the queue is empty after `end`.
async fn work(rig: &Rig, sqs: &Sqs, end: Instant) {
    loop {
        let event = sqs.receive();
        match (event.records.is_empty(), sqs.next()) {
            (true, None) if Instant::now() >= end => return,
            (true, _) => sleep(INTERVAL).await,
            (false, _) => {
                let report = rig.invoke_at(sqs.now(), event.clone()).await.unwrap();
                sqs.acknowledge(&event, &report);
            }
        }
    }
}

/// Messages of the hot user are delayed. None is lost, the numbers have no hole, and other users notice nothing.
#[tokio::test(start_paused = true)]
async fn hot_user_delays_only_own_messages() -> anyhow::Result<()> {
    let (run, mailbox) = run().await?;
    println!("{MESSAGES} messages, {} calls: {run:?}", mailbox.calls().len());
    let (seqs, ids): (Vec<_>, BTreeSet<_>) = mailbox.messages("anna").into_iter().unzip();
    assert!(seqs.into_iter().eq(1..=MESSAGES as u64), "every number once");
    assert_eq!((ids.len(), mailbox.top("anna")), (MESSAGES, MESSAGES as u64), "every message once");
    assert!(run.collisions > 0 && run.handed_back > 0, "{run:?}");
    assert!(run.slowest_other < Duration::from_secs(1), "{run:?}");
    assert!(run.drained_after < Duration::from_secs(60), "{run:?}");
    Ok(())
}

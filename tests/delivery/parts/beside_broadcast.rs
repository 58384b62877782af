//! The delay of a reply to one person beside a broadcast to a large tenant, with the parts on the outbound queue and on a
//! queue of their own.
//!
//! Real workers in virtual time, at the pace of a deployment with the default of a thousand requests a second: two
//! environments of 500 posts a second on one queue, or two of 250 on each of two queues. A post takes 20 ms, and an idle
//! environment looks for messages every 20 ms. A query of the index takes 10 ms.

use std::{io::Write as _, time::Duration};

use delivery_worker::admission::Gate;
use futures::future::join_all;
use serde_json::json;
use streamer_tests::{
    doubles::{Crowd, Entry, TableDouble},
    event::message,
    gateway::{MemoryGateway, status},
    sqs::Sqs,
    worker::{PARTS_ARN, Rig},
};
use tokio::time::{Instant, sleep};

/// Length of a post, and time between two polls of an idle environment.
const STEP: Duration = Duration::from_millis(20);

/// Time between two replies, each to another person.
const BETWEEN_REPLIES: Duration = Duration::from_millis(900);

/// The largest delay of the replies, and the time until the broadcast has reached everybody.
struct Measured {
    median: Duration,
    longest: Duration,
    broadcast: Duration,
}

/// Broadcasts to so many connections, with environments of so many posts a second on each queue. Replies are sent until the
/// broadcast ends.
async fn measure(
    connections: usize,
    has_parts_queue: bool,
    posts_per_second: u32,
) -> anyhow::Result<Measured> {
    fastrand::seed(7);
    let (outbound, parts) = (Sqs::new(false), Sqs::new(false).named(PARTS_ARN));
    let crowd = Crowd::new([("acme", connections)]).paged(1000, Duration::from_millis(10));
    let rig = || {
        let gateway = MemoryGateway::scripted(|_, _| (STEP, status(200)));
        let accept = |_: &_| (true, Entry::Taken);
        let queue = outbound.outbound(accept, || true).forgetting();
        let mut rig = Rig::on(gateway, TableDouble::default(), queue, outbound.dead_letters(accept));
        rig.worker.table = Some(crowd.client());
        rig.worker.gate = Gate::new(Some(posts_per_second));
        if has_parts_queue {
            rig.set_parts(&parts.outbound(accept, || true).forgetting());
        }
        rig
    };
    let queues = if has_parts_queue { vec![&outbound, &parts] } else { vec![&outbound] };
    let rigs: Vec<_> = queues.iter().flat_map(|queue| [(*queue, rig()), (*queue, rig())]).collect();
    let began = Instant::now();
    outbound.send(
        json!({ "version": 1, "id": "all", "to": { "tenant": "acme" }, "payload": 1 }).to_string(),
        None,
        Duration::ZERO,
    );
    let is_over = || began.elapsed() > BETWEEN_REPLIES && queues.iter().all(|queue| queue.next().is_none());
    let replies = async {
        let mut sent = Vec::new();
        loop {
            sleep(BETWEEN_REPLIES).await;
            if is_over() {
                break;
            }
            let name = format!("reply-{}", sent.len());
            outbound.send(message(&name, &[&name]).to_string(), None, Duration::ZERO);
            sent.push(Instant::now());
        }
        sent
    };
    let environments = rigs.iter().map(|(queue, rig)| async {
        while !is_over() {
            let event = queue.receive();
            if event.records.is_empty() {
                sleep(STEP).await;
                continue;
            }
            let reported = rig.invoke_at(queue.now(), event.clone()).await?;
            queue.acknowledge(&event, &reported);
        }
        anyhow::Ok(())
    });
    let (sent, ended) = tokio::join!(replies, join_all(environments));
    ended.into_iter().collect::<anyhow::Result<Vec<_>>>()?;

    let posts: Vec<_> = rigs.iter().flat_map(|(_, rig)| rig.worker.gateway.posts()).collect();
    let reply = |post: &streamer_tests::gateway::Post| -> Option<usize> {
        post.connection.strip_prefix("reply-")?.parse().ok()
    };
    let delays = posts.iter().filter_map(|post| Some(post.ended_at? - sent[reply(post)?]));
    let mut delays: Vec<_> = delays.collect();
    delays.sort_unstable();
    let parts = posts.iter().filter(|post| reply(post).is_none());
    let ends: Vec<_> = parts.filter_map(|post| Some(post.ended_at? - began)).collect();
    anyhow::ensure!(ends.len() == connections, "{} of {connections} connections were posted to", ends.len());
    let broadcast = ends.into_iter().max().unwrap_or_default();
    let (median, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    Ok(Measured { median, longest, broadcast })
}

#[tokio::test(start_paused = true)]
async fn reply_passes_broadcast_on_a_queue_apart() -> anyhow::Result<()> {
    let mut output = std::io::stderr();
    for connections in [10_000, 100_000] {
        let shared = measure(connections, false, 500).await?;
        let apart = measure(connections, true, 250).await?;
        for (queues, Measured { median, longest, broadcast }) in
            [("one queue", &shared), ("two queues", &apart)]
        {
            writeln!(
                output,
                "a reply beside a broadcast to {connections}, {queues}: p50 {median:?}, at most {longest:?}; the \
                 broadcast takes {broadcast:?}"
            )?;
        }
        assert!(apart.longest < Duration::from_millis(100), "{:?}", apart.longest);
        assert!(shared.median > 20 * apart.longest && shared.longest * 2 > shared.broadcast);
        assert!(apart.broadcast < shared.broadcast * 21 / 10, "a half of the pace takes twice the time");
    }
    Ok(())
}

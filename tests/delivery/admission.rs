//! Admission of posts over whole invocations: the concurrency limit, the pacer and the circuit breaker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use delivery_worker::admission::Gate;
use serde_json::json;
use streamer_events::SqsEvent;
use streamer_gateway::PostResult;
use streamer_tests::{
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::Rig,
};
use tokio::time::{Instant, advance};

use crate::ids;

/// Time that a post takes.
const POST: Duration = Duration::from_millis(20);

/// Builds a batch that sends one message to each connection, 100 connections a message.
fn one_each(connections: &[String]) -> SqsEvent {
    batch(connections.chunks(100).enumerate().map(|(id, page)| {
        let page: Vec<_> = page.iter().map(String::as_str).collect();
        message(&id.to_string(), &page).to_string()
    }))
}

/// Returns connection ids with this prefix: `c0`, `c1`, ….
fn connections(prefix: &str, number: usize) -> Vec<String> {
    (0..number).map(|number| format!("{prefix}{number}")).collect()
}

mod slow_client {
    use super::*;

    /// Returns the milliseconds from the start of the invocation to each post to another connection, beside a slow
    /// client or beside another fast one.
    async fn posts_to_others(slow: bool) -> anyhow::Result<Vec<u128>> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, _| {
            (POST, status(if connection.starts_with("slow") { 429 } else { 200 }))
        }));
        let mut times = Vec::new();
        for _ in 0..50 {
            let started = Instant::now();
            let first = if slow { connections("slow", 1) } else { connections("fast", 1) };
            let all: Vec<_> = first.into_iter().chain(connections("c", 199)).collect();
            rig.invoke(one_each(&all)).await?;
            let before = times.len();
            let posts = rig.worker.gateway.posts();
            let new = posts.iter().filter(|post| post.connection.starts_with('c')).skip(before);
            times.extend(new.map(|post| (post.at - started).as_millis()));
        }
        assert!(rig.worker.gate.admission().limit() >= 128, "the limit is not halved");
        Ok(times)
    }

    /// Posts to other connections arrive at the same times as without the slow client.
    #[tokio::test(start_paused = true)]
    async fn leaves_latency_and_limit_unchanged() -> anyhow::Result<()> {
        assert_eq!(posts_to_others(true).await?, posts_to_others(false).await?);
        Ok(())
    }

    /// The limit is halved when all connections are throttled, not just one.
    #[tokio::test(start_paused = true)]
    async fn throttled_account_halves_limit() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(429))));
        let mut limits = Vec::new();
        for _ in 0..40 {
            rig.invoke(one_each(&connections("c", 30))).await?;
            limits.push(rig.worker.gate.admission().limit());
            advance(Duration::from_millis(80)).await;
        }
        // Ten invocations a second: the first one of each second halves the limit.
        assert_eq!([limits[0], limits[9], limits[10], limits[20], limits[30]], [64, 64, 32, 16, 8]);
        Ok(())
    }
}

/// Posts that the pacer would start after the deadline are handed back.
#[tokio::test(start_paused = true)]
async fn pacer_spans_invocations_and_respects_deadline() -> anyhow::Result<()> {
    let mut rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(200))));
    rig.worker.gate = Gate::new(Some(50));
    let started = Instant::now();
    for _ in 0..3 {
        assert_eq!(rig.invoke(one_each(&connections("c", 100))).await?, ids([]));
    }
    let took = started.elapsed().as_millis();
    assert!((5500..5600).contains(&took), "300 posts at 50 a second, with a burst of 25: {took} ms");
    let times: Vec<_> = rig.worker.gateway.posts().iter().map(|post| post.at).collect();
    for window in times.windows(77) {
        assert!(window[76] - window[0] >= Duration::from_secs(1), "at most 50 a second and a burst of 25");
    }

    rig.invoke_within(epoch(), Duration::from_secs(4), one_each(&connections("late", 400))).await?;
    let back = rig.handed_back();
    let sizes = back.iter().filter_map(|sent| sent.json()["to"]["connections"].as_array().map(Vec::len));
    let unfinished: usize = sizes.sum();
    assert!((270..=280).contains(&unfinished), "125 of 400 posts begin in 2.5 s, {unfinished} do not");
    assert!(back.iter().all(|sent| sent.json()["retry"]["cause"] == "deadline"));
    Ok(())
}

/// At the module's default of 500 a second, a broadcast after a pause begins with the posts of half a second.
#[tokio::test(start_paused = true)]
async fn broadcast_bursts_at_deployed_pace() -> anyhow::Result<()> {
    for (recipients, expected) in [(100, 20), (250, 40), (1000, 1520)] {
        let mut rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(200))));
        rig.worker.gate = Gate::new(Some(500));
        let started = Instant::now();
        rig.invoke(one_each(&connections("c", recipients))).await?;
        let took = started.elapsed().as_millis();
        assert!((expected..expected + 10).contains(&took), "{recipients} recipients take {took} ms");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn expired_message_uses_no_pacer_token() -> anyhow::Result<()> {
    let mut rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(200))));
    rig.worker.gate = Gate::new(Some(1));
    let started = Instant::now();
    let mut expiring = message("2", &["b"]);
    expiring["expires_at"] = (EPOCH_MILLIS + 500).into();
    let bodies = [message("1", &["a"]), expiring, message("3", &["c"])];
    assert_eq!(rig.invoke(batch(bodies.map(|body| body.to_string()))).await?, ids([]));
    let posts = rig.worker.gateway.posts();
    let times: Vec<_> =
        posts.iter().map(|post| (post.connection.as_str(), (post.at - started).as_millis())).collect();
    assert_eq!(times, [("a", 0), ("c", 1000)]);
    Ok(())
}

mod circuit {
    use super::*;

    /// Builds a worker whose endpoint fails until the returned flag is set.
    fn failing() -> (Rig, Arc<AtomicBool>) {
        let works = Arc::new(AtomicBool::new(false));
        let recovered = Arc::clone(&works);
        let rig = Rig::new(MemoryGateway::scripted(move |_, _| {
            (POST, status(if recovered.load(Ordering::Relaxed) { 200 } else { 503 }))
        }));
        (rig, works)
    }

    /// The worker hands back every message, with the time until the next probe as its delay.
    #[tokio::test(start_paused = true)]
    async fn open_costs_no_post_or_time() -> anyhow::Result<()> {
        let (rig, _) = failing();
        rig.invoke(one_each(&connections("c", 30))).await?;
        let posts = rig.worker.gateway.posts().len();
        assert!((30..=90).contains(&posts), "{posts} posts");

        let (started, before) = (Instant::now(), rig.handed_back().len());
        let mut bodies = vec![message("1", &["a", "b"]).to_string(), message("2", &["a"]).to_string()];
        let retry = json!({ "count": 0, "receives": 0, "since": EPOCH_MILLIS, "cause": "503" });
        bodies.extend((3..9).map(|id| {
            let mut body = message(&id.to_string(), &["c"]);
            body["retry"] = retry.clone();
            body.to_string()
        }));
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!((rig.worker.gateway.posts().len(), started.elapsed()), (posts, Duration::ZERO));
        let back = rig.handed_back().split_off(before);
        assert_eq!(back.len(), 8);
        for sent in back {
            assert_eq!(
                sent.json()["retry"]["cause"],
                "circuit open",
                "later messages of a lane get the same delay"
            );
            assert!(sent.delay.is_some_and(|delay| (5..=6).contains(&delay)), "{:?}", sent.delay);
        }
        Ok(())
    }

    /// Posts refused while all probes are in flight are delayed by 1 to 2 s; three successful probes close the circuit.
    #[tokio::test(start_paused = true)]
    async fn half_open_probes_with_three_posts() -> anyhow::Result<()> {
        let (rig, works) = failing();
        rig.invoke(one_each(&connections("c", 30))).await?;
        advance(Duration::from_secs(6)).await;
        works.store(true, Ordering::Relaxed);
        let (posts, before) = (rig.worker.gateway.posts().len(), rig.handed_back().len());
        rig.invoke(one_each(&connections("d", 30))).await?;
        assert_eq!(rig.worker.gateway.posts().len() - posts, 3);
        let back = rig.handed_back().split_off(before);
        assert_eq!(back[0].json()["to"]["connections"].as_array().map(Vec::len), Some(27));
        assert!(back[0].delay.is_some_and(|delay| (1..=2).contains(&delay)), "{:?}", back[0].delay);

        rig.invoke(one_each(&connections("e", 30))).await?;
        assert_eq!(rig.worker.gateway.posts().len() - posts, 33, "three successful probes close the circuit");
        assert_eq!(rig.handed_back().len(), before + 1);
        Ok(())
    }

    /// Such faults are gone connections, rejected messages and slow clients.
    #[tokio::test(start_paused = true)]
    async fn stays_closed_for_client_faults() -> anyhow::Result<()> {
        for code in [400, 410, 413, 429] {
            let rig = Rig::new(MemoryGateway::always(status(code)));
            rig.invoke(one_each(&connections("c", 200))).await?;
            assert_eq!(rig.worker.gateway.posts().len(), 200, "{code}");
            assert!(!rig.worker.gate.admission().is_open());
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn probe_given_up_frees_permit() -> anyhow::Result<()> {
        let answers = Arc::new(AtomicBool::new(true));
        let at_once = Arc::clone(&answers);
        let rig = Rig::new(MemoryGateway::scripted(move |_, _| match at_once.load(Ordering::Relaxed) {
            true => (POST, status(503)),
            false => (Duration::from_secs(60), status(200)),
        }));
        rig.invoke(one_each(&connections("c", 30))).await?;
        advance(Duration::from_secs(6)).await;
        answers.store(false, Ordering::Relaxed);
        for _ in 0..3 {
            let before = rig.worker.gateway.posts().len();
            rig.invoke_within(epoch(), Duration::from_secs(2), one_each(&connections("d", 30))).await?;
            assert_eq!(
                rig.worker.gateway.posts().len() - before,
                3,
                "the permits of the probes are free again"
            );
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn panicking_probe_frees_permit() -> anyhow::Result<()> {
        let panics = Arc::new(AtomicBool::new(false));
        let panicking = Arc::clone(&panics);
        let rig = Rig::new(MemoryGateway::scripted(move |_, _| match panicking.load(Ordering::Relaxed) {
            true => panic!("scripted panic"),
            false => (POST, PostResult::Timeout),
        }));
        rig.invoke(one_each(&connections("c", 30))).await?;
        advance(Duration::from_secs(6)).await;
        panics.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            let before = rig.worker.gateway.posts().len();
            rig.invoke(one_each(&connections("d", 1))).await?;
            assert_eq!(rig.worker.gateway.posts().len() - before, 1);
        }
        Ok(())
    }
}

mod failing_connections {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_do_not_stop_others() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, _| {
            (POST, status(if connection == "bad" { 500 } else { 200 }))
        }));
        for _ in 0..20 {
            rig.invoke(one_each(&["bad".to_owned()])).await?;
        }
        assert!(!rig.worker.gate.admission().is_open(), "60 failed posts to one connection");
        rig.invoke(one_each(&connections("c", 1))).await?;
        assert_eq!(rig.worker.gateway.texts("c0").len(), 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_do_not_stop_others() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, _| {
            (POST, status(if connection.starts_with("foreign") { 403 } else { 200 }))
        }));
        for round in 1..=20 {
            let all: Vec<_> = connections("foreign", 40).into_iter().chain(connections("good", 1)).collect();
            rig.invoke(one_each(&all)).await?;
            assert_eq!(rig.worker.gateway.texts("good0").len(), round);
            advance(Duration::from_secs(1)).await;
        }
        assert!(!rig.worker.gate.admission().is_open());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_posts_leave_limit_free() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, _| match connection.starts_with("hangs") {
            true => (Duration::from_secs(3600), status(200)),
            false => (POST, status(200)),
        }));
        let all: Vec<_> = connections("hangs", 128).into_iter().chain(connections("c", 800)).collect();
        rig.invoke(one_each(&all)).await?;
        let posts = rig.worker.gateway.posts();
        let others = posts.iter().filter(|post| post.connection.starts_with('c'));
        assert_eq!(others.filter(|post| post.answer.is_some()).count(), 800);
        assert!(!rig.worker.gate.admission().is_open(), "128 of 928 connections hang");
        Ok(())
    }

    /// Posts to all connections are refused, in two seconds.
    #[tokio::test(start_paused = true)]
    async fn refusals_of_all_open_circuit() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(403))));
        rig.invoke(one_each(&connections("c", 40))).await?;
        assert!(!rig.worker.gate.admission().is_open());
        advance(Duration::from_secs(1)).await;
        rig.invoke(one_each(&connections("c", 40))).await?;
        assert!(rig.worker.gate.admission().is_open());
        Ok(())
    }
}

mod frozen_environment {
    use super::*;

    /// Fails until the circuit has opened `times` times, then recovers. Returns the seconds and the invocations from
    /// the recovery to the delivery of a message. The environment's clock runs only for `millis` ms in each
    /// invocation.
    async fn recovery(times: u32, millis: u64) -> anyhow::Result<(u64, u32)> {
        let works = Arc::new(AtomicBool::new(false));
        let recovered = Arc::clone(&works);
        let rig = Rig::new(MemoryGateway::scripted(move |_, _| {
            (Duration::ZERO, status(if recovered.load(Ordering::Relaxed) { 200 } else { 503 }))
        }));
        let mut wall = epoch();
        for opening in 0..times {
            rig.invoke_at(wall, one_each(&connections("c", 30))).await?;
            wall += Duration::from_secs(5 << opening);
        }
        works.store(true, Ordering::Relaxed);
        let (recovered_at, mut invocations, mut body) = (wall, 0, message("m", &["x"]).to_string());
        loop {
            advance(Duration::from_millis(millis)).await;
            let before = rig.handed_back().len();
            rig.invoke_at(wall, batch([body.clone()])).await?;
            invocations += 1;
            let Some(sent) = rig.handed_back().split_off(before).pop() else { break };
            body = sent.body;
            wall += Duration::from_secs(sent.delay.unwrap_or_default().unsigned_abs().into());
            wall += Duration::from_millis(millis);
        }
        Ok((wall.duration_since(recovered_at)?.as_secs(), invocations))
    }

    #[tokio::test(start_paused = true)]
    async fn delivers_soon_after_recovery() -> anyhow::Result<()> {
        for (times, millis) in [(1, 30), (1, 0), (3, 30), (5, 30), (5, 100)] {
            let (seconds, invocations) = recovery(times, millis).await?;
            let took = format!("opened {times} times: {invocations} invocations, {seconds} s");
            assert!(seconds <= 130 && invocations <= 5, "{took}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn pacer_starts_full_after_freeze() -> anyhow::Result<()> {
        let mut rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(200))));
        rig.worker.gate = Gate::new(Some(10));
        for second in 0..10 {
            let started = Instant::now();
            rig.invoke_at(epoch() + Duration::from_secs(second * 60), one_each(&connections("c", 1))).await?;
            assert_eq!(started.elapsed(), POST);
        }
        Ok(())
    }
}

mod clock_skew {
    use super::*;

    /// The clock may be 10 minutes ahead or behind.
    #[tokio::test(start_paused = true)]
    async fn does_not_stop_posts() -> anyhow::Result<()> {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (clock, lambda) in [(minutes(10), minutes(0)), (minutes(0), minutes(10))] {
            let rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(200))));
            let deadline = epoch() + lambda + Duration::from_secs(30);
            rig.invoke_until(epoch() + clock, deadline, one_each(&connections("c", 3))).await?;
            assert_eq!((rig.worker.gateway.posts().len(), rig.handed_back().len()), (3, 0));
        }
        Ok(())
    }

    /// The clock leaves no time, as it may when the function's timeout is unknown.
    #[tokio::test(start_paused = true)]
    async fn delays_invocations_without_time_left() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let (mut body, mut wall, mut invocations) = (message("m", &["x"]).to_string(), epoch(), 0);
        while rig.dead().is_empty() {
            let before = rig.handed_back().len();
            rig.invoke_within(wall, Duration::ZERO, batch([body.clone()])).await?;
            invocations += 1;
            let Some(sent) = rig.handed_back().split_off(before).pop() else { break };
            body = sent.body;
            wall += Duration::from_secs(sent.delay.unwrap_or_default().unsigned_abs().into());
        }
        assert_eq!((rig.worker.gateway.posts().len(), rig.dead().len()), (0, 1));
        assert!(invocations < 400, "{invocations} invocations in 2 h 10 min");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_shorten_away_grace() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let to = json!({ "user": { "tenant": "acme", "user": "anna" } });
        let body = json!({ "version": 1, "id": "m", "to": to, "payload": 1 }).to_string();
        let clock = epoch() + Duration::from_secs(600);
        rig.invoke_until(clock, epoch() + Duration::from_secs(30), batch([body])).await?;
        assert_eq!(rig.handed_back().len(), 1, "the message is fresh, so the user may yet reconnect");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_overrun_invocation() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_secs(4), status(200))));
        let started = Instant::now();
        let bodies: Vec<_> = (0..20).map(|id| message(&id.to_string(), &["a"]).to_string()).collect();
        rig.invoke_until(epoch(), epoch() + Duration::from_secs(630), batch(bodies)).await?;
        assert!(started.elapsed() <= Duration::from_secs(30), "the clock is 10 min behind");
        Ok(())
    }
}

//! Which posts begin, and when: the limit, the pace and the circuit around whole invocations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_lambda_events::sqs::SqsEvent;
use delivery_worker::{admission::Gate, classify::PostResult};
use serde_json::json;
use streamer_tests::{
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::Rig,
};
use tokio::time::{Instant, advance};

use crate::ids;

const POST: Duration = Duration::from_millis(20);

/// A message for each of these connections.
fn one_each(names: &[String]) -> SqsEvent {
    batch(names.chunks(100).enumerate().map(|(id, names)| {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        message(&id.to_string(), &names).to_string()
    }))
}

fn names(prefix: &str, number: usize) -> Vec<String> {
    (0..number).map(|number| format!("{prefix}{number}")).collect()
}

mod a_slow_client {
    use super::*;

    /// When each post to the others arrived, after the invocation's start.
    async fn others(slow: bool) -> anyhow::Result<Vec<u128>> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, _| {
            (POST, status(if connection.starts_with("slow") { 429 } else { 200 }))
        }));
        let mut at = Vec::new();
        for _ in 0..50 {
            let started = Instant::now();
            let first = if slow { names("slow", 1) } else { names("another", 1) };
            let all: Vec<_> = first.into_iter().chain(names("c", 199)).collect();
            rig.invoke(one_each(&all)).await?;
            let before = at.len();
            let posts = rig.worker.gateway.posts();
            let new = posts.iter().filter(|post| post.connection.starts_with('c')).skip(before);
            at.extend(new.map(|post| (post.at - started).as_millis()));
        }
        assert!(rig.worker.gate.admission().limit() >= 128, "the limit is not halved");
        Ok(at)
    }

    #[tokio::test(start_paused = true)]
    async fn changes_neither_the_others_latency_nor_the_limit() -> anyhow::Result<()> {
        assert_eq!(others(true).await?, others(false).await?);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn is_told_apart_from_a_throttled_account() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(429))));
        let mut limits = Vec::new();
        for _ in 0..40 {
            rig.invoke(one_each(&names("c", 30))).await?;
            limits.push(rig.worker.gate.admission().limit());
            advance(Duration::from_millis(80)).await;
        }
        // Ten invocations a second: it is halved by the first of each.
        assert_eq!([limits[0], limits[9], limits[10], limits[20], limits[30]], [64, 64, 32, 16, 8]);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_pace_is_kept_over_invocations_and_the_deadline_is_not_waited_past() -> anyhow::Result<()> {
    let mut rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(200))));
    rig.worker.gate = Gate::new(Some(50));
    let started = Instant::now();
    for _ in 0..3 {
        assert_eq!(rig.invoke(one_each(&names("c", 100))).await?, ids([]));
    }
    let took = started.elapsed().as_millis();
    assert!((5900..6100).contains(&took), "300 posts at 50 a second, 5 of them at once: {took} ms");
    let at: Vec<_> = rig.worker.gateway.posts().iter().map(|post| post.at).collect();
    for second in at.windows(57) {
        assert!(second[56] - second[0] >= Duration::from_secs(1), "50 a second and a burst of 5");
    }

    rig.invoke_within(epoch(), Duration::from_secs(4), one_each(&names("late", 400))).await?;
    let back = rig.handed_back();
    let unfinished = back.iter().filter_map(|sent| sent.json()["to"]["connections"].as_array().map(Vec::len));
    let unfinished: usize = unfinished.sum();
    assert!((270..=280).contains(&unfinished), "125 of 400 are posted to in 2.5 s: {unfinished}");
    assert!(back.iter().all(|sent| sent.json()["retry"]["cause"] == "deadline"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_message_that_expires_while_it_waits_takes_no_place_of_the_pace() -> anyhow::Result<()> {
    let mut rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(200))));
    rig.worker.gate = Gate::new(Some(1));
    let started = Instant::now();
    let mut expiring = message("2", &["b"]);
    expiring["expires_at"] = (EPOCH_MILLIS + 500).into();
    let bodies = [message("1", &["a"]), expiring, message("3", &["c"])];
    assert_eq!(rig.invoke(batch(bodies.map(|body| body.to_string()))).await?, ids([]));
    let posts = rig.worker.gateway.posts();
    let seen: Vec<_> =
        posts.iter().map(|post| (post.connection.as_str(), (post.at - started).as_millis())).collect();
    assert_eq!(seen, [("a", 0), ("c", 1000)]);
    Ok(())
}

mod the_circuit {
    use super::*;

    /// A worker whose endpoint fails until it is told otherwise.
    fn failing() -> (Rig, Arc<AtomicBool>) {
        let works = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&works);
        let rig = Rig::new(MemoryGateway::scripted(move |_, _| {
            (POST, status(if now.load(Ordering::Relaxed) { 200 } else { 503 }))
        }));
        (rig, works)
    }

    #[tokio::test(start_paused = true)]
    async fn opens_and_then_costs_no_post_and_no_time() -> anyhow::Result<()> {
        let (rig, _) = failing();
        rig.invoke(one_each(&names("c", 30))).await?;
        let posts = rig.worker.gateway.posts().len();
        assert!((30..=90).contains(&posts), "{posts}");

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
            assert_eq!(sent.json()["retry"]["cause"], "circuit open", "what stands behind waits as long");
            assert!(sent.delay.is_some_and(|delay| (5..=6).contains(&delay)), "{:?}", sent.delay);
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn tries_three_posts_when_its_time_is_over_and_the_others_wait_for_1_s() -> anyhow::Result<()> {
        let (rig, works) = failing();
        rig.invoke(one_each(&names("c", 30))).await?;
        advance(Duration::from_secs(6)).await;
        works.store(true, Ordering::Relaxed);
        let (posts, before) = (rig.worker.gateway.posts().len(), rig.handed_back().len());
        rig.invoke(one_each(&names("d", 30))).await?;
        assert_eq!(rig.worker.gateway.posts().len() - posts, 3);
        let back = rig.handed_back().split_off(before);
        assert_eq!(back[0].json()["to"]["connections"].as_array().map(Vec::len), Some(27));
        assert!(back[0].delay.is_some_and(|delay| (1..=2).contains(&delay)), "{:?}", back[0].delay);

        rig.invoke(one_each(&names("e", 30))).await?;
        assert_eq!(rig.worker.gateway.posts().len() - posts, 33, "three that worked have closed it");
        assert_eq!(rig.handed_back().len(), before + 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn stays_closed_for_clients_that_are_gone_refused_or_slow() -> anyhow::Result<()> {
        for code in [400, 410, 413, 429] {
            let rig = Rig::new(MemoryGateway::always(status(code)));
            rig.invoke(one_each(&names("c", 200))).await?;
            assert_eq!(rig.worker.gateway.posts().len(), 200, "{code}");
            assert!(!rig.worker.gate.admission().is_open());
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn is_not_stuck_by_posts_that_are_given_up_at_the_deadline() -> anyhow::Result<()> {
        let answers = Arc::new(AtomicBool::new(true));
        let now = Arc::clone(&answers);
        let rig = Rig::new(MemoryGateway::scripted(move |_, _| match now.load(Ordering::Relaxed) {
            true => (POST, status(503)),
            false => (Duration::from_secs(60), status(200)),
        }));
        rig.invoke(one_each(&names("c", 30))).await?;
        advance(Duration::from_secs(6)).await;
        answers.store(false, Ordering::Relaxed);
        for _ in 0..3 {
            let before = rig.worker.gateway.posts().len();
            rig.invoke_within(epoch(), Duration::from_secs(2), one_each(&names("d", 30))).await?;
            assert_eq!(rig.worker.gateway.posts().len() - before, 3, "the probes' places are free again");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn is_not_stuck_by_a_probe_that_panics() -> anyhow::Result<()> {
        let panics = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&panics);
        let rig = Rig::new(MemoryGateway::scripted(move |_, _| match now.load(Ordering::Relaxed) {
            true => panic!("the gateway in memory panics as it is told"),
            false => (POST, PostResult::Timeout),
        }));
        rig.invoke(one_each(&names("c", 30))).await?;
        advance(Duration::from_secs(6)).await;
        panics.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            let before = rig.worker.gateway.posts().len();
            rig.invoke(one_each(&names("d", 1))).await?;
            assert_eq!(rig.worker.gateway.posts().len() - before, 1);
        }
        Ok(())
    }
}

mod a_few_connections {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn that_fail_stop_no_other() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, _| {
            (POST, status(if connection == "bad" { 500 } else { 200 }))
        }));
        for _ in 0..20 {
            rig.invoke(one_each(&["bad".to_owned()])).await?;
        }
        assert!(!rig.worker.gate.admission().is_open(), "60 posts failed, all to one connection");
        rig.invoke(one_each(&names("c", 1))).await?;
        assert_eq!(rig.worker.gateway.texts("c0").len(), 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn that_are_refused_stop_no_other() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, _| {
            (POST, status(if connection.starts_with("foreign") { 403 } else { 200 }))
        }));
        for round in 1..=20 {
            let all: Vec<_> = names("foreign", 40).into_iter().chain(names("good", 1)).collect();
            rig.invoke(one_each(&all)).await?;
            assert_eq!(rig.worker.gateway.texts("good0").len(), round);
            advance(Duration::from_secs(1)).await;
        }
        assert!(!rig.worker.gate.admission().is_open());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn that_hang_leave_the_limit_to_others() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, _| match connection.starts_with("hangs") {
            true => (Duration::from_secs(3600), status(200)),
            false => (POST, status(200)),
        }));
        let all: Vec<_> = names("hangs", 128).into_iter().chain(names("c", 800)).collect();
        rig.invoke(one_each(&all)).await?;
        let posts = rig.worker.gateway.posts();
        let others = posts.iter().filter(|post| post.connection.starts_with('c'));
        assert_eq!(others.filter(|post| post.answer.is_some()).count(), 800);
        assert!(!rig.worker.gate.admission().is_open(), "128 of 928 connections hang");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn refused_by_all_open_the_circuit() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(403))));
        rig.invoke(one_each(&names("c", 40))).await?;
        assert!(!rig.worker.gate.admission().is_open());
        advance(Duration::from_secs(1)).await;
        rig.invoke(one_each(&names("c", 40))).await?;
        assert!(rig.worker.gate.admission().is_open());
        Ok(())
    }
}

mod a_frozen_environment {
    use super::*;

    /// Fails until the circuit has opened `times`, and returns the seconds and invocations until a message arrives
    /// after the recovery. The environment's clock runs for `millis` in each invocation only.
    async fn recovery(times: u32, millis: u64) -> anyhow::Result<(u64, u32)> {
        let works = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&works);
        let rig = Rig::new(MemoryGateway::scripted(move |_, _| {
            (Duration::ZERO, status(if now.load(Ordering::Relaxed) { 200 } else { 503 }))
        }));
        let mut wall = epoch();
        for opened in 0..times {
            rig.invoke_at(wall, one_each(&names("c", 30))).await?;
            wall += Duration::from_secs(5 << opened);
        }
        works.store(true, Ordering::Relaxed);
        let (began, mut tries, mut body) = (wall, 0, message("m", &["x"]).to_string());
        loop {
            advance(Duration::from_millis(millis)).await;
            let before = rig.handed_back().len();
            rig.invoke_at(wall, batch([body.clone()])).await?;
            tries += 1;
            let Some(sent) = rig.handed_back().split_off(before).pop() else { break };
            body = sent.body;
            wall += Duration::from_secs(sent.delay.unwrap_or_default().unsigned_abs().into());
            wall += Duration::from_millis(millis);
        }
        Ok((wall.duration_since(began)?.as_secs(), tries))
    }

    #[tokio::test(start_paused = true)]
    async fn delivers_soon_after_recovery() -> anyhow::Result<()> {
        for (times, millis) in [(1, 30), (1, 0), (3, 30), (5, 30), (5, 100)] {
            let (seconds, tries) = recovery(times, millis).await?;
            assert!(seconds <= 130 && tries <= 5, "opened {times} times: {tries} tries, {seconds} s");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn begins_the_pace_in_full_after_a_freeze() -> anyhow::Result<()> {
        let mut rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(200))));
        rig.worker.gate = Gate::new(Some(10));
        for second in 0..10 {
            let started = Instant::now();
            rig.invoke_at(epoch() + Duration::from_secs(second * 60), one_each(&names("c", 1))).await?;
            assert_eq!(started.elapsed(), POST);
        }
        Ok(())
    }
}

mod a_clock_that_differs_from_lambdas {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn posts_all_the_same() -> anyhow::Result<()> {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (clock, lambda) in [(minutes(10), minutes(0)), (minutes(0), minutes(10))] {
            let rig = Rig::new(MemoryGateway::scripted(|_, _| (POST, status(200))));
            let deadline = epoch() + lambda + Duration::from_secs(30);
            rig.invoke_until(epoch() + clock, deadline, one_each(&names("c", 3))).await?;
            assert_eq!((rig.worker.gateway.posts().len(), rig.handed_back().len()), (3, 0));
        }
        Ok(())
    }

    /// As when the function's timeout is not known, and the clock leaves no time.
    #[tokio::test(start_paused = true)]
    async fn slows_down_tries_that_find_no_time() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let (mut body, mut wall, mut tries) = (message("m", &["x"]).to_string(), epoch(), 0);
        while rig.dead().is_empty() {
            let before = rig.handed_back().len();
            rig.invoke_within(wall, Duration::ZERO, batch([body.clone()])).await?;
            tries += 1;
            let Some(sent) = rig.handed_back().split_off(before).pop() else { break };
            body = sent.body;
            wall += Duration::from_secs(sent.delay.unwrap_or_default().unsigned_abs().into());
        }
        assert_eq!((rig.worker.gateway.posts().len(), rig.dead().len()), (0, 1));
        assert!(tries < 400, "{tries} tries in 2 h 10 min");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn shortens_no_grace() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let to = json!({ "user": { "tenant": "acme", "user": "anna" } });
        let body = json!({ "version": 1, "id": "m", "to": to, "payload": 1 }).to_string();
        let clock = epoch() + Duration::from_secs(600);
        rig.invoke_until(clock, epoch() + Duration::from_secs(30), batch([body])).await?;
        assert_eq!(rig.handed_back().len(), 1, "anna may be reconnecting: the message is fresh");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn overruns_no_invocation() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_secs(4), status(200))));
        let started = Instant::now();
        let bodies: Vec<_> = (0..20).map(|id| message(&id.to_string(), &["a"]).to_string()).collect();
        rig.invoke_until(epoch(), epoch() + Duration::from_secs(630), batch(bodies)).await?;
        assert!(started.elapsed() <= Duration::from_secs(30), "the clock is 10 min behind");
        Ok(())
    }
}

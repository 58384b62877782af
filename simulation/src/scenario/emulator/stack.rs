//! The loads on the local stack.

use std::{
    collections::HashSet,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};
use aws_sdk_lambda::primitives::Blob;
use bytes::Bytes;
use futures::future::join_all;
use streamer_cli::stack::{
    Endpoint, Stack,
    build::build,
    deploy::Overrides,
    emulator::{MINISTACK, install},
    router::Router,
    socket::Socket,
};
use streamer_gateway::{Gateway as _, ManagementApi, PostResult};
use streamer_message::{ConnectionId, TenantId};
use streamer_producer::Message;
use streamer_tests::emulator::crowd;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{AUDIENCE, CONNECTIONS, LOADS, Load, Times};
use crate::{
    model::Emulator,
    world::{Kind, Note, TENANT},
};

/// The tenant of the connections that have messages of their own.
const OTHERS: &str = "others";

/// Calls and messages of which the median is taken.
const CALLS: usize = 20;

/// Times that each load is run. The first time warms the functions up, and isn't measured.
const ROUNDS: u64 = 6;

/// Time for which a frame is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// Time between two rounds, in which invocations end.
const PAUSE: Duration = Duration::from_millis(1500);

/// A frame: when it arrived, the index of its socket, and its text.
type Arrival = (Instant, usize, String);

/// Measures the latencies of a stack, and runs the loads on it.
pub(super) async fn measure() -> anyhow::Result<(Emulator, Vec<Times>)> {
    let installed = install(&MINISTACK).await.context("the emulator is missing")?;
    let binaries = build().await?;
    let endpoint = Endpoint::start_own(&installed, "simulation").await?;
    let stack = endpoint.deploy(&binaries, &Router::Example, &Overrides::default()).await?;
    let measured = measure_on(&stack).await;
    // Also after a failure.
    stack.end().await.context("cannot end the emulator")?;
    measured
}

async fn measure_on(stack: &Stack) -> anyhow::Result<(Emulator, Vec<Times>)> {
    let (others, ids) = crowd(stack, OTHERS, "clients", CONNECTIONS).await?;
    let (audience, _) = crowd(stack, TENANT, "audience", AUDIENCE).await?;
    let mut bench = Bench::new(stack, others.into_iter().chain(audience), ids)?;
    for load in LOADS {
        bench.round(load, 0).await?;
    }
    let emulator = bench.latencies().await?;
    let mut measured = Vec::new();
    for load in LOADS {
        measured.push(bench.times(load).await?);
    }
    Ok((emulator, measured))
}

/// A stack with connected clients.
struct Bench<'a> {
    stack: &'a Stack,
    gateway: ManagementApi,
    ids: Vec<ConnectionId>,
    arrivals: UnboundedReceiver<Arrival>,
    _readers: JoinSet<()>,
}

impl<'a> Bench<'a> {
    fn new(
        stack: &'a Stack,
        sockets: impl Iterator<Item = Socket>,
        ids: Vec<ConnectionId>,
    ) -> anyhow::Result<Self> {
        let gateway = ManagementApi::new(&stack.config, &stack.deployed.management_endpoint, AUDIENCE)?;
        let (sender, arrivals) = mpsc::unbounded_channel();
        let mut readers = JoinSet::new();
        for (index, mut socket) in sockets.enumerate() {
            let sender = sender.clone();
            readers.spawn(async move {
                // Longer than the bench.
                while let Ok(frame) = socket.next(Duration::from_secs(3600)).await {
                    if sender.send((Instant::now(), index, frame.text)).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { stack, gateway, ids, arrivals, _readers: readers })
    }

    /// Runs a load several times, and returns its quantiles over all rounds, and the median of its last arrivals.
    async fn times(&mut self, load: Load) -> anyhow::Result<Times> {
        let (mut all, mut last, mut sends) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..ROUNDS {
            let (send, latencies) = self.round(load, round).await?;
            sends.push(send);
            last.extend(latencies.iter().copied().max());
            all.extend(latencies);
        }
        Ok(Times {
            p50: quantile(&mut all, 0.5),
            p99: quantile(&mut all, 0.99),
            last: quantile(&mut last, 0.5),
            send: median(&mut sends),
        })
    }

    /// Runs a load once. Returns the time of its send and the latencies of its frames.
    async fn round(&mut self, load: Load, round: u64) -> anyhow::Result<(Duration, Vec<Duration>)> {
        let note = |kind, number: usize| Note { kind, at: round, number: number as u64 }.write();
        let one = |kind, number: usize, connection: usize| {
            Message::connection(self.ids[connection].as_str()).json(note(kind, number))
        };
        let (messages, frames): (Vec<_>, _) = match load {
            Load::OneByOne(number) => return self.one_by_one(number, round).await,
            Load::Lane(number) => ((0..number).map(|sent| one(Kind::Single, sent, 0)).collect(), number),
            Load::Burst(number) => ((0..number).map(|sent| one(Kind::Single, sent, sent)).collect(), number),
            Load::Broadcast => (vec![Message::tenant(TENANT).json(note(Kind::Broadcast, 0))], AUDIENCE),
        };
        let messages = messages.into_iter().collect::<Result<Vec<_>, _>>()?;
        let began = Instant::now();
        self.stack.producer().send_all(messages).await?;
        let send = began.elapsed();
        let latencies = self.receive(began, round, frames).await?;
        sleep(PAUSE).await;
        Ok((send, latencies))
    }

    /// Sends messages one after another. Returns the median time of a send, and the latencies.
    async fn one_by_one(&mut self, number: usize, round: u64) -> anyhow::Result<(Duration, Vec<Duration>)> {
        let (producer, mut sends, mut latencies) = (self.stack.producer(), Vec::new(), Vec::new());
        for sent in 0..number {
            let note = Note { kind: Kind::Single, at: round, number: sent as u64 }.write();
            let message = Message::connection(self.ids[0].as_str()).json(note)?;
            let began = Instant::now();
            producer.send(message).await?;
            sends.push(began.elapsed());
            latencies.extend(self.receive(began, round, 1).await?);
            sleep(PAUSE / 5).await;
        }
        Ok((median(&mut sends), latencies))
    }

    /// Waits for so many different frames of a round, and returns their latencies since `began`.
    async fn receive(&mut self, began: Instant, round: u64, frames: usize) -> anyhow::Result<Vec<Duration>> {
        let (mut seen, mut latencies) = (HashSet::new(), Vec::new());
        while latencies.len() < frames {
            let arrival = timeout(LIMIT, self.arrivals.recv()).await;
            let arrival =
                arrival.with_context(|| format!("{} of {frames} frames arrived", latencies.len()))?;
            let (at, socket, text) = arrival.context("every client has lost its connection")?;
            let note = Note::read(&Bytes::from(text)).filter(|note| note.at == round);
            // A frame of an earlier load, or one that was sent before, is a duplicate: delivery is at least once.
            if at >= began && note.is_some_and(|note| seen.insert((socket, note.number))) {
                latencies.push(at - began);
            }
        }
        Ok(latencies)
    }

    /// Measures the latencies of single calls and messages.
    async fn latencies(&mut self) -> anyhow::Result<Emulator> {
        let first = &self.ids[0];
        let post = median_of(async || self.post(first).await).await?;
        let began = Instant::now();
        for posted in join_all(self.ids.iter().map(|id| self.post(id))).await {
            posted?;
        }
        let post_of_many = began.elapsed() / self.ids.len() as u32;
        let (table, tenant) = (self.stack.table(), TenantId::new(TENANT)?);
        let query = median_of(async || {
            table.by_tenant(&tenant, 0, None, SystemTime::now()).await?;
            Ok(())
        })
        .await?;
        let lambda = aws_sdk_lambda::Client::new(&self.stack.config);
        let worker = self.stack.deployed.functions.get("delivery").context("the stack has no worker")?;
        let invocation = median_of(async || {
            let invoke = lambda.invoke().function_name(worker).payload(Blob::new(r#"{"Records":[]}"#));
            invoke.send().await?;
            Ok(())
        })
        .await?;
        let mappings = lambda.list_event_source_mappings().function_name(worker).send().await?;
        let scaling = mappings.event_source_mappings().first().and_then(|mapping| mapping.scaling_config());
        let pollers = scaling.and_then(|scaling| scaling.maximum_concurrency()).unwrap_or(5);
        let (send, mut messages) = self.one_by_one(CALLS, u64::MAX).await?;
        let dispatch = median(&mut messages).saturating_sub(send + post);
        let rest = invocation.saturating_sub(dispatch);
        let post_of_many = post_of_many.min(post);
        Ok(Emulator { dispatch, rest, post, post_of_many, query, send, pollers: pollers as usize })
    }

    async fn post(&self, id: &ConnectionId) -> anyhow::Result<()> {
        let result = self.gateway.post(id, Bytes::from_static(b"0")).await;
        ensure!(matches!(result, PostResult::Status { status: 200, .. }), "a post failed: {result:?}");
        Ok(())
    }
}

/// Returns the median duration of a call.
async fn median_of(call: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let began = Instant::now();
        call().await?;
        times.push(began.elapsed());
    }
    Ok(median(&mut times))
}

fn median(times: &mut [Duration]) -> Duration {
    Duration::from_secs_f64(quantile(times, 0.5) / 1e3)
}

/// Returns a quantile of times, in milliseconds.
fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.max(1) - 1).copied().unwrap_or_default().as_secs_f64() * 1e3
}

//! A deployment in virtual time: real workers and connect handlers on test doubles, whose metrics are collected, and the
//! metrics of SQS and Lambda around them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use delivery_worker::admission::Gate;
use streamer_connections::Connection;
use streamer_gateway::PostResult;
use streamer_queue::QueueKind;
use streamer_tests::{
    doubles::{Entry, TableDouble, connection},
    event::epoch,
    gateway::{MemoryGateway, status},
    sqs::Sqs,
    worker::{ENDPOINT, Rig},
};
use tokio::time::Instant;

use crate::{
    cloudwatch::Values,
    definitions::{DEAD_LETTERS, OUTBOUND},
    traffic::{DEPLOYMENT, to_connection},
    written::{Sink, of_function, of_queue, telemetry},
};

/// The minute in which a stop begins.
pub(crate) const STOP: usize = 10;

/// The minute in which a run without a stop ends.
pub(crate) const END: usize = 60;

/// The minute in which a run with a stop ends.
const END_OF_STOP: usize = STOP + 21;

/// Latency of a post that is answered.
pub(crate) const QUICK: Duration = Duration::from_millis(20);

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Time between two receives that find no message.
const POLL: Duration = Duration::from_secs(1);

/// Time for which a user is away.
const AWAY: Duration = Duration::from_secs(25);

/// Users, each with a connection, in tenants of their own.
pub(crate) const USERS: usize = 6;

/// The worker's execution environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lambda {
    Runs,
    Crashes,
    Throttles,
    /// The event source mapping is disabled.
    IsNotInvoked,
}

/// Answers a post from a connection, the number of posts before it, and the time since the run began.
pub(crate) type Answer = fn(&str, usize, Duration) -> (Duration, PostResult);

/// A deployment, from the moment of a stop on. Before, everything works.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) kind: QueueKind,
    pub(crate) messages_per_minute: usize,
    /// The body of a message, by its number.
    pub(crate) body: fn(usize) -> String,
    pub(crate) answer: Answer,
    /// The bodies of further messages in a minute, for the first user.
    pub(crate) more: fn(usize) -> Vec<String>,
    /// The error of every call to the table.
    pub(crate) table: Option<&'static str>,
    pub(crate) outbound_accepts: bool,
    pub(crate) dead_letters_accept: bool,
    /// The management endpoint in the table's rows.
    pub(crate) endpoint: &'static str,
    pub(crate) lambda: Lambda,
    /// The minute in which the run ends.
    pub(crate) end: usize,
    /// Whether clients come and go, and the worker is deployed again.
    pub(crate) is_lively: bool,
}

impl World {
    /// A message a minute, each for one connection, and everything works.
    pub(crate) const WORKING: Self = Self {
        kind: QueueKind::Standard,
        messages_per_minute: 1,
        body: |number| to_connection(number).to_string(),
        answer: works,
        more: |_| Vec::new(),
        table: None,
        outbound_accepts: true,
        dead_letters_accept: true,
        endpoint: ENDPOINT,
        lambda: Lambda::Runs,
        end: END_OF_STOP,
        is_lively: false,
    };

    /// Runs the deployment, and returns what it wrote.
    pub(crate) async fn play(&self) -> anyhow::Result<Values> {
        fastrand::seed(7);
        let (sqs, began, sink) = (Sqs::new(self.kind == QueueKind::Fifo), Instant::now(), Sink::default());
        let stopped = Arc::new(AtomicBool::new(false));
        let mut rig = self.rig(&sqs, began, &sink, &stopped)?;
        self.connect(&rig, ENDPOINT).await?;
        let (mut values, mut sent, mut minute, mut returns) = (Values::default(), 0, 0, None);
        while minute < self.end {
            let tick = began + MINUTE * u32::try_from(minute)?;
            let receives = self.lambda != Lambda::IsNotInvoked || minute <= STOP;
            let event = returns.unwrap_or(tick);
            let visible = sqs.next().filter(|next| receives && *next < event);
            if let Some(next) = visible {
                sqs.wait(next, false).await;
                self.invoke(&rig, &sqs, stopped.load(Ordering::Relaxed), &mut values, minute - 1).await?;
            } else if let Some(returns) = returns.take() {
                sqs.wait(returns, false).await;
                self.connect(&rig, self.endpoint).await?;
            } else {
                sqs.wait(tick, false).await;
                self.sample(&sqs, &mut values, minute);
                if minute == STOP {
                    stopped.store(true, Ordering::Relaxed);
                    self.connect(&rig, self.endpoint)
                        .await
                        .or_else(|error| self.table.map(|_| ()).ok_or(error))?;
                }
                if self.is_lively {
                    returns = self.live(&mut rig, minute, sent).await?.then_some(tick + AWAY);
                }
                for _ in 0..self.messages_per_minute {
                    let body =
                        if minute < STOP { to_connection(sent).to_string() } else { (self.body)(sent) };
                    self.send(&sqs, sent, body);
                    sent += 1;
                }
                (self.more)(minute).into_iter().for_each(|body| self.send(&sqs, 0, body));
                minute += 1;
            }
            sink.drain(&mut values, minute - 1)?;
        }
        Ok(values)
    }

    fn send(&self, sqs: &Sqs, user: usize, body: String) {
        let group = format!("t{}", user % USERS);
        sqs.send(body, Some(group.as_str()).filter(|_| self.kind == QueueKind::Fifo), Duration::ZERO);
    }

    /// Deploys the worker again, and lets clients come and go. Returns whether one is away.
    async fn live(&self, rig: &mut Rig, minute: usize, sent: usize) -> anyhow::Result<bool> {
        if minute == DEPLOYMENT as usize {
            rig.worker.gate = Gate::default();
        }
        self.connect(rig, self.endpoint).await?;
        let goes_away = minute % 10 == 5;
        if goes_away {
            let id = format!("c{}", sent % USERS);
            rig.table.client().delete(&id.as_str().try_into()?).await?;
        }
        Ok(goes_away)
    }

    fn rig(&self, sqs: &Sqs, began: Instant, sink: &Sink, stopped: &Arc<AtomicBool>) -> anyhow::Result<Rig> {
        let is_stopped = || {
            let stopped = Arc::clone(stopped);
            move || stopped.load(Ordering::Relaxed)
        };
        let (answer, answers_stopped) = (self.answer, is_stopped());
        let gateway = MemoryGateway::scripted(move |connection, posts| {
            let answer = if answers_stopped() { answer } else { works };
            answer(connection, posts, Instant::now() - began)
        });
        let (fails, table_stopped) = (self.table.is_some(), is_stopped());
        let table = TableDouble::of(BTreeMap::<String, _>::new(), move || !(fails && table_stopped()));
        let table = table.failing_with(self.table.unwrap_or_default());
        let accepting = |accepts: bool| {
            let stopped = is_stopped();
            move |_: &_| match accepts || !stopped() {
                true => (true, Entry::Taken),
                false => (false, Entry::Refused),
            }
        };
        let outbound = sqs.outbound(accepting(self.outbound_accepts), || true).forgetting();
        let dead_letters = sqs.dead_letters(accepting(self.dead_letters_accept));
        let mut rig = Rig::of(self.kind, gateway, table, outbound, dead_letters);
        rig.worker.telemetry = telemetry("delivery-worker", sink)?;
        Ok(rig)
    }

    /// Writes the row of each user's connection.
    async fn connect(&self, rig: &Rig, endpoint: &str) -> anyhow::Result<()> {
        for user in 0..USERS {
            let id = format!("c{user}");
            if self.is_lively && rig.table.connections().contains(&id) {
                continue;
            }
            let row = Connection {
                user_id: format!("u{user}").as_str().try_into()?,
                tenant_id: format!("t{user}").as_str().try_into()?,
                endpoint: endpoint.to_owned(),
                ..connection(&id, epoch() - MINUTE)
            };
            rig.table.client().put(&row).await?;
        }
        Ok(())
    }

    async fn invoke(
        &self,
        rig: &Rig,
        sqs: &Sqs,
        is_stopped: bool,
        values: &mut Values,
        minute: usize,
    ) -> anyhow::Result<()> {
        let event = sqs.receive();
        if event.records.is_empty() {
            // A message of a FIFO queue waits behind one that is hidden.
            sqs.wait(sqs.instant() + POLL, false).await;
            return Ok(());
        }
        let lambda = if is_stopped { self.lambda } else { Lambda::Runs };
        values.add(of_function("delivery", "Errors"), minute, f64::from(u8::from(lambda == Lambda::Crashes)));
        values.add(
            of_function("delivery", "Throttles"),
            minute,
            f64::from(u8::from(lambda == Lambda::Throttles)),
        );
        if lambda == Lambda::Runs {
            let reported = rig.invoke_at(sqs.now(), event.clone()).await?;
            sqs.acknowledge(&event, &reported);
        }
        Ok(())
    }

    /// Samples the queues, as SQS does each minute. It writes nothing for a dead-letter queue that is empty and unused.
    fn sample(&self, sqs: &Sqs, values: &mut Values, minute: usize) {
        values.add(
            of_queue(OUTBOUND, "ApproximateAgeOfOldestMessage"),
            minute,
            sqs.age_of_oldest().as_secs_f64(),
        );
        let dead = sqs.dead().len();
        if dead > 0 {
            values.add(of_queue(DEAD_LETTERS, "ApproximateNumberOfMessagesVisible"), minute, dead as f64);
            values.add(of_queue(DEAD_LETTERS, "ApproximateNumberOfMessagesNotVisible"), minute, 0.0);
        }
    }
}

fn works(_: &str, _: usize, _: Duration) -> (Duration, PostResult) {
    (QUICK, status(200))
}
